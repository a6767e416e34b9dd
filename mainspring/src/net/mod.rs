//! Sockets with deadlines.
//!
//! All types are `Send` and `Sync`, and their operations take `&self`, so one task can read while
//! another writes. They register with the runtime at hand when they are made, and can be used from any
//! task, thread or executor.
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
//! Not as in Go: an operation that was woken because its socket is ready, and comes to run only after
//! the deadline has passed, fails too. What is there to be read stays there.

mod addr;
mod deadlines;
mod descriptor;
mod operation;
mod tcp;

pub use self::addr::ToSocketAddrs;
pub use self::deadlines::Deadlines;
pub use self::tcp::{
    OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, TcpListener, TcpStream, WriteHalf,
};
