//! The standard streams of a child, as far as they are pipes: this process's end of them.
//!
//! Such an end belongs to nobody else, so its non-blocking mode is nobody else's either.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Stdio;

use rustix::fs::OFlags;

use crate::net::traits::{impl_read, impl_write};
use crate::net::{Async, Deadlines};
use crate::time::Instant;

macro_rules! pipe {
    ($(#[$meta:meta])* $name:ident, $what:literal) => {
        $(#[$meta])*
        ///
        /// It has deadlines like a socket; see [`net`](crate::net).
        #[derive(Debug)]
        pub struct $name {
            pipe: Async<std::process::$name>,
        }

        impl $name {
            /// Registers std's pipe with the runtime at hand.
            ///
            /// # Errors
            ///
            /// As [`Async::new`].
            pub fn from_std(pipe: std::process::$name) -> io::Result<$name> {
                Ok($name { pipe: Async::new(pipe)? })
            }

            /// Takes the pipe out of the runtime and puts it back into blocking mode.
            ///
            /// # Errors
            ///
            /// The system's.
            pub fn into_owned_fd(self) -> io::Result<OwnedFd> {
                let fd = OwnedFd::from(self.pipe.into_inner());
                let flags = rustix::fs::fcntl_getfl(&fd)?;
                rustix::fs::fcntl_setfl(&fd, flags - OFlags::NONBLOCK)?;
                Ok(fd)
            }

            #[doc = concat!("Sets the deadline for ", $what, "; `None` clears it. See [the module](crate::net).")]
            ///
            /// # Errors
            ///
            /// If the runtime that the pipe is registered with has shut down.
            pub fn set_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
                self.pipe.set_deadline(deadline)
            }

            /// A handle to the deadline, for use while somebody else owns the pipe.
            pub fn deadlines(&self) -> Deadlines {
                self.pipe.deadlines()
            }
        }

        impl AsFd for $name {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.pipe.as_fd()
            }
        }

        /// For another child, which reads or writes this pipe.
        impl TryFrom<$name> for Stdio {
            type Error = io::Error;

            fn try_from(pipe: $name) -> io::Result<Stdio> {
                pipe.into_owned_fd().map(Stdio::from)
            }
        }
    };
}

pipe! {
    /// The pipe from which a child reads its standard input. Dropping it is how the child learns that no more
    /// comes; the closing functions of the I/O traits do not do that.
    ChildStdin, "writing"
}

pipe! {
    /// The pipe to which a child writes its standard output.
    ChildStdout, "reading"
}

pipe! {
    /// The pipe to which a child writes its standard error.
    ChildStderr, "reading"
}

impl_write!(ChildStdin, |this| &this.pipe);
impl_write!(&ChildStdin, |this| &this.pipe);

impl ChildStdin {
    /// Writes as much of `bytes` as the pipe takes.
    ///
    /// # Errors
    ///
    /// `BrokenPipe` if the child has closed its standard input or ended; `TimedOut` after the deadline; otherwise the
    /// system's.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing has been written.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.pipe.write(bytes).await
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    ///
    /// As [`write`](ChildStdin::write). How much was written before an error is lost.
    ///
    /// # Cancel safety
    ///
    /// None: how much was written before the future was dropped is lost.
    pub async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        self.pipe.write_all(bytes).await
    }
}

macro_rules! reading {
    ($name:ident) => {
        impl_read!($name, |this| &this.pipe);
        impl_read!(&$name, |this| &this.pipe);

        impl $name {
            /// Reads what is there, at most as much as fits; 0 means that the child, and whoever it has handed
            /// the pipe to, has closed it.
            ///
            /// # Errors
            ///
            /// `TimedOut` after the deadline; otherwise the system's.
            ///
            /// # Cancel safety
            ///
            /// If the future is dropped, nothing has been read.
            pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
                self.pipe.read(buffer).await
            }

            /// Reads until `buffer` is full.
            ///
            /// # Errors
            ///
            /// `UnexpectedEof` if the pipe was closed before; otherwise as [`read`](Self::read).
            ///
            /// # Cancel safety
            ///
            /// None: how much was read before the future was dropped is lost.
            pub async fn read_exact(&self, buffer: &mut [u8]) -> io::Result<()> {
                self.pipe.read_exact(buffer).await
            }

            pub(super) fn as_async(&self) -> &Async<std::process::$name> {
                &self.pipe
            }
        }
    };
}

reading!(ChildStdout);
reading!(ChildStderr);
