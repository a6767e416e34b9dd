//! Who is idle: processors without a worker, workers without a processor, and how many search.
//!
//! The lists of the idle protocol, whose essay is this folder's README. Knows nothing of what work is
//! or of where it is found.
//!
//! Invariants: a processor in the list has no owner. A seat is in the lists while its worker sleeps
//! or is about to, and is taken out by exactly one party: by a claimer, who has put an assigned
//! processor into it under the lock, or by its own worker. `searching` counts workers that hold a
//! processor and look for work, claims on the way to their worker included.

use std::sync::Arc;

use super::processor::WorkerId;
use crate::base::park::Parker;
use crate::base::primitive::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::base::rank::{Rank, RankedMutex};

/// A worker as others see it.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) id: WorkerId,
    pub(crate) parker: Parker,
    /// The processor it was given, plus one; 0 for none. Written by a claimer under the lists' lock
    /// when it takes the seat out; taken by the owner once the seat is out.
    assigned: AtomicUsize,
    /// Odd while the worker runs user code. Written by the worker alone.
    activity: AtomicU64,
    /// Whether it gave its processor up to block in a task. Written by the worker alone.
    released: AtomicBool,
}

impl Seat {
    pub(crate) fn new(id: WorkerId) -> Seat {
        Seat {
            id,
            parker: Parker::new(),
            assigned: AtomicUsize::new(0),
            activity: AtomicU64::new(0),
            released: AtomicBool::new(false),
        }
    }

    pub(crate) fn assign(&self, processor: usize) {
        // ordering: Release, pairs with `take_assigned`.
        self.assigned.store(processor + 1, Ordering::Release);
    }

    pub(crate) fn take_assigned(&self) -> Option<usize> {
        // ordering: Acquire, pairs with `assign`; a load first spares the write on the common path.
        if self.assigned.load(Ordering::Acquire) == 0 {
            return None;
        }
        // ordering: Acquire, pairs with `assign`; the owner alone takes.
        self.assigned.swap(0, Ordering::Acquire).checked_sub(1)
    }

    /// The processor that waits to be taken.
    pub(crate) fn assigned(&self) -> Option<usize> {
        // ordering: Acquire, as in `take_assigned`.
        self.assigned.load(Ordering::Acquire).checked_sub(1)
    }

    pub(crate) fn set_released(&self, released: bool) {
        // ordering: Relaxed, see `is_released`.
        self.released.store(released, Ordering::Relaxed);
    }

    pub(crate) fn is_released(&self) -> bool {
        // ordering: Relaxed: only counted, to bound the number of threads. A worker that blocks gives its
        // processor up after this, under a lock, and whoever then wants a thread has taken that lock.
        self.released.load(Ordering::Relaxed)
    }

    /// Marks that user code begins or ends on this worker.
    pub(crate) fn toggle_activity(&self) {
        // ordering: Relaxed load and store: one writer, and readers only compare readings.
        let activity = self.activity.load(Ordering::Relaxed);
        // ordering: Relaxed, as above.
        self.activity.store(activity + 1, Ordering::Relaxed);
    }

    /// Odd while the worker runs user code; the same odd value twice is the same piece of it.
    pub(crate) fn activity(&self) -> u64 {
        // ordering: Relaxed, only compared.
        self.activity.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
pub(crate) struct Idle {
    /// Written by read-modify-write: up by a claimer or by a worker that begins to search, down by the
    /// worker that ends its search.
    searching: AtomicUsize,
    /// Length of `processors`. Written under the lists' lock.
    processors: AtomicUsize,
    total: usize,
    lists: RankedMutex<Lists>,
}

#[derive(Debug)]
struct Lists {
    processors: Vec<usize>,
    parked: Vec<Arc<Seat>>,
    /// The worker that sits in the poller, or is about to.
    sitter: Option<Arc<Seat>>,
}

/// The lists as they are now, for reports.
#[allow(dead_code)] // Read by the derived `Debug` alone, which the compiler does not count as a use.
#[derive(Debug)]
pub(crate) struct IdleState {
    searching: usize,
    idle_processors: Vec<usize>,
    parked_workers: Vec<u64>,
    worker_in_poller: Option<u64>,
}

/// A worker that was given a processor and must be woken.
#[must_use = "the worker sleeps until it is woken"]
#[derive(Debug)]
pub(crate) enum Claimed {
    /// It is parked: unpark it.
    Parked(Arc<Seat>),
    /// It sits in the poller: interrupt that.
    InPoller,
}

/// What a claim gave.
#[derive(Debug)]
pub(crate) enum Claim {
    /// Somebody searches already, or no processor is idle: nothing is owed.
    Nothing,
    /// A worker has been given a processor.
    Worker(Claimed),
    /// This processor is idle and no worker sleeps: start one with it, or [`Idle::offer`] it back.
    /// It counts as searching.
    Processor(usize),
}

impl Idle {
    pub(crate) fn new(total: usize) -> Idle {
        let lists = Lists { processors: (0..total).rev().collect(), parked: Vec::new(), sitter: None };
        Idle {
            searching: AtomicUsize::new(0),
            processors: AtomicUsize::new(total),
            total,
            lists: RankedMutex::new(Rank::Idle, lists),
        }
    }

    pub(crate) fn processors(&self) -> usize {
        // ordering: Relaxed, decided by the `full_barrier` before it (README, N2).
        self.processors.load(Ordering::Relaxed)
    }

    pub(crate) fn all_idle(&self) -> bool {
        self.processors() == self.total
    }

    /// Whether work that was published is nobody's duty yet. The caller has issued a full barrier
    /// since it published (README, N1 and N2).
    pub(crate) fn wants_worker(&self) -> bool {
        // ordering: Relaxed, decided by the `full_barrier` before it (README, N1).
        self.searching.load(Ordering::Relaxed) == 0 && self.processors() > 0
    }

    fn publish(&self, lists: &Lists) {
        // ordering: Relaxed, decided by the `full_barrier` after it (README, S2).
        self.processors.store(lists.processors.len(), Ordering::Relaxed);
    }

    /// Pairs an idle processor with a sleeping worker (README, N3 and N4).
    pub(crate) fn claim(&self) -> Claim {
        // ordering: AcqRel, pairs with `end_search`.
        if self.searching.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return Claim::Nothing;
        }
        let mut lists = self.lists.lock();
        let Some(processor) = lists.processors.pop() else {
            drop(lists);
            self.end_search();
            return Claim::Nothing;
        };
        self.publish(&lists);
        match lists.give(processor) {
            Some(claimed) => Claim::Worker(claimed),
            None => Claim::Processor(processor),
        }
    }

    /// Puts a claimed processor back, unless a worker has come for it meanwhile.
    pub(crate) fn offer(&self, processor: usize) -> Option<Claimed> {
        let mut lists = self.lists.lock();
        if let Some(claimed) = lists.give(processor) {
            return Some(claimed);
        }
        lists.processors.push(processor);
        self.publish(&lists);
        drop(lists);
        self.end_search();
        None
    }

    /// Puts a processor into the list of idle ones; its worker goes on without it.
    pub(crate) fn release(&self, processor: usize) {
        let mut lists = self.lists.lock();
        lists.processors.push(processor);
        self.publish(&lists);
    }

    /// A worker goes to sleep: its processor, if it has one, becomes idle, and its seat takes its
    /// place (README, S2).
    pub(crate) fn enter(&self, processor: Option<usize>, seat: &Arc<Seat>, in_poller: bool) {
        let mut lists = self.lists.lock();
        lists.processors.extend(processor);
        self.publish(&lists);
        if in_poller {
            debug_assert!(lists.sitter.is_none(), "two workers sit in the poller");
            lists.sitter = Some(Arc::clone(seat));
        } else {
            lists.parked.push(Arc::clone(seat));
        }
    }

    /// A worker wakes by itself, or has found work after all: it takes an idle processor and its seat
    /// out of the lists. If there is no processor, `keep` says whether the seat stays.
    pub(crate) fn leave(&self, seat: &Arc<Seat>, keep: bool) -> Left {
        let mut lists = self.lists.lock();
        if !lists.contains(seat) {
            return Left::Assigned;
        }
        let processor = lists.processors.pop();
        if processor.is_some() || !keep {
            lists.remove(seat);
        }
        self.publish(&lists);
        match processor {
            Some(processor) => Left::With(processor),
            None => Left::Without,
        }
    }

    pub(crate) fn begin_search(&self) {
        // ordering: AcqRel, pairs with `claim` and `wants_worker`.
        self.searching.fetch_add(1, Ordering::AcqRel);
    }

    /// True if nobody searches any more.
    pub(crate) fn end_search(&self) -> bool {
        // ordering: AcqRel, pairs with `claim` and `wants_worker`.
        let before = self.searching.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0);
        before == 1
    }

    pub(crate) fn searching(&self) -> usize {
        // ordering: Relaxed, a hint that limits how many search.
        self.searching.load(Ordering::Relaxed)
    }

    pub(crate) fn state(&self) -> IdleState {
        let lists = self.lists.lock();
        IdleState {
            searching: self.searching(),
            idle_processors: lists.processors.clone(),
            parked_workers: lists.parked.iter().map(|seat| seat.id.0).collect(),
            worker_in_poller: lists.sitter.as_ref().map(|seat| seat.id.0),
        }
    }

    /// Every seat that sleeps, taken out without a processor; for shutdown.
    pub(crate) fn drain_seats(&self) -> Vec<Arc<Seat>> {
        let mut lists = self.lists.lock();
        let sitter = lists.sitter.take();
        lists.parked.drain(..).chain(sitter).collect()
    }
}

/// How a worker left the lists.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// With this processor.
    With(usize),
    /// With none.
    Without,
    /// Somebody else has taken the seat out: to assign a processor, or for shutdown.
    Assigned,
}

impl Lists {
    /// Assigns a processor to a sleeping worker. One that is parked is cheaper to wake than the one in
    /// the poller, and leaves the poller attended.
    fn give(&mut self, processor: usize) -> Option<Claimed> {
        if let Some(seat) = self.parked.pop() {
            seat.assign(processor);
            return Some(Claimed::Parked(seat));
        }
        let seat = self.sitter.take()?;
        seat.assign(processor);
        Some(Claimed::InPoller)
    }

    fn contains(&self, seat: &Arc<Seat>) -> bool {
        self.sitter.iter().chain(&self.parked).any(|other| Arc::ptr_eq(other, seat))
    }

    fn remove(&mut self, seat: &Arc<Seat>) {
        if self.sitter.as_ref().is_some_and(|sitter| Arc::ptr_eq(sitter, seat)) {
            self.sitter = None;
        } else {
            self.parked.retain(|other| !Arc::ptr_eq(other, seat));
        }
    }
}
