//! How dense timers are, and how long they rest where they are dense.
//!
//! To wait for a timer takes some 25 us of CPU time here, as much as fifty timers. While there is time between
//! them, each is waited for exactly. But at a million a second the next one is due before a wait can end, and
//! with no wait in between each step of a worker finds one, fires it for all that a batch costs, and wakes
//! somebody to help.
//!
//! So from [`DENSE`] on, a processor's timers rest for [`REST`] after each batch: what comes due meanwhile is fired
//! together. It is late by that much at most, and a million timers a second take 0.4 to 0.5 us of CPU time each
//! instead of 1.1 to 1.8.
//!
//! Knows nothing of the store. Nothing but lateness depends on what is counted here.

use std::time::Duration;

use crate::base::clock::Tick;
use crate::base::primitive::plain::{AtomicU64, Ordering};

/// Timers a second from which they are dense. Picked by feel, between 400,000, at which each is still to be exact, and
/// the million.
const DENSE: u64 = 600_000;

/// How long is counted for a rate. Picked by feel: long enough that a crowd of some hundred is not dense.
const WINDOW: Duration = Duration::from_millis(1);

/// Of 20, 50, 100, 200 us and 1 ms, the one beyond which little was gained.
const REST: Duration = Duration::from_micros(100);

#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Timers fired. This and the others are written by who fires some, without order: a statistic.
    fired: AtomicU64,
    /// When the present window began.
    since: AtomicU64,
    /// How many had been fired then.
    fired_then: AtomicU64,
    /// Whether they were dense in the last window: 1 or 0.
    dense: AtomicU64,
}

impl Pace {
    /// Counts a batch that is fired now; until when that processor's timers rest, if they do.
    pub(super) fn rest_after(&self, batch: usize, now: Tick) -> Option<Tick> {
        // ordering: Relaxed, a statistic, as all of these.
        let fired = self.fired.fetch_add(batch as u64, Ordering::Relaxed) + batch as u64;
        let since = Tick::from_nanos(self.since.load(Ordering::Relaxed));
        let window = now.saturating_since(since);
        if window >= WINDOW {
            // ordering: Relaxed, as above.
            let count = fired.saturating_sub(self.fired_then.swap(fired, Ordering::Relaxed));
            let dense = u128::from(count) * 1_000_000_000 >= u128::from(DENSE) * window.as_nanos();
            // ordering: Relaxed, as above.
            self.since.store(now.as_nanos(), Ordering::Relaxed);
            self.dense.store(u64::from(dense), Ordering::Relaxed);
        }
        // ordering: Relaxed, as above.
        (self.dense.load(Ordering::Relaxed) == 1).then(|| now.saturating_add(REST))
    }
}

#[cfg(all(test, not(mainspring_loom)))]
mod tests {
    use super::*;

    /// Fires `batches` batches, one each 100 us; how many of them were followed by a rest.
    fn rests(pace: &Pace, start: Tick, batches: u32, batch: usize) -> usize {
        (0..batches)
            .filter(|&n| {
                let now = start.saturating_add(Duration::from_micros(100) * n);
                let rest = pace.rest_after(batch, now);
                assert!(rest.is_none_or(|until| until.saturating_since(now) == REST));
                rest.is_some()
            })
            .count()
    }

    #[test]
    fn dense_timers_rest_from_the_second_window_on_until_they_are_sparse_again() {
        let pace = Pace::default();
        let later = |millis| Tick::START.saturating_add(Duration::from_millis(millis));
        assert_eq!(rests(&pace, later(0), 50, 100), 40, "a million a second");
        let after = rests(&pace, later(5), 50, 40);
        assert!((1..=10).contains(&after), "{after}: 400,000 a second");
        assert_eq!(rests(&pace, later(10), 50, 40), 0);
    }

    #[test]
    fn one_crowd_is_not_dense() {
        let pace = Pace::default();
        assert_eq!(pace.rest_after(100_000, Tick::START), None);
        let later = Tick::START.saturating_add(Duration::from_secs(1));
        assert_eq!(pace.rest_after(1, later), None);
    }
}
