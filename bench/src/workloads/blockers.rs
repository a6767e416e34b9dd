//! Tasks that block their threads, over and over: asleep in the kernel for 100 ms of each 150 ms, or computing for
//! 50 ms of them. All start at the same time, so that two of them stop two processors at once, and no third one is
//! left to help: it is the worst that as many can do.

use std::thread;
use std::time::{Duration, Instant};

use super::in_tasks;
use super::work::Work;
use crate::measure::{Figure, thread_cpu_time};
use crate::peers::Peer;

pub(super) const PERIOD: Duration = Duration::from_millis(150);
const ASLEEP: Duration = Duration::from_millis(100);
const ON_CPU: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug)]
pub(super) struct Blockers {
    tasks: u32,
    how: How,
}

#[derive(Clone, Copy, Debug)]
enum How {
    Asleep,
    OnCpu(Work),
}

/// What blockers came to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Blocked {
    /// How often they blocked, and how often they were to. One who gets his turn late leaves out what he missed.
    pub(super) blocks: u32,
    pub(super) planned: u32,
    /// CPU time in it.
    pub(super) cpu: Duration,
}

impl Blocked {
    pub(super) fn add(&mut self, other: Blocked) {
        self.blocks += other.blocks;
        self.planned += other.planned;
        self.cpu += other.cpu;
    }

    /// Which part of the planned blocks there were; `None` if there were to be none.
    pub(super) fn figure(&self) -> Option<Figure> {
        let part = f64::from(self.blocks) / f64::from(self.planned);
        (self.planned > 0).then(|| Figure::part("blocks", part))
    }
}

impl Blockers {
    pub(super) fn asleep(tasks: u32) -> Blockers {
        Blockers { tasks, how: How::Asleep }
    }

    pub(super) fn on_cpu(tasks: u32) -> Blockers {
        Blockers { tasks, how: How::OnCpu(Work::calibrate()) }
    }

    /// Blocks at `start` and each [`PERIOD`] after it, as often as that is over before `end`.
    pub(super) async fn run<P: Peer>(self, start: Instant, end: Instant) -> Blocked {
        let tasks = in_tasks::<P, _>((0..self.tasks).map(|_| self.block_often::<P>(start, end))).await;
        let blocks = tasks.iter().map(|(blocks, _)| blocks).sum();
        let cpu = tasks.iter().map(|(_, cpu)| *cpu).sum();
        Blocked { blocks, planned: self.tasks * self.blocks_within(end - start), cpu }
    }

    async fn block_often<P: Peer>(self, start: Instant, end: Instant) -> (u32, Duration) {
        let (mut blocks, mut cpu) = (0, Duration::ZERO);
        let mut at = start;
        while at + self.how.long() <= end {
            P::sleep_until(at).await;
            let before = thread_cpu_time();
            self.how.block();
            cpu += thread_cpu_time() - before;
            blocks += 1;
            at = next(start, Instant::now());
        }
        (blocks, cpu)
    }

    fn blocks_within(self, time: Duration) -> u32 {
        time.checked_sub(self.how.long()).map_or(0, |time| periods(time) + 1)
    }
}

impl How {
    fn long(self) -> Duration {
        match self {
            How::Asleep => ASLEEP,
            How::OnCpu(_) => ON_CPU,
        }
    }

    fn block(self) {
        match self {
            How::Asleep => thread::sleep(self.long()),
            How::OnCpu(work) => work.run(self.long()),
        }
    }
}

/// The first time of the plan after `now`.
fn next(start: Instant, now: Instant) -> Instant {
    start + PERIOD * (periods(now - start) + 1)
}

fn periods(time: Duration) -> u32 {
    (time.as_nanos() / PERIOD.as_nanos()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_were_missed_are_not_made_up_for() {
        let start = Instant::now();
        let after = |millis| (next(start, start + Duration::from_millis(millis)) - start).as_millis();
        assert_eq!(after(100), 150);
        assert_eq!(after(149), 150);
        assert_eq!(after(150), 300);
        assert_eq!(after(460), 600);
    }

    #[test]
    fn only_blocks_that_end_in_time_are_planned() {
        let within = |millis| Blockers::asleep(2).blocks_within(Duration::from_millis(millis));
        assert_eq!(within(99), 0);
        assert_eq!(within(100), 1);
        assert_eq!(within(249), 1);
        assert_eq!(within(1_000), 7);
    }
}
