//! Models of timer functions: who claims an expiry, and waiting for the end of a run.
//!
//! A real worker's steps fire the timer, queue the function and run it; the clock stands still.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use loom::thread;

use super::*;
use crate::base::primitive::atomic::AtomicUsize;
use crate::sched::current;
use crate::sched::loom_tests::{Driver, advance, check_with_preemptions, scheduler};
use crate::sched::task::wake;

const NANO: Duration = Duration::from_nanos(1);

/// A scheduler with one processor, a worker for it, and a function that is due: a periodic one, or one that
/// runs once.
struct World {
    scheduler: Arc<Scheduler>,
    driver: Driver,
    timer: Timer,
    runs: Arc<Runs>,
}

#[derive(Default)]
struct Runs {
    begun: AtomicUsize,
    ended: AtomicUsize,
}

impl Runs {
    fn run(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// How many have ended, and whether one goes on.
    fn now(&self) -> (usize, bool) {
        let ended = self.ended.load(Ordering::Relaxed);
        (ended, self.begun.load(Ordering::Relaxed) != ended)
    }
}

impl World {
    fn new(periodic: bool) -> World {
        let (scheduler, _) = scheduler(1);
        let driver = Driver::new(&scheduler);
        let runs = Arc::new(Runs::default());
        let run = Arc::clone(&runs);
        let _entered = current::enter(Arc::clone(&scheduler));
        let timer =
            if periodic { every(NANO, move || run.run()) } else { after_func(NANO, move || run.run()) };
        advance(&scheduler, NANO);
        World { scheduler, driver, timer, runs }
    }
}

/// One thread fires and runs, one stops, one resets. In the end each expiry must have been claimed by somebody.
fn claims(periodic: bool, lock_is_kept: bool) {
    check_with_preemptions(3, &format!("fire, stop, reset: periodic {periodic}"), move || {
        let World { scheduler, driver, timer, runs } = World::new(periodic);
        let stop = thread::spawn({
            let timer = timer.clone();
            move || timer.stop()
        });
        let reset = thread::spawn({
            let timer = timer.clone();
            move || timer.reset(NANO)
        });
        if lock_is_kept {
            scheduler.fire_with_the_core_locked(0, wake);
        }
        driver.run();
        let [stopped, replaced] = [stop, reset].map(|thread| thread.join().unwrap());
        // What the reset has armed is due now. Of a periodic function it stays pending.
        if !periodic {
            advance(&scheduler, NANO);
        }
        driver.run();
        let ran = runs.now().0;
        let left = timer.stop();
        let claimed = usize::from(stopped) + usize::from(replaced) + usize::from(left) + ran;
        // One by the beginning, one by the reset, unless that came too late for a function that runs once; and a
        // periodic one files its next in each run.
        let armed = if periodic { 2 + ran } else { 1 + usize::from(stopped || replaced) };
        assert_eq!(claimed, armed, "stop {stopped}, reset {replaced}, left {left}, ran {ran}");
        assert!(!timer.stop());
        driver.run();
        assert_eq!(runs.now(), (ran, false));
        assert_eq!(scheduler.metrics().timers_pending, 0);
    });
}

#[test]
fn loom_a_firing_a_stop_and_a_reset_at_once_claim_each_expiry_once() {
    claims(false, false);
}

#[test]
fn loom_a_periodic_firing_a_stop_and_a_reset_at_once_claim_each_expiry_once() {
    claims(true, false);
}

#[test]
#[should_panic(expected = "lock held over user code: about to call a waker")]
fn loom_canary_a_timer_fired_with_the_core_locked_is_seen() {
    claims(false, true);
}

/// A worker comes upon a queue entry that has nothing to do yet, because the function was put off, and at that
/// moment another one fires the timer.
#[test]
fn loom_a_wake_up_that_comes_while_the_function_leaves_the_run_queue_is_not_lost() {
    check_with_preemptions(3, "a wake-up while the function leaves the queue", || {
        let World { scheduler, driver, timer, runs } = World::new(false);
        fire(&scheduler);
        assert!(timer.reset(NANO));
        let other = thread::spawn({
            let scheduler = Arc::clone(&scheduler);
            move || {
                advance(&scheduler, NANO);
                fire(&scheduler);
            }
        });
        driver.run();
        other.join().unwrap();
        driver.run();
        assert_eq!(runs.now(), (1, false));
    });
}

/// Fires what is due as a worker does that has none of the processors.
fn fire(scheduler: &Scheduler) {
    let mut wakers = Vec::new();
    scheduler.fire_with_the_core_locked(0, |waker| wakers.push(waker));
    wakers.into_iter().for_each(wake);
}

/// A waker of the user's, which looks for locks.
struct Unlocked(AtomicUsize);

impl Wake for Unlocked {
    fn wake(self: Arc<Self>) {
        assert_unlocked("call a waker");
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Somebody waits, and a second one comes and gives up, while a run is starting and ending.
fn waiting(periodic: bool, gives_up: bool) {
    check_with_preemptions(
        5,
        &format!("stop_and_wait: periodic {periodic}, another gives up {gives_up}"),
        move || {
            let World { scheduler, driver, timer, runs } = World::new(periodic);
            let worker = thread::spawn(move || {
                driver.run();
                driver
            });
            let second = gives_up.then(|| {
                let timer = timer.clone();
                thread::spawn(move || {
                    let unlocked = Arc::new(Unlocked(AtomicUsize::new(0)));
                    let waker = Waker::from(Arc::clone(&unlocked));
                    let mut waiting = timer.stop_and_wait();
                    let _ = std::pin::Pin::new(&mut waiting).poll(&mut Context::from_waker(&waker));
                    let prevented = format!("{waiting:?}").contains("true");
                    drop((waiting, waker));
                    prevented
                })
            });
            let entered = current::enter(Arc::clone(&scheduler));
            let prevented = crate::block_on(timer.stop_and_wait()).unwrap();
            let (ran, inside) = runs.now();
            assert!(!inside, "it is still running");
            drop(entered);
            let by_second = second.is_some_and(|second| second.join().unwrap());
            // Of a periodic function the next run is always there to be prevented.
            let claimed = usize::from(prevented) + usize::from(by_second);
            assert_eq!(claimed, if periodic { 1 } else { 1 - ran });
            let driver = worker.join().unwrap();
            advance(&scheduler, NANO);
            driver.run();
            assert_eq!(runs.now(), (ran, false), "it runs after it was waited for");
        },
    );
}

#[test]
fn loom_who_waits_for_a_run_that_starts_or_ends_finds_it_outside_for_good() {
    waiting(false, false);
}

#[test]
fn loom_who_waits_for_a_run_of_a_periodic_function_finds_it_outside_for_good() {
    waiting(true, false);
}

#[test]
fn loom_a_waiter_that_gives_up_takes_nobody_elses_wake_up_along() {
    waiting(true, true);
}
