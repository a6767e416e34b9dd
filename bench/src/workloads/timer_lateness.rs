//! Ten or a thousand tasks that sleep a random time of 0.1 to 5 ms, over and over, on a runtime with nothing
//! else to do: how late they are, and CPU time for each sleep.

use std::time::{Duration, Instant};

use super::{Plan, in_tasks};
use crate::measure::{Figure, Measurement, Meter};
use crate::peers::Peer;
use crate::statistics::percentile;

const SHORTEST_NS: u64 = 100_000;
const LONGEST_NS: u64 = 5_000_000;

pub(super) fn run<P: Peer>(peer: &P, plan: Plan, tasks: u64) -> Measurement {
    peer.run(async move {
        let phase = async |time: Duration| {
            let end = Instant::now() + time;
            in_tasks::<P, _>((0..tasks).map(|seed| sleep_often::<P>(end, time, seed))).await
        };
        phase(plan.time / 10).await;
        let meter = Meter::start();
        let late = phase(plan.time).await;
        let mut measurement = meter.stop_with(late.iter().map(|late| late.len() as u64).sum(), Vec::new());
        let mut late = late.concat();
        measurement.figures = vec![
            Figure::nanoseconds("late p50", percentile(&mut late, 0.5)),
            Figure::nanoseconds("late p99", percentile(&mut late, 0.99)),
            Figure::nanoseconds("CPU", measurement.cost.cpu_ns),
        ];
        measurement
    })
}

/// How late each sleep was, in nanoseconds, of a task that sleeps until `end`, for `time`.
pub(super) async fn sleep_often<P: Peer>(end: Instant, time: Duration, seed: u64) -> Vec<f64> {
    let expected = time.as_nanos() as u64 / u64::midpoint(SHORTEST_NS, LONGEST_NS);
    let mut late = Vec::with_capacity(expected as usize);
    note_sleeps::<P>(end, seed, |_, how_late| late.push(how_late.as_nanos() as f64)).await;
    late
}

/// Sleeps over and over until `end`; `note` is told when each sleep was due, and how late it was.
pub(super) async fn note_sleeps<P: Peer>(end: Instant, seed: u64, mut note: impl FnMut(Instant, Duration)) {
    let mut random = fastrand::Rng::with_seed(seed);
    loop {
        let sleep = Duration::from_nanos(random.u64(SHORTEST_NS..=LONGEST_NS));
        let start = Instant::now();
        P::sleep(sleep).await;
        let now = Instant::now();
        note(start + sleep, (now - start).saturating_sub(sleep));
        if now >= end {
            return;
        }
    }
}
