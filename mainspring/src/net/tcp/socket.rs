//! A TCP socket before it listens or connects. The one way in which sockets are made.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use super::{TcpListener, TcpStream};
use crate::net::descriptor::Descriptor;
use crate::net::operation::operation;
use crate::poll::source::Direction;

/// A TCP socket that neither listens nor is connected, to set options on it before it does:
/// [`TcpListener::bind`] and [`TcpStream::connect`] are enough otherwise.
///
/// Options that have no method here are set through [`socket2`](https://docs.rs/socket2)'s `SockRef`, which
/// borrows the socket.
///
/// # Examples
///
/// ```
/// use mainspring::net::TcpSocket;
///
/// # mainspring::block_on(async {
/// let socket = TcpSocket::new_v4()?;
/// socket.set_reuseaddr(true)?;
/// socket.set_recv_buffer_size(65_536)?;
/// socket.bind("127.0.0.1:0".parse().unwrap())?;
/// let listener = socket.listen(1024)?;
///
/// let socket = TcpSocket::new_v4()?;
/// socket.bind("127.0.0.1:0".parse().unwrap())?;
/// let local = socket.local_addr()?;
/// let client = socket.connect(listener.local_addr()?).await?;
/// let (_server, peer) = listener.accept().await?;
/// assert_eq!(peer, local);
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub struct TcpSocket {
    socket: Socket,
}

impl TcpSocket {
    /// A socket for IPv4.
    ///
    /// # Errors
    ///
    /// The system's, above all that no descriptor is left.
    pub fn new_v4() -> io::Result<TcpSocket> {
        TcpSocket::new(Domain::IPV4)
    }

    /// A socket for IPv6.
    ///
    /// # Errors
    ///
    /// The system's, above all that no descriptor is left.
    pub fn new_v6() -> io::Result<TcpSocket> {
        TcpSocket::new(Domain::IPV6)
    }

    pub(super) fn for_addr(addr: SocketAddr) -> io::Result<TcpSocket> {
        TcpSocket::new(Domain::for_address(addr))
    }

    fn new(domain: Domain) -> io::Result<TcpSocket> {
        let kind = Type::STREAM.nonblocking().cloexec();
        Ok(TcpSocket { socket: Socket::new(domain, kind, Some(Protocol::TCP))? })
    }

    /// Takes over a socket of std's, which need not be connected: one that `socket2` has made, for example. It
    /// is put into non-blocking mode.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn from_std_stream(stream: std::net::TcpStream) -> io::Result<TcpSocket> {
        stream.set_nonblocking(true)?;
        Ok(TcpSocket { socket: stream.into() })
    }

    /// Whether the address may be bound while connections of an earlier socket linger (SO_REUSEADDR).
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn reuseaddr(&self) -> io::Result<bool> {
        self.socket.reuse_address()
    }

    /// Sets whether the address may be bound while connections of an earlier socket linger (SO_REUSEADDR).
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn set_reuseaddr(&self, reuse: bool) -> io::Result<()> {
        self.socket.set_reuse_address(reuse)
    }

    /// Whether several sockets may be bound to the address at once (SO_REUSEPORT).
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn reuseport(&self) -> io::Result<bool> {
        self.socket.reuse_port()
    }

    /// Sets whether several sockets may be bound to the address at once (SO_REUSEPORT). Connections are spread
    /// over those that listen.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn set_reuseport(&self, reuse: bool) -> io::Result<()> {
        self.socket.set_reuse_port(reuse)
    }

    /// Whether the connection is probed while it is idle (SO_KEEPALIVE).
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn keepalive(&self) -> io::Result<bool> {
        self.socket.keepalive()
    }

    /// Sets whether the connection is probed while it is idle (SO_KEEPALIVE). For the times, see `socket2`'s
    /// `TcpKeepalive`.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn set_keepalive(&self, keepalive: bool) -> io::Result<()> {
        self.socket.set_keepalive(keepalive)
    }

    /// Whether small writes are sent at once (TCP_NODELAY).
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.socket.tcp_nodelay()
    }

    /// Sets whether small writes are sent at once instead of being gathered (TCP_NODELAY); off at first.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.socket.set_tcp_nodelay(nodelay)
    }

    /// The size of the kernel's buffer for sending, in bytes (SO_SNDBUF). Linux gives twice what was set.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn send_buffer_size(&self) -> io::Result<u32> {
        self.socket.send_buffer_size().map(|size| u32::try_from(size).unwrap_or(u32::MAX))
    }

    /// Sets the size of the kernel's buffer for sending, in bytes (SO_SNDBUF).
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn set_send_buffer_size(&self, bytes: u32) -> io::Result<()> {
        self.socket.set_send_buffer_size(bytes as usize)
    }

    /// The size of the kernel's buffer for receiving, in bytes (SO_RCVBUF). Linux gives twice what was set.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn recv_buffer_size(&self) -> io::Result<u32> {
        self.socket.recv_buffer_size().map(|size| u32::try_from(size).unwrap_or(u32::MAX))
    }

    /// Sets the size of the kernel's buffer for receiving, in bytes (SO_RCVBUF).
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn set_recv_buffer_size(&self, bytes: u32) -> io::Result<()> {
        self.socket.set_recv_buffer_size(bytes as usize)
    }

    /// The address that the socket is bound to.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    /// Binds the socket to an address of this machine; port 0 is one that is free.
    ///
    /// # Errors
    ///
    /// The system's, commonly `AddrInUse`.
    pub fn bind(&self, addr: SocketAddr) -> io::Result<()> {
        self.socket.bind(&addr.into())
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// The system's, commonly `ConnectionRefused`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the socket.
    pub async fn connect(self, addr: SocketAddr) -> io::Result<TcpStream> {
        match self.socket.connect(&addr.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        // Only now: a socket that is not connecting yet counts as hung up.
        let descriptor = Descriptor::new(std::net::TcpStream::from(self.socket))?;
        operation(&descriptor, Direction::Write, connected).await?;
        Ok(TcpStream::from(descriptor))
    }

    /// Listens. `backlog` is how many connections may wait to be accepted; the kernel's own limit (somaxconn)
    /// may be lower.
    ///
    /// # Errors
    ///
    /// The system's, commonly `AddrInUse`.
    pub fn listen(self, backlog: u32) -> io::Result<TcpListener> {
        self.socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        TcpListener::register(self.socket.into())
    }
}

/// How a connection attempt stands.
fn connected(io: &std::net::TcpStream) -> io::Result<()> {
    if let Some(error) = io.take_error()? {
        return Err(error);
    }
    match io.peer_addr() {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Err(io::ErrorKind::WouldBlock.into()),
        Err(error) => Err(error),
    }
}

impl AsFd for TcpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for TcpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl fmt::Debug for TcpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpSocket").field("fd", &self.as_raw_fd()).finish()
    }
}
