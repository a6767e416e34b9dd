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
use super::operation::operation;
use crate::poll::source::{Direction, Refused, WaiterId};
use crate::runtime::current_or_ambient;
use crate::sched::current;
use crate::sched::task::{drop_user_value, wake};
use crate::time::Instant;

/// Owns `T`, a descriptor in non-blocking mode, and its registration.
pub(crate) struct Descriptor<T: AsFd> {
    /// There until the descriptor is taken apart or dropped.
    io: Option<T>,
    registration: Arc<Registration>,
}

/// What a system call gives: for a stream's, how many bytes it moved.
pub(crate) trait Transfer: Sized {
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
        0 < *self && *self < asked.min(AT_ONCE)
    }
}

/// Linux moves at most some 2 GiB with one call (MAX_RW_COUNT), which is all that it can do and not less than it was
/// asked to. Half of that will do.
const AT_ONCE: usize = 1 << 30;

impl Transfer for () {}

/// The result of a call of the user's, which moves what we do not know.
pub(crate) struct Unmeasured<R>(pub(super) R);

impl<R> Transfer for Unmeasured<R> {}

impl<T: AsFd> Descriptor<T> {
    /// Registers with the runtime at hand.
    pub(crate) fn new(io: T) -> io::Result<Descriptor<T>> {
        let scheduler = current_or_ambient();
        let source = scheduler.poller.register(io.as_fd())?;
        Ok(Descriptor { io: Some(io), registration: Arc::new(Registration { source, scheduler }) })
    }

    /// As [`new`](Descriptor::new), but also for regular files, whose calls may take their time but never say that they
    /// would have blocked.
    pub(crate) fn of_any(io: T) -> io::Result<Descriptor<T>> {
        let scheduler = current_or_ambient();
        let source = scheduler.poller.register_any(io.as_fd())?;
        Ok(Descriptor { io: Some(io), registration: Arc::new(Registration { source, scheduler }) })
    }

    pub(crate) fn get(&self) -> &T {
        self.io.as_ref().expect("it is there until the descriptor is gone")
    }

    /// Takes the descriptor out of the runtime.
    pub(crate) fn into_inner(mut self) -> T {
        self.deregister();
        self.io.take().expect("it is there until the descriptor is gone")
    }

    pub(crate) fn registration(&self) -> &Arc<Registration> {
        &self.registration
    }

    pub(crate) fn deadlines(&self) -> Deadlines {
        Deadlines::new(Arc::clone(&self.registration))
    }

    pub(crate) fn set_deadline(&self, directions: &[Direction], at: Option<Instant>) -> io::Result<()> {
        self.registration.set_deadline(directions, at)
    }

    /// Makes a system call as soon as it does not block. `asked` is how many bytes a stream's call is asked
    /// to move, `None` for any other call: one that is asked to move none does not wait, but fails after
    /// the deadline like any other. `id` is the operation's name among the waiters.
    pub(crate) fn poll_io<R: Transfer>(
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
        loop {
            match self.try_io(direction, asked, &mut call) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
            match self.registration.source.poll_wait(direction, id, context) {
                Poll::Ready(result) => result?,
                Poll::Pending => {
                    current::refund_budget();
                    return Poll::Pending;
                }
            }
        }
    }

    /// As [`poll_io`](Descriptor::poll_io), for poll functions, which have nowhere to keep a name: with the one waker that
    /// the side keeps for all of them.
    pub(crate) fn poll_shared<R: Transfer>(
        &self,
        direction: Direction,
        asked: Option<usize>,
        context: &mut Context<'_>,
        call: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        self.poll_io(direction, asked, &mut Some(WaiterId::SHARED), context, call)
    }

    /// As [`poll_io`](Descriptor::poll_io), but fails with `WouldBlock` instead of waiting.
    pub(crate) fn try_io<R: Transfer>(
        &self,
        direction: Direction,
        asked: Option<usize>,
        mut call: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        let source = &self.registration.source;
        loop {
            let attempt = match source.attempt(direction) {
                Ok(attempt) => attempt,
                Err(refused) => match R::NOTHING {
                    Some(nothing) if refused == Refused::NotReady && asked == Some(0) => return Ok(nothing),
                    _ => return Err(refused.into()),
                },
            };
            match call(self.get()) {
                Ok(result) => {
                    if asked.is_some_and(|asked| result.is_short(asked)) {
                        source.short(direction, attempt);
                    }
                    return Ok(result);
                }
                // Whoever comes round finds that the side is not ready, unless there was another edge.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    source.not_ready(direction, attempt);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes a system call now, also if the descriptor does not count as ready, as the edge may not have been heard of
    /// yet. Fails with `WouldBlock` where [`poll_io`](Descriptor::poll_io) would wait.
    pub(crate) fn try_anyway<R>(
        &self,
        direction: Direction,
        call: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        let source = &self.registration.source;
        let attempt = source.attempt(direction);
        let result = self.call_now(direction, call);
        if let (Ok(attempt), Err(error)) = (attempt, &result)
            && error.kind() == io::ErrorKind::WouldBlock
        {
            source.not_ready(direction, attempt);
        }
        result
    }

    /// As [`try_anyway`](Descriptor::try_anyway), but for a call that says nothing of the descriptor's readiness if it would
    /// have blocked.
    pub(crate) fn call_now<R>(
        &self,
        direction: Direction,
        mut call: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        match self.registration.source.attempt(direction) {
            Ok(_) | Err(Refused::NotReady) => {}
            Err(refused) => return Err(refused.into()),
        }
        loop {
            match call(self.get()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Makes a call of the user's as soon as it does not block.
    pub(crate) async fn call<R>(
        &self,
        direction: Direction,
        mut call: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        let call = &mut call;
        let operation = operation(self, direction, move |io: &T| call(io).map(Unmeasured));
        operation.await.map(|result| result.0)
    }

    /// Makes a call of the user's unless it is known that it would block.
    pub(crate) fn try_call<R>(
        &self,
        direction: Direction,
        mut call: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        self.try_io(direction, None, |io| call(io).map(Unmeasured)).map(|result| result.0)
    }

    /// Waits until operations in this direction fail, and gives the error. No edge wakes the task.
    pub(crate) fn poll_failure(
        &self,
        direction: Direction,
        id: &mut Option<WaiterId>,
        context: &Context<'_>,
    ) -> Poll<io::Error> {
        self.registration.source.poll_failure(direction, id, context).map(io::Error::from)
    }

    /// An operation was given up.
    pub(crate) fn forget(&self, direction: Direction, id: WaiterId) {
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

#[cfg(all(test, not(mainspring_loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_a_call_moves_is_short_if_it_is_less_than_asked_for_and_less_than_a_call_can_move() {
        assert!(9_usize.is_short(10) && 9_usize.is_short(usize::MAX));
        // Nothing at all is the end, or a call that was asked for nothing.
        assert!(!10_usize.is_short(10) && !0_usize.is_short(10) && !0_usize.is_short(0));
        // The limit on a machine with pages of 4 KiB, and with pages of 64 KiB.
        assert!(!0x7fff_f000_usize.is_short(usize::MAX) && !0x7fff_0000_usize.is_short(3 << 30));
    }
}
