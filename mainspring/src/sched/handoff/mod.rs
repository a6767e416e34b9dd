//! Handing a processor off: from a worker that is stuck in user code to another one.
//!
//! Go takes a P from an M that is in a system call, which the M has announced (`handoffp`). Here no announcement is
//! needed: a processor is unlocked whenever user code runs, so it can be taken at any moment of that.
//!
//! # Protocol
//!
//! Who takes a processor (the monitor, or its own worker that is about to block):
//!
//! * **H1** locks the core, and looks whether the worker that was seen stuck is still its owner and still in the same
//!   piece of user code. If not, nothing is done.
//! * **H2** under the lock: nobody owns it any more; what stood in the `next` slot becomes an ordinary task of the queue;
//!   the seat is marked as released, and gets a note of what is to be reported. Unlocks.
//! * **H3** gives it to a worker that sleeps, or to a new one, which begins as a searcher (README, N4 and N5, whoever else
//!   searches); or, if no task is queued there, puts it among the idle ones and notifies (N1 to N5), so that somebody
//!   comes for its timers and sits in the poller. If no thread can be had it is idle as well: whoever comes back takes
//!   it, and until then the monitor tries again, fires timers and polls.
//!
//! The worker that was stuck:
//!
//! * **W1** its user code returns. It may call wakers next (another piece), before which it queues the task that has
//!   yielded to it.
//! * **W2** locks the core before it takes or adds a task there, and looks whether it is still the owner.
//! * **W3** if not: unlocks, queues globally what it has in its hands, tells of its return (user code, which may
//!   block), takes back the mark, and goes on as a worker without a processor: it goes to sleep (README, S2 to S5), unless
//!   a processor is idle while work waits.
//!
//! Both sides decide under the core's lock, so exactly one of them has the processor.
//!
//! The look at the piece is not what keeps tasks and processors: they would be safe without it, since a worker looks at the
//! owner (W2) wherever it comes to its processor, be it from user code or not. It is there so that none is taken from a
//! worker that has gone on, which costs two switches, and is asked to yield and reported for nothing.
//!
//! (It is not exact: between a poll and the wakers that follow it there is no W2, so the ask may miss the piece and the
//! report may name what ran just before.)
//!
//! A task is in one place at any time: what runs on the stuck worker is in no queue (its state is RUNNING, so a wake
//! meanwhile leaves it to the runner to queue it again, W3), and what is in the queue goes with the processor. Wakers are
//! called one after the other, so one that blocks does keep the others of its batch.
//!
//! What the stuck thread does meanwhile: what it wakes and spawns goes to the queue of the processor it had, for whoever
//! owns it now, and it notifies as one from outside does; timers that it arms go there as well. Both are under that
//! core's lock, and as good there as anywhere. (In the global queue, a task that spawns a million others after its
//! processor was taken takes twice as long.)
//!
//! A thread that lost its processor is asked once to yield, so it runs beside the processors until the next leaf future
//! that sees it.

mod config;
mod report;
mod tell;
#[cfg(all(test, not(mainspring_loom)))]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub use self::config::{Handoff, HandoffCause, HandoffReport};
pub(crate) use self::report::Telling;
use super::processor::{Processor, WorkerId};
use super::seat::Seat;
use super::{Scheduler, current};
use crate::base::clock::Tick;
use crate::base::primitive::atomic::{AtomicU32, Ordering};
use crate::base::primitive::full_barrier;

/// Told of each hand-off.
pub(crate) type HandoffHook = Box<dyn Fn(&HandoffReport) + Send + Sync>;

/// What was seen of a worker that is stuck.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stuck {
    pub(super) processor: usize,
    pub(super) worker: WorkerId,
    /// The piece of user code.
    pub(super) piece: u64,
    /// When it was seen first.
    pub(super) since: Tick,
    pub(super) cause: HandoffCause,
}

/// Whether regions of declared blocking have lately been long enough to give the processor away as they begin, if tasks
/// are queued, without waiting for the monitor.
#[derive(Debug, Default)]
pub(super) struct Regions {
    /// Up by one for a long one, halved for a short one. Written by whoever has measured one, without order.
    long: AtomicU32,
}

impl Regions {
    pub(super) const LONG: Duration = Duration::from_micros(50);
    /// So many long ones in a row make a habit. This and the next are picked by feel.
    const HABIT: u32 = 2;
    const MAX: u32 = 8;
    /// How many threads for each processor may be blocked before no more processor is given away without the monitor.
    /// Of a thousand tasks that sleep 1 ms each, all are done in 11 ms without a bound, and a timer beside them is late
    /// by more than 1 ms, because the threads that come back keep the CPUs from whoever fires it; with 32 for each it is
    /// 20 ms, and 0.8 ms.
    const THREADS: usize = 32;

    fn are_long(&self) -> bool {
        // ordering: Relaxed, a hint.
        self.long.load(Ordering::Relaxed) >= Regions::HABIT
    }

    pub(super) fn record(&self, lasted: Duration) {
        // ordering: Relaxed, a hint; a count that is lost does not matter.
        let long = self.long.load(Ordering::Relaxed);
        let long = if lasted >= Regions::LONG { (long + 1).min(Regions::MAX) } else { long / 2 };
        // ordering: Relaxed, as above.
        self.long.store(long, Ordering::Relaxed);
    }
}

impl Scheduler {
    /// Whether a processor that is given up can have another thread.
    pub(super) fn can_staff(&self) -> bool {
        self.idle.sleepers() > 0 || self.threads.has_room()
    }

    /// Takes a processor from a worker that is stuck in user code, and gives it to another one. False if the worker has
    /// come back meanwhile.
    pub(super) fn hand_off(self: &Arc<Self>, seat: &Arc<Seat>, stuck: &Stuck) -> bool {
        let telling = self.prepare_report(seat, stuck);
        let processor = &self.processors[stuck.processor];
        let mut core = processor.lock(); // H1
        if core.owner != Some(stuck.worker) || seat.piece() != stuck.piece {
            return false;
        }
        core.owner = None; // H2
        core.demote_next();
        seat.set_released(true);
        seat.set_telling(telling.clone());
        drop(core);
        seat.ask_to_yield(stuck.piece);
        self.counters.handoff(stuck.cause).add_one();
        if processor.queue_len() > 0 {
            self.staff(self.idle.hand_over(stuck.processor)); // H3
        } else {
            self.idle.release(stuck.processor);
            full_barrier();
            if self.idle.wants_worker() {
                self.wake_one();
            }
        }
        if let Some(telling) = telling {
            self.schedule_global(telling);
        }
        true
    }

    /// This worker of ours is about to block in user code: its processor goes to whoever wants it. False if it has none.
    pub(super) fn release_from(self: &Arc<Self>, seat: &Arc<Seat>) -> bool {
        let owned = |processor: &Arc<Processor>| processor.lock().owner == Some(seat.id);
        let Some(processor) = self.processors.iter().position(owned) else { return false };
        let stuck = Stuck {
            processor,
            worker: seat.id,
            piece: seat.piece(),
            since: self.now(),
            cause: HandoffCause::Declared,
        };
        self.hand_off(seat, &stuck)
    }
}

/// This thread is about to block in user code: if it is a worker, of whatever runtime, its processor goes to whoever
/// wants it.
pub(crate) fn release_processor() {
    if let Some((scheduler, seat)) = current::worker() {
        scheduler.release_from(&seat);
        current::set_token(None);
    }
}

/// Says that the code that follows may block; see [`blocking`](crate::blocking). Dropping it says that it is over.
#[must_use]
pub(crate) struct Declared {
    /// What was said before; `None` on a thread that is none of a runtime's.
    before: Option<bool>,
    /// If the processor was given away at once: to whom it is told how long the region was, and since when.
    given: Option<(Arc<Scheduler>, Tick)>,
}

pub(crate) fn declare_blocking() -> Declared {
    let before = current::with_seat(|seat| seat.declare(true));
    let given = match before {
        Some(false) => give_away_if_usual(),
        _ => None,
    };
    Declared { before, given }
}

/// Gives the processor away if declared regions are usually long and somebody waits for it.
fn give_away_if_usual() -> Option<(Arc<Scheduler>, Tick)> {
    let is_usual = current::with(|scheduler, token| {
        let (Some(scheduler), Some(token)) = (scheduler, token) else { return false };
        scheduler.regions.are_long()
            && scheduler.handoff.enabled
            && (scheduler.processors[token.processor].queue_len() > 0 || scheduler.global.len() > 0)
            && scheduler.can_staff()
            && scheduler.threads.unavailable() < Regions::THREADS * scheduler.processors.len()
    });
    if !is_usual {
        return None;
    }
    let (scheduler, seat) = current::worker()?;
    let now = scheduler.now();
    let given = scheduler.release_from(&seat);
    current::set_token(None);
    given.then_some((scheduler, now))
}

impl Drop for Declared {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            let _ = current::with_seat(|seat| seat.declare(before));
        }
        if let Some((scheduler, since)) = self.given.take() {
            scheduler.regions.record(scheduler.now().saturating_since(since));
        }
    }
}
