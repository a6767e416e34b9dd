//! 200 tasks yield 5,000 times each.
//!
//! As many tasks as in tokio's own benchmark. With a handful, tokio looks at its driver after each turn of
//! them all, and the comparison would be of that.

use super::{Plan, in_batches};
use crate::measure::Measurement;
use crate::peers::Peer;

const TASKS: u64 = 200;
const YIELDS: u64 = 5_000;

pub(super) fn run<P: Peer>(peer: &P, plan: Plan) -> Measurement {
    peer.run(async move { in_batches(plan, TASKS * YIELDS, batch::<P>).await })
}

async fn batch<P: Peer>() {
    let yields = || async {
        for _ in 0..YIELDS {
            P::yield_now().await;
        }
    };
    let tasks: Vec<_> = (0..TASKS).map(|_| P::spawn(yields())).collect();
    for task in tasks {
        task.await.expect("a task that yields");
    }
}
