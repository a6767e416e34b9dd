//! Tasks: a future with its scheduling state and its join handle, in one allocation.
//!
//! Knows nothing of processors, queues or workers: where a task goes when it is woken is behind
//! [`Schedule`], and what a queue holds is a [`Runnable`]. The parts: [`slot`] guards the future with
//! the state word, [`cell`] puts future, output and scheduler together, [`registry`] lists the live
//! tasks, [`named`] gives them names, [`error`] says why there is no output.

mod cell;
mod error;
mod join_handle;
#[cfg(all(test, mainspring_loom))]
mod loom_tests;
mod named;
mod registry;
mod slot;

use std::any::Any;
use std::fmt;
use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::base::primitive::plain::{AtomicU64, Ordering};
use crate::base::rank::assert_unlocked;

pub(crate) use cell::Cell;
pub use error::JoinError;
pub use join_handle::{AbortHandle, JoinHandle};
pub(crate) use named::Named;
pub(crate) use registry::{Registration, Registry};

/// What a run queue holds: a task, or a timer function that is due.
pub(crate) trait Runnable: Send + Sync {
    /// Runs it once, using up its queue entry. Gives it back if it has to be queued again at once.
    /// Never panics.
    fn run(self: Arc<Self>) -> Option<TaskRef>;

    /// Ends it without running it, using up its queue entry. Never panics.
    fn cancel(self: Arc<Self>);

    /// Which task it is, for somebody who looks at another thread's work. Costs two loads.
    fn identity(&self) -> Identity;
}

/// Which task is meant, as plain numbers that fit into atomics; [`Registry::ask`] finds the task by them, as long as
/// it is alive. If the two are read from two words while these change, they fit no task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Identity {
    /// The task's [`Id`]; 0 for what is no task.
    pub(crate) id: u64,
    /// The task's [`Registration`]; all ones if it has none.
    pub(crate) registration: u64,
}

impl Identity {
    /// Of what is no task.
    pub(crate) const NONE: Identity = Identity { id: 0, registration: u64::MAX };
    /// Of a report of a hand-off, of which nothing is reported.
    pub(crate) const REPORT: Identity = Identity { id: u64::MAX, registration: u64::MAX };
}

/// An entry of a run queue. Owning one of a task is owning its queue entry.
pub(crate) type TaskRef = Arc<dyn Runnable>;

/// A task as its handles see it.
pub(crate) trait Task: Runnable {
    fn id(&self) -> Id;
    fn spawned_at(&self) -> &'static Location<'static>;
    /// What it is called, if it was given a name.
    fn name(&self) -> Option<Arc<str>>;
    fn is_finished(&self) -> bool;
    /// Asks the task to end: its future is dropped on a worker, at once or when its poll returns.
    fn abort(self: Arc<Self>);
}

/// A task as the one who waits for its output sees it.
pub(crate) trait Joinable<T>: Task {
    fn poll_join(&self, context: &mut Context<'_>) -> Poll<Result<T, JoinError>>;
    /// Nobody will ask for the output any more.
    fn detach(&self);
    fn as_task(self: Arc<Self>) -> Arc<dyn Task>;
}

/// Where a task goes; implemented by the scheduler, and by models of it.
pub(crate) trait Schedule: Send + Sync + 'static {
    /// Queues a task that was woken. Called with no lock held.
    fn schedule(&self, task: TaskRef);
    /// The task has ended and leaves the list of live tasks.
    fn finished(&self, id: Id, registration: Registration);
    /// The task panicked; its error goes to who joins it.
    fn panicked(&self, payload: &(dyn Any + Send));
    /// What the task that this belongs to is called.
    fn name(&self) -> Option<&Arc<str>> {
        None
    }
}

/// The number of a task: unique in the process, in the order of spawning.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Id(NonZeroU64);

impl Id {
    pub(crate) fn next() -> Id {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // ordering: Relaxed, only uniqueness is asked for.
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Id(NonZeroU64::new(id).expect("2^64 tasks were spawned"))
    }

    /// `None` for 0, which no task has.
    pub(crate) fn from_u64(id: u64) -> Option<Id> {
        NonZeroU64::new(id).map(Id)
    }

    pub(crate) fn as_u64(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many panics in a row are followed: of a user's code, of its payload's destructor, of that one's
/// payload's destructor, and so on.
const PANICS_IN_A_ROW_MAX: usize = 8;

/// Runs a user's code whose panic ends here. The panic hook has reported it; it must not take the
/// caller's thread, or the rest of a batch, with it.
pub(crate) fn contain(f: impl FnOnce()) {
    let mut result = catch_unwind(AssertUnwindSafe(f));
    for _ in 0..PANICS_IN_A_ROW_MAX {
        // The payload is the user's as well, and its destructor may panic in its turn.
        let Err(payload) = result else { return };
        result = catch_unwind(AssertUnwindSafe(|| drop(payload)));
    }
    if let Err(payload) = result {
        // There must be an end somewhere.
        let _ = Box::leak(payload);
    }
}

/// Calls a waker, which may be anybody's code. A panic goes no further.
pub(crate) fn wake(waker: Waker) {
    assert_unlocked("call a waker");
    contain(|| waker.wake());
}

/// Drops a user's value. A panic of its destructor goes no further.
pub(crate) fn drop_user_value<T>(value: T) {
    assert_unlocked("drop a user's value");
    contain(|| drop(value));
}

/// Canaries: a violation of the rule is seen, also at the gates that catch panics.
#[cfg(all(test, debug_assertions, not(mainspring_loom)))]
mod tests {
    use super::*;
    use crate::base::rank::{Rank, RankedMutex};

    fn message(f: impl FnOnce()) -> String {
        let panic = catch_unwind(AssertUnwindSafe(f)).expect_err("it must panic");
        panic.downcast_ref::<String>().expect("a formatted message").clone()
    }

    #[test]
    fn a_waker_that_is_called_under_a_lock_is_seen() {
        let core = RankedMutex::new(Rank::Core, ());
        let message = message(|| {
            let _held = core.lock();
            wake(Waker::noop().clone());
        });
        assert!(message.starts_with("lock held over user code: about to call a waker"), "{message}");
    }

    #[test]
    fn a_value_that_is_dropped_under_a_lock_is_seen() {
        let join = RankedMutex::new(Rank::Join, ());
        let message = message(|| {
            let _held = join.lock();
            drop_user_value(1);
        });
        assert!(message.starts_with("lock held over user code: about to drop a user's value"), "{message}");
    }
}
