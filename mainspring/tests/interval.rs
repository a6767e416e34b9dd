//! Intervals by their behaviour.
//!
//! Bounds from above are generous, as the machine may be busy; from below they are exact.

mod common;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use common::drops::Count;
use common::sockets::pair;
use common::wakers::counting_waker;
use common::watchdog::Watchdog;
use common::{check, until, watched};
use mainspring::runtime::Handle;
use mainspring::task::yield_now;
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
            let mut tick = pin!(interval.tick());
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

/// Polls for a tick once, for nobody.
fn tick_now(interval: &mut Interval) -> Poll<Instant> {
    interval.poll_tick(&mut Context::from_waker(Waker::noop()))
}

/// An interval of an hour which began that many periods and a half ago; how many periods after its start each
/// tick is that it gives at once.
fn ticks_at_once(behavior: MissedTickBehavior, late: u32) -> Vec<u128> {
    let start = Instant::now() - late * HOUR - HOUR / 2;
    let mut interval = interval_at(start, HOUR);
    interval.set_missed_tick_behavior(behavior);
    let mut periods = Vec::new();
    while let Poll::Ready(tick) = tick_now(&mut interval) {
        assert_eq!((tick - start).as_nanos() % HOUR.as_nanos(), 0);
        periods.push((tick - start).as_nanos() / HOUR.as_nanos());
    }
    periods
}

#[test]
fn of_missed_ticks_a_burst_gives_all_and_the_others_the_first() {
    let _watchdog = Watchdog::here();
    assert_eq!(ticks_at_once(MissedTickBehavior::Burst, 4), [0, 1, 2, 3, 4]);
    assert_eq!(ticks_at_once(MissedTickBehavior::Delay, 4), [0]);
    assert_eq!(ticks_at_once(MissedTickBehavior::Skip, 4), [0]);
    for behavior in [MissedTickBehavior::Burst, MissedTickBehavior::Delay, MissedTickBehavior::Skip] {
        assert_eq!(ticks_at_once(behavior, 0), [0]);
    }
}

#[test]
fn the_first_tick_comes_at_once_or_at_the_start_however_far_that_is() {
    check(|| async {
        let now = Instant::now();
        let mut at_once = interval(HOUR);
        let Poll::Ready(first) = tick_now(&mut at_once) else { panic!("the first tick of an interval") };
        assert!(first >= now && first <= Instant::now());
        assert!(tick_now(&mut at_once).is_pending());

        let past = now - HOUR / 2;
        let mut began = interval_at(past, HOUR);
        assert_eq!(tick_now(&mut began), Poll::Ready(past));
        assert!(tick_now(&mut began).is_pending());

        for far in [now + HOUR, now + Duration::MAX] {
            let mut begins = interval_at(far, MILLI);
            assert!(timeout(3 * MILLI, begins.tick()).await.is_err());
        }
    });
}

#[test]
fn the_longest_period_gives_the_first_tick_and_panics_nowhere() {
    check(|| async {
        for behavior in [MissedTickBehavior::Burst, MissedTickBehavior::Delay, MissedTickBehavior::Skip] {
            for period in [Duration::MAX, Duration::from_nanos(u64::MAX), Duration::from_secs(u64::MAX / 10)]
            {
                for start in [Instant::now(), Instant::now() - HOUR] {
                    let mut interval = interval_at(start, period);
                    interval.set_missed_tick_behavior(behavior);
                    assert_eq!(tick_now(&mut interval), Poll::Ready(start));
                    assert!(tick_now(&mut interval).is_pending());
                    interval.reset();
                    assert!(tick_now(&mut interval).is_pending());
                    interval.reset_after(Duration::MAX);
                    assert!(tick_now(&mut interval).is_pending());
                    interval.reset_immediately();
                    assert!(tick_now(&mut interval).is_ready());
                }
            }
        }
    });
}

#[test]
fn a_reset_sets_the_next_tick_and_the_ones_after_it_follow() {
    check(|| async {
        const PERIOD: Duration = Duration::from_millis(3);
        type Reset = fn(&mut Interval);
        let resets: [(Reset, Duration); 4] = [
            (Interval::reset, PERIOD),
            (Interval::reset_immediately, Duration::ZERO),
            (|interval| interval.reset_after(MILLI), MILLI),
            // Longer than the period.
            (|interval| interval.reset_at(Instant::now() + 5 * MILLI), 5 * MILLI),
        ];
        for (reset, after) in resets {
            let mut interval = interval(PERIOD);
            interval.tick().await;
            // Also while its timer is armed for another time.
            let _ = tick_now(&mut interval);
            let before = Instant::now();
            reset(&mut interval);
            let since = Instant::now();
            let first = interval.tick().await;
            assert!(first >= before + after && first <= since + after, "{:?}", first - before);
            assert!(Instant::now() >= first);
            assert_eq!(interval.tick().await, first + PERIOD);
            assert!(Instant::now() >= first + PERIOD);
        }
    });
}

#[test]
fn a_reset_forgets_the_ticks_that_were_missed() {
    let _watchdog = Watchdog::here();
    for armed in [false, true] {
        let start = Instant::now() - if armed { Duration::ZERO } else { 4 * HOUR };
        let mut interval = interval_at(start, HOUR);
        assert_eq!(tick_now(&mut interval), Poll::Ready(start));
        assert_eq!(tick_now(&mut interval).is_pending(), armed);
        interval.reset();
        assert!(tick_now(&mut interval).is_pending(), "the old phase goes on");
        // And a reset to the past makes some anew.
        let past = Instant::now() - 3 * HOUR / 2;
        interval.reset_at(past);
        assert_eq!(tick_now(&mut interval), Poll::Ready(past));
        assert_eq!(tick_now(&mut interval), Poll::Ready(past + HOUR));
        assert!(tick_now(&mut interval).is_pending());
    }
}

#[test]
fn a_tick_that_is_given_up_is_not_taken() {
    check(|| async {
        let start = Instant::now() + MILLI;
        let mut interval = interval_at(start, 2 * MILLI);
        let mut taken = Vec::new();
        for _ in 0..1_000 {
            // Given up before it is polled, while it waits, and when it would be ready.
            drop(interval.tick());
            if let Ok(tick) = timeout(Duration::from_micros(20), interval.tick()).await {
                taken.push(tick);
            }
            if taken.len() == 5 {
                break;
            }
        }
        for (tick, n) in taken.into_iter().zip(0_u32..) {
            assert_eq!(tick, start + n * 2 * MILLI);
        }
        assert!(Handle::current().metrics().timers_pending <= 1, "each tick leaves a timer");
        drop(interval);
        assert_eq!(Handle::current().metrics().timers_pending, 0);
    });
}

#[test]
fn a_waiting_tick_wakes_its_task_when_it_comes_and_one_that_came_does_not() {
    check(|| async {
        let wakes = Count::new();
        let waker = counting_waker(&wakes);
        let mut interval = interval(2 * MILLI);
        let first = interval.poll_tick(&mut Context::from_waker(&waker));
        assert!(first.is_ready());
        // Whoever does not ask for the next tick is not woken by it.
        sleep_until(Instant::now() + 5 * MILLI).await;
        assert_eq!(wakes.get(), 0);
        interval.reset();
        if interval.poll_tick(&mut Context::from_waker(&waker)).is_pending() {
            until(|| wakes.get() == 1).await;
            assert!(tick_now(&mut interval).is_ready());
        }
    });
}

#[test]
fn a_task_that_takes_ticks_which_are_always_due_lets_others_run() {
    let (_watchdog, runtime) = watched(1);
    let stop = Arc::new(AtomicBool::new(false));
    let ticks = {
        let stop = Arc::clone(&stop);
        runtime.spawn(async move {
            // Burst, from an hour ago: it does not catch up.
            let mut interval = interval_at(Instant::now() - HOUR, Duration::from_nanos(1));
            while !stop.load(Ordering::Relaxed) {
                interval.tick().await;
            }
        })
    };
    let other = runtime.spawn(async move {
        sleep_until(Instant::now() + MILLI).await;
        stop.store(true, Ordering::Relaxed);
    });
    runtime.block_on(other).unwrap();
    runtime.block_on(ticks).unwrap();
}

#[test]
fn a_tick_that_is_due_is_put_off_once_at_most_whatever_is_done_beside_it() {
    check(|| async {
        let (stream, _other) = pair().await;
        for reads in 0..300 {
            let mut interval = interval(HOUR);
            let mut polls = 0;
            // Each poll may do as much as any from here on.
            yield_now().await;
            poll_fn(|context| {
                polls += 1;
                for _ in 0..reads {
                    let _ = pin!(stream.read(&mut [])).poll(context);
                }
                interval.poll_tick(context)
            })
            .await;
            assert!(polls <= 2, "{reads} reads: {polls} polls");
        }
    });
}

#[test]
#[should_panic(expected = "must not be zero")]
fn an_interval_without_a_period_is_refused() {
    let _watchdog = Watchdog::here();
    drop(interval(Duration::ZERO));
}
