//! One task that ticks each second in a process with nothing else to do, for ten seconds at the least: how often its
//! threads wake up in a second, all of them together, and CPU time in a second. The ticker reads the counts itself, so
//! that there is no thread to measure which would wake up on its own.

use std::time::{Duration, Instant};

use super::Plan;
use crate::measure::{Figure, Measurement, Meter, Sleeps};
use crate::peers::Peer;

const TICK: Duration = Duration::from_secs(1);
const TICKS: u32 = 10;

pub(super) fn run<P: Peer>(peer: &P, plan: Plan) -> Measurement {
    let ticks = TICKS.max(plan.time.as_secs() as u32);
    peer.run(async move {
        // What the start of the process has left to do is over by then.
        P::sleep(TICK).await;
        let before = Sleeps::now();
        let meter = Meter::start();
        let start = Instant::now();
        for n in 1..=ticks {
            P::sleep_until(start + TICK * n).await;
        }
        let seconds = start.elapsed().as_secs_f64();
        let mut measurement = meter.stop_with(u64::from(ticks), Vec::new());
        let wake_ups = Sleeps::now().since(&before) as f64;
        let cpu_ns = measurement.cost.cpu_ns * f64::from(ticks);
        measurement.figures = vec![
            Figure::count("wake-ups in 1 s", wake_ups / seconds),
            Figure::nanoseconds("CPU in 1 s", cpu_ns / seconds),
        ];
        measurement
    })
}
