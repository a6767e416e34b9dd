//! A task spawns a million tasks that do nothing, and joins them.

use super::{Plan, in_batches};
use crate::measure::Measurement;
use crate::peers::Peer;

const TASKS: u64 = 1_000_000;

pub(super) fn run<P: Peer>(peer: &P, plan: Plan) -> Measurement {
    peer.run(async move { in_batches(plan, TASKS, batch::<P>).await })
}

async fn batch<P: Peer>() {
    let mut tasks = Vec::with_capacity(TASKS as usize);
    for _ in 0..TASKS {
        tasks.push(P::spawn(async {}));
    }
    for task in tasks {
        task.await.expect("a task that does nothing");
    }
}
