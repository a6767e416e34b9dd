//! A heap with four children a node, ordered by time and then by arming, in which each entry knows its
//! node.
//!
//! Knows nothing of wakers or of an entry's true time: it files small indices under keys and finds the
//! least. Four children instead of two halve the depth, and the children of a node lie next to one
//! another, so a level costs little more than before.
//!
//! ```text
//! nodes      │ 0 │ 1  2  3  4 │ 5  6  7  8 │ 9 ...     children of place p: 4p + 1 to 4p + 4
//! entries    │ link: place │ ...                       nodes[entries[i].link.before].index == i
//! ```
//!
//! Invariants: no node is less than its parent; the link of each entry that is filed here names its place.

use super::entry::{Entries, Home, Link, NOBODY, Order};

/// How many children a node has.
const ARITY: usize = 4;

#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) order: Order,
    pub(super) index: u32,
}

#[derive(Debug)]
pub(super) struct Heap {
    nodes: Vec<Node>,
}

impl Heap {
    pub(super) const fn new() -> Heap {
        Heap { nodes: Vec::new() }
    }

    pub(super) fn first(&self) -> Option<Node> {
        self.nodes.first().copied()
    }

    /// What the entry whose link names `place` is filed under.
    pub(super) fn order(&self, place: u32) -> Order {
        self.nodes[place as usize].order
    }

    /// Files an entry that is not filed.
    pub(super) fn insert(&mut self, entries: &mut Entries, index: u32, order: Order) {
        let node = Node { order, index };
        self.nodes.push(node);
        self.sift_up(entries, self.nodes.len() - 1, node);
    }

    /// Files the entry at `place` under something else.
    pub(super) fn refile(&mut self, entries: &mut Entries, place: u32, order: Order) {
        let place = place as usize;
        self.put(entries, place, Node { order, index: self.nodes[place].index });
    }

    /// Takes the entry at `place` out.
    pub(super) fn remove(&mut self, entries: &mut Entries, place: u32) {
        let place = place as usize;
        let Some(last) = self.nodes.pop() else { unreachable!("a place in an empty heap") };
        if place < self.nodes.len() {
            self.put(entries, place, last);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.nodes.clear();
    }

    /// Puts `node` in the stead of whatever is at `place`, and then where it belongs.
    fn put(&mut self, entries: &mut Entries, place: usize, node: Node) {
        if place > 0 && node.order < self.nodes[(place - 1) / ARITY].order {
            self.sift_up(entries, place, node);
        } else {
            self.sift_down(entries, place, node);
        }
    }

    /// Moves the hole at `place` up until `node` may stand in it.
    fn sift_up(&mut self, entries: &mut Entries, mut place: usize, node: Node) {
        while place > 0 {
            let above = (place - 1) / ARITY;
            let parent = self.nodes[above];
            if parent.order <= node.order {
                break;
            }
            self.set(entries, place, parent);
            place = above;
        }
        self.set(entries, place, node);
    }

    /// Moves the hole at `place` down until `node` may stand in it.
    fn sift_down(&mut self, entries: &mut Entries, mut place: usize, node: Node) {
        while let Some((below, child)) = self.least_child(place) {
            if node.order < child.order {
                break;
            }
            self.set(entries, place, child);
            place = below;
        }
        self.set(entries, place, node);
    }

    fn least_child(&self, place: usize) -> Option<(usize, Node)> {
        let start = ARITY * place + 1;
        let children = self.nodes.get(start..)?;
        if let Some([a, b, c, d]) = children.first_chunk::<ARITY>() {
            // Two pairs and then their winners. Each choice is a conditional move, as a branch would be
            // mispredicted every other time, and the first two do not wait for one another.
            let (left, left_at) = if b.order.at < a.order.at { (1, b.order.at) } else { (0, a.order.at) };
            let (right, right_at) = if d.order.at < c.order.at { (3, d.order.at) } else { (2, c.order.at) };
            let child = if right_at < left_at { right } else { left };
            if a.order.at != b.order.at && c.order.at != d.order.at && left_at != right_at {
                return Some((start + child, children[child]));
            }
        }
        // The last few nodes, or some of the same instant.
        let children = children.iter().copied().take(ARITY).enumerate();
        let (child, node) =
            children.reduce(|least, other| if other.1.order < least.1.order { other } else { least })?;
        Some((start + child, node))
    }

    fn set(&mut self, entries: &mut Entries, place: usize, node: Node) {
        self.nodes[place] = node;
        // No truncation: there are no more nodes than indices, which are 32 bits.
        entries.at_mut(node.index).link = Link { home: Home::HEAP, before: place as u32, after: NOBODY };
    }
}

#[cfg(all(test, not(mainspring_loom)))]
impl Heap {
    /// What everything is filed under, by index.
    pub(super) fn orders(&self) -> impl ExactSizeIterator<Item = (u32, Order)> {
        self.nodes.iter().map(|node| (node.index, node.order))
    }

    /// # Panics
    ///
    /// If an invariant does not hold.
    pub(super) fn verify(&self, entries: &mut Entries) {
        for (place, node) in self.nodes.iter().enumerate() {
            let link = entries.at_mut(node.index).link;
            assert_eq!(
                (link.home, link.before as usize),
                (Home::HEAP, place),
                "{node:?} is not where it says"
            );
            if place > 0 {
                let parent = self.nodes[(place - 1) / ARITY];
                assert!(parent.order < node.order, "{parent:?} is above {node:?}");
            }
        }
    }
}
