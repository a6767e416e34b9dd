//! Waiting for a run of a timer function to return; the protocol is in this folder's essay.
//!
//! Knows nothing of timers: what is here begins where the pending run has been prevented.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::{Function, Stopped};
use crate::base::primitive::thread::{self, ThreadId};
use crate::base::rank::assert_unlocked;
use crate::base::slab::{Key, Slab};
use crate::sched::task::{drop_user_value, wake};

/// A run that goes on, and who waits for its end. Lives under the function's lock.
pub(super) struct Running {
    number: u64,
    /// Who runs it, and must not wait for it.
    thread: ThreadId,
    waiters: Slab<Waker>,
}

impl Running {
    pub(super) fn new(number: u64, thread: ThreadId) -> Running {
        Running { number, thread, waiters: Slab::new() }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Leaves a waker to be woken at the end, under `place` or under a new one that is put there. Returns the one
    /// that it replaces.
    #[must_use = "a waker is dropped where nothing is locked"]
    fn register(&mut self, place: &mut Option<Key>, waker: Waker) -> Option<Waker> {
        if let Some(former) = place.and_then(|place| self.waiters.get_mut(place)) {
            return Some(std::mem::replace(former, waker));
        }
        *place = Some(self.waiters.insert(waker));
        None
    }

    /// Wakes everybody who waits, once it has been taken out of the function and nothing is locked.
    pub(super) fn wake_waiters(mut self) {
        self.waiters.take_all().for_each(wake);
    }
}

/// The future of [`Timer::stop_and_wait`](super::Timer::stop_and_wait). It needs no pinning.
#[must_use = "the pending run is prevented, but a run that is going on is waited for only when this is polled"]
pub struct StopAndWait {
    function: Arc<Function>,
    /// Whether the call prevented a pending run.
    prevented: bool,
    /// The number of the run that went on during the call, until it is known to have returned.
    run: Option<u64>,
    /// Where its waker stands among that run's waiters.
    place: Option<Key>,
}

impl StopAndWait {
    pub(super) fn new(function: &Arc<Function>) -> StopAndWait {
        let Stopped { prevented, running } = function.stop();
        StopAndWait { function: Arc::clone(function), prevented, run: running, place: None }
    }
}

impl Future for StopAndWait {
    type Output = Result<bool, WaitsForItself>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(number) = this.run else {
            return Poll::Ready(Ok(this.prevented));
        };
        let thread = thread::current().id();
        assert_unlocked("clone a waker");
        let waker = context.waker().clone();
        let mut state = this.function.state.lock();
        let (poll, unused) = match state.running.as_mut().filter(|run| run.number == number) {
            None => {
                this.run = None;
                (Poll::Ready(Ok(this.prevented)), Some(waker))
            }
            Some(run) if run.thread == thread => {
                (Poll::Ready(Err(WaitsForItself { prevented: this.prevented })), Some(waker))
            }
            Some(run) => (Poll::Pending, run.register(&mut this.place, waker)),
        };
        drop(state);
        drop_user_value(unused);
        poll
    }
}

impl Drop for StopAndWait {
    fn drop(&mut self) {
        let (Some(number), Some(place)) = (self.run, self.place) else { return };
        let mut state = self.function.state.lock();
        let run = state.running.as_mut().filter(|run| run.number == number);
        let unused = run.and_then(|run| run.waiters.remove(place));
        drop(state);
        drop_user_value(unused);
    }
}

impl fmt::Debug for StopAndWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StopAndWait").field("prevented", &self.prevented).finish_non_exhaustive()
    }
}

/// A timer function was to wait for its own end, which would last for ever; see
/// [`Timer::stop_and_wait`](super::Timer::stop_and_wait).
///
/// # Examples
///
/// ```
/// use std::sync::mpsc::channel;
/// use mainspring::time::{Duration, Timer, after_func};
///
/// let (own, receiver) = channel::<Timer>();
/// let (answer, answers) = channel();
/// let timer = after_func(Duration::ZERO, move || {
///     let own = receiver.recv().unwrap();
///     answer.send(mainspring::block_on(own.stop_and_wait())).unwrap();
/// });
/// own.send(timer).unwrap();
/// let error = answers.recv().unwrap().unwrap_err();
/// // It runs once, and was already running.
/// assert!(!error.prevented);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct WaitsForItself {
    /// Whether a pending run was prevented, which the call does in any case.
    pub prevented: bool,
}

impl fmt::Display for WaitsForItself {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a timer function cannot wait for itself to return")
    }
}

impl std::error::Error for WaitsForItself {}
