//! The server of the workloads that echo: a task for each connection, with a buffer in it.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::peers::Peer;

/// How many connections the servers of this process have accepted, and spawned a task for.
pub(super) static ACCEPTED: AtomicUsize = AtomicUsize::new(0);

/// Listens at the address that it returns, for as long as the process lives. With a timeout, each read is given a fresh
/// deadline.
pub(super) async fn serve<P: Peer, const BUFFER: usize>(timeout: Option<Duration>) -> io::Result<SocketAddr> {
    let (listener, address) = P::bind().await?;
    drop(P::spawn(async move {
        while let Ok(stream) = P::accept(&listener).await {
            // Two kinds of tasks, so that one that needs no deadline has no room for one.
            match timeout {
                Some(timeout) => drop(P::spawn(echo_within::<P, BUFFER>(stream, timeout))),
                None => drop(P::spawn(echo::<P, BUFFER>(stream))),
            }
            ACCEPTED.fetch_add(1, Ordering::Relaxed);
        }
    }));
    Ok(address)
}

async fn echo<P: Peer, const BUFFER: usize>(mut stream: P::Stream) {
    let mut buffer = [0; BUFFER];
    // An error ends the connection, as its end does.
    while let Ok(count @ 1..) = P::read(&mut stream, &mut buffer).await {
        if P::write_all(&mut stream, &buffer[..count]).await.is_err() {
            break;
        }
    }
}

async fn echo_within<P: Peer, const BUFFER: usize>(mut stream: P::Stream, timeout: Duration) {
    let mut buffer = [0; BUFFER];
    while let Ok(count @ 1..) = P::read_within(&mut stream, &mut buffer, timeout).await {
        if P::write_all(&mut stream, &buffer[..count]).await.is_err() {
            break;
        }
    }
}
