//! The connections of a server: how many there are, telling them all to stop, and waiting for the last one.
//!
//! A connection is entered before its task is spawned and leaves when its task is dropped, so whoever has stopped accepting
//! misses none. Knows nothing of HTTP.
//!
//! Telling is one word and a waker for each connection. A connection stores its waker, then reads the word; who tells
//! changes the word and takes the wakers, both in one critical section. So either the waker was there and is called,
//! or the word is seen.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::base::primitive::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use crate::base::rank::{Rank, RankedMutex};
use crate::base::slab::{Key, Slab};
use crate::sched::task::{drop_user_value, wake};

/// How many connections there are, for all servers that count into it; see
/// [`Serve::with_connections`](super::Serve::with_connections). Clones count together.
///
/// # Examples
///
/// ```
/// # use mainspring::{net::TcpListener, serve::{App, Connections}};
/// # fn example<S: App>(listener: TcpListener, app: S) {
/// let connections = Connections::new();
/// let server = mainspring::serve(listener, app).with_connections(connections.clone());
/// assert_eq!(connections.open(), 0);
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Connections {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    open: AtomicUsize,
    accepted: AtomicU64,
}

impl Connections {
    /// None so far.
    pub fn new() -> Connections {
        Connections::default()
    }

    /// How many connections are open at the moment. One that was upgraded, to a websocket say, is in other hands and
    /// is not counted.
    pub fn open(&self) -> usize {
        // ordering: Relaxed, a statistic.
        self.counts.open.load(Ordering::Relaxed)
    }

    /// How many connections were accepted.
    pub fn accepted(&self) -> u64 {
        // ordering: Relaxed, a statistic.
        self.counts.accepted.load(Ordering::Relaxed)
    }
}

/// The connections of one server.
#[derive(Clone)]
pub(super) struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    state: RankedMutex<State>,
    /// A [`Phase`]. Written under the lock.
    phase: AtomicU8,
}

struct State {
    /// For each connection, what wakes it when the phase changes.
    wakers: Slab<Option<Waker>>,
    /// Who waits for the last connection.
    waiter: Option<Waker>,
}

/// What a connection is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Phase {
    Serve,
    /// Finish what has begun.
    Finish,
    /// End at once.
    CutOff,
}

impl Registry {
    pub(super) fn new() -> Registry {
        let state = RankedMutex::new(Rank::Connections, State { wakers: Slab::new(), waiter: None });
        Registry { shared: Arc::new(Shared { state, phase: AtomicU8::new(Phase::Serve as u8) }) }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.shared.state.lock().wakers.len()
    }

    /// Counts one more, until the entry is dropped.
    pub(super) fn enter(&self, connections: &Connections) -> Entry {
        // ordering: Relaxed, statistics.
        connections.counts.accepted.fetch_add(1, Ordering::Relaxed);
        connections.counts.open.fetch_add(1, Ordering::Relaxed);
        let key = self.shared.state.lock().wakers.insert(None);
        let (shared, connections) = (Arc::clone(&self.shared), connections.clone());
        Entry { shared, connections, key, registered: None, seen: Phase::Serve }
    }

    /// Tells all connections, those to come as well.
    pub(super) fn tell(&self, phase: Phase) {
        let mut wakers = Vec::new();
        let mut state = self.shared.state.lock();
        // ordering: Release, pairs with the Acquire in `Entry::poll_phase`.
        self.shared.phase.store(phase as u8, Ordering::Release);
        wakers.reserve(state.wakers.len());
        wakers.extend(state.wakers.iter_mut().filter_map(Option::take));
        drop(state);
        wakers.into_iter().for_each(wake);
    }

    /// Waits until there is none.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost. There is one waiter.
    pub(super) async fn all_gone(&self) {
        poll_fn(|context| {
            let waker = context.waker().clone();
            let mut state = self.shared.state.lock();
            let (poll, old) = match state.wakers.len() {
                0 => (Poll::Ready(()), Some(waker)),
                _ => (Poll::Pending, state.waiter.replace(waker)),
            };
            drop(state);
            drop_user_value(old);
            poll
        })
        .await;
    }
}

/// One connection among the others.
pub(super) struct Entry {
    shared: Arc<Shared>,
    connections: Connections,
    key: Key,
    /// The waker that was stored for the phase seen last.
    registered: Option<Waker>,
    seen: Phase,
}

impl Entry {
    /// The phase now; the task is woken when it changes. Costs a comparison and a load once the waker is stored.
    pub(super) fn poll_phase(&mut self, context: &mut Context<'_>) -> Phase {
        loop {
            if !self.registered.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                let waker = context.waker().clone();
                let mut state = self.shared.state.lock();
                let old = state.wakers.get_mut(self.key).and_then(|slot| slot.replace(waker));
                drop(state);
                drop_user_value(old);
                self.registered = Some(context.waker().clone());
            }
            // ordering: Acquire, pairs with the Release in `tell`.
            let phase = match self.shared.phase.load(Ordering::Acquire) {
                phase if phase == Phase::Serve as u8 => Phase::Serve,
                phase if phase == Phase::Finish as u8 => Phase::Finish,
                _ => Phase::CutOff,
            };
            if phase == self.seen {
                return phase;
            }
            // The waker has been taken out.
            self.seen = phase;
            self.registered = None;
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // ordering: Relaxed, a statistic.
        self.connections.counts.open.fetch_sub(1, Ordering::Relaxed);
        let mut state = self.shared.state.lock();
        let waker = state.wakers.remove(self.key).flatten();
        let waiter = if state.wakers.len() == 0 { state.waiter.take() } else { None };
        drop(state);
        drop_user_value(waker);
        if let Some(waiter) = waiter {
            wake(waiter);
        }
    }
}

#[cfg(all(test, not(mainspring_loom)))]
mod tests {
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn each_change_of_the_phase_wakes_once_and_is_seen() {
        let (registry, connections) = (Registry::new(), Connections::new());
        let mut entry = registry.enter(&connections);
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);
        for (number, phase) in [Phase::Serve, Phase::Finish, Phase::CutOff].into_iter().enumerate() {
            registry.tell(phase);
            assert_eq!(count.0.load(Ordering::Relaxed), number);
            assert_eq!(entry.poll_phase(&mut context), phase);
            assert_eq!(entry.poll_phase(&mut context), phase);
        }
        assert_eq!(registry.enter(&connections).poll_phase(&mut context), Phase::CutOff);
    }

    #[test]
    fn the_last_one_that_leaves_wakes_who_waits_for_it() {
        let (registry, connections) = (Registry::new(), Connections::new());
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);
        let (one, two) = (registry.enter(&connections), registry.enter(&connections));
        let mut gone = std::pin::pin!(registry.all_gone());
        assert!(gone.as_mut().poll(&mut context).is_pending());
        drop(one);
        assert_eq!((count.0.load(Ordering::Relaxed), connections.open()), (0, 1));
        drop(two);
        assert_eq!((count.0.load(Ordering::Relaxed), connections.open()), (1, 0));
        assert!(gone.as_mut().poll(&mut context).is_ready());
        assert_eq!(connections.accepted(), 2);
    }
}
