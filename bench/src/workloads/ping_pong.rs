//! Spawn a partner, send it a message, and wait for its answer: a thousand of these at a time.
//!
//! The channels are tokio's on each peer; they need no runtime.

use tokio::sync::oneshot;

use super::{Plan, in_batches};
use crate::measure::Measurement;
use crate::peers::Peer;

const PAIRS: u64 = 1_000;
/// Rounds of a thousand pairs in a batch, so that the clock is looked at seldom.
const ROUNDS: u64 = 20;

pub(super) fn run<P: Peer>(peer: &P, plan: Plan) -> Measurement {
    peer.run(async move { in_batches(plan, PAIRS * ROUNDS, batch::<P>).await })
}

async fn batch<P: Peer>() {
    for _ in 0..ROUNDS {
        let tasks: Vec<_> = (0..PAIRS).map(|_| P::spawn(meet::<P>())).collect();
        for task in tasks {
            task.await.expect("a pair");
        }
    }
}

async fn meet<P: Peer>() {
    let (ping, pinged) = oneshot::channel::<()>();
    let (pong, ponged) = oneshot::channel::<()>();
    drop(P::spawn(async move {
        pinged.await.expect("the ping");
        pong.send(()).expect("the one who waits for the pong");
    }));
    ping.send(()).expect("the one who waits for the ping");
    ponged.await.expect("the pong");
}
