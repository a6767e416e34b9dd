//! What the stress tests share: how long they run, a seeded generator, and a busy processor.

use std::time::{Duration, Instant};

use mainspring::runtime::{Builder, Runtime};

/// How many times as long as usual the stress tests run: the environment's `MAINSPRING_SOAK`.
pub(crate) fn soak() -> f64 {
    std::env::var("MAINSPRING_SOAK").map_or(1.0, |text| text.parse().expect("MAINSPRING_SOAK is a number"))
}

/// Steele, Lea and Flood's SplitMix64.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn micros(&mut self, bound: u64) -> Duration {
        Duration::from_micros(self.below(bound))
    }

    pub(crate) fn split(&mut self) -> Rng {
        Rng(self.next())
    }
}

/// A runtime whose random choices come from the seed.
pub(crate) fn seeded(processors: usize, seed: u64) -> Runtime {
    Builder::new().processors(processors).seed(seed).thread_name("hang").build().unwrap()
}

/// The monitor would repair a lost wake-up after some ten milliseconds, and hide it.
#[track_caller]
pub(crate) fn assert_no_rescue(runtime: &Runtime, what: &str) {
    let metrics = runtime.metrics();
    assert_eq!(metrics.rescues, 0, "{what}: a wake-up was lost, {runtime:#?}\n{metrics:#?}");
}

/// Keeps the processor busy for a time, without a system call.
pub(crate) fn spin(duration: Duration) {
    let start = Instant::now();
    while start.elapsed() < duration {
        std::hint::spin_loop();
    }
}
