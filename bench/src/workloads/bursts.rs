//! 200 tasks that sleep 0.1 to 5 ms, over and over; beside them, for a second out of two, two tasks that block all
//! threads the peer has for tasks, for 100 ms of each 150 ms. How late sleeps are that were due in the first 50 ms of such
//! a burst (`start`), in the rest of it (`steady`), and after it (`quiet`): a runtime that learns of blocking only slowly,
//! and forgets it when there is none, stutters at the start of each burst.
//!
//! `threads` is the most that were seen after a burst. The first burst of the process counts as the others do.

use std::time::{Duration, Instant};

use super::blockers::{Blocked, Blockers};
use super::timer_lateness::note_sleeps;
use super::{Plan, in_tasks};
use crate::measure::{Figure, Measurement, Meter, threads};
use crate::peers::{PROCESSORS, Peer};
use crate::statistics::percentile;

const TASKS: u64 = 200;
const BURST: Duration = Duration::from_secs(1);
const CYCLE: Duration = BURST.saturating_mul(2);
const START: Duration = Duration::from_millis(50);
/// Bursts, at the least.
const BURSTS: u32 = 3;
/// Time for the tasks to be spawned before the first burst.
const RUN_UP: Duration = Duration::from_millis(200);

/// When a sleep was due.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Part {
    Start,
    Steady,
    Quiet,
}

pub(super) fn run<P: Peer>(peer: &P, plan: Plan) -> Measurement {
    let bursts = BURSTS.max(plan.time.div_duration_f64(CYCLE) as u32);
    let blockers = Blockers::asleep(PROCESSORS as u32);
    peer.run(async move {
        let start = Instant::now() + RUN_UP;
        let end = start + CYCLE * bursts;
        let sleepers = in_tasks::<P, _>((0..TASKS).map(move |seed| sleep::<P>(start, end, seed)));
        let sleepers = P::spawn(sleepers);
        P::sleep_until(start).await;
        let meter = Meter::start();
        let (mut blocked, mut most_threads) = (Blocked::default(), 0);
        for n in 0..bursts {
            let from = start + CYCLE * n;
            blocked.add(blockers.run::<P>(from, from + BURST).await);
            most_threads = most_threads.max(threads());
            P::sleep_until(from + CYCLE).await;
        }
        let late = sleepers.await.expect("the tasks that sleep").concat();
        let measurement = meter.stop_with(late.len() as u64, Vec::new());
        let p99 = |part| {
            let mut late: Vec<f64> =
                late.iter().filter(|(of, _)| *of == part).map(|(_, late)| *late).collect();
            percentile(&mut late, 0.99)
        };
        let (first, steady) = (p99(Part::Start), p99(Part::Steady));
        let mut figures = vec![
            Figure::nanoseconds("start p99", first),
            Figure::nanoseconds("steady p99", steady),
            Figure::count("start/steady", first / steady),
            Figure::nanoseconds("quiet p99", p99(Part::Quiet)),
            Figure::count("threads", most_threads as f64),
        ];
        figures.extend(blocked.figure());
        Measurement { figures, ..measurement }
    })
}

/// How late each sleep was, in nanoseconds, that was due between `start` and `end`.
async fn sleep<P: Peer>(start: Instant, end: Instant, seed: u64) -> Vec<(Part, f64)> {
    let mut sleeps = Vec::new();
    let note = |due: Instant, late: Duration| {
        if let Some(after) = due.checked_duration_since(start) {
            sleeps.push((part(after), late.as_nanos() as f64));
        }
    };
    note_sleeps::<P>(end, seed, note).await;
    sleeps
}

/// Where in the bursts it is, so long after the start of the first one.
fn part(after: Duration) -> Part {
    match Duration::from_nanos((after.as_nanos() % CYCLE.as_nanos()) as u64) {
        start if start < START => Part::Start,
        steady if steady < BURST => Part::Steady,
        _ => Part::Quiet,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_burst_has_a_start() {
        let part = |millis| part(Duration::from_millis(millis));
        assert_eq!(part(0), Part::Start);
        assert_eq!(part(49), Part::Start);
        assert_eq!(part(50), Part::Steady);
        assert_eq!(part(999), Part::Steady);
        assert_eq!(part(1_000), Part::Quiet);
        assert_eq!(part(1_999), Part::Quiet);
        assert_eq!(part(4_010), Part::Start);
        assert_eq!(part(4_510), Part::Steady);
    }
}
