//! Declare that a function blocks which does nothing, over and over in one task: what that costs beyond the call of
//! the function, which is measured in turn with it. Of tokio's calls only the first one between two yields has much to
//! do: the thread has no core to give away after it.

use std::hint::black_box;
use std::time::Instant;

use super::Plan;
use crate::measure::{Figure, Meter, Outcome};
use crate::peers::Peer;
use crate::statistics::percentile;

const CALLS: u64 = 1_000;

pub(super) fn run<P: Peer>(peer: &P, plan: Plan) -> Outcome {
    if P::in_place(nothing).is_none() {
        return Outcome::Skipped("it has nothing for that".to_owned());
    }
    Outcome::Measured(peer.run(async move {
        let phase = async |end: Instant| {
            let (mut declared, mut plain) = (Vec::new(), Vec::new());
            while Instant::now() < end {
                declared.push(time_calls(|| P::in_place(nothing)));
                plain.push(time_calls(nothing));
                P::yield_now().await;
            }
            (declared, plain)
        };
        phase(Instant::now() + plan.time / 10).await;
        let meter = Meter::start();
        let (mut declared, mut plain) = phase(Instant::now() + plan.time).await;
        let (with, without) = (percentile(&mut declared, 0.5), percentile(&mut plain, 0.5));
        let figures = vec![
            Figure::nanoseconds("difference", with - without),
            Figure::nanoseconds("declared", with),
            Figure::nanoseconds("plain", without),
        ];
        meter.stop_with(CALLS * declared.len() as u64, figures)
    }))
}

/// A function that does nothing, and whose call is there all the same.
fn nothing() -> u8 {
    black_box(0)
}

/// Nanoseconds of a call, of many.
fn time_calls<R>(mut call: impl FnMut() -> R) -> f64 {
    let start = Instant::now();
    for _ in 0..CALLS {
        black_box(call());
    }
    start.elapsed().as_nanos() as f64 / CALLS as f64
}
