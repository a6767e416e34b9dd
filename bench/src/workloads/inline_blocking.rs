//! 1,000 tasks that block their thread in the kernel for 1 ms each, and a ticker of 1 ms beside them: how long it takes
//! until all are done, and how late the ticks are. The first time in a process, when threads may have to be started,
//! is reported on its own; the other figures are of those that follow.
//!
//! `_declared` blocks in the way that the peer's documentation tells its users to, which for tokio is
//! `spawn_blocking`, and for mainspring `blocking`; `_in_place` in that which leaves the function on its task's
//! thread (`block_in_place` in tokio).

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Plan, in_tasks};
use crate::measure::{Figure, Measurement, Meter, Outcome, threads};
use crate::peers::Peer;
use crate::statistics::percentile;

const TASKS: u64 = 1_000;
const BLOCK: Duration = Duration::from_millis(1);
const TICK: Duration = Duration::from_millis(1);
/// At the least, without the first one.
const ROUNDS: usize = 3;

pub(super) fn run<P: Peer>(peer: &P, plan: Plan) -> Measurement {
    measure(peer, plan, || async { block() })
}

pub(super) fn run_declared<P: Peer>(peer: &P, plan: Plan) -> Outcome {
    if P::declared(block).is_none() {
        return Outcome::Skipped("what its users would take for that is not built in here".to_owned());
    }
    Outcome::Measured(measure(peer, plan, || P::declared(block).expect("it has been asked")))
}

pub(super) fn run_in_place<P: Peer>(peer: &P, plan: Plan) -> Outcome {
    if P::in_place(|| ()).is_none() {
        return Outcome::Skipped("it has nothing for that".to_owned());
    }
    Outcome::Measured(measure(peer, plan, || async { P::in_place(block).expect("it has been asked") }))
}

fn block() {
    thread::sleep(BLOCK);
}

fn measure<P: Peer, F>(peer: &P, plan: Plan, task: impl Fn() -> F + Send + Sync + 'static) -> Measurement
where
    F: Future<Output = ()> + Send + 'static,
{
    peer.run(async move {
        let (first, mut first_late) = round::<P, _>(&task).await;
        let (mut took, mut late) = (Vec::new(), Vec::new());
        let meter = Meter::start();
        let start = Instant::now();
        while took.len() < ROUNDS || start.elapsed() < plan.time {
            let (time, ticks) = round::<P, _>(&task).await;
            took.push(time);
            late.extend(ticks);
        }
        let figures = vec![
            Figure::nanoseconds("all done", percentile(&mut took, 0.5)),
            Figure::nanoseconds("tick late p99", percentile(&mut late, 0.99)),
            Figure::nanoseconds("first all done", first),
            Figure::nanoseconds("first late p99", percentile(&mut first_late, 0.99)),
            Figure::count("threads", threads() as f64),
        ];
        meter.stop_with(TASKS * took.len() as u64, figures)
    })
}

/// How long it took until all tasks were done, and how late each tick was until then, in nanoseconds.
async fn round<P: Peer, F>(task: &impl Fn() -> F) -> (f64, Vec<f64>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let done = Arc::new(AtomicBool::new(false));
    let ticker = P::spawn(tick::<P>(Arc::clone(&done)));
    let start = Instant::now();
    in_tasks::<P, _>((0..TASKS).map(|_| task())).await;
    let took = start.elapsed().as_nanos() as f64;
    done.store(true, Ordering::Relaxed);
    (took, ticker.await.expect("the ticker"))
}

/// Each tick has its time from the start. None is left out: those that are overdue come one after the other.
async fn tick<P: Peer>(done: Arc<AtomicBool>) -> Vec<f64> {
    let mut late = Vec::new();
    let mut due = Instant::now();
    loop {
        due += TICK;
        P::sleep_until(due).await;
        let now = Instant::now();
        late.push((now - due).as_nanos() as f64);
        if done.load(Ordering::Relaxed) && now < due + TICK {
            return late;
        }
    }
}
