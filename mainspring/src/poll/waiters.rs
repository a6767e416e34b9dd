//! Who waits for one side of a descriptor.
//!
//! Plain data: wakers go in and come out, and none is cloned, called or dropped here, so that all of it
//! can be done under the side's lock.

use std::num::NonZeroU64;
use std::task::Waker;

/// Names one waiter of a side, from its first registration until its operation ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WaiterId(NonZeroU64);

impl WaiterId {
    /// The one place of a side for callers that have nowhere to keep an id, as `poll_read` has not:
    /// whoever polled last is woken.
    pub(crate) const SHARED: WaiterId = WaiterId(NonZeroU64::new(!FOR_FAILURE).unwrap());

    fn is_for_failure(self) -> bool {
        self.0.get() & FOR_FAILURE != 0
    }
}

/// The bit of an id that says what is awaited, as an idle connection has no byte to spare for that.
const FOR_FAILURE: u64 = 1 << 63;

/// What somebody waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Awaited {
    /// That the side is ready, or fails.
    Ready,
    /// Only that it fails.
    Failure,
}

/// Any number of waiters; the first needs no allocation, and commonly is the only one. Each event
/// wakes all whom it concerns, so the order does not matter, and the search is linear.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    first: Option<(WaiterId, Waker)>,
    /// In a box, as most sides never have any: every idle connection carries this twice.
    #[expect(clippy::box_collection, reason = "a word instead of three")]
    rest: Option<Box<Vec<(WaiterId, Waker)>>>,
    /// How many ids were given out; 63 bits do not come round.
    last_id: u64,
}

impl Waiters {
    /// Registers `waker` under `id`, or under a new one that is put there. Returns the waker that was
    /// replaced. `awaited` is the same each time.
    #[must_use = "a waker is dropped after the lock"]
    pub(crate) fn register(
        &mut self,
        id: &mut Option<WaiterId>,
        awaited: Awaited,
        waker: Waker,
    ) -> Option<Waker> {
        let last_id = &mut self.last_id;
        let id = *id.get_or_insert_with(|| {
            *last_id += 1;
            let kind = if awaited == Awaited::Failure { FOR_FAILURE } else { 0 };
            WaiterId(NonZeroU64::new(*last_id | kind).expect("63 bits do not come round"))
        });
        let rest = self.rest.iter_mut().flat_map(|rest| rest.iter_mut());
        if let Some((_, old)) = self.first.iter_mut().chain(rest).find(|(other, _)| *other == id) {
            return Some(std::mem::replace(old, waker));
        }
        if self.first.is_none() {
            self.first = Some((id, waker));
        } else {
            self.rest.get_or_insert_default().push((id, waker));
        }
        None
    }

    #[must_use = "a waker is dropped after the lock"]
    pub(crate) fn remove(&mut self, id: WaiterId) -> Option<Waker> {
        if let Some((_, waker)) = self.first.take_if(|(other, _)| *other == id) {
            return Some(waker);
        }
        let rest = self.rest.as_mut()?;
        let place = rest.iter().position(|(other, _)| *other == id)?;
        Some(rest.swap_remove(place).1)
    }

    /// Those who wait for readiness.
    pub(crate) fn take_ready(&mut self, wakers: &mut Vec<Waker>) {
        let ready = |(id, _): &mut (WaiterId, Waker)| !id.is_for_failure();
        let rest = self.rest.iter_mut().flat_map(|rest| rest.extract_if(.., ready));
        wakers.extend(self.first.take_if(ready).into_iter().chain(rest).map(|(_, waker)| waker));
    }

    pub(crate) fn take_all(&mut self, wakers: &mut Vec<Waker>) {
        let rest = self.rest.iter_mut().flat_map(|rest| rest.drain(..));
        wakers.extend(self.first.take().into_iter().chain(rest).map(|(_, waker)| waker));
    }
}
