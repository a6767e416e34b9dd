//! Timer functions by their behaviour.
//!
//! Bounds from above are generous, as the machine may be busy; from below they are exact.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use common::drops::Count;
use common::{check, eventually, until, watched};
use mainspring::runtime::Handle;
use mainspring::task::yield_now;
use mainspring::time::{Duration, Instant, Timer, after_func, every, sleep};

const MILLI: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_function_runs_once_in_time_on_a_worker_and_outside_of_any_task() {
    check(|| async {
        let (sender, receiver) = channel();
        let start = Instant::now();
        let timer = after_func(2 * MILLI, move || {
            sender.send((Instant::now(), Handle::try_current().is_ok())).unwrap();
        });
        until(|| !format!("{timer:?}").contains("true")).await;
        let (at, has_runtime) = receiver.recv().unwrap();
        assert!(at >= start + 2 * MILLI && has_runtime);
        assert!(receiver.recv().is_err(), "the function was not dropped after its only run");
        assert!(!timer.stop() && !timer.reset(Duration::ZERO));
    });
}

#[test]
fn stop_says_whether_it_prevented_the_run() {
    check(|| async {
        let runs = Count::new();
        let mut prevented = 0;
        const COUNT: usize = 2_000;
        let mut timers = Vec::new();
        for n in 0..COUNT {
            let run = runs.clone();
            timers.push(after_func(Duration::from_micros(n as u64 % 200), move || {
                run.add();
            }));
            if n % 50 == 0 {
                yield_now().await;
            }
        }
        for timer in &timers {
            prevented += usize::from(timer.stop());
            assert!(!timer.stop());
        }
        until(|| runs.get() + prevented >= COUNT).await;
        sleep(MILLI).await;
        assert_eq!(runs.get() + prevented, COUNT);
    });
}

#[test]
fn a_function_that_was_stopped_can_be_reset() {
    check(|| async {
        let runs = Count::new();
        let run = runs.clone();
        let timer = after_func(HOUR, move || {
            run.add();
        });
        assert!(timer.reset(2 * HOUR));
        assert!(timer.stop());
        assert!(!timer.reset(HOUR));
        assert!(timer.reset(Duration::ZERO));
        until(|| runs.get() == 1).await;
        assert!(!timer.reset(Duration::ZERO));
        assert!(!timer.stop());
    });
}

#[test]
fn a_dropped_timer_goes_on() {
    check(|| async {
        let (sender, receiver) = channel();
        drop(after_func(MILLI, move || sender.send(7).unwrap()));
        let got = mainspring::spawn_blocking(move || receiver.recv()).await.unwrap();
        assert_eq!(got, Ok(7));
    });
}

#[test]
fn a_periodic_function_keeps_its_phase_and_never_runs_twice_at_once() {
    check(|| async {
        let (runs, inside, overlaps) = (Count::new(), Count::new(), Count::new());
        let timer = {
            let (runs, inside, overlaps) = (runs.clone(), inside.clone(), overlaps.clone());
            every(Duration::from_micros(100), move || {
                if inside.add() > 1 {
                    overlaps.add();
                }
                if runs.add() % 4 == 0 {
                    std::thread::sleep(MILLI);
                }
                inside.subtract();
            })
        };
        until(|| runs.get() >= 20).await;
        assert!(timer.stop());
        let so_far = runs.get();
        sleep(5 * MILLI).await;
        // One may have been running when it was stopped.
        assert!(runs.get() <= so_far + 1);
        assert_eq!(overlaps.get(), 0);
        assert!(!timer.reset(Duration::from_micros(50)), "a stopped timer was pending");
        until(|| runs.get() > so_far + 5).await;
        timer.stop();
    });
}

#[test]
fn a_function_may_stop_reset_and_drop_its_own_timer() {
    check(|| async {
        // What it does to itself in its third run, and how often it runs then.
        type Act = fn(&mut Option<Timer>);
        let stop: Act = |timer| assert!(timer.as_ref().unwrap().stop());
        let stop_and_drop: Act = |timer| assert!(timer.take().unwrap().stop());
        let slower: Act = |timer| assert!(timer.as_ref().unwrap().reset(HOUR));
        for act in [stop, stop_and_drop, slower] {
            let (own, runs) = (Arc::new(Mutex::new(None::<Timer>)), Count::new());
            let timer = {
                let (own, runs) = (Arc::clone(&own), runs.clone());
                every(Duration::from_micros(100), move || {
                    let Ok(mut own) = own.lock() else { return };
                    if own.is_some() && runs.add() == 3 {
                        act(&mut own);
                    }
                })
            };
            *own.lock().unwrap() = Some(timer);
            until(|| runs.get() >= 3).await;
            sleep(2 * MILLI).await;
            assert_eq!(runs.get(), 3);
            drop(own.lock().unwrap().take());
        }

        let (sender, receiver) = channel::<Timer>();
        let (inside, result) = channel();
        let timer = after_func(Duration::ZERO, move || {
            let own = receiver.recv().unwrap();
            inside.send((own.stop(), own.reset(Duration::ZERO))).unwrap();
        });
        sender.send(timer).unwrap();
        let result = mainspring::spawn_blocking(move || result.recv()).await.unwrap();
        assert_eq!(result, Ok((false, false)), "it was pending while it ran");
    });
}

#[test]
fn a_function_may_start_stop_and_reset_others() {
    check(|| async {
        let others: Arc<Vec<Timer>> = Arc::new((0..50).map(|_| after_func(HOUR, || {})).collect());
        let results = Count::new();
        for n in 0..50 {
            let (others, results) = (Arc::clone(&others), results.clone());
            after_func(Duration::ZERO, move || {
                assert!(others[n].reset(2 * HOUR));
                assert!(others[n].stop());
                let inner = results.clone();
                after_func(Duration::ZERO, move || {
                    inner.add();
                });
            });
        }
        until(|| results.get() == 50).await;
        assert!(others.iter().all(|other| !other.stop()));
    });
}

#[test]
fn a_function_that_panics_leaves_the_others_and_itself_going() {
    check(|| async {
        let (panics, runs) = (Count::new(), Count::new());
        let timer = {
            let panics = panics.clone();
            every(Duration::from_micros(100), move || {
                panics.add();
                panic!("expected: on purpose");
            })
        };
        let other = {
            let runs = runs.clone();
            every(Duration::from_micros(100), move || {
                runs.add();
            })
        };
        until(|| panics.get() >= 5 && runs.get() >= 5).await;
        assert!(timer.stop() && other.stop());
        assert!(Handle::current().metrics().panics >= 4);
    });
}

#[test]
fn a_function_that_blocks_delays_no_other_timer_beside_a_second_processor() {
    let (_watchdog, runtime) = watched(2);
    let (release, released) = channel::<()>();
    let blocked = Arc::new(AtomicBool::new(false));
    let blocks = Arc::clone(&blocked);
    let runs = Count::new();
    let task = runtime.spawn({
        let runs = runs.clone();
        async move {
            // Armed on one processor, all due together, the one that blocks first of all.
            after_func(MILLI, move || {
                blocks.store(true, Ordering::SeqCst);
                let _ = released.recv();
            });
            for _ in 0..100 {
                let runs = runs.clone();
                after_func(MILLI, move || {
                    runs.add();
                });
            }
        }
    });
    runtime.block_on(task).unwrap();
    eventually("the others run", || blocked.load(Ordering::SeqCst) && runs.get() == 100);
    runtime.block_on(async { sleep(MILLI).await });
    drop(release);
}

#[test]
fn functions_are_dropped_with_their_runtime_and_nothing_is_pending_afterwards() {
    let (_watchdog, runtime) = watched(2);
    let dropped = Count::new();
    let task = runtime.spawn({
        let dropped = dropped.clone();
        async move {
            let (one, other) = (dropped.on_drop(), dropped.on_drop());
            let once = after_func(HOUR, move || drop(one));
            let many = every(HOUR, move || {
                let _owned = &other;
            });
            (once, many)
        }
    });
    let (once, many) = runtime.block_on(task).unwrap();
    drop(runtime);
    assert_eq!(dropped.get(), 2);
    for timer in [once, many] {
        assert!(!timer.stop() && !timer.reset(MILLI) && !timer.stop());
    }
}
