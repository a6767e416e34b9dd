//! Each expiry of a timer function is claimed once: by a run, by a `stop` that answers true, or by a `reset` that
//! does. Here the tally is made while functions are just firing, and must come out exactly.
//!
//! Bounds from above are generous, as the machine may be busy.

mod common;

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;

use common::drops::Count;
use common::stress::{Rng, soak, spin};
use common::{check, eventually, run, runtime, until, watched};
use mainspring::runtime::Handle;
use mainspring::task::yield_now;
use mainspring::time::{Duration, Timer, after_func, every, sleep};

const HOUR: Duration = Duration::from_secs(3600);

/// A function that is due at once or in a few microseconds, and how often it has run.
fn firing(rng: &mut Rng) -> (Timer, Count) {
    let runs = Count::new();
    let run = runs.clone();
    let timer = after_func(rng.micros(4), move || {
        run.add();
    });
    (timer, runs)
}

/// Stops and resets one function again and again while it fires, and makes the tally.
///
/// After Go's issues 69312 (a stop that kept a firing from coming through answered false) and 80760 (the reset after it
/// claimed the same expiry once more).
fn pairs_of_stop_and_reset(rng: &mut Rng) -> usize {
    let (timer, runs) = firing(rng);
    let (mut armed, mut prevented) = (1, 0);
    loop {
        spin(Duration::from_nanos(rng.below(6_000)));
        let stopped = timer.stop();
        prevented += usize::from(stopped);
        assert!(!stopped || runs.get() == 0, "what has run was stopped");
        assert!(!timer.stop(), "two stops claimed one expiry");
        // Nobody else arms it, so nothing is pending that this could claim.
        assert!(!timer.reset(rng.micros(4)), "a stop and a reset claimed one expiry (stop: {stopped})");
        if !stopped {
            break;
        }
        armed += 1;
    }
    // The stop found nothing pending, though the function had been armed: so it runs, now and never again.
    eventually("a function that could not be stopped runs", || runs.get() == 1);
    assert!(!timer.stop() && !timer.reset(Duration::ZERO));
    assert_eq!(runs.get() + prevented, armed);
    prevented
}

#[test]
fn pairs_of_stop_and_reset_against_firing_claim_each_expiry_once() {
    for processors in [1, 2, 4] {
        let (_watchdog, runtime) = watched(processors);
        let pairs: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..2)
                .map(|seed| {
                    let handle = runtime.handle();
                    scope.spawn(move || {
                        let mut rng = Rng(seed);
                        let rounds = (1_000.0 * soak()) as usize;
                        handle.block_on(async {
                            (0..rounds).map(|_| pairs_of_stop_and_reset(&mut rng)).sum::<usize>()
                        })
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert!(pairs > 100, "hardly a stop came in time: {pairs}");
        assert_eq!(runtime.metrics().timers_pending, 0);
    }
}

/// One thread stops, another resets, and the function fires, all at once. Whoever it was: of the two expiries that were
/// armed, or of the one if the reset came too late, each has gone to somebody.
#[test]
fn a_stop_a_reset_and_a_firing_at_once_claim_each_expiry_once() {
    for processors in [1, 2] {
        let (_watchdog, runtime) = watched(processors);
        let mut rng = Rng(1);
        let (timers, to_stop) = mpsc::channel::<(Timer, Duration)>();
        let (answer, stopped) = mpsc::channel();
        let stopper = thread::spawn(move || {
            for (timer, after) in to_stop {
                spin(after);
                answer.send(timer.stop()).unwrap();
            }
        });
        for round in 0..(2_000.0 * soak()) as u64 {
            let (timer, runs) = runtime.block_on(async { firing(&mut rng) });
            timers.send((timer.clone(), Duration::from_nanos(rng.below(6_000)))).unwrap();
            spin(Duration::from_nanos(rng.below(20_000)));
            let replaced = timer.reset(if round % 2 == 0 { HOUR } else { Duration::ZERO });
            let stopped = stopped.recv().unwrap();
            // What is left pending is claimed by this one, and what runs has then run.
            let last = runtime.block_on(timer.stop_and_wait()).unwrap();
            let claimed = runs.get() + usize::from(stopped) + usize::from(replaced) + usize::from(last);
            // A reset that replaced nothing has armed if the expiry had been prevented rather than run.
            let armed = 1 + usize::from(replaced || stopped);
            assert_eq!(claimed, armed, "run {}, stop {stopped}, reset {replaced}, last {last}", runs.get());
        }
        drop(timers);
        stopper.join().unwrap();
        assert_eq!(runtime.metrics().timers_pending, 0);
    }
}

#[test]
fn of_many_stops_at_once_one_claims_the_expiry() {
    let (_watchdog, runtime) = watched(2);
    for seed in 0..(300.0 * soak()) as u64 {
        let (timer, runs) = runtime.block_on(async { firing(&mut Rng(seed)) });
        let prevented = Count::new();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    if timer.stop() {
                        prevented.add();
                    }
                });
            }
        });
        assert_eq!(runtime.block_on(timer.stop_and_wait()), Ok(false));
        assert_eq!(prevented.get() + runs.get(), 1);
    }
}

/// Has `act` done while a function is due and stands in the run queue, on the one processor that there is.
fn while_queued(act: impl FnOnce(&Timer) + Send + 'static) -> Count {
    let runs = Count::new();
    let run_once = runs.clone();
    run(1, async move {
        let task = mainspring::spawn(async move {
            let before = Handle::current().metrics().timers_fired;
            let inside = run_once.clone();
            let timer = after_func(Duration::ZERO, move || {
                inside.add();
            });
            // It is the next to run, before what the worker queues when it fires timers.
            let other = mainspring::spawn(async move {
                let metrics = Handle::current().metrics();
                assert_eq!(metrics.timers_fired - before, 1, "the timer has not fired");
                assert_eq!(run_once.get(), 0, "the function did not wait in the queue");
                act(&timer);
            });
            yield_now().await;
            other.await.unwrap();
        });
        task.await.unwrap();
        // Whatever is queued runs before this.
        for _ in 0..10 {
            mainspring::spawn(yield_now()).await.unwrap();
        }
    });
    runs
}

#[test]
fn a_function_that_waits_in_a_run_queue_is_pending_and_can_be_stopped() {
    let runs = while_queued(|timer| {
        assert!(timer.stop());
        assert!(!timer.stop());
    });
    assert_eq!(runs.get(), 0);
    let runs = while_queued(|timer| {
        let stopped = pin!(timer.stop_and_wait());
        assert_eq!(stopped.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(true)));
    });
    assert_eq!(runs.get(), 0);
}

#[test]
fn a_function_that_waits_in_a_run_queue_can_be_put_off() {
    let runs = while_queued(|timer| assert!(timer.reset(HOUR)));
    assert_eq!(runs.get(), 0);
}

#[test]
fn a_function_that_is_stopped_and_reset_while_it_waits_in_a_run_queue_runs_once() {
    // Its queue entry is already there, and serves the new expiry.
    let runs = while_queued(|timer| {
        assert!(timer.stop());
        assert!(!timer.reset(Duration::ZERO));
        assert!(timer.reset(Duration::ZERO));
    });
    assert_eq!(runs.get(), 1);
}

#[test]
fn a_function_that_ran_once_does_not_run_again_when_it_resets_itself() {
    check(|| async {
        let (own, receiver) = mpsc::channel::<Timer>();
        let (answer, answers) = mpsc::channel();
        let timer = after_func(Duration::ZERO, move || {
            let own = receiver.recv().unwrap();
            answer.send(own.reset(HOUR)).unwrap();
            // The last handle, dropped inside the function.
            drop(own);
        });
        own.send(timer).unwrap();
        until(|| match answers.try_recv() {
            Ok(pending) => {
                assert!(!pending);
                false
            }
            // Disconnected: it has run, and all that it owned is dropped.
            Err(error) => error == mpsc::TryRecvError::Disconnected,
        })
        .await;
        assert_eq!(Handle::current().metrics().timers_pending, 0);
    });
}

#[test]
fn a_periodic_function_that_resets_itself_in_each_run_has_one_run_pending() {
    check(|| async {
        let (own, runs, answers) = (Arc::new(Mutex::new(None::<Timer>)), Count::new(), Count::new());
        let timer = {
            let (own, runs, answers) = (Arc::clone(&own), runs.clone(), answers.clone());
            every(Duration::from_micros(50), move || {
                let Some(own) = &*own.lock().unwrap() else { return };
                // The next run was filed before this one began.
                let pending = if runs.add() < 200 { own.reset(Duration::from_nanos(1)) } else { own.stop() };
                if pending {
                    answers.add();
                }
            })
        };
        *own.lock().unwrap() = Some(timer.clone());
        until(|| runs.get() == 200).await;
        assert_eq!(timer.stop_and_wait().await, Ok(false));
        sleep(Duration::from_millis(2)).await;
        assert_eq!((runs.get(), answers.get()), (200, 200));
        drop(own.lock().unwrap().take());
    });
}

/// A function that arms itself anew each time, as Go's do with `AfterFunc`.
#[derive(Clone)]
struct Chain {
    /// The timer of the next link; each replaces the former, which is dropped inside its own function.
    timer: Arc<Mutex<Option<Timer>>>,
    armed: Count,
    runs: Count,
    over: Arc<AtomicBool>,
}

impl Chain {
    fn arm(&self) {
        let mut timer = self.timer.lock().unwrap();
        if self.over.load(Ordering::SeqCst) {
            return;
        }
        self.armed.add();
        let chain = self.clone();
        let former =
            timer.replace(after_func(Duration::from_nanos(self.armed.get() as u64 % 3_000), move || {
                chain.runs.add();
                chain.arm();
            }));
        assert!(former.is_none_or(|former| !former.stop()), "the function that runs is pending");
    }
}

#[test]
fn a_function_that_makes_its_timer_anew_loses_no_link_and_can_be_stopped_at_any_moment() {
    for processors in [1, 2] {
        let (_watchdog, runtime) = watched(processors);
        for round in 0..(200.0 * soak()) as usize {
            let chain = Chain {
                timer: Arc::default(),
                armed: Count::new(),
                runs: Count::new(),
                over: Arc::default(),
            };
            runtime.block_on(async { chain.arm() });
            eventually("the chain goes on", || chain.runs.get() >= round % 10);
            // Under the lock no link is being made.
            let timer = {
                let mut timer = chain.timer.lock().unwrap();
                chain.over.store(true, Ordering::SeqCst);
                timer.take().unwrap()
            };
            let prevented = runtime.block_on(timer.stop_and_wait()).unwrap();
            assert_eq!(chain.runs.get() + usize::from(prevented), chain.armed.get());
        }
    }
}

#[test]
fn an_expiry_that_the_end_of_the_runtime_takes_is_neither_run_nor_prevented_afterwards() {
    for round in 0..(60.0 * soak()) as u64 {
        let runtime = runtime(2);
        let mut rng = Rng(round);
        let (timer, runs) = runtime.block_on(async { firing(&mut rng) });
        let prevented = thread::scope(|scope| {
            let stopper = scope.spawn(|| {
                spin(Duration::from_nanos(rng.below(200_000)));
                timer.reset(HOUR) | timer.stop()
            });
            drop(runtime);
            stopper.join().unwrap()
        });
        let before = runs.get();
        assert!(before + usize::from(prevented) <= 1, "an expiry was run and prevented");
        assert!(!timer.stop() && !timer.reset(Duration::ZERO) && !timer.stop());
        assert_eq!(runs.get(), before);
    }
}
