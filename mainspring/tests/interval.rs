//! Intervals by their behaviour.
//!
//! Bounds from above are generous, as the machine may be busy; from below they are exact.

mod common;

use std::future::Future;
use std::task::{Context, Poll, Waker};

use common::check;
use common::watchdog::Watchdog;
use mainspring::time::{
    Duration, Instant, Interval, MissedTickBehavior, interval, interval_at, sleep_until, timeout,
};

const MILLI: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn an_interval_keeps_its_phase() {
    check(|| async {
        let start = Instant::now() + MILLI;
        let mut interval = interval_at(start, 2 * MILLI);
        for n in 0..5 {
            let tick = interval.tick().await;
            assert_eq!(tick, start + n * 2 * MILLI);
            assert!(Instant::now() >= tick);
        }
    });
}

/// An interval of a millisecond whose second tick is taken when five and a bit have passed: the
/// interval's start, and the time when the late tick had been taken.
async fn late(behavior: MissedTickBehavior) -> (Interval, Instant, Instant) {
    let mut interval = interval(MILLI);
    interval.set_missed_tick_behavior(behavior);
    assert_eq!(interval.missed_tick_behavior(), behavior);
    let start = interval.tick().await;
    sleep_until(start + 5 * MILLI + Duration::from_micros(300)).await;
    assert_eq!(interval.tick().await, start + MILLI);
    (interval, start, Instant::now())
}

#[test]
fn missed_ticks_come_in_a_burst() {
    check(|| async {
        let (mut interval, start, _) = late(MissedTickBehavior::Burst).await;
        for n in 2..=5 {
            let mut tick = std::pin::pin!(interval.tick());
            let tick = tick.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert_eq!(tick, Poll::Ready(start + n * MILLI));
        }
    });
}

#[test]
fn missed_ticks_delay_the_next_ones() {
    check(|| async {
        let before = Instant::now();
        let (mut interval, start, after) = late(MissedTickBehavior::Delay).await;
        let next = interval.tick().await;
        assert!(next >= before + 6 * MILLI && next <= after + MILLI, "{start:?} {next:?}");
    });
}

#[test]
fn a_tick_late_by_less_than_a_period_delays_the_next_ones_too() {
    check(|| async {
        let now = Instant::now();
        let mut interval = interval_at(now - 20 * MILLI, 30 * MILLI);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval.tick().await;
        assert!(interval.tick().await >= now + 30 * MILLI);
    });
}

#[test]
fn missed_ticks_are_skipped_and_the_phase_is_kept() {
    check(|| async {
        let (mut interval, start, after) = late(MissedTickBehavior::Skip).await;
        let next = interval.tick().await;
        let since = next - start;
        assert_eq!(since.as_nanos() % MILLI.as_nanos(), 0, "{since:?}");
        assert!(since >= 6 * MILLI && next <= after + MILLI, "{since:?}");

        // Hours late, without the hours.
        let start = Instant::now() - HOUR + 3 * MILLI;
        let mut interval = interval_at(start, 7 * MILLI);
        interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
        assert_eq!(interval.tick().await, start);
        let next = interval.tick().await;
        assert_eq!((next - start).as_nanos() % (7 * MILLI).as_nanos(), 0);
        assert!(next >= start + HOUR - 3 * MILLI);
    });
}

#[test]
fn an_interval_that_is_reset_starts_its_phase_anew() {
    check(|| async {
        let mut interval = interval(HOUR);
        interval.tick().await;
        let deadline = Instant::now() + MILLI;
        interval.reset_at(deadline);
        assert_eq!(interval.tick().await, deadline);
        interval.reset();
        assert!(timeout(MILLI, interval.tick()).await.is_err());
        assert_eq!(interval.period(), HOUR);
    });
}

#[test]
#[should_panic(expected = "must not be zero")]
fn an_interval_without_a_period_is_refused() {
    let _watchdog = Watchdog::here();
    drop(interval(Duration::ZERO));
}
