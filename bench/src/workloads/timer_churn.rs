//! Arm a sleep of 30 s by polling it once, and drop it, over and over in two tasks: what a timeout
//! around an operation that succeeds costs.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::{Plan, in_tasks};
use crate::measure::Measurement;
use crate::peers::Peer;

const TASKS: usize = 2;

/// Operations before the task yields. A task that never does runs out of tokio's budget, and its
/// sleeps then return without arming anything.
const BURST: u64 = 64;

pub(super) fn run<P: Peer>(peer: &P, plan: Plan) -> Measurement {
    peer.run(async move { in_tasks::<P, _>(plan, TASKS, churn::<P>).await })
}

async fn churn<P: Peer>(end: Instant) -> u64 {
    let mut operations = 0;
    while Instant::now() < end {
        for _ in 0..BURST {
            let mut sleep = pin!(P::sleep(Duration::from_secs(30)));
            let poll = poll_fn(|context| Poll::Ready(sleep.as_mut().poll(context))).await;
            assert!(poll.is_pending(), "30 s passed at once");
        }
        operations += BURST;
        P::yield_now().await;
    }
    operations
}
