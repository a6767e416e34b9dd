//! Unix sockets, and what [`UnixStream::split`] and [`UnixStream::into_split`] give.

mod cred;
mod datagram;
mod listener;
mod split;
mod stream;

pub use std::os::unix::net::SocketAddr;

pub use self::cred::UCred;
pub use self::datagram::UnixDatagram;
pub use self::listener::UnixListener;
pub use self::split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
pub use self::stream::UnixStream;
