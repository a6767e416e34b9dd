//! What a fresh deadline before each read costs the service of `echo`. Two servers in one process, one with deadlines and
//! one without, each with its own 64 connections, are given a phase of half a second each in turn, so that it does not
//! matter what the machine did between two processes; and each goes first as often as the other. `CPU added` is the
//! CPU time for a message with a deadline less that without, `rate/plain` the rate in terms of that without: medians
//! of the pairs. The other figures are of the phases with deadlines; the cost is of all.
//!
//! The timeout is short enough for lazily moved timers to go off while it is measured for ten seconds or longer: what
//! they put off is counted, then. The kernel's part, some 5 us for a message, is larger than all of this and not as steady;
//! `bench count` counts the server's own instructions instead.

use std::io;
use std::time::Duration;

use super::Plan;
use super::echo::{LoadProcess, with_load};
use crate::load::Answered;
use crate::measure::{Figure, Measurement, Meter, Unit};
use crate::peers::Peer;
use crate::statistics::percentile;

const TIMEOUT: Duration = Duration::from_secs(5);
const PHASE: Duration = Duration::from_millis(500);
/// At the least.
const PAIRS: u32 = 4;

/// A phase of one of the servers.
struct Phase {
    answered: Answered,
    /// For a message.
    cpu_ns: f64,
}

pub(super) fn run<P: Peer>(peer: &P, plan: Plan) -> io::Result<Measurement> {
    let pairs = PAIRS.max((plan.time.as_secs_f64() / 2.0 / PHASE.as_secs_f64()) as u32);
    with_load(peer, PHASE, None, |plain| {
        with_load(peer, PHASE, Some(TIMEOUT), |guarded| measure(plain, guarded, pairs))
    })
}

fn measure(plain: &mut LoadProcess, guarded: &mut LoadProcess, pairs: u32) -> io::Result<Measurement> {
    let meter = Meter::start();
    let (mut added, mut ratios, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    let (mut cpu, mut plain_cpu) = (Vec::new(), Vec::new());
    let mut messages = 0;
    let mut last = None;
    for n in 0..pairs {
        let (without, with) = if n % 2 == 0 {
            let without = Phase::run(plain)?;
            (without, Phase::run(guarded)?)
        } else {
            let with = Phase::run(guarded)?;
            (Phase::run(plain)?, with)
        };
        added.push(with.cpu_ns - without.cpu_ns);
        cpu.push(with.cpu_ns);
        plain_cpu.push(without.cpu_ns);
        ratios.push(with.rate() / without.rate());
        rates.push(with.rate());
        messages += with.answered.messages + without.answered.messages;
        last = Some(with.answered);
    }
    let last = last.expect("there are pairs");
    let figures = vec![
        Figure::nanoseconds_added("CPU added", percentile(&mut added, 0.5)),
        Figure::nanoseconds("CPU", percentile(&mut cpu, 0.5)),
        Figure::nanoseconds("CPU plain", percentile(&mut plain_cpu, 0.5)),
        Figure::part("rate/plain", percentile(&mut ratios, 0.5)),
        Figure { name: "rate".to_owned(), value: percentile(&mut rates, 0.5), unit: Unit::PerSecond },
        Figure::nanoseconds("p50", last.p50_ns),
        Figure::nanoseconds("p99", last.p99_ns),
    ];
    Ok(meter.stop_with(messages, figures))
}

impl Phase {
    fn run(load: &mut LoadProcess) -> io::Result<Phase> {
        let meter = Meter::start();
        let answered = load.measure("phase")?;
        let cpu_ns = meter.stop(answered.messages).cost.cpu_ns;
        Ok(Phase { answered, cpu_ns })
    }

    fn rate(&self) -> f64 {
        self.answered.messages as f64 / self.answered.wall_ns * 1e9
    }
}
