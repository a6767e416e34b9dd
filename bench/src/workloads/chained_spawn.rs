//! Each task spawns the next one and ends; the last of a million says so.

use tokio::sync::oneshot;

use super::{Plan, in_batches};
use crate::measure::Measurement;
use crate::peers::Peer;

const TASKS: u64 = 1_000_000;

pub(super) fn run<P: Peer>(peer: &P, plan: Plan) -> Measurement {
    peer.run(async move { in_batches(plan, TASKS, batch::<P>).await })
}

async fn batch<P: Peer>() {
    let (done, wait) = oneshot::channel();
    link::<P>(TASKS, done);
    wait.await.expect("the last task");
}

fn link<P: Peer>(left: u64, done: oneshot::Sender<()>) {
    if left == 0 {
        done.send(()).expect("the one who waits");
        return;
    }
    drop(P::spawn(async move { link::<P>(left - 1, done) }));
}
