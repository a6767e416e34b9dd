//! Ticks at a fixed period.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::{Instant, Sleep, sleep_until};

/// Ticks every `period`, the first time at once.
///
/// # Panics
///
/// If `period` is zero.
///
/// # Examples
///
/// ```
/// use mainspring::time::{Duration, interval};
///
/// # mainspring::block_on(async {
/// let mut interval = interval(Duration::from_millis(1));
/// let first = interval.tick().await;
/// let second = interval.tick().await;
/// assert_eq!(second - first, Duration::from_millis(1));
/// # });
/// ```
#[track_caller]
pub fn interval(period: Duration) -> Interval {
    interval_at(Instant::now(), period)
}

/// Ticks every `period`, the first time at `start`.
///
/// # Panics
///
/// If `period` is zero.
#[track_caller]
pub fn interval_at(start: Instant, period: Duration) -> Interval {
    assert!(!period.is_zero(), "the period of an interval must not be zero");
    Interval { sleep: sleep_until(start), period, behavior: MissedTickBehavior::Burst }
}

/// Later than this, a tick counts as missed even if the next one is not due yet; as in tokio.
const LATE: Duration = Duration::from_millis(5);

/// What an [`Interval`] does when ticks were missed, because nobody asked in time: a tick is taken
/// when the next one is due already, or more than 5 ms late.
///
/// As in tokio, which knows only the 5 ms: there a period below them bursts until it is that late.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MissedTickBehavior {
    /// The missed ticks come one after the other at once, until the interval has caught up.
    #[default]
    Burst,
    /// The next tick comes a period after the late one was taken, and the others after that.
    Delay,
    /// The missed ticks are left out; the next one comes at the next multiple of the period.
    Skip,
}

/// The ticks of [`interval`] and [`interval_at`].
#[derive(Debug)]
pub struct Interval {
    /// Ends at the next tick.
    sleep: Sleep,
    period: Duration,
    behavior: MissedTickBehavior,
}

impl Interval {
    /// Waits for the next tick; gives the time for which it was set, not that at which it came.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the tick has not been taken.
    pub async fn tick(&mut self) -> Instant {
        poll_fn(|context| self.poll_tick(context)).await
    }

    /// The poll form of [`tick`](Interval::tick).
    ///
    /// A task that takes one tick after the other and is always late yields now and then, as if the tick
    /// had not come yet.
    pub fn poll_tick(&mut self, context: &mut Context<'_>) -> Poll<Instant> {
        ready!(Pin::new(&mut self.sleep).poll(context));
        let tick = self.sleep.deadline();
        let next = tick + self.period;
        let now = Instant::now();
        let missed = now >= next || now - tick > LATE;
        self.sleep.reset(if missed { self.after_missed(tick, now) } else { next });
        Poll::Ready(tick)
    }

    /// The tick that follows `tick`, which is taken late, `now`.
    fn after_missed(&self, tick: Instant, now: Instant) -> Instant {
        match self.behavior {
            MissedTickBehavior::Burst => tick + self.period,
            MissedTickBehavior::Delay => now + self.period,
            MissedTickBehavior::Skip => {
                let into = (now - tick).as_nanos() % self.period.as_nanos();
                // It fits, since `into` is less than a time that has passed.
                let into = Duration::from_nanos(u64::try_from(into).unwrap_or(u64::MAX));
                now + (self.period - into)
            }
        }
    }

    /// The next tick comes a period from now.
    pub fn reset(&mut self) {
        self.reset_after(self.period);
    }

    /// The next tick comes now, and the one that follows a period later.
    pub fn reset_immediately(&mut self) {
        self.reset_at(Instant::now());
    }

    /// The next tick comes after `duration`, and the one that follows a period later.
    pub fn reset_after(&mut self, duration: Duration) {
        self.reset_at(Instant::now() + duration);
    }

    /// The next tick comes at `deadline`, and the one that follows a period later. If it is in the past,
    /// the ticks since then count as missed.
    pub fn reset_at(&mut self, deadline: Instant) {
        self.sleep.reset(deadline);
    }

    /// The period.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// What happens to missed ticks.
    pub fn missed_tick_behavior(&self) -> MissedTickBehavior {
        self.behavior
    }

    /// Sets what happens to missed ticks; [`MissedTickBehavior::Burst`] at first.
    pub fn set_missed_tick_behavior(&mut self, behavior: MissedTickBehavior) {
        self.behavior = behavior;
    }
}
