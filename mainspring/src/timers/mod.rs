//! The timers of one processor: what wakes whom, and when.
//!
//! A plain structure for whoever has `&mut`: no lock, no clock, no thread; what time it is comes in as
//! an argument. Knows nothing of tasks, descriptors or timer functions: a timer wakes a `Waker`. Wakers
//! only pass through: none is called, cloned or dropped in here, so the caller can do that with no lock
//! held.
//!
//! ```text
//!              Key (index, generation)
//!                         │
//!   entries   │ at, sequence, waker │ ...        the slab: the true time
//!                         ▲
//!   heap      │ filed at, index │ ...            the four-ary heap: the order of looking at them
//! ```
//!
//! An entry is *filed* in the heap under a time, and has its *true* time. Moving a timer later is the
//! commonest operation of all (a deadline pushed back on each read), so that only stores the new true
//! time; when the filed time comes, the entry is re-filed instead of taken. Moving it before its filed
//! time re-files it at once.
//!
//! Invariants:
//!
//! * Every entry is filed, once, and never under a later time than its true one. So the first node's
//!   time is no later than any timer's ([`Timers::next`] may be too early, never too late), and a first
//!   node that is filed under its entry's true time and arming is the first timer of all.
//! * An entry is taken only at its true time or later; never early, also not by a nanosecond.
//! * What is taken comes in the order of time, and of arming at the same instant, across batches too.
//!   A reset counts as arming anew.
//! * [`Tick::NEVER`] is no time that comes. Entries with it are filed like others, behind all of them.
//!
//! Cost: everything is logarithmic in the number of entries, with base 4, except moving later, which
//! touches the entry alone. Memory is 68 bytes an entry, besides the room that growing arrays have left,
//! and no timer is allocated on its own.

mod heap;
#[cfg(all(test, not(mainspring_loom)))]
mod tests;

use std::task::Waker;

pub(crate) use crate::base::slab::Key;

use crate::base::clock::Tick;
use crate::base::slab::Slab;

use heap::{Heap, Order};

/// A timer among those of all stores, for the layers above: which store, and which entry in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Id {
    /// The store's index, which is its processor's.
    pub(crate) store: u32,
    pub(crate) key: Key,
}

/// Whether somebody who sleeps until [`Timers::next`] would oversleep after an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "whoever sleeps until a later time must be woken"]
pub(crate) enum Earliest {
    /// What `next` said before is still early enough.
    Unchanged,
    /// `next` has become earlier; this is what it says now.
    Moved(Tick),
}

/// A timer that was taken out because its time had come. The caller wakes it, with no lock held.
#[derive(Debug)]
pub(crate) struct Due {
    /// The time it was set to, for the lateness.
    pub(crate) at: Tick,
    pub(crate) waker: Waker,
}

#[derive(Debug)]
struct Entry {
    /// The true time, and the number of the arming that set it.
    order: Order,
    waker: Waker,
}

#[derive(Debug)]
pub(crate) struct Timers {
    entries: Slab<Entry>,
    heap: Heap,
    /// The number of the next arming.
    sequence: u64,
}

impl Timers {
    pub(crate) const fn new() -> Timers {
        Timers { entries: Slab::new(), heap: Heap::new(), sequence: 0 }
    }

    /// How many timers are pending, those that never fire included.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// A time no later than that of any timer; `NEVER` if all of them are filed under it, or there are
    /// none. It is too early while the first entry is one that was moved later, see
    /// [`settle`](Timers::settle).
    pub(crate) fn next(&self) -> Tick {
        self.heap.first().map_or(Tick::NEVER, |first| first.at)
    }

    /// The true time of a timer, `None` if it was taken or removed.
    #[cfg(test)]
    pub(crate) fn deadline(&self, key: Key) -> Option<Tick> {
        self.entries.get(key).map(|entry| entry.order.at)
    }

    /// Whom a timer wakes; `None` if it was taken or removed.
    #[cfg(test)]
    pub(crate) fn waker(&self, key: Key) -> Option<&Waker> {
        self.entries.get(key).map(|entry| &entry.waker)
    }

    /// Arms a timer. A time that is over is due at once.
    pub(crate) fn insert(&mut self, at: Tick, waker: Waker) -> (Key, Earliest) {
        let before = self.next();
        let order = self.arm(at);
        let key = self.entries.insert(Entry { order, waker });
        self.heap.insert(key.index, order);
        (key, earliest(before, at))
    }

    /// Arms a timer anew, for another time. `None` if it was taken or removed: it stays so.
    #[must_use = "whoever sleeps until a later time must be woken"]
    pub(crate) fn reset(&mut self, key: Key, at: Tick) -> Option<Earliest> {
        let order = self.arm(at);
        let entry = self.entries.get_mut(key)?;
        let later = at >= entry.order.at;
        entry.order = order;
        // It is filed no later than its former time. So one that moves later is filed early enough,
        // whatever it is filed under: the heap is not even looked at.
        if later || at >= self.heap.at(key.index) {
            return Some(Earliest::Unchanged);
        }
        let before = self.next();
        self.heap.refile(key.index, order);
        Some(earliest(before, at))
    }

    /// Takes a timer out: it does not fire. `None` if it was taken or removed before.
    #[must_use = "a waker is dropped with no lock held"]
    pub(crate) fn remove(&mut self, key: Key) -> Option<Waker> {
        let entry = self.entries.remove(key)?;
        self.heap.remove(key.index);
        Some(entry.waker)
    }

    /// Has a timer wake somebody else from now on, and returns the former waker.
    ///
    /// # Errors
    ///
    /// `waker` comes back if the timer was taken or removed.
    #[must_use = "a waker is dropped with no lock held"]
    pub(crate) fn replace_waker(&mut self, key: Key, waker: Waker) -> Result<Waker, Waker> {
        match self.entries.get_mut(key) {
            Some(entry) => Ok(std::mem::replace(&mut entry.waker, waker)),
            None => Err(waker),
        }
    }

    /// Takes out timers that are due at `now`, and appends them to `due`: first the earliest, of the
    /// same instant the one that was armed first.
    ///
    /// Looks at no more than `limit` entries, those included that it finds moved later and re-files.
    /// True if some that are filed at `now` or before are left: call again, even if nothing was taken.
    pub(crate) fn take_due(&mut self, now: Tick, limit: usize, due: &mut Vec<Due>) -> bool {
        for _ in 0..limit {
            let Some(first) = self.heap.first().filter(|first| is_over(first.at, now)) else {
                return false;
            };
            if self.refile_if_moved(first.index) {
                continue;
            }
            self.heap.remove(first.index);
            let entry = self.entries.remove_at(first.index);
            due.push(Due { at: entry.order.at, waker: entry.waker });
        }
        is_over(self.next(), now)
    }

    /// Makes [`next`](Timers::next) exact: re-files the first entry while it is one that was moved
    /// later. For whoever is about to sleep, as re-filing is cheaper than waking up for nothing.
    ///
    /// Looks at no more than `limit` entries; true if `next` is known to be exact now.
    pub(crate) fn settle(&mut self, limit: usize) -> bool {
        for _ in 0..limit {
            match self.heap.first() {
                Some(first) if self.refile_if_moved(first.index) => {}
                _ => return true,
            }
        }
        false
    }

    /// Takes every timer out, in no order; all keys are stale then. For the end: a store that is dropped
    /// drops the wakers that are left, wherever that happens to be.
    #[must_use = "wakers are dropped with no lock held"]
    pub(crate) fn take_all(&mut self) -> Vec<Waker> {
        let entries = &mut self.entries;
        self.heap.drain().map(|index| entries.remove_at(index).waker).collect()
    }

    /// What a timer that is armed now for `at` is ordered by.
    fn arm(&mut self, at: Tick) -> Order {
        let sequence = self.sequence;
        self.sequence += 1;
        Order { at, sequence }
    }

    /// Files the entry at `index` under its true time if that is not what it is filed under; true if it
    /// was not. The number of the arming alone tells, as each reset has a new one.
    fn refile_if_moved(&mut self, index: u32) -> bool {
        let order = self.entries.at_mut(index).order;
        if order.sequence == self.heap.sequence(index) {
            return false;
        }
        self.heap.refile(index, order);
        true
    }
}

/// Whether `at` has come: never does, whatever the time.
fn is_over(at: Tick, now: Tick) -> bool {
    at <= now && at != Tick::NEVER
}

/// What filing something under `at` did to the earliest time, which was `before`.
fn earliest(before: Tick, at: Tick) -> Earliest {
    if at < before { Earliest::Moved(at) } else { Earliest::Unchanged }
}

#[cfg(test)]
impl Timers {
    /// # Panics
    ///
    /// If an invariant does not hold.
    fn verify(&mut self) {
        self.heap.verify();
        assert_eq!(self.heap.orders().len(), self.entries.len());
        for (index, filed) in self.heap.orders() {
            let order = self.entries.at_mut(index).order;
            assert!(filed <= order, "{index} is filed under {filed:?}, later than {order:?}");
            assert!(order.sequence < self.sequence);
        }
    }
}
