//! The sleeps of 100,000 tasks end at the same time, and meanwhile one task yields in a loop: how long that
//! task waits for its turn while the timers fire, and how long it takes until all have. It is what a mass of
//! timeouts does to the connections that are well. The time of the command line does not apply.

use std::time::{Duration, Instant};

use super::sleepers::Sleepers;
use crate::measure::{Figure, Measurement, Meter};
use crate::peers::Peer;
use crate::statistics::percentile;

const TIMERS: u64 = 100_000;
/// Time to spawn the tasks before the sleeps end.
const LEAD: Duration = Duration::from_secs(2);
/// How long the yielding task and the meter run before the sleeps end.
const RUN_UP: Duration = Duration::from_millis(100);

pub(super) fn run<P: Peer>(peer: &P) -> Measurement {
    peer.run(async {
        let sleepers = Sleepers::new(TIMERS);
        let at = Instant::now() + LEAD;
        sleepers.spawn::<P>(|_| at);
        P::sleep_until(at - RUN_UP).await;
        let on_time = Instant::now() < at;
        let meter = Meter::start();
        let mut waits = P::spawn(take_turns::<P>(at, sleepers)).await.expect("the task that yields");
        assert!(on_time, "{TIMERS} tasks took more than {LEAD:?} to spawn: the machine is too slow for this");
        let longest = percentile(&mut waits, 1.0);
        let figures = vec![
            Figure::nanoseconds("wait max", longest),
            Figure::nanoseconds("wait p99", percentile(&mut waits, 0.99)),
            Figure::nanoseconds("all fired", percentile(&mut sleepers.late(), 1.0)),
        ];
        meter.stop_with(TIMERS, figures)
    })
}

/// Yields until all sleepers are done; how long each turn took to come from `at` on, in nanoseconds.
async fn take_turns<P: Peer>(at: Instant, sleepers: &Sleepers) -> Vec<f64> {
    // More turns than anyone has in a burst, so that no turn is spent on moving the others.
    let mut waits = Vec::with_capacity(16 << 20);
    let mut last = Instant::now();
    loop {
        P::yield_now().await;
        let now = Instant::now();
        if now > at {
            waits.push((now - last.max(at)).as_nanos() as f64);
            if sleepers.are_done() {
                return waits;
            }
        }
        last = now;
    }
}
