//! What `count` counts: the parts of `deadline_set`, `deadline_wait` and `read_deadline`, each a given number of times and
//! without a meter, so that two runs differ by the additional times alone.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use clap::ValueEnum;

use super::BURST;
use super::deadline_set::{Idle, StandIn};
use super::echo::BUFFER;
use super::echo_server::serve;
use crate::peers::Peer;

const MESSAGE: usize = 64;
/// Longer than a run takes: what a lazily moved timer puts off is not counted here, but measured by the workloads.
const TIMEOUT: Duration = Duration::from_secs(3_600);
const PATIENCE: Duration = Duration::from_secs(10);

/// Each with a deadline, or without, to be compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum OperationName {
    /// The clock is read, and around what is ready at once there is a fresh deadline
    DeadlineSet,
    /// The same around what is pending at first
    DeadlineWait,
    /// A message of 64 bytes on one connection is read and written by a server
    ReadDeadline,
}

impl OperationName {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().expect("no operation is hidden").get_name().to_owned()
    }
}

pub(crate) fn operate<P: Peer>(peer: &P, name: OperationName, guarded: bool, count: u64) -> io::Result<()> {
    match name {
        OperationName::DeadlineSet => repeat(peer, StandIn { pending: 0 }, guarded, count),
        OperationName::DeadlineWait => repeat(peer, StandIn { pending: 1 }, guarded, count),
        OperationName::ReadDeadline => echo(peer, guarded, count),
    }
}

fn repeat<P: Peer>(peer: &P, read: StandIn, guarded: bool, count: u64) -> io::Result<()> {
    peer.run(async move {
        let mut connection = Idle::<P>::connect().await?;
        for n in 1..=count {
            connection.operate(guarded, read).await?;
            if n % BURST as u64 == 0 {
                P::yield_now().await;
            }
        }
        Ok(())
    })
}

fn echo<P: Peer>(peer: &P, guarded: bool, count: u64) -> io::Result<()> {
    let address = peer.run(serve::<P, BUFFER>(guarded.then_some(TIMEOUT)))?;
    // A process of its own, whose instructions are not counted.
    let status = Command::new(std::env::current_exe()?)
        .args(["ping", &address.to_string(), &format!("--messages={count}")])
        .status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("the client failed: {status}"))) }
}

/// The client: one message after the other, and each answer is compared.
pub(crate) fn ping(address: SocketAddr, messages: u64) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut message = [b'x'; MESSAGE];
    let mut answer = [0; MESSAGE];
    for n in 0..messages {
        message[..8].copy_from_slice(&n.to_le_bytes());
        stream.write_all(&message)?;
        stream.read_exact(&mut answer)?;
        if answer != message {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "another message than was sent"));
        }
    }
    Ok(())
}
