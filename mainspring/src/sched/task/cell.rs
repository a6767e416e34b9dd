//! One allocation a task: its slot, its output and who waits for it, where it is queued.
//!
//! Invariants: the output appears and the slot becomes DONE under one hold of the join lock, so a task
//! that says it is finished has its output ready, and one whose output was taken says that it is
//! finished. By then its future has been dropped and it has left the list of live tasks. Future, output
//! and wakers are dropped and called with no lock held.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use super::slot::{Run, Slot, Suspended};
use super::{
    Id, Identity, JoinError, Joinable, Registration, Runnable, Schedule, Task, TaskRef, drop_user_value, wake,
};
use crate::base::primitive::atomic::{AtomicU64, Ordering};
use crate::base::rank::{Rank, RankedMutex, assert_unlocked};

pub(crate) struct Cell<F: Future, S: Schedule> {
    id: Id,
    /// Where it was spawned, for reports.
    spawned_at: &'static Location<'static>,
    scheduler: S,
    /// Where the task stands in the list of live tasks. Written once, before the task is queued for
    /// the first time; read by the run that ends it. All ones is the key of nothing.
    registration: AtomicU64,
    slot: Slot<F>,
    join: RankedMutex<Join<F::Output>>,
}

enum Join<T> {
    /// The task goes on; the waker is of who waits for its end.
    Open(Option<Waker>),
    /// It has ended and nobody has taken the output yet.
    Output(Result<T, JoinError>),
    /// The output was taken, or nobody will ask for it.
    Closed,
}

impl<F, S> Cell<F, S>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
    S: Schedule,
{
    /// A task that is to be registered, and then queued by its first user.
    pub(crate) fn new(future: F, scheduler: S, spawned_at: &'static Location<'static>) -> Arc<Cell<F, S>> {
        Arc::new(Cell {
            id: Id::next(),
            spawned_at,
            scheduler,
            registration: AtomicU64::new(u64::MAX),
            // SAFETY: the slot lives in this Arc, is private to this module, and is never moved out
            // of it: nothing here takes a Cell by value or mutably.
            #[allow(unsafe_code)]
            slot: unsafe { Slot::new(future) },
            join: RankedMutex::new(Rank::Join, Join::Open(None)),
        })
    }

    /// Notes where the task stands in the list of live tasks; before it is queued.
    pub(crate) fn register(&self, registration: Registration) {
        // ordering: Relaxed, the queue that the task goes through next publishes it.
        self.registration.store(registration.to_u64(), Ordering::Relaxed);
    }

    fn poll(self: &Arc<Self>, run: &mut Run<'_, F>) -> Poll<Result<F::Output, JoinError>> {
        assert_unlocked("poll a task");
        let waker = Waker::from(Arc::clone(self));
        let mut context = Context::from_waker(&waker);
        match catch_unwind(AssertUnwindSafe(|| run.poll(&mut context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(payload) => Poll::Ready(Err(self.panicked(payload))),
        }
    }

    fn panicked(&self, payload: Box<dyn Any + Send>) -> JoinError {
        self.scheduler.panicked(&*payload);
        JoinError::panic(self.id, payload)
    }

    fn end(&self, mut run: Run<'_, F>, mut result: Result<F::Output, JoinError>) {
        assert_unlocked("drop a future");
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| run.drop_future())) {
            let mut panicked = Err(self.panicked(payload));
            // Of two panics, the first is the one that explains the other.
            if !matches!(&result, Err(error) if error.is_panic()) {
                std::mem::swap(&mut result, &mut panicked);
            }
            drop_user_value(panicked);
        }
        // ordering: Relaxed, written before the first run.
        let registration = Registration::from_u64(self.registration.load(Ordering::Relaxed));
        self.scheduler.finished(self.id, registration);
        let mut join = self.join.lock();
        let (waker, unwanted) = match std::mem::replace(&mut *join, Join::Closed) {
            Join::Open(waker) => {
                *join = Join::Output(result);
                (waker, None)
            }
            _ => (None, Some(result)),
        };
        run.finish();
        drop(join);
        if let Some(waker) = waker {
            wake(waker);
        }
        drop_user_value(unwanted);
    }
}

impl<F, S> Runnable for Cell<F, S>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
    S: Schedule,
{
    fn run(self: Arc<Self>) -> Option<TaskRef> {
        let mut run = self.slot.start();
        if run.is_aborted() {
            self.end(run, Err(JoinError::cancelled(self.id)));
            return None;
        }
        match self.poll(&mut run) {
            Poll::Ready(result) => {
                self.end(run, result);
                None
            }
            Poll::Pending => match run.suspend() {
                Suspended::Idle => None,
                Suspended::Woken => Some(self),
            },
        }
    }

    fn cancel(self: Arc<Self>) {
        let run = self.slot.start();
        self.end(run, Err(JoinError::cancelled(self.id)));
    }

    fn identity(&self) -> Identity {
        // ordering: Relaxed, written before the task was queued for the first time.
        let registration = self.registration.load(Ordering::Relaxed);
        Identity { id: self.id.as_u64(), registration }
    }
}

impl<F, S> Task for Cell<F, S>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
    S: Schedule,
{
    fn id(&self) -> Id {
        self.id
    }

    fn spawned_at(&self) -> &'static Location<'static> {
        self.spawned_at
    }

    fn name(&self) -> Option<Arc<str>> {
        self.scheduler.name().cloned()
    }

    fn is_finished(&self) -> bool {
        self.slot.is_done()
    }

    fn abort(self: Arc<Self>) {
        if self.slot.abort() {
            self.enqueue();
        }
    }
}

impl<F, S> Cell<F, S>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
    S: Schedule,
{
    /// Queues the task, whose queue entry the caller owns.
    pub(crate) fn enqueue(self: &Arc<Self>) {
        self.scheduler.schedule(Arc::clone(self) as TaskRef);
    }
}

impl<F, S> Joinable<F::Output> for Cell<F, S>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
    S: Schedule,
{
    fn poll_join(&self, context: &mut Context<'_>) -> Poll<Result<F::Output, JoinError>> {
        let mut waker = None;
        loop {
            let mut join = self.join.lock();
            match &mut *join {
                Join::Output(_) => {
                    let Join::Output(result) = std::mem::replace(&mut *join, Join::Closed) else {
                        unreachable!("matched above")
                    };
                    return Poll::Ready(result);
                }
                Join::Open(Some(present)) if present.will_wake(context.waker()) => return Poll::Pending,
                Join::Open(present) => {
                    if let Some(new) = waker.take() {
                        let former = present.replace(new);
                        drop(join);
                        drop_user_value(former);
                        return Poll::Pending;
                    }
                    drop(join);
                    // Cloning is the waker's own code: not under the lock.
                    waker = Some(context.waker().clone());
                }
                Join::Closed => {
                    drop(join);
                    panic!("a JoinHandle was polled after it had given its result");
                }
            }
        }
    }

    fn detach(&self) {
        let former = std::mem::replace(&mut *self.join.lock(), Join::Closed);
        drop_user_value(former);
    }

    fn as_task(self: Arc<Self>) -> Arc<dyn Task> {
        self
    }
}

impl<F, S> Wake for Cell<F, S>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
    S: Schedule,
{
    fn wake(self: Arc<Self>) {
        if self.slot.wake() {
            self.enqueue();
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.slot.wake() {
            self.enqueue();
        }
    }
}
