//! Unix sockets that carry datagrams.
//!
//! What is their own beside UDP's: addresses are paths or abstract names, and the queue that can be full is the
//! receiver's. Of a receiver that the sender is connected to, the kernel tells when it has room again. Of any other one
//! it tells only when that takes a datagram of the same sender; and each attempt that fails is told as if there were
//! room, as the buffer that was allocated for it is freed. So edges are of no use there, and
//! [`UnixDatagram::send_to`] tries again after pauses. (Linux 6.18; `unix_dgram_sendmsg` and `unix_write_space`.)

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::{RecvFlags, SocketAddrUnix};

use crate::net::datagram::{self, datagram_socket};
use crate::net::descriptor::Descriptor;
use crate::net::operation::operation;
use crate::poll::source::Direction;

/// The first and the longest pause before a datagram is sent again to somebody whose queue was full. The longest costs
/// some 60 system calls a second while the receiver sleeps.
const PAUSES: (Duration, Duration) = (Duration::from_micros(250), Duration::from_millis(16));

/// A Unix socket that carries datagrams: none is lost, doubled or overtaken on the way, and a sender waits while the
/// receiver's queue is full.
///
/// All operations take `&self`. Several tasks may use them at once; each datagram goes to one of them.
///
/// That the peer is gone shows in sending, with `ConnectionRefused` or, by path, `NotFound`. The system does not tell
/// it to a receiver, who waits on: set a deadline where that matters.
///
/// # Examples
///
/// ```
/// use mainspring::net::UnixDatagram;
///
/// # mainspring::block_on(async {
/// let (a, b) = UnixDatagram::pair()?;
/// a.send(b"one").await?;
/// a.send(b"").await?;
/// let mut buffer = [0; 100];
/// assert_eq!(b.recv(&mut buffer).await?, 3);
/// assert_eq!(b.recv(&mut buffer).await?, 0);
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
///
/// With paths:
///
/// ```
/// use mainspring::net::UnixDatagram;
///
/// # mainspring::block_on(async {
/// # let folder = std::env::temp_dir().join(format!("mainspring-datagram-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// # let path = folder.join("log");
/// let log = UnixDatagram::bind(&path)?;
/// let client = UnixDatagram::unbound()?;
/// client.send_to(b"hello", &path).await?;
/// let mut buffer = [0; 100];
/// let (length, sender) = log.recv_from(&mut buffer).await?;
/// assert_eq!(&buffer[..length], b"hello");
/// assert!(sender.is_unnamed());
/// # std::fs::remove_dir_all(&folder)?;
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub struct UnixDatagram {
    descriptor: Descriptor<std::os::unix::net::UnixDatagram>,
}

datagram_socket!(UnixDatagram, std::os::unix::net::UnixDatagram, SocketAddr);

/// std has no call for this on stable.
fn peek_from(io: &std::os::unix::net::UnixDatagram, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    let (count, _, address) = rustix::net::recvfrom(io, buffer, RecvFlags::PEEK)?;
    let Some(address) = address else { return Ok((count, SocketAddr::from_pathname("")?)) };
    // The longest path has no zero at its end, and the kernel counts one all the same. rustix panics at that, and std's
    // address of it is made by std alone.
    if address.addr_len() as usize > size_of::<libc::sockaddr_un>() {
        let text = "the sender's path is too long to be told without receiving";
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    let address = SocketAddrUnix::try_from(address)?;
    let address = match (address.path_bytes(), address.abstract_name()) {
        (Some(path), _) => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
        (None, Some(name)) => SocketAddr::from_abstract_name(name)?,
        (None, None) => SocketAddr::from_pathname("")?,
    };
    Ok((count, address))
}

impl UnixDatagram {
    /// A socket with a path, which it makes. Dropping it leaves the path, at which nothing can be bound until it is
    /// removed.
    ///
    /// # Errors
    ///
    /// The system's, commonly `AddrInUse`; `InvalidInput` for a path that is too long, some 100 bytes.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<UnixDatagram> {
        UnixDatagram::try_from(std::os::unix::net::UnixDatagram::bind(path)?)
    }

    /// As [`bind`](UnixDatagram::bind), with an address, which may be an abstract name: that needs no file and goes
    /// with the socket.
    ///
    /// # Errors
    ///
    /// The system's, commonly `AddrInUse`.
    pub fn bind_addr(addr: &SocketAddr) -> io::Result<UnixDatagram> {
        UnixDatagram::try_from(std::os::unix::net::UnixDatagram::bind_addr(addr)?)
    }

    /// A socket without a name, which can send but be sent nothing.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn unbound() -> io::Result<UnixDatagram> {
        UnixDatagram::try_from(std::os::unix::net::UnixDatagram::unbound()?)
    }

    /// Two sockets without names that are connected to one another.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn pair() -> io::Result<(UnixDatagram, UnixDatagram)> {
        let (a, b) = std::os::unix::net::UnixDatagram::pair()?;
        Ok((UnixDatagram::try_from(a)?, UnixDatagram::try_from(b)?))
    }

    /// Makes the socket with this path the peer: [`send`](UnixDatagram::send) sends to it, and only what it sends is
    /// received from now on. A connected socket can be connected again, to another peer.
    ///
    /// # Errors
    ///
    /// The system's: `NotFound`, `ConnectionRefused` if nobody has the path any more, `PermissionDenied` also if the
    /// peer is connected to somebody else.
    pub fn connect(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.descriptor.get().connect(path)
    }

    /// As [`connect`](UnixDatagram::connect), with an address.
    ///
    /// # Errors
    ///
    /// As [`connect`](UnixDatagram::connect).
    pub fn connect_addr(&self, addr: &SocketAddr) -> io::Result<()> {
        self.descriptor.get().connect_addr(addr)
    }

    /// Sends a datagram to the socket with this path. Waits while its queue is full.
    ///
    /// The system does not tell when a receiver that this socket is not connected to has room again. So this tries
    /// again by itself, after 250 us at first and then ever more seldom, every 16 ms at last. Where a receiver is often
    /// behind, connect to it and use [`send`](UnixDatagram::send).
    ///
    /// # Errors
    ///
    /// As [`send`](UnixDatagram::send); `NotFound`, `ConnectionRefused` if nobody has the path any more,
    /// `PermissionDenied` also if the receiver is connected to somebody else.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing has been sent.
    pub async fn send_to(&self, bytes: &[u8], path: impl AsRef<Path>) -> io::Result<usize> {
        self.send_to_addr(bytes, &SocketAddr::from_pathname(path)?).await
    }

    /// As [`send_to`](UnixDatagram::send_to), with an address: to answer the sender that
    /// [`recv_from`](UnixDatagram::recv_from) tells, if it has a name.
    ///
    /// # Errors
    ///
    /// As [`send_to`](UnixDatagram::send_to).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing has been sent.
    pub async fn send_to_addr(&self, bytes: &[u8], addr: &SocketAddr) -> io::Result<usize> {
        datagram::sent_after_pauses(&self.descriptor, PAUSES, |io| io.send_to_addr(bytes, addr)).await
    }

    /// As [`send_to`](UnixDatagram::send_to), without waiting.
    ///
    /// Do not wait with [`writable`](UnixDatagram::writable) after `WouldBlock`: it says nothing of receivers that this
    /// socket is not connected to, and commonly is ready at once.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if the receiver's queue is full; otherwise as [`send_to`](UnixDatagram::send_to).
    pub fn try_send_to(&self, bytes: &[u8], path: impl AsRef<Path>) -> io::Result<usize> {
        let addr = SocketAddr::from_pathname(path)?;
        self.descriptor.call_now(Direction::Write, |io| io.send_to_addr(bytes, &addr))
    }
}
