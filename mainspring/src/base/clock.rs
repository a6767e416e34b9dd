//! Time as the runtime counts it: nanoseconds on a monotonic clock that is handed in.
//!
//! Knows nothing of timers or of who asks. A [`Tick`] is a plain number, so the timer store needs no
//! clock; a [`Clock`] is either the machine's or one that only moves when told to.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::primitive::atomic::{AtomicU64, Ordering};
use super::tsc;

/// A point in time: nanoseconds since an origin that lies 73 years before the process started, so
/// that points before the start can be told from one another.
///
/// All arithmetic saturates, and [`Tick::NEVER`] is the far end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Tick(u64);

impl Tick {
    /// Later than every other tick; a timer with it never fires.
    pub(crate) const NEVER: Tick = Tick(u64::MAX);
    /// What the clock showed when the process first asked it.
    pub(crate) const START: Tick = Tick(1 << 61);

    pub(crate) const fn from_nanos(nanos: u64) -> Tick {
        Tick(nanos)
    }

    pub(crate) const fn as_nanos(self) -> u64 {
        self.0
    }

    pub(crate) fn saturating_add(self, duration: Duration) -> Tick {
        Tick(self.0.saturating_add(nanos(duration)))
    }

    pub(crate) fn saturating_sub(self, duration: Duration) -> Tick {
        Tick(self.0.saturating_sub(nanos(duration)))
    }

    /// The time from `earlier` to `self`, zero if `earlier` is later.
    pub(crate) fn saturating_since(self, earlier: Tick) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A duration in nanoseconds; 584 years and more are all the same to us.
fn nanos(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(duration.subsec_nanos()))
}

/// Where a runtime gets its time from.
#[derive(Clone, Debug)]
pub(crate) enum Clock {
    /// The machine's monotonic clock.
    Real,
    /// A clock that stands still until somebody moves it.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "virtual time is built on it; only tests use it so far")
    )]
    Manual(Arc<ManualClock>),
}

impl Clock {
    pub(crate) fn now(&self) -> Tick {
        match self {
            Clock::Real => system_now(),
            Clock::Manual(clock) => clock.now(),
        }
    }

    /// A time not before the present, and seldom more than a microsecond after it, for half the price.
    ///
    /// What is after it has *not* come for certain; what is not may have.
    pub(crate) fn now_or_later(&self) -> Tick {
        match self {
            Clock::Real => tsc::now_or_later(),
            Clock::Manual(clock) => clock.now(),
        }
    }

    /// The present, or a little later, if `deadline` has not come; `None` if it has. Reads the machine's clock only
    /// if the bound does not tell.
    pub(crate) fn now_before(&self, deadline: Tick) -> Option<Tick> {
        let mut now = self.now_or_later();
        if now >= deadline {
            now = self.now();
        }
        (now < deadline).then_some(now)
    }
}

/// A clock for tests and simulation.
#[derive(Debug)]
pub(crate) struct ManualClock {
    /// Nanoseconds; moved forward by `advance`, read by everybody.
    nanos: AtomicU64,
}

impl ManualClock {
    #[cfg(test)]
    pub(crate) fn new() -> Arc<ManualClock> {
        Arc::new(ManualClock { nanos: AtomicU64::new(Tick::START.0) })
    }

    pub(crate) fn now(&self) -> Tick {
        // ordering: Acquire, pairs with the read-modify-write in `advance`.
        Tick(self.nanos.load(Ordering::Acquire))
    }

    #[cfg(test)]
    pub(crate) fn advance(&self, by: Duration) -> Tick {
        // ordering: AcqRel, pairs with `now`.
        let before = self.nanos.fetch_add(nanos(by), Ordering::AcqRel);
        Tick(before).saturating_add(by)
    }
}

/// What the machine's monotonic clock shows.
pub(super) fn system_now() -> Tick {
    from_std(std::time::Instant::now())
}

fn base() -> std::time::Instant {
    static BASE: OnceLock<std::time::Instant> = OnceLock::new();
    *BASE.get_or_init(std::time::Instant::now)
}

/// The tick of an instant of the machine's clock.
pub(crate) fn from_std(instant: std::time::Instant) -> Tick {
    let base = base();
    match instant.checked_duration_since(base) {
        Some(after) => Tick::START.saturating_add(after),
        None => Tick::START.saturating_sub(base.saturating_duration_since(instant)),
    }
}

/// The instant of the machine's clock at `tick`, or the nearest one that std can represent.
pub(crate) fn to_std(tick: Tick) -> std::time::Instant {
    let base = base();
    if tick >= Tick::START {
        let mut after = tick.saturating_since(Tick::START);
        loop {
            match base.checked_add(after) {
                Some(instant) => return instant,
                None => after /= 2,
            }
        }
    }
    let mut before = Tick::START.saturating_since(tick);
    loop {
        match base.checked_sub(before) {
            Some(instant) => return instant,
            None => before /= 2,
        }
    }
}

#[cfg(all(test, not(mainspring_loom)))]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Tick::START.saturating_add(Duration::MAX), Tick::NEVER);
        assert_eq!(Tick::NEVER.saturating_add(Duration::from_nanos(1)), Tick::NEVER);
        assert_eq!(Tick::START.saturating_sub(Duration::MAX), Tick::from_nanos(0));
        assert_eq!(Tick::START.saturating_since(Tick::NEVER), Duration::ZERO);
    }

    #[test]
    fn instants_go_to_ticks_and_back_unchanged() {
        let now = std::time::Instant::now();
        assert_eq!(to_std(from_std(now)), now);
        let later = now + Duration::from_nanos(12_345_678_901);
        assert_eq!(from_std(later).saturating_since(from_std(now)), later - now);
        let before = now.checked_sub(Duration::from_nanos(77)).unwrap();
        assert_eq!(from_std(now).saturating_since(from_std(before)), Duration::from_nanos(77));
        assert_eq!(to_std(from_std(before)), before);
    }

    #[test]
    fn the_ends_of_time_convert_without_a_panic() {
        assert!(to_std(Tick::NEVER) > std::time::Instant::now());
        assert!(to_std(Tick::from_nanos(0)) < std::time::Instant::now());
    }

    #[test]
    fn a_deadline_has_come_exactly_when_the_clock_says_so() {
        for after in (0..3_000).cycle().take(100_000).map(Duration::from_nanos) {
            let deadline = system_now().saturating_add(after);
            let before = system_now();
            let found = Clock::Real.now_before(deadline);
            assert!(found.is_some() || deadline <= system_now(), "early");
            assert!(found.is_none() || before < deadline, "it had come");
        }
        let clock = ManualClock::new();
        let (start, shared) = (clock.now(), Clock::Manual(Arc::clone(&clock)));
        assert_eq!(shared.now_before(start), None);
        let later = start.saturating_add(Duration::from_nanos(1));
        assert_eq!(shared.now_before(later), Some(start));
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::new();
        let shared = Clock::Manual(Arc::clone(&clock));
        let before = shared.now();
        assert_eq!(shared.now(), before);
        assert_eq!(clock.advance(Duration::from_nanos(3)), shared.now());
        assert_eq!(shared.now().saturating_since(before), Duration::from_nanos(3));
    }
}
