//! Instructions and allocations instead of time: what a deadline costs where the kernel's part, and the noise of a busy
//! machine, hide it. By valgrind, so also where the machine gives no counters away.
//!
//! Each operation is done so many times in one process and many more times in another one, with a deadline and
//! without. What the two processes differ by, divided by what the times differ by, is what one operation takes; the
//! start of the process, of the runtime and of its threads is in both. The median of the rounds is shown.
//!
//! mainspring's counter of time (`base/tsc.rs`) is of no use under valgrind, where two readings are always too far apart:
//! what it sets a deadline by is the system's clock then, which takes some 170 instructions more. So its
//! figures are too high.
//!
//! Only instructions in user mode are counted, of the measured process and no other. Reading the clock is a
//! system call under valgrind, so its instructions are next to nothing. What a runtime does on its own from time to time (a
//! monitor, a collector) is counted too, and more often than it should be, as all else is some 30 times slower; it
//! is as often in the run without a deadline. Go's allocations are those that its runtime counts; the others' are calls of
//! the C library's allocator.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::ValueEnum;

use crate::peers::PeerName;
use crate::programs;
use crate::statistics::percentile;
use crate::workloads::OperationName;

/// What is counted, and how often.
#[derive(Debug)]
pub(crate) struct Count {
    pub(crate) rounds: u32,
    /// Nothing stands for the usual ones.
    pub(crate) peers: Vec<PeerName>,
    /// Nothing stands for all operations.
    pub(crate) only: Vec<OperationName>,
}

/// For one operation.
#[derive(Clone, Copy, Debug)]
struct Counts {
    instructions: f64,
    allocations: f64,
}

impl Count {
    pub(crate) fn run(&self) -> io::Result<()> {
        let operations = if self.only.is_empty() { OperationName::value_variants() } else { &self.only };
        let peers = if self.peers.is_empty() { &PeerName::USUAL[..] } else { &self.peers };
        let own = std::env::current_exe()?;
        let programs: Vec<_> = peers.iter().map(|&peer| (peer, programs::find(peer, &own))).collect();
        println!(
            "{:<14} {:<14} {:>13} {:>13} {:>13} {:>13} {:>13}",
            "operation", "peer", "instructions", "without", "added", "allocations", "without",
        );
        for &operation in operations {
            for (peer, program) in &programs {
                let line = match program {
                    Ok(program) => self.line(program, *peer, operation)?,
                    Err(reason) => format!(" skipped: {reason}"),
                };
                println!("{:<14} {:<14}{line}", operation.name(), peer.to_string());
            }
        }
        Ok(())
    }

    fn line(&self, program: &Path, peer: PeerName, operation: OperationName) -> io::Result<String> {
        let (mut with, mut without, mut added) = (Vec::new(), Vec::new(), Vec::new());
        let mut allocations = [0.0; 2];
        for _ in 0..self.rounds {
            let plain = Counts::take(program, peer, operation, false)?;
            let guarded = Counts::take(program, peer, operation, true)?;
            with.push(guarded.instructions);
            without.push(plain.instructions);
            added.push(guarded.instructions - plain.instructions);
            allocations = [guarded.allocations, plain.allocations];
        }
        let median = |values: &mut Vec<f64>| percentile(values, 0.5);
        Ok(format!(
            " {:>13.1} {:>13.1} {:>13.1} {:>13.3} {:>13.3}",
            median(&mut with),
            median(&mut without),
            median(&mut added),
            allocations[0],
            allocations[1],
        ))
    }
}

impl Counts {
    fn take(program: &Path, peer: PeerName, operation: OperationName, guarded: bool) -> io::Result<Counts> {
        let (few, many) = match operation {
            OperationName::DeadlineSet | OperationName::DeadlineWait => (1_000, 21_000),
            OperationName::ReadDeadline => (500, 3_500),
        };
        let between = |count: fn(&Process) -> io::Result<u64>| {
            let process = |times| Process { program: program.to_owned(), peer, operation, guarded, times };
            let more = count(&process(many))? as f64 - count(&process(few))? as f64;
            io::Result::Ok(more / (many - few) as f64)
        };
        let allocations = if peer == PeerName::Go { Process::own_allocations } else { Process::allocations };
        Ok(Counts { instructions: between(Process::instructions)?, allocations: between(allocations)? })
    }
}

/// A process that does an operation so many times.
struct Process {
    program: PathBuf,
    peer: PeerName,
    operation: OperationName,
    guarded: bool,
    times: u64,
}

impl Process {
    fn instructions(&self) -> io::Result<u64> {
        let tool = ["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"];
        number(&self.under_valgrind(&tool)?, "refs:", "")
    }

    fn allocations(&self) -> io::Result<u64> {
        let tool = ["--tool=memcheck", "--leak-check=no", "--undef-value-errors=no"];
        number(&self.under_valgrind(&tool)?, "total heap usage:", " allocs")
    }

    /// As the process itself says on its standard output.
    fn own_allocations(&self) -> io::Result<u64> {
        let output = self.output(&mut Command::new(&self.program))?;
        number(&output.0, "allocations:", "")
    }

    /// What the tool says.
    fn under_valgrind(&self, tool: &[&str]) -> io::Result<String> {
        let mut valgrind = Command::new("valgrind");
        valgrind.arg("--fair-sched=yes").args(tool).arg(&self.program);
        match self.output(&mut valgrind) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(io::Error::other("valgrind is not installed (Debian's package valgrind)"))
            }
            output => Ok(output?.1),
        }
    }

    /// What it says on standard output, and on standard error.
    fn output(&self, command: &mut Command) -> io::Result<(String, String)> {
        command.args(["operate", &self.peer.to_string(), &self.operation.name()]);
        command.arg(format!("--times={}", self.times));
        if self.guarded {
            command.arg("--deadline");
        }
        let output = command.stdin(Stdio::null()).output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, error) = (text(&output.stdout), text(&output.stderr));
        if !output.status.success() {
            return Err(io::Error::other(format!("{command:?}: {}\n{error}", output.status)));
        }
        Ok((out, error))
    }
}

/// The number between two texts, with or without commas in it; the end of the line for an empty second one.
fn number(text: &str, before: &str, after: &str) -> io::Result<u64> {
    let found = text.lines().find_map(|line| {
        let rest = line.split_once(before)?.1;
        let digits = if after.is_empty() { rest } else { rest.split_once(after)?.0 };
        digits.trim().replace(',', "").parse().ok()
    });
    found.ok_or_else(|| io::Error::other(format!("no number after {before:?} in:\n{text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_valgrind_are_understood() {
        let text = "==1== \n==1== I   refs:      16,280,750\n";
        assert_eq!(number(text, "refs:", "").unwrap(), 16_280_750);
        let text = "==1==   total heap usage: 1,234 allocs, 1,200 frees, 99 bytes allocated\n";
        assert_eq!(number(text, "total heap usage:", " allocs").unwrap(), 1_234);
        assert!(number(text, "refs:", "").is_err());
    }
}
