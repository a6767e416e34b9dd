//! Any other descriptor that can be waited for: pipes, terminals, timerfd, inotify, pidfd, tun devices, sockets of
//! other families.
//!
//! Knows nothing of what the descriptor is: how it is read and written is the user's call, or read(2) and
//! write(2). So a short transfer tells nothing here, unlike on a stream: a terminal gives one line at a time, inotify
//! whole events, a packet pipe one packet. Only a call that would have blocked takes readiness away.
//!
//! Invariant: the descriptor that was registered is the one that is asked, read and written. `T` is lent out
//! shared only.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;

use super::descriptor::{Descriptor, Unmeasured};
use super::operation::operation;
use super::stream::{File, Stream};
use super::traits::{impl_read, impl_write};
use crate::poll::source::Direction;

/// A descriptor of the operating system that is waited for by the runtime: anything that epoll takes.
///
/// There are two ways to use it. [`read`](Async::read) and [`write`](Async::write) make the system calls of these
/// names. For whatever else is to be called, there are [`read_with`](Async::read_with) and
/// [`write_with`](Async::write_with): they call a function as soon as the descriptor is ready and again each time
/// that it has become so, until the function gives something else than
/// [`WouldBlock`](std::io::ErrorKind::WouldBlock).
///
/// It reads and writes through the I/O traits as well, also by reference; closing it there does nothing.
///
/// The two sides have deadlines like those of a socket; see [the module](crate::net).
///
/// What [`AsFd`] gives for `T` must be one and the same descriptor at all times, which is why there is no access
/// to a `&mut T`. A `T` that changes it all the same, behind a cell, breaks no memory, but waits for the wrong
/// thing.
///
/// # Examples
///
/// A timer of the system's:
///
/// ```
/// use mainspring::net::Async;
/// use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
///
/// # mainspring::block_on(async {
/// let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
/// let timer = Async::new(timer)?;
/// let none = Timespec { tv_sec: 0, tv_nsec: 0 };
/// let soon = Itimerspec { it_interval: none, it_value: Timespec { tv_nsec: 1_000_000, ..none } };
/// rustix::time::timerfd_settime(timer.get_ref(), TimerfdTimerFlags::empty(), &soon)?;
/// let mut expirations = [0; 8];
/// timer.read_exact(&mut expirations).await?;
/// assert_eq!(u64::from_ne_bytes(expirations), 1);
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub struct Async<T: AsFd> {
    descriptor: Descriptor<T>,
}

impl<T: AsFd> Async<T> {
    /// Registers a descriptor with the runtime at hand and puts it into non-blocking mode. That mode belongs to
    /// what is open, not to the descriptor: other processes that share it, and duplicates, see it too.
    ///
    /// # Errors
    ///
    /// `Unsupported` for what epoll does not take, a regular file or a folder: those never make anybody wait in
    /// epoll's sense, and are for [`mainspring::blocking`](crate::blocking). `AlreadyExists` if this very
    /// descriptor is registered. Otherwise the system's. The mode is left as it was.
    pub fn new(io: T) -> io::Result<Async<T>> {
        let descriptor = Descriptor::new(io).map_err(explain)?;
        // Only now, so that what is refused keeps its mode.
        let flags = rustix::fs::fcntl_getfl(&descriptor)?;
        if !flags.contains(OFlags::NONBLOCK) {
            rustix::fs::fcntl_setfl(&descriptor, flags | OFlags::NONBLOCK)?;
        }
        Ok(Async { descriptor })
    }

    /// What was given to [`new`](Async::new).
    pub fn get_ref(&self) -> &T {
        self.descriptor.get()
    }

    /// Takes the descriptor out of the runtime. It stays in non-blocking mode.
    pub fn into_inner(self) -> T {
        self.descriptor.into_inner()
    }

    /// Waits until the descriptor can be read from, has hung up or has an error.
    ///
    /// The system is asked at each call, so it was true when it was said, and what it says takes nothing away:
    /// it can be called as often as one likes, whatever has been done with the descriptor since. Who shares
    /// the descriptor may be faster, then reading gives `WouldBlock` and this is called again.
    /// [`read_with`](Async::read_with) has that loop in it.
    ///
    /// # Errors
    ///
    /// `TimedOut` after the deadline for reading; otherwise the system's.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub fn readable(&self) -> impl Future<Output = io::Result<()>> {
        operation(&self.descriptor, Direction::Read, |io| ask(io, READABLE))
    }

    /// Waits until the descriptor can be written to, has hung up or has an error; otherwise as
    /// [`readable`](Async::readable).
    ///
    /// # Errors
    ///
    /// `TimedOut` after the deadline for writing; otherwise the system's.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub fn writable(&self) -> impl Future<Output = io::Result<()>> {
        operation(&self.descriptor, Direction::Write, |io| ask(io, PollFlags::OUT))
    }

    /// As [`readable`](Async::readable), for the poll functions of others. It keeps the waker of the last task
    /// that called it or [`poll_read_with`](Async::poll_read_with), or one of the traits for reading.
    ///
    /// # Errors
    ///
    /// As [`readable`](Async::readable).
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.descriptor.poll_shared(Direction::Read, None, context, |io| ask(io, READABLE))
    }

    /// As [`writable`](Async::writable), for the poll functions of others; see
    /// [`poll_readable`](Async::poll_readable).
    ///
    /// # Errors
    ///
    /// As [`writable`](Async::writable).
    pub fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.descriptor.poll_shared(Direction::Write, None, context, |io| ask(io, PollFlags::OUT))
    }

    /// Calls `f` at once and then each time that the descriptor has become ready for reading, until it gives
    /// something else than [`WouldBlock`](std::io::ErrorKind::WouldBlock).
    ///
    /// `f` says `WouldBlock` only where the descriptor has said so: nothing calls it again before
    /// there is something *new* to read. It must not block.
    ///
    /// # Errors
    ///
    /// Those of `f`, except `WouldBlock` and `Interrupted`; `TimedOut` after the deadline for reading.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no call of `f` has done anything.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainspring::net::Async;
    ///
    /// # mainspring::block_on(async {
    /// let socket = Async::new(std::net::UdpSocket::bind("127.0.0.1:0")?)?;
    /// let address = socket.get_ref().local_addr()?;
    /// socket.write_with(|socket| socket.send_to(b"hello", address)).await?;
    /// let mut buffer = [0; 8];
    /// let (count, from) = socket.read_with(|socket| socket.recv_from(&mut buffer)).await?;
    /// assert_eq!((&buffer[..count], from), (&b"hello"[..], address));
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub async fn read_with<R>(&self, f: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        self.descriptor.call(Direction::Read, f).await
    }

    /// As [`read_with`](Async::read_with), for writing.
    ///
    /// # Errors
    ///
    /// Those of `f`, except `WouldBlock` and `Interrupted`; `TimedOut` after the deadline for writing.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no call of `f` has done anything.
    pub async fn write_with<R>(&self, f: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        self.descriptor.call(Direction::Write, f).await
    }

    /// As [`read_with`](Async::read_with), for the poll functions of others; see
    /// [`poll_readable`](Async::poll_readable).
    ///
    /// # Errors
    ///
    /// As [`read_with`](Async::read_with).
    pub fn poll_read_with<R>(
        &self,
        context: &mut Context<'_>,
        mut f: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        let result = self.descriptor.poll_shared(Direction::Read, None, context, |io| f(io).map(Unmeasured));
        result.map_ok(|Unmeasured(result)| result)
    }

    /// As [`write_with`](Async::write_with), for the poll functions of others; see
    /// [`poll_readable`](Async::poll_readable).
    ///
    /// # Errors
    ///
    /// As [`write_with`](Async::write_with).
    pub fn poll_write_with<R>(
        &self,
        context: &mut Context<'_>,
        mut f: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        let result = self.descriptor.poll_shared(Direction::Write, None, context, |io| f(io).map(Unmeasured));
        result.map_ok(|Unmeasured(result)| result)
    }

    /// Reads what is there, with read(2), at most as much as fits. 0 means the end, or that `buffer` is empty.
    ///
    /// # Errors
    ///
    /// `TimedOut` after the deadline for reading; otherwise the system's.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing has been read.
    pub fn read<'a>(&'a self, buffer: &'a mut [u8]) -> impl Future<Output = io::Result<usize>> {
        self.descriptor.read::<File>(buffer)
    }

    /// Reads until `buffer` is full.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` if the end came before; otherwise as [`read`](Async::read).
    ///
    /// # Cancel safety
    ///
    /// None: what was read before the future was dropped, or before an error, is in `buffer`, but how much
    /// that is is lost.
    pub fn read_exact<'a>(&'a self, buffer: &'a mut [u8]) -> impl Future<Output = io::Result<()>> {
        self.descriptor.read_exact::<File>(buffer)
    }

    /// Writes as much of `bytes` as is taken, with write(2).
    ///
    /// # Errors
    ///
    /// `TimedOut` after the deadline for writing; otherwise the system's, commonly `BrokenPipe`.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing has been written.
    pub fn write<'a>(&'a self, bytes: &'a [u8]) -> impl Future<Output = io::Result<usize>> {
        self.descriptor.write::<File>(bytes)
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    ///
    /// `WriteZero` if no more is taken; otherwise as [`write`](Async::write). How much was written before an
    /// error is lost: after a timeout, use [`write`](Async::write) to know.
    ///
    /// # Cancel safety
    ///
    /// None: how much was written before the future was dropped is lost.
    pub fn write_all<'a>(&'a self, bytes: &'a [u8]) -> impl Future<Output = io::Result<()>> {
        self.descriptor.write_all::<File>(bytes)
    }

    crate::net::deadlines::deadline_methods!();
}

const READABLE: PollFlags = PollFlags::IN.union(PollFlags::RDHUP);

/// Whether the system says now that `io` is ready in one of these ways, has hung up or has an error;
/// `WouldBlock` if not.
pub(crate) fn ask(io: &impl AsFd, flags: PollFlags) -> io::Result<()> {
    match rustix::event::poll(&mut [PollFd::new(io, flags)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    }
}

fn explain(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error()) {
        let text = "nothing that epoll can wait for, as a regular file is: use `mainspring::blocking`";
        return io::Error::new(io::ErrorKind::Unsupported, text);
    }
    error
}

impl<T: AsFd> Stream for Async<T> {
    type Io = T;
    type Calls = File;

    fn descriptor(&self) -> &Descriptor<T> {
        &self.descriptor
    }

    /// Nothing but closing it ends writing.
    fn end(&self) -> io::Result<()> {
        Ok(())
    }
}

impl_read!([T: AsFd] Async<T>, |this| this);
impl_read!([T: AsFd] &Async<T>, |this| *this);
impl_write!([T: AsFd] Async<T>, |this| this);
impl_write!([T: AsFd] &Async<T>, |this| *this);

impl<T: AsFd> AsFd for Async<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl<T: AsFd + fmt::Debug> fmt::Debug for Async<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Async").field(self.descriptor.get()).finish()
    }
}
