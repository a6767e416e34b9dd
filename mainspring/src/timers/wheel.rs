//! A hierarchical timing wheel (Varghese and Lauck, 1987) that files what is far away, roughly and at a
//! constant cost, until it is near.
//!
//! Knows nothing of exact order and never says that something is due: it hands entries out some time
//! before that, and the store puts them into its heap.
//!
//! ```text
//! level 0   slots of 2^18 ns (0.26 ms)       ├┼┼┼┼┼┼┼┼┼┼┼┼┼┼┼┤ 512 slots: 134 ms from the position on
//! level 1   slots of 2^26 ns (67 ms)         ├───────┼───────┼───────┼─ ...                         34 s
//! level 2   slots of 2^34 ns (17 s)          ├─────────────────────────── ...                    2 hours
//! level 3   2^42 ns (73 min): 26 days    level 4   2^50 ns (13 days): 18 years    level 5   all of time
//! ```
//!
//! **Position.** Time is counted in slots of level 0, and `position` is the first one that has not been
//! handed out. A level covers the 512 of its slots that begin with the one that the position is in, as a
//! ring. An entry is filed at the lowest level that covers it, in a doubly linked list through the entries.
//!
//! **Handing out** ([`Wheel::draw`]). The position goes from one occupied slot to the next, the one that
//! begins first. Such a slot is *open*: its entries are taken out one by one. Those of level 0 are near
//! then. Those of a higher level are filed anew, and as the position is where their slot begins, a lower
//! level covers them.
//!
//! **Ahead of time** ([`Wheel::draw_ahead`]). A slot of a higher level can hold millions of entries, and to
//! file them all anew at the moment at which the first of them is due would make that one late. So a level
//! covers twice what a slot of the level above it is wide, and that slot can be emptied, bit by bit, from a
//! whole width before the position comes to it.
//!
//! Invariants: each entry that is filed here lies in its home's list, and its filed time is in the slot, which
//! is covered. A filed time is not after the true one. A bit of `occupied` says that a list is not
//! empty. `earliest` of a slot, and of the wheel, is not after any true time in it, nor is `begins` after the
//! start of an occupied slot; both may be too early, since removing an entry leaves them.

use crate::base::clock::Tick;

use super::entry::{Entries, Home, Link, NOBODY};

const LEVELS: usize = 6;
/// How much wider a slot is than one of the level below, as a power of two.
const RATIO_BITS: u32 = 8;
/// Twice the ratio, see "Ahead of time".
const SLOTS: usize = 2 << RATIO_BITS;
/// The width of a slot of level 0 in nanoseconds, as a power of two: so little that the heap stays small
/// (260 entries a million timers a second), so much that a sleep of a second is filed anew only once.
const SLOT_BITS: u32 = 18;

/// How many slots of level 0 the position may be behind. Picked by feel: 17 ms.
const FOLLOW: u64 = 64;

const WORDS: usize = SLOTS / 64;

/// The slot of level 0 that a time is in.
pub(super) fn slot_of(at: Tick) -> u64 {
    at.as_nanos() >> SLOT_BITS
}

#[derive(Debug)]
pub(super) struct Wheel {
    /// The slots of level 0 before this one have been handed out.
    position: u64,
    /// The list of each slot, or nothing as long as the wheel was never used.
    slots: Vec<Slot>,
    occupied: [[u64; WORDS]; LEVELS],
    /// The slot that is being emptied because the position has come to it, and where the position goes
    /// when that is done.
    open: Option<(Home, u64)>,
    /// The slot that is being emptied ahead of time.
    ahead: Option<Home>,
    /// The position, roughly, at which no slot could be emptied ahead of time.
    nothing_ahead: u64,
    /// The slot of level 0 with which the first occupied slot begins, at the earliest.
    begins: u64,
    /// The earliest time of all, at the earliest.
    earliest: Tick,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    first: u32,
    /// Meaningless while the list is empty.
    earliest: Tick,
}

impl Home {
    fn in_wheel(level: usize, slot: u64) -> Home {
        // No truncation: there are 3,072 slots.
        Home((level * SLOTS) as u16 | (slot % SLOTS as u64) as u16)
    }

    fn level(self) -> usize {
        usize::from(self.0) / SLOTS
    }

    fn slot(self) -> usize {
        usize::from(self.0) % SLOTS
    }
}

impl Wheel {
    pub(super) const fn new() -> Wheel {
        Wheel {
            position: 0,
            slots: Vec::new(),
            occupied: [[0; WORDS]; LEVELS],
            open: None,
            ahead: None,
            nothing_ahead: u64::MAX,
            begins: u64::MAX,
            earliest: Tick::NEVER,
        }
    }

    /// Whether what is due at `at` has been handed out: it is no longer filed here.
    pub(super) fn has_passed(&self, at: Tick) -> bool {
        slot_of(at) < self.position
    }

    /// A time not after that of any entry, `NEVER` if there is none.
    pub(super) fn earliest(&self) -> Tick {
        self.earliest
    }

    /// Takes the position along to `target` if it is far behind and nothing lies in between. Where nothing was
    /// due for long it would otherwise file what is near among what is far.
    pub(super) fn follow(&mut self, target: u64) {
        if target.saturating_sub(self.position) < FOLLOW {
            return;
        }
        if self.begins <= target {
            self.look();
        }
        if self.begins > target {
            self.position = target + 1;
            // A slot that is open still is empty, or it would begin before. Its place on the ring may be another
            // slot's from now on.
            self.open = None;
        }
    }

    /// Files an entry that is not filed, under a time that has not passed.
    pub(super) fn insert(&mut self, entries: &mut Entries, index: u32, at: Tick) {
        debug_assert!(!self.has_passed(at));
        if self.slots.is_empty() {
            self.slots.resize(LEVELS * SLOTS, Slot { first: NOBODY, earliest: Tick::NEVER });
        }
        let (home, start) = self.place(at);
        let slot = &mut self.slots[usize::from(home.0)];
        let after = slot.first;
        slot.earliest = if after == NOBODY { at } else { slot.earliest.min(at) };
        slot.first = index;
        entries.at_mut(index).link = Link { home, before: NOBODY, after };
        if after == NOBODY {
            self.occupied[home.level()][home.slot() / 64] |= 1 << (home.slot() % 64);
        } else {
            entries.at_mut(after).link.before = index;
        }
        self.begins = self.begins.min(start);
        self.earliest = self.earliest.min(at);
    }

    /// Notes that an entry is due at `at`, before it was; false if that is before what its home has.
    #[must_use]
    pub(super) fn move_earlier(&mut self, home: Home, at: Tick) -> bool {
        if slot_of(at) < self.start(home) {
            return false;
        }
        let slot = &mut self.slots[usize::from(home.0)];
        slot.earliest = slot.earliest.min(at);
        self.earliest = self.earliest.min(at);
        true
    }

    /// Takes an entry out of its list.
    pub(super) fn remove(&mut self, entries: &mut Entries, link: Link) {
        let Link { home, before, after } = link;
        if after != NOBODY {
            entries.at_mut(after).link.before = before;
        }
        if before != NOBODY {
            entries.at_mut(before).link.after = after;
            return;
        }
        self.slots[usize::from(home.0)].first = after;
        if after == NOBODY {
            self.occupied[home.level()][home.slot() / 64] &= !(1 << (home.slot() % 64));
        }
    }

    /// Takes out an entry that has to be filed anew before anything in the slots up to `target` may
    /// count as sorted. `None`, if there is none: then what lies in these slots has passed.
    pub(super) fn draw(&mut self, entries: &mut Entries, target: u64) -> Option<u32> {
        loop {
            if let Some((home, then)) = self.open {
                if let Some(index) = self.pop(entries, home) {
                    return Some(index);
                }
                self.position = self.position.max(then);
                self.open = None;
                self.look();
            }
            if self.position > target {
                return None;
            }
            let first = (self.begins <= target).then(|| self.look()).flatten();
            match first.filter(|&first| self.start(first) <= target) {
                Some(first) => {
                    let start = self.start(first);
                    self.position = self.position.max(start);
                    self.open = Some((first, start + u64::from(first.level() == 0)));
                }
                None => {
                    self.position = target + 1;
                    return None;
                }
            }
        }
    }

    /// Takes out an entry that a lower level covers by now, if there is one.
    pub(super) fn draw_ahead(&mut self, entries: &mut Entries) -> Option<u32> {
        loop {
            let ahead = self.ahead.filter(|&home| self.is_covered_below(home));
            if let Some(index) = ahead.and_then(|home| self.pop(entries, home)) {
                return Some(index);
            }
            // A sixteenth of a slot of level 1 later it is early enough to look again.
            let position = self.position >> (RATIO_BITS - 4);
            if self.ahead.take().is_none() && self.nothing_ahead == position {
                return None;
            }
            let mut firsts = (1..LEVELS).filter_map(|level| self.first_of(level));
            self.ahead = firsts.find(|&first| self.is_covered_below(first));
            if self.ahead.is_none() {
                self.nothing_ahead = position;
                return None;
            }
        }
    }

    /// Whether all of a slot lies in what the level below covers.
    fn is_covered_below(&self, home: Home) -> bool {
        let below = self.position >> (RATIO_BITS * (home.level() as u32 - 1));
        (self.number(home) + 1) << RATIO_BITS <= below + SLOTS as u64
    }

    /// Makes `begins` and `earliest` as good as what the slots know, and returns the slot that begins first.
    pub(super) fn look(&mut self) -> Option<Home> {
        self.begins = u64::MAX;
        self.earliest = Tick::NEVER;
        let mut found = None;
        // Of several that begin together the widest is the first, as it has to be opened first.
        for level in 0..LEVELS {
            let Some(first) = self.first_of(level) else { continue };
            let start = self.start(first);
            if start <= self.begins {
                self.begins = start;
                found = Some(first);
            }
            self.earliest = self.earliest.min(self.earliest_in(first));
        }
        found
    }

    /// The slot that has the earliest time, as far as the slots know.
    pub(super) fn earliest_home(&self) -> Option<Home> {
        let firsts = (0..LEVELS).filter_map(|level| self.first_of(level));
        firsts.min_by_key(|&first| self.earliest_in(first))
    }

    /// A time not after that of any entry of a slot that is occupied.
    pub(super) fn earliest_in(&self, home: Home) -> Tick {
        self.slots[usize::from(home.0)].earliest
    }

    /// The first entry of a slot's list.
    pub(super) fn first_in(&self, home: Home) -> u32 {
        self.slots[usize::from(home.0)].first
    }

    /// Corrects the earliest time of a slot all of whose entries have been looked at.
    pub(super) fn correct(&mut self, home: Home, earliest: Tick) {
        self.slots[usize::from(home.0)].earliest = earliest;
    }

    /// Where something that is due at `at` is filed.
    pub(super) fn home(&self, at: Tick) -> Home {
        self.place(at).0
    }

    /// The slot that something due at `at` is filed in, and the slot of level 0 with which that begins.
    fn place(&self, at: Tick) -> (Home, u64) {
        let slot = slot_of(at);
        let mut shift = 0;
        for level in 0..LEVELS {
            let number = slot >> shift;
            if number - (self.position >> shift) < SLOTS as u64 || level == LEVELS - 1 {
                return (Home::in_wheel(level, number), number << shift);
            }
            shift += RATIO_BITS;
        }
        unreachable!("the last level covers all of time")
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Wheel { position: self.position, ..Wheel::new() };
    }

    fn pop(&mut self, entries: &mut Entries, home: Home) -> Option<u32> {
        let index = self.slots[usize::from(home.0)].first;
        if index == NOBODY {
            return None;
        }
        let link = entries.at_mut(index).link;
        self.remove(entries, link);
        Some(index)
    }

    /// The number of a slot among those of its level, counted from the beginning of time.
    fn number(&self, home: Home) -> u64 {
        let position = self.position >> (RATIO_BITS * home.level() as u32);
        position + (home.slot() as u64).wrapping_sub(position) % SLOTS as u64
    }

    /// The slot of level 0 with which a slot begins.
    fn start(&self, home: Home) -> u64 {
        self.number(home) << (RATIO_BITS * home.level() as u32)
    }

    /// The first occupied slot of a level.
    fn first_of(&self, level: usize) -> Option<Home> {
        let words = &self.occupied[level];
        let position = (self.position >> (RATIO_BITS * level as u32)) as usize % SLOTS;
        let (word, bit) = (position / 64, position % 64);
        let slot = |word: usize, bits: u64| {
            (bits != 0).then(|| Home((level * SLOTS + word * 64) as u16 + bits.trailing_zeros() as u16))
        };
        // From the position round to the position again: its own word comes first and last.
        slot(word, words[word] & (u64::MAX << bit))
            .or_else(|| (1..WORDS).map(|n| (word + n) % WORDS).find_map(|word| slot(word, words[word])))
            .or_else(|| slot(word, words[word] & !(u64::MAX << bit)))
    }
}

#[cfg(all(test, not(mainspring_loom)))]
impl Wheel {
    /// The indices of all entries.
    ///
    /// # Panics
    ///
    /// If an invariant does not hold.
    pub(super) fn verify(&self, entries: &mut Entries) -> Vec<u32> {
        let mut found = Vec::new();
        for (number, slot) in self.slots.iter().enumerate() {
            let home = Home(number as u16);
            let occupied = self.occupied[home.level()][home.slot() / 64] >> (home.slot() % 64) & 1 == 1;
            assert_eq!(occupied, slot.first != NOBODY);
            if !occupied {
                continue;
            }
            assert!(self.begins <= self.start(home) && self.earliest <= slot.earliest);
            let (mut before, mut index) = (NOBODY, slot.first);
            while index != NOBODY {
                let entry = entries.at_mut(index);
                assert_eq!((entry.link.home, entry.link.before), (home, before));
                assert!(slot.earliest <= entry.order.at && slot_of(entry.order.at) >= self.start(home));
                found.push(index);
                (before, index) = (index, entry.link.after);
            }
        }
        found
    }
}
