//! What a source of readiness has to do: the contract between the poller and the operating system,
//! or a model of it.
//!
//! Knows nothing of sides, waiters and deadlines.

use std::fmt::Debug;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Why a side became ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Edge {
    /// There is something to read, or room to write. When it has been used up, another edge comes.
    Ready,
    /// A hang-up, an error or urgent data. It may be the last edge that ever comes, however much is left
    /// to read.
    Last,
}

/// What the system says of one descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Event {
    /// The word given to [`Backend::add`].
    pub(crate) token: u64,
    pub(crate) read: Option<Edge>,
    pub(crate) write: Option<Edge>,
}

/// A source of readiness, edge-triggered.
///
/// All methods may be called from any thread at any time, except that only one thread at a time
/// calls `wait`.
pub(crate) trait Backend: Send + Sync + Debug {
    /// Reports from now on each change of `fd`, in both directions, with `token`. If it is ready
    /// already, that counts as a change. Called once for a descriptor; `token` is never `u64::MAX`.
    fn add(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()>;

    /// Ends what `add` began. Events that a `wait` has already taken may still be on their way.
    fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()>;

    /// Waits until something is ready, `timeout` is over (`None`: no limit), or
    /// [`interrupt`](Backend::interrupt) is called, and replaces `events` by what has happened.
    ///
    /// The timeout is in nanoseconds and never rounded down. The wait may end early without an event
    /// (a signal came), so a caller that waits for a time looks at the clock afterwards.
    fn wait(&self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()>;

    /// Makes the present `wait` return, or if there is none the next one. Interrupts do not add up.
    fn interrupt(&self);
}
