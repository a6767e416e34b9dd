//! Who is idle: processors without a worker, workers without a processor, and how many search.
//!
//! The lists of the idle protocol, whose essay is this folder's README. Knows nothing of what work is
//! or of where it is found.
//!
//! Invariants: a processor in the list has no owner. A seat is in the lists while its worker sleeps
//! or is about to, and is taken out by exactly one party: by a claimer, who has put an assigned
//! processor into it under the lock, or by its own worker. `searching` counts workers that hold a
//! processor and look for work, claims on the way to their worker included. It is never raised for a
//! moment by somebody who then does not search: a notifier would count on them. So whoever raises it
//! for another thread, or has still to see whether a processor is idle, does so under the lists' lock
//! and only once it is sure.

use std::sync::Arc;

use super::seat::{Assigned, Seat};
use crate::base::primitive::atomic::{AtomicUsize, Ordering};
use crate::base::rank::{Rank, RankedMutex};

#[derive(Debug)]
pub(crate) struct Idle {
    /// Written by read-modify-write: up by a claimer or by a worker that begins to search, down by the
    /// worker that ends its search.
    searching: AtomicUsize,
    /// Length of `processors`. Written under the lists' lock.
    processors: AtomicUsize,
    /// Seats in the lists. Written under the lists' lock.
    sleepers: AtomicUsize,
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
            sleepers: AtomicUsize::new(0),
            total,
            lists: RankedMutex::new(Rank::Idle, lists),
        }
    }

    pub(crate) fn processors(&self) -> usize {
        // ordering: Relaxed, decided by the `full_barrier` before it (README, N2).
        self.processors.load(Ordering::Relaxed)
    }

    /// How many threads sleep, in the poller or parked.
    pub(crate) fn sleepers(&self) -> usize {
        // ordering: Relaxed, a hint.
        self.sleepers.load(Ordering::Relaxed)
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
        // ordering: Relaxed, a hint.
        self.sleepers.store(lists.parked.len() + usize::from(lists.sitter.is_some()), Ordering::Relaxed);
    }

    /// Pairs an idle processor with a sleeping worker (README, N3 and N4).
    pub(crate) fn claim(&self) -> Claim {
        let mut lists = self.lists.lock();
        if lists.processors.is_empty() {
            return Claim::Nothing;
        }
        // ordering: AcqRel, pairs with `end_search`.
        if self.searching.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return Claim::Nothing;
        }
        let processor = lists.processors.pop().expect("a list that is not empty");
        self.give(&mut lists, processor)
    }

    /// Pairs a processor that was taken from its worker with a sleeping one, whoever else searches: there is work
    /// in its queue.
    pub(crate) fn hand_over(&self, processor: usize) -> Claim {
        let mut lists = self.lists.lock();
        self.begin_search();
        self.give(&mut lists, processor)
    }

    fn give(&self, lists: &mut Lists, processor: usize) -> Claim {
        let claimed = lists.give(processor);
        self.publish(lists);
        claimed.map_or(Claim::Processor(processor), Claim::Worker)
    }

    /// Takes out a parked thread for jobs of the blocking pool.
    pub(crate) fn claim_for_jobs(&self) -> Option<Arc<Seat>> {
        let mut lists = self.lists.lock();
        let seat = lists.parked.pop()?;
        self.publish(&lists);
        seat.set_in_jobs(true);
        seat.assign(Assigned::Jobs);
        Some(seat)
    }

    /// Puts a claimed processor back, unless a worker has come for it meanwhile. The claim's search
    /// ends under the lock, so that every worker that comes later looks after it (README, step 4).
    pub(crate) fn offer(&self, processor: usize) -> Option<Claimed> {
        let mut lists = self.lists.lock();
        if let Some(claimed) = lists.give(processor) {
            self.publish(&lists);
            return Some(claimed);
        }
        lists.processors.push(processor);
        self.publish(&lists);
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
        if in_poller {
            debug_assert!(lists.sitter.is_none(), "two workers sit in the poller");
            lists.sitter = Some(Arc::clone(seat));
        } else {
            lists.parked.push(Arc::clone(seat));
        }
        self.publish(&lists);
    }

    /// Moves a worker that was about to park into the poller's place; false if somebody else has
    /// taken its seat out meanwhile.
    pub(crate) fn move_to_poller(&self, seat: &Arc<Seat>) -> bool {
        let mut lists = self.lists.lock();
        if !lists.contains(seat) {
            return false;
        }
        debug_assert!(lists.sitter.is_none(), "two workers sit in the poller");
        lists.remove(seat);
        lists.sitter = Some(Arc::clone(seat));
        true
    }

    /// A worker wakes by itself, or has found work after all: it takes an idle processor, and its
    /// seat out of the lists.
    pub(crate) fn leave(&self, seat: &Arc<Seat>, how: Leave) -> Left {
        let mut lists = self.lists.lock();
        if !lists.contains(seat) {
            return Left::Assigned;
        }
        if lists.processors.is_empty() {
            if how != Leave::IfUseful {
                lists.remove(seat);
                self.publish(&lists);
            }
            return Left::Without;
        }
        lists.remove(seat);
        if how != Leave::Awake {
            self.begin_search();
        }
        let processor = lists.processors.pop().expect("a list that is not empty");
        self.publish(&lists);
        Left::With(processor)
    }

    /// A worker takes its seat out of the lists, to end or to do something else than to hold a processor; false if
    /// somebody else has taken it out.
    pub(crate) fn withdraw(&self, seat: &Arc<Seat>) -> bool {
        let mut lists = self.lists.lock();
        let there = lists.contains(seat);
        lists.remove(seat);
        self.publish(&lists);
        there
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
        let seats = lists.parked.drain(..).chain(sitter).collect();
        self.publish(&lists);
        seats
    }
}

/// Why a worker leaves the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// It woke. It leaves in any case.
    Awake,
    /// There is something to look for. It leaves in any case, and if it gets a processor, it counts
    /// as searching.
    Searching,
    /// There is work, which takes a processor. If none is idle, it stays in the lists.
    IfUseful,
}

/// How a worker left the lists.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// With this processor.
    With(usize),
    /// No processor is idle.
    Without,
    /// Somebody else has taken the seat out: to assign a processor, or for shutdown.
    Assigned,
}

impl Lists {
    /// Assigns a processor to a sleeping worker. One that is parked is cheaper to wake than the one in
    /// the poller, and leaves the poller attended.
    fn give(&mut self, processor: usize) -> Option<Claimed> {
        if let Some(seat) = self.parked.pop() {
            seat.assign(Assigned::Processor(processor));
            return Some(Claimed::Parked(seat));
        }
        let seat = self.sitter.take()?;
        seat.assign(Assigned::Processor(processor));
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
