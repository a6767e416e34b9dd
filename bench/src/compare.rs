//! The peers in turn, each measurement in a process of its own, and what came of all of them.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::ValueEnum;
use serde::Serialize;

use crate::machine::Reading;
use crate::measure::Outcome;
use crate::peers::PeerName;
use crate::table;
use crate::workloads::WorkloadName;

/// Which part of the machine others may use before a measurement counts as disturbed. Picked by feel.
pub(crate) const FOREIGN_MAX: f64 = 0.05;

/// What is compared, and how often.
#[derive(Debug)]
pub(crate) struct Comparison {
    pub(crate) rounds: u32,
    pub(crate) seconds: f64,
    /// Nothing stands for all workloads.
    pub(crate) only: Vec<WorkloadName>,
    pub(crate) json: Option<PathBuf>,
}

/// One measurement, as a line of the JSON file.
#[derive(Debug, Serialize)]
pub(crate) struct Record {
    pub(crate) round: u32,
    pub(crate) workload: WorkloadName,
    pub(crate) peer: PeerName,
    /// Which part of the machine (0 to 1) other processes used meanwhile.
    pub(crate) foreign: f64,
    pub(crate) outcome: Outcome,
}

impl Comparison {
    pub(crate) fn run(&self) -> io::Result<()> {
        let mut json = self.json.as_ref().map(File::create).transpose()?;
        let workloads = if self.only.is_empty() { WorkloadName::value_variants() } else { &self.only };
        let peers = PeerName::value_variants();
        let count = workloads.len() * peers.len() * self.rounds as usize;
        let mut records: Vec<Record> = Vec::with_capacity(count);
        // Rounds are the outer loop: what changes on the machine within minutes meets all workloads.
        for round in 0..self.rounds {
            for &workload in workloads {
                for &peer in peers {
                    eprintln!("{}/{count} round {}: {workload} on {peer}", records.len() + 1, round + 1);
                    let record = self.measure(round, workload, peer)?;
                    if let Some(json) = &mut json {
                        writeln!(json, "{}", serde_json::to_string(&record)?)?;
                    }
                    records.push(record);
                }
            }
        }
        print!("{}", table::render(&records));
        Ok(())
    }

    fn measure(&self, round: u32, workload: WorkloadName, peer: PeerName) -> io::Result<Record> {
        let before = Reading::take()?;
        let output = Command::new(std::env::current_exe()?)
            .args(["run", &peer.to_string(), &workload.to_string()])
            .arg(format!("--seconds={}", self.seconds))
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        let foreign = Reading::take()?.foreign_since(&before);
        if !output.status.success() {
            return Err(io::Error::other(format!("{workload} on {peer} failed: {}", output.status)));
        }
        let outcome = serde_json::from_slice(&output.stdout)?;
        Ok(Record { round, workload, peer, foreign, outcome })
    }
}
