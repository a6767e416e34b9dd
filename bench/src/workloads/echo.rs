//! TCP echo over the loopback interface: 64 connections, one message of 64 bytes in flight on each.
//! The load comes from another process, so what is measured is the server alone.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use super::Plan;
use crate::load::{self, Load};
use crate::measure::{Figure, Measurement, Meter};
use crate::peers::Peer;

const CONNECTIONS: usize = 64;
const MESSAGE: usize = 64;

/// Room for more than a message, as a server that knows nothing of its clients would have.
const BUFFER: usize = 4096;

pub(super) fn run<P: Peer>(peer: &P, plan: Plan) -> io::Result<Measurement> {
    let address = peer.run(serve::<P>())?;
    let mut child = start_load(address, plan)?;
    let measured = measure(&mut child);
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

fn start_load(address: SocketAddr, plan: Plan) -> io::Result<Child> {
    let load = Load { address, connections: CONNECTIONS, message: MESSAGE, time: plan.time };
    Command::new(std::env::current_exe()?)
        .args(load.arguments())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
}

/// Waits until the load generator is warm, lets it go, and measures until it has a result.
fn measure(child: &mut Child) -> io::Result<Measurement> {
    let mut to_load = child.stdin.take().expect("it is piped");
    let mut from_load = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut line = String::new();
    from_load.read_line(&mut line)?;
    if line != load::READY {
        return Err(io::Error::other("the load generator did not get ready"));
    }
    let meter = Meter::start();
    to_load.write_all(b"go\n")?;
    line.clear();
    from_load.read_line(&mut line)?;
    let result: load::Answered = serde_json::from_str(&line)?;
    let mut measurement = meter.stop(result.messages);
    measurement.figures.push(Figure::nanoseconds("p50", result.p50_ns));
    measurement.figures.push(Figure::nanoseconds("p99", result.p99_ns));
    Ok(measurement)
}

async fn serve<P: Peer>() -> io::Result<SocketAddr> {
    let (listener, address) = P::bind().await?;
    drop(P::spawn(async move {
        while let Ok(stream) = P::accept(&listener).await {
            drop(P::spawn(echo::<P>(stream)));
        }
    }));
    Ok(address)
}

async fn echo<P: Peer>(mut stream: P::Stream) {
    let mut buffer = [0; BUFFER];
    // An error ends the connection, as its end does.
    while let Ok(count @ 1..) = P::read(&mut stream, &mut buffer).await {
        if P::write_all(&mut stream, &buffer[..count]).await.is_err() {
            break;
        }
    }
}
