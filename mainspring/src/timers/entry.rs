//! A pending timer, and where it is filed.
//!
//! The link belongs to whichever structure holds the entry: the heap keeps its place there, a slot of the
//! wheel its neighbours in the list. Knows nothing of either.

use std::task::Waker;

use crate::base::clock::Tick;
use crate::base::slab::Slab;

/// All timers of a store.
pub(super) type Entries = Slab<Entry>;

/// What an entry is ordered by: its place in time, and among those of the same instant its place in
/// the order of arming. No two entries have the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Order {
    pub(super) at: Tick,
    /// Counts armings. At one a nanosecond it lasts for 584 years.
    pub(super) sequence: u64,
}

#[derive(Debug)]
pub(super) struct Entry {
    /// The true time, and the number of the arming that set it.
    pub(super) order: Order,
    pub(super) waker: Waker,
    pub(super) link: Link,
}

/// Where an entry is filed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) home: Home,
    /// In the heap, its place; in a slot, the entry before it, or [`NOBODY`].
    pub(super) before: u32,
    /// In a slot, the entry after it, or [`NOBODY`].
    pub(super) after: u32,
}

/// No entry has this index.
pub(super) const NOBODY: u32 = u32::MAX;

/// The heap, or one slot of the wheel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Home(pub(super) u16);

impl Home {
    pub(super) const HEAP: Home = Home(u16::MAX);
}

impl Link {
    /// Of an entry that is about to be filed.
    pub(super) const NONE: Link = Link { home: Home::HEAP, before: NOBODY, after: NOBODY };
}
