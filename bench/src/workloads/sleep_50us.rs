//! Sleeps of 50 us, one after the other, on a runtime with nothing else to do: how long they take.

use std::time::{Duration, Instant};

use super::Plan;
use crate::measure::{Figure, Measurement, Meter};
use crate::peers::Peer;
use crate::statistics::percentile;

const SLEEP: Duration = Duration::from_micros(50);

pub(super) fn run<P: Peer>(peer: &P, plan: Plan) -> Measurement {
    peer.run(async move {
        let meter = Meter::start();
        let end = Instant::now() + plan.time;
        let mut took = Vec::new();
        loop {
            let start = Instant::now();
            P::sleep(SLEEP).await;
            took.push(start.elapsed().as_nanos() as f64);
            if Instant::now() >= end {
                break;
            }
        }
        let mut measurement = meter.stop_with(took.len() as u64, Vec::new());
        measurement.figures = vec![
            Figure::nanoseconds("p50", percentile(&mut took, 0.5)),
            Figure::nanoseconds("p99", percentile(&mut took, 0.99)),
        ];
        measurement
    })
}
