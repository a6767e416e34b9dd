//! Spawning a task that has a name.

use std::future::Future;
use std::panic::Location;
use std::sync::Arc;

use super::JoinHandle;
use crate::runtime::Handle;

/// Starts a task with a name, for reports: the task's [`JoinHandle`] and [`AbortHandle`](super::AbortHandle) show
/// it in their `Debug` form, and a report of the task's blocking its thread,
/// [`HandoffReport`](crate::runtime::HandoffReport), has it.
///
/// As tokio's `task::Builder`, but what spawns cannot fail, and returns the [`JoinHandle`] itself instead of an
/// `io::Result`. Names need not be unique. Many tasks of one name can share it, see [`name`](Builder::name).
///
/// # Examples
///
/// ```
/// use mainspring::task::Builder;
///
/// # mainspring::block_on(async {
/// let task = Builder::new().name("adder").spawn(async { 1 + 1 });
/// assert!(format!("{task:?}").contains("adder"));
/// assert_eq!(task.await.unwrap(), 2);
/// # });
/// ```
#[derive(Clone, Default, Debug)]
#[must_use = "it starts nothing by itself"]
pub struct Builder {
    name: Option<Arc<str>>,
}

impl Builder {
    /// For a task without a name.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// What the task is called. A `&str` or a `String` is copied into an allocation of its own, an `Arc<str>` is not.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Builder {
        self.name = Some(name.into());
        self
    }

    /// Starts a task on the current runtime; otherwise as [`mainspring::spawn`](crate::spawn).
    ///
    /// # Panics
    ///
    /// If the ambient runtime is needed and the operating system gives no thread for it.
    #[track_caller]
    pub fn spawn<F>(self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.spawn_on(future, &Handle::current())
    }

    /// Starts a task on the given runtime.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = mainspring::runtime::Builder::new().processors(1).build()?;
    /// let task = mainspring::task::Builder::new().name("adder").spawn_on(async { 1 + 1 }, &runtime.handle());
    /// assert_eq!(runtime.block_on(task).unwrap(), 2);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn spawn_on<F>(self, future: F, handle: &Handle) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        JoinHandle::new(handle.scheduler().spawn_named(future, self.name, Location::caller()))
    }

    /// Runs a function on the blocking pool of the current runtime; otherwise as
    /// [`mainspring::spawn_blocking`](crate::spawn_blocking).
    ///
    /// # Panics
    ///
    /// If the ambient runtime is needed and the operating system gives no thread for it.
    ///
    /// # Examples
    ///
    /// ```
    /// # mainspring::block_on(async {
    /// let task = mainspring::task::Builder::new()
    ///     .name("reader")
    ///     .spawn_blocking(|| std::fs::read_to_string("/proc/sys/kernel/ostype"));
    /// assert_eq!(task.await.unwrap()?, "Linux\n");
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    #[track_caller]
    pub fn spawn_blocking<F, R>(self, f: F) -> JoinHandle<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        self.spawn_blocking_on(f, &Handle::current())
    }

    /// Runs a function on the blocking pool of the given runtime.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = mainspring::runtime::Builder::new().processors(1).build()?;
    /// let task = mainspring::task::Builder::new().name("adder").spawn_blocking_on(|| 1 + 1, &runtime.handle());
    /// assert_eq!(runtime.block_on(task).unwrap(), 2);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn spawn_blocking_on<F, R>(self, f: F, handle: &Handle) -> JoinHandle<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        let future = async move { f() };
        JoinHandle::new(handle.scheduler().spawn_blocking_named(future, self.name, Location::caller()))
    }
}
