//! A task's future and the state word that says who may touch it.
//!
//! The only unsafe code of the task layer. Knows nothing of queues, outputs or wakers.
//!
//! ```text
//!              wake, abort: the caller queues it
//!    IDLE ───────────────────────────────────────▶ SCHEDULED   (exactly one queue entry exists)
//!     ▲                                              │ start: the queue entry is used up
//!     │ suspend, not woken meanwhile                 ▼
//!     ├───────────────────────────────────────── RUNNING       (exactly one `Run` exists)
//!     │     wake, abort while running:             │   │
//!     │     RUNNING+SCHEDULED ── suspend ──▶ SCHEDULED, the runner queues it
//!     │                                            │ finish
//!     │                                            ▼
//!     └── never again ─────────────────────────── DONE         (no future any more)
//! ```
//!
//! ABORTED is a flag beside these; whoever starts the task next sees it and drops the future.
//!
//! Invariants: the future is accessed through a [`Run`] only. A `Run` exists only between `start` and
//! `suspend` or `finish`; SCHEDULED without RUNNING belongs to one queue entry, and only its owner
//! calls `start`. So at most one `Run` exists at any time.
#![allow(unsafe_code)]

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::base::primitive::UnsafeCell;
use crate::base::primitive::atomic::{AtomicU32, Ordering};

const SCHEDULED: u32 = 1;
const RUNNING: u32 = 2;
const DONE: u32 = 4;
const ABORTED: u32 = 8;

pub(super) struct Slot<F> {
    /// The bits above. Written by read-modify-write only, by anybody.
    state: AtomicU32,
    /// Written through the one `Run` only.
    future: UnsafeCell<Option<F>>,
}

// SAFETY: a shared `Slot` gives access to the future through a `Run` only, of which there is at most
// one at a time (module invariant, upheld by the state word), and each hand-over from one `Run` to the
// next goes through an AcqRel read-modify-write of that word. So sharing a slot between threads is
// sending the future from one to the other, which F: Send allows.
unsafe impl<F: Send> Sync for Slot<F> {}

/// What became of a task while it ran.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Suspended {
    /// Nobody woke it. Whoever does so next queues it.
    Idle,
    /// It was woken or aborted meanwhile: the caller has to queue it.
    Woken,
}

impl<F> Slot<F> {
    /// A slot whose task is SCHEDULED: the caller owns the queue entry and puts it into a queue.
    ///
    /// # Safety
    ///
    /// Once `start` has been called, the slot must not be moved until it is dropped.
    pub(super) unsafe fn new(future: F) -> Slot<F> {
        Slot { state: AtomicU32::new(SCHEDULED), future: UnsafeCell::new(Some(future)) }
    }

    /// Asks for a run; true if the caller has to queue the task.
    #[must_use]
    pub(super) fn wake(&self) -> bool {
        self.request(SCHEDULED)
    }

    /// Asks for the task's end; true if the caller has to queue the task.
    #[must_use]
    pub(super) fn abort(&self) -> bool {
        self.request(SCHEDULED | ABORTED)
    }

    fn request(&self, bits: u32) -> bool {
        // ordering: Release publishes what the waker wrote to the run that follows (`start`);
        // Acquire, as this caller may be the one to queue and even start it.
        let before = self.state.fetch_or(bits, Ordering::AcqRel);
        before & (SCHEDULED | RUNNING | DONE) == 0
    }

    pub(super) fn is_done(&self) -> bool {
        // ordering: Acquire, pairs with `finish`.
        self.state.load(Ordering::Acquire) & DONE != 0
    }

    /// Uses up the task's queue entry, which the caller owns.
    pub(super) fn start(&self) -> Run<'_, F> {
        // ordering: AcqRel; Acquire pairs with `request` (what wakers wrote) and `suspend` (what the
        // former run wrote).
        let before = self.state.fetch_xor(SCHEDULED | RUNNING, Ordering::AcqRel);
        assert!(
            before & (SCHEDULED | RUNNING | DONE) == SCHEDULED,
            "a task was started without a queue entry, state {before:#x}"
        );
        Run { slot: self, aborted: before & ABORTED != 0 }
    }
}

/// The right to touch the future; holding one proves that nobody else does.
pub(super) struct Run<'a, F> {
    slot: &'a Slot<F>,
    aborted: bool,
}

impl<F: Future> Run<'_, F> {
    /// Whether the task was aborted before this run.
    pub(super) fn is_aborted(&self) -> bool {
        self.aborted
    }

    /// # Panics
    ///
    /// If the future has been dropped. A panic of the future passes through.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<F::Output> {
        self.slot.future.with_mut(|future| {
            // SAFETY: valid, since it points into the slot, which `self` borrows; unaliased, since
            // this `Run` is the only one (module invariant) and is borrowed mutably.
            let future = unsafe { &mut *future };
            let future = future.as_mut().expect("a future polled after its end");
            // SAFETY: the slot is not moved from the first `start` until it is dropped (contract of
            // `Slot::new`), and the future leaves it only by being dropped in place.
            let future = unsafe { Pin::new_unchecked(future) };
            future.poll(context)
        })
    }

    /// Drops the future in place. A panic of its destructor passes through; the future counts as
    /// dropped all the same.
    pub(super) fn drop_future(&mut self) {
        self.slot.future.with_mut(|future| {
            // SAFETY: valid and unaliased as in `poll`. The assignment drops the future where it
            // is, which is what its being pinned asks for; if that panics, None is written before
            // unwinding goes on.
            unsafe { *future = None }
        });
    }

    /// Gives the right back after a poll that was pending.
    pub(super) fn suspend(self) -> Suspended {
        // ordering: AcqRel; Release publishes this run's writes to the next `start`.
        let before = self.slot.state.fetch_and(!RUNNING, Ordering::AcqRel);
        debug_assert!(before & (RUNNING | DONE) == RUNNING);
        if before & SCHEDULED == 0 { Suspended::Idle } else { Suspended::Woken }
    }

    /// Gives the right back for good; the future has been dropped.
    pub(super) fn finish(self) {
        // ordering: AcqRel; Release pairs with `is_done`.
        let before = self.slot.state.fetch_xor(RUNNING | DONE, Ordering::AcqRel);
        debug_assert!(before & (RUNNING | DONE) == RUNNING);
    }
}

#[cfg(all(test, mainspring_loom))]
impl<F> Slot<F> {
    /// What `wake` must not be: it has the task queued although a run will see to that. For a canary.
    pub(super) fn wake_as_if_not_running(&self) -> bool {
        // ordering: AcqRel, as in `request`.
        self.state.fetch_or(SCHEDULED, Ordering::AcqRel) & (SCHEDULED | DONE) == 0
    }
}
