//! A descriptor of the operating system that waits in a runtime's poller.
//!
//! The readiness loop of every socket: ask whether the call may be made, make it, wait if it would
//! have blocked. The protocol is `poll::source`'s.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::task::{Context, Poll};

use super::deadlines::{Deadlines, Registration};
use crate::poll::source::{Direction, Refused, WaiterId};
use crate::runtime::current_or_ambient;
use crate::sched::current;
use crate::sched::task::{drop_user_value, wake};
use crate::time::Instant;

/// Owns `T`, a descriptor in non-blocking mode, and its registration.
pub(super) struct Descriptor<T: AsFd> {
    /// There until the descriptor is taken apart or dropped.
    io: Option<T>,
    registration: Arc<Registration>,
}

/// What a system call gives: for a stream's, how many bytes it moved.
pub(super) trait Transfer: Sized {
    /// What it is for a call that moves no bytes and need not wait for any.
    const NOTHING: Option<Self> = None;

    /// Whether it is less than was asked for. A stream that moved less is not ready any more.
    fn is_short(&self, _asked: usize) -> bool {
        false
    }
}

impl Transfer for usize {
    const NOTHING: Option<usize> = Some(0);

    fn is_short(&self, asked: usize) -> bool {
        0 < *self && *self < asked
    }
}

impl<T: AsFd> Descriptor<T> {
    /// Registers with the runtime at hand.
    pub(super) fn new(io: T) -> io::Result<Descriptor<T>> {
        let scheduler = current_or_ambient();
        let source = scheduler.poller.register(io.as_fd())?;
        Ok(Descriptor { io: Some(io), registration: Arc::new(Registration { source, scheduler }) })
    }

    pub(super) fn get(&self) -> &T {
        self.io.as_ref().expect("it is there until the descriptor is gone")
    }

    /// Takes the descriptor out of the runtime.
    pub(super) fn into_inner(mut self) -> T {
        self.deregister();
        self.io.take().expect("it is there until the descriptor is gone")
    }

    pub(super) fn deadlines(&self) -> Deadlines {
        Deadlines::new(Arc::clone(&self.registration))
    }

    pub(super) fn set_deadline(&self, directions: &[Direction], at: Option<Instant>) -> io::Result<()> {
        self.registration.set_deadline(directions, at)
    }

    /// Makes a system call as soon as it does not block. `asked` is how many bytes a stream's call is asked
    /// to move, `None` for any other call: one that is asked to move none does not wait, but fails after
    /// the deadline like any other. `id` is the operation's name among the waiters.
    pub(super) fn poll_io<R: Transfer>(
        &self,
        direction: Direction,
        asked: Option<usize>,
        id: &mut Option<WaiterId>,
        context: &mut Context<'_>,
        mut call: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        if !current::spend_budget() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let source = &self.registration.source;
        loop {
            match source.attempt(direction) {
                Ok(attempt) => match call(self.get()) {
                    Ok(result) => {
                        if asked.is_some_and(|asked| result.is_short(asked)) {
                            source.short(direction, attempt);
                        }
                        return Poll::Ready(Ok(result));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        source.not_ready(direction, attempt);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Poll::Ready(Err(error)),
                },
                Err(Refused::NotReady) => match R::NOTHING.filter(|_| asked == Some(0)) {
                    Some(nothing) => return Poll::Ready(Ok(nothing)),
                    None => match source.poll_wait(direction, id, context) {
                        Poll::Ready(result) => result?,
                        Poll::Pending => {
                            current::refund_budget();
                            return Poll::Pending;
                        }
                    },
                },
                Err(refused) => return Poll::Ready(Err(refused.into())),
            }
        }
    }

    /// An operation was given up.
    pub(super) fn forget(&self, direction: Direction, id: WaiterId) {
        drop_user_value(self.registration.source.forget(direction, id));
    }

    fn deregister(&mut self) {
        let Some(io) = &self.io else { return };
        let Registration { source, scheduler } = &*self.registration;
        let mut wakers = Vec::new();
        // An error leaves nothing to do: the descriptor is closed next, and leaves the poller with that.
        let _ = scheduler.poller.deregister(source, io.as_fd(), &mut wakers);
        self.registration.cancel_timers();
        wakers.into_iter().for_each(wake);
    }
}

impl<T: AsFd> Drop for Descriptor<T> {
    fn drop(&mut self) {
        self.deregister();
    }
}

impl<T: AsFd> AsFd for Descriptor<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.get().as_fd()
    }
}

impl<T: AsFd + fmt::Debug> fmt::Debug for Descriptor<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.io.fmt(f)
    }
}
