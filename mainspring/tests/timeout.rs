//! Timeouts by their behaviour: who wins, what is left behind, and futures that never rest.
//!
//! Bounds from above are generous, as the machine may be busy; from below they are exact.

mod common;

use std::future::{Future, pending, poll_fn, ready};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use common::drops::Count;
use common::sockets::{pair, read_one};
use common::wakers::counting_waker;
use common::{SOON, check, until, watched};
use mainspring::net::{TcpListener, TcpStream};
use mainspring::runtime::Handle;
use mainspring::task::{JoinSet, yield_now};
use mainspring::time::{Duration, Instant, interval_at, sleep, timeout, timeout_at};
use tokio::sync::oneshot;

const MILLI: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

fn timers_pending() -> usize {
    Handle::current().metrics().timers_pending
}

#[test]
fn a_future_that_is_ready_wins_whatever_the_time_and_arms_no_timer() {
    check(|| async {
        let now = Instant::now();
        for deadline in [now - HOUR, now, Instant::now() + Duration::from_nanos(1), now + HOUR] {
            assert_eq!(timeout_at(deadline, ready(7)).await, Ok(7));
        }
        for duration in [Duration::ZERO, MILLI, Duration::MAX] {
            assert_eq!(timeout(duration, ready(7)).await, Ok(7));
        }
        assert_eq!(Handle::current().metrics().timers_armed, 0);
    });
}

#[test]
fn a_timeout_of_nothing_polls_the_future_once_and_ends_at_once() {
    check(|| async {
        for limit in [Instant::now() - HOUR, Instant::now()] {
            let polls = Count::new();
            let counts = polls.clone();
            let future = poll_fn(move |_| {
                counts.add();
                Poll::<()>::Pending
            });
            let mut limited = pin!(timeout_at(limit, future));
            let result = poll_fn(|context| Poll::Ready(limited.as_mut().poll(context))).await;
            assert!(matches!(result, Poll::Ready(Err(_))));
            assert_eq!(polls.get(), 1);
        }
        assert_eq!(Handle::current().metrics().timers_armed, 0);
    });
}

#[test]
fn a_future_that_is_ready_before_the_end_takes_the_timer_away() {
    check(|| async {
        for limit in [HOUR, Duration::from_secs(u64::MAX), Duration::MAX] {
            let (sender, receiver) = oneshot::channel();
            let wakes = Count::new();
            let waker = counting_waker(&wakes);
            let mut limited = Box::pin(timeout(limit, receiver));
            assert!(limited.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            sleep(MILLI).await;
            assert!(limited.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            assert_eq!((wakes.get(), timers_pending()), (0, 1));
            sender.send(7).unwrap();
            assert_eq!(wakes.get(), 1);
            assert_eq!(limited.await, Ok(Ok(7)));
            assert_eq!(timers_pending(), 0);
        }
    });
}

#[test]
fn a_timeout_that_is_given_up_takes_its_timer_and_its_future_away() {
    check(|| async {
        let dropped = Count::new();
        let mut limited: Vec<_> = (0..100)
            .map(|n| {
                let owned = dropped.on_drop();
                let future = async move {
                    let _owned = owned;
                    pending::<()>().await;
                };
                Box::pin(timeout(HOUR + n * MILLI, future))
            })
            .collect();
        for one in &mut limited {
            assert!(one.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_pending());
        }
        assert_eq!(timers_pending(), 100);
        drop(limited);
        assert_eq!((timers_pending(), dropped.get()), (0, 100));
    });
}

#[test]
fn a_timeout_ends_on_a_worker_and_off_the_workers_and_never_early() {
    for processors in [1, 4] {
        let (_watchdog, runtime) = watched(processors);
        runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for n in 0..500_u64 {
                tasks.spawn(async move {
                    let (start, limit) = (Instant::now(), Duration::from_micros(10 * n));
                    timeout(limit, pending::<()>()).await.unwrap_err();
                    assert!(start.elapsed() >= limit);
                });
            }
            let start = Instant::now();
            timeout(5 * MILLI, pending::<()>()).await.unwrap_err();
            assert!(start.elapsed() >= 5 * MILLI && start.elapsed() < SOON);
            tasks.join_all().await;
        });
        assert_eq!(runtime.metrics().timers_pending, 0);
    }
}

#[test]
fn of_nested_timeouts_the_one_that_ends_first_ends_what_it_limits() {
    check(|| async {
        let start = Instant::now();
        let inner_first = timeout(HOUR, timeout(2 * MILLI, pending::<()>())).await;
        assert!(inner_first.unwrap().is_err());
        assert!(start.elapsed() >= 2 * MILLI);
        let start = Instant::now();
        timeout(2 * MILLI, timeout(HOUR, pending::<()>())).await.unwrap_err();
        assert!(start.elapsed() >= 2 * MILLI);
        // At the same time: the future of the outer one is ready, and it is polled first.
        let deadline = Instant::now();
        assert!(timeout_at(deadline, timeout_at(deadline, pending::<()>())).await.unwrap().is_err());
        assert_eq!(timers_pending(), 0);
    });
}

/// Tokio's issue 4291: there such a future left its timeout nothing to look at the time with.
#[test]
fn a_future_that_never_rests_does_not_starve_its_timeout() {
    async fn yields() {
        loop {
            yield_now().await;
        }
    }
    fn wakes_itself() -> impl Future<Output = ()> + Send {
        poll_fn(|context| {
            context.waker().wake_by_ref();
            Poll::Pending
        })
    }
    async fn ticks() {
        let mut interval = interval_at(Instant::now() - HOUR, Duration::from_nanos(1));
        loop {
            interval.tick().await;
        }
    }
    async fn reads_what_is_always_there(stream: TcpStream) {
        loop {
            // At the end of the stream every read is ready.
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        }
    }
    async fn reads_nothing(stream: TcpStream) {
        loop {
            assert_eq!(stream.read(&mut []).await.unwrap(), 0);
        }
    }
    for processors in [1, 2] {
        let (_watchdog, runtime) = watched(processors);
        let (at_end, _) = runtime.block_on(pair());
        let (idle, _other) = runtime.block_on(pair());
        let restless: [Pin<Box<dyn Future<Output = ()> + Send>>; 5] = [
            Box::pin(yields()),
            Box::pin(wakes_itself()),
            Box::pin(ticks()),
            Box::pin(reads_what_is_always_there(at_end)),
            Box::pin(reads_nothing(idle)),
        ];
        for (n, future) in restless.into_iter().enumerate() {
            let limited = async move {
                let start = Instant::now();
                timeout(3 * MILLI, future).await.unwrap_err();
                assert!(start.elapsed() >= 3 * MILLI && start.elapsed() < SOON);
            };
            // On a worker, and off the workers.
            if n % 2 == processors % 2 {
                runtime.block_on(limited);
            } else {
                runtime.block_on(runtime.spawn(limited)).unwrap();
            }
        }
    }
}

#[test]
fn the_future_can_be_looked_at_and_taken_out_and_the_timer_goes() {
    check(|| async {
        let (sender, receiver) = oneshot::channel();
        let mut limited = timeout(HOUR, receiver);
        let first = poll_fn(|context| Poll::Ready(Pin::new(&mut limited).poll(context))).await;
        assert!(first.is_pending());
        let _: &oneshot::Receiver<u32> = limited.get_ref();
        assert_eq!(timers_pending(), 1);
        let receiver = limited.into_inner();
        assert_eq!(timers_pending(), 0);
        sender.send(7).unwrap();
        assert_eq!(receiver.await, Ok(7));
    });
}

#[test]
fn a_future_that_timed_out_can_be_limited_anew_and_loses_nothing() {
    check(|| async {
        let (a, b) = pair().await;
        let mut read = pin!(read_one(&a));
        for _ in 0..5 {
            timeout(MILLI, read.as_mut()).await.unwrap_err();
        }
        b.write_all(b"x").await.unwrap();
        assert_eq!(timeout(SOON, read).await.unwrap().unwrap(), b'x');
    });
}

// What Go calls the timeout of a dialer.

#[test]
fn connecting_has_its_time_limited_by_a_timeout() {
    check(|| async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        for limit in [HOUR, Duration::from_secs(u64::MAX), Duration::MAX] {
            timeout(limit, TcpStream::connect(addr)).await.unwrap().unwrap();
            listener.accept().await.unwrap();
        }
        // A time that is over lets it in only if it is connected at once. Nothing is left of it either way.
        for limit in [Instant::now() - HOUR, Instant::now()] {
            drop(timeout_at(limit, TcpStream::connect(addr)).await);
        }
        drop(listener);
        until(|| Handle::current().metrics().descriptors == 0).await;
        assert_eq!(timers_pending(), 0);
    });
}
