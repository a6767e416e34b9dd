//! What UDP sockets and Unix datagram sockets have in common: everything but their names, their options and how a
//! datagram is sent to somebody by name.
//!
//! Knows nothing of resolving names and of paths.
//!
//! Invariant: a datagram is never short, whatever its length and that of the buffer. Nothing about readiness follows
//! from how much was moved, and an operation with an empty buffer is one like any other.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags};

use super::descriptor::{Descriptor, Transfer};
use crate::poll::source::{Direction, WaiterId};
use crate::sched::current;
use crate::time::{Sleep, sleep};

/// A datagram's length and what its sender is called.
impl<A> Transfer for (usize, A) {}

pub(super) fn recv(io: impl AsFd, buffer: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
    let (count, _) = rustix::net::recv(io, buffer, flags)?;
    Ok(count)
}

pub(super) fn send(io: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(io, bytes, SendFlags::NOSIGNAL)?)
}

/// Makes a call that sends a datagram, and again after pauses that grow from `first` to `longest`, until it does not
/// block. For a call about which edges say nothing: the kernel may give none when it would go through, and may give one
/// for each time that it does not. So they are not listened to, being polled for whatever reason is no occasion to try
/// again, and the descriptor's readiness, which others go by, stays as it is.
pub(super) async fn sent_after_pauses<T: AsFd>(
    descriptor: &Descriptor<T>,
    (first, longest): (Duration, Duration),
    mut call: impl FnMut(&T) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut failure = Failure { descriptor, id: None };
    let mut length = first;
    let mut pause: Option<Sleep> = None;
    poll_fn(|context| {
        loop {
            if let Some(pause) = &mut pause {
                if let Poll::Ready(error) = failure.poll(context) {
                    return Poll::Ready(Err(error));
                }
                ready!(Pin::new(pause).poll(context));
            } else if !current::spend_budget() {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            match descriptor.call_now(Direction::Write, &mut call) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
            match &mut pause {
                None => pause = Some(sleep(length)),
                Some(pause) => {
                    length = (length * 2).min(longest);
                    pause.reset_after(length);
                }
            }
        }
    })
    .await
}

/// Waits until sending fails, because of the deadline or the runtime's end.
struct Failure<'a, T: AsFd> {
    descriptor: &'a Descriptor<T>,
    id: Option<WaiterId>,
}

impl<T: AsFd> Failure<'_, T> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        self.descriptor.poll_failure(Direction::Write, &mut self.id, context)
    }
}

impl<T: AsFd> Drop for Failure<'_, T> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.descriptor.forget(Direction::Write, id);
        }
    }
}

/// Implements what is the same for all sockets of datagrams, on a type with a field `descriptor`. The module that
/// invokes it has a function `peek_from` for the system call.
macro_rules! datagram_socket {
    ($name:ident, $io:ty, $address:ty) => {
        impl $name {
            fn register(io: $io) -> io::Result<$name> {
                Ok($name { descriptor: Descriptor::new(io)? })
            }

            /// Sends a datagram to the peer that the socket is [connected](Self::connect) to. Waits while there is no
            /// room for it. An empty one is a datagram too.
            ///
            /// # Errors
            ///
            /// `TimedOut` after the deadline for writing; otherwise the system's: `ConnectionRefused` if nobody is
            /// there to receive it or, with UDP, one sent before; that it is too long (EMSGSIZE). The socket can be
            /// used on.
            ///
            /// # Cancel safety
            ///
            /// If the future is dropped, nothing has been sent.
            pub async fn send(&self, bytes: &[u8]) -> io::Result<usize> {
                let call = |io: &$io| datagram::send(io, bytes);
                operation(&self.descriptor, Direction::Write, call).await
            }

            /// Receives a datagram, from the peer if the socket is connected, and gives its length, which is 0 for an
            /// empty one. Of one that is longer than the buffer the rest is lost; so an empty buffer takes a whole
            /// datagram away, and waits for it, as with std.
            ///
            /// # Errors
            ///
            /// `TimedOut` after the deadline for reading; otherwise the system's: with UDP `ConnectionRefused` if a
            /// datagram sent before found nobody. The socket can be used on.
            ///
            /// # Cancel safety
            ///
            /// If the future is dropped, nothing has been received: the datagram is there for the next one.
            pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
                let call = |io: &$io| datagram::recv(io, buffer, RecvFlags::empty());
                operation(&self.descriptor, Direction::Read, call).await
            }

            /// As [`recv`](Self::recv), and says who sent the datagram.
            ///
            /// # Errors
            ///
            /// As [`recv`](Self::recv).
            ///
            /// # Cancel safety
            ///
            /// As [`recv`](Self::recv).
            pub async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, $address)> {
                let call = |io: &$io| io.recv_from(buffer);
                operation(&self.descriptor, Direction::Read, call).await
            }

            /// As [`recv`](Self::recv), but leaves the datagram there, whole.
            ///
            /// # Errors
            ///
            /// As [`recv`](Self::recv).
            ///
            /// # Cancel safety
            ///
            /// Nothing can be lost.
            pub async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
                let call = |io: &$io| datagram::recv(io, buffer, RecvFlags::PEEK);
                operation(&self.descriptor, Direction::Read, call).await
            }

            /// As [`recv_from`](Self::recv_from), but leaves the datagram there, whole.
            ///
            /// # Errors
            ///
            /// As [`recv`](Self::recv). `Unsupported` if the sender is a Unix socket with a path of 108 bytes, the most
            /// that there may be, which can be told only with receiving.
            ///
            /// # Cancel safety
            ///
            /// Nothing can be lost.
            pub async fn peek_from(&self, buffer: &mut [u8]) -> io::Result<(usize, $address)> {
                let call = |io: &$io| peek_from(io, buffer);
                operation(&self.descriptor, Direction::Read, call).await
            }

            /// As [`send`](Self::send), without waiting.
            ///
            /// # Errors
            ///
            /// `WouldBlock` if it would have to wait; otherwise as [`send`](Self::send).
            pub fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
                self.descriptor.try_anyway(Direction::Write, |io| datagram::send(io, bytes))
            }

            /// As [`recv`](Self::recv), without waiting.
            ///
            /// # Errors
            ///
            /// `WouldBlock` if there is none; otherwise as [`recv`](Self::recv).
            pub fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
                self.descriptor
                    .try_anyway(Direction::Read, |io| datagram::recv(io, &mut *buffer, RecvFlags::empty()))
            }

            /// As [`recv_from`](Self::recv_from), without waiting.
            ///
            /// # Errors
            ///
            /// `WouldBlock` if there is none; otherwise as [`recv`](Self::recv).
            pub fn try_recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, $address)> {
                self.descriptor.try_anyway(Direction::Read, |io| io.recv_from(buffer))
            }

            /// As [`send`](Self::send), for code written as poll functions. All of those that send share one waker:
            /// use them from one task at a time.
            ///
            /// # Errors
            ///
            /// As [`send`](Self::send).
            pub fn poll_send(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
                let call = |io: &$io| datagram::send(io, bytes);
                self.descriptor.poll_shared(Direction::Write, None, context, call)
            }

            /// As [`recv`](Self::recv), for code written as poll functions. All of those that receive share one
            /// waker: use them from one task at a time.
            ///
            /// # Errors
            ///
            /// As [`recv`](Self::recv).
            pub fn poll_recv(&self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
                let call = |io: &$io| datagram::recv(io, &mut *buffer, RecvFlags::empty());
                self.descriptor.poll_shared(Direction::Read, None, context, call)
            }

            /// As [`recv_from`](Self::recv_from), for code written as poll functions; see
            /// [`poll_recv`](Self::poll_recv).
            ///
            /// # Errors
            ///
            /// As [`recv`](Self::recv).
            pub fn poll_recv_from(
                &self,
                context: &mut Context<'_>,
                buffer: &mut [u8],
            ) -> Poll<io::Result<(usize, $address)>> {
                let call = |io: &$io| io.recv_from(buffer);
                self.descriptor.poll_shared(Direction::Read, None, context, call)
            }

            /// Waits until there may be a datagram. Somebody else may take it first.
            ///
            /// # Errors
            ///
            /// `TimedOut` after the deadline for reading, or that the runtime has shut down. What the socket has to
            /// report makes it readable.
            ///
            /// # Cancel safety
            ///
            /// Nothing can be lost.
            pub async fn readable(&self) -> io::Result<()> {
                self.descriptor.ready(Direction::Read).await
            }

            /// Waits until there may be room to send a datagram.
            ///
            /// # Errors
            ///
            /// `TimedOut` after the deadline for writing, or that the runtime has shut down.
            ///
            /// # Cancel safety
            ///
            /// Nothing can be lost.
            pub async fn writable(&self) -> io::Result<()> {
                self.descriptor.ready(Direction::Write).await
            }

            /// The address of this socket.
            ///
            /// # Errors
            ///
            /// The system's.
            pub fn local_addr(&self) -> io::Result<$address> {
                self.descriptor.get().local_addr()
            }

            /// The address of the peer that the socket is connected to.
            ///
            /// # Errors
            ///
            /// The system's, `NotConnected` among them.
            pub fn peer_addr(&self) -> io::Result<$address> {
                self.descriptor.get().peer_addr()
            }

            /// Takes the error that the next operation would fail with (SO_ERROR).
            ///
            /// # Errors
            ///
            /// The system's, if it cannot be asked.
            pub fn take_error(&self) -> io::Result<Option<io::Error>> {
                self.descriptor.get().take_error()
            }

            $crate::net::deadlines::deadline_methods!();

            /// Takes the socket out of the runtime, with the datagrams that it has received. It stays in non-blocking
            /// mode.
            pub fn into_std(self) -> $io {
                self.descriptor.into_inner()
            }
        }

        /// Registers std's socket with the runtime at hand and puts it into non-blocking mode.
        impl TryFrom<$io> for $name {
            type Error = io::Error;

            fn try_from(io: $io) -> io::Result<$name> {
                io.set_nonblocking(true)?;
                $name::register(io)
            }
        }

        impl AsFd for $name {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.descriptor.as_fd()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.descriptor.get().fmt(f)
            }
        }
    };
}

pub(super) use datagram_socket;
