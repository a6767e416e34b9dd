//! What else the machine did: the CPU time of all processes, from `/proc`, less that of a measurement.

use std::fs;
use std::io;

/// A reading of the machine's CPU time, and of what this process and its children had of it.
pub(crate) struct Reading {
    /// Ticks in which any processor was busy, or taken away by a hypervisor.
    busy: u64,
    /// Ticks of all processors.
    total: u64,
    /// Ticks of this process and of its children that have ended and been waited for.
    own: u64,
}

impl Reading {
    /// # Errors
    ///
    /// If `/proc` cannot be read, or holds what this does not understand.
    pub(crate) fn take() -> io::Result<Reading> {
        let stat = fs::read_to_string("/proc/stat")?;
        let own = fs::read_to_string("/proc/self/stat")?;
        let (busy, total) = machine_ticks(&stat).ok_or_else(|| strange("/proc/stat"))?;
        let own = process_ticks(&own).ok_or_else(|| strange("/proc/self/stat"))?;
        Ok(Reading { busy, total, own })
    }

    /// Which part of the machine (0 to 1) others used since `earlier`.
    pub(crate) fn foreign_since(&self, earlier: &Reading) -> f64 {
        let busy = self.busy.saturating_sub(earlier.busy);
        let own = self.own.saturating_sub(earlier.own);
        let total = self.total.saturating_sub(earlier.total).max(1);
        busy.saturating_sub(own) as f64 / total as f64
    }
}

fn strange(file: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{file} is not as expected"))
}

/// Busy ticks and all ticks, from the first line: user, nice, system, idle, iowait, irq, softirq, steal.
/// What follows is contained in user and nice.
fn machine_ticks(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().take(8).map_while(|word| word.parse().ok()).collect();
    let idle = ticks.get(3)? + ticks.get(4)?;
    let total: u64 = ticks.iter().sum();
    Some((total - idle, total))
}

/// utime, stime, cutime and cstime: the 14th to 17th field, counted from the process's name, which is
/// the second and may hold spaces and parentheses.
fn process_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks: Vec<u64> =
        rest.split_whitespace().skip(11).take(4).map_while(|word| word.parse().ok()).collect();
    (ticks.len() == 4).then(|| ticks.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_iowait_are_not_busy_and_steal_is() {
        let stat = "cpu  10 1 5 100 20 2 3 4 9 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(machine_ticks(stat), Some((25, 145)));
        assert_eq!(machine_ticks("intr 5"), None);
    }

    #[test]
    fn a_process_may_be_called_anything() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 100 0 0 0 7 8 90 10 20 0 1 0 5 0 0";
        assert_eq!(process_ticks(stat), Some(115));
        assert_eq!(process_ticks("42 (a) S 1"), None);
    }

    #[test]
    fn this_machine_can_be_read() {
        let before = Reading::take().unwrap();
        let after = Reading::take().unwrap();
        assert!((0.0..=1.0).contains(&after.foreign_since(&before)));
    }
}
