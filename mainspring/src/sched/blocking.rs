//! The blocking pool: jobs that were declared to block, and how many threads may run them at a time.
//!
//! The threads are those of the workers ([`super::threads`]): one that sleeps is woken for a job, or a new one is
//! started. Jobs are tasks whose future calls the function in its one poll. Knows nothing of processors.
//!
//! Who queues a job takes a *ticket* for a thread that will come for it, as long as there are any; who has a ticket runs
//! jobs until the queue is empty, and gives it back under the lock under which that is seen. So a job in the
//! queue has a ticket that will come for it, unless no thread could be had for one. Then:
//!
//! * if no ticket is out at all, the jobs go to the workers' global queue: late is better than never;
//! * otherwise those that run jobs will come, or a worker that is about to park (it looks after its barrier, and who could
//!   not have a thread looks after his whether one has parked), or the monitor, which tries again every period: all of
//!   these may be waiting for the very job.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Scheduler;
use super::task::TaskRef;
use crate::base::primitive::atomic::{AtomicBool, Ordering};
use crate::base::primitive::full_barrier;
use crate::base::rank::{Rank, RankedMutex};

pub(crate) struct Blocking {
    state: RankedMutex<State>,
    /// Whether jobs wait although a ticket is to be had. Written under the lock.
    wanting: AtomicBool,
    tickets_max: usize,
}

struct State {
    queue: VecDeque<TaskRef>,
    /// Tickets that are out.
    tickets: usize,
    closed: bool,
}

/// The pool as it is now, for reports.
#[allow(dead_code)] // Read by the derived `Debug` alone, which the compiler does not count as a use.
#[derive(Debug)]
pub(crate) struct BlockingState {
    queued: usize,
    tickets: usize,
    closed: bool,
}

enum Pushed {
    Done,
    Closed(TaskRef),
    /// A ticket was taken: a thread is to be had for it.
    WithTicket,
}

impl Blocking {
    pub(crate) fn new(tickets_max: usize) -> Blocking {
        let state = State { queue: VecDeque::new(), tickets: 0, closed: false };
        Blocking {
            state: RankedMutex::new(Rank::Blocking, state),
            wanting: AtomicBool::new(false),
            tickets_max,
        }
    }

    /// How many threads run jobs, or are on their way to.
    pub(crate) fn threads(&self) -> usize {
        self.state.lock().tickets
    }

    pub(crate) fn state(&self) -> BlockingState {
        let state = self.state.lock();
        BlockingState { queued: state.queue.len(), tickets: state.tickets, closed: state.closed }
    }

    /// Lets no job in any more and gives those that no thread has taken. Threads end after their job.
    pub(crate) fn close(&self) -> VecDeque<TaskRef> {
        let mut state = self.state.lock();
        state.closed = true;
        let jobs = std::mem::take(&mut state.queue);
        self.publish(&state, false);
        jobs
    }

    fn push(&self, job: TaskRef) -> Pushed {
        let mut state = self.state.lock();
        if state.closed {
            drop(state);
            return Pushed::Closed(job);
        }
        state.queue.push_back(job);
        if state.tickets == self.tickets_max {
            return Pushed::Done;
        }
        state.tickets += 1;
        self.publish(&state, self.wants_thread());
        Pushed::WithTicket
    }

    /// The next job for the holder of a ticket; `None` takes the ticket back.
    pub(super) fn next(&self) -> Option<TaskRef> {
        let mut state = self.state.lock();
        let job = state.queue.pop_front();
        if job.is_none() {
            state.tickets -= 1;
        }
        self.publish(&state, self.wants_thread());
        job
    }

    /// No thread could be had for a ticket. The jobs are the caller's to queue elsewhere: all, if it was the only
    /// ticket, and otherwise so many.
    fn give_back(&self, some: usize) -> VecDeque<TaskRef> {
        let mut state = self.state.lock();
        state.tickets -= 1;
        let len = state.queue.len();
        let count = if state.tickets == 0 { len } else { some.min(len) };
        let jobs = state.queue.drain(..count).collect();
        self.publish(&state, true);
        jobs
    }

    fn publish(&self, state: &State, wanting: bool) {
        let wanting = wanting && !state.queue.is_empty() && state.tickets < self.tickets_max;
        // ordering: Relaxed, decided by the barriers of `wants_thread`'s callers.
        if self.wanting.load(Ordering::Relaxed) != wanting {
            // ordering: Relaxed, as above.
            self.wanting.store(wanting, Ordering::Relaxed);
        }
    }

    /// Whether jobs wait for which no thread could be had. Of use after a barrier.
    pub(super) fn wants_thread(&self) -> bool {
        // ordering: Relaxed, decided by the barrier before it.
        self.wanting.load(Ordering::Relaxed)
    }

    /// Takes a ticket for jobs that wait for one.
    pub(super) fn take_ticket(&self) -> bool {
        let mut state = self.state.lock();
        let taken = !state.queue.is_empty() && state.tickets < self.tickets_max;
        state.tickets += usize::from(taken);
        self.publish(&state, self.wants_thread());
        taken
    }
}

impl Scheduler {
    /// Queues a job of the blocking pool.
    pub(crate) fn schedule_blocking(self: &Arc<Self>, job: TaskRef) {
        match self.blocking.push(job) {
            Pushed::Done => {}
            Pushed::Closed(job) => job.cancel(),
            Pushed::WithTicket => self.find_thread_for_jobs(),
        }
    }

    /// Sees to a thread for a ticket that was taken.
    fn find_thread_for_jobs(self: &Arc<Self>) {
        if self.wake_for_jobs() || self.start_thread_for_jobs().is_ok() {
            return;
        }
        for job in self.blocking.give_back(0) {
            self.schedule(job);
        }
        full_barrier();
        let may_have_parked = self.blocking.wants_thread() && self.idle.sleepers() > 0;
        if may_have_parked && self.blocking.take_ticket() && !self.wake_for_jobs() {
            // Whoever parks from now on looks for himself.
            for job in self.blocking.give_back(0) {
                self.schedule(job);
            }
        }
        if self.blocking.wants_thread() {
            // It may be long until somebody parks.
            self.monitor.wake_if_resting();
        }
    }

    /// Tries again to find a thread for jobs that could not have one; for the monitor. Who runs jobs now may be waiting
    /// for just these. So while no thread is to be had, one at a time goes to a processor that is idle.
    pub(super) fn retry_jobs(self: &Arc<Self>) {
        if !self.blocking.wants_thread() || !self.blocking.take_ticket() {
            return;
        }
        if self.wake_for_jobs() || self.start_thread_for_jobs().is_ok() {
            return;
        }
        for job in self.blocking.give_back(self.idle.processors().min(1)) {
            self.schedule(job);
        }
    }

    fn wake_for_jobs(&self) -> bool {
        let Some(seat) = self.idle.claim_for_jobs() else { return false };
        seat.parker.unpark();
        true
    }
}
