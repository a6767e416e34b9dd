//! Runtimes: building one, entering it, ending it.
//!
//! Most programs need none of this: [`mainspring::block_on`](crate::block_on) and
//! [`mainspring::spawn`](crate::spawn) use the process's ambient runtime, which starts when it is first
//! needed. Build a [`Runtime`] to choose its size, to keep parts of a program apart, or to end it.

mod ambient;
mod block_on;
mod builder;
mod handle;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::ambient::{current_or_ambient, other_than_closing, with_current_or_ambient};
pub use self::builder::Builder;
pub use self::handle::{Handle, TryCurrentError};
use crate::sched::Scheduler;
pub use crate::sched::handoff::{Handoff, HandoffCause, HandoffReport};
pub use crate::sched::metrics::Metrics;
use crate::sched::task::JoinHandle;

/// A runtime: processors, the workers that hold them, a poller and timers.
///
/// Dropping it cancels its tasks: their futures are dropped on its workers, and whoever waits for one
/// gets a cancelled [`JoinError`](crate::task::JoinError). The drop waits for that, but not for a
/// worker that is blocked in user code for longer than a tenth of a second: that one drops its task
/// when it comes back. Sleeps and sockets that outlive their runtime do not hang: a sleep goes on on
/// the runtime that polls it next, an operation on a socket fails.
///
/// # Examples
///
/// ```
/// use mainspring::runtime::Builder;
///
/// let runtime = Builder::new().processors(2).build()?;
/// let sum = runtime.block_on(async {
///     let one = mainspring::spawn(async { 1 });
///     let two = mainspring::spawn(async { 2 });
///     one.await.unwrap() + two.await.unwrap()
/// });
/// assert_eq!(sum, 3);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Runtime {
    handle: Handle,
}

impl Runtime {
    pub(crate) fn new(scheduler: Arc<Scheduler>) -> Runtime {
        Runtime { handle: Handle::new(scheduler) }
    }

    /// A runtime with the defaults of [`Builder`].
    ///
    /// # Errors
    ///
    /// As [`Builder::build`].
    pub fn new_default() -> std::io::Result<Runtime> {
        Builder::new().build()
    }

    /// Runs a future on the calling thread, until it is ready; see [`Handle::block_on`].
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.handle.block_on(future)
    }

    /// Starts a task on this runtime; see [`mainspring::spawn`](crate::spawn).
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.handle.spawn(future)
    }

    /// Runs a function on this runtime's blocking pool; see
    /// [`mainspring::spawn_blocking`](crate::spawn_blocking).
    #[track_caller]
    pub fn spawn_blocking<F, R>(&self, f: F) -> JoinHandle<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        self.handle.spawn_blocking(f)
    }

    /// A handle to this runtime, to be cloned and kept anywhere. It does not keep the runtime alive.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// A snapshot of the runtime's counters.
    pub fn metrics(&self) -> Metrics {
        self.handle.metrics()
    }

    /// Ends the runtime as dropping it does, and waits for its threads for at most `timeout`, also for those that are
    /// blocked in a task or run a function of [`spawn_blocking`](crate::spawn_blocking).
    ///
    /// # Errors
    ///
    /// [`StillRunning`] if threads are still busy after `timeout`. They end when their user code returns.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// let runtime = mainspring::runtime::Builder::new().build()?;
    /// runtime.spawn(std::future::pending::<()>());
    /// runtime.shutdown(Duration::from_secs(1))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shutdown(self, timeout: Duration) -> Result<(), StillRunning> {
        match self.handle.scheduler().shut_down(timeout) {
            0 => Ok(()),
            threads => Err(StillRunning { threads }),
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.handle.scheduler().shut_down_with_patience();
    }
}

/// A runtime was shut down and some of its threads are still in user code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct StillRunning {
    /// How many threads still run.
    pub threads: usize,
}

impl fmt::Display for StillRunning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} threads are still blocked in user code", self.threads)
    }
}

impl std::error::Error for StillRunning {}
