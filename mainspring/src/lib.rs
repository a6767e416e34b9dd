//! An async runtime that never holds one of its locks while your code runs.
//!
//! That one rule is what mainspring is built around. A *processor*, the right to run tasks with its run
//! queue and its timers, is plain data behind one small lock, and the lock is free whenever a task is
//! polled, a timer function or a waker is called, or a value of yours is dropped. So no order in which your
//! code takes its locks can deadlock with the runtime's, and a processor whose thread is stuck in your
//! code can be taken over at any moment.
//!
//! # Use
//!
//! ```
//! use mainspring::time::{Duration, sleep, timeout};
//!
//! #[mainspring::main]
//! async fn main() {
//!     let task = mainspring::spawn(async {
//!         sleep(Duration::from_micros(50)).await;
//!         "slept for 50 us"
//!     });
//!     assert_eq!(task.await.unwrap(), "slept for 50 us");
//!
//!     let never = timeout(Duration::from_millis(1), std::future::pending::<()>());
//!     assert!(never.await.is_err());
//! }
//! ```
//!
//! Nothing needs to be set up: whatever is used outside of a runtime, in a plain thread or on another
//! executor, attaches to the *ambient* runtime, which starts when it is first needed. The environment variable
//! `MAINSPRING_PROCESSORS` sets its size. To choose sizes in code, or to end a runtime, build one:
//! [`runtime::Builder`].
//!
//! * [`spawn`], [`task`]: tasks, their results, sets of them;
//! * [`time`]: sleeping, timeouts, intervals, functions that run later, all to the nanosecond;
//! * [`net`]: sockets with deadlines, which cost a store instead of a timer for each operation;
//! * [`blocking`], [`spawn_blocking`]: code that blocks, in place or on a thread of its own;
//! * [`io`], [`fs`], [`process`], [`signal`]: standard streams, files, child processes, signals;
//! * `serve`, with the feature `hyper`: a server for any tower service, an axum router for example;
//! * [`compat`]: adapters for crates that bring their own traits;
//! * [`runtime`]: building and ending runtimes, and their counters.
//!
//! For channels, mutexes and semaphores, use `tokio::sync`: it needs no tokio runtime.
//!
//! # Code that blocks
//!
//! A task that blocks its thread delays nobody: a monitor notices that the thread sleeps in the kernel, within
//! about a millisecond (4 ms if that has not happened for 10 s), or that it has computed for 10 ms, and gives its
//! processor, with every queued task and every timer, to another thread. Nothing has to be declared; [`blocking`]
//! says it in advance, for some nanoseconds, and spares the doubt. [`runtime::Builder::handoff`] has the thresholds
//! and the switch, and [`runtime::Builder::handoff_hook`] tells which tasks it was.
//!
//! What is not rescued is what waits within the same task: while one branch of a `join!` or a `select!` blocks, the
//! others do not run, nor does the rest of a `block_on`. Use a task for each.
//!
//! # Features
//!
//! * `tokio-io`: tokio's `AsyncRead` and `AsyncWrite` on all streams. It links tokio's traits, not its runtime.
//! * `hyper`: hyper's `rt` traits on the sockets, `compat::hyper`, and `serve`, a server for any tower service.
//! * `quinn`: quinn's runtime, `compat::quinn`.
//! * `tower`: timeout, rate limit and buffer for tower's services, in `compat::tower`.
//! * `tokio-compat`: code that insists on tokio's runtime works in tasks; see `compat::tokio` for what that costs.
//!   It links and starts tokio's runtime.
//! * `tracing`: each hand-off of a processor is an event of level WARN with the target `mainspring::handoff` and
//!   the fields of [`runtime::HandoffReport`].
//!
//! # Implementation
//!
//! A runtime has a fixed number of processors. Worker threads are started when there is work for them, the first
//! one with the runtime; one of those that are idle waits in epoll, until the earliest timer of all processors, the
//! others are parked. A monitor thread looks every millisecond whether a task blocks its thread or something was
//! left undone, and sleeps for good while the runtime is idle: an idle program makes no wake-ups. The threads of
//! the blocking pool are the workers' own; threads are started as they are needed and end after 10 s without use.
//! The protocols are described beside the code; `ARCHITECTURE.md` in the repository has the map.
//!
//! # Platforms
//!
//! Linux.
#![deny(unsafe_code)]

mod base;
pub mod compat;
pub mod fs;
pub mod io;
pub mod net;
mod poll;
pub mod process;
pub mod runtime;
mod sched;
#[cfg(feature = "hyper")]
pub mod serve;
pub mod signal;
pub mod task;
pub mod time;
mod timers;

use std::future::Future;

#[cfg(feature = "hyper")]
#[doc(inline)]
pub use serve::serve;
use task::JoinHandle;

/// Makes an `async fn main` the program's `main`, run on the ambient runtime, or on one with the given
/// options: each `key = value` calls that method of [`runtime::Builder`].
///
/// # Panics
///
/// If the runtime cannot be built.
///
/// # Examples
///
/// ```
/// #[mainspring::main(processors = 2, thread_name = "example")]
/// async fn main() -> std::io::Result<()> {
///     let listener = mainspring::net::TcpListener::bind("127.0.0.1:0").await?;
///     assert_ne!(listener.local_addr()?.port(), 0);
///     Ok(())
/// }
/// ```
#[doc(inline)]
pub use mainspring_macros::main;
/// Makes an `async fn` a test with a runtime of its own, of two processors unless it is told otherwise; the
/// options are those of [`main`](macro@main).
///
/// # Examples
///
/// ```
/// #[mainspring::test(processors = 1)]
/// async fn one_and_one_is_two() {
///     assert_eq!(mainspring::spawn(async { 1 + 1 }).await.unwrap(), 2);
/// }
/// ```
#[doc(inline)]
pub use mainspring_macros::test;

/// Runs a future on the calling thread until it is ready. Tasks that it spawns go to the runtime that
/// the thread works for, or to the ambient one.
///
/// It works anywhere. In a task it blocks the task's thread, and the processor goes to another worker
/// meanwhile.
///
/// # Panics
///
/// If the future panics, or if the ambient runtime is needed and the operating system gives no thread
/// for it.
///
/// # Examples
///
/// ```
/// assert_eq!(mainspring::block_on(async { 1 + 1 }), 2);
/// ```
pub fn block_on<F: Future>(future: F) -> F::Output {
    runtime::Handle::current().block_on(future)
}

/// Starts a task on the runtime that the thread works for, or on the ambient one. It runs whether or not
/// its handle is awaited; dropping the handle detaches it.
///
/// A panic in a task ends that task alone, and is in the [`JoinError`](task::JoinError) of its handle.
///
/// # Panics
///
/// If the ambient runtime is needed and the operating system gives no thread for it.
///
/// # Examples
///
/// ```
/// let task = mainspring::spawn(async { 1 + 1 });
/// assert_eq!(mainspring::block_on(task).unwrap(), 2);
/// ```
#[track_caller]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    runtime::Handle::current().spawn(future)
}

/// Runs a function that may block on a thread of the blocking pool, which is started if none is idle. At most
/// [`max_threads`](runtime::Builder::max_threads), less one for each processor, run at once; what comes beyond
/// waits its turn. If the operating system gives no thread, the threads that there are do the work.
///
/// [`abort`](JoinHandle::abort) works as long as the function has not begun.
///
/// # Panics
///
/// If the ambient runtime is needed and the operating system gives no thread for it.
///
/// # Examples
///
/// ```
/// # mainspring::block_on(async {
/// let name = mainspring::spawn_blocking(|| std::fs::read_to_string("/proc/sys/kernel/ostype")).await.unwrap()?;
/// assert_eq!(name, "Linux\n");
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
#[track_caller]
pub fn spawn_blocking<F, R>(f: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    runtime::Handle::current().spawn_blocking(f)
}

/// Runs a function that may block its thread, here and now, and says so to the runtime.
///
/// In a task it costs some nanoseconds, unless the function does block: then the thread's processor, with every
/// queued task and every timer, goes to another thread without the doubt that undeclared blocking meets. The task
/// goes on on its own thread. It works anywhere: nested, in `block_on`, in [`spawn_blocking`], in plain
/// threads, where it just calls `f`.
///
/// What runs in the same task, the other branches of its `join!` or `select!`, waits for `f` to return.
///
/// # Examples
///
/// ```
/// # mainspring::block_on(async {
/// let name = mainspring::blocking(|| std::fs::read_to_string("/proc/sys/kernel/ostype"))?;
/// assert_eq!(name, "Linux\n");
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub fn blocking<R>(f: impl FnOnce() -> R) -> R {
    let _declared = sched::handoff::declare_blocking();
    f()
}
