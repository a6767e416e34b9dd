//! Time by its behaviour. Bounds from above are generous, as the machine may be busy; from below they
//! are exact.

#![allow(clippy::async_yields_async, reason = "sleeps move out of the tasks that began them")]

mod support;

use std::future::{Future, pending, poll_fn, ready};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use mainspring::runtime::Handle;
use mainspring::spawn;
use mainspring::task::{JoinSet, yield_now};
use mainspring::time::{
    Duration, Elapsed, Instant, Interval, MissedTickBehavior, Sleep, Timer, after_func, every, interval,
    interval_at, sleep, sleep_until, timeout, timeout_at,
};
use support::{Count, LONG, check, eventually, foreign_block_on, runtime, watchdog};

const MILLI: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// A waker that counts its wakes.
struct Wakes(Count);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.add();
    }
}

fn counting_waker(count: &Count) -> Waker {
    Waker::from(Arc::new(Wakes(count.clone())))
}

fn poll_with(sleep: &mut Sleep, waker: &Waker) -> Poll<()> {
    Pin::new(sleep).poll(&mut Context::from_waker(waker))
}

async fn until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LONG);
        sleep(Duration::from_micros(100)).await;
    }
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
    let _watchdog = watchdog();
    let runtime = runtime(1);
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

#[test]
fn sleeps_end_in_the_order_of_their_deadlines() {
    let _watchdog = watchdog();
    let runtime = runtime(1);
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
        assert!(took >= 2 * MILLI && took < LONG, "{took:?}");

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
    let _watchdog = watchdog();
    let start = Instant::now();
    foreign_block_on(sleep(2 * MILLI));
    assert!(start.elapsed() >= 2 * MILLI);

    // Armed by a foreign executor, finished in a task.
    let runtime = runtime(2);
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
    let _watchdog = watchdog();
    let (armed, other) = (runtime(1), runtime(1));
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
fn an_interval_keeps_its_phase() {
    check(|| async {
        let start = Instant::now() + MILLI;
        let mut interval = interval_at(start, 2 * MILLI);
        for n in 0..5 {
            let tick = interval.tick().await;
            assert_eq!(tick, start + n * 2 * MILLI);
            assert!(Instant::now() >= tick);
        }
    });
}

/// An interval of a millisecond whose second tick is taken when five and a bit have passed: the
/// interval's start, and the time when the late tick had been taken.
async fn late(behavior: MissedTickBehavior) -> (Interval, Instant, Instant) {
    let mut interval = interval(MILLI);
    interval.set_missed_tick_behavior(behavior);
    assert_eq!(interval.missed_tick_behavior(), behavior);
    let start = interval.tick().await;
    sleep_until(start + 5 * MILLI + Duration::from_micros(300)).await;
    assert_eq!(interval.tick().await, start + MILLI);
    (interval, start, Instant::now())
}

#[test]
fn missed_ticks_come_in_a_burst() {
    check(|| async {
        let (mut interval, start, _) = late(MissedTickBehavior::Burst).await;
        for n in 2..=5 {
            let mut tick = std::pin::pin!(interval.tick());
            let tick = tick.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert_eq!(tick, Poll::Ready(start + n * MILLI));
        }
    });
}

#[test]
fn missed_ticks_delay_the_next_ones() {
    check(|| async {
        let before = Instant::now();
        let (mut interval, start, after) = late(MissedTickBehavior::Delay).await;
        let next = interval.tick().await;
        assert!(next >= before + 6 * MILLI && next <= after + MILLI, "{start:?} {next:?}");
    });
}

#[test]
fn a_tick_late_by_less_than_a_period_delays_the_next_ones_too() {
    check(|| async {
        let now = Instant::now();
        let mut interval = interval_at(now - 20 * MILLI, 30 * MILLI);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval.tick().await;
        assert!(interval.tick().await >= now + 30 * MILLI);
    });
}

#[test]
fn missed_ticks_are_skipped_and_the_phase_is_kept() {
    check(|| async {
        let (mut interval, start, after) = late(MissedTickBehavior::Skip).await;
        let next = interval.tick().await;
        let since = next - start;
        assert_eq!(since.as_nanos() % MILLI.as_nanos(), 0, "{since:?}");
        assert!(since >= 6 * MILLI && next <= after + MILLI, "{since:?}");

        // Hours late, without the hours.
        let start = Instant::now() - HOUR + 3 * MILLI;
        let mut interval = interval_at(start, 7 * MILLI);
        interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
        assert_eq!(interval.tick().await, start);
        let next = interval.tick().await;
        assert_eq!((next - start).as_nanos() % (7 * MILLI).as_nanos(), 0);
        assert!(next >= start + HOUR - 3 * MILLI);
    });
}

#[test]
fn an_interval_that_is_reset_starts_its_phase_anew() {
    check(|| async {
        let mut interval = interval(HOUR);
        interval.tick().await;
        let deadline = Instant::now() + MILLI;
        interval.reset_at(deadline);
        assert_eq!(interval.tick().await, deadline);
        interval.reset();
        assert!(timeout(MILLI, interval.tick()).await.is_err());
        assert_eq!(interval.period(), HOUR);
    });
}

#[test]
#[should_panic(expected = "must not be zero")]
fn an_interval_without_a_period_is_refused() {
    drop(interval(Duration::ZERO));
}

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
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload_as_str() != Some("on purpose") {
            hook(info);
        }
    }));
    check(|| async {
        let (panics, runs) = (Count::new(), Count::new());
        let timer = {
            let panics = panics.clone();
            every(Duration::from_micros(100), move || {
                panics.add();
                panic!("on purpose");
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
    let _watchdog = watchdog();
    let runtime = runtime(2);
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
    let _watchdog = watchdog();
    let runtime = runtime(2);
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

#[test]
fn a_hundred_thousand_timers_all_fire_and_none_early() {
    let _watchdog = watchdog();
    const COUNT: u64 = 100_000;
    let runtime = runtime(2);
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
    let _watchdog = watchdog();
    let runtime = runtime(2);
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
