//! Waiting for a task, and ending it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::{Id, JoinError, Joinable, Task};
use crate::sched::current;

/// A task's result to come: a future of what the task's future gives, or of why it gave nothing.
///
/// Dropping it detaches the task, which goes on; see [`abort`](JoinHandle::abort) to end it.
///
/// # Cancel safety
///
/// Dropping the handle loses the result and nothing else. `&mut handle` can be awaited, given up, and
/// awaited again.
///
/// # Panics
///
/// When polled again after it has given its result.
pub struct JoinHandle<T> {
    task: Arc<dyn Joinable<T>>,
}

impl<T> JoinHandle<T> {
    pub(crate) fn new(task: Arc<dyn Joinable<T>>) -> JoinHandle<T> {
        JoinHandle { task }
    }

    /// Asks the task to end: its future is dropped on a worker, at once if it is waiting, or else when
    /// its present poll returns, unless it is ready then. The handle gives a cancelled [`JoinError`] if the task
    /// ended so. Does nothing if the task has ended.
    pub fn abort(&self) {
        Arc::clone(&self.task).as_task().abort();
    }

    /// Whether the task has ended; its result is there then.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// The task's number.
    pub fn id(&self) -> Id {
        self.task.id()
    }

    /// A handle that can end the task and nothing else.
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle { task: Arc::clone(&self.task).as_task() }
    }

    /// What the handle's own poll does, but for the question whether the running task should yield.
    pub(crate) fn poll_result(&self, context: &mut Context<'_>) -> Poll<Result<T, JoinError>> {
        self.task.poll_join(context)
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if current::take_ask_to_yield() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.poll_result(context)
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        self.task.detach();
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe(f, "JoinHandle", &*self.task)
    }
}

/// Ends a task from anywhere; see [`JoinHandle::abort_handle`].
#[derive(Clone)]
pub struct AbortHandle {
    task: Arc<dyn Task>,
}

impl AbortHandle {
    /// As [`JoinHandle::abort`].
    pub fn abort(&self) {
        Arc::clone(&self.task).abort();
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// The task's number.
    pub fn id(&self) -> Id {
        self.task.id()
    }
}

impl fmt::Debug for AbortHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe(f, "AbortHandle", &*self.task)
    }
}

fn describe(f: &mut fmt::Formatter<'_>, what: &str, task: &(impl Task + ?Sized)) -> fmt::Result {
    let mut fields = f.debug_struct(what);
    fields.field("id", &task.id());
    if let Some(name) = task.name() {
        fields.field("name", &name);
    }
    fields.field("spawned_at", &format_args!("{}", task.spawned_at())).finish()
}
