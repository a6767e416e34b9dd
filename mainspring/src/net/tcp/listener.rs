//! Accepting TCP connections.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use super::{TcpSocket, TcpStream};
use crate::net::accept::{Acceptor, BACKLOG, listener_methods};
use crate::net::addr::{ToSocketAddrs, resolve};
use crate::net::deadlines::Deadlines;
use crate::net::descriptor::Descriptor;
use crate::poll::source::Direction;
use crate::time::Instant;

/// A TCP socket that accepts connections.
///
/// # Examples
///
/// ```
/// use mainspring::net::{TcpListener, TcpStream};
///
/// # mainspring::block_on(async {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let client = TcpStream::connect(listener.local_addr()?).await?;
/// let (server, peer) = listener.accept().await?;
/// assert_eq!(peer, client.local_addr()?);
/// server.write_all(b"hello").await?;
/// let mut buffer = [0; 5];
/// client.read_exact(&mut buffer).await?;
/// assert_eq!(&buffer, b"hello");
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub struct TcpListener {
    acceptor: Acceptor<std::net::TcpListener>,
}

listener_methods!(TcpListener, std::net::TcpListener);

impl TcpListener {
    /// Listens at the first of the addresses that can be had. The address may be used again while
    /// connections of an earlier listener linger (SO_REUSEADDR). For other options, see [`TcpSocket`].
    ///
    /// # Errors
    ///
    /// That of the last address, commonly `AddrInUse`; `InvalidInput` for what is no address; the
    /// resolver's.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn bind(addr: impl ToSocketAddrs) -> io::Result<TcpListener> {
        let mut last = None;
        for &addr in &*resolve(addr).await? {
            match listen(addr) {
                Ok(listener) => return Ok(listener),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("`resolve` gives at least one address"))
    }

    /// Waits for a connection and accepts it. A connection that has failed before it was accepted, because its
    /// peer has aborted it for example, is passed over.
    ///
    /// # Errors
    ///
    /// `TimedOut` after the deadline; otherwise the system's, above all that no descriptor is left (EMFILE,
    /// ENFILE). The connection waits then, and so does the next call: 5 ms, and longer after each further error, at
    /// most 1 s, until a connection is accepted. So a loop may log the error and go on; it need not sleep.
    ///
    /// If the runtime at hand cannot take an accepted connection, as it has shut down, the connection is closed.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no connection has been accepted.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let accepted = self.acceptor.accept().await?;
        let stream = std::net::TcpStream::from(accepted.socket);
        let peer = match accepted.peer.map(SocketAddr::try_from) {
            Some(Ok(peer)) => peer,
            _ => stream.peer_addr()?,
        };
        Ok((Descriptor::new(stream)?.into(), peer))
    }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::for_addr(addr)?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}
