//! 8,000 idle connections, on each a task that waits to read 64 bytes: their memory in the server's process, and what the
//! server does meanwhile. With a deadline of an hour for each read (`idle_conns`), or without (`idle_conns_plain`).
//! The clients are in another process.
//!
//! `RSS/conn` is by how much the resident memory of the server grew, for each connection, once all tasks wait; the first
//! 64 connections, with which come threads and the allocator's pools, are not among them. The kernel's memory is not in it.
//! `wake-ups in 1 s` are of all threads but the one that measures, and `CPU in 1 s` of the process, over five seconds at
//! the least. At the end each connection is sent a message, and its answer is compared, so that none is counted
//! that was lost.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::Plan;
use super::echo_server::{ACCEPTED, serve};
use crate::hold;
use crate::limits;
use crate::measure::{Figure, Measurement, Meter, Sleeps, resident_bytes};
use crate::peers::Peer;

const FIRST: usize = 64;
const CONNECTIONS: usize = 8_000;
const BUFFER: usize = 64;
pub(super) const TIMEOUT: Duration = Duration::from_secs(3_600);
/// At the least.
const IDLE: Duration = Duration::from_secs(5);
/// For the tasks that were spawned to come to their reads, and for what the runtime does after a burst.
const SETTLE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn run<P: Peer>(peer: &P, plan: Plan, timeout: Option<Duration>) -> io::Result<Measurement> {
    limits::raise_descriptors()?;
    let address = peer.run(serve::<P, BUFFER>(timeout))?;
    let mut clients = Clients::start(address)?;
    clients.connect(FIRST)?;
    let before = resident_bytes();
    clients.connect(CONNECTIONS)?;
    let growth = resident_bytes().saturating_sub(before);
    let sleeps = Sleeps::now();
    let meter = Meter::start();
    thread::sleep(plan.time.max(IDLE));
    let mut measurement = meter.stop(1);
    // The sleep above is one of them.
    let wake_ups = Sleeps::now().since(&sleeps).saturating_sub(1) as f64;
    let seconds = measurement.cost.wall_ns / 1e9;
    measurement.figures = vec![
        Figure::bytes("RSS/conn", growth as f64 / CONNECTIONS as f64),
        Figure::count("wake-ups in 1 s", wake_ups / seconds),
        Figure::nanoseconds("CPU in 1 s", measurement.cost.cpu_ns / seconds),
    ];
    clients.ask(hold::ECHO)?;
    clients.end()?;
    Ok(measurement)
}

/// The process of the clients; it ends when it sees the end of its input.
struct Clients {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    connected: usize,
}

impl Clients {
    fn start(address: SocketAddr) -> io::Result<Clients> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["hold", &address.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let to = child.stdin.take().expect("it is piped");
        let from = BufReader::new(child.stdout.take().expect("it is piped"));
        Ok(Clients { child, to, from, connected: 0 })
    }

    fn ask(&mut self, what: &str) -> io::Result<()> {
        writeln!(self.to, "{what}")?;
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        if line.trim_end() == hold::DONE { Ok(()) } else { Err(io::Error::other("the clients failed")) }
    }

    /// Makes more connections, and waits until the server has accepted them, and its tasks wait.
    fn connect(&mut self, more: usize) -> io::Result<()> {
        self.ask(&more.to_string())?;
        self.connected += more;
        let start = Instant::now();
        while ACCEPTED.load(Ordering::Relaxed) < self.connected {
            if start.elapsed() > PATIENCE {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the server does not accept"));
            }
            thread::sleep(Duration::from_millis(10));
        }
        thread::sleep(SETTLE);
        Ok(())
    }

    fn end(self) -> io::Result<()> {
        let Clients { mut child, to, .. } = self;
        drop(to);
        let status = child.wait()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("the clients failed: {status}"))) }
    }
}
