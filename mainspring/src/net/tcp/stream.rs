//! TCP connections.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf};
use crate::net::addr::{ToSocketAddrs, resolve};
use crate::net::deadlines::{BOTH, Deadlines};
use crate::net::descriptor::{Descriptor, Transfer};
use crate::net::operation::Operation;
use crate::poll::source::{Direction, WaiterId};
use crate::time::Instant;

/// A TCP connection.
///
/// Reading and writing take `&self`; several tasks may do so at once, and each call that is woken gets
/// what is there. The poll functions of the I/O traits keep one waker for reading and one for writing: use
/// them from one task at a time, or the `async` functions.
///
/// # Examples
///
/// See [`TcpListener`](super::TcpListener).
pub struct TcpStream {
    descriptor: Descriptor<std::net::TcpStream>,
}

impl Transfer for () {}

/// Most buffers that one system call takes (UIO_MAXIOV).
const BUFFERS_MAX: usize = 1024;

impl TcpStream {
    /// Connects to the first of the addresses that answers, trying one after the other.
    ///
    /// # Errors
    ///
    /// That of the last address, commonly `ConnectionRefused`; `InvalidInput` for what is no address; the
    /// resolver's.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the socket.
    pub async fn connect(addr: impl ToSocketAddrs) -> io::Result<TcpStream> {
        let mut last = None;
        for addr in resolve(addr).await? {
            match TcpStream::connect_to(addr).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("`resolve` gives at least one address"))
    }

    async fn connect_to(addr: SocketAddr) -> io::Result<TcpStream> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(addr), kind, Some(Protocol::TCP))?;
        match socket.connect(&addr.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        // Only now: a socket that is not connecting yet counts as hung up.
        let stream = TcpStream::register(socket.into())?;
        Operation::new(&stream.descriptor, Direction::Write, None, connected).await?;
        Ok(stream)
    }

    pub(super) fn register(stream: std::net::TcpStream) -> io::Result<TcpStream> {
        Ok(TcpStream { descriptor: Descriptor::new(stream)? })
    }

    /// Reads what is there, at most as much as fits; 0 means that the peer has finished writing, or that
    /// `buffer` is empty.
    ///
    /// # Errors
    ///
    /// `TimedOut` after the deadline for reading; otherwise the system's.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing has been read.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let asked = buffer.len();
        self.operate(Direction::Read, asked, |io| recv_into(io, buffer, RecvFlags::empty())).await
    }

    /// Reads until `buffer` is full.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` if the peer finished writing before; otherwise as [`read`](TcpStream::read).
    ///
    /// # Cancel safety
    ///
    /// None: what was read before the future was dropped, or before an error, is in `buffer`, but how much
    /// that is is lost.
    pub async fn read_exact(&self, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            let count = self.read(buffer).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buffer = &mut buffer[count..];
        }
        Ok(())
    }

    /// Reads into several buffers, one after the other; otherwise as [`read`](TcpStream::read).
    ///
    /// # Errors
    ///
    /// As [`read`](TcpStream::read).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing has been read.
    pub async fn readv(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let count = buffers.len().min(BUFFERS_MAX);
        let buffers = &mut buffers[..count];
        let asked = buffers.iter().map(|buffer| buffer.len()).sum();
        self.operate(Direction::Read, asked, |io| Ok(rustix::io::readv(io, buffers)?)).await
    }

    /// Reads what is there without taking it.
    ///
    /// # Errors
    ///
    /// As [`read`](TcpStream::read).
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken in any case.
    pub async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // What was only looked at is still there: never short.
        let asked = buffer.is_empty().then_some(0);
        let call = |io: &std::net::TcpStream| recv_into(io, buffer, RecvFlags::PEEK);
        Operation::new(&self.descriptor, Direction::Read, asked, call).await
    }

    /// Writes as much of `bytes` as the socket takes.
    ///
    /// # Errors
    ///
    /// `TimedOut` after the deadline for writing; otherwise the system's, commonly `BrokenPipe` or
    /// `ConnectionReset`.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing has been written.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.operate(Direction::Write, bytes.len(), |io| Ok(send(io, bytes, SendFlags::NOSIGNAL)?)).await
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    ///
    /// `WriteZero` if the socket takes no more; otherwise as [`write`](TcpStream::write). How much was
    /// written before an error is lost: after a timeout, use [`write`](TcpStream::write) to know.
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

    /// Writes from several buffers, one after the other; otherwise as [`write`](TcpStream::write).
    ///
    /// # Errors
    ///
    /// As [`write`](TcpStream::write).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing has been written.
    pub async fn writev(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let buffers = &buffers[..buffers.len().min(BUFFERS_MAX)];
        let asked = buffers.iter().map(|buffer| buffer.len()).sum();
        self.operate(Direction::Write, asked, |io| send_all(io, buffers)).await
    }

    /// Ends reading, writing or both. Whoever waits on that side is woken.
    ///
    /// # Errors
    ///
    /// The system's, `NotConnected` among them.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.descriptor.get().shutdown(how)
    }

    /// The address of this end.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.descriptor.get().local_addr()
    }

    /// The address of the other end.
    ///
    /// # Errors
    ///
    /// The system's, `NotConnected` among them.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.descriptor.get().peer_addr()
    }

    /// Whether small writes are sent at once (TCP_NODELAY).
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.descriptor.get().nodelay()
    }

    /// Sets whether small writes are sent at once instead of being gathered (TCP_NODELAY); off at first.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.descriptor.get().set_nodelay(nodelay)
    }

    /// How long closing lets unsent data linger (SO_LINGER).
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        SockRef::from(self).linger()
    }

    /// Sets how long closing lets unsent data linger, in whole seconds; zero resets the connection. With
    /// any other value, dropping the stream blocks its thread until the data is sent or that time is over.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        SockRef::from(self).set_linger(linger)
    }

    /// Sets both deadlines; `None` clears them. See [the module](crate::net).
    ///
    /// # Errors
    ///
    /// If the runtime that the socket is registered with has shut down.
    pub fn set_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
        let deadline = deadline.into();
        self.descriptor.set_deadline(&BOTH, deadline)
    }

    /// Sets the deadline for reading; `None` clears it.
    ///
    /// # Errors
    ///
    /// As [`set_deadline`](TcpStream::set_deadline).
    pub fn set_read_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
        self.descriptor.set_deadline(&[Direction::Read], deadline.into())
    }

    /// Sets the deadline for writing; `None` clears it.
    ///
    /// # Errors
    ///
    /// As [`set_deadline`](TcpStream::set_deadline).
    pub fn set_write_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
        self.descriptor.set_deadline(&[Direction::Write], deadline.into())
    }

    /// A handle to the deadlines, for use while somebody else owns the stream.
    pub fn deadlines(&self) -> Deadlines {
        self.descriptor.deadlines()
    }

    /// A half for reading and a half for writing, for functions that want a reader and a writer.
    pub fn split(&self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        (ReadHalf::new(self), WriteHalf::new(self))
    }

    /// A half for reading and a half for writing, for different tasks. Dropping the half for writing ends
    /// writing.
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        let stream = Arc::new(self);
        (OwnedReadHalf::new(Arc::clone(&stream)), OwnedWriteHalf::new(stream))
    }

    /// Takes the socket out of the runtime. It stays in non-blocking mode.
    pub fn into_std(self) -> std::net::TcpStream {
        self.descriptor.into_inner()
    }

    fn operate<R: Transfer, F>(
        &self,
        direction: Direction,
        asked: usize,
        call: F,
    ) -> Operation<'_, std::net::TcpStream, F>
    where
        F: FnMut(&std::net::TcpStream) -> io::Result<R> + Unpin,
    {
        Operation::new(&self.descriptor, direction, Some(asked), call)
    }

    /// For the I/O traits: reads into memory that need not be initialised; so many bytes of it are, then.
    #[cfg_attr(
        not(any(feature = "tokio-io", feature = "hyper")),
        expect(dead_code, reason = "for their traits")
    )]
    pub(crate) fn poll_read_uninit(
        &self,
        context: &mut Context<'_>,
        buffer: &mut [MaybeUninit<u8>],
    ) -> Poll<io::Result<usize>> {
        let asked = buffer.len();
        self.poll_shared(Direction::Read, asked, context, |io| {
            let (_, count) = recv(io, &mut *buffer, RecvFlags::empty())?;
            Ok(count)
        })
    }

    /// For the I/O traits: as [`read`](TcpStream::read).
    pub(crate) fn poll_read_bytes(
        &self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let asked = buffer.len();
        self.poll_shared(Direction::Read, asked, context, |io| recv_into(io, buffer, RecvFlags::empty()))
    }

    /// For the I/O traits: as [`write`](TcpStream::write).
    pub(crate) fn poll_write_bytes(
        &self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let call = |io: &std::net::TcpStream| Ok(send(io, bytes, SendFlags::NOSIGNAL)?);
        self.poll_shared(Direction::Write, bytes.len(), context, call)
    }

    /// For the I/O traits: as [`writev`](TcpStream::writev).
    pub(crate) fn poll_write_buffers(
        &self,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let buffers = &buffers[..buffers.len().min(BUFFERS_MAX)];
        let asked = buffers.iter().map(|buffer| buffer.len()).sum();
        self.poll_shared(Direction::Write, asked, context, |io| send_all(io, buffers))
    }

    /// For the I/O traits: ends writing. That it had ended is no error.
    pub(crate) fn poll_end(&self) -> Poll<io::Result<()>> {
        Poll::Ready(match self.shutdown(Shutdown::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result,
        })
    }

    fn poll_shared<R: Transfer>(
        &self,
        direction: Direction,
        asked: usize,
        context: &mut Context<'_>,
        call: impl FnMut(&std::net::TcpStream) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        self.descriptor.poll_io(direction, Some(asked), &mut Some(WaiterId::SHARED), context, call)
    }
}

fn recv_into(io: &std::net::TcpStream, buffer: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
    let (count, _) = recv(io, buffer, flags)?;
    Ok(count)
}

fn send_all(io: &std::net::TcpStream, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
    Ok(sendmsg(io, buffers, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)?)
}

/// How a connection attempt stands.
fn connected(io: &std::net::TcpStream) -> io::Result<()> {
    if let Some(error) = io.take_error()? {
        return Err(error);
    }
    match io.peer_addr() {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Err(io::ErrorKind::WouldBlock.into()),
        Err(error) => Err(error),
    }
}

/// Registers std's stream with the runtime at hand and puts it into non-blocking mode.
impl TryFrom<std::net::TcpStream> for TcpStream {
    type Error = io::Error;

    fn try_from(stream: std::net::TcpStream) -> io::Result<TcpStream> {
        stream.set_nonblocking(true)?;
        TcpStream::register(stream)
    }
}

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.descriptor.get().fmt(f)
    }
}
