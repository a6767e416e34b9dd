//! TCP connections.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use socket2::SockRef;

use super::TcpSocket;
use super::split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf};
use crate::net::addr::{ToSocketAddrs, resolve};
use crate::net::connect;
use crate::net::descriptor::Descriptor;
use crate::net::stream::{Stream, TcpCalls, stream_methods};
use crate::poll::source::Direction;
use crate::time::Instant;

/// A TCP connection.
///
/// Reading and writing take `&self`; several tasks may do so at once, and each call that is woken gets
/// what is there. The poll functions of the I/O traits keep one waker for reading and one for writing: use
/// them from one task at a time, or the `async` functions.
///
/// Options that have no method here, those for keeping a connection alive for example, are set through
/// [`socket2`](https://docs.rs/socket2)'s `SockRef`, which borrows the socket:
///
/// ```
/// use std::time::Duration;
///
/// use mainspring::net::{TcpListener, TcpStream};
/// use socket2::{SockRef, TcpKeepalive};
///
/// # mainspring::block_on(async {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let stream = TcpStream::connect(listener.local_addr()?).await?;
/// let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60));
/// SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
/// assert!(SockRef::from(&stream).keepalive()?);
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
///
/// # Examples
///
/// Two ends of a connection, and a deadline:
///
/// ```
/// use mainspring::net::{TcpListener, TcpStream};
/// use mainspring::time::{Duration, Instant};
///
/// # mainspring::block_on(async {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let addr = listener.local_addr()?;
/// let client = TcpStream::connect_timeout(addr, Duration::from_secs(5)).await?;
/// let (server, _) = listener.accept().await?;
/// client.write_all(b"hello").await?;
/// server.set_read_deadline(Instant::now() + Duration::from_secs(5))?;
/// let mut buffer = [0; 5];
/// server.read_exact(&mut buffer).await?;
/// assert_eq!(&buffer, b"hello");
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub struct TcpStream {
    descriptor: Descriptor<std::net::TcpStream>,
}

stream_methods!(TcpStream, std::net::TcpStream, TcpCalls);

impl TcpStream {
    /// Connects to the first of the addresses that answers.
    ///
    /// Several addresses, those of a name for example, are tried as RFC 8305 has it: the two families take turns,
    /// beginning with that of the first address; the next one is tried as soon as one has failed, or when 250 ms
    /// have passed without an answer, while the earlier attempts go on. The first connection that is made
    /// is taken, and the other attempts are ended.
    ///
    /// # Errors
    ///
    /// That of the attempt that failed last, commonly `ConnectionRefused`; `InvalidInput` for what is no address;
    /// the resolver's.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes all sockets.
    pub async fn connect(addr: impl ToSocketAddrs) -> io::Result<TcpStream> {
        connect::race(&resolve(addr).await?, connect_to).await
    }

    /// As [`connect`](TcpStream::connect), but gives up when `timeout` has passed, for all of it: the
    /// lookup of a name and all addresses. A connection that is made has no deadline.
    ///
    /// # Errors
    ///
    /// `TimedOut`; otherwise as there.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes all sockets.
    pub async fn connect_timeout(addr: impl ToSocketAddrs, timeout: Duration) -> io::Result<TcpStream> {
        TcpStream::connect_deadline(addr, Instant::now() + timeout).await
    }

    /// As [`connect_timeout`](TcpStream::connect_timeout), until a point in time. One that has passed makes
    /// it fail without an attempt.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes all sockets.
    pub async fn connect_deadline(addr: impl ToSocketAddrs, deadline: Instant) -> io::Result<TcpStream> {
        connect::until(deadline, TcpStream::connect(addr)).await
    }

    /// Whether small writes are sent at once (TCP_NODELAY).
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.descriptor.get().nodelay()
    }

    /// Sets whether small writes are sent at once instead of being gathered (TCP_NODELAY); off at first.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.descriptor.get().set_nodelay(nodelay)
    }

    /// How long closing lets unsent data linger (SO_LINGER).
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        SockRef::from(self).linger()
    }

    /// Sets how long closing lets unsent data linger, in whole seconds; zero resets the connection. With
    /// any other value, dropping the stream blocks its thread until the data is sent or that time is over.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        SockRef::from(self).set_linger(linger)
    }

    /// How many hops packets of this connection may make (IP_TTL); for IPv4.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn ttl(&self) -> io::Result<u32> {
        self.descriptor.get().ttl()
    }

    /// Sets how many hops packets of this connection may make (IP_TTL); for IPv4.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.descriptor.get().set_ttl(ttl)
    }
}

async fn connect_to(addr: SocketAddr) -> io::Result<TcpStream> {
    TcpSocket::for_addr(addr)?.connect(addr).await
}
