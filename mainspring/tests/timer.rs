//! Timer functions by their behaviour.
//!
//! Bounds from above are generous, as the machine may be busy; from below they are exact.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use common::drops::Count;
use common::watchdog::Watchdog;
use common::{check, eventually, until, watched};
use mainspring::runtime::{Builder, Handle, Handoff};
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
fn a_timer_that_comes_due_while_a_function_blocks_is_not_left_to_the_monitor() {
    let (_watchdog, runtime) = watched(2);
    let mut all = Vec::new();
    for _ in 0..21 {
        let (ran, blocked) = channel();
        let (sender, late) = channel();
        let task = runtime.spawn(async move {
            let due = Instant::now() + 3 * MILLI;
            // The first keeps the worker that waited for it, until the second has run.
            after_func(MILLI, move || sender.send(blocked.recv().unwrap()).unwrap());
            after_func(3 * MILLI, move || ran.send(due.elapsed()).unwrap());
        });
        runtime.block_on(task).unwrap();
        all.push(late.recv().unwrap());
    }
    // The monitor would come after ten to twenty milliseconds, nearly each time.
    all.sort_unstable();
    assert!(all[10] < 5 * MILLI, "{all:?} late");
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

/// Arms functions for `delays`, in this order, on a runtime of one processor that is busy until all of them are
/// due; the order in which they ran. `None` if arming took so long that it says nothing. Without hand-off, which would
/// have others fire some while the rest is being armed.
fn order_of_functions(delays: &[Duration], step: Duration) -> Option<Vec<usize>> {
    let _watchdog = Watchdog::here();
    let runtime = Builder::new().processors(1).handoff(Handoff::off()).build().unwrap();
    let delays = delays.to_vec();
    let task = runtime.spawn(async move {
        let (ran, order) = channel();
        let start = Instant::now();
        for (n, delay) in delays.iter().enumerate() {
            let ran = ran.clone();
            // Nobody hears it if arming took too long.
            after_func(*delay, move || ran.send(n).unwrap_or(()));
        }
        drop(ran);
        let armed = Instant::now();
        if armed - start >= step {
            return None;
        }
        while Instant::now() <= armed + *delays.iter().max().unwrap() {
            std::hint::spin_loop();
        }
        mainspring::spawn_blocking(move || Some(order.iter().collect())).await.unwrap()
    });
    runtime.block_on(task).unwrap()
}

#[test]
fn functions_run_in_the_order_of_their_times() {
    let shuffled = [4, 3, 10, 7, 5, 2, 0, 12, 1, 11, 6, 8, 9];
    let delays = shuffled.map(|n| n * 5 * MILLI);
    let order = (0..100).find_map(|_| order_of_functions(&delays, 5 * MILLI));
    let order = order.expect("this machine is too slow for the test to show anything");
    let times: Vec<_> = order.into_iter().map(|n| shuffled[n]).collect();
    assert_eq!(times, (0..13).collect::<Vec<_>>());
}

#[test]
fn functions_of_one_time_run_in_the_order_in_which_they_were_armed() {
    // More than fire in one pass, and more than a processor's queue holds.
    const COUNT: usize = 1_000;
    for delay in [Duration::ZERO, Duration::from_nanos(1), 2 * MILLI] {
        // Each is due a little later than the one before, and all are due when the first one fires.
        let order = order_of_functions(&[delay; COUNT], HOUR).unwrap();
        let displaced = order.iter().enumerate().find(|(place, n)| place != *n);
        assert_eq!((order.len(), displaced), (COUNT, None), "{delay:?}");
    }
}

#[test]
fn a_function_may_start_the_next_of_a_thousand_with_no_delay() {
    fn chain(left: usize, end: std::sync::mpsc::Sender<()>) {
        match left {
            0 => end.send(()).unwrap(),
            _ => drop(after_func(Duration::ZERO, move || chain(left - 1, end))),
        }
    }
    check(|| async {
        let (end, ended) = channel();
        chain(1_000, end);
        mainspring::spawn_blocking(move || ended.recv().unwrap()).await.unwrap();
        assert_eq!(Handle::current().metrics().timers_pending, 0);
    });
}

#[test]
fn a_function_may_put_another_timer_in_the_place_of_its_own() {
    fn again(place: &Arc<Mutex<Option<Timer>>>, runs: &Count) {
        let mut own = place.lock().unwrap();
        if runs.add() == 100 {
            // The last of them goes while its function runs.
            own.take();
            return;
        }
        let (place, runs) = (Arc::clone(place), runs.clone());
        *own = Some(after_func(Duration::from_micros(10), move || again(&place, &runs)));
    }
    check(|| async {
        let (place, runs) = (Arc::new(Mutex::new(None)), Count::new());
        again(&place, &runs);
        until(|| runs.get() == 100 && place.lock().unwrap().is_none()).await;
        until(|| Arc::strong_count(&place) == 1).await;
    });
}

#[test]
fn a_function_may_wait_for_a_lock_whose_holder_arms_timers() {
    check(|| async {
        let (lock, runs) = (Arc::new(Mutex::new(())), Count::new());
        let holder = {
            let (lock, runs, handle) = (Arc::clone(&lock), runs.clone(), Handle::current());
            std::thread::spawn(move || {
                handle.block_on(async {
                    for n in 0..500 {
                        let held = lock.lock().unwrap();
                        let (lock, runs) = (Arc::clone(&lock), runs.clone());
                        after_func(Duration::ZERO, move || {
                            let _held = lock.lock().unwrap();
                            runs.add();
                        });
                        // By now it may wait for the lock, and these need whatever it holds.
                        std::thread::yield_now();
                        let other = after_func(HOUR, || {});
                        assert!(other.reset(HOUR + Duration::from_micros(n)));
                        assert!(other.stop());
                        drop(held);
                    }
                });
            })
        };
        until(|| runs.get() == 500).await;
        holder.join().unwrap();
    });
}

#[test]
fn a_reset_counts_from_now_and_says_whether_a_run_was_pending() {
    check(|| async {
        let (sender, receiver) = channel();
        let timer = after_func(20 * MILLI, move || sender.send(Instant::now()).unwrap());
        let mut since = Instant::now();
        let mut pending = true;
        for _ in 0..5 {
            sleep(5 * MILLI).await;
            let now = Instant::now();
            pending = timer.reset(20 * MILLI);
            if !pending {
                // The machine was busy: it had run before.
                break;
            }
            since = now;
        }
        let at = mainspring::spawn_blocking(move || receiver.recv()).await.unwrap().unwrap();
        assert!(at >= since + if pending { 20 * MILLI } else { Duration::ZERO });
        for duration in [Duration::ZERO, MILLI, Duration::MAX] {
            assert!(!timer.reset(duration), "it has run");
        }
        assert_eq!(Handle::current().metrics().timers_pending, 0, "what cannot run again is armed");
    });
}

#[test]
fn the_longest_delays_and_periods_never_come_and_harm_nothing() {
    check(|| async {
        let runs = Count::new();
        let longest = [
            Duration::MAX,
            Duration::MAX - Duration::from_nanos(1),
            Duration::from_nanos(u64::MAX),
            Duration::from_nanos(i64::MAX as u64),
            Duration::from_secs(u64::MAX / 10),
        ];
        let mut timers = Vec::new();
        for duration in longest {
            timers.push(after_func(duration, runs.adder()));
            timers.push(every(duration, runs.adder()));
        }
        // Timers of every kind come and go beside them.
        let (sender, receiver) = channel();
        after_func(MILLI, move || sender.send(()).unwrap());
        sleep(MILLI).await;
        mainspring::spawn_blocking(move || receiver.recv().unwrap()).await.unwrap();
        assert_eq!(runs.get(), 0);
        for timer in &timers {
            assert!(timer.reset(Duration::MAX));
            assert!(timer.reset(HOUR), "one for ever is pending, too");
        }
        assert!(timers.iter().all(Timer::stop));
        assert_eq!(Handle::current().metrics().timers_pending, 0);
    });
}

#[test]
fn a_periodic_function_that_fell_far_behind_leaves_out_what_it_missed() {
    const PERIOD: Duration = Duration::from_millis(2);
    check(|| async {
        let (sender, receiver) = channel();
        let mut first = true;
        let before = Instant::now();
        let timer = every(PERIOD, move || {
            let began = Instant::now();
            if std::mem::take(&mut first) {
                std::thread::sleep(15 * PERIOD);
            }
            let _ = sender.send((began, Instant::now()));
        });
        let runs: Vec<_> =
            mainspring::spawn_blocking(move || receiver.iter().take(12).collect()).await.unwrap();
        assert!(timer.stop());
        for ((began, _), n) in runs.iter().zip(1..) {
            assert!(*began >= before + n * PERIOD, "run {n} was early");
        }
        // One run may come at once, for those that were missed, and one at the next multiple of the period;
        // from there on they are a period apart.
        let behind = runs[0].1;
        for ((began, _), n) in runs[2..].iter().zip(0..) {
            assert!(*began >= behind + n * PERIOD, "run {n} after the long one is one that was missed");
        }
    });
}

#[test]
fn a_periodic_function_that_was_late_is_in_phase_again() {
    const PERIOD: Duration = Duration::from_millis(20);
    // A busy machine makes runs late as well: it must show the phase now and then only.
    let in_phase = (0..50).any(|_| {
        let (_watchdog, runtime) = watched(1);
        let task = runtime.spawn(async {
            let (sender, receiver) = channel();
            let mut runs = 0;
            // Before the timer: it must not look late by nearly a period where it is late by less than this.
            let start = Instant::now();
            let timer = every(PERIOD, move || {
                runs += 1;
                let _ = sender.send(Instant::now());
                if runs == 1 {
                    // The next run is late by half a period.
                    std::thread::sleep(3 * PERIOD / 2);
                }
            });
            let runs: Vec<_> =
                mainspring::spawn_blocking(move || receiver.iter().take(6).collect()).await.unwrap();
            timer.stop();
            runs[2..].iter().all(|at| (*at - start).as_nanos() % PERIOD.as_nanos() < PERIOD.as_nanos() / 4)
        });
        runtime.block_on(task).unwrap()
    });
    assert!(in_phase);
}

#[test]
fn a_period_of_a_nanosecond_hinders_nothing_and_can_be_stopped_and_changed() {
    check(|| async {
        let (runs, others) = (Count::new(), Count::new());
        let timer = every(Duration::from_nanos(1), runs.adder());
        for _ in 0..20 {
            after_func(MILLI, others.adder());
            sleep(Duration::from_micros(100)).await;
        }
        until(|| others.get() == 20 && runs.get() > 100).await;
        assert!(timer.reset(HOUR));
        sleep(MILLI).await;
        let so_far = runs.get();
        sleep(3 * MILLI).await;
        assert_eq!(runs.get(), so_far);
        assert!(timer.reset(Duration::from_nanos(1)));
        until(|| runs.get() > so_far).await;
        assert!(timer.stop());
    });
}
