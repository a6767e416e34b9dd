//! Side-by-side measurements: the same workloads on mainspring and on what users would pick instead.
//!
//! `compare` takes the peers in turn, each measurement in a fresh process (`run`), and prints a table.
//! A workload is a file in [`workloads`], generic over the [`peers::Peer`] that it runs on; a runtime to compare with is
//! a file in [`peers`]. Neither knows of the other, nor of rounds.

mod compare;
mod load;
mod machine;
mod measure;
mod peers;
mod programs;
mod statistics;
mod table;
mod workloads;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::compare::Comparison;
use crate::load::Load;
use crate::peers::PeerName;
use crate::workloads::{Plan, WorkloadName};

#[derive(Parser)]
#[command(about = "Measures mainspring beside other runtimes")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Takes the peers in turn on each workload, and prints a table
    Compare {
        /// How often each peer is taken on each workload
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        #[arg(long, default_value_t = 2.0, value_parser = seconds, help = SECONDS)]
        seconds: f64,
        /// Only this workload; can be given more than once
        #[arg(long, value_name = "NAME")]
        only: Vec<WorkloadName>,
        /// Only this peer; can be given more than once
        #[arg(long = "peer", value_name = "NAME")]
        peers: Vec<PeerName>,
        /// Writes every measurement to this file, one JSON object a line
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Measures one workload on one peer, and prints one JSON object
    Run {
        peer: PeerName,
        workload: WorkloadName,
        #[arg(long, default_value_t = 2.0, value_parser = seconds, help = SECONDS)]
        seconds: f64,
    },
    /// Sends echo messages to a server, as the workloads `echo` and `echo_blockers` ask for it
    #[command(hide = true)]
    Load {
        address: SocketAddr,
        #[arg(long)]
        connections: usize,
        #[arg(long)]
        message: usize,
        #[arg(long, value_parser = seconds)]
        seconds: f64,
    },
}

const SECONDS: &str = "How long a measurement takes, for the workloads that are measured over a time";

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.05..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number from 0.05 to 3600 is expected".to_owned()),
    }
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Compare { rounds, seconds, only, peers, json } => {
            Comparison { rounds, seconds, only, peers, json }.run()
        }
        Command::Run { peer, workload, seconds } => {
            let plan = Plan { time: Duration::from_secs_f64(seconds) };
            peer.run(workload, plan).map(|outcome| println!("{}", outcome.to_json()))
        }
        Command::Load { address, connections, message, seconds } => {
            Load { address, connections, message, time: Duration::from_secs_f64(seconds) }.run()
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
