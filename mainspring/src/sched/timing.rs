//! Timers on processors: arm, move, cancel, fire.
//!
//! The store (`crate::timers`) is plain data in a processor's core; here is what takes the lock, keeps
//! the hint of the earliest time, and tells whoever might oversleep. A timer stays with the processor
//! on which it was armed, wherever that goes.
//!
//! Who arms a timer may hold a descriptor's or a timer function's lock, so arming wakes nobody: it
//! returns [`Earliest`], and [`Scheduler::announce_timer`] is called once nothing is held.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::current::Token;
use super::processor::Processor;
use super::{Scheduler, current};
use crate::base::clock::Tick;
use crate::base::primitive::full_barrier;
use crate::timers::{Due, Earliest, Id, Key};

/// Most timers that one pass fires before tasks have their turn again, so that a hundred thousand
/// timers of one instant do not keep a ready task waiting. Picked by feel.
pub(crate) const FIRE_MAX: usize = 128;

/// Most timers that are re-filed before a sleep. Picked by feel.
const SETTLE_MAX: usize = 16;

/// How near a timer must be to be re-filed before a sleep. Picked by feel: what is left out costs a needless wake-up, once.
const SETTLE_WITHIN: Duration = Duration::from_millis(10);

/// The timers of one processor, each step under its lock.
impl Processor {
    /// Arms a timer that wakes `waker` at `at` or as soon as possible after it. `now` is the time, roughly.
    ///
    /// # Errors
    ///
    /// Gives the waker back if the runtime has shut down.
    // Else the result goes through memory in other pieces than it is read in, which costs a tenth of the whole.
    #[inline(always)]
    pub(crate) fn arm_timer(&self, now: Tick, at: Tick, waker: Waker) -> Result<(Key, Earliest), Waker> {
        let mut core = self.lock();
        if core.timers_are_closed() {
            drop(core);
            return Err(waker);
        }
        let armed = core.timers.insert(now, at, waker);
        core.counters.timers_armed += 1;
        core.publish_timers();
        Ok(armed)
    }

    /// Moves a pending timer; `None` if it has fired or was cancelled.
    pub(crate) fn reset_timer(&self, key: Key, at: Tick) -> Option<Earliest> {
        let mut core = self.lock();
        let earliest = core.timers.reset(key, at);
        core.publish_timers();
        earliest
    }

    /// Whether a timer is pending.
    pub(crate) fn has_timer(&self, key: Key) -> bool {
        self.lock().timers.contains(key)
    }

    /// Takes a pending timer out; its waker is for the caller to drop with nothing held. `None` if it
    /// has fired or was cancelled.
    #[must_use]
    pub(crate) fn cancel_timer(&self, key: Key) -> Option<Waker> {
        let mut core = self.lock();
        let waker = core.timers.remove(key)?;
        core.counters.timers_cancelled += 1;
        core.publish_timers();
        Some(waker)
    }

    /// Gives a pending timer another waker; the former one, or `waker` itself if the timer has fired or
    /// was cancelled, is for the caller to drop with nothing held.
    pub(crate) fn replace_timer_waker(&self, key: Key, waker: Waker) -> Result<Waker, Waker> {
        self.lock().timers.replace_waker(key, waker)
    }

    /// As [`Scheduler::announce_timer`], for who knows the processor alone.
    pub(crate) fn announce_timer(&self, earliest: Earliest) {
        if earliest != Earliest::Unchanged
            && let Some(scheduler) = self.scheduler()
        {
            scheduler.announce_timer(earliest);
        }
    }
}

impl Scheduler {
    pub(crate) fn now(&self) -> Tick {
        self.clock.now()
    }

    /// See [`Clock::now_before`](crate::base::clock::Clock::now_before).
    pub(crate) fn now_before(&self, deadline: Tick) -> Option<Tick> {
        self.clock.now_before(deadline)
    }

    /// See [`Clock::now_or_later`](crate::base::clock::Clock::now_or_later).
    pub(crate) fn now_or_later(&self) -> Tick {
        self.clock.now_or_later()
    }

    /// Where timers go that a thread arms: on a worker its own processor, elsewhere one chosen by the thread.
    pub(crate) fn processor_for_timers(&self, token: Option<Token>) -> &Arc<Processor> {
        &self.processors[self.store_for_timers(token)]
    }

    fn store_for_timers(&self, token: Option<Token>) -> usize {
        token.map_or_else(|| current::spread() % self.processors.len(), |token| token.processor)
    }

    /// Arms a timer, see [`Processor::arm_timer`].
    pub(crate) fn arm(&self, now: Tick, at: Tick, waker: Waker) -> Result<(Id, Earliest), Waker> {
        let store = self.store_for_timers(current::token(self));
        let (key, earliest) = self.processors[store].arm_timer(now, at, waker)?;
        Ok((Id::new(store, key), earliest))
    }

    /// Moves a timer, see [`Processor::reset_timer`].
    pub(crate) fn reset_timer(&self, id: Id, at: Tick) -> Option<Earliest> {
        self.processors[id.store()].reset_timer(id.key, at)
    }

    /// Takes a timer out, see [`Processor::cancel_timer`].
    #[must_use]
    pub(crate) fn cancel_timer(&self, id: Id) -> Option<Waker> {
        self.processors[id.store()].cancel_timer(id.key)
    }

    /// Tells whoever sleeps beyond a timer that was armed or moved earlier (README, steps T).
    pub(crate) fn announce_timer(self: &Arc<Self>, earliest: Earliest) {
        let Earliest::Moved(at) = earliest else { return };
        full_barrier();
        if self.poller.interrupt_if_after(at) {
            return;
        }
        // Nobody sits in the poller beyond `at`. A worker that arms a timer comes back to it; if the
        // timer came from elsewhere, and nobody sits in the poller at all, an idle worker has to.
        if !self.poller.is_attended() && current::token(self).is_none() && self.idle.wants_worker() {
            self.wake_one();
        }
    }

    /// A timer function is about to run, which may take any time. Sees that somebody waits for the timers that come
    /// due meanwhile, if a processor is idle: the worker that runs it may be the one that sat in the poller.
    ///
    /// Nothing is published here, so there is no barrier; a worker that is just going to sleep will sit there itself. One
    /// that searches is relied upon to do so as well, and if it finds a long task instead, the monitor has to come.
    pub(crate) fn attend_timers(self: &Arc<Self>) {
        if self.next_due() != Tick::NEVER && !self.poller.is_attended() && self.idle.wants_worker() {
            self.wake_one();
        }
    }

    /// When the earliest timer of all processors is to be fired.
    pub(crate) fn next_due(&self) -> Tick {
        self.processors.iter().map(|processor| processor.next_due()).min().unwrap_or(Tick::NEVER)
    }

    /// When the earliest timer of all processors is to be fired, and the time if there is one at all; for who is about to
    /// sleep until then. Timers that were moved later are re-filed first, which is cheaper than waking up for
    /// nothing, but only where that is soon: most sleeps end long before a deadline of seconds, which would be looked
    /// at each time.
    pub(crate) fn settle_next_due(&self) -> (Tick, Option<Tick>) {
        let first = self.processors.iter().min_by_key(|processor| processor.next_due());
        let Some(processor) = first.filter(|processor| processor.next_due() != Tick::NEVER) else {
            return (Tick::NEVER, None);
        };
        let now = self.now();
        let mut core = processor.lock();
        if core.timers.len() == 0 || core.timers.next() <= now.saturating_add(SETTLE_WITHIN) {
            core.timers.settle(SETTLE_MAX);
            core.publish_timers();
        }
        drop(core);
        let next = self.next_due();
        (next, (next != Tick::NEVER).then_some(now))
    }

    /// Takes due timers of one processor, at most [`FIRE_MAX`], for the caller to wake; true if there are
    /// more. Looks at the clock and takes the lock only if something may be due.
    pub(crate) fn take_due(&self, processor: usize, due: &mut Vec<Due>) -> bool {
        let processor = &self.processors[processor];
        let next = processor.next_due();
        if next == Tick::NEVER || next > self.now_or_later() {
            return false;
        }
        let now = self.now();
        if next > now {
            return false;
        }
        let mut core = processor.lock();
        let more = core.timers.take_due(now, FIRE_MAX, due);
        core.publish_timers();
        core.counters.timers_fired += due.len() as u64;
        if let Some(first) = due.first() {
            // What is cut off goes on at once: it is late already.
            let rest = self.pace.rest_after(due.len(), now).filter(|_| !more);
            core.rest_timers(rest);
            let late = u64::try_from(now.saturating_since(first.at).as_nanos()).unwrap_or(u64::MAX);
            core.counters.timer_lateness_ns_max = core.counters.timer_lateness_ns_max.max(late);
        }
        more
    }
}
