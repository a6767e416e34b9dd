//! 200 tasks that sleep a random time of 0.1 to 5 ms, over and over, beside tasks that block their threads: how late
//! they are, and CPU time for each sleep (that of blockers which compute is taken off it; the cost has it). A task
//! that is late makes fewer sleeps meanwhile: the percentiles are of sleeps, not of time.
//!
//! `blocks` says how many of the planned blocks there were. A peer that lets the blockers wait has an easier time.

use std::time::{Duration, Instant};

use super::blockers::{Blocked, Blockers, PERIOD};
use super::timer_lateness::sleep_often;
use super::{Plan, in_tasks};
use crate::measure::{Figure, Measurement, Meter};
use crate::peers::Peer;
use crate::statistics::percentile;

const TASKS: u64 = 200;
const WARM_UP: Duration = PERIOD.saturating_mul(2);
/// Less has too few blocks in it to say anything.
const SHORTEST: Duration = Duration::from_secs(1);
/// Time to spawn the tasks before the first block.
const LEAD: Duration = Duration::from_millis(20);

pub(super) fn run<P: Peer>(peer: &P, plan: Plan, blockers: Blockers) -> Measurement {
    peer.run(async move {
        phase::<P>(WARM_UP, blockers).await;
        let meter = Meter::start();
        let (mut late, blocked) = phase::<P>(plan.time.max(SHORTEST), blockers).await;
        let sleeps = late.len() as u64;
        let mut measurement = meter.stop_with(sleeps, Vec::new());
        let blockers_cpu = blocked.cpu.as_nanos() as f64 / sleeps as f64;
        measurement.figures = vec![
            Figure::nanoseconds("late p99", percentile(&mut late, 0.99)),
            Figure::nanoseconds("late p50", percentile(&mut late, 0.5)),
            Figure::nanoseconds("late max", percentile(&mut late, 1.0)),
            Figure::nanoseconds("CPU", measurement.cost.cpu_ns - blockers_cpu),
        ];
        measurement.figures.extend(blocked.figure());
        measurement
    })
}

/// How late each sleep was, in nanoseconds, and what the blockers came to.
async fn phase<P: Peer>(time: Duration, blockers: Blockers) -> (Vec<f64>, Blocked) {
    let start = Instant::now();
    let end = start + time;
    let blockers = P::spawn(blockers.run::<P>(start + LEAD, end));
    let late = in_tasks::<P, _>((0..TASKS).map(|seed| sleep_often::<P>(end, time, seed))).await.concat();
    (late, blockers.await.expect("the blockers"))
}
