//! A set of tasks whose results come in the order in which they end.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::{AbortHandle, Id, JoinError, JoinHandle};
use crate::runtime::Handle;
use crate::sched::current;

/// Tasks that belong together: joined in the order in which they end, aborted when the set is dropped.
///
/// # Examples
///
/// ```
/// # mainspring::block_on(async {
/// let mut set = mainspring::task::JoinSet::new();
/// for n in 1..=3 {
///     set.spawn(async move { n * n });
/// }
/// let mut sum = 0;
/// while let Some(result) = set.join_next().await {
///     sum += result.unwrap();
/// }
/// assert_eq!(sum, 14);
/// # });
/// ```
pub struct JoinSet<T> {
    tasks: FuturesUnordered<Joining<T>>,
}

impl<T> std::fmt::Debug for JoinSet<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinSet").field("len", &self.tasks.len()).finish()
    }
}

impl<T> Default for JoinSet<T> {
    fn default() -> JoinSet<T> {
        JoinSet { tasks: FuturesUnordered::new() }
    }
}

impl<T> JoinSet<T> {
    /// An empty set.
    pub fn new() -> JoinSet<T> {
        JoinSet::default()
    }

    /// How many tasks are in the set: those that run and those whose result was not taken yet.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether the set has no task.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }
}

impl<T: Send + 'static> JoinSet<T> {
    /// Starts a task on the current runtime and adds it to the set.
    #[track_caller]
    pub fn spawn<F>(&mut self, future: F) -> AbortHandle
    where
        F: Future<Output = T> + Send + 'static,
    {
        self.spawn_on(future, &Handle::current())
    }

    /// Starts a task on the given runtime and adds it to the set.
    #[track_caller]
    pub fn spawn_on<F>(&mut self, future: F, handle: &Handle) -> AbortHandle
    where
        F: Future<Output = T> + Send + 'static,
    {
        self.insert(handle.spawn(future))
    }

    /// Runs a function on the blocking pool and adds it to the set.
    #[track_caller]
    pub fn spawn_blocking<F>(&mut self, f: F) -> AbortHandle
    where
        F: FnOnce() -> T + Send + 'static,
    {
        self.insert(Handle::current().spawn_blocking(f))
    }

    fn insert(&mut self, task: JoinHandle<T>) -> AbortHandle {
        let abort_handle = task.abort_handle();
        self.tasks.push(Joining(task));
        abort_handle
    }

    /// Waits for the next task to end and takes its result; `None` if the set is empty.
    ///
    /// # Errors
    ///
    /// The inner result is an error if the task was aborted or panicked.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no result has been taken.
    pub async fn join_next(&mut self) -> Option<Result<T, JoinError>> {
        poll_fn(|context| self.poll_join_next(context)).await
    }

    /// As [`join_next`](JoinSet::join_next), and says which task it was: its [`Id`] is with the result, or in the
    /// error.
    ///
    /// # Errors
    ///
    /// The inner result is an error if the task was aborted or panicked.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no result has been taken.
    ///
    /// # Examples
    ///
    /// ```
    /// # mainspring::block_on(async {
    /// let mut set = mainspring::task::JoinSet::new();
    /// let one = set.spawn(async { "one" }).id();
    /// let two = set.spawn(async { "two" }).id();
    /// while let Some(result) = set.join_next_with_id().await {
    ///     match result {
    ///         Ok((id, name)) => assert_eq!(name, if id == one { "one" } else { "two" }),
    ///         Err(error) => eprintln!("task {} failed: {error}", error.id()),
    ///     }
    /// }
    /// # assert_ne!(one, two);
    /// # });
    /// ```
    pub async fn join_next_with_id(&mut self) -> Option<Result<(Id, T), JoinError>> {
        let (id, result) = poll_fn(|context| self.poll_ended(context)).await?;
        Some(result.map(|result| (id, result)))
    }

    /// Takes the result of a task that has ended, without waiting; `None` if the set is empty or all its tasks
    /// still run.
    ///
    /// # Errors
    ///
    /// The inner result is an error if the task was aborted or panicked.
    ///
    /// # Examples
    ///
    /// ```
    /// # mainspring::block_on(async {
    /// let mut set = mainspring::task::JoinSet::new();
    /// let (sender, receiver) = tokio::sync::oneshot::channel();
    /// let task = set.spawn(receiver);
    /// assert!(set.try_join_next().is_none());
    /// sender.send(7).unwrap();
    /// while !task.is_finished() {
    ///     mainspring::task::yield_now().await;
    /// }
    /// assert_eq!(set.try_join_next().unwrap().unwrap(), Ok(7));
    /// # });
    /// ```
    pub fn try_join_next(&mut self) -> Option<Result<T, JoinError>> {
        match self.tasks.poll_next_unpin(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(ended) => ended.map(|(_, result)| result),
            Poll::Pending => None,
        }
    }

    /// The poll form of [`join_next`](JoinSet::join_next).
    pub fn poll_join_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<T, JoinError>>> {
        self.poll_ended(context).map(|ended| ended.map(|(_, result)| result))
    }

    fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<Option<(Id, Result<T, JoinError>)>> {
        if current::take_ask_to_yield() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.tasks.poll_next_unpin(context)
    }

    /// Aborts every task. They stay in the set until they are joined.
    pub fn abort_all(&mut self) {
        self.tasks.iter().for_each(|task| task.0.abort());
    }

    /// Aborts every task and waits until all have ended.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, all tasks have been aborted, and those that have not ended are in the set.
    pub async fn shutdown(&mut self) {
        self.abort_all();
        while self.join_next().await.is_some() {}
    }

    /// Waits for every task; the results in the order in which the tasks ended.
    ///
    /// # Panics
    ///
    /// If a task panicked, with its payload, or if it was aborted. The other tasks are aborted.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the set and aborts its tasks.
    pub async fn join_all(mut self) -> Vec<T> {
        let mut results = Vec::with_capacity(self.len());
        while let Some(result) = self.join_next().await {
            match result {
                Ok(result) => results.push(result),
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(error) => panic!("{error}"),
            }
        }
        results
    }

    /// Takes every task out of the set; they go on, detached.
    pub fn detach_all(&mut self) {
        drop(std::mem::take(&mut self.tasks));
    }
}

impl<T> Drop for JoinSet<T> {
    fn drop(&mut self) {
        self.tasks.iter().for_each(|task| task.0.abort());
    }
}

/// A task of a set. Its handle would yield whenever the runtime asks for it. The set does so itself, once for all
/// of its tasks, and not in `try_join_next`, which cannot wait and would pass over what has ended.
struct Joining<T>(JoinHandle<T>);

impl<T> Future for Joining<T> {
    type Output = (Id, Result<T, JoinError>);

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_result(context).map(|result| (self.0.id(), result))
    }
}
