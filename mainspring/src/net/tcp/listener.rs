//! Accepting TCP connections.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::{Domain, Protocol, Socket, Type};

use super::TcpStream;
use crate::net::addr::{ToSocketAddrs, resolve};
use crate::net::deadlines::Deadlines;
use crate::net::descriptor::{Descriptor, Transfer};
use crate::net::operation::Operation;
use crate::poll::source::Direction;
use crate::time::Instant;

/// How many connections may wait to be accepted; the kernel's own limit (somaxconn) may be lower.
const BACKLOG: i32 = 4096;

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
#[derive(Debug)]
pub struct TcpListener {
    descriptor: Descriptor<std::net::TcpListener>,
}

impl Transfer for (TcpStreamParts, SocketAddr) {}

/// An accepted socket that is not registered yet.
struct TcpStreamParts(std::net::TcpStream);

impl TcpListener {
    /// Listens at the first of the addresses that can be had. The address may be used again while
    /// connections of an earlier listener linger (SO_REUSEADDR).
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
        for addr in resolve(addr).await? {
            match listen(addr) {
                Ok(listener) => return TcpListener::register(listener),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("`resolve` gives at least one address"))
    }

    fn register(listener: std::net::TcpListener) -> io::Result<TcpListener> {
        Ok(TcpListener { descriptor: Descriptor::new(listener)? })
    }

    /// Waits for a connection and accepts it. A connection that its peer has aborted before it was accepted
    /// is passed over.
    ///
    /// # Errors
    ///
    /// `TimedOut` after the deadline; otherwise the system's, above all that no descriptor is left (EMFILE,
    /// ENFILE). The connection waits then, and trying again at once fails at once: wait a little. If the
    /// runtime at hand cannot take an accepted connection, as it has shut down, the connection is closed.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no connection has been accepted.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (TcpStreamParts(stream), peer) =
            Operation::new(&self.descriptor, Direction::Read, None, accept).await?;
        Ok((TcpStream::register(stream)?, peer))
    }

    /// The address that the socket listens at.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.descriptor.get().local_addr()
    }

    /// Sets the deadline for accepting; `None` clears it. See [the module](crate::net).
    ///
    /// # Errors
    ///
    /// If the runtime that the socket is registered with has shut down.
    pub fn set_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
        self.descriptor.set_deadline(&[Direction::Read], deadline.into())
    }

    /// A handle to the deadlines, for use while somebody else owns the listener.
    pub fn deadlines(&self) -> Deadlines {
        self.descriptor.deadlines()
    }

    /// Takes the socket out of the runtime. It stays in non-blocking mode.
    pub fn into_std(self) -> std::net::TcpListener {
        self.descriptor.into_inner()
    }
}

fn listen(addr: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket =
        Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn accept(listener: &std::net::TcpListener) -> io::Result<(TcpStreamParts, SocketAddr)> {
    loop {
        match acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok((fd, peer)) => {
                let stream = std::net::TcpStream::from(fd);
                let peer = match peer.map(SocketAddr::try_from) {
                    Some(Ok(peer)) => peer,
                    _ => stream.peer_addr()?,
                };
                return Ok((TcpStreamParts(stream), peer));
            }
            Err(rustix::io::Errno::CONNABORTED) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Registers std's listener with the runtime at hand and puts it into non-blocking mode.
impl TryFrom<std::net::TcpListener> for TcpListener {
    type Error = io::Error;

    fn try_from(listener: std::net::TcpListener) -> io::Result<TcpListener> {
        listener.set_nonblocking(true)?;
        TcpListener::register(listener)
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
