//! What a measurement is, and the meter that takes one. Knows nothing of peers or workloads.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// What came of a workload on a peer. A child process prints it, its parent reads it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Measured(Measurement),
    /// It could not be measured here; why.
    Skipped(String),
}

impl Outcome {
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("an outcome is plain data")
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Measurement {
    /// What is compared; the first one is what the workload is about.
    pub(crate) figures: Vec<Figure>,
    pub(crate) cost: Cost,
}

/// What the measured process used for one operation.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Cost {
    pub(crate) wall_ns: f64,
    pub(crate) cpu_ns: f64,
    pub(crate) context_switches: f64,
}

/// One number that peers are compared by.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    /// More is better.
    PerSecond,
    /// Less is better.
    Nanoseconds,
    /// What something takes more than something else; less is better. By how much is not said by a ratio: it may be
    /// nothing, or less.
    NanosecondsAdded,
    /// Less is better.
    Bytes,
    /// Of something that should be the whole; more is better.
    Part,
    /// Less is better.
    Count,
}

impl Unit {
    /// How good `value` is in terms of `base`: above 1 is better.
    pub(crate) fn ratio(self, value: f64, base: f64) -> Option<f64> {
        match self {
            Unit::NanosecondsAdded => None,
            // Nothing may be what both came to.
            _ if value == base => Some(1.0),
            Unit::PerSecond | Unit::Part => Some(value / base),
            Unit::Nanoseconds | Unit::Bytes | Unit::Count => Some(base / value),
        }
    }
}

impl Figure {
    pub(crate) fn nanoseconds(name: &str, value: f64) -> Figure {
        Figure { name: name.to_owned(), value, unit: Unit::Nanoseconds }
    }

    pub(crate) fn nanoseconds_added(name: &str, value: f64) -> Figure {
        Figure { name: name.to_owned(), value, unit: Unit::NanosecondsAdded }
    }

    pub(crate) fn bytes(name: &str, value: f64) -> Figure {
        Figure { name: name.to_owned(), value, unit: Unit::Bytes }
    }

    pub(crate) fn part(name: &str, value: f64) -> Figure {
        Figure { name: name.to_owned(), value, unit: Unit::Part }
    }

    pub(crate) fn count(name: &str, value: f64) -> Figure {
        Figure { name: name.to_owned(), value, unit: Unit::Count }
    }
}

/// Measures this process from `start` to `stop`.
#[derive(Debug)]
pub(crate) struct Meter {
    at: Instant,
    cpu: Duration,
    context_switches: u64,
}

impl Meter {
    pub(crate) fn start() -> Meter {
        Meter { context_switches: context_switches(), cpu: cpu_time(), at: Instant::now() }
    }

    /// The rate of `operations` since the start, and what each cost.
    pub(crate) fn stop(self, operations: u64) -> Measurement {
        let wall = self.at.elapsed();
        let rate = operations as f64 / wall.as_secs_f64();
        let figure = Figure { name: "rate".to_owned(), value: rate, unit: Unit::PerSecond };
        Measurement { figures: vec![figure], cost: self.cost(wall, operations) }
    }

    /// Figures of the workload's own, and what each of `operations` cost.
    pub(crate) fn stop_with(self, operations: u64, figures: Vec<Figure>) -> Measurement {
        let wall = self.at.elapsed();
        Measurement { figures, cost: self.cost(wall, operations) }
    }

    fn cost(&self, wall: Duration, operations: u64) -> Cost {
        let cpu = cpu_time().saturating_sub(self.cpu);
        let switches = context_switches().saturating_sub(self.context_switches);
        let operations = operations.max(1) as f64;
        Cost {
            wall_ns: wall.as_nanos() as f64 / operations,
            cpu_ns: cpu.as_nanos() as f64 / operations,
            context_switches: switches as f64 / operations,
        }
    }
}

/// The CPU time of all threads of this process, user and system.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The CPU time of the thread that calls it, user and system.
pub(crate) fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The context switches of all threads that this process has now, voluntary and not. Zero where
/// `/proc` does not tell; a thread that ends meanwhile is left out.
fn context_switches() -> u64 {
    let both = |status: &String| switches(status, "voluntary") + switches(status, "nonvoluntary");
    thread_statuses().values().map(both).sum()
}

/// How many threads this process has now.
pub(crate) fn threads() -> usize {
    thread_statuses().len()
}

/// How often each thread of this process has gone to sleep, to find out how often they were woken since.
pub(crate) struct Sleeps(HashMap<OsString, u64>);

impl Sleeps {
    pub(crate) fn now() -> Sleeps {
        let voluntary = |(id, status): (OsString, String)| (id, switches(&status, "voluntary"));
        Sleeps(thread_statuses().into_iter().map(voluntary).collect())
    }

    /// Those of all threads together since `earlier`, but for threads that have ended.
    pub(crate) fn since(&self, earlier: &Sleeps) -> u64 {
        self.0.iter().map(|(id, count)| count - earlier.0.get(id).unwrap_or(&0)).sum()
    }
}

/// What `/proc` says of each thread of this process, by its id. Nothing where it does not tell.
fn thread_statuses() -> HashMap<OsString, String> {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return HashMap::new() };
    threads
        .filter_map(|thread| {
            let thread = thread.ok()?;
            Some((thread.file_name(), fs::read_to_string(thread.path().join("status")).ok()?))
        })
        .collect()
}

/// The context switches of a kind, `voluntary` or `nonvoluntary`.
fn switches(status: &str, kind: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix("_ctxt_switches:"));
    line.and_then(|line| line.trim().parse().ok()).unwrap_or(0)
}

/// The memory of this process that is in RAM now, in bytes. Zero where `/proc` does not tell.
pub(crate) fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_above_one_is_better_whatever_the_unit() {
        assert_eq!(Unit::PerSecond.ratio(3.0, 2.0), Some(1.5));
        assert_eq!(Unit::Nanoseconds.ratio(2.0, 3.0), Some(1.5));
        assert_eq!(Unit::Bytes.ratio(2.0, 3.0), Some(1.5));
        assert_eq!(Unit::Part.ratio(3.0, 2.0), Some(1.5));
        assert_eq!(Unit::Count.ratio(2.0, 3.0), Some(1.5));
        assert_eq!(Unit::Count.ratio(0.0, 0.0), Some(1.0));
        assert_eq!(Unit::NanosecondsAdded.ratio(-3.0, 2.0), None);
    }

    #[test]
    fn switches_are_told_apart_by_their_kind() {
        let status = "Threads:\t3\nvoluntary_ctxt_switches:\t51\nnonvoluntary_ctxt_switches:\t7\n";
        assert_eq!(switches(status, "voluntary"), 51);
        assert_eq!(switches(status, "nonvoluntary"), 7);
        assert_eq!(switches("Threads:\t3\n", "voluntary"), 0);
    }

    #[test]
    fn the_sleeps_of_new_and_of_old_threads_are_counted() {
        let sleeps = |threads: &[(&str, u64)]| {
            Sleeps(threads.iter().map(|(id, count)| (OsString::from(id), *count)).collect())
        };
        let before = sleeps(&[("1", 10), ("2", 20)]);
        assert_eq!(sleeps(&[("1", 13), ("3", 5)]).since(&before), 8);
        let before = Sleeps::now();
        (0..20).for_each(|_| std::thread::sleep(Duration::from_micros(1)));
        assert!(Sleeps::now().since(&before) >= 20);
        assert!(threads() >= 1);
    }

    #[test]
    fn the_meter_counts_the_cpu_time_and_the_switches_of_every_thread() {
        let meter = Meter::start();
        let (worked, work) = std::sync::mpsc::channel::<()>();
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            // By its own clock: a busy machine may give it little of any other time.
            while thread_cpu_time() < Duration::from_millis(20) {}
            worked.send(()).unwrap();
            wait.recv()
        });
        // The thread has to be there still, or its switches are not counted.
        work.recv().unwrap();
        let measurement = meter.stop(1);
        drop(done);
        thread.join().unwrap().unwrap_err();
        assert!(measurement.cost.cpu_ns > 10e6, "{measurement:?}");
        assert!(measurement.cost.context_switches >= 1.0, "{measurement:?}");
    }

    #[test]
    fn memory_that_was_written_to_is_resident() {
        let before = resident_bytes();
        let memory = vec![1_u8; 64 << 20];
        assert!(resident_bytes() >= before + (48 << 20), "{}", memory.len());
    }
}
