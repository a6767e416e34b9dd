//! Accepting connections, on any kind of stream socket, and the pause after an error.
//!
//! Knows nothing of addresses: what the kernel says of a peer is handed on.
//!
//! # The pause
//!
//! When there is no descriptor left (EMFILE, ENFILE) or no memory, accept(2) fails and the connection stays in the
//! queue. No edge will say when there are descriptors again, and a loop that logs the error and accepts again would
//! spin. So the error is returned, to be logged, and *the next accept waits*: 5 ms, twice as long after each further
//! error, at most 1 s (the numbers of Go's `http.Server`), until a connection is accepted. It is the listener
//! that pauses, not the future, so it makes no difference whether the same future, another one or another task's
//! accepts next. After any other error of accept(2) it is the same: none of them goes away by trying faster.
//!
//! A pause is a bit beside the side's readiness (`poll::source`, "Pauses") and a timer that takes it away:
//!
//! 1. under the side's lock: if there is no pause yet, arm the timer, set the bit; so the timer, which takes
//!    that lock, cannot come before the bit is there, and there is one timer for one pause;
//! 2. with nothing locked: tell who sleeps beyond that time;
//! 3. the timer's waker: under the lock, take the bit away, and all waiters out if the side is ready; then, with
//!    nothing locked, call them.
//!
//! While the bit is there, accepting waits in the ordinary way, so that deadlines, dropping the future and
//! the runtime's end need nothing more. A connection that comes meanwhile is counted as an edge and wakes nobody. The
//! timer has a weak reference: for a listener that is gone it does nothing, at most a second later.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SocketAddrAny, SocketFlags, acceptfrom_with};

use super::deadlines::Registration;
use super::descriptor::{Descriptor, Transfer};
use super::operation::operation;
use crate::base::primitive::atomic::{AtomicU32, Ordering};
use crate::poll::source::Direction;
use crate::sched::task::{drop_user_value, wake};
use crate::timers::Earliest;

const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How many errors of single connections one call passes over. Beyond, it is not the connections: a security
/// filter that forbids accept(2) says EPERM each time.
const MOST_PASSED_OVER: usize = 128;

/// How many connections may wait to be accepted; the kernel's own limit (somaxconn) may be lower.
pub(crate) const BACKLOG: u32 = 4096;

/// A listening socket of std's type `T`.
#[derive(Debug)]
pub(crate) struct Acceptor<T: AsFd> {
    pub(crate) descriptor: Descriptor<T>,
    /// How many pauses there were since a connection was accepted.
    pauses: AtomicU32,
}

/// What accept(2) gave, not registered yet.
pub(crate) struct Accepted {
    pub(crate) socket: OwnedFd,
    pub(crate) peer: Option<SocketAddrAny>,
}

impl Transfer for Accepted {}

impl<T: AsFd> Acceptor<T> {
    /// Registers a listener in non-blocking mode with the runtime at hand.
    pub(crate) fn new(listener: T) -> io::Result<Acceptor<T>> {
        Ok(Acceptor { descriptor: Descriptor::new(listener)?, pauses: AtomicU32::new(0) })
    }

    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        let result = operation(&self.descriptor, Direction::Read, |io: &T| accept_one(|| accept4(io))).await;
        match &result {
            Ok(_) => self.end_pauses(),
            Err(error) if error.raw_os_error().is_some() => self.pause(),
            // The deadline, or the end of the runtime.
            Err(_) => {}
        }
        result
    }

    fn end_pauses(&self) {
        // ordering: Relaxed, a number that stands for itself; here and below.
        if self.pauses.load(Ordering::Relaxed) != 0 {
            self.pauses.store(0, Ordering::Relaxed);
        }
    }

    fn pause(&self) {
        // ordering: Relaxed, as above. Acceptors that fail at the same time begin one pause between them.
        let pauses = self.pauses.load(Ordering::Relaxed);
        if pause(self.descriptor.registration(), pause_after(pauses)) {
            self.pauses.store(pauses.saturating_add(1), Ordering::Relaxed);
        }
    }
}

/// How long to pause after so many pauses.
fn pause_after(pauses: u32) -> Duration {
    SHORTEST_PAUSE.saturating_mul(1 << pauses.min(16)).min(LONGEST_PAUSE)
}

/// Steps 1 and 2 of the protocol; whether a pause has begun.
fn pause(registration: &Arc<Registration>, duration: Duration) -> bool {
    let scheduler = &registration.scheduler;
    let now = scheduler.now_or_later();
    // Our own waker: making and dropping it runs no user code.
    let waker = Waker::from(Arc::new(EndOfPause { registration: Arc::downgrade(registration) }));
    let mut side = registration.source.lock(Direction::Read);
    let (begun, earliest, unused) = if side.paused() {
        (false, Earliest::default(), Some(waker))
    } else {
        match scheduler.arm(now, now.saturating_add(duration), waker) {
            Ok((_, earliest)) => {
                side.pause();
                (true, earliest, None)
            }
            // The runtime has shut down, and every operation on the socket fails.
            Err(unused) => (false, Earliest::default(), Some(unused)),
        }
    };
    drop(side);
    drop_user_value(unused);
    scheduler.announce_timer(earliest);
    begun
}

struct EndOfPause {
    registration: Weak<Registration>,
}

impl Wake for EndOfPause {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    /// Step 3 of the protocol.
    fn wake_by_ref(self: &Arc<Self>) {
        let Some(registration) = self.registration.upgrade() else { return };
        let mut wakers = Vec::new();
        registration.source.lock(Direction::Read).resume(&mut wakers);
        wakers.into_iter().for_each(wake);
    }
}

fn accept4(listener: &impl AsFd) -> rustix::io::Result<Accepted> {
    let (socket, peer) = acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    Ok(Accepted { socket, peer })
}

/// Passes over connections that have failed in the queue.
fn accept_one<R>(mut accept: impl FnMut() -> rustix::io::Result<R>) -> io::Result<R> {
    let mut passed_over = 0;
    loop {
        match accept() {
            Err(errno) if passed_over < MOST_PASSED_OVER && is_of_one_connection(errno) => passed_over += 1,
            result => return Ok(result?),
        }
    }
}

/// Whether an error concerns the connection that was about to be accepted and not the listener: aborted by its peer,
/// forbidden by the firewall, or what Linux passes on that was pending on the new socket (accept(2), "Error
/// handling").
fn is_of_one_connection(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::CONNABORTED
            | Errno::PERM
            | Errno::PROTO
            | Errno::NETDOWN
            | Errno::NOPROTOOPT
            | Errno::HOSTDOWN
            | Errno::NONET
            | Errno::HOSTUNREACH
            | Errno::OPNOTSUPP
            | Errno::NETUNREACH
    )
}

/// The public methods that listeners of TCP and of Unix sockets have in common. `$std` is std's type of the
/// listener; the type that invokes it has a field `acceptor`.
macro_rules! listener_methods {
    ($listener:ident, $std:ty) => {
        impl $listener {
            /// The address that the socket listens at.
            ///
            /// # Errors
            ///
            /// The system's.
            pub fn local_addr(&self) -> io::Result<SocketAddr> {
                self.acceptor.descriptor.get().local_addr()
            }

            /// The error that the socket has pending, which is taken (SO_ERROR).
            ///
            /// # Errors
            ///
            /// The system's.
            pub fn take_error(&self) -> io::Result<Option<io::Error>> {
                self.acceptor.descriptor.get().take_error()
            }

            /// Sets the deadline for accepting; `None` clears it. See [the module](crate::net).
            ///
            /// # Errors
            ///
            /// If the runtime that the socket is registered with has shut down.
            pub fn set_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
                self.acceptor.descriptor.set_deadline(&[Direction::Read], deadline.into())
            }

            /// A handle to the deadlines, for use while somebody else owns the listener.
            pub fn deadlines(&self) -> Deadlines {
                self.acceptor.descriptor.deadlines()
            }

            /// Takes the socket out of the runtime. It stays in non-blocking mode.
            pub fn into_std(self) -> $std {
                self.acceptor.descriptor.into_inner()
            }

            /// Registers a listener in non-blocking mode with the runtime at hand.
            pub(super) fn register(listener: $std) -> io::Result<$listener> {
                Ok($listener { acceptor: Acceptor::new(listener)? })
            }
        }

        /// For what has no method here: all options are there in `socket2::SockRef::from(&listener)`.
        impl AsFd for $listener {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.acceptor.descriptor.as_fd()
            }
        }

        /// As [`AsFd`].
        impl AsRawFd for $listener {
            fn as_raw_fd(&self) -> RawFd {
                self.as_fd().as_raw_fd()
            }
        }

        impl fmt::Debug for $listener {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.acceptor.descriptor.fmt(f)
            }
        }

        /// Registers std's listener with the runtime at hand and puts it into non-blocking mode.
        impl TryFrom<$std> for $listener {
            type Error = io::Error;

            fn try_from(listener: $std) -> io::Result<$listener> {
                listener.set_nonblocking(true)?;
                $listener::register(listener)
            }
        }

        /// As `into_std`.
        impl From<$listener> for $std {
            fn from(listener: $listener) -> $std {
                listener.into_std()
            }
        }
    };
}

pub(crate) use listener_methods;

#[cfg(all(test, not(mainspring_loom)))]
mod tests {
    use super::*;

    /// Accepts with calls that fail with these errors, in order, and then succeed; how many calls there were.
    fn accept_after(errors: &[Errno]) -> (io::Result<()>, usize) {
        let mut calls = 0;
        let result = accept_one(|| {
            calls += 1;
            errors.get(calls - 1).map_or(Ok(()), |errno| Err(*errno))
        });
        (result, calls)
    }

    #[test]
    fn connections_that_failed_in_the_queue_are_passed_over() {
        let failed = [
            Errno::CONNABORTED,
            Errno::PROTO,
            Errno::PERM,
            Errno::NETDOWN,
            Errno::NOPROTOOPT,
            Errno::HOSTDOWN,
            Errno::NONET,
            Errno::HOSTUNREACH,
            Errno::OPNOTSUPP,
            Errno::NETUNREACH,
        ];
        let (result, calls) = accept_after(&failed);
        result.unwrap();
        assert_eq!(calls, 11);
    }

    #[test]
    fn errors_of_the_listener_are_returned() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::INVAL, Errno::AGAIN] {
            let (result, calls) = accept_after(&[Errno::CONNABORTED, errno]);
            assert_eq!(result.unwrap_err().raw_os_error(), Some(errno.raw_os_error()));
            assert_eq!(calls, 2);
        }
    }

    #[test]
    fn an_error_that_does_not_end_is_returned_in_the_end() {
        let (result, calls) = accept_after(&[Errno::PERM; 1_000]);
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(calls, MOST_PASSED_OVER + 1);
    }

    #[test]
    fn pauses_grow_from_5_ms_to_1_s() {
        let pauses: Vec<u128> =
            [0, 1, 2, 7, 8, 100, u32::MAX].map(|pauses| pause_after(pauses).as_millis()).to_vec();
        assert_eq!(pauses, [5, 10, 20, 640, 1_000, 1_000, 1_000]);
    }
}
