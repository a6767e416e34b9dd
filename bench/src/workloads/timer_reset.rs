//! Move a pending sleep later, over and over in two tasks: what an idle timeout that is pushed back on
//! each read costs.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::{Plan, in_tasks};
use crate::measure::Measurement;
use crate::peers::Peer;

const TASKS: usize = 2;
const BURST: u64 = 64;

pub(super) fn run<P: Peer>(peer: &P, plan: Plan) -> Measurement {
    peer.run(async move { in_tasks::<P, _>(plan, TASKS, push_back::<P>).await })
}

async fn push_back<P: Peer>(end: Instant) -> u64 {
    let mut at = Instant::now() + Duration::from_secs(30);
    let mut sleep = pin!(P::sleep_until(at));
    let poll = poll_fn(|context| Poll::Ready(sleep.as_mut().poll(context))).await;
    assert!(poll.is_pending(), "30 s passed at once");
    let mut operations = 0;
    while Instant::now() < end {
        for _ in 0..BURST {
            // A millisecond, or a clock that counts those would have nothing to do.
            at += Duration::from_millis(1);
            P::reset(sleep.as_mut(), at);
        }
        operations += BURST;
        P::yield_now().await;
    }
    operations
}
