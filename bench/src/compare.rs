//! The peers in turn, each measurement in a process of its own, and what came of all of them.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::ValueEnum;
use serde::Serialize;

use crate::machine::Reading;
use crate::measure::Outcome;
use crate::peers::PeerName;
use crate::programs;
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
    /// Nothing stands for the usual ones.
    pub(crate) peers: Vec<PeerName>,
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
        let peers = if self.peers.is_empty() { &PeerName::USUAL[..] } else { &self.peers };
        let own = std::env::current_exe()?;
        let peers: Vec<_> = peers.iter().map(|&peer| (peer, programs::find(peer, &own))).collect();
        let count = workloads.len() * peers.len() * self.rounds as usize;
        let mut records: Vec<Record> = Vec::with_capacity(count);
        // Rounds are the outer loop: what changes on the machine within minutes meets all workloads.
        for round in 0..self.rounds {
            for &workload in workloads {
                for (peer, program) in &peers {
                    let peer = *peer;
                    eprintln!("{}/{count} round {}: {workload} on {peer}", records.len() + 1, round + 1);
                    let (foreign, outcome) = match program {
                        Ok(program) => self.measure(program, workload, peer)?,
                        Err(reason) => (0.0, Outcome::Skipped(reason.clone())),
                    };
                    let record = Record { round, workload, peer, foreign, outcome };
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

    /// What other processes used of the machine meanwhile, and what came of it.
    fn measure(&self, program: &Path, workload: WorkloadName, peer: PeerName) -> io::Result<(f64, Outcome)> {
        let before = Reading::take()?;
        let output = Command::new(program)
            .args(["run", &peer.to_string(), &workload.to_string()])
            .arg(format!("--seconds={}", self.seconds))
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        let foreign = Reading::take()?.foreign_since(&before);
        if !output.status.success() {
            // What the others came to is worth having all the same; it has said more on standard error.
            return Ok((foreign, Outcome::Skipped(format!("it failed, {}", output.status))));
        }
        Ok((foreign, serde_json::from_slice(&output.stdout)?))
    }
}
