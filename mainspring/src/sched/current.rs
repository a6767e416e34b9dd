//! What a thread knows of the runtime it works for: the one thread-local of the crate.
//!
//! Invariant: the worker token is there only on a worker's own thread. It says which processor the
//! worker held last; whether it still does is for the core's `owner` to say.

use std::cell::{Cell, OnceCell, RefCell};
use std::sync::{Arc, Weak};

use super::Scheduler;
use super::processor::{Place, WorkerId};
use super::seat::Seat;
use crate::base::clock::{Clock, Tick};
use crate::base::primitive::plain;

/// How many operations of leaf futures (reads, writes, accepts) a task may do in one poll before it is
/// made to yield, so that a peer that always has data cannot keep a task running for ever. Picked by
/// feel; tokio uses the same.
const BUDGET: u32 = 128;

/// A worker as seen from its own thread.
#[derive(Clone, Copy)]
pub(crate) struct Token {
    pub(crate) worker: WorkerId,
    pub(crate) processor: usize,
    /// Where tasks go that are woken now: `Next` while a task is polled, `Due` while the worker wakes what became due or
    /// ready, so that those run in their order.
    pub(crate) place: Place,
}

struct Current {
    scheduler: RefCell<Option<Arc<Scheduler>>>,
    token: Cell<Option<Token>>,
    /// Whose worker this thread is, and its seat, whatever runtime it has entered since.
    worker: OnceCell<(Weak<Scheduler>, Arc<Seat>)>,
    budget: Cell<u32>,
    /// A number of this thread's, to spread foreign threads over the processors; 0 until it is asked for.
    spread: Cell<usize>,
}

impl Current {
    const fn new() -> Current {
        Current {
            scheduler: RefCell::new(None),
            token: Cell::new(None),
            worker: OnceCell::new(),
            budget: Cell::new(BUDGET),
            spread: Cell::new(0),
        }
    }
}

#[cfg(not(mainspring_loom))]
thread_local! {
    static CURRENT: Current = const { Current::new() };
}

// The model checker runs its threads by turns on one of the system's, so it needs its own kind.
#[cfg(mainspring_loom)]
loom::thread_local! {
    static CURRENT: Current = Current::new();
}

/// A number that differs from thread to thread.
pub(crate) fn spread() -> usize {
    static NEXT: plain::AtomicU64 = plain::AtomicU64::new(1);
    CURRENT
        .try_with(|current| {
            if current.spread.get() == 0 {
                // ordering: Relaxed, any number will do.
                current.spread.set(NEXT.fetch_add(1, plain::Ordering::Relaxed) as usize);
            }
            current.spread.get()
        })
        .unwrap_or(0)
}

/// The scheduler that this thread works for, if any.
pub(crate) fn scheduler() -> Option<Arc<Scheduler>> {
    CURRENT.try_with(|current| current.scheduler.borrow().clone()).ok().flatten()
}

/// Lends the scheduler that this thread works for, if any, without counting a reference, which all threads
/// would share; and this thread as a worker of it, if it is one. `f` runs no user code and enters no runtime.
pub(crate) fn with<R>(f: impl FnOnce(Option<&Arc<Scheduler>>, Option<Token>) -> R) -> R {
    let mut f = Some(f);
    let mut call = |scheduler: Option<&Arc<Scheduler>>, token| {
        let f = f.take().expect("it is called once");
        f(scheduler, token)
    };
    match CURRENT.try_with(|current| call(current.scheduler.borrow().as_ref(), current.token.get())) {
        Ok(result) => result,
        // The thread is ending.
        Err(_) => call(None, None),
    }
}

/// The present, on the clock of the runtime that this thread works for, or on the machine's.
pub(crate) fn now() -> Tick {
    with(|scheduler, _| match scheduler {
        Some(scheduler) => scheduler.now(),
        None => Clock::Real.now(),
    })
}

/// As [`Clock::now_or_later`], on the clock of the runtime that this thread works for, or on the machine's.
pub(crate) fn now_or_later() -> Tick {
    with(|scheduler, _| match scheduler {
        Some(scheduler) => scheduler.now_or_later(),
        None => Clock::Real.now_or_later(),
    })
}

/// This thread as a worker of `scheduler`, if it is one.
pub(crate) fn token(scheduler: &Scheduler) -> Option<Token> {
    CURRENT
        .try_with(|current| {
            let token = current.token.get()?;
            let ours =
                current.scheduler.borrow().as_ref().is_some_and(|s| std::ptr::eq(Arc::as_ptr(s), scheduler));
            ours.then_some(token)
        })
        .ok()
        .flatten()
}

/// Marks this thread as a worker of `scheduler`, for the rest of its life.
pub(crate) fn become_worker(scheduler: &Arc<Scheduler>, seat: &Arc<Seat>) {
    let _ = CURRENT.try_with(|current| {
        let first = current.worker.set((Arc::downgrade(scheduler), Arc::clone(seat)));
        debug_assert!(first.is_ok(), "a thread is one worker only");
    });
}

/// Lends the seat of this thread, if it is a worker, of whatever runtime.
pub(crate) fn with_seat<R>(f: impl FnOnce(&Arc<Seat>) -> R) -> Option<R> {
    CURRENT.try_with(|current| current.worker.get().map(|(_, seat)| f(seat))).ok().flatten()
}

/// Whose worker this thread is, and its seat, whatever runtime it has entered since.
pub(crate) fn worker() -> Option<(Arc<Scheduler>, Arc<Seat>)> {
    CURRENT
        .try_with(|current| {
            let (scheduler, seat) = current.worker.get()?;
            Some((scheduler.upgrade()?, Arc::clone(seat)))
        })
        .ok()
        .flatten()
}

/// Sets where tasks go that are woken now, if this thread is a worker with a processor; the token as it was.
pub(crate) fn replace_place(place: Place) -> Option<Token> {
    let replace = |current: &Current| {
        let token = current.token.get();
        current.token.set(token.map(|token| Token { place, ..token }));
        token
    };
    CURRENT.try_with(replace).ok().flatten()
}

pub(crate) fn set_token(token: Option<Token>) {
    let _ = CURRENT.try_with(|current| current.token.set(token));
}

/// Makes `scheduler` this thread's until the guard is dropped, and hides that it may be a worker of
/// another one.
pub(crate) fn enter(scheduler: Arc<Scheduler>) -> Entered {
    CURRENT.with(|current| {
        let same = current.scheduler.borrow().as_ref().is_some_and(|s| Arc::ptr_eq(s, &scheduler));
        let token = if same { current.token.get() } else { current.token.take() };
        Entered { scheduler: current.scheduler.replace(Some(scheduler)), token }
    })
}

/// Puts the thread's former runtime back when dropped.
#[must_use]
pub(crate) struct Entered {
    scheduler: Option<Arc<Scheduler>>,
    token: Option<Token>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let last = CURRENT
            .try_with(|current| {
                current.token.set(self.token);
                current.scheduler.replace(self.scheduler.take())
            })
            .ok();
        // Outside of the borrow: it may be the last reference.
        drop(last);
    }
}

/// A task is about to be polled.
pub(crate) fn refill_budget() {
    let _ = CURRENT.try_with(|current| current.budget.set(BUDGET));
}

/// Takes one operation out of the budget of the running task; false if nothing is left, or if the monitor has asked
/// for it, and the task should yield.
pub(crate) fn spend_budget() -> bool {
    CURRENT
        .try_with(|current| {
            let left = current.budget.get();
            // Full again after a refusal: on a foreign executor nobody refills it.
            current.budget.set(left.checked_sub(1).unwrap_or(BUDGET));
            left > 0
        })
        .unwrap_or(true)
        && !take_ask_to_yield()
}

/// Whether the monitor has asked the running task to yield; once for each time that it has.
pub(crate) fn take_ask_to_yield() -> bool {
    with_seat(|seat| seat.take_ask()).unwrap_or(false)
}

/// Gives back what [`spend_budget`] took for an operation that did nothing but wait. Else a task that
/// polls more idle sockets than the budget allows would spin, and never come to the last of them.
pub(crate) fn refund_budget() {
    let _ = CURRENT.try_with(|current| current.budget.set((current.budget.get() + 1).min(BUDGET)));
}
