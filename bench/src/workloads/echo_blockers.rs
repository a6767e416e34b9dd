//! The service of `echo` beside tasks that block their threads, and alone, in turn: `rate/quiet` is the rate in a phase
//! with blockers in terms of the one right before it without, the median of such pairs, so that it does not matter what
//! the machine did between two processes. The other figures are of the phases with blockers; the cost is of all.
//!
//! Each connection waits for its answer before it sends again, so a server that stands still for 100 ms delays 64
//! messages and no more, which may be less than a hundredth of all: `max` tells what `p99` does not.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::Plan;
use super::blockers::{Blocked, Blockers, PERIOD};
use super::echo::{LoadProcess, with_load};
use crate::load::Answered;
use crate::measure::{Figure, Measurement, Meter, Unit};
use crate::peers::Peer;
use crate::statistics::percentile;

/// The last block is over before its end, and no answer is late because of the load's own end.
const PHASE: Duration = PERIOD.saturating_mul(4);
/// At the least.
const PAIRS: u32 = 3;

pub(super) fn run<P: Peer>(peer: &P, plan: Plan, blockers: Blockers) -> io::Result<Measurement> {
    let pairs = PAIRS.max((plan.time.as_secs_f64() / 2.0 / PHASE.as_secs_f64()) as u32);
    with_load(peer, PHASE, None, |load| {
        let meter = Meter::start();
        let (mut ratios, mut rates) = (Vec::new(), Vec::new());
        let (mut messages, mut sum) = (0, Blocked::default());
        let mut last = None;
        for _ in 0..pairs {
            let quiet = load.measure("quiet")?;
            let (answered, blocked) = measure_beside(peer, load, blockers)?;
            ratios.push(rate(&answered) / rate(&quiet));
            rates.push(rate(&answered));
            messages += quiet.messages + answered.messages;
            sum.add(blocked);
            last = Some(answered);
        }
        let last = last.expect("there are pairs");
        let mut figures = vec![
            Figure::part("rate/quiet", percentile(&mut ratios, 0.5)),
            Figure {
                name: "rate".to_owned(),
                value: percentile(&mut rates, 0.5) * 1e9,
                unit: Unit::PerSecond,
            },
            Figure::nanoseconds("p50", last.p50_ns),
            Figure::nanoseconds("p99", last.p99_ns),
            Figure::nanoseconds("max", last.max_ns),
        ];
        figures.extend(sum.figure());
        Ok(meter.stop_with(messages, figures))
    })
}

/// A phase with blockers, which start together with the load.
fn measure_beside<P: Peer>(
    peer: &P,
    load: &mut LoadProcess,
    blockers: Blockers,
) -> io::Result<(Answered, Blocked)> {
    let start = Instant::now();
    thread::scope(|scope| {
        let blocked = scope.spawn(|| peer.run(blockers.run::<P>(start, start + PHASE)));
        let answered = load.measure("blocked");
        Ok((answered?, blocked.join().expect("the thread that waits for the blockers")))
    })
}

/// Messages in a nanosecond.
fn rate(answered: &Answered) -> f64 {
    answered.messages as f64 / answered.wall_ns
}
