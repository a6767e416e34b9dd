//! Side-by-side measurements: the same workloads on mainspring and on what users would pick instead.
//!
//! `compare` takes the peers in turn, each measurement in a fresh process (`run`), and prints a table.
//! A workload is a file in [`workloads`], generic over the [`peers::Peer`] that it runs on; a runtime to compare with is
//! a file in [`peers`]. Neither knows of the other, nor of rounds.

mod compare;
mod count;
mod hold;
mod limits;
mod load;
mod machine;
mod measure;
mod peers;
mod programs;
mod statistics;
mod table;
mod workloads;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::compare::Comparison;
use crate::count::Count;
use crate::load::Load;
use crate::measure::Outcome;
use crate::peers::PeerName;
use crate::workloads::{Measure, Operate, OperationName, Plan, WorkloadName};

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
    /// Counts the instructions and the allocations of a deadline, by valgrind, and prints a table
    Count {
        /// How often each is counted; the median is shown
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        /// Only this operation; can be given more than once
        #[arg(long, value_name = "NAME")]
        only: Vec<OperationName>,
        /// Only this peer; can be given more than once
        #[arg(long = "peer", value_name = "NAME")]
        peers: Vec<PeerName>,
    },
    /// Does an operation so many times, as `count` asks for it
    #[command(hide = true)]
    Operate {
        peer: PeerName,
        operation: OperationName,
        #[arg(long)]
        times: u64,
        #[arg(long)]
        deadline: bool,
    },
    /// Holds idle connections to a server, as the workload `idle_conns` asks for it
    #[command(hide = true)]
    Hold { address: SocketAddr },
    /// Sends one echo message after the other to a server, as `operate` asks for it
    #[command(hide = true)]
    Ping {
        address: SocketAddr,
        #[arg(long)]
        messages: u64,
    },
    /// Sends echo messages to a server, as the workloads of `echo`'s kind ask for it
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
            peer.run(Measure(workload, plan))
                .map(|outcome| println!("{}", outcome.unwrap_or_else(Outcome::Skipped).to_json()))
        }
        Command::Count { rounds, only, peers } => Count { rounds, peers, only }.run(),
        Command::Operate { peer, operation, times, deadline } => {
            peer.run(Operate { operation, deadline, times }).and_then(|done| done.map_err(io::Error::other))
        }
        Command::Hold { address } => hold::run(address),
        Command::Ping { address, messages } => workloads::ping(address, messages),
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
