//! Accepting Unix connections.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;

use rustix::net::SocketAddrAny;
use socket2::{Domain, SockAddr, Socket};

use super::stream::{sock_addr, stream_type};
use super::{SocketAddr, UnixStream};
use crate::net::accept::{Acceptor, BACKLOG, listener_methods};
use crate::net::deadlines::Deadlines;
use crate::net::descriptor::Descriptor;
use crate::poll::source::Direction;
use crate::time::Instant;

/// A Unix socket that accepts connections.
///
/// Dropping it leaves its name in the file system. Whoever listens there next has to remove that before.
///
/// # Examples
///
/// ```
/// use mainspring::net::{UnixListener, UnixStream};
///
/// # mainspring::block_on(async {
/// let path = std::env::temp_dir().join(format!("mainspring-doc-{}.socket", std::process::id()));
/// let listener = UnixListener::bind(&path)?;
/// let client = UnixStream::connect(&path).await?;
/// let (server, peer) = listener.accept().await?;
/// assert!(peer.is_unnamed());
/// std::fs::remove_file(&path)?;
/// server.write_all(b"hello").await?;
/// let mut buffer = [0; 5];
/// client.read_exact(&mut buffer).await?;
/// assert_eq!(&buffer, b"hello");
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
///
/// An abstract name, which is no file and goes with the last socket:
///
/// ```
/// use std::os::linux::net::SocketAddrExt;
///
/// use mainspring::net::{UnixListener, UnixStream, unix::SocketAddr};
///
/// # mainspring::block_on(async {
/// let addr = SocketAddr::from_abstract_name(format!("mainspring-doc-{}", std::process::id()))?;
/// let listener = UnixListener::bind_addr(&addr)?;
/// let client = UnixStream::connect_addr(&addr).await?;
/// assert_eq!(client.peer_addr()?.as_abstract_name(), addr.as_abstract_name());
/// listener.accept().await?;
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub struct UnixListener {
    acceptor: Acceptor<std::os::unix::net::UnixListener>,
}

listener_methods!(UnixListener, std::os::unix::net::UnixListener);

impl UnixListener {
    /// Listens at `path`, which must not exist, and is made.
    ///
    /// # Errors
    ///
    /// The system's, commonly `AddrInUse` if there is something at `path`, be it a socket where nobody listens
    /// any more; `InvalidInput` for a path that is too long for a socket, 107 bytes.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<UnixListener> {
        listen(&SockAddr::unix(path)?)
    }

    /// As [`bind`](UnixListener::bind), at an address that may be an abstract name, see
    /// [`std::os::linux::net::SocketAddrExt`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn bind_addr(addr: &SocketAddr) -> io::Result<UnixListener> {
        listen(&sock_addr(addr)?)
    }

    /// Waits for a connection and accepts it; the address is the peer's, commonly without a name.
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
    pub async fn accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        let accepted = self.acceptor.accept().await?;
        let stream = std::os::unix::net::UnixStream::from(accepted.socket);
        let peer = address_of(accepted.peer.as_ref(), &stream)?;
        Ok((Descriptor::new(stream)?.into(), peer))
    }
}

fn listen(addr: &SockAddr) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, stream_type(), None)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG as i32)?;
    UnixListener::register(socket.into())
}

/// The address of an accepted peer. Commonly it has none, and then there is no need to ask. (That is not read
/// from what accept(2) gave, as rustix takes no address for an empty one, and panics at a path of full length.)
fn address_of(
    peer: Option<&SocketAddrAny>,
    stream: &std::os::unix::net::UnixStream,
) -> io::Result<SocketAddr> {
    let named = peer.is_some_and(|peer| peer.addr_len() as usize > size_of::<libc::sa_family_t>());
    // An empty path is no name.
    if named { stream.peer_addr() } else { SocketAddr::from_pathname("") }
}
