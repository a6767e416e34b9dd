//! Reaching a runtime from anywhere.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;

use super::{Metrics, block_on, current_or_ambient};
use crate::sched::task::JoinHandle;
use crate::sched::{Scheduler, current};

/// A reference to a runtime: cheap to clone, usable from any thread. It does not keep the runtime's
/// threads alive: after the [`Runtime`](super::Runtime) has been dropped, what is spawned is cancelled
/// at once.
///
/// Its `Debug` form shows the runtime's state at this moment, processor by processor, for watchdogs and bug
/// reports. What it shows is not part of the contract.
#[derive(Clone)]
pub struct Handle {
    scheduler: Arc<Scheduler>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.scheduler).finish()
    }
}

impl Handle {
    pub(crate) fn new(scheduler: Arc<Scheduler>) -> Handle {
        Handle { scheduler }
    }

    pub(crate) fn scheduler(&self) -> &Arc<Scheduler> {
        &self.scheduler
    }

    /// The runtime that the calling thread works for, or else the ambient one, which starts if need be.
    ///
    /// # Panics
    ///
    /// If the ambient runtime is needed and the operating system gives no thread for it.
    pub fn current() -> Handle {
        Handle::new(current_or_ambient())
    }

    /// The runtime that the calling thread works for: in a task, in `block_on`, in a timer function or in the
    /// blocking pool.
    ///
    /// # Errors
    ///
    /// If the thread works for none.
    pub fn try_current() -> Result<Handle, TryCurrentError> {
        current::scheduler().map(Handle::new).ok_or(TryCurrentError(()))
    }

    /// Runs a future on the calling thread, until it is ready. Tasks that it spawns go to this runtime.
    ///
    /// It works anywhere. In a task it blocks the task's thread, and the processor goes to another
    /// worker meanwhile, so no other task waits.
    ///
    /// # Panics
    ///
    /// If the future panics.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        block_on::block_on(&self.scheduler, future)
    }

    /// Starts a task on this runtime; see [`mainspring::spawn`](crate::spawn).
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        JoinHandle::new(self.scheduler.spawn(future, Location::caller()))
    }

    /// Runs a function on this runtime's blocking pool; see
    /// [`mainspring::spawn_blocking`](crate::spawn_blocking).
    #[track_caller]
    pub fn spawn_blocking<F, R>(&self, f: F) -> JoinHandle<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        JoinHandle::new(self.scheduler.spawn_blocking(async move { f() }, Location::caller()))
    }

    /// A snapshot of the runtime's counters.
    pub fn metrics(&self) -> Metrics {
        self.scheduler.metrics()
    }
}

/// The calling thread works for no runtime.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TryCurrentError(());

impl fmt::Display for TryCurrentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this thread works for no runtime")
    }
}

impl std::error::Error for TryCurrentError {}
