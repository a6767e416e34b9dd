//! Sleeps, timeouts and instants by their behaviour.
//!
//! Bounds from above are generous, as the machine may be busy; from below they are exact.

#![allow(clippy::async_yields_async, reason = "sleeps move out of the tasks that began them")]

mod common;

use std::future::{Future, pending, poll_fn, ready};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use common::drops::Count;
use common::foreign::foreign_block_on;
use common::wakers::{Wakes, counting_waker};
use common::{SOON, check, runtime, until, watched};
use mainspring::runtime::{Handle, Runtime};
use mainspring::spawn;
use mainspring::task::{JoinSet, yield_now};
use mainspring::time::{Duration, Elapsed, Instant, Sleep, sleep, sleep_until, timeout, timeout_at};

const MILLI: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn poll_with(sleep: &mut Sleep, waker: &Waker) -> Poll<()> {
    Pin::new(sleep).poll(&mut Context::from_waker(waker))
}

#[test]
fn a_sleep_never_ends_early() {
    check(|| async {
        let mut set = JoinSet::new();
        for n in 0..500_u64 {
            set.spawn(async move {
                let duration = Duration::from_nanos(n * 7_919);
                let (start, start_of_std) = (Instant::now(), std::time::Instant::now());
                sleep(duration).await;
                assert!(start.elapsed() >= duration);
                assert!(start_of_std.elapsed() >= duration);
            });
        }
        set.join_all().await;
    });
}

#[test]
fn a_sleep_that_is_over_is_ready_at_its_first_poll() {
    check(|| async {
        assert!(poll_once(&mut sleep(Duration::ZERO)).is_ready());
        assert!(poll_once(&mut sleep_until(Instant::now() - HOUR)).is_ready());
        assert_eq!(Handle::current().metrics().timers_armed, 0);
    });
}

#[test]
fn a_sleep_for_ever_never_ends_and_does_no_harm() {
    check(|| async {
        let wakes = Count::new();
        let mut sleeps =
            [sleep(Duration::MAX), sleep_until(Instant::FAR_FUTURE), sleep(Duration::from_secs(u64::MAX))];
        for sleep in &mut sleeps {
            assert!(poll_with(sleep, &counting_waker(&wakes)).is_pending());
            assert!(!sleep.is_elapsed());
        }
        sleep(MILLI).await;
        assert_eq!(wakes.get(), 0);
        sleeps[0].reset(Instant::now());
        assert!(poll_once(&mut sleeps[0]).is_ready());
        drop(sleeps);
        assert_eq!(Handle::current().metrics().timers_pending, 0);
    });
}

#[test]
fn sleeps_of_one_instant_end_in_the_order_in_which_they_began() {
    let (_watchdog, runtime) = watched(1);
    let order = Arc::new(Mutex::new(Vec::new()));
    let ended = Arc::clone(&order);
    let task = runtime.spawn(async move {
        // Far enough away for all to begin; whoever does not begin in time says nothing of the order.
        let deadline = Instant::now() + 200 * MILLI;
        let mut tasks = Vec::new();
        for n in 0..50 {
            let ended = Arc::clone(&ended);
            tasks.push(spawn(async move {
                sleep_until(deadline).await;
                ended.lock().unwrap().push(n);
            }));
            // It begins its sleep before the next one is spawned.
            yield_now().await;
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
    runtime.block_on(task).unwrap();
    assert_eq!(*order.lock().unwrap(), (0..50).collect::<Vec<_>>());
}

/// A waker that notes its number when it is woken.
struct Notes(usize, Arc<Mutex<Vec<usize>>>);

impl std::task::Wake for Notes {
    fn wake(self: Arc<Self>) {
        self.1.lock().unwrap().push(self.0);
    }
}

#[test]
fn a_sleep_that_is_polled_again_keeps_its_turn_among_those_of_its_instant() {
    let (_watchdog, runtime) = watched(1);
    // A round in which this thread was held up beyond the deadline says nothing.
    while !keeps_its_turn(&runtime) {}
}

fn keeps_its_turn(runtime: &Runtime) -> bool {
    let order = Arc::new(Mutex::new(Vec::new()));
    let wakers: Vec<_> = (0..3).map(|n| Waker::from(Arc::new(Notes(n, Arc::clone(&order))))).collect();
    let in_time = runtime.block_on(async {
        let deadline = Instant::now() + 20 * MILLI;
        let mut naps: Vec<_> = (0..3).map(|_| sleep_until(deadline)).collect();
        for (nap, waker) in naps.iter_mut().zip(&wakers) {
            assert!(poll_with(nap, waker).is_pending());
        }
        // Again and again, until just before its time.
        while Instant::now() + MILLI / 20 < deadline {
            if poll_with(&mut naps[0], &wakers[0]).is_ready() {
                return false;
            }
        }
        until(|| order.lock().unwrap().len() == 3).await;
        true
    });
    assert!(!in_time || *order.lock().unwrap() == [0, 1, 2], "{order:?}");
    in_time
}

#[test]
fn sleeps_end_in_the_order_of_their_deadlines() {
    let (_watchdog, runtime) = watched(1);
    let order = Arc::new(Mutex::new(Vec::new()));
    let ended = Arc::clone(&order);
    let task = runtime.spawn(async move {
        let start = Instant::now() + 200 * MILLI;
        let mut set = JoinSet::new();
        for n in 0..100_u64 {
            let (ended, place) = (Arc::clone(&ended), n * 37 % 100);
            set.spawn(async move {
                sleep_until(start + Duration::from_micros(place)).await;
                ended.lock().unwrap().push(place);
            });
        }
        set.join_all().await;
    });
    runtime.block_on(task).unwrap();
    let order = order.lock().unwrap();
    assert_eq!(*order, (0..100).collect::<Vec<_>>());
}

#[test]
fn a_sleep_moved_earlier_later_or_after_its_end_follows_its_deadline() {
    check(|| async {
        let start = Instant::now();
        let mut nap = sleep(HOUR);
        assert!(poll_once(&mut nap).is_pending());
        nap.reset(start + 2 * MILLI);
        assert_eq!(nap.deadline(), start + 2 * MILLI);
        (&mut nap).await;
        let took = start.elapsed();
        assert!(took >= 2 * MILLI && took < SOON, "{took:?}");

        nap.reset(start + HOUR);
        assert!(!nap.is_elapsed());
        assert!(poll_once(&mut nap).is_pending());

        let start = Instant::now();
        let mut nap = sleep(2 * MILLI);
        assert!(poll_once(&mut nap).is_pending());
        nap.reset(start + 10 * MILLI);
        (&mut nap).await;
        assert!(start.elapsed() >= 10 * MILLI);
        // Over and over, while it waits.
        for n in 1..100 {
            nap.reset(Instant::now() + n * MILLI);
            assert!(poll_once(&mut nap).is_pending());
        }
        nap.reset(Instant::now());
        nap.await;
    });
}

#[test]
fn a_task_that_waits_is_woken_when_its_sleep_is_moved_earlier_from_elsewhere() {
    check(|| async {
        let shared = Arc::new(Mutex::new(sleep(HOUR)));
        let polls = Count::new();
        let waits = {
            let (shared, polls) = (Arc::clone(&shared), polls.clone());
            spawn(poll_fn(move |context| {
                polls.add();
                Pin::new(&mut *shared.lock().unwrap()).poll(context)
            }))
        };
        until(|| polls.get() > 0).await;
        // From a thread of no runtime, while every worker may be asleep.
        std::thread::spawn(move || shared.lock().unwrap().reset(Instant::now() + MILLI)).join().unwrap();
        waits.await.unwrap();
    });
}

#[test]
fn a_dropped_sleep_takes_its_timer_and_its_waker_away() {
    check(|| async {
        let count = Count::new();
        let waker = Arc::new(Wakes(count.clone()));
        let mut nap = sleep(HOUR);
        assert!(poll_with(&mut nap, &Waker::from(Arc::clone(&waker))).is_pending());
        assert_eq!(Handle::current().metrics().timers_pending, 1);
        assert!(Arc::strong_count(&waker) > 1);
        drop(nap);
        assert_eq!(Handle::current().metrics().timers_pending, 0);
        assert_eq!(Arc::strong_count(&waker), 1);
        assert_eq!(count.get(), 0);
    });
}

#[test]
fn a_sleep_wakes_the_waker_of_its_last_poll() {
    check(|| async {
        let (first, last) = (Count::new(), Count::new());
        let mut nap = sleep(5 * MILLI);
        if poll_with(&mut nap, &counting_waker(&first)).is_pending()
            && poll_with(&mut nap, &counting_waker(&last)).is_pending()
        {
            until(|| last.get() == 1).await;
            assert_eq!(first.get(), 0);
            assert!(poll_once(&mut nap).is_ready());
        }
    });
}

#[test]
fn a_sleep_works_on_another_executor_and_moves_between_executors() {
    let start = Instant::now();
    foreign_block_on(sleep(2 * MILLI));
    assert!(start.elapsed() >= 2 * MILLI);

    // Armed by a foreign executor, finished in a task.
    let (_watchdog, runtime) = watched(2);
    let mut nap = sleep(20 * MILLI);
    let start = Instant::now();
    let _ = foreign_block_on(poll_fn(|context| Poll::Ready(Pin::new(&mut nap).poll(context))));
    runtime.block_on(runtime.spawn(nap)).unwrap();

    // Armed in a task, finished by a foreign executor on another thread.
    let task = runtime.spawn(async {
        let mut nap = sleep(20 * MILLI);
        let _ = poll_fn(|context| Poll::Ready(Pin::new(&mut nap).poll(context))).await;
        nap
    });
    let nap = runtime.block_on(task).unwrap();
    let deadline = nap.deadline();
    std::thread::spawn(move || foreign_block_on(nap)).join().unwrap();
    assert!(Instant::now() >= deadline && start.elapsed() >= 20 * MILLI);
}

#[test]
fn a_sleep_outlives_its_runtime() {
    let ((_watchdog, armed), other) = (watched(1), runtime(1));
    let mut naps = Vec::new();
    for _ in 0..3 {
        let task = armed.spawn(async {
            let mut nap = sleep(30 * MILLI);
            assert!(poll_once(&mut nap).is_pending());
            nap
        });
        naps.push(armed.block_on(task).unwrap());
    }
    // One is waited for while its runtime goes, one is polled on another runtime afterwards, and one
    // is moved after that.
    let mut moved = naps.pop().unwrap();
    let polled = naps.pop().unwrap();
    let waited = naps.pop().unwrap();
    let deadline = waited.deadline();
    let waits = std::thread::spawn(move || foreign_block_on(waited));
    drop(armed);
    moved.reset(Instant::now() + MILLI);
    other.block_on(moved);
    other.block_on(other.spawn(polled)).unwrap();
    waits.join().unwrap();
    assert!(Instant::now() >= deadline);
}

#[test]
fn a_timeout_lets_the_future_win_or_ends_it() {
    check(|| async {
        assert_eq!(timeout(HOUR, async { 7 }).await, Ok(7));
        let slow = async {
            sleep(MILLI).await;
            7
        };
        assert_eq!(timeout(HOUR, slow).await, Ok(7));

        let start = Instant::now();
        let error: Elapsed = timeout(2 * MILLI, pending::<()>()).await.unwrap_err();
        assert!(start.elapsed() >= 2 * MILLI);
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::TimedOut);
        assert_eq!(Handle::current().metrics().timers_pending, 0);
    });
}

#[test]
fn a_timeout_that_is_over_polls_its_future_first() {
    check(|| async {
        assert_eq!(timeout(Duration::ZERO, ready(7)).await, Ok(7));
        assert!(timeout(Duration::ZERO, yield_now()).await.is_err());
        assert_eq!(timeout_at(Instant::now() - HOUR, ready(7)).await, Ok(7));
        assert_eq!(timeout(Duration::MAX, yield_now()).await, Ok(()));
    });
}

#[test]
fn a_hundred_thousand_timers_all_fire_and_none_early() {
    const COUNT: u64 = 100_000;
    let (_watchdog, runtime) = watched(2);
    runtime.block_on(async {
        let mut set = JoinSet::new();
        let early = Count::new();
        for n in 0..COUNT {
            let early = early.clone();
            set.spawn(async move {
                let deadline = Instant::now() + Duration::from_micros(n * 7_919 % 50_000);
                sleep_until(deadline).await;
                if Instant::now() < deadline {
                    early.add();
                }
            });
        }
        set.join_all().await;
        assert_eq!(early.get(), 0);
    });
    assert_eq!(runtime.metrics().timers_pending, 0);
}

#[test]
fn a_hundred_thousand_timers_are_taken_away() {
    let (_watchdog, runtime) = watched(2);
    runtime.block_on(async {
        let mut sleeps: Vec<_> = (0..100_000).map(|n| sleep(HOUR + n * MILLI)).collect();
        assert!(sleeps.iter_mut().all(|sleep| poll_once(sleep).is_pending()));
        assert_eq!(runtime.metrics().timers_pending, 100_000);
        drop(sleeps);
    });
    assert_eq!(runtime.metrics().timers_pending, 0);
}

#[test]
fn instants_saturate_and_convert() {
    let now = Instant::now();
    assert_eq!(now + Duration::MAX, Instant::FAR_FUTURE);
    assert_eq!(now - (now + HOUR), Duration::ZERO);
    assert_eq!((now + HOUR).checked_duration_since(now), Some(HOUR));
    assert_eq!(now.checked_duration_since(now + HOUR), None);
    assert_eq!(now.checked_add(Duration::MAX), None);
    assert_eq!(Instant::from(std::time::Instant::from(now + HOUR)), now + HOUR);
    assert_eq!(Instant::from(std::time::Instant::from(now - HOUR)), now - HOUR);
    let mut moved = now;
    moved += MILLI;
    moved -= MILLI;
    assert_eq!(moved, now);
}

#[test]
fn a_sleep_moved_later_again_and_again_ends_at_the_last_time_and_not_before() {
    check(|| async {
        let start = Instant::now();
        let mut nap = sleep(Duration::from_millis(2));
        assert!(poll_fn(|context| Poll::Ready(Pin::new(&mut nap).poll(context).is_pending())).await);
        let mut last = start;
        for step in 1..=10 {
            last = start + Duration::from_millis(2 + step);
            nap.reset(last);
        }
        (&mut nap).await;
        assert!(Instant::now() >= last);
        // And from the far end back to the near one, with the timer armed for the far one.
        nap.reset(Instant::FAR_FUTURE);
        assert!(poll_fn(|context| Poll::Ready(Pin::new(&mut nap).poll(context).is_pending())).await);
        let near = Instant::now() + Duration::from_millis(1);
        nap.reset(near);
        nap.await;
        assert!(Instant::now() >= near && start.elapsed() < SOON);
    });
}

#[test]
fn a_sleep_is_at_most_64_bytes() {
    assert!(size_of::<mainspring::time::Sleep>() <= 64, "{}", size_of::<mainspring::time::Sleep>());
}
