//! The global run queue: tasks that were woken or spawned where no processor is at hand.
//!
//! Invariant: with the lock free, `len` is the length of the queue. Once closed it takes nothing
//! more, so nothing can be left in it after the last worker has gone.

use std::collections::VecDeque;

use super::task::TaskRef;
use crate::base::primitive::atomic::{AtomicUsize, Ordering};
use crate::base::rank::{Rank, RankedMutex};

pub(crate) struct Global {
    queue: RankedMutex<Queue>,
    /// Written under the lock, read without.
    len: AtomicUsize,
}

struct Queue {
    tasks: VecDeque<TaskRef>,
    /// How many were ever taken out: the monitor sees by it whether anybody comes.
    taken: u64,
    closed: bool,
}

impl Global {
    pub(crate) fn new() -> Global {
        let queue = Queue { tasks: VecDeque::new(), taken: 0, closed: false };
        Global { queue: RankedMutex::new(Rank::Global, queue), len: AtomicUsize::new(0) }
    }

    pub(crate) fn len(&self) -> usize {
        // ordering: Relaxed, a hint; the decision to sleep is settled by `full_barrier` (sched/README).
        self.len.load(Ordering::Relaxed)
    }

    /// Adds a task, or gives it back if the queue is closed: it is then the caller's to cancel.
    pub(crate) fn push(&self, task: TaskRef) -> Result<(), TaskRef> {
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(task);
        }
        queue.tasks.push_back(task);
        // ordering: Relaxed, pairs with `len`.
        self.len.store(queue.tasks.len(), Ordering::Relaxed);
        Ok(())
    }

    /// Moves up to `count` of the oldest tasks into `tasks`.
    pub(crate) fn pop(&self, count: usize, tasks: &mut Vec<TaskRef>) {
        let mut queue = self.queue.lock();
        let count = count.min(queue.tasks.len());
        tasks.extend(queue.tasks.drain(..count));
        queue.taken += count as u64;
        // ordering: Relaxed, pairs with `len`.
        self.len.store(queue.tasks.len(), Ordering::Relaxed);
    }

    /// How many tasks have been taken out since the beginning.
    pub(crate) fn taken(&self) -> u64 {
        self.queue.lock().taken
    }

    /// Closes the queue and gives what is in it.
    pub(crate) fn close(&self) -> VecDeque<TaskRef> {
        let mut queue = self.queue.lock();
        queue.closed = true;
        // ordering: Relaxed, pairs with `len`.
        self.len.store(0, Ordering::Relaxed);
        std::mem::take(&mut queue.tasks)
    }
}
