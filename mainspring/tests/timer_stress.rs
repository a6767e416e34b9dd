//! Many timers at once: none is lost, none is early, what `stop` and `reset` answer is what happens, and what was
//! taken away is gone.

mod common;

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use common::drops::Count;
use common::ending::Tally;
use common::foreign::foreign_block_on;
use common::stress::Rng;
use common::{SOON, check, eventually, until, watched};
use mainspring::runtime::{Handle, Runtime};
use mainspring::task::{JoinSet, yield_now};
use mainspring::time::{Duration, Instant, Sleep, Timer, after_func, every, sleep, timeout};
use tokio::sync::{Notify, oneshot};

const MILLI: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Thirty thousand timers that rest while the others come and go.
fn ballast() -> (Vec<Timer>, Vec<Sleep>) {
    let timers = (0..10_000).map(|n| after_func(HOUR + n * MILLI, || unreachable!())).collect();
    let mut sleeps: Vec<_> = (0..20_000).map(|n| sleep(HOUR + n * MILLI)).collect();
    assert!(sleeps.iter_mut().all(|sleep| poll_once(sleep).is_pending()));
    (timers, sleeps)
}

fn stop_all((timers, sleeps): (Vec<Timer>, Vec<Sleep>)) {
    assert!(timers.iter().all(Timer::stop));
    drop(sleeps);
}

/// The monitor would repair a lost timer, and hide it. A machine that is busy may stop a worker between queueing
/// a function and waking somebody for it, which looks the same now and then.
#[track_caller]
fn assert_hardly_any_rescue(runtime: &Runtime, what: &str) {
    let metrics = runtime.metrics();
    assert!(metrics.rescues <= 5, "{what}: wake-ups were lost, {runtime:#?}\n{metrics:#?}");
}

/// A way to arm a timer that is due at once; it waits until it has fired.
type Way = fn() -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// One by one, as a timer that is lost is found only if nothing else is due soon.
const WAYS: [(&str, Way); 7] = [
    ("a sleep", || Box::pin(sleep(Duration::from_nanos(1)))),
    ("a sleep moved to now", || {
        Box::pin(async {
            let mut nap = sleep(HOUR);
            assert!(poll_once(&mut nap).is_pending());
            nap.reset(Instant::now() + Duration::from_nanos(1));
            nap.await;
        })
    }),
    ("a timeout", || {
        Box::pin(async {
            timeout(Duration::from_nanos(1), pending::<()>()).await.unwrap_err();
        })
    }),
    ("a function", || {
        Box::pin(async {
            let (sender, receiver) = oneshot::channel();
            after_func(Duration::ZERO, || sender.send(()).unwrap());
            receiver.await.unwrap();
        })
    }),
    ("a function that was moved", || {
        Box::pin(async {
            let (sender, receiver) = oneshot::channel();
            assert!(after_func(HOUR, || sender.send(()).unwrap()).reset(Duration::ZERO));
            receiver.await.unwrap();
        })
    }),
    ("a function that was stopped", || {
        Box::pin(async {
            let (sender, receiver) = oneshot::channel();
            let timer = after_func(HOUR, || sender.send(()).unwrap());
            assert!(timer.stop() && !timer.reset(Duration::ZERO));
            receiver.await.unwrap();
        })
    }),
    ("a periodic function", || {
        Box::pin(async {
            let ran = Arc::new(Notify::new());
            let notify = Arc::clone(&ran);
            let timer = every(HOUR, move || notify.notify_one());
            assert!(timer.reset(Duration::from_nanos(1)));
            ran.notified().await;
            timer.stop();
        })
    }),
];

/// Each of the ways `count` times, beside one another, in tasks and on threads of no runtime.
fn zero_timers(processors: usize, count: usize) {
    let (watchdog, runtime) = watched(processors);
    for (name, way) in WAYS {
        watchdog.step(name);
        watchdog.watch(&runtime.handle());
        let tasks = (0..2).map(|_| {
            runtime.spawn(async move {
                for _ in 0..count / 4 {
                    way().await;
                }
            })
        });
        let tasks: Vec<_> = tasks.collect();
        runtime.block_on(async {
            for _ in 0..count / 2 {
                way().await;
            }
        });
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
        assert_hardly_any_rescue(&runtime, name);
    }
    assert_eq!(runtime.metrics().timers_pending, 0);
}

#[test]
fn timers_that_are_due_at_once_are_never_lost_on_one_processor() {
    zero_timers(1, 8_000);
}

#[test]
fn timers_that_are_due_at_once_are_never_lost_on_two_processors() {
    zero_timers(2, 8_000);
}

#[test]
fn timers_of_threads_without_a_runtime_are_never_lost() {
    let _watchdog = common::watchdog::Watchdog::here();
    std::thread::scope(|scope| {
        for (_, way) in WAYS {
            scope.spawn(move || (0..500).for_each(|_| foreign_block_on(way())));
        }
    });
}

#[test]
fn of_a_hundred_timers_those_that_are_stopped_half_way_do_not_run() {
    check(|| async {
        for _ in 0..3 {
            let runs = Count::new();
            let timers: Vec<_> = (0..100).map(|_| after_func(20 * MILLI, runs.adder())).collect();
            sleep(10 * MILLI).await;
            let prevented = timers.iter().filter(|timer| timer.stop()).count();
            sleep(15 * MILLI).await;
            until(|| runs.get() + prevented >= 100).await;
            assert_eq!(runs.get() + prevented, 100);
        }
    });
}

/// Runs `race` in a thousand tasks, each of which has a function that is about to run.
fn races<F>(race: impl Fn(Timer, oneshot::Receiver<()>, Rng) -> F)
where
    F: Future<Output = bool> + Send + 'static,
{
    for processors in [1, 4] {
        let (_watchdog, runtime) = watched(processors);
        let mut rng = Rng(processors as u64);
        let mut tasks = JoinSet::new();
        let (mut in_time, mut too_late) = (0, 0);
        for _ in 0..1_000 {
            let mut rng = rng.split();
            let delay = rng.micros(1_000);
            let (sender, receiver) = oneshot::channel();
            let timer = runtime.block_on(async { after_func(delay, || sender.send(()).unwrap_or(())) });
            let race = race(timer, receiver, rng.split());
            tasks.spawn_on(
                async move {
                    match rng.below(3) {
                        0 => sleep(delay).await,
                        1 => sleep(rng.micros(1_000)).await,
                        _ => yield_now().await,
                    }
                    race.await
                },
                &runtime.handle(),
            );
        }
        runtime.block_on(async {
            while let Some(result) = tasks.join_next().await {
                *if result.unwrap() { &mut in_time } else { &mut too_late } += 1;
            }
        });
        assert_eq!(in_time + too_late, 1_000);
        eventually("every timer is gone", || runtime.metrics().timers_pending == 0);
    }
}

#[test]
fn what_stop_answers_is_whether_the_function_runs() {
    races(|timer, ran, _| async move {
        let prevented = timer.stop();
        assert!(!timer.stop(), "one run was prevented twice");
        // With the last timer goes a function that has not run.
        drop(timer);
        let ran = timeout(SOON, ran).await.expect("it has neither run nor gone");
        assert_eq!(ran.is_err(), prevented);
        prevented
    });
}

#[test]
fn what_reset_answers_is_whether_the_function_runs_at_the_new_time() {
    races(|timer, mut ran, mut rng| async move {
        if rng.below(2) == 0 {
            // To a time that comes.
            let before = Instant::now();
            let delay = rng.micros(500);
            let moved = timer.reset(delay);
            timeout(SOON, ran).await.expect("it has not run").unwrap();
            assert!(!moved || before.elapsed() >= delay, "it ran at the old time");
            assert!(!timer.reset(Duration::ZERO) && !timer.stop());
            moved
        } else {
            // And to one that does not.
            let moved = timer.reset(HOUR);
            if moved {
                sleep(rng.micros(2_000)).await;
                assert!(ran.try_recv().is_err(), "it ran at the old time");
                assert!(timer.stop());
                drop(timer);
                timeout(SOON, ran).await.expect("it is still there").unwrap_err();
            } else {
                timeout(SOON, ran).await.expect("it has not run").unwrap();
            }
            moved
        }
    });
}

#[test]
fn each_pending_run_is_claimed_once_however_many_threads_stop_and_reset_it() {
    check(|| async {
        let (sum, runs) = (Count::new(), Count::new());
        for _ in 0..300 {
            let timer = after_func(Duration::from_micros(20), runs.adder());
            let mut tasks = JoinSet::new();
            for _ in 0..4 {
                let (timer, sum) = (timer.clone(), sum.clone());
                tasks.spawn(async move {
                    if timer.stop() {
                        sum.add();
                    }
                });
            }
            tasks.join_all().await;
        }
        until(|| sum.get() + runs.get() >= 300).await;
        sleep(MILLI).await;
        assert_eq!(sum.get() + runs.get(), 300);
    });
}

#[test]
fn a_timer_that_is_stopped_and_moved_to_now_over_and_over_runs() {
    for processors in [1, 2] {
        let (_watchdog, runtime) = watched(processors);
        let rests = runtime.block_on(async { ballast() });
        for _ in 0..200 {
            let (sender, receiver) = oneshot::channel();
            let timer = runtime.block_on(async { after_func(HOUR, || sender.send(()).unwrap()) });
            for step in 0..10 {
                assert!(timer.stop());
                assert!(!timer.reset(HOUR - step * MILLI));
                assert!(timer.reset(HOUR / 2));
            }
            // While all workers sleep until something that is far away.
            let last = timer.stop();
            assert!(last && !timer.reset(Duration::ZERO));
            foreign_block_on(receiver).unwrap();
        }
        assert_hardly_any_rescue(&runtime, "stopped and moved");
        stop_all(rests);
        assert_eq!(runtime.metrics().timers_pending, 0);
    }
}

#[test]
fn functions_that_are_moved_at_random_run_at_their_last_time() {
    for processors in [1, 2] {
        let (_watchdog, runtime) = watched(processors);
        let mut rng = Rng(7);
        let mut tasks = JoinSet::new();
        let rests = runtime.block_on(async { ballast() });
        for _ in 0..100 {
            let mut rng = rng.split();
            tasks.spawn_on(
                async move {
                    // The earliest time at which it may run, in nanoseconds after `start`.
                    let start = Instant::now();
                    let earliest = Arc::new(AtomicU64::new(0));
                    let (sender, ran) = oneshot::channel();
                    let timer = after_func(10 * MILLI, move || sender.send(Instant::now()).unwrap());
                    for _ in 0..20 {
                        let now = Instant::now();
                        let delay = rng.micros(20_000);
                        if !timer.reset(delay) {
                            break;
                        }
                        earliest.store((now + delay - start).as_nanos() as u64, Ordering::Relaxed);
                        sleep(rng.micros(1_000)).await;
                    }
                    let at = timeout(SOON, ran).await.expect("it was lost").unwrap();
                    assert!(at - start >= Duration::from_nanos(earliest.load(Ordering::Relaxed)));
                },
                &runtime.handle(),
            );
        }
        runtime.block_on(tasks.join_all());
        stop_all(rests);
    }
}

#[test]
fn sleeps_that_are_moved_at_random_end_at_their_last_time() {
    check(|| async {
        let mut rng = Rng(8);
        let rests = ballast();
        let mut tasks = JoinSet::new();
        for _ in 0..100 {
            let mut rng = rng.split();
            tasks.spawn(async move {
                let mut nap = sleep(10 * MILLI);
                for _ in 0..20 {
                    nap.reset(Instant::now() + rng.micros(20_000));
                    // It waits for either for a while.
                    let step = sleep(rng.micros(1_000));
                    futures_util::future::select(&mut nap, step).await;
                    let (before, over, after) = (Instant::now(), nap.is_elapsed(), Instant::now());
                    assert!(if over { after >= nap.deadline() } else { before < nap.deadline() });
                }
                let deadline = nap.deadline();
                timeout(SOON, nap).await.expect("it was lost");
                assert!(Instant::now() >= deadline);
            });
        }
        tasks.join_all().await;
        stop_all(rests);
        assert_eq!(Handle::current().metrics().timers_pending, 0);
    });
}

/// If it cost anything for each of the others, this would take minutes.
#[test]
fn timeouts_that_come_and_go_cost_nothing_for_each_that_sleeps_beside_them() {
    for processors in [1, 2] {
        let (_watchdog, runtime) = watched(processors);
        let start = std::time::Instant::now();
        let mut sleepers = JoinSet::new();
        for n in 0..10_000 {
            sleepers.spawn_on(sleep(HOUR + n * MILLI), &runtime.handle());
        }
        eventually("all sleep", || runtime.metrics().timers_pending == 10_000);
        let tasks: Vec<_> = (0..2 * processors)
            .map(|n| {
                runtime.spawn(async move {
                    let mut rng = Rng(n as u64);
                    for count in 0..25_000 {
                        // Earlier than all the others, and later than some.
                        let limit = HOUR / 2 + rng.micros(2 * 3_600_000_000);
                        let mut limited = timeout(limit, pending::<()>());
                        assert!(poll_once(&mut limited).is_pending());
                        if count % 64 == 0 {
                            yield_now().await;
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
        assert_eq!(runtime.metrics().timers_pending, 10_000);
    }
}

#[test]
fn what_functions_own_is_dropped_with_the_last_that_can_run_them() {
    check(|| async {
        let tally = Tally::default();
        let owns = || {
            let token = tally.token();
            move || token.hold()
        };
        let pending = || Handle::current().metrics().timers_pending;
        // Stopped, then dropped, and the other way round; both are needed.
        let timers: Vec<_> = (0..10_000).map(|_| after_func(HOUR, owns())).collect();
        assert_eq!((tally.alive(), pending()), (10_000, 10_000));
        assert!(timers.iter().all(Timer::stop));
        assert_eq!((tally.alive(), pending()), (10_000, 0), "a stopped one can be reset");
        drop(timers);
        assert_eq!(tally.alive(), 0);

        // A function that has run goes at once, whoever has its timer.
        let timers: Vec<_> = (0..1_000).map(|_| after_func(Duration::ZERO, owns())).collect();
        until(|| tally.alive() == 0).await;
        assert_eq!(pending(), 0);
        drop(timers);

        // A periodic one when it is stopped and dropped, also while a run is about to begin.
        for n in 0..1_000 {
            let timer = every(Duration::from_micros(1 + n % 10), owns());
            if n % 3 == 0 {
                yield_now().await;
            }
            assert!(timer.stop());
        }
        until(|| tally.alive() == 0 && pending() == 0).await;
    });
}

#[test]
fn many_who_wait_for_one_fast_timer_are_all_woken_again_and_again() {
    for processors in [1, 4] {
        let (_watchdog, runtime) = watched(processors);
        let notify = Arc::new(Notify::new());
        let tick = Arc::clone(&notify);
        let timer = runtime.block_on(async {
            every(Duration::from_nanos(1), move || {
                tick.notify_waiters();
                tick.notify_one();
            })
        });
        let timer = Arc::new(timer);
        let waiters: Vec<_> = (0..10)
            .map(|_| {
                let (notify, timer) = (Arc::clone(&notify), Arc::clone(&timer));
                runtime.spawn(async move {
                    let mut garbage = Vec::new();
                    for n in 0..500 {
                        notify.notified().await;
                        garbage.push(vec![n; 100]);
                        // Each of them drives it as well.
                        assert!(timer.reset(Duration::from_nanos(1)));
                    }
                })
            })
            .collect();
        for waiter in waiters {
            runtime.block_on(waiter).unwrap();
        }
        assert!(timer.stop());
    }
}

#[test]
fn threads_of_no_runtime_arm_and_move_and_stop_the_timers_of_one_runtime() {
    const EACH: usize = 2_000;
    let (_watchdog, runtime) = watched(2);
    let timers: Arc<Mutex<Vec<Timer>>> = Arc::default();
    let (armed, stopped, runs) = (Count::new(), Count::new(), Count::new());
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (timers, handle) = (&timers, runtime.handle());
            let (armed, stopped, runs) = (&armed, &stopped, &runs);
            scope.spawn(move || {
                let mut rng = Rng(seed);
                for _ in 0..EACH {
                    let taken = {
                        let mut timers = timers.lock().unwrap();
                        let place = rng.below(timers.len().max(1) as u64) as usize;
                        (timers.len() > 100).then(|| timers.swap_remove(place))
                    };
                    let delay = rng.micros(3_000);
                    let timer = match taken {
                        Some(timer) if rng.below(2) == 0 => {
                            if timer.stop() {
                                stopped.add();
                            }
                            continue;
                        }
                        Some(timer) => {
                            timer.reset(delay);
                            timer
                        }
                        None => {
                            armed.add();
                            handle.block_on(async { after_func(delay, runs.adder()) })
                        }
                    };
                    timers.lock().unwrap().push(timer);
                }
            });
        }
    });
    eventually("each has run or was stopped", || runs.get() + stopped.get() == armed.get());
    assert!(timers.lock().unwrap().iter().all(|timer| !timer.stop()));
    assert_eq!(runtime.metrics().timers_pending, 0);
    assert!(runs.get() > 0 && stopped.get() > 0);
}
