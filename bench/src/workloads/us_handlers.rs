//! 64 tasks that sleep 500 us, spawn four tasks of 1.5 us of work each, and await those, over and over: CPU time of such a
//! round, and how many there are in a second. It is the service of tokio's issue 8065, whose handlers are so short that
//! what a runtime does beside them shows.

use std::time::{Duration, Instant};

use super::work::Work;
use super::{Plan, count_in_tasks, in_tasks};
use crate::measure::{Figure, Measurement};
use crate::peers::Peer;

const TASKS: usize = 64;
const SLEEP: Duration = Duration::from_micros(500);
const HANDLERS: usize = 4;
const WORK: Duration = Duration::from_nanos(1_500);

pub(super) fn run<P: Peer>(peer: &P, plan: Plan) -> Measurement {
    let work = Work::calibrate();
    peer.run(async move {
        let mut measurement = count_in_tasks::<P, _>(plan, TASKS, |end| serve::<P>(end, work)).await;
        measurement.figures.insert(0, Figure::nanoseconds("CPU", measurement.cost.cpu_ns));
        measurement
    })
}

async fn serve<P: Peer>(end: Instant, work: Work) -> u64 {
    let mut rounds = 0;
    while Instant::now() < end {
        P::sleep(SLEEP).await;
        in_tasks::<P, _>((0..HANDLERS).map(|_| async move { work.run(WORK) })).await;
        rounds += 1;
    }
    rounds
}
