//! Unix connections.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf};
use super::{SocketAddr, UCred};
use crate::net::connect;
use crate::net::descriptor::Descriptor;
use crate::net::stream::{Stream, UnixCalls, stream_methods};
use crate::poll::source::Direction;
use crate::time::{Instant, sleep};

/// A connection between two processes of one machine, or within one.
///
/// Reading and writing take `&self`; several tasks may do so at once, and each call that is woken gets
/// what is there. The poll functions of the I/O traits keep one waker for reading and one for writing: use
/// them from one task at a time, or the `async` functions.
///
/// Descriptors are passed with `recvmsg` and `sendmsg`, `rustix`'s for example, in
/// [`read_with`](UnixStream::read_with) and [`write_with`](UnixStream::write_with).
///
/// # Examples
///
/// ```
/// use mainspring::net::UnixStream;
///
/// # mainspring::block_on(async {
/// let (a, b) = UnixStream::pair()?;
/// a.write_all(b"hello").await?;
/// let mut buffer = [0; 5];
/// b.read_exact(&mut buffer).await?;
/// assert_eq!(&buffer, b"hello");
/// assert_eq!(b.peer_cred()?.pid(), Some(std::process::id() as i32));
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub struct UnixStream {
    descriptor: Descriptor<std::os::unix::net::UnixStream>,
}

stream_methods!(UnixStream, std::os::unix::net::UnixStream, UnixCalls);

impl UnixStream {
    /// Connects to the socket that listens at `path`.
    ///
    /// If as many connections wait there as may, this waits until one is accepted. The kernel does not say when
    /// that is, so it is tried again after a pause that grows from 1 ms to 50 ms, and connections that come later
    /// may be taken first. (tokio and Go fail with `WouldBlock`.)
    ///
    /// # Errors
    ///
    /// The system's, commonly `NotFound` or `ConnectionRefused`; `InvalidInput` for a path that is too long
    /// for a socket, 107 bytes.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the socket.
    pub async fn connect(path: impl AsRef<Path>) -> io::Result<UnixStream> {
        connect_to(&SockAddr::unix(path)?).await
    }

    /// As [`connect`](UnixStream::connect), to an address that may be an abstract name, see
    /// [`std::os::linux::net::SocketAddrExt`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn connect_addr(addr: &SocketAddr) -> io::Result<UnixStream> {
        connect_to(&sock_addr(addr)?).await
    }

    /// As [`connect`](UnixStream::connect), but gives up when `timeout` has passed.
    ///
    /// # Errors
    ///
    /// `TimedOut`; otherwise as there.
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn connect_timeout(path: impl AsRef<Path>, timeout: Duration) -> io::Result<UnixStream> {
        UnixStream::connect_deadline(path, Instant::now() + timeout).await
    }

    /// As [`connect_timeout`](UnixStream::connect_timeout), until a point in time. One that has passed makes
    /// it fail without an attempt.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn connect_deadline(path: impl AsRef<Path>, deadline: Instant) -> io::Result<UnixStream> {
        connect::until(deadline, UnixStream::connect(path)).await
    }

    /// Two ends of a connection without an address.
    ///
    /// # Errors
    ///
    /// The system's, above all that no descriptor is left.
    pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
        let (one, other) = Socket::pair(Domain::UNIX, stream_type(), None)?;
        Ok((Descriptor::new(one.into())?.into(), Descriptor::new(other.into())?.into()))
    }

    /// Who the peer is, as the kernel says: the process that connected, that began to listen, or that made
    /// the pair.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn peer_cred(&self) -> io::Result<UCred> {
        UCred::of_peer(self)
    }
}

/// The first pause of who finds a listener's queue full, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// Connecting to a Unix socket succeeds or fails at once, except that it would have to wait if the listener's queue
/// is full: connect(2) says EAGAIN then and not EINPROGRESS, since nothing is in progress, and no event of
/// this socket tells when there is room. So the only way, short of a thread that blocks in connect(2), which nobody
/// could call back, is to ask again, at a rate that costs nothing.
async fn connect_to(addr: &SockAddr) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, stream_type(), None)?;
    let mut pause = PAUSES.0;
    while let Err(error) = socket.connect(addr) {
        match error.kind() {
            io::ErrorKind::WouldBlock => {
                sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
            }
            io::ErrorKind::Interrupted => {}
            _ => return Err(error),
        }
    }
    // Only now: a socket that is not connected counts as hung up.
    Ok(Descriptor::new(socket.into())?.into())
}

pub(super) fn stream_type() -> Type {
    Type::STREAM.nonblocking().cloexec()
}

/// socket2's form of std's address: of a path or of an abstract name, which both begin with their first byte.
pub(super) fn sock_addr(addr: &SocketAddr) -> io::Result<SockAddr> {
    use std::ffi::OsStr;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;

    if let Some(path) = addr.as_pathname() {
        return SockAddr::unix(path);
    }
    match addr.as_abstract_name() {
        Some(name) => SockAddr::unix(OsStr::from_bytes(&[b"\0", name].concat())),
        None => Err(io::Error::new(io::ErrorKind::InvalidInput, "an address without a name")),
    }
}
