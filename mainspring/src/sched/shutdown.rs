//! The end of a runtime: every task cancelled, every waiter woken, every thread told to go.
//!
//! ```text
//! OPEN ── close ──▶ CLOSING ── every task has been aborted ──▶ SWEPT
//!         nothing is spawned any more,        workers leave when they find
//!         workers cancel what they dequeue    nothing left to cancel
//! ```
//!
//! Invariants: a task that was listed when CLOSING began gets its abort, and a queue entry if it had
//! none; the worker that takes the entry drops the future. What is queued after the workers have
//! gone is cancelled by who queues it, since the global queue is closed then. Waiting never waits for
//! user code longer than asked.

use std::sync::Arc;
use std::time::Duration;

use super::seat::Seat;
use super::task::wake;
use super::{Scheduler, current};
use crate::base::primitive::atomic::Ordering;

pub(super) const OPEN: u8 = 0;
const CLOSING: u8 = 1;
const SWEPT: u8 = 2;

/// How long dropping a runtime waits for a worker that is in one and the same piece of user code:
/// long enough for a poll under load, short enough not to look like a hang. Picked by feel.
const PATIENCE: Duration = Duration::from_millis(100);

impl Scheduler {
    pub(crate) fn is_closing(&self) -> bool {
        // ordering: Acquire, pairs with `close`; what is missed now is seen at the next look.
        self.phase.load(Ordering::Acquire) != OPEN
    }

    /// Whether workers that find nothing to do may end.
    pub(crate) fn may_exit(&self) -> bool {
        // ordering: Acquire, pairs with `close`; before a sleep, `full_barrier` makes it exact.
        self.phase.load(Ordering::Acquire) == SWEPT
    }

    /// The phase in words, for reports.
    pub(super) fn phase_name(&self) -> &'static str {
        // ordering: Acquire, as in `is_closing`.
        match self.phase.load(Ordering::Acquire) {
            OPEN => "open",
            CLOSING => "closing",
            _ => "swept",
        }
    }

    /// Begins the end; does nothing the second time.
    pub(super) fn close(self: &Arc<Self>) {
        // ordering: AcqRel, pairs with `is_closing`.
        if self.phase.compare_exchange(OPEN, CLOSING, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return;
        }
        for job in self.blocking.close() {
            job.cancel();
        }
        for task in self.registry.close() {
            task.abort();
        }
        // ordering: Release, pairs with `may_exit`. Sleepers are woken below, after it.
        self.phase.store(SWEPT, Ordering::Release);
        crate::base::primitive::full_barrier();
        for seat in self.idle.drain_seats() {
            seat.parker.unpark();
        }
        self.poller.interrupt_if_after(crate::base::clock::Tick::from_nanos(0));
        self.monitor.wake();
    }

    /// Ends the runtime and waits for its threads, for at most `timeout`; how many still run.
    pub(crate) fn shut_down(self: &Arc<Self>, timeout: Duration) -> usize {
        self.close();
        let left = match self.own_seat() {
            Some(own) if !own.is_in_jobs() => self.threads.count(),
            own => self.threads.wait_for_end(timeout, None, own.map(|own| own.id)),
        };
        self.sweep();
        left
    }

    /// Ends the runtime and waits for its workers, but not for those that are blocked in user code.
    pub(crate) fn shut_down_with_patience(self: &Arc<Self>) {
        self.close();
        match self.own_seat() {
            Some(own) if !own.is_in_jobs() => {}
            own => {
                self.threads.wait_for_end(Duration::MAX, Some(PATIENCE), own.map(|own| own.id));
            }
        }
        self.sweep();
    }

    /// The seat of this thread, if it is one of this scheduler's. One that waited for all to end would wait for
    /// itself; and a worker in a task waits for nobody, as others may need what it holds.
    fn own_seat(&self) -> Option<Arc<Seat>> {
        let (scheduler, seat) = current::worker()?;
        std::ptr::eq(Arc::as_ptr(&scheduler), self).then_some(seat)
    }

    /// Cancels and wakes all that is left, whoever holds the processors. Called by who shuts down and by
    /// the last worker, while that still counts, so that whoever has waited for the workers finds nothing
    /// half done. Two at once share what there is; harmless if there is nothing.
    pub(super) fn sweep(self: &Arc<Self>) {
        let _entered = current::enter(Arc::clone(self));
        for processor in &self.processors {
            let mut core = processor.lock();
            let tasks = core.take_all();
            let wakers = core.close_timers();
            drop(core);
            for task in tasks {
                task.cancel();
            }
            // Sleepers look again, and find another runtime or none.
            wakers.into_iter().for_each(wake);
        }
        for task in self.global.close() {
            task.cancel();
        }
        self.poller.close().into_iter().for_each(wake);
    }
}
