//! An async runtime that never holds one of its locks while your code runs.
#![deny(unsafe_code)]
#![allow(dead_code)]

mod base;
pub mod compat;
pub mod net;
mod poll;
pub mod runtime;
mod sched;
pub mod task;
pub mod time;
mod timers;

use std::future::Future;

use task::JoinHandle;

#[doc(inline)]
pub use mainspring_macros::{main, test};

/// Runs a future.
pub fn block_on<F: Future>(future: F) -> F::Output {
    runtime::Handle::current().block_on(future)
}

/// Starts a task.
#[track_caller]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    runtime::Handle::current().spawn(future)
}

/// Runs a function on the blocking pool.
#[track_caller]
pub fn spawn_blocking<F, R>(f: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    runtime::Handle::current().spawn_blocking(f)
}
