//! Standard input, output and error of this process.
//!
//! These descriptors are shared, with the shell and with whatever else it has started, and what is set on them
//! all of these see. So they are *never put into non-blocking mode*; a program that does that makes others fail
//! (`cat`: "Resource temporarily unavailable"). Instead, each call says for itself that it must not block
//! (`RWF_NOWAIT`), and the poller says when it is worth while. Where the system has no such call for the
//! descriptor, it is asked first (poll(2)), and the call is made inside of
//! [`mainspring::blocking`](crate::blocking), for the rare case that somebody else is faster. What is written
//! then is at most 4,096 bytes at a time, for which a pipe has room when it says so. A regular file is read and
//! written inside of `blocking`.
//!
//! A terminal has no such call, and one that is slow or was stopped (Ctrl-S) says that it has room when it has some
//! and blocks whoever writes more. So it is opened once more, by its entry in `/proc`: what is opened so is ours alone,
//! and non-blocking (libuv does that, too). Where it cannot be opened, because it is another user's or `/proc` is
//! missing, it is treated as above, and a task that writes to it may have to wait with all its branches.
//!
//! There is no thread behind it: no byte is read ahead of who asks for it, a read that is given up takes nothing
//! along, and a `select!` over standard input leaves its other branches running.
//!
//! # Beside std's
//!
//! There is no buffer here: what is written is with the system at once. `println!` and [`std::io::stdout`] keep
//! back a line that is not complete; flush them before writing here, or the order changes. [`std::io::stdin`]
//! reads ahead, and what it has read is not found here. For lines, put a buffer of the I/O traits' around
//! [`Stdin`].
//!
//! # Examples
//!
//! ```
//! # mainspring::block_on(async {
//! mainspring::io::stdout()?.write_all(b"hello\n").await?;
//! # std::io::Result::Ok(()) }).unwrap();
//! ```

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, IsTerminal};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::fs::{FileType, Mode, OFlags, fcntl_getfl, major, minor};
use rustix::io::{Errno, ReadWriteFlags, fcntl_dupfd_cloexec, preadv2, pwritev2};

use crate::net::Deadlines;
use crate::net::ask;
use crate::net::descriptor::Descriptor;
use crate::net::stream::{Calls, Stream};
use crate::net::traits::{impl_read, impl_write};
use crate::poll::source::Direction;
use crate::time::Instant;

/// What a pipe takes at once if it says that it takes anything (PIPE_BUF).
const PIPE_ROOM: usize = 4096;

/// The device of which each open makes a new terminal.
const PTMX: (u32, u32) = (5, 2);

/// The calls for a descriptor that others use as well.
pub(crate) struct Shared;

/// For the position that is the descriptor's own.
const CURRENT: u64 = u64::MAX;

/// Whether a call that was not to block could not do that. Of a regular file EAGAIN says that it has to be
/// fetched from the disk; [`ask`] tells it from an empty pipe. EPERM is what an old container's filter says of calls
/// that it does not know.
fn did_not(result: rustix::io::Result<usize>) -> bool {
    use Errno as E;
    matches!(result, Err(E::AGAIN | E::OPNOTSUPP | E::NOSYS | E::PERM | E::INVAL | E::SPIPE))
}

impl Calls for Shared {
    const SHORT_READ_TAKES_ALL: bool = false;
    const SHORT_WRITE_FILLS: bool = false;

    fn read(io: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
        let result = preadv2(io, &mut [IoSliceMut::new(buffer)], CURRENT, ReadWriteFlags::NOWAIT);
        if did_not(result) {
            ask(io, PollFlags::IN)?;
            return Ok(crate::blocking(|| rustix::io::read(io, buffer))?);
        }
        Ok(result?)
    }

    fn read_uninit(io: &impl AsFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        // The calls with flags read into initialised memory only.
        let mut bytes = [0; 8192];
        let len = bytes.len().min(buffer.len());
        let count = Shared::read(io, &mut bytes[..len])?;
        buffer[..count].write_copy_of_slice(&bytes[..count]);
        Ok(count)
    }

    fn write(io: &impl AsFd, bytes: &[u8]) -> io::Result<usize> {
        Shared::write_buffers(io, &[IoSlice::new(bytes)])
    }

    fn write_buffers(io: &impl AsFd, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let result = pwritev2(io, buffers, CURRENT, ReadWriteFlags::NOWAIT);
        if !did_not(result) {
            return Ok(result?);
        }
        ask(io, PollFlags::OUT)?;
        // The first that is not empty will do: it is no promise that all are written.
        let bytes = buffers.iter().find(|bytes| !bytes.is_empty()).map_or(&[][..], |bytes| bytes);
        let is_file = FileType::from_raw_mode(rustix::fs::fstat(io)?.st_mode) == FileType::RegularFile;
        let len = if is_file { bytes.len() } else { bytes.len().min(PIPE_ROOM) };
        Ok(crate::blocking(|| rustix::io::write(io, &bytes[..len]))?)
    }
}

/// The least descriptor for ours. The three before it may be closed and are then not ours to fill.
const FIRST: i32 = 3;

/// A descriptor of its own for each handle, so that each can be registered and closed.
fn open(shared: BorrowedFd<'_>) -> io::Result<Descriptor<OwnedFd>> {
    let duplicate = fcntl_dupfd_cloexec(shared, FIRST)?;
    Descriptor::of_any(if duplicate.is_terminal() {
        reopen(&duplicate).unwrap_or(duplicate)
    } else {
        duplicate
    })
}

/// Opens a terminal once more, for this process alone and without blocking.
fn reopen(terminal: &OwnedFd) -> io::Result<OwnedFd> {
    let device = rustix::fs::fstat(terminal)?.st_rdev;
    // The other end of a terminal would be that of a new one.
    if (major(device), minor(device)) == PTMX {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let access = fcntl_getfl(terminal)? & OFlags::RWMODE;
    let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let path = format!("/proc/self/fd/{}", terminal.as_raw_fd());
    Ok(fcntl_dupfd_cloexec(rustix::fs::open(path, flags, Mode::empty())?, FIRST)?)
}

macro_rules! standard {
    ($(#[$meta:meta])* $name:ident, $(#[$function_meta:meta])* $function:ident, $direction:ident) => {
        $(#[$meta])*
        ///
        /// See [the module](self) for what is particular about it.
        pub struct $name {
            descriptor: Descriptor<OwnedFd>,
        }

        $(#[$function_meta])*
        ///
        /// # Errors
        ///
        /// The system's, commonly that no descriptor is left.
        pub fn $function() -> io::Result<$name> {
            Ok($name { descriptor: open(std::io::$function().as_fd())? })
        }

        impl $name {
            /// Sets the deadline; `None` clears it. See [`net`](crate::net). A call to a regular file that is on its
            /// way is not ended by it.
            ///
            /// # Errors
            ///
            /// If the runtime that the handle is registered with has shut down.
            pub fn set_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
                self.descriptor.set_deadline(&[Direction::$direction], deadline.into())
            }

            /// A handle to the deadline, for use while somebody else owns this one.
            pub fn deadlines(&self) -> Deadlines {
                self.descriptor.deadlines()
            }
        }

        impl Stream for $name {
            type Io = OwnedFd;
            type Calls = Shared;

            fn descriptor(&self) -> &Descriptor<OwnedFd> {
                &self.descriptor
            }

            /// It is not ours to close.
            fn end(&self) -> io::Result<()> {
                Ok(())
            }
        }

        impl AsFd for $name {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.descriptor.as_fd()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}

standard! {
    /// Standard input.
    Stdin,
    /// A handle to standard input, registered with the runtime at hand. Several may exist; each byte goes to one
    /// of them.
    stdin, Read
}

standard! {
    /// Standard output, without a buffer.
    Stdout,
    /// A handle to standard output, registered with the runtime at hand.
    stdout, Write
}

standard! {
    /// Standard error, without a buffer.
    Stderr,
    /// A handle to standard error, registered with the runtime at hand.
    stderr, Write
}

impl_read!(Stdin, |this| this);
impl_read!(&Stdin, |this| *this);

impl Stdin {
    /// Reads what is there, at most as much as fits. 0 means the end, or that `buffer` is empty.
    ///
    /// # Errors
    ///
    /// `TimedOut` after the deadline; otherwise the system's.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing has been read.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.descriptor.read::<Shared>(buffer).await
    }
}

macro_rules! writing {
    ($name:ident) => {
        impl_write!($name, |this| this);
        impl_write!(&$name, |this| *this);

        impl $name {
            /// Writes as much of `bytes` as is taken.
            ///
            /// # Errors
            ///
            /// `BrokenPipe` if nobody reads any more; `TimedOut` after the deadline; otherwise the system's.
            ///
            /// # Cancel safety
            ///
            /// If the future is dropped, nothing has been written.
            pub async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
                self.descriptor.write::<Shared>(bytes).await
            }

            /// Writes all of `bytes`.
            ///
            /// # Errors
            ///
            /// As [`write`](Self::write). How much was written before an error is lost.
            ///
            /// # Cancel safety
            ///
            /// None: how much was written before the future was dropped is lost.
            pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
                while !bytes.is_empty() {
                    let count = self.write(bytes).await?;
                    if count == 0 {
                        return Err(io::ErrorKind::WriteZero.into());
                    }
                    bytes = &bytes[count..];
                }
                Ok(())
            }
        }
    };
}

writing!(Stdout);
writing!(Stderr);
