//! 64 tasks that compute without a pause, for 1 to 200 ms each, spawned at once and many times more than there are
//! processors: how long it takes until all are done. A runtime that takes a processor from a task which computes
//! cannot win anything here; it should lose nothing either.
//!
//! `threads` is what the process has in the end.

use std::time::Duration;

use super::work::Work;
use super::{Plan, in_batches, in_tasks};
use crate::measure::{Figure, Measurement, threads};
use crate::peers::Peer;

const TASKS: u32 = 64;
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: f64 = 200.0;

pub(super) fn run<P: Peer>(peer: &P, plan: Plan) -> Measurement {
    let work = Work::calibrate();
    peer.run(async move {
        let mut measurement = in_batches(plan, 1, || batch::<P>(work)).await;
        measurement.figures = vec![
            Figure::nanoseconds("all done", measurement.cost.wall_ns),
            Figure::count("threads", threads() as f64),
        ];
        measurement
    })
}

async fn batch<P: Peer>(work: Work) {
    in_tasks::<P, _>(times().into_iter().map(|time| async move { work.run(time) })).await;
}

/// As many short ones as long ones, each longer than the one before by the same factor, in a random order that is
/// always the same.
fn times() -> Vec<Duration> {
    let part = |n| f64::from(n) / f64::from(TASKS - 1);
    let mut times: Vec<_> = (0..TASKS).map(|n| SHORTEST.mul_f64(LONGEST.powf(part(n)))).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut times);
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_go_from_the_shortest_to_the_longest() {
        let mut times = times();
        assert_eq!(times, super::times());
        times.sort();
        assert_eq!(times.len(), 64);
        assert_eq!(times[0].as_millis(), 1);
        assert_eq!(times[63].as_micros(), 200_000);
    }
}
