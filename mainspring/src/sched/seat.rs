//! A seat: a thread of the runtime as others see it. They give it a processor or a job through it, and wake it;
//! the monitor watches over it what the thread does.
//!
//! Knows nothing of the lists in which seats stand.
//!
//! Invariants: `assigned` is written by a claimer, under the idle lists' lock and as it takes the seat out; what was
//! assigned is taken by the thread itself. `piece` is odd while the thread runs user code, and never the same twice: who
//! reads the same odd number at two moments knows that the thread was in one and the same piece of user code all the
//! time. What runs is written before a piece begins, so it belongs to the piece that is read after it.

use std::sync::Arc;

use super::processor::WorkerId;
use super::task::Identity;
use crate::base::park::Parker;
use crate::base::primitive::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::base::rank::{Rank, RankedMutex};
use crate::base::thread_probe::ThreadId;
use crate::sched::handoff::Telling;

/// What a sleeping thread is woken for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Assigned {
    /// To be the worker that holds this processor.
    Processor(usize),
    /// To run jobs of the blocking pool.
    Jobs,
}

const NOTHING: usize = 0;
const JOBS: usize = 1;
/// The first processor's number in `assigned`.
const FIRST: usize = 2;

#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) id: WorkerId,
    pub(crate) parker: Parker,
    assigned: AtomicUsize,
    /// Odd while the thread runs user code. Written by the thread alone.
    piece: AtomicU64,
    /// The task of this piece. Written by the thread alone.
    task: AtomicU64,
    registration: AtomicU64,
    /// The piece that is asked to yield. Written by the monitor, and taken back by the thread.
    asked: AtomicU64,
    /// Whether user code has declared that it may block. Written by the thread alone.
    declared: AtomicBool,
    /// Whether its processor was taken in the middle of user code and it has not come back from there. Set by who takes
    /// the processor, under the core's lock; taken back by the thread, which has taken that lock since.
    released: AtomicBool,
    /// Whether it runs jobs of the blocking pool. Written by who starts it or by the thread.
    in_jobs: AtomicBool,
    /// The thread's number in the system, 0 until it runs.
    thread: AtomicU32,
    /// What its coming back is reported with; there only if somebody wants reports.
    telling: RankedMutex<Option<Arc<Telling>>>,
}

impl Seat {
    pub(crate) fn new(id: WorkerId) -> Seat {
        Seat {
            id,
            parker: Parker::new(),
            assigned: AtomicUsize::new(NOTHING),
            piece: AtomicU64::new(0),
            task: AtomicU64::new(0),
            registration: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            declared: AtomicBool::new(false),
            released: AtomicBool::new(false),
            in_jobs: AtomicBool::new(false),
            thread: AtomicU32::new(0),
            telling: RankedMutex::new(Rank::Seat, None),
        }
    }

    pub(crate) fn assign(&self, what: Assigned) {
        let word = match what {
            Assigned::Processor(processor) => processor + FIRST,
            Assigned::Jobs => JOBS,
        };
        // ordering: Release, pairs with `take_assigned`.
        self.assigned.store(word, Ordering::Release);
    }

    pub(crate) fn take_assigned(&self) -> Option<Assigned> {
        // ordering: Acquire, pairs with `assign`; a load first spares the write on the common path.
        if self.assigned.load(Ordering::Acquire) == NOTHING {
            return None;
        }
        // ordering: Acquire, pairs with `assign`; the owner alone takes.
        decode(self.assigned.swap(NOTHING, Ordering::Acquire))
    }

    /// What waits to be taken. For the owner after the barrier of its announcement (README, S4), and for reports.
    pub(crate) fn assigned(&self) -> Option<Assigned> {
        // ordering: Acquire, as in `take_assigned`.
        decode(self.assigned.load(Ordering::Acquire))
    }

    /// Says what runs in the pieces that follow, for reports.
    pub(crate) fn set_identity(&self, what: Identity) {
        // ordering: Relaxed, published by the store of `piece`.
        self.task.store(what.id, Ordering::Relaxed);
        self.registration.store(what.registration, Ordering::Relaxed);
    }

    /// A piece of user code begins on this thread.
    pub(crate) fn begin_piece(&self) {
        self.toggle();
    }

    pub(crate) fn end_piece(&self) {
        self.toggle();
    }

    fn toggle(&self) {
        // ordering: Relaxed, one writer.
        let piece = self.piece.load(Ordering::Relaxed);
        // ordering: Release, pairs with `piece`: what runs was written before.
        self.piece.store(piece + 1, Ordering::Release);
    }

    /// Odd while the thread runs user code; the same odd number twice is the same piece of it.
    pub(crate) fn piece(&self) -> u64 {
        // ordering: Acquire, pairs with `toggle`.
        self.piece.load(Ordering::Acquire)
    }

    /// What runs in the piece that was read before, if the thread is in it still.
    pub(crate) fn identity(&self) -> Identity {
        Identity {
            // ordering: Relaxed, see `set_identity`; the caller looks at the piece again.
            id: self.task.load(Ordering::Relaxed),
            registration: self.registration.load(Ordering::Relaxed),
        }
    }

    /// Asks a piece of user code to let others run.
    pub(crate) fn ask_to_yield(&self, piece: u64) {
        // ordering: Relaxed, a hint.
        self.asked.store(piece, Ordering::Relaxed);
    }

    /// Whether the present piece is asked to yield; once for each time it was asked, so that who cannot yield (a
    /// `block_on` within it) does not spin. For the thread itself.
    pub(crate) fn take_ask(&self) -> bool {
        // ordering: Relaxed, a hint; the piece is the thread's own.
        let asked = self.asked.load(Ordering::Relaxed);
        if asked == 0 || asked != self.piece.load(Ordering::Relaxed) {
            return false;
        }
        // ordering: Relaxed, as above.
        self.asked.store(0, Ordering::Relaxed);
        true
    }

    /// Says whether user code may block from here on; what was said before. For the thread itself.
    pub(crate) fn declare(&self, declared: bool) -> bool {
        // ordering: Relaxed, one writer, and readers take it as a hint.
        let before = self.declared.load(Ordering::Relaxed);
        // ordering: Relaxed, as above.
        self.declared.store(declared, Ordering::Relaxed);
        before
    }

    pub(crate) fn is_declared(&self) -> bool {
        // ordering: Relaxed, as in `declare`.
        self.declared.load(Ordering::Relaxed)
    }

    pub(crate) fn set_released(&self, released: bool) {
        // ordering: Relaxed, see `is_available`.
        self.released.store(released, Ordering::Relaxed);
    }

    pub(crate) fn is_released(&self) -> bool {
        // ordering: Relaxed, see `is_available`.
        self.released.load(Ordering::Relaxed)
    }

    pub(crate) fn set_in_jobs(&self, in_jobs: bool) {
        // ordering: Relaxed, see `is_available`.
        self.in_jobs.store(in_jobs, Ordering::Relaxed);
    }

    pub(crate) fn is_in_jobs(&self) -> bool {
        // ordering: Relaxed, see `is_available`.
        self.in_jobs.load(Ordering::Relaxed)
    }

    /// Whether the thread holds a processor or will look for one soon.
    pub(crate) fn is_available(&self) -> bool {
        // Relaxed is enough for these two: they only bound the number of threads. A processor is given away after
        // they were written, under a lock, and whoever then wants a thread has taken that lock.
        !self.is_released() && !self.is_in_jobs()
    }

    /// For the thread itself, as it begins.
    pub(crate) fn set_thread(&self, thread: ThreadId) {
        // ordering: Relaxed, a number.
        self.thread.store(thread.to_raw(), Ordering::Relaxed);
    }

    pub(crate) fn thread(&self) -> Option<ThreadId> {
        // ordering: Relaxed, a number.
        ThreadId::from_raw(self.thread.load(Ordering::Relaxed))
    }

    /// Leaves a note of what is to be reported when the thread comes back; by who holds the core of its processor.
    pub(crate) fn set_telling(&self, telling: Option<Arc<Telling>>) {
        *self.telling.lock() = telling;
    }

    pub(crate) fn take_telling(&self) -> Option<Arc<Telling>> {
        self.telling.lock().take()
    }
}

fn decode(word: usize) -> Option<Assigned> {
    match word {
        NOTHING => None,
        JOBS => Some(Assigned::Jobs),
        processor => Some(Assigned::Processor(processor - FIRST)),
    }
}
