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
//!   entries   │ at, sequence, waker, where it is filed │ ...     the slab: the true time
//!                         ▲                      ▲
//!   heap      │ filed at, sequence, index │ ...  │      what is due within half a millisecond, in order
//!   wheel     │ slot │ slot │ slot │ ... ────────┘      everything else, roughly
//! ```
//!
//! An entry is *filed* under a time, in the [`heap`] or in the [`wheel`], and has its *true* time. Moving a
//! timer later is the commonest operation of all (a deadline pushed back on each read), so that only
//! stores the new true time; when the filed time comes, the entry is filed anew instead of taken. Moving it
//! before its filed time files it anew at once.
//!
//! The wheel files at a constant cost whatever there is, but only roughly. The heap is exact, and cheap
//! while it is small. So an entry is in the wheel until half a millisecond before its time, and most are
//! removed before that. (Measured against one heap for all in ARCHITECTURE.md.)
//!
//! Invariants:
//!
//! * Every entry is filed, once, and never under a later time than its true one. So [`Timers::next`] may
//!   be too early, but is never too late.
//! * What has passed the wheel is in the heap. So the heap's first node, if its time has passed the wheel
//!   and it is filed under its entry's true time and arming, is the first timer of all.
//! * An entry is taken only at its true time or later; never early, also not by a nanosecond.
//! * What is taken comes in the order of time, and of arming at the same instant, across batches too.
//!   A reset counts as arming anew.
//! * [`Tick::NEVER`] is no time that comes. Entries with it are filed like others, behind all of them.
//!
//! Memory is 56 bytes an entry, and 24 more while it is in the heap, besides the room that growing arrays
//! have left; no timer is allocated on its own.

mod entry;
mod heap;
#[cfg(all(test, not(mainspring_loom)))]
mod tests;
mod wheel;

use std::num::NonZeroU32;
use std::task::Waker;

pub(crate) use crate::base::slab::Key;

use crate::base::clock::Tick;

use entry::{Entries, Entry, Home, Link, NOBODY, Order};
use heap::Heap;
use wheel::{Wheel, slot_of};

/// A timer among those of all stores, for the layers above: which store, and which entry in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Id {
    /// The store's index and one, so that an `Option` of this is no bigger.
    store: NonZeroU32,
    pub(crate) key: Key,
}

impl Id {
    /// # Panics
    ///
    /// If there are more than 4 billion stores.
    pub(crate) fn new(store: usize, key: Key) -> Id {
        let store = u32::try_from(store + 1).ok().and_then(NonZeroU32::new);
        Id { store: store.expect("there are as many stores as processors"), key }
    }

    /// The index of the store, which is its processor's.
    pub(crate) fn store(self) -> usize {
        self.store.get() as usize - 1
    }
}

/// Whether somebody who sleeps until [`Timers::next`] would oversleep after an operation.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[must_use = "whoever sleeps until a later time must be woken"]
pub(crate) enum Earliest {
    /// What `next` said before is still early enough.
    #[default]
    Unchanged,
    /// `next` has become earlier; this is what it says now.
    Moved(Tick),
}

impl Earliest {
    /// What came of two operations.
    pub(crate) fn or(self, other: Earliest) -> Earliest {
        match (self, other) {
            (Earliest::Moved(one), Earliest::Moved(other)) => Earliest::Moved(one.min(other)),
            (Earliest::Unchanged, moved) | (moved, Earliest::Unchanged) => moved,
        }
    }
}

/// A timer that was taken out because its time had come. The caller wakes it, with no lock held.
#[derive(Debug)]
pub(crate) struct Due {
    /// The time it was set to, for the lateness.
    pub(crate) at: Tick,
    pub(crate) waker: Waker,
}

#[derive(Debug)]
pub(crate) struct Timers {
    entries: Entries,
    heap: Heap,
    wheel: Wheel,
    /// The number of the next arming.
    sequence: u64,
}

impl Timers {
    pub(crate) const fn new() -> Timers {
        Timers { entries: Entries::new(), heap: Heap::new(), wheel: Wheel::new(), sequence: 0 }
    }

    /// How many timers are pending, those that never fire included.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// A time no later than that of any timer. It is too early while the first entry is one that was
    /// moved later, or the one that had it was removed, see [`settle`](Timers::settle).
    pub(crate) fn next(&self) -> Tick {
        self.heap.first().map_or(self.wheel.earliest(), |first| first.order.at.min(self.wheel.earliest()))
    }

    /// Whether a timer is pending: it was neither taken nor removed.
    pub(crate) fn contains(&self, key: Key) -> bool {
        self.entries.get(key).is_some()
    }

    /// The true time of a timer, `None` if it was taken or removed.
    #[cfg(all(test, not(mainspring_loom)))]
    pub(crate) fn deadline(&self, key: Key) -> Option<Tick> {
        self.entries.get(key).map(|entry| entry.order.at)
    }

    /// Whom a timer wakes; `None` if it was taken or removed.
    #[cfg(all(test, not(mainspring_loom)))]
    pub(crate) fn waker(&self, key: Key) -> Option<&Waker> {
        self.entries.get(key).map(|entry| &entry.waker)
    }

    /// Arms a timer. A time that is over is due at once. `now` is the time, roughly.
    pub(crate) fn insert(&mut self, now: Tick, at: Tick, waker: Waker) -> (Key, Earliest) {
        let before = self.next();
        self.wheel.follow(slot_of(now));
        let order = self.arm(at);
        let key = self.entries.insert(Entry { order, waker, link: Link::NONE });
        self.file(key.index(), order);
        (key, earliest(before, at))
    }

    /// Arms a timer anew, for another time. `None` if it was taken or removed: it stays so.
    #[must_use = "whoever sleeps until a later time must be woken"]
    pub(crate) fn reset(&mut self, key: Key, at: Tick) -> Option<Earliest> {
        let order = self.arm(at);
        let entry = self.entries.get_mut(key)?;
        let link = entry.link;
        // It is filed no later than its former time. So one that moves later is filed early enough.
        let later = at >= entry.order.at;
        entry.order = order;
        if later {
            return Some(Earliest::Unchanged);
        }
        let before = self.next();
        if link.home == Home::HEAP {
            if at < self.heap.order(link.before).at {
                self.heap.refile(&mut self.entries, link.before, order);
            }
        } else if !self.wheel.move_earlier(link.home, at) {
            self.wheel.remove(&mut self.entries, link);
            self.file(key.index(), order);
        }
        Some(earliest(before, at))
    }

    /// Takes a timer out: it does not fire. `None` if it was taken or removed before.
    #[must_use = "a waker is dropped with no lock held"]
    pub(crate) fn remove(&mut self, key: Key) -> Option<Waker> {
        let link = self.entries.get(key)?.link;
        self.unfile(link);
        Some(self.entries.remove_at(key.index()).waker)
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
    /// Looks at no more than `limit` entries, those included that it files anew. True if some that
    /// are filed at `now` or before are left: call again, even if nothing was taken.
    pub(crate) fn take_due(&mut self, now: Tick, limit: usize, due: &mut Vec<Due>) -> bool {
        // One slot more, so that the next one is in the heap when it begins.
        let target = slot_of(now) + 1;
        for _ in 0..limit {
            if let Some(index) = self.first_due(now) {
                if !self.file_anew_if_moved(index) {
                    let entry = self.take_first(index);
                    due.push(Due { at: entry.order.at, waker: entry.waker });
                }
            } else if let Some(index) = self.wheel.draw(&mut self.entries, target) {
                self.file_drawn(index, target);
            } else if self.first_due(now).is_none() {
                // Nothing is due. What is left of the limit goes to what will be due.
                let Some(index) = self.wheel.draw_ahead(&mut self.entries) else { return false };
                self.file_drawn(index, target);
            }
        }
        is_over(self.next(), now)
    }

    /// Makes [`next`](Timers::next) exact: files the first entry anew while it is one that was moved
    /// later. For whoever is about to sleep, as filing is cheaper than waking up for nothing.
    ///
    /// Looks at no more than `limit` entries; true if `next` is known to be exact now.
    pub(crate) fn settle(&mut self, limit: usize) -> bool {
        let mut left = limit;
        while left > 0 {
            left -= 1;
            self.wheel.look();
            let first = self.heap.first().filter(|first| first.order.at <= self.wheel.earliest());
            if let Some(first) = first {
                if !self.file_anew_if_moved(first.index) {
                    return true;
                }
                continue;
            }
            let Some(home) = self.wheel.earliest_home() else { return true };
            match self.settle_slot(home, &mut left) {
                Some(earliest) if earliest == self.wheel.earliest() => return true,
                Some(_) => {}
                None => return false,
            }
        }
        false
    }

    /// Takes every timer out, in no order; all keys are stale then. For the end: a store that is dropped
    /// drops the wakers that are left, wherever that happens to be.
    #[must_use = "wakers are dropped with no lock held"]
    pub(crate) fn take_all(&mut self) -> Vec<Waker> {
        self.heap.clear();
        self.wheel.clear();
        self.entries.take_all().map(|entry| entry.waker).collect()
    }

    /// What a timer that is armed now for `at` is ordered by.
    fn arm(&mut self, at: Tick) -> Order {
        let sequence = self.sequence;
        self.sequence += 1;
        Order { at, sequence }
    }

    /// Files an entry that is not filed.
    fn file(&mut self, index: u32, order: Order) {
        if self.wheel.has_passed(order.at) {
            self.heap.insert(&mut self.entries, index, order);
        } else {
            self.wheel.insert(&mut self.entries, index, order.at);
        }
    }

    /// Files an entry that the wheel has handed out. What will be near once the wheel has come to `target`
    /// need not go through it again.
    fn file_drawn(&mut self, index: u32, target: u64) {
        let order = self.entries.at_mut(index).order;
        if slot_of(order.at) <= target {
            self.heap.insert(&mut self.entries, index, order);
        } else {
            self.file(index, order);
        }
    }

    fn unfile(&mut self, link: Link) {
        if link.home == Home::HEAP {
            self.heap.remove(&mut self.entries, link.before);
        } else {
            self.wheel.remove(&mut self.entries, link);
        }
    }

    /// Files an entry of the heap under its true time if that is not what it is filed under; true if it
    /// was not. The number of the arming alone tells, as each reset has a new one.
    fn file_anew_if_moved(&mut self, index: u32) -> bool {
        let Entry { order, link, .. } = *self.entries.at_mut(index);
        if order.sequence == self.heap.order(link.before).sequence {
            return false;
        }
        self.heap.remove(&mut self.entries, link.before);
        self.file(index, order);
        true
    }

    /// The heap's first entry if its filed time is over, unless something in the wheel could be earlier.
    fn first_due(&self, now: Tick) -> Option<u32> {
        let first = self.heap.first()?;
        (is_over(first.order.at, now) && self.wheel.has_passed(first.order.at)).then_some(first.index)
    }

    fn take_first(&mut self, index: u32) -> Entry {
        self.heap.remove(&mut self.entries, 0);
        self.entries.remove_at(index)
    }

    /// Files anew what has been moved out of a slot, corrects its earliest time and returns it. `None` if it has
    /// more entries than are `left` to be looked at.
    fn settle_slot(&mut self, home: Home, left: &mut usize) -> Option<Tick> {
        let mut earliest = Tick::NEVER;
        let mut index = self.wheel.first_in(home);
        while index != NOBODY {
            let Entry { order, link, .. } = *self.entries.at_mut(index);
            *left = left.checked_sub(1)?;
            if self.wheel.home(order.at) == home {
                earliest = earliest.min(order.at);
            } else {
                self.wheel.remove(&mut self.entries, link);
                self.file(index, order);
            }
            index = link.after;
        }
        self.wheel.correct(home, earliest);
        Some(earliest)
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

#[cfg(all(test, not(mainspring_loom)))]
impl Timers {
    /// # Panics
    ///
    /// If an invariant does not hold.
    fn verify(&mut self) {
        self.heap.verify(&mut self.entries);
        let mut filed = self.wheel.verify(&mut self.entries);
        for (index, under) in self.heap.orders() {
            let order = self.entries.at_mut(index).order;
            assert!(under <= order, "{index} is filed under {under:?}, later than {order:?}");
            filed.push(index);
        }
        filed.sort_unstable();
        filed.dedup();
        assert_eq!(filed.len(), self.entries.len(), "an entry is not filed, or twice");
        assert!(self.entries.iter().all(|entry| entry.order.sequence < self.sequence));
    }
}
