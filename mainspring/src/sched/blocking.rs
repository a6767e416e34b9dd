//! The blocking pool: threads for code that was declared to block, started as they are needed.
//!
//! Knows nothing of processors. Jobs are tasks whose future calls the function in its one poll.
//!
//! Invariants: a job in the queue has a thread that will come for it: an idle one that was woken, one
//! on its way, or all there may be, which look into the queue before they rest. When there is no
//! thread at all and none can be had, the jobs go to the workers' global queue: late is better than
//! never.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::task::TaskRef;
use super::{Scheduler, current};
use crate::base::primitive::Condvar;
use crate::base::rank::{Rank, RankedGuard, RankedMutex};

/// How long a thread waits for another job before it ends; as in tokio.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

pub(crate) struct Blocking {
    state: RankedMutex<State>,
    /// Signalled once for each job that an idle thread is to take.
    jobs: Condvar,
    threads_max: usize,
}

struct State {
    queue: VecDeque<TaskRef>,
    threads: usize,
    idle: usize,
    closed: bool,
}

/// The pool as it is now, for reports.
#[allow(dead_code)] // Read by the derived `Debug` alone, which the compiler does not count as a use.
#[derive(Debug)]
pub(crate) struct BlockingState {
    queued: usize,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Blocking {
    pub(crate) fn new(threads_max: usize) -> Blocking {
        let state = State { queue: VecDeque::new(), threads: 0, idle: 0, closed: false };
        Blocking { state: RankedMutex::new(Rank::Blocking, state), jobs: Condvar::new(), threads_max }
    }

    pub(crate) fn threads(&self) -> usize {
        self.state.lock().threads
    }

    pub(crate) fn state(&self) -> BlockingState {
        let state = self.state.lock();
        BlockingState {
            queued: state.queue.len(),
            threads: state.threads,
            idle: state.idle,
            closed: state.closed,
        }
    }

    /// Lets no job in any more and gives those that no thread has taken. Threads end after their job.
    pub(crate) fn close(&self) -> VecDeque<TaskRef> {
        let mut state = self.state.lock();
        state.closed = true;
        let jobs = std::mem::take(&mut state.queue);
        drop(state);
        self.jobs.notify_all();
        jobs
    }

    /// The next job for a thread of the pool; `None` when the thread is to end.
    fn next(&self) -> Option<TaskRef> {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                return Some(job);
            }
            if state.closed {
                break;
            }
            state.idle += 1;
            let mut timed_out = false;
            state = state.wait_with(|state| {
                let (state, result) =
                    self.jobs.wait_timeout(state, KEEP_ALIVE).unwrap_or_else(PoisonError::into_inner);
                timed_out = result.timed_out();
                state
            });
            state.idle -= 1;
            if timed_out && state.queue.is_empty() {
                break;
            }
        }
        state.threads -= 1;
        None
    }

    fn push(&self, job: TaskRef) -> Pushed<'_> {
        let mut state = self.state.lock();
        if state.closed {
            drop(state);
            return Pushed::Closed(job);
        }
        state.queue.push_back(job);
        if state.queue.len() <= state.idle {
            drop(state);
            self.jobs.notify_one();
            Pushed::Done
        } else if state.threads < self.threads_max {
            state.threads += 1;
            Pushed::NeedsThread(state)
        } else {
            Pushed::Done
        }
    }
}

enum Pushed<'a> {
    Done,
    Closed(TaskRef),
    /// A thread has been counted and is to be started.
    NeedsThread(RankedGuard<'a, State>),
}

impl Scheduler {
    /// Queues a job of the blocking pool.
    pub(crate) fn schedule_blocking(self: &Arc<Self>, job: TaskRef) {
        match self.blocking.push(job) {
            Pushed::Done => {}
            Pushed::Closed(job) => job.cancel(),
            Pushed::NeedsThread(state) => {
                drop(state);
                let scheduler = Arc::clone(self);
                if self.threads.spawn("blocking", move || scheduler.run_blocking_thread()).is_err() {
                    self.counters.thread_failures.add_one();
                    self.degrade_blocking();
                }
            }
        }
    }

    /// A thread that was counted could not be had.
    fn degrade_blocking(self: &Arc<Self>) {
        let mut state = self.blocking.state.lock();
        state.threads -= 1;
        if state.threads > 0 {
            return;
        }
        let jobs = std::mem::take(&mut state.queue);
        drop(state);
        for job in jobs {
            self.schedule(job);
        }
    }

    fn run_blocking_thread(self: Arc<Self>) {
        let _entered = current::enter(Arc::clone(&self));
        while let Some(job) = self.blocking.next() {
            if self.is_closing() {
                job.cancel();
            } else {
                let mut job = Some(job);
                while let Some(again) = job {
                    job = again.run();
                }
            }
        }
    }
}
