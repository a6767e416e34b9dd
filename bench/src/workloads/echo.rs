//! TCP echo over the loopback interface: 64 connections, one message of 64 bytes in flight on each.
//! The load comes from another process, so what is measured is the server alone.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::Plan;
use super::echo_server::serve;
use crate::load::{self, Answered, Load};
use crate::measure::{Figure, Measurement, Meter};
use crate::peers::Peer;

const CONNECTIONS: usize = 64;
const MESSAGE: usize = 64;

/// Room for more than a message, as a server that knows nothing of its clients would have.
pub(super) const BUFFER: usize = 4096;

pub(super) fn run<P: Peer>(peer: &P, plan: Plan) -> io::Result<Measurement> {
    with_load(peer, plan.time, None, |load| {
        let meter = Meter::start();
        let answered = load.measure("echo")?;
        let mut measurement = meter.stop(answered.messages);
        measurement.figures.push(Figure::nanoseconds("p50", answered.p50_ns));
        measurement.figures.push(Figure::nanoseconds("p99", answered.p99_ns));
        Ok(measurement)
    })
}

/// The load generator, which is warm and waits.
pub(super) struct LoadProcess {
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

/// Starts a server, whose reads have a timeout if one is given, and the load generator, which measures for
/// `time` whenever it is told to.
pub(super) fn with_load<P: Peer, R>(
    peer: &P,
    time: Duration,
    timeout: Option<Duration>,
    measure: impl FnOnce(&mut LoadProcess) -> io::Result<R>,
) -> io::Result<R> {
    let address = peer.run(serve::<P, BUFFER>(timeout))?;
    let mut child = start_load(address, time)?;
    // The process ends when it sees the end of its input.
    let measured = LoadProcess::wait_for(&mut child).and_then(|mut load| measure(&mut load));
    if measured.is_err() {
        // It may have ended by itself, which is as good.
        let _ = child.kill();
    }
    let status = child.wait()?;
    if measured.is_ok() && !status.success() {
        return Err(io::Error::other(format!("the load generator failed: {status}")));
    }
    measured
}

fn start_load(address: SocketAddr, time: Duration) -> io::Result<Child> {
    let load = Load { address, connections: CONNECTIONS, message: MESSAGE, time };
    Command::new(std::env::current_exe()?)
        .args(load.arguments())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
}

impl LoadProcess {
    /// Waits until it is warm.
    fn wait_for(child: &mut Child) -> io::Result<LoadProcess> {
        let to = child.stdin.take().expect("it is piped");
        let mut from = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        from.read_line(&mut line)?;
        if line != load::READY {
            return Err(io::Error::other("the load generator did not get ready"));
        }
        Ok(LoadProcess { to, from })
    }

    /// Lets it go, and waits for what it has seen in this phase, which is of the kind that is named.
    pub(super) fn measure(&mut self, kind: &str) -> io::Result<Answered> {
        writeln!(self.to, "{kind}")?;
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }
}
