//! The deadline of one side of a descriptor, and what is to be done with the timer that serves it.
//!
//! Pure: knows no clock, no lock, no waiter and no timer store. `now` comes in, and what the owner of
//! the timer has to do goes out.
//!
//! # The lazy timer
//!
//! A deadline is moved far more often than it passes: typically later, before each read. So the
//! timer is not moved along: it stays where it was armed, and when it goes off, it is compared with
//! what the deadline is by then. It has passed: expire. It is later: arm the timer for it. There is
//! none: nothing.
//!
//! **Invariant.** While a deadline is set and has not expired, a timer is armed for that time *or
//! earlier*, or it has gone off and [`fired`](Deadline::fired) is about to be called. So no deadline is
//! missed.
//!
//! # Why no sequence number
//!
//! A timer that has gone off is called without any lock, so anything may have happened to the
//! deadline in between (Go's issue 35532). Go numbers the settings, gives the timer the number of its
//! own, and ignores it if the number is an old one. Here the timer carries nothing: what counts is only
//! whether the *present* deadline has passed *now*, decided under the side's lock. That is stronger: it is right
//! also for a timer that is late, that goes off twice, or that was meant for another setting, since no
//! history enters into it. In the worst case such a timer costs a call that changes nothing.
//!
//! Two timers of one side can be in flight for a moment: one has gone off but has not been heard yet
//! while a caller with an older `now` sets an earlier deadline. The second is then due at once as well,
//! and the comparison makes the order of the two irrelevant.

use crate::base::clock::Tick;

/// What the caller has to do with the side's timer, before it unlocks the side.
#[must_use = "a deadline whose timer is not armed never passes"]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TimerAction {
    /// Nothing: the timer that is armed comes early enough, or none is needed.
    None,
    /// No timer is known to be armed: arm one. (If the side still has the id of one that the store
    /// knows, moving that one is as good.)
    Arm(Tick),
    /// Move the armed timer to this earlier time. If the store does not have it any more, it is
    /// just going off: arm a new one.
    Earlier(Tick),
}

/// What a timer that went off has found.
#[must_use = "a deadline whose timer is not armed again never passes"]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fired {
    /// The deadline has passed just now.
    Expired,
    /// The deadline had been moved: arm the timer for it.
    Rearm(Tick),
    /// There is no deadline, or it had passed before.
    Nothing,
}

#[derive(Debug)]
pub(crate) struct Deadline {
    /// When it passes; `NEVER` if there is none, and [`PASSED`] from when that was seen until it is moved.
    at: Tick,
    /// For when the timer was armed last, unless one has been heard since; then `NEVER`. Never later than `at` while
    /// that one is still to come.
    armed_at: Tick,
}

/// Stands for a deadline that has passed. A word less than a flag, in each socket twice.
const PASSED: Tick = Tick::from_nanos(0);

impl Default for Deadline {
    fn default() -> Deadline {
        Deadline { at: Tick::NEVER, armed_at: Tick::NEVER }
    }
}

impl Deadline {
    pub(crate) fn expired(&self) -> bool {
        self.at == PASSED
    }

    /// Sets the deadline anew; `None` and `Tick::NEVER` clear it. Afterwards
    /// [`expired`](Deadline::expired) says whether it has passed already.
    pub(crate) fn set(&mut self, now: Tick, at: Option<Tick>) -> TimerAction {
        let at = at.unwrap_or(Tick::NEVER);
        let passed = at <= now && at != Tick::NEVER;
        self.at = if passed { PASSED } else { at };
        // A timer that is still armed will find nothing to do if there is no deadline to come.
        if passed || self.armed_at <= at {
            return TimerAction::None;
        }
        let armed_at = std::mem::replace(&mut self.armed_at, at);
        if armed_at == Tick::NEVER { TimerAction::Arm(at) } else { TimerAction::Earlier(at) }
    }

    /// True if it has passed by `now` and nobody had seen that.
    fn expire(&mut self, now: Tick) -> bool {
        let passes = !self.expired() && self.at <= now && self.at != Tick::NEVER;
        if passes {
            self.at = PASSED;
        }
        passes
    }

    /// The timer has gone off, or may have; `now` was read after that.
    pub(crate) fn fired(&mut self, now: Tick) -> Fired {
        let to_come = self.at > now && self.at != Tick::NEVER;
        self.armed_at = if to_come { self.at } else { Tick::NEVER };
        if to_come {
            return Fired::Rearm(self.at);
        }
        if self.expire(now) { Fired::Expired } else { Fired::Nothing }
    }
}

#[cfg(all(test, not(mainspring_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tick(n: u64) -> Tick {
        Tick::from_nanos(n)
    }

    #[test]
    fn moving_it_later_is_only_a_store_until_the_old_timer_comes() {
        let mut deadline = Deadline::default();
        assert_eq!(deadline.set(tick(0), Some(tick(10))), TimerAction::Arm(tick(10)));
        for at in 11..20 {
            assert_eq!(deadline.set(tick(at - 10), Some(tick(at))), TimerAction::None);
        }
        assert_eq!(deadline.fired(tick(10)), Fired::Rearm(tick(19)));
        assert_eq!(deadline.set(tick(11), Some(tick(30))), TimerAction::None);
        assert_eq!(deadline.fired(tick(19)), Fired::Rearm(tick(30)));
        assert_eq!(deadline.fired(tick(30)), Fired::Expired);
        assert_eq!(deadline.fired(tick(31)), Fired::Nothing);
    }

    #[test]
    fn moving_it_earlier_moves_the_timer_at_once() {
        let mut deadline = Deadline::default();
        assert_eq!(deadline.set(tick(0), Some(tick(10))), TimerAction::Arm(tick(10)));
        assert_eq!(deadline.set(tick(0), Some(tick(5))), TimerAction::Earlier(tick(5)));
        assert_eq!(deadline.fired(tick(5)), Fired::Expired);
    }

    #[test]
    fn a_past_deadline_expires_at_once_and_stays_so_until_it_is_moved() {
        let mut deadline = Deadline::default();
        for past in [0, 1, 99, 100] {
            assert_eq!(deadline.set(tick(100), Some(tick(past))), TimerAction::None);
            assert!(deadline.expired());
        }
        assert_eq!(deadline.set(tick(100), Some(tick(101))), TimerAction::Arm(tick(101)));
        assert!(!deadline.expired());
    }

    #[test]
    fn clearing_it_leaves_the_timer_which_then_finds_nothing() {
        for none in [None, Some(Tick::NEVER)] {
            let mut deadline = Deadline::default();
            assert_eq!(deadline.set(tick(0), none), TimerAction::None);
            assert_eq!(deadline.set(tick(0), Some(tick(10))), TimerAction::Arm(tick(10)));
            assert_eq!(deadline.set(tick(0), none), TimerAction::None);
            assert_eq!(deadline.fired(tick(10)), Fired::Nothing);
            assert!(!deadline.expired());
            assert_eq!(deadline.set(tick(10), Some(tick(20))), TimerAction::Arm(tick(20)));
        }
    }

    #[test]
    fn clearing_an_expired_one_makes_the_side_usable_again() {
        let mut deadline = Deadline::default();
        assert_eq!(deadline.set(tick(9), Some(tick(1))), TimerAction::None);
        assert_eq!(deadline.set(tick(9), None), TimerAction::None);
        assert!(!deadline.expired());
    }

    #[test]
    fn a_timer_that_is_still_armed_serves_the_deadline_set_after_an_expired_one() {
        let mut deadline = Deadline::default();
        assert_eq!(deadline.set(tick(0), Some(tick(10))), TimerAction::Arm(tick(10)));
        assert_eq!(deadline.set(tick(1), Some(tick(1))), TimerAction::None);
        assert_eq!(deadline.set(tick(2), Some(tick(20))), TimerAction::None);
        assert_eq!(deadline.fired(tick(10)), Fired::Rearm(tick(20)));
    }

    /// A timer store of one side as the layer above drives it: what is armed, and what has gone off
    /// but has not been heard.
    #[derive(Default)]
    struct Store {
        armed: Option<Tick>,
        unheard: usize,
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// Sets a deadline this long after now, with a `now` that may be a little old.
        Set(Option<u64>, u64),
        Pass(u64),
        Hear,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (prop::option::of(0..20_u64), 0..3_u64).prop_map(|(after, age)| Step::Set(after, age)),
            (0..8_u64).prop_map(Step::Pass),
            Just(Step::Hear),
        ]
    }

    proptest! {
        #[test]
        fn expires_when_the_last_setting_passes_and_never_before(steps in prop::collection::vec(step(), 1..80)) {
            let (mut deadline, mut store, mut now) = (Deadline::default(), Store::default(), 1_000_u64);
            let mut set_to: Option<u64> = None;
            for step in steps {
                match step {
                    Step::Set(after, age) => {
                        set_to = after.map(|after| now + after);
                        match deadline.set(tick(now - age), set_to.map(tick)) {
                            TimerAction::None => {}
                            TimerAction::Arm(at) | TimerAction::Earlier(at) => store.armed = Some(at),
                        }
                    }
                    Step::Pass(nanos) => now += nanos,
                    Step::Hear if store.unheard > 0 => {
                        store.unheard -= 1;
                        if let Fired::Rearm(at) = deadline.fired(tick(now)) {
                            store.armed = Some(at);
                        }
                    }
                    Step::Hear => {}
                }
                if store.armed.is_some_and(|at| at <= tick(now)) {
                    store.armed = None;
                    store.unheard += 1;
                }
                match set_to {
                    Some(at) if at > now => prop_assert!(!deadline.expired(), "early"),
                    None => prop_assert!(!deadline.expired(), "expired without a deadline"),
                    Some(_) => {}
                }
                if let Some(at) = set_to && !deadline.expired() {
                    let in_time = store.armed.is_some_and(|armed| armed <= tick(at));
                    prop_assert!(in_time || store.unheard > 0, "nobody will see it pass");
                }
            }
        }
    }
}
