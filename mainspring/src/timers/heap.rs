//! A heap with four children a node, ordered by time and then by arming, that knows where each entry's
//! node is.
//!
//! Knows nothing of wakers, of slots or of an entry's true time: it files small indices under keys and
//! finds the least. Four children instead of two halve the depth, and the children of a node lie next
//! to one another, so a level costs little more than before.
//!
//! ```text
//! nodes      │ 0 │ 1  2  3  4 │ 5  6  7  8 │ 9 ...     children of place p: 4p + 1 to 4p + 4
//! places     │ of index 0 │ of index 1 │ ...          nodes[places[i]].index == i
//! sequences  │ of index 0 │ of index 1 │ ...          looked at when two times are the same
//! ```
//!
//! What a level of a move touches decides the cost once the heap outgrows the cache. So four nodes are
//! 64 bytes, the order of arming is elsewhere, and the places are an array of their own and not a field
//! of the entries: each level writes one at random, and four bytes an entry stay in the cache longer than
//! a whole entry does.
//!
//! Invariants: no node is less than its parent; `places` and `sequences` are right for every index that
//! is filed. What they hold for others is left over and never read.

use crate::base::clock::Tick;

/// How many children a node has.
const ARITY: usize = 4;

/// What an entry is filed under: its place in time, and among those of the same instant its place in
/// the order of arming. No two entries have the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Order {
    pub(super) at: Tick,
    /// Counts armings. At one a nanosecond it lasts for 584 years.
    pub(super) sequence: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) at: Tick,
    pub(super) index: u32,
}

#[derive(Debug)]
pub(super) struct Heap {
    nodes: Vec<Node>,
    places: Vec<u32>,
    sequences: Vec<u64>,
}

impl Heap {
    pub(super) const fn new() -> Heap {
        Heap { nodes: Vec::new(), places: Vec::new(), sequences: Vec::new() }
    }

    pub(super) fn first(&self) -> Option<Node> {
        self.nodes.first().copied()
    }

    /// The time that `index`, which is filed, is filed under.
    pub(super) fn at(&self, index: u32) -> Tick {
        self.nodes[self.place(index)].at
    }

    /// The number of the arming that `index`, which is filed, is filed under.
    pub(super) fn sequence(&self, index: u32) -> u64 {
        self.sequences[index as usize]
    }

    /// Files an index that is not filed. Indices come from a slab, so a new one is at most one above
    /// all before it.
    pub(super) fn insert(&mut self, index: u32, order: Order) {
        debug_assert!(index as usize <= self.places.len());
        if index as usize == self.places.len() {
            self.places.push(0);
            self.sequences.push(0);
        }
        self.sequences[index as usize] = order.sequence;
        let node = Node { at: order.at, index };
        self.nodes.push(node);
        self.sift_up(self.nodes.len() - 1, node);
    }

    /// Files an index that is filed already under something else.
    pub(super) fn refile(&mut self, index: u32, order: Order) {
        self.sequences[index as usize] = order.sequence;
        self.put(self.place(index), Node { at: order.at, index });
    }

    /// Takes `index`, which is filed, out.
    pub(super) fn remove(&mut self, index: u32) {
        let place = self.place(index);
        debug_assert_eq!(self.nodes[place].index, index);
        let Some(last) = self.nodes.pop() else { unreachable!("a filed index in an empty heap") };
        if place < self.nodes.len() {
            self.put(place, last);
        }
    }

    /// Takes everything out, in no order.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = u32> {
        self.nodes.drain(..).map(|node| node.index)
    }

    fn place(&self, index: u32) -> usize {
        self.places[index as usize] as usize
    }

    fn is_before(&self, one: Node, other: Node) -> bool {
        if one.at == other.at { self.is_armed_before(one, other) } else { one.at < other.at }
    }

    /// Out of line, because two timers for the same nanosecond are rare, except for `Tick::NEVER`.
    #[cold]
    fn is_armed_before(&self, one: Node, other: Node) -> bool {
        self.sequence(one.index) < self.sequence(other.index)
    }

    /// Puts `node` in the stead of whatever is at `place`, and then where it belongs.
    fn put(&mut self, place: usize, node: Node) {
        if place > 0 && self.is_before(node, self.nodes[(place - 1) / ARITY]) {
            self.sift_up(place, node);
        } else {
            self.sift_down(place, node);
        }
    }

    /// Moves the hole at `place` up until `node` may stand in it.
    fn sift_up(&mut self, mut place: usize, node: Node) {
        while place > 0 {
            let above = (place - 1) / ARITY;
            let parent = self.nodes[above];
            if !self.is_before(node, parent) {
                break;
            }
            self.set(place, parent);
            place = above;
        }
        self.set(place, node);
    }

    /// Moves the hole at `place` down until `node` may stand in it.
    fn sift_down(&mut self, mut place: usize, node: Node) {
        while let Some((below, child)) = self.least_child(place) {
            if self.is_before(node, child) {
                break;
            }
            self.set(place, child);
            place = below;
        }
        self.set(place, node);
    }

    fn least_child(&self, place: usize) -> Option<(usize, Node)> {
        let start = ARITY * place + 1;
        let children = self.nodes.get(start..)?;
        if let Some(&[a, b, c, d]) = children.first_chunk::<ARITY>() {
            // Two pairs and then their winners. Each choice is a conditional move, as a branch would be
            // mispredicted every other time, and the first two do not wait for one another.
            let (left, left_at) = if b.at < a.at { (1, b.at) } else { (0, a.at) };
            let (right, right_at) = if d.at < c.at { (3, d.at) } else { (2, c.at) };
            let child = if right_at < left_at { right } else { left };
            if a.at != b.at && c.at != d.at && left_at != right_at {
                return Some((start + child, children[child]));
            }
        }
        // The last few nodes, or some of the same instant.
        let children = children.iter().copied().take(ARITY).enumerate();
        let (child, node) =
            children.reduce(|least, other| if self.is_before(other.1, least.1) { other } else { least })?;
        Some((start + child, node))
    }

    fn set(&mut self, place: usize, node: Node) {
        self.nodes[place] = node;
        // No truncation: there are no more nodes than indices, which are 32 bits.
        self.places[node.index as usize] = place as u32;
    }
}

/// What the heap keeps for an entry.
#[cfg(test)]
pub(super) const BYTES_PER_ENTRY: usize = size_of::<Node>() + size_of::<u32>() + size_of::<u64>();

#[cfg(test)]
impl Heap {
    /// What everything is filed under, by index.
    pub(super) fn orders(&self) -> impl ExactSizeIterator<Item = (u32, Order)> {
        self.nodes.iter().map(|node| (node.index, self.order(*node)))
    }

    fn order(&self, node: Node) -> Order {
        Order { at: node.at, sequence: self.sequence(node.index) }
    }

    /// # Panics
    ///
    /// If an invariant does not hold.
    pub(super) fn verify(&self) {
        for (place, node) in self.nodes.iter().enumerate() {
            assert_eq!(self.place(node.index), place, "index {} is not where it is said to be", node.index);
            if place > 0 {
                let parent = self.nodes[(place - 1) / ARITY];
                assert!(self.order(parent) < self.order(*node), "{parent:?} is above {node:?}");
            }
        }
    }
}
