//! TCP, and what [`TcpStream::split`] and [`TcpStream::into_split`] give.

mod listener;
mod socket;
mod split;
mod stream;

pub use self::listener::TcpListener;
pub use self::socket::TcpSocket;
pub use self::split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
pub use self::stream::TcpStream;
