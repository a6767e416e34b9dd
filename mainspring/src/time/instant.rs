//! Points in time on the runtime's clock.

use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::time::Duration;

use crate::base::clock::{Tick, from_std, to_std};
use crate::sched::current;

/// A point in time, to the nanosecond, on the clock of the runtime that the thread works for.
///
/// As std's, but its arithmetic saturates instead of panicking, and it is eight bytes.
///
/// # Examples
///
/// ```
/// use mainspring::time::{Duration, Instant};
///
/// let start = Instant::now();
/// let later = start + Duration::from_nanos(1);
/// assert!(later > start);
/// assert!(start + Duration::MAX > later);
/// assert_eq!(start - later, Duration::ZERO);
/// assert_eq!(Instant::from(std::time::Instant::from(later)), later);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(Tick);

impl Instant {
    /// Later than any time: a sleep until then never ends.
    pub const FAR_FUTURE: Instant = Instant(Tick::NEVER);

    /// The present.
    pub fn now() -> Instant {
        Instant(current::now())
    }

    pub(crate) fn from_tick(tick: Tick) -> Instant {
        Instant(tick)
    }

    pub(crate) fn tick(self) -> Tick {
        self.0
    }

    /// How long ago this was; zero if it is yet to come.
    pub fn elapsed(&self) -> Duration {
        current::now().saturating_since(self.0)
    }

    /// The time from `earlier` to this; zero if `earlier` is later.
    pub fn duration_since(&self, earlier: Instant) -> Duration {
        self.0.saturating_since(earlier.0)
    }

    /// As [`duration_since`](Instant::duration_since), for code written for std's instants.
    pub fn saturating_duration_since(&self, earlier: Instant) -> Duration {
        self.duration_since(earlier)
    }

    /// The time from `earlier` to this, or `None` if `earlier` is later.
    pub fn checked_duration_since(&self, earlier: Instant) -> Option<Duration> {
        (earlier <= *self).then(|| self.duration_since(earlier))
    }

    /// This plus `duration`, or `None` if that is beyond the far future.
    pub fn checked_add(&self, duration: Duration) -> Option<Instant> {
        let sum = self.0.saturating_add(duration);
        (sum != Tick::NEVER).then_some(Instant(sum))
    }

    /// This minus `duration`, or `None` if that is before the clock's origin, 73 years before the
    /// process started.
    pub fn checked_sub(&self, duration: Duration) -> Option<Instant> {
        let difference = self.0.saturating_sub(duration);
        (difference != Tick::from_nanos(0)).then_some(Instant(difference))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == Tick::NEVER {
            f.write_str("Instant(never)")
        } else if self.0 >= Tick::START {
            write!(f, "Instant(+{:?})", self.0.saturating_since(Tick::START))
        } else {
            write!(f, "Instant(-{:?})", Tick::START.saturating_since(self.0))
        }
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_add(duration))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    fn sub(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_sub(duration))
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Instant) -> Duration {
        self.duration_since(earlier)
    }
}

impl From<std::time::Instant> for Instant {
    fn from(instant: std::time::Instant) -> Instant {
        Instant(from_std(instant))
    }
}

/// Times beyond what std can represent become some far time.
impl From<Instant> for std::time::Instant {
    fn from(instant: Instant) -> std::time::Instant {
        to_std(instant.0)
    }
}
