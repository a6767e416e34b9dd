//! Who waits for one side of a descriptor.
//!
//! Plain data: wakers go in and come out, and none is cloned, called or dropped here, so that all of it
//! can be done under the side's lock.

use std::task::Waker;

/// Names one waiter of a side, from its first registration until its operation ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WaiterId(u64);

impl WaiterId {
    /// The one place of a side for callers that have nowhere to keep an id, as `poll_read` has not:
    /// whoever polled last is woken.
    pub(crate) const SHARED: WaiterId = WaiterId(0);
}

/// Any number of waiters; the first needs no allocation, and commonly is the only one. Each event
/// wakes all, so the order does not matter, and the search is linear.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    first: Option<(WaiterId, Waker)>,
    rest: Vec<(WaiterId, Waker)>,
    /// The greatest id given out; 64 bits do not come round.
    last_id: u64,
}

impl Waiters {
    /// Registers `waker` under `id`, or under a new one that is put there. Returns the waker that was
    /// replaced.
    #[must_use = "a waker is dropped after the lock"]
    pub(crate) fn register(&mut self, id: &mut Option<WaiterId>, waker: Waker) -> Option<Waker> {
        let last_id = &mut self.last_id;
        let id = *id.get_or_insert_with(|| {
            *last_id += 1;
            WaiterId(*last_id)
        });
        if let Some((_, old)) = self.first.iter_mut().chain(&mut self.rest).find(|(other, _)| *other == id) {
            return Some(std::mem::replace(old, waker));
        }
        if self.first.is_none() {
            self.first = Some((id, waker));
        } else {
            self.rest.push((id, waker));
        }
        None
    }

    #[must_use = "a waker is dropped after the lock"]
    pub(crate) fn remove(&mut self, id: WaiterId) -> Option<Waker> {
        let waiter = match self.first.take_if(|(other, _)| *other == id) {
            Some(first) => first,
            None => self.rest.swap_remove(self.rest.iter().position(|(other, _)| *other == id)?),
        };
        Some(waiter.1)
    }

    pub(crate) fn take_all(&mut self, wakers: &mut Vec<Waker>) {
        wakers.extend(self.first.take().into_iter().chain(self.rest.drain(..)).map(|(_, waker)| waker));
    }
}
