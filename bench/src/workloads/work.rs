//! Work on the CPU, of as many steps as take a given time on this machine when nobody disturbs. It is the same
//! work however often the thread is interrupted, so it cannot become less where others get in between, as it
//! would if the clock said when it is done.

use std::hint::black_box;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    steps_per_ns: f64,
}

impl Work {
    /// Finds out how fast this machine is: what the fastest of many short tries came to, which nobody
    /// interrupted. It takes some 20 ms.
    pub(super) fn calibrate() -> Work {
        const TRIES: u64 = 100;
        const STEPS: u64 = 100_000;
        let fastest = (0..TRIES).map(|_| {
            let start = Instant::now();
            take(STEPS);
            start.elapsed()
        });
        let fastest = fastest.min().expect("there are tries");
        Work { steps_per_ns: STEPS as f64 / fastest.as_nanos() as f64 }
    }

    /// What takes `time` on the CPU.
    pub(super) fn run(self, time: Duration) {
        take((time.as_nanos() as f64 * self.steps_per_ns) as u64);
    }
}

/// The random numbers of Marsaglia's xorshift, each from the one before it.
#[inline(never)]
fn take(steps: u64) {
    let mut number = black_box(88_172_645_463_325_252_u64);
    for _ in 0..steps {
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
    }
    black_box(number);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::thread_cpu_time;

    #[test]
    fn work_takes_its_time_on_the_cpu() {
        let work = Work::calibrate();
        let before = thread_cpu_time();
        work.run(Duration::from_millis(50));
        let took = thread_cpu_time() - before;
        // More on a machine whose processors others have a share in.
        assert!(took > Duration::from_millis(40), "{took:?}");
        assert!(took < Duration::from_millis(500), "{took:?}");
    }
}
