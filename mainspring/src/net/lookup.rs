//! Running the system's resolver, a bounded number of times at once.
//!
//! Knows nothing of names: what is run is a function that blocks. A lookup cannot be ended from outside, so one
//! that is given up keeps its place until the resolver returns. Else callers who give up and try again would pile
//! up threads without a bound.
//!
//! # The line
//!
//! Who wants a place stands in line, in the order of asking. There is a number of free places, and *the first so
//! many in line may take one*. That is all of the state; it decides alone, wakers only make somebody look again.
//!
//! * Taking leaves the line and makes one place less free: who was among the first stays among the first.
//! * When a place becomes free, or when somebody who might have taken one leaves the line without, exactly one more
//!   is among the first: he is woken, after the lock is released.
//!
//! Invariant: whoever is in line and not among the first has a waker there, or has yet to look for the first time.
//!
//! Each lookup stands in line in a task of its own. If its caller did, a caller who asks for many and then waits for
//! something else, as the body of a loop over a stream of connections does, would keep all that come after it from
//! their turn, itself perhaps: nobody would look when it is called.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use crate::base::rank::{Rank, RankedMutex};
use crate::sched::task::{drop_user_value, wake};
use crate::task::JoinHandle;

/// Lookups at once in the process. A busy client needs a few; each takes a thread, and a pool has some hundred.
const AT_ONCE: usize = 64;

type Addrs = io::Result<Vec<SocketAddr>>;

/// Runs a function of the resolver's on the blocking pool, when it is its turn.
pub(super) async fn look_up(resolver: impl FnOnce() -> Addrs + Send + 'static) -> Addrs {
    static PLACES: OnceLock<Arc<Places>> = OnceLock::new();
    look_up_in(PLACES.get_or_init(|| Places::new(AT_ONCE)), resolver).await
}

async fn look_up_in(places: &Arc<Places>, resolver: impl FnOnce() -> Addrs + Send + 'static) -> Addrs {
    // In line before the task is queued, which may overtake others.
    let turn = places.take();
    let mut lookup = AbortOnDrop(crate::spawn(async move {
        let place = turn.await;
        let mut job = AbortOnDrop(crate::spawn_blocking(move || {
            let _place = place;
            resolver()
        }));
        (&mut job.0).await?
    }));
    (&mut lookup.0).await?
}

/// Who waits for it goes, and a job that no thread has begun is not begun any more.
struct AbortOnDrop(JoinHandle<Addrs>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Places {
    line: RankedMutex<Line>,
}

struct Line {
    free: usize,
    waiting: VecDeque<(u64, Option<Waker>)>,
    last: u64,
}

impl Line {
    fn position(&self, id: u64) -> Option<usize> {
        self.waiting.iter().position(|(other, _)| *other == id)
    }

    /// Whoever has just come to be among the first, if anybody has.
    fn newly_first(&mut self) -> Option<Waker> {
        self.waiting.get_mut(self.free.checked_sub(1)?)?.1.take()
    }
}

impl Places {
    fn new(count: usize) -> Arc<Places> {
        let line = Line { free: count, waiting: VecDeque::new(), last: 0 };
        Arc::new(Places { line: RankedMutex::new(Rank::Lookups, line) })
    }

    /// Joins the line.
    fn take(self: &Arc<Self>) -> Take {
        let mut line = self.line.lock();
        line.last += 1;
        let id = line.last;
        line.waiting.push_back((id, None));
        drop(line);
        Take { places: Arc::clone(self), id: Some(id) }
    }
}

/// The right to run one lookup.
struct Place(Arc<Places>);

impl Drop for Place {
    fn drop(&mut self) {
        let first = {
            let mut line = self.0.line.lock();
            line.free += 1;
            line.newly_first()
        };
        first.into_iter().for_each(wake);
    }
}

/// Standing in line.
struct Take {
    places: Arc<Places>,
    /// There while it does.
    id: Option<u64>,
}

impl Future for Take {
    type Output = Place;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Place> {
        let waker = context.waker().clone();
        let id = self.id.expect("it is not polled after it took a place");
        let (poll, unused) = {
            let mut line = self.places.line.lock();
            let position = line.position(id).expect("it is in line while it has a number");
            if position < line.free {
                line.free -= 1;
                let unused = line.waiting.remove(position).and_then(|(_, waker)| waker);
                (Poll::Ready(Place(Arc::clone(&self.places))), [Some(waker), unused])
            } else {
                (Poll::Pending, [line.waiting[position].1.replace(waker), None])
            }
        };
        if poll.is_ready() {
            self.id = None;
        }
        drop_user_value(unused);
        poll
    }
}

impl Drop for Take {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let (unused, first) = {
            let mut line = self.places.line.lock();
            let position = line.position(id).expect("it is in line while it has a number");
            let unused = line.waiting.remove(position);
            let first = if position < line.free { line.newly_first() } else { None };
            (unused, first)
        };
        drop_user_value(unused);
        first.into_iter().for_each(wake);
    }
}

#[cfg(all(test, not(mainspring_loom)))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Mutex, mpsc};
    use std::time::Duration;

    use super::*;
    use crate::time::timeout;

    /// A resolver that says when it has begun, and returns when it is let go.
    fn gated() -> (mpsc::Receiver<()>, mpsc::Sender<()>, impl FnOnce() -> Addrs + Send + 'static) {
        let (begin, begun) = mpsc::channel();
        let (open, gate) = mpsc::channel();
        let resolver = move || {
            begin.send(()).unwrap();
            gate.recv().unwrap();
            Ok(Vec::new())
        };
        (begun, open, resolver)
    }

    fn free(places: &Places) -> (usize, usize) {
        let line = places.line.lock();
        (line.free, line.waiting.len())
    }

    async fn until(places: &Places, expected: (usize, usize)) {
        while free(places) != expected {
            crate::task::yield_now().await;
        }
    }

    async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
        std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
    }

    #[test]
    fn no_more_run_at_once_than_may_and_all_come_to_their_turn() {
        let places = Places::new(3);
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        crate::block_on(async {
            let tasks: Vec<_> = (0..50)
                .map(|_| {
                    let (places, running, most) =
                        (Arc::clone(&places), Arc::clone(&running), Arc::clone(&most));
                    crate::spawn(async move {
                        look_up_in(&places, move || {
                            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            std::thread::sleep(Duration::from_millis(1));
                            running.fetch_sub(1, Ordering::SeqCst);
                            Ok(Vec::new())
                        })
                        .await
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap().unwrap();
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 3);
        assert_eq!(free(&places), (3, 0));
    }

    #[test]
    fn places_go_to_those_who_wait_in_the_order_of_their_asking() {
        let places = Places::new(1);
        let order = Arc::new(Mutex::new(Vec::new()));
        crate::block_on(async {
            let first = places.take().await;
            let mut waiting = Vec::new();
            for number in 0..10 {
                let (places, order) = (Arc::clone(&places), Arc::clone(&order));
                let mut lookup = Box::pin(async move {
                    let resolver = move || {
                        order.lock().unwrap().push(number);
                        Ok(Vec::new())
                    };
                    look_up_in(&places, resolver).await
                });
                assert!(poll_once(lookup.as_mut()).await.is_pending());
                waiting.push(crate::spawn(lookup));
            }
            drop(first);
            for lookup in waiting {
                lookup.await.unwrap().unwrap();
            }
        });
        assert_eq!(*order.lock().unwrap(), (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn a_lookup_that_is_given_up_keeps_its_place_until_the_resolver_returns() {
        let places = Places::new(1);
        crate::block_on(async {
            let (begun, open, resolver) = gated();
            let mut lookup = Box::pin(look_up_in(&places, resolver));
            assert!(poll_once(lookup.as_mut()).await.is_pending());
            begun.recv().unwrap();
            drop(lookup);
            // The next one waits in line, and leaves it.
            let mut next = Box::pin(look_up_in(&places, || panic!("it was given up")));
            assert!(poll_once(next.as_mut()).await.is_pending());
            assert_eq!(free(&places), (0, 1));
            drop(next);
            until(&places, (0, 0)).await;
            open.send(()).unwrap();
            look_up_in(&places, || Ok(Vec::new())).await.unwrap();
            assert_eq!(free(&places), (1, 0));
        });
    }

    #[test]
    fn whoever_leaves_the_line_takes_nobodys_turn_along() {
        let places = Places::new(1);
        crate::block_on(async {
            let place = places.take().await;
            let mut first = Box::pin(places.take());
            assert!(poll_once(first.as_mut()).await.is_pending());
            let second = crate::spawn({
                let places = Arc::clone(&places);
                async move { drop(places.take().await) }
            });
            until(&places, (0, 2)).await;
            drop(place);
            // The first one's turn has come, and it goes.
            drop(first);
            timeout(Duration::from_secs(30), second).await.unwrap().unwrap();
            assert_eq!(free(&places), (1, 0));
        });
    }

    #[test]
    fn whoever_is_in_line_and_looks_at_other_things_holds_nobody_up() {
        let places = Places::new(1);
        crate::block_on(async {
            let (_begun, open, resolver) = gated();
            let mut running = Box::pin(look_up_in(&places, resolver));
            assert!(poll_once(running.as_mut()).await.is_pending());
            let mut first = Box::pin(look_up_in(&places, || Ok(Vec::new())));
            assert!(poll_once(first.as_mut()).await.is_pending());
            open.send(()).unwrap();
            // The same task waits for another one meanwhile, as the body of a loop over a stream of lookups does.
            let second = look_up_in(&places, || Ok(Vec::new()));
            timeout(Duration::from_secs(10), second).await.unwrap().unwrap();
            first.await.unwrap();
            running.await.unwrap();
        });
    }

    #[test]
    fn a_resolver_that_panics_or_fails_gives_its_place_back() {
        let places = Places::new(1);
        crate::block_on(async {
            assert!(look_up_in(&places, || panic!("expected: a resolver")).await.is_err());
            let failure = || Err(io::Error::new(io::ErrorKind::NotFound, "no such host"));
            let error = look_up_in(&places, failure).await.unwrap_err();
            assert_eq!(
                (error.kind(), error.to_string()),
                (io::ErrorKind::NotFound, "no such host".to_owned())
            );
            look_up_in(&places, || Ok(Vec::new())).await.unwrap();
        });
    }
}
