//! The monitor: a thread that watches the workers from outside and owns no processor.
//!
//! Every [`PERIOD`] it looks whether the poller was attended, whether timers are overdue, and whether
//! tasks wait beside an idle processor, and wakes a worker if something was left. It sleeps for good
//! while every processor is idle and no task waits, so an idle program makes no wake-ups. (Tasks wait
//! beside idle processors only if every worker is blocked and no thread can be had; then the monitor
//! tries again.)
//!
//! What the idle protocol should have seen to itself is counted as a rescue, and tests ask for none:
//! a queue that held tasks beside an idle processor at two looks in a row, nobody searching, and from which
//! nothing was taken in between (at a single look, a thread may just be between queueing a task and waking
//! a worker); and an overdue timer while somebody sits in the poller for longer.
//!
//! Its sleep is a protocol with the workers:
//!
//! ```text
//! monitor: M1 asleep = true    worker: W1 take the first processor out of the idle list
//!          M2 full barrier             W2 full barrier
//!          M3 all idle? park           W3 asleep? unpark the monitor
//! ```
//!
//! One of the two sees the other: if M3 misses W1, then M1 comes before W3. Who has published a task and
//! cannot have a worker for it does W2 and W3 as well, and M3 looks for tasks.

use std::sync::Arc;
use std::time::Duration;

use super::{Scheduler, current};
use crate::base::park::Parker;
use crate::base::primitive::atomic::{AtomicBool, Ordering};
use crate::base::primitive::full_barrier;

/// Go's monitor takes the same time for "nobody has polled for long".
const PERIOD: Duration = Duration::from_millis(10);

pub(crate) struct Monitor {
    parker: Parker,
    /// Written by the monitor; taken back by the worker that wakes it.
    asleep: AtomicBool,
}

/// What the monitor saw at its last look.
#[derive(Default)]
struct Look {
    poller_polls: u64,
    /// Polls of each processor.
    polls: Vec<u64>,
    /// Of each queue that had tasks beside an idle processor, the global one last, how many tasks had
    /// been taken from it.
    left_over: Vec<Option<u64>>,
}

impl Monitor {
    pub(crate) fn new() -> Monitor {
        Monitor { parker: Parker::new(), asleep: AtomicBool::new(false) }
    }

    /// A worker has taken a processor while all were idle (W2 and W3).
    pub(crate) fn wake_if_asleep(&self) {
        full_barrier();
        // ordering: Relaxed load, settled by the barriers; the swap makes one waker of many.
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel) {
            self.parker.unpark();
        }
    }

    /// Whether it sleeps for good, for reports.
    pub(crate) fn is_asleep(&self) -> bool {
        // ordering: Relaxed, only reported.
        self.asleep.load(Ordering::Relaxed)
    }

    /// Wakes the monitor in any case; for shutdown.
    pub(crate) fn wake(&self) {
        self.parker.unpark();
    }
}

impl Scheduler {
    /// The monitor's thread.
    pub(crate) fn run_monitor(self: &Arc<Self>) {
        let _entered = current::enter(Arc::clone(self));
        let mut look = Look::default();
        loop {
            self.rest_monitor();
            if self.is_closing() {
                return;
            }
            self.look_after(&mut look);
        }
    }

    fn rest_monitor(&self) {
        let monitor = &self.monitor;
        // ordering: Relaxed, settled by the barrier (M1, M2).
        monitor.asleep.store(true, Ordering::Relaxed);
        full_barrier();
        if self.idle.all_idle() && !self.work_is_visible() && !self.is_closing() {
            monitor.parker.park();
        } else {
            // ordering: Relaxed, a waker that takes it first gives a token that shortens one period.
            monitor.asleep.store(false, Ordering::Relaxed);
        }
        if !self.is_closing() {
            monitor.parker.park_timeout(PERIOD);
        }
    }

    fn look_after(self: &Arc<Self>, look: &mut Look) {
        let asked = self.poller.polls();
        let unattended = !self.poller.is_attended() && asked == look.poller_polls;
        look.poller_polls = asked;
        let polls: Vec<u64> = self.processors.iter().map(|processor| processor.polls()).collect();
        let before = std::mem::replace(&mut look.polls, polls);

        if self.idle.processors() == 0 {
            look.left_over.clear();
            // All are at work. Who waits for a descriptor should not wait for the longest of them.
            if unattended {
                self.poll_from_outside();
            }
            return;
        }
        let next_timer = self.next_due();
        let overdue = next_timer.saturating_add(PERIOD) < self.now();
        let overslept = overdue && self.poller.sits_until().is_some_and(|until| until > next_timer);
        let taken = self.left_over();
        let left_over = taken.iter().zip(&look.left_over).any(|(now, then)| now.is_some() && now == then);
        look.left_over = taken;
        let stuck = self.processors.iter().zip(&look.polls).enumerate().any(|(index, (processor, polls))| {
            before.get(index) == Some(polls) && processor.lock().next.is_some()
        });
        if (unattended || overdue || left_over || stuck) && self.idle.wants_worker() {
            if left_over || overslept {
                self.counters.rescues.add_one();
            }
            self.wake_one();
        }
    }

    /// Of each queue how many tasks have been taken from it, if it has tasks that nobody comes for.
    fn left_over(&self) -> Vec<Option<u64>> {
        let nobody_comes = self.idle.wants_worker();
        let local = self.processors.iter().map(|processor| {
            let counters = processor.lock().counters;
            (processor.queue_len() > 0 && nobody_comes).then_some(counters.polls + counters.stolen)
        });
        let global = (self.global.len() > 0 && nobody_comes).then(|| self.global.taken());
        local.chain([global]).collect()
    }

    /// Looks at the poller without waiting; what it wakes goes to the global queue.
    pub(super) fn poll_from_outside(self: &Arc<Self>) {
        let mut wakers = Vec::new();
        if let Some(mut turn) = self.poller.try_turn() {
            // An error is the next worker's to meet: it polls in earnest.
            let _ = turn.poll_now(&mut wakers);
        }
        // A worker that went to sleep meanwhile has found the turn taken (README, P).
        full_barrier();
        if self.idle.wants_worker() && !self.poller.is_attended() {
            self.wake_one();
        }
        wakers.into_iter().for_each(super::task::wake);
    }
}
