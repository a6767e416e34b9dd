//! Sockets with deadlines.
//!
//! All types are `Send` and `Sync`, and their operations take `&self`, so one task can read while
//! another writes. They register with the runtime at hand when they are made, and can be used from any
//! task, thread or executor.
//!
//! # Options
//!
//! The common ones are methods. All others are there through [`socket2`](https://docs.rs/socket2)'s `SockRef`, which
//! borrows any socket here, see [`TcpStream`].
//!
//! # Deadlines
//!
//! Every socket has a deadline for reading and one for writing, with the meaning that they have in Go's
//! `net` package. A deadline is a point in time, not a duration. It applies to all operations to come and
//! to those that are waiting now. Once it has passed, operations fail at once with
//! [`io::ErrorKind::TimedOut`](std::io::ErrorKind::TimedOut), also if there is data, until it is moved;
//! moving it lets I/O go on, with no byte lost. One that lies in the past cancels what is waiting. It may be
//! set from any thread at any time. Setting one before each read costs a clock reading and a store.
//!
//! Setting a deadline that lies in the past calls the wakers of those who wait, on the thread that sets it.
//! As with every wake-up, do not hold a lock meanwhile that such a waker takes.
//!
//! A stream has no deadline yet while it connects: that takes one of its own, [`TcpStream::connect_deadline`] or
//! [`UnixStream::connect_deadline`].
//!
//! When a write times out, what the socket had taken before is on its way. [`write`](TcpStream::write) has either
//! taken something, and says how much, or fails and has taken nothing; [`write_all`](TcpStream::write_all) may have
//! written a part.
//!
//! Not as in Go: an operation that was woken because its socket is ready, and comes to run only after
//! the deadline has passed, fails too. What is there to be read stays there.

mod accept;
mod addr;
mod any;
mod connect;
mod datagram;
mod deadlines;
pub(crate) mod descriptor;
mod lookup;
mod operation;
pub(crate) mod stream;
pub mod tcp;
pub(crate) mod traits;
mod udp;
pub mod unix;

pub use self::addr::{ToSocketAddrs, lookup_host, lookup_host_until};
pub use self::any::Async;
pub(crate) use self::any::ask;
pub use self::deadlines::Deadlines;
#[doc(inline)]
pub use self::tcp::{TcpListener, TcpSocket, TcpStream};
pub use self::udp::UdpSocket;
#[doc(inline)]
pub use self::unix::{UnixDatagram, UnixListener, UnixStream};
