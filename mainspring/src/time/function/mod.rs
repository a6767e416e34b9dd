//! Functions that run later: once, or again and again.
//!
//! A timer in the store wakes the function, which puts it into a run queue; a worker runs it there as it
//! would poll a task. So a function that takes long delays no other timer, and its worker's processor
//! can be taken over while it runs.
//!
//! # The protocol
//!
//! Two things are true of a function or not, each by itself: an expiry is *pending* (`when` is set), and a run is
//! *going on* (`running` is set). Both change under the state's lock alone.
//!
//! ```text
//!  expiry    nothing ── reset ──▶ pending, armed ── timer fires, wake ──▶ pending, queued
//!               ▲                       │                                      │
//!               └──── stop, or reset ───┴──────────────────┬──── claim ────────┘
//!                 (a reset, and the claim of a             │
//!                  periodic function, arm the next)        ▼
//!  run       nothing ◀─────────── finish ────────────── going on
//! ```
//!
//! * **An expiry is claimed once**, by whoever takes it out of `when`: a `stop` or a `reset`, whose answer is true
//!   then, or a run. That its timer has fired, or that the function stands in a run queue, changes nothing: it is
//!   pending until a worker claims it. (Go has a moment between two locks at which a firing is neither,
//!   and had to find out whose it is: its issues 69312 and 80760.)
//! * **A run claims only what is due.** So a wake-up does nothing that comes twice, or late, for a time that
//!   was moved since. While an expiry is pending, a timer is armed for its time, or a wake-up is on its way.
//! * **A queued function loses no wake-up.** `wake` queues it unless `queued` was set, and the worker clears that
//!   *before* it claims. If `wake` finds it set, the claim is still to come, and reads a clock that is not
//!   behind the one by which the timer fired.
//! * **A claim begins the run**, in the same section of the lock. A periodic function whose former run goes on
//!   misses the expiry that is claimed meanwhile, so it never runs twice at once.
//! * **Whoever waits for a run stands in its `running`.** [`Timer::stop_and_wait`] takes the pending expiry and the
//!   number of the run that goes on in one section of the lock. A poll finds that number gone, and is done, or
//!   leaves its waker there, and `finish` takes out both together: nothing can come between. A run
//!   that begins later has another number, and nobody who waits is concerned.
//! * **At the end of the runtime**, whoever finds the function queued takes the expiry and drops the function, and so
//!   does `finish` once the runtime is closing. A run that goes on then ends as any other and wakes who waits.
//!
//! The lock may be held while the timer is armed or cancelled (rank Function before Core), never while the
//! function runs, nor while a waker is cloned, called or dropped.

#[cfg(all(test, mainspring_loom))]
mod loom_tests;
mod wait;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

use crate::base::clock::Tick;
use crate::base::primitive::atomic::{AtomicBool, Ordering};
use crate::base::primitive::thread;
use crate::base::rank::{Rank, RankedGuard, RankedMutex, assert_unlocked};
use crate::runtime::current_or_ambient;
use crate::sched::Scheduler;
use crate::sched::task::{Identity, Runnable, TaskRef, drop_user_value};
use crate::timers::{Earliest, Id};

use self::wait::Running;
pub use self::wait::{StopAndWait, WaitsForItself};

/// Runs `f` once, after `duration`, on a worker of the current runtime, outside of any task and with
/// nothing locked. `f` may block, panic, and stop or reset timers, this one too.
///
/// As Go's `time.AfterFunc`.
///
/// # Examples
///
/// ```
/// use mainspring::time::{Duration, after_func};
///
/// let (sender, receiver) = std::sync::mpsc::channel();
/// after_func(Duration::from_millis(1), move || sender.send("done").unwrap());
/// assert_eq!(receiver.recv(), Ok("done"));
///
/// let timer = after_func(Duration::from_secs(3600), || unreachable!());
/// assert!(timer.stop());
/// assert!(!timer.stop());
/// ```
pub fn after_func(duration: Duration, f: impl FnOnce() + Send + 'static) -> Timer {
    Timer::start(duration, None, Action::Once(Box::new(f)))
}

/// Runs `f` every `period`, the first time after one period; otherwise as [`after_func`].
///
/// The phase is kept: runs are due at multiples of the period after the start, and multiples that were
/// missed are left out. A run that is due while the former one still goes on is left out too, so `f`
/// never runs twice at once.
///
/// # Panics
///
/// If `period` is zero.
///
/// # Examples
///
/// ```
/// use mainspring::time::{Duration, every};
///
/// let (sender, receiver) = std::sync::mpsc::channel();
/// let mut count = 0;
/// let timer = every(Duration::from_millis(1), move || {
///     count += 1;
///     let _ = sender.send(count);
/// });
/// assert_eq!(receiver.iter().take(3).collect::<Vec<_>>(), [1, 2, 3]);
/// timer.stop();
/// ```
#[track_caller]
pub fn every(period: Duration, f: impl FnMut() + Send + 'static) -> Timer {
    assert!(!period.is_zero(), "the period of a timer must not be zero");
    Timer::start(period, Some(period), Action::Many(Box::new(f)))
}

/// A function that is to run; see [`after_func`] and [`every`]. Dropping it does not stop it.
///
/// It keeps its function, which may be reset, as long as there is a `Timer` for it. So a function that owns its
/// own `Timer` and does not run any more, because it was stopped, is never dropped, and the end of its runtime finds
/// nothing to drop either: nobody can tell that the `Timer` inside is the only one that is left. Let such a
/// function share its timer with whoever stops it (an `Arc<Mutex<Option<Timer>>>`), and take it out there. One
/// that runs once drops all that it owns when it has run.
#[derive(Clone)]
pub struct Timer {
    function: Arc<Function>,
}

struct Function {
    scheduler: Arc<Scheduler>,
    /// Whether the function is in a run queue. Set by who queues it, cleared by the run that follows.
    queued: AtomicBool,
    state: RankedMutex<State>,
}

struct State {
    /// When the pending run is due.
    when: Option<Tick>,
    period: Option<Duration>,
    /// The timer in the store; stale once that has fired.
    id: Option<Id>,
    /// Not there while the function runs, nor when it has run for the last time.
    action: Option<Action>,
    /// The run that goes on, from its claim to its end.
    running: Option<Running>,
    /// How many runs have begun; the number of the last one.
    runs: u64,
}

enum Action {
    Once(Box<dyn FnOnce() + Send>),
    Many(Box<dyn FnMut() + Send>),
}

impl Timer {
    fn start(duration: Duration, period: Option<Duration>, action: Action) -> Timer {
        let state = State { when: None, period, id: None, action: Some(action), running: None, runs: 0 };
        let function = Arc::new(Function {
            scheduler: current_or_ambient(),
            queued: AtomicBool::new(false),
            state: RankedMutex::new(Rank::Function, state),
        });
        function.schedule_after(duration);
        Timer { function }
    }

    /// Prevents the pending run. True if this call did so; false if none was pending: the function had
    /// run, is running, or was stopped. It does not wait for a running function, as
    /// [`stop_and_wait`](Timer::stop_and_wait) does, and drops nothing: the function may be reset.
    ///
    /// A run is pending until a worker begins it, also while it is due and waits for its turn. A function that runs
    /// [`every`] period and is running has its next run pending.
    pub fn stop(&self) -> bool {
        self.function.stop().prevented
    }

    /// Prevents the pending run, as [`stop`](Timer::stop) and before it returns, and then waits until a run that is
    /// going on has returned; a run that panics has. `Ok(true)` if this call prevented a run, `Ok(false)` if none
    /// was pending.
    ///
    /// When it is ready, the function is not running, and does not run again unless somebody resets it. (If
    /// somebody has done so since the call, perhaps the function itself, it may be running: only the run that went
    /// on during the call is waited for.) Any number of tasks may wait, on any executor. The end of the runtime
    /// makes nobody wait: what it cancels does not run.
    ///
    /// # Errors
    ///
    /// [`WaitsForItself`] if it is polled by the thread on which that very run goes on, in the function itself or in
    /// a [`block_on`](crate::block_on) in there. The pending run was prevented all the same. Waiting for itself by a
    /// detour (the function blocks until a task has waited for it) is not noticed, and lasts for ever.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the waiting alone. The pending run was prevented by the call.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    /// use mainspring::time::{Duration, every, sleep};
    ///
    /// # mainspring::block_on(async {
    /// let inside = Arc::new(AtomicBool::new(false));
    /// let timer = every(Duration::from_micros(100), {
    ///     let inside = Arc::clone(&inside);
    ///     move || {
    ///         inside.store(true, SeqCst);
    ///         std::thread::sleep(Duration::from_millis(1));
    ///         inside.store(false, SeqCst);
    ///     }
    /// });
    /// sleep(Duration::from_millis(1)).await;
    /// assert_eq!(timer.stop_and_wait().await, Ok(true));
    /// assert!(!inside.load(SeqCst));
    /// assert_eq!(timer.stop_and_wait().await, Ok(false));
    /// # });
    /// ```
    pub fn stop_and_wait(&self) -> StopAndWait {
        StopAndWait::new(&self.function)
    }

    /// Sets the time of the next run to `duration` from now, and for [`every`] the period as well. True
    /// if a run had been pending, which this one replaces. A function that runs once and whose run has begun
    /// does not run again, also if it is itself that asks: then nothing happens and the answer is false. (Go's runs
    /// again.) One that was stopped runs after all.
    ///
    /// # Panics
    ///
    /// If the timer is periodic and `duration` is zero.
    #[track_caller]
    pub fn reset(&self, duration: Duration) -> bool {
        let periodic = self.function.state.lock().period.is_some();
        assert!(!periodic || !duration.is_zero(), "the period of a timer must not be zero");
        self.function.schedule_after(duration)
    }
}

/// What a `stop` found.
struct Stopped {
    /// Whether it took a pending expiry.
    prevented: bool,
    /// The number of the run that goes on.
    running: Option<u64>,
}

impl Function {
    /// Takes the pending expiry, if there is one.
    fn stop(&self) -> Stopped {
        let mut state = self.state.lock();
        let prevented = state.when.take().is_some();
        let cancelled = state.id.take().and_then(|id| self.scheduler.cancel_timer(id));
        let running = state.running.as_ref().map(Running::number);
        drop(state);
        drop_user_value(cancelled);
        Stopped { prevented, running }
    }

    /// Makes a run pending, instead of the one that was; true if there was one.
    fn schedule_after(self: &Arc<Self>, duration: Duration) -> bool {
        // What takes no time is due now, and not a little later.
        let now = if duration.is_zero() { self.scheduler.now() } else { self.scheduler.now_or_later() };
        let at = now.saturating_add(duration);
        let waker = Waker::from(Arc::clone(self));
        let mut state = self.state.lock();
        if state.period.is_some() {
            state.period = Some(duration);
        } else if state.action.is_none() {
            drop(state);
            return false;
        }
        let pending = state.when.replace(at).is_some();
        let (earliest, unused) = self.arm(&mut state, now, at, waker);
        drop(state);
        drop_user_value(unused);
        self.scheduler.announce_timer(earliest);
        pending
    }

    /// Has the store wake the function at `at`; what was not needed is for the caller to drop unlocked.
    fn arm(
        &self,
        state: &mut RankedGuard<'_, State>,
        now: Tick,
        at: Tick,
        waker: Waker,
    ) -> (Earliest, Option<Waker>) {
        if let Some(id) = state.id
            && let Some(earliest) = self.scheduler.reset_timer(id, at)
        {
            return (earliest, Some(waker));
        }
        // A runtime that is closing may still take timers, but the function may have been cancelled
        // already, and nobody would do so again.
        let armed = if self.scheduler.is_closing() { Err(waker) } else { self.scheduler.arm(now, at, waker) };
        match armed {
            Ok((id, earliest)) => {
                state.id = Some(id);
                (earliest, None)
            }
            // Nothing will run.
            Err(unused) => {
                state.when = None;
                state.id = None;
                (Earliest::Unchanged, Some(unused))
            }
        }
    }

    /// Takes the pending expiry, if it is due, and for a periodic function files the next one. What it returns is
    /// to be called: it counts as running from here to [`finish`](Function::finish).
    fn claim(self: &Arc<Self>) -> Option<Action> {
        let now = self.scheduler.now();
        let waker = Waker::from(Arc::clone(self));
        let thread = thread::current().id();
        let mut state = self.state.lock();
        let due = state.when.filter(|when| *when <= now);
        let Some(when) = due else {
            drop(state);
            return None;
        };
        let (earliest, unused) = match state.period {
            None => {
                state.when = None;
                state.id = None;
                (Earliest::Unchanged, Some(waker))
            }
            Some(period) => {
                let next = next_multiple(when, period, now);
                state.when = Some(next);
                self.arm(&mut state, now, next, waker)
            }
        };
        let action = state.action.take();
        if action.is_some() {
            state.runs += 1;
            state.running = Some(Running::new(state.runs, thread));
        }
        drop(state);
        drop_user_value(unused);
        self.scheduler.announce_timer(earliest);
        action
    }

    fn call(&self, action: Action) {
        assert_unlocked("call a timer function");
        let (result, kept) = match action {
            Action::Once(f) => (catch_unwind(AssertUnwindSafe(f)), None),
            Action::Many(mut f) => (catch_unwind(AssertUnwindSafe(&mut f)), Some(Action::Many(f))),
        };
        self.finish(kept);
        if let Err(payload) = result {
            self.scheduler.report_panic(payload);
        }
    }

    /// A run has returned. Keeps a function for its next run, unless the runtime has ended meanwhile: a function that
    /// holds its own [`Timer`] would keep itself for ever. Wakes whoever waits for the run.
    fn finish(&self, kept: Option<Action>) {
        let mut state = self.state.lock();
        state.action = kept;
        // Looked at under the lock: a shutdown that begins later finds the function there (`cancel`).
        let over = if self.scheduler.is_closing() { state.action.take() } else { None };
        let run = state.running.take();
        drop(state);
        if let Some(run) = run {
            run.wake_waiters();
        }
        drop_user_value(over);
    }
}

/// The first of `when + period`, `when + 2 * period`, ... that lies after `now`.
fn next_multiple(when: Tick, period: Duration, now: Tick) -> Tick {
    let late = now.saturating_since(when).as_nanos();
    let rest = period.as_nanos() - late % period.as_nanos();
    now.saturating_add(Duration::from_nanos(u64::try_from(rest).unwrap_or(u64::MAX)))
}

impl Wake for Function {
    fn wake(self: Arc<Self>) {
        // ordering: AcqRel, pairs with the swap in `run`: one queue entry at a time.
        if !self.queued.swap(true, Ordering::AcqRel) {
            let scheduler = Arc::clone(&self.scheduler);
            scheduler.schedule(self as TaskRef);
        }
    }
}

impl Runnable for Function {
    fn run(self: Arc<Self>) -> Option<TaskRef> {
        // ordering: AcqRel, pairs with `wake`: what is woken from now on queues it again.
        self.queued.swap(false, Ordering::AcqRel);
        if let Some(action) = self.claim() {
            self.scheduler.attend_timers();
            self.call(action);
        }
        // The last reference drops the user's function.
        drop_user_value(self);
        None
    }

    fn cancel(self: Arc<Self>) {
        let mut state = self.state.lock();
        state.when = None;
        let action = state.action.take();
        drop(state);
        drop_user_value(action);
    }

    fn identity(&self) -> Identity {
        Identity::NONE
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = self.function.state.lock().when;
        f.debug_struct("Timer").field("pending", &when.is_some()).finish_non_exhaustive()
    }
}
