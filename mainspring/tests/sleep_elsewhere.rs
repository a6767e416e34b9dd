//! Sleeps where they do not usually stand: on several threads, runtimes and executors in turn, in the hands of other
//! futures, and in wakers.

#![allow(clippy::async_yields_async, reason = "sleeps move out of the tasks that began them")]

mod common;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use common::drops::Count;
use common::foreign::foreign_block_on;
use common::wakers::counting_waker;
use common::watchdog::Watchdog;
use common::{SOON, check, eventually, runtime, until, watched};
use futures_util::future::{Either, FutureExt, join, join_all, select, select_all};
use futures_util::stream::{FuturesUnordered, StreamExt};
use mainspring::runtime::{Handle, Runtime};
use mainspring::task::yield_now;
use mainspring::time::{Duration, Instant, Sleep, after_func, sleep, sleep_until};

const MILLI: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

fn poll_with(sleep: &mut Sleep, waker: &Waker) -> Poll<()> {
    Pin::new(sleep).poll(&mut Context::from_waker(waker))
}

fn poll_once(sleep: &mut Sleep) -> Poll<()> {
    poll_with(sleep, Waker::noop())
}

fn timers_pending() -> usize {
    Handle::current().metrics().timers_pending
}

/// A sleep that was armed by a task of this runtime.
fn armed_on(runtime: &Runtime, duration: Duration) -> Sleep {
    let task = runtime.spawn(async move {
        let mut nap = sleep(duration);
        let _ = poll_once(&mut nap);
        nap
    });
    runtime.block_on(task).unwrap()
}

// In the hands of other futures.

#[test]
fn sleeps_that_are_joined_take_as_long_as_the_longest() {
    check(|| async {
        let start = Instant::now();
        join_all((0..100).map(|n| sleep(n * MILLI / 10))).await;
        assert!(start.elapsed() >= 99 * MILLI / 10);
        let start = Instant::now();
        join(sleep(2 * MILLI), join(sleep(MILLI), sleep(Duration::ZERO))).await;
        assert!(start.elapsed() >= 2 * MILLI && start.elapsed() < SOON);
        assert_eq!(timers_pending(), 0);
    });
}

#[test]
fn of_several_sleeps_the_first_to_end_ends_the_choice_and_the_others_leave_nothing() {
    check(|| async {
        let start = Instant::now();
        let ((), first, rest) = select_all([sleep(HOUR), sleep(MILLI), sleep(Duration::MAX)]).await;
        assert_eq!((first, rest.len()), (1, 2));
        assert!(start.elapsed() >= MILLI);
        drop(rest);
        assert_eq!(timers_pending(), 0);
        match select(sleep(Duration::from_secs(u64::MAX / 10)), sleep(Duration::from_nanos(1))).await {
            Either::Left(_) => panic!("not in this universe"),
            Either::Right(((), far)) => drop(far),
        }
        assert_eq!(timers_pending(), 0);
    });
}

#[test]
fn sleeps_of_a_crowd_that_gives_each_its_own_waker_all_end_and_none_early() {
    check(|| async {
        let start = Instant::now() + 5 * MILLI;
        let mut crowd: FuturesUnordered<_> = (0..200_u32)
            .map(|n| {
                // By threes at the same time.
                let deadline = start + (n * 77 % 200 / 3) * MILLI / 10;
                sleep_until(deadline).map(move |()| deadline)
            })
            .collect();
        let mut count = 0;
        while let Some(deadline) = crowd.next().await {
            assert!(Instant::now() >= deadline);
            count += 1;
        }
        assert_eq!((count, timers_pending()), (200, 0));
    });
}

/// Tokio's issue 7883: there the time passes only between the polls of a task.
#[test]
fn whoever_polls_a_sleep_again_and_again_within_one_poll_sees_it_end() {
    async fn eager() {
        let deadline = Instant::now() + 2 * MILLI;
        let mut nap = sleep_until(deadline);
        poll_fn(|context| {
            while Pin::new(&mut nap).poll(context).is_pending() {
                std::hint::spin_loop();
            }
            assert!(Instant::now() >= deadline && nap.is_elapsed());
            Poll::Ready(())
        })
        .await;
    }
    foreign_block_on(eager());
    for processors in [1, 2] {
        let (_watchdog, runtime) = watched(processors);
        runtime.block_on(eager());
        runtime.block_on(runtime.spawn(eager())).unwrap();
        assert_eq!(runtime.metrics().timers_pending, 0);
    }
}

// With another waker.

#[test]
fn polls_with_the_same_waker_wake_it_once() {
    check(|| async {
        let wakes = Count::new();
        let waker = counting_waker(&wakes);
        let mut nap = sleep(2 * MILLI);
        let mut waits = false;
        for _ in 0..10 {
            waits = poll_with(&mut nap, &waker).is_pending();
        }
        if waits {
            until(|| wakes.get() > 0).await;
            sleep(MILLI).await;
            assert_eq!(wakes.get(), 1);
        }
        assert!(poll_once(&mut nap).is_ready());
    });
}

#[test]
fn threads_that_poll_a_sleep_in_turn_leave_it_to_the_last_of_them() {
    check(|| async {
        let shared = Arc::new(Mutex::new(sleep(50 * MILLI)));
        let wakes: Vec<_> = (0..8).map(|_| Count::new()).collect();
        let waits = wakes.iter().all(|wakes| {
            let (shared, waker) = (Arc::clone(&shared), counting_waker(wakes));
            thread::spawn(move || poll_with(&mut shared.lock().unwrap(), &waker).is_pending()).join().unwrap()
        });
        let deadline = shared.lock().unwrap().deadline();
        // Had one of them found it over, nobody would have to be woken.
        if waits {
            until(|| wakes[7].get() == 1).await;
            // One of the others could have been woken only while the next was polling already.
            assert!(wakes[..7].iter().map(Count::get).sum::<usize>() <= 1);
        }
        sleep_until(deadline).await;
        assert!(poll_once(&mut shared.lock().unwrap()).is_ready());
    });
}

#[test]
fn threads_that_poll_and_move_a_sleep_at_once_lose_no_wake_up() {
    let (_watchdog, runtime) = watched(2);
    for round in 0..20 {
        let shared = Arc::new(Mutex::new(runtime.block_on(async { sleep(HOUR) })));
        let movers: Vec<_> = (0..3_u32)
            .map(|thread| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    for n in 0..100 {
                        let at =
                            Instant::now() + (n * 7 + thread * 13 + round) % 40 * Duration::from_micros(50);
                        shared.lock().unwrap().reset(at + 2 * MILLI);
                    }
                })
            })
            .collect();
        let waits = poll_fn(|context| Pin::new(&mut *shared.lock().unwrap()).poll(context));
        foreign_block_on(waits);
        movers.into_iter().for_each(|mover| mover.join().unwrap());
    }
    eventually("its timers are gone", || runtime.metrics().timers_pending == 0);
}

// On another runtime.

#[test]
fn a_sleep_armed_on_one_runtime_is_moved_and_polled_on_another() {
    let ((_watchdog, first), second) = (watched(1), runtime(2));
    for (armed_for, moved_to) in [(HOUR, 2 * MILLI), (2 * MILLI, 6 * MILLI), (HOUR, Duration::ZERO)] {
        let mut nap = armed_on(&first, armed_for);
        let task = second.spawn(async move {
            let deadline = Instant::now() + moved_to;
            nap.reset(deadline);
            nap.await;
            assert!(Instant::now() >= deadline);
        });
        second.block_on(task).unwrap();
    }
    for runtime in [&first, &second] {
        assert_eq!(runtime.metrics().timers_pending, 0);
    }
}

#[test]
fn a_sleep_that_was_moved_elsewhere_outlives_the_runtime_on_which_it_was_armed() {
    let _watchdog = Watchdog::here();
    for moved_to in [HOUR, 30 * MILLI] {
        let (first, second) = (runtime(1), runtime(1));
        let mut nap = armed_on(&first, 10 * MILLI);
        let task = second.spawn(async move {
            nap.reset(Instant::now() + moved_to);
            let _ = poll_once(&mut nap);
            nap
        });
        let mut nap = second.block_on(task).unwrap();
        drop(first);
        // The end of a runtime is no end of a sleep.
        assert_eq!(poll_once(&mut nap).is_ready(), Instant::now() >= nap.deadline());
        if moved_to == HOUR {
            nap.reset(Instant::now() + MILLI);
        }
        let deadline = nap.deadline();
        second.block_on(nap);
        assert!(Instant::now() >= deadline);
    }
}

#[test]
fn a_sleep_goes_round_runtimes_that_end_under_it_and_ends_in_time() {
    let _watchdog = Watchdog::here();
    let start = Instant::now();
    let mut nap = sleep(40 * MILLI);
    while start.elapsed() < 30 * MILLI {
        let next = runtime(1);
        let task = next.spawn(async move {
            let _ = poll_once(&mut nap);
            yield_now().await;
            nap
        });
        nap = next.block_on(task).unwrap();
    }
    foreign_block_on(nap);
    assert!(start.elapsed() >= 40 * MILLI && start.elapsed() < SOON);
}

#[test]
fn a_task_that_is_aborted_takes_its_sleep_along() {
    check(|| async {
        let tasks: Vec<_> = (0..100).map(|n| mainspring::spawn(sleep(HOUR + n * MILLI))).collect();
        until(|| timers_pending() >= 100).await;
        tasks.iter().for_each(mainspring::task::JoinHandle::abort);
        for task in tasks {
            assert!(task.await.unwrap_err().is_cancelled());
        }
        assert_eq!(timers_pending(), 0);
    });
}

// Moved while others are due.

#[test]
fn a_sleep_moved_away_from_an_instant_that_others_share_can_be_dropped_there() {
    check(|| async {
        let start = Instant::now();
        let near = || sleep_until(start + 3 * MILLI);
        let (mut stays, mut moves, mut later) = (near(), near(), sleep_until(start + 6 * MILLI));
        for nap in [&mut stays, &mut moves, &mut later] {
            let _ = poll_once(nap);
        }
        moves.reset(start + 6 * MILLI);
        stays.await;
        drop(moves);
        later.await;
        assert!(start.elapsed() >= 6 * MILLI);
        assert_eq!(timers_pending(), 0);
    });
}

#[test]
fn sleeps_of_years_harm_none_that_come_and_go_beside_them() {
    check(|| async {
        const YEAR: u64 = 365 * 24 * 3_600;
        let mut far: Vec<_> = [1, 5, 10, 30, 100, 500, 584, 585, 100_000, u64::MAX / YEAR]
            .into_iter()
            .map(|years| sleep(Duration::from_secs(years * YEAR)))
            .chain([sleep(Duration::MAX - MILLI), sleep_until(Instant::FAR_FUTURE)])
            .collect();
        let wakes = Count::new();
        let waker = counting_waker(&wakes);
        assert!(far.iter_mut().all(|nap| poll_with(nap, &waker).is_pending()));
        for n in 0..50 {
            let mut given_up = sleep(MILLI);
            let _ = poll_once(&mut given_up);
            let deadline = Instant::now() + n * MILLI / 20;
            sleep_until(deadline).await;
            assert!(Instant::now() >= deadline && deadline.elapsed() < SOON);
        }
        assert_eq!(wakes.get(), 0);
        while let Some(mut nap) = far.pop() {
            // From there to here.
            nap.reset(Instant::now() + Duration::from_micros(100));
            nap.await;
        }
        assert_eq!(timers_pending(), 0);
    });
}

// In wakers.

/// A waker that empties a list of sleeps when it is called, and arms and drops timers when it is dropped.
struct Meddles {
    list: Arc<Mutex<Vec<Sleep>>>,
    owned: Option<Sleep>,
}

impl Wake for Meddles {
    fn wake(self: Arc<Self>) {
        self.list.lock().unwrap().clear();
    }
}

impl Drop for Meddles {
    fn drop(&mut self) {
        drop(self.owned.take());
        let mut nap = sleep(HOUR);
        assert!(poll_once(&mut nap).is_pending());
        // False where a worker drops it that is already on its way out.
        after_func(HOUR, || {}).stop();
    }
}

#[test]
fn a_waker_may_drop_the_sleeps_that_are_due_with_its_own() {
    check(|| async {
        let list: Arc<Mutex<Vec<Sleep>>> = Arc::default();
        let waker = Waker::from(Arc::new(Meddles { list: Arc::clone(&list), owned: None }));
        let deadline = Instant::now() + 5 * MILLI;
        let mut sleeps: Vec<_> = (0..200).map(|_| sleep_until(deadline)).collect();
        let waits = sleeps.iter_mut().all(|nap| poll_with(nap, &waker).is_pending());
        *list.lock().unwrap() = sleeps;
        drop(waker);
        if waits {
            until(|| list.lock().unwrap().is_empty()).await;
        }
        list.lock().unwrap().clear();
        // The last of its clones may be dropped at this moment, on a worker, which arms a timer for a while.
        until(|| timers_pending() == 0).await;
    });
}

#[test]
fn a_waker_may_own_a_sleep_and_arm_others_when_it_is_dropped() {
    check(|| async {
        for duration in [HOUR, Duration::from_micros(100)] {
            let mut owned = sleep(HOUR);
            assert!(poll_once(&mut owned).is_pending());
            let waker = Waker::from(Arc::new(Meddles { list: Arc::default(), owned: Some(owned) }));
            let mut nap = sleep(duration);
            let _ = poll_with(&mut nap, &waker);
            drop(waker);
            // Replaced by another one, or dropped with the sleep, or when it has fired.
            let _ = poll_once(&mut nap);
            drop(nap);
            until(|| timers_pending() == 0).await;
        }
    });
}
