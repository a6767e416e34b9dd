//! Stop a function's timer of 30 s and start it again, over and over in two tasks, one timer each: what an idle
//! timeout costs that is taken away while there is work. Of the peers only Go has such timers.

use std::time::{Duration, Instant};

use super::{BURST, Plan, count_in_tasks};
use crate::measure::Outcome;
use crate::peers::Peer;

const TASKS: usize = 2;
const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn run<P: Peer>(peer: &P, plan: Plan) -> Outcome {
    if P::restarter(TIMEOUT).is_none() {
        return Outcome::Skipped("it has no timers of functions".to_owned());
    }
    Outcome::Measured(peer.run(async move { count_in_tasks::<P, _>(plan, TASKS, restart::<P>).await }))
}

async fn restart<P: Peer>(end: Instant) -> u64 {
    let mut restart = P::restarter(TIMEOUT).expect("it has been asked");
    let mut operations = 0;
    while Instant::now() < end {
        for _ in 0..BURST {
            restart();
        }
        operations += BURST as u64;
        P::yield_now().await;
    }
    operations
}
