//! 100,000 or a million tasks whose sleeps end spread evenly over a second: CPU time for each, and how late
//! they are. The time of the command line does not apply.

use std::time::{Duration, Instant};

use super::sleepers::Sleepers;
use crate::measure::{Figure, Measurement, Meter};
use crate::peers::Peer;
use crate::statistics::percentile;

const SPREAD: Duration = Duration::from_secs(1);

/// `lead` is the time to spawn the tasks before the first sleep ends.
pub(super) fn run<P: Peer>(peer: &P, timers: u64, lead: Duration) -> Measurement {
    peer.run(fire::<P>(timers, lead))
}

async fn fire<P: Peer>(timers: u64, lead: Duration) -> Measurement {
    let sleepers = Sleepers::new(timers);
    let start = Instant::now() + lead;
    sleepers.spawn::<P>(|n| start + SPREAD.mul_f64(n as f64 / timers as f64));
    P::sleep_until(start - lead / 10).await;
    let on_time = Instant::now() < start;
    let meter = Meter::start();
    sleepers.done().await;
    assert!(on_time, "{timers} tasks took more than {lead:?} to spawn: the machine is too slow for this");
    let mut measurement = meter.stop_with(timers, Vec::new());
    let mut late = sleepers.late();
    measurement.figures = vec![
        Figure::nanoseconds("CPU", measurement.cost.cpu_ns),
        Figure::nanoseconds("late p50", percentile(&mut late, 0.5)),
        Figure::nanoseconds("late p99", percentile(&mut late, 0.99)),
    ];
    measurement
}
