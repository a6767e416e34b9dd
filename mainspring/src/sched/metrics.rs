//! What the scheduler counts, and the snapshot that users see.
//!
//! What happens often is counted in plain numbers under a lock that is held anyway ([`Counters`], in
//! each processor); what happens seldom in atomics ([`SharedCounters`]). Nothing decides by them.

use super::handoff::HandoffCause;
use crate::base::primitive::atomic::{AtomicU64, Ordering};

/// What one processor counts, under its core's lock.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counters {
    pub(crate) polls: u64,
    pub(crate) stolen: u64,
    pub(crate) timers_armed: u64,
    pub(crate) timers_fired: u64,
    pub(crate) timers_cancelled: u64,
    pub(crate) timer_lateness_ns_max: u64,
}

/// A number that only grows, written by anybody.
#[derive(Default, Debug)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add_one(&self) {
        // ordering: Relaxed, a statistic.
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        // ordering: Relaxed, a statistic.
        self.0.load(Ordering::Relaxed)
    }
}

/// What is counted outside of any processor.
#[derive(Default, Debug)]
pub(crate) struct SharedCounters {
    pub(crate) tasks_spawned: Count,
    pub(crate) panics: Count,
    pub(crate) parks: Count,
    pub(crate) wakeups: Count,
    pub(crate) handoffs_asleep: Count,
    pub(crate) handoffs_on_cpu: Count,
    pub(crate) handoffs_declared: Count,
    pub(crate) rescues: Count,
    pub(crate) thread_failures: Count,
}

impl SharedCounters {
    pub(crate) fn handoff(&self, cause: HandoffCause) -> &Count {
        match cause {
            HandoffCause::Asleep => &self.handoffs_asleep,
            HandoffCause::OnCpu => &self.handoffs_on_cpu,
            HandoffCause::Declared => &self.handoffs_declared,
        }
    }
}

/// A snapshot of a runtime's counters; see [`Runtime::metrics`](crate::runtime::Runtime::metrics).
///
/// Counts are totals since the runtime was built unless said otherwise. The fields are read one
/// after the other while the runtime goes on, so they need not fit one another to the last unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Processors: how many tasks can run at once.
    pub processors: usize,
    /// Processors that nobody holds, now.
    pub idle_processors: usize,
    /// Threads that run tasks, block, or wait to be needed, now; without the monitor.
    pub threads: usize,
    /// How many of them run functions of `spawn_blocking`, now.
    pub blocking_threads: usize,
    /// Threads that the operating system refused to give.
    pub thread_failures: u64,
    /// Tasks that have not ended, now; blocking ones included.
    pub tasks_alive: usize,
    /// Tasks spawned, blocking ones included.
    pub tasks_spawned: u64,
    /// Tasks and timer functions that panicked.
    pub panics: u64,
    /// Tasks that wait in a run queue, now.
    pub queued: usize,
    /// Polls of tasks, and runs of timer functions.
    pub polls: u64,
    /// Tasks taken from another processor's queue.
    pub steals: u64,
    /// Processors that were taken from a thread that was stuck in user code: the sum of the next three.
    pub handoffs: u64,
    /// How many of those threads were asleep in the kernel.
    pub handoffs_asleep: u64,
    /// How many computed for too long.
    pub handoffs_on_cpu: u64,
    /// How many were in [`blocking`](crate::blocking) or in `block_on`.
    pub handoffs_declared: u64,
    /// Times a worker went to sleep, in the poller or parked.
    pub parks: u64,
    /// Times a worker was woken because there was work.
    pub wakeups: u64,
    /// Times the monitor found work that no worker had come for.
    pub rescues: u64,
    /// Timers that are armed, now.
    pub timers_pending: usize,
    /// Timers armed.
    pub timers_armed: u64,
    /// Timers that fired.
    pub timers_fired: u64,
    /// Timers cancelled before they fired.
    pub timers_cancelled: u64,
    /// The longest time between the moment at which a timer was due and the moment at which it was
    /// fired, in nanoseconds.
    pub timer_lateness_ns_max: u64,
    /// Times that the operating system was asked for events.
    pub poller_polls: u64,
    /// How many of these could wait.
    pub poller_waits: u64,
    /// Events that the poller returned.
    pub poller_events: u64,
    /// Times a thread in the poller was woken by a system call.
    pub poller_interrupts: u64,
    /// Descriptors registered, now.
    pub descriptors: usize,
}
