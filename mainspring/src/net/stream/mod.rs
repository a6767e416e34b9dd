//! What everything that is read and written as a stream of bytes has in common: TCP and Unix connections, and
//! whatever else a descriptor may be (pipes, terminals).
//!
//! Knows nothing of addresses, of how a stream is opened, or of its options. A stream is a [`Descriptor`] and
//! the [`Calls`] by which that is read and written.
//!
//! * here: the operations, as futures on the descriptor, and as poll functions for the I/O traits;
//! * `methods`: the public methods of a stream socket, once for TCP and Unix;
//! * `halves`: the halves of a stream socket, once for TCP and Unix.

mod halves;
mod methods;

use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::{self, MaybeUninit};
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg};

pub(crate) use self::halves::halves;
pub(crate) use self::methods::stream_methods;
use super::descriptor::Descriptor;
use super::operation::{Operation, operation};
use crate::poll::source::{Direction, WaiterId};

/// Most buffers that one system call takes (UIO_MAXIOV).
const BUFFERS_MAX: usize = 1024;

/// The system calls by which a kind of descriptor is read and written.
pub(crate) trait Calls {
    /// Whether a read that gave less than was asked for has taken all that there was, so that the call that
    /// would only say EAGAIN can be saved.
    const SHORT_READ_TAKES_ALL: bool;
    /// Whether a write that took less than it was given has left no room.
    const SHORT_WRITE_FILLS: bool;

    fn read(io: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize>;
    /// Reads into memory that need not be initialised; so many bytes of it are, then.
    fn read_uninit(io: &impl AsFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize>;
    fn write(io: &impl AsFd, bytes: &[u8]) -> io::Result<usize>;
    /// Of at most [`BUFFERS_MAX`] buffers.
    fn write_buffers(io: &impl AsFd, buffers: &[IoSlice<'_>]) -> io::Result<usize>;
}

/// Those for sockets: a peer that is gone is an error, and never the signal SIGPIPE. `READS` is
/// [`Calls::SHORT_READ_TAKES_ALL`].
pub(crate) struct Socket<const READS: bool>;

pub(crate) type TcpCalls = Socket<true>;

/// A read from a Unix socket also ends behind bytes that came with a descriptor or with credentials.
pub(crate) type UnixCalls = Socket<false>;

impl<const READS: bool> Calls for Socket<READS> {
    const SHORT_READ_TAKES_ALL: bool = READS;
    const SHORT_WRITE_FILLS: bool = true;

    fn read(io: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
        recv_into(io, buffer, RecvFlags::empty())
    }

    fn read_uninit(io: &impl AsFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        let (_, count) = recv(io, buffer, RecvFlags::empty())?;
        Ok(count)
    }

    fn write(io: &impl AsFd, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(io, bytes, SendFlags::NOSIGNAL)?)
    }

    fn write_buffers(io: &impl AsFd, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(sendmsg(io, buffers, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)?)
    }
}

/// Those for any other descriptor. A terminal gives a line at a time, a pipe may give a packet.
pub(crate) struct File;

impl Calls for File {
    const SHORT_READ_TAKES_ALL: bool = false;
    const SHORT_WRITE_FILLS: bool = false;

    fn read(io: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(io, buffer)?)
    }

    fn read_uninit(io: &impl AsFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        let (read, _) = rustix::io::read(io, buffer)?;
        Ok(read.len())
    }

    fn write(io: &impl AsFd, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(io, bytes)?)
    }

    fn write_buffers(io: &impl AsFd, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::io::writev(io, buffers)?)
    }
}

/// What a call that reads so many bytes is said to be asked for, see [`Descriptor::poll_io`].
fn asked_to_read<C: Calls>(count: usize) -> Option<usize> {
    (C::SHORT_READ_TAKES_ALL || count == 0).then_some(count)
}

fn asked_to_write<C: Calls>(count: usize) -> Option<usize> {
    (C::SHORT_WRITE_FILLS || count == 0).then_some(count)
}

fn recv_into(io: &impl AsFd, buffer: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
    let (count, _) = recv(io, buffer, flags)?;
    Ok(count)
}

/// The operations of streams as futures. Those that move bytes once have done nothing if they are dropped before they are
/// ready.
impl<T: AsFd> Descriptor<T> {
    pub(crate) fn read<'a, C: Calls>(
        &'a self,
        buffer: &'a mut [u8],
    ) -> impl Future<Output = io::Result<usize>> {
        Operation::of_polls(self, Direction::Read, move |descriptor: &Descriptor<T>, id, context| {
            poll_read::<C, T>(descriptor, id, context, buffer)
        })
    }

    /// Until the buffer is full.
    pub(crate) fn read_exact<'a, C: Calls>(
        &'a self,
        mut buffer: &'a mut [u8],
    ) -> impl Future<Output = io::Result<()>> {
        Operation::of_polls(self, Direction::Read, move |descriptor: &Descriptor<T>, id, context| {
            while !buffer.is_empty() {
                match ready!(poll_read::<C, T>(descriptor, id, context, buffer))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                    count => buffer = &mut mem::take(&mut buffer)[count..],
                }
            }
            Poll::Ready(Ok(()))
        })
    }

    pub(crate) fn readv<'a, 'b: 'a, C: Calls>(
        &'a self,
        buffers: &'a mut [IoSliceMut<'b>],
    ) -> impl Future<Output = io::Result<usize>> {
        let (buffers, asked) = at_once_mut(buffers);
        let asked = asked_to_read::<C>(asked);
        Operation::of_polls(self, Direction::Read, move |descriptor: &Descriptor<T>, id, context| {
            let call = |io: &T| Ok(rustix::io::readv(io, &mut *buffers)?);
            descriptor.poll_io(Direction::Read, asked, id, context, call)
        })
    }

    /// Of sockets only.
    pub(crate) fn peek<'a>(&'a self, buffer: &'a mut [u8]) -> impl Future<Output = io::Result<usize>> {
        Operation::of_polls(self, Direction::Read, move |descriptor: &Descriptor<T>, id, context| {
            // What was only looked at is still there: never short.
            let asked = buffer.is_empty().then_some(0);
            let call = |io: &T| recv_into(io, &mut *buffer, RecvFlags::PEEK);
            descriptor.poll_io(Direction::Read, asked, id, context, call)
        })
    }

    pub(crate) fn write<'a, C: Calls>(&'a self, bytes: &'a [u8]) -> impl Future<Output = io::Result<usize>> {
        Operation::of_polls(self, Direction::Write, move |descriptor: &Descriptor<T>, id, context| {
            poll_write::<C, T>(descriptor, id, context, bytes)
        })
    }

    /// Until all is written.
    pub(crate) fn write_all<'a, C: Calls>(
        &'a self,
        mut bytes: &'a [u8],
    ) -> impl Future<Output = io::Result<()>> {
        Operation::of_polls(self, Direction::Write, move |descriptor: &Descriptor<T>, id, context| {
            while !bytes.is_empty() {
                match ready!(poll_write::<C, T>(descriptor, id, context, bytes))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    count => bytes = &bytes[count..],
                }
            }
            Poll::Ready(Ok(()))
        })
    }

    pub(crate) fn writev<'a, 'b: 'a, C: Calls>(
        &'a self,
        buffers: &'a [IoSlice<'b>],
    ) -> impl Future<Output = io::Result<usize>> {
        let (buffers, asked) = at_once(buffers);
        let asked = asked_to_write::<C>(asked);
        Operation::of_polls(self, Direction::Write, move |descriptor: &Descriptor<T>, id, context| {
            let call = |io: &T| C::write_buffers(io, buffers);
            descriptor.poll_io(Direction::Write, asked, id, context, call)
        })
    }

    /// Ready when a call in that direction need not wait, as far as is known.
    pub(crate) fn ready(&self, direction: Direction) -> impl Future<Output = io::Result<()>> {
        operation(self, direction, |_: &T| Ok(()))
    }

    pub(crate) fn try_read<C: Calls>(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.try_io(Direction::Read, asked_to_read::<C>(buffer.len()), |io| C::read(io, buffer))
    }

    pub(crate) fn try_readv<C: Calls>(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let (buffers, asked) = at_once_mut(buffers);
        self.try_io(Direction::Read, asked_to_read::<C>(asked), |io| {
            Ok(rustix::io::readv(io, &mut *buffers)?)
        })
    }

    pub(crate) fn try_write<C: Calls>(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_io(Direction::Write, asked_to_write::<C>(bytes.len()), |io| C::write(io, bytes))
    }

    pub(crate) fn try_writev<C: Calls>(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let (buffers, asked) = at_once(buffers);
        self.try_io(Direction::Write, asked_to_write::<C>(asked), |io| C::write_buffers(io, buffers))
    }
}

fn poll_read<C: Calls, T: AsFd>(
    descriptor: &Descriptor<T>,
    id: &mut Option<WaiterId>,
    context: &mut Context<'_>,
    buffer: &mut [u8],
) -> Poll<io::Result<usize>> {
    let asked = asked_to_read::<C>(buffer.len());
    descriptor.poll_io(Direction::Read, asked, id, context, |io: &T| C::read(io, buffer))
}

fn poll_write<C: Calls, T: AsFd>(
    descriptor: &Descriptor<T>,
    id: &mut Option<WaiterId>,
    context: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    let asked = asked_to_write::<C>(bytes.len());
    descriptor.poll_io(Direction::Write, asked, id, context, |io: &T| C::write(io, bytes))
}

/// As many of the buffers as one system call takes, and how many bytes they hold.
fn at_once<'a, 'b>(buffers: &'a [IoSlice<'b>]) -> (&'a [IoSlice<'b>], usize) {
    let buffers = &buffers[..buffers.len().min(BUFFERS_MAX)];
    (buffers, buffers.iter().map(|buffer| buffer.len()).sum())
}

/// As [`at_once`].
fn at_once_mut<'a, 'b>(buffers: &'a mut [IoSliceMut<'b>]) -> (&'a mut [IoSliceMut<'b>], usize) {
    let count = buffers.len().min(BUFFERS_MAX);
    let buffers = &mut buffers[..count];
    let asked = buffers.iter().map(|buffer| buffer.len()).sum();
    (buffers, asked)
}

/// What the I/O traits are implemented for, see [`traits`](super::traits): poll functions that keep one waker for
/// reading and one for writing.
pub(crate) trait Stream {
    type Io: AsFd;
    type Calls: Calls;

    fn descriptor(&self) -> &Descriptor<Self::Io>;

    /// Ends writing, where that is not the same as closing. That it had ended is no error.
    fn end(&self) -> io::Result<()>;

    /// Reads into memory that need not be initialised; so many bytes of it are, then.
    #[cfg_attr(
        not(any(feature = "tokio-io", feature = "hyper")),
        expect(dead_code, reason = "for their traits")
    )]
    fn poll_read_uninit(
        &self,
        context: &mut Context<'_>,
        buffer: &mut [MaybeUninit<u8>],
    ) -> Poll<io::Result<usize>> {
        let asked = asked_to_read::<Self::Calls>(buffer.len());
        let call = |io: &Self::Io| Self::Calls::read_uninit(io, buffer);
        self.descriptor().poll_shared(Direction::Read, asked, context, call)
    }

    fn poll_read_bytes(&self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let shared = &mut Some(WaiterId::SHARED);
        poll_read::<Self::Calls, Self::Io>(self.descriptor(), shared, context, buffer)
    }

    fn poll_write_bytes(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let shared = &mut Some(WaiterId::SHARED);
        poll_write::<Self::Calls, Self::Io>(self.descriptor(), shared, context, bytes)
    }

    fn poll_write_buffers(
        &self,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let (buffers, asked) = at_once(buffers);
        let asked = asked_to_write::<Self::Calls>(asked);
        let call = |io: &Self::Io| Self::Calls::write_buffers(io, buffers);
        self.descriptor().poll_shared(Direction::Write, asked, context, call)
    }
}
