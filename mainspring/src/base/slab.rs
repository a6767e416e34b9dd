//! Slots that are used again, with keys that notice it.
//!
//! A [`Key`] is an index and the slot's generation. Removing an entry ends its generation, so a stale
//! key finds nothing instead of the entry that came after. Generations are 32 bits a slot: a key would
//! have to be kept over 4 billion uses of one slot to be taken for another.

/// Where an entry is, and which use of that place is meant: the index in the upper half, the generation in the
/// lower. One word, for the kernel to carry, and because two halves that are written one after the other and
/// read together wait for the cache: some 4 ns each time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key(u64);

impl Key {
    pub(crate) const fn new(index: u32, generation: u32) -> Key {
        Key((index as u64) << 32 | generation as u64)
    }

    pub(crate) const fn index(self) -> u32 {
        (self.0 >> 32) as u32
    }

    const fn generation(self) -> u32 {
        self.0 as u32
    }

    pub(crate) const fn to_u64(self) -> u64 {
        self.0
    }

    pub(crate) const fn from_u64(word: u64) -> Key {
        Key(word)
    }
}

/// Marks the end of the list of vacant slots.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
enum Slot<T> {
    Vacant { next: u32 },
    Occupied(T),
}

#[derive(Debug)]
pub(crate) struct Slab<T> {
    slots: Vec<(u32, Slot<T>)>,
    vacant: u32,
    len: usize,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Slab<T> {
        Slab { slots: Vec::new(), vacant: NONE, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// # Panics
    ///
    /// With more than 2^32 - 1 entries.
    pub(crate) fn insert(&mut self, value: T) -> Key {
        self.len += 1;
        if self.vacant != NONE {
            let index = self.vacant;
            let (generation, slot) = &mut self.slots[index as usize];
            let Slot::Vacant { next } = *slot else { unreachable!("an occupied slot in the vacant list") };
            self.vacant = next;
            *slot = Slot::Occupied(value);
            return Key::new(index, *generation);
        }
        let index = u32::try_from(self.slots.len()).ok().filter(|&index| index != NONE).expect("a full slab");
        self.slots.push((0, Slot::Occupied(value)));
        Key::new(index, 0)
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        match self.slots.get(key.index() as usize) {
            Some((generation, Slot::Occupied(value))) if *generation == key.generation() => Some(value),
            _ => None,
        }
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.slots.get_mut(key.index() as usize) {
            Some((generation, Slot::Occupied(value))) if *generation == key.generation() => Some(value),
            _ => None,
        }
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        Some(self.remove_at(key.index()))
    }

    /// The entry at `index`, whatever its generation.
    ///
    /// # Panics
    ///
    /// If the slot is vacant.
    pub(crate) fn at_mut(&mut self, index: u32) -> &mut T {
        match &mut self.slots[index as usize] {
            (_, Slot::Occupied(value)) => value,
            _ => panic!("slot {index} is vacant"),
        }
    }

    /// Takes out the entry at `index`, whatever its generation.
    ///
    /// # Panics
    ///
    /// If the slot is vacant.
    pub(crate) fn remove_at(&mut self, index: u32) -> T {
        let (generation, slot) = &mut self.slots[index as usize];
        let Slot::Occupied(value) = std::mem::replace(slot, Slot::Vacant { next: self.vacant }) else {
            panic!("slot {index} is vacant");
        };
        *generation = generation.wrapping_add(1);
        self.vacant = index;
        self.len -= 1;
        value
    }

    /// Takes out every entry; all keys are stale then.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = T> {
        (0..self.slots.len() as u32).filter_map(|index| match self.slots[index as usize].1 {
            Slot::Occupied(_) => Some(self.remove_at(index)),
            Slot::Vacant { .. } => None,
        })
    }

    #[cfg(feature = "hyper")]
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(|(_, slot)| match slot {
            Slot::Occupied(value) => Some(value),
            Slot::Vacant { .. } => None,
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|(_, slot)| match slot {
            Slot::Occupied(value) => Some(value),
            Slot::Vacant { .. } => None,
        })
    }
}

#[cfg(all(test, not(mainspring_loom)))]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stale_key_finds_nothing_in_a_slot_that_is_used_again() {
        let mut slab = Slab::new();
        let old = slab.insert("old");
        assert_eq!(slab.remove(old), Some("old"));
        let new = slab.insert("new");
        assert_eq!(new.index(), old.index());
        assert_eq!(slab.get(old), None);
        assert_eq!(slab.remove(old), None);
        assert_eq!(slab.get(new), Some(&"new"));
    }

    #[test]
    fn a_key_survives_the_way_through_one_word() {
        let key = Key::new(0xdead_beef, 0x0123_4567);
        assert_eq!((key.index(), key.generation()), (0xdead_beef, 0x0123_4567));
        assert_eq!(Key::from_u64(key.to_u64()), key);
    }

    proptest! {
        #[test]
        fn behaves_as_a_map_of_its_keys(operations in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..200)) {
            let mut slab = Slab::new();
            let mut model: HashMap<Key, usize> = HashMap::new();
            let mut keys: Vec<Key> = Vec::new();
            for (n, (insert, which)) in operations.into_iter().enumerate() {
                if insert || keys.is_empty() {
                    let key = slab.insert(n);
                    prop_assert!(model.insert(key, n).is_none(), "a key was given out twice");
                    keys.push(key);
                } else {
                    // Keys stay in the list, so stale ones are tried as well.
                    let key = *which.get(&keys);
                    prop_assert_eq!(slab.get(key), model.get(&key));
                    prop_assert_eq!(slab.remove(key), model.remove(&key));
                }
                prop_assert_eq!(slab.len(), model.len());
                let mut values: Vec<usize> = slab.iter().copied().collect();
                let mut expected: Vec<usize> = model.values().copied().collect();
                values.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(values, expected);
            }
        }
    }
}
