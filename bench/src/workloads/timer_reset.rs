//! Move a pending sleep later, over and over in two tasks: what an idle timeout that is pushed back on
//! each read costs. `timer_reset` is given the new time; `timer_reset_now` reads the clock for each move, as a
//! user's code would.

use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use super::{BURST, Plan, arm, count_in_tasks};
use crate::measure::Measurement;
use crate::peers::Peer;

const TASKS: usize = 2;
const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn run<P: Peer>(peer: &P, plan: Plan) -> Measurement {
    let task = |end| {
        let mut at = Instant::now() + TIMEOUT;
        push_back::<P>(end, move |sleep| {
            // A millisecond, or a clock that counts those would have nothing to do.
            at += Duration::from_millis(1);
            P::reset(sleep, at);
        })
    };
    peer.run(async move { count_in_tasks::<P, _>(plan, TASKS, task).await })
}

pub(super) fn run_now<P: Peer>(peer: &P, plan: Plan) -> Measurement {
    let task = |end| push_back::<P>(end, |sleep| P::reset_in(sleep, TIMEOUT));
    peer.run(async move { count_in_tasks::<P, _>(plan, TASKS, task).await })
}

async fn push_back<P: Peer>(end: Instant, mut reset: impl FnMut(Pin<&mut P::Sleep>)) -> u64 {
    let mut sleep = pin!(P::sleep(TIMEOUT));
    arm(sleep.as_mut()).await;
    let mut operations = 0;
    while Instant::now() < end {
        for _ in 0..BURST {
            reset(sleep.as_mut());
        }
        operations += BURST as u64;
        P::yield_now().await;
    }
    operations
}
