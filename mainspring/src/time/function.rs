//! Functions that run later: once, or again and again.
//!
//! A timer in the store wakes the function, which puts it into a run queue; a worker runs it there as it
//! would poll a task. So a function that takes long delays no other timer, and its worker's processor
//! can be taken over while it runs.
//!
//! Invariants, under the state's lock: an expiry is pending while `when` is set, and whoever takes it
//! out, a run or a `stop`, has claimed it; nobody else can. A run claims only what is due, so a wake-up
//! that comes late, for a time that was moved since, does nothing. The lock may be held while the
//! timer is armed or cancelled (rank Function before Core), never while the function runs.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

use crate::base::clock::Tick;
use crate::base::primitive::atomic::{AtomicBool, Ordering};
use crate::base::rank::{Rank, RankedGuard, RankedMutex, assert_unlocked};
use crate::runtime::current_or_ambient;
use crate::sched::Scheduler;
use crate::sched::task::{Runnable, TaskRef, drop_user_value};
use crate::timers::{Earliest, Id};

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
/// It keeps its function, which may be reset, as long as there is a `Timer` for it. A function that
/// runs periodically and owns its own `Timer` is therefore never dropped, also after `stop`: let it take the
/// timer out of itself (an `Option`) when it stops it.
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
}

enum Action {
    Once(Box<dyn FnOnce() + Send>),
    Many(Box<dyn FnMut() + Send>),
}

impl Timer {
    fn start(duration: Duration, period: Option<Duration>, action: Action) -> Timer {
        let state = State { when: None, period, id: None, action: Some(action) };
        let function = Arc::new(Function {
            scheduler: current_or_ambient(),
            queued: AtomicBool::new(false),
            state: RankedMutex::new(Rank::Function, state),
        });
        function.schedule_after(duration);
        Timer { function }
    }

    /// Prevents the pending run. True if this call did so; false if none was pending: the function had
    /// run, is running, or was stopped. It does not wait for a running function.
    ///
    /// A function that runs [`every`] period and is running has its next run pending.
    pub fn stop(&self) -> bool {
        let mut state = self.function.state.lock();
        let pending = state.when.take().is_some();
        let cancelled = state.id.take().and_then(|id| self.function.scheduler.cancel_timer(id));
        drop(state);
        drop_user_value(cancelled);
        pending
    }

    /// Sets the time of the next run to `duration` from now, and for [`every`] the period as well. True
    /// if a run had been pending, which this one replaces. A function that runs once and has been called
    /// does not run again: then nothing happens and the answer is false.
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

impl Function {
    /// Makes a run pending, instead of the one that was; true if there was one.
    fn schedule_after(self: &Arc<Self>, duration: Duration) -> bool {
        let now = self.scheduler.now();
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

    /// Takes the pending run, if it is due, and for a periodic function files the next one.
    fn claim(self: &Arc<Self>) -> Option<Action> {
        let now = self.scheduler.now();
        let waker = Waker::from(Arc::clone(self));
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
        drop(state);
        drop_user_value(unused);
        self.scheduler.announce_timer(earliest);
        action
    }

    fn call(&self, action: Action) {
        assert_unlocked("call a timer function");
        let result = match action {
            Action::Once(f) => catch_unwind(AssertUnwindSafe(f)),
            Action::Many(mut f) => {
                let result = catch_unwind(AssertUnwindSafe(&mut f));
                self.put_back(Action::Many(f));
                result
            }
        };
        if let Err(payload) = result {
            self.scheduler.report_panic(payload);
        }
    }

    /// Keeps a function for its next run, unless the runtime has ended meanwhile: a function that holds its
    /// own [`Timer`] would keep itself for ever.
    fn put_back(&self, action: Action) {
        let mut state = self.state.lock();
        state.action = Some(action);
        // Looked at under the lock: a shutdown that begins later finds the function there (`cancel`).
        let over = if self.scheduler.is_closing() { state.action.take() } else { None };
        drop(state);
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
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = self.function.state.lock().when;
        f.debug_struct("Timer").field("pending", &when.is_some()).finish_non_exhaustive()
    }
}
