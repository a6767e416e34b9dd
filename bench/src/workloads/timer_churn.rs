//! Arm a sleep of 30 s by polling it once, and drop it, over and over in a few tasks: what a timeout
//! around an operation that succeeds costs.

use std::pin::pin;
use std::time::{Duration, Instant};

use super::{BURST, Plan, arm, count_in_tasks};
use crate::measure::Measurement;
use crate::peers::Peer;

pub(super) fn run<P: Peer>(peer: &P, plan: Plan, tasks: usize) -> Measurement {
    peer.run(async move { count_in_tasks::<P, _>(plan, tasks, churn::<P>).await })
}

pub(super) async fn churn<P: Peer>(end: Instant) -> u64 {
    let mut operations = 0;
    while Instant::now() < end {
        for _ in 0..BURST {
            let mut sleep = pin!(P::sleep(Duration::from_secs(30)));
            arm(sleep.as_mut()).await;
        }
        operations += BURST as u64;
        P::yield_now().await;
    }
    operations
}
