//! `timer_churn` while ten million other timers are pending, due in one to two hours: what a large number
//! of connections costs those that are busy. The second figure is what one pending timer takes: the growth
//! of the process's resident memory, the sleep itself, its box and its place in a vector included.

use std::pin::Pin;
use std::time::{Duration, Instant};

use super::timer_churn::churn;
use super::{BURST, Plan, arm, count_in_tasks, in_tasks};
use crate::measure::{Figure, Measurement, resident_bytes};
use crate::peers::Peer;

const TASKS: u64 = 2;
const PENDING: u64 = 10_000_000;

pub(super) fn run<P: Peer>(peer: &P, plan: Plan) -> Measurement {
    peer.run(async move {
        let before = resident_bytes();
        let pending = in_tasks::<P, _>((0..TASKS).map(arm_many::<P>)).await;
        let growth = resident_bytes().saturating_sub(before);
        let mut measurement = count_in_tasks::<P, _>(plan, TASKS as usize, churn::<P>).await;
        drop(pending);
        measurement.figures.push(Figure::bytes("RSS/timer", growth as f64 / PENDING as f64));
        measurement
    })
}

async fn arm_many<P: Peer>(seed: u64) -> Vec<Pin<Box<P::Sleep>>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let start = Instant::now();
    let count = (PENDING / TASKS) as usize;
    let mut sleeps = Vec::with_capacity(count);
    while sleeps.len() < count {
        for _ in 0..BURST.min(count - sleeps.len()) {
            let mut sleep =
                Box::pin(P::sleep_until(start + Duration::from_millis(random.u64(3_600_000..7_200_000))));
            arm(sleep.as_mut()).await;
            sleeps.push(sleep);
        }
        P::yield_now().await;
    }
    sleeps
}
