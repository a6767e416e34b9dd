//! 160,000 pending timers, a connection's idle timeout each, are moved in a random order by two tasks: CPU
//! time of a move later, and of one earlier. It is the case of Go's issue 41699.
//!
//! Each direction starts with new timers, due in two hours, so that a peer that puts off the work of moving
//! one later does not meet the moves of the other direction with times that are out of date.

use std::pin::Pin;
use std::time::{Duration, Instant};

use super::{BURST, Plan, arm, in_tasks};
use crate::measure::{Figure, Measurement, Meter};
use crate::peers::Peer;

const TASKS: usize = 2;
const TIMERS: usize = 160_000;
const STEP: Duration = Duration::from_millis(1);

/// The timers of one task, in the order in which they are visited, and when each is due.
type Half<P> = Vec<(Pin<Box<<P as Peer>::Sleep>>, Instant)>;

pub(super) fn run<P: Peer>(peer: &P, plan: Plan) -> Measurement {
    peer.run(async move {
        let mut later = measure::<P>(plan, "later", |at| at + STEP).await;
        let earlier = measure::<P>(plan, "earlier", |at| at - STEP).await;
        later.figures.extend(earlier.figures);
        later
    })
}

async fn measure<P: Peer>(plan: Plan, name: &str, step: fn(Instant) -> Instant) -> Measurement {
    let halves = in_tasks::<P, _>((0..TASKS).map(arm_half::<P>)).await;
    let warm_up = Instant::now() + plan.time / 10;
    let visited = in_tasks::<P, _>(halves.into_iter().map(|half| visit::<P>(half, step, warm_up))).await;
    let meter = Meter::start();
    let end = Instant::now() + plan.time;
    let visits = visited.into_iter().map(|(half, _)| visit::<P>(half, step, end));
    let visited = in_tasks::<P, _>(visits).await;
    let moves = visited.iter().map(|(_, moves)| moves).sum();
    let mut measurement = meter.stop_with(moves, Vec::new());
    measurement.figures = vec![Figure::nanoseconds(name, measurement.cost.cpu_ns)];
    measurement
}

async fn arm_half<P: Peer>(task: usize) -> Half<P> {
    let start = Instant::now() + Duration::from_secs(2 * 60 * 60);
    let mut half = Vec::with_capacity(TIMERS / TASKS);
    for n in 0..TIMERS / TASKS {
        let at = start + STEP * n as u32;
        let mut sleep = Box::pin(P::sleep_until(at));
        arm(sleep.as_mut()).await;
        half.push((sleep, at));
        if n % BURST == 0 {
            P::yield_now().await;
        }
    }
    fastrand::Rng::with_seed(task as u64).shuffle(&mut half);
    half
}

/// Goes round and round until `end`; the timers, and the number of moves.
async fn visit<P: Peer>(mut half: Half<P>, step: fn(Instant) -> Instant, end: Instant) -> (Half<P>, u64) {
    let mut moves = 0;
    loop {
        for burst in half.chunks_mut(BURST) {
            for (sleep, at) in &mut *burst {
                *at = step(*at);
                P::reset(sleep.as_mut(), *at);
            }
            moves += burst.len() as u64;
            P::yield_now().await;
            if Instant::now() >= end {
                return (half, moves);
            }
        }
    }
}
