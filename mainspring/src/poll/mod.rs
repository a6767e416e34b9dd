//! Descriptors: which are ready, who waits for them, and until when.
//!
//! ```text
//!  net                 makes system calls, arms timers, calls wakers
//!   │  attempt, wait, set_deadline                    ▲ wakers
//!   ▼                                                 │
//!  Source ── two sides: ready?, waiters, deadline ◀── Poller ◀── Backend (epoll)
//! ```
//!
//! Knows nothing of tasks, workers and processors, and operates no timer: it says what is to be done
//! with one ([`TimerAction`](deadline::TimerAction)). It calls no waker: whatever has to be woken is
//! returned to the caller, who holds no lock.
//!
//! * `backend`: what a source of readiness must do, and `epoll`: the one for Linux, with the system calls;
//! * `source`: the two sides of a descriptor and the readiness protocol;
//! * `waiters`: who waits for a side;
//! * `deadline`: a side's deadline and the timer that serves it;
//! * `poller`: all descriptors, whose turn it is to poll, and the protocol that ends a wait.

#[cfg(not(target_os = "linux"))]
compile_error!("mainspring runs on Linux only: its poller is epoll");

pub(crate) mod backend;
pub(crate) mod deadline;
mod epoll;
pub(crate) mod poller;
pub(crate) mod source;
mod waiters;

use std::io;
use std::num::NonZeroU64;

/// Tells the kernel to wake this thread from timed waits as exactly as it can, instead of up to
/// 50 us late; for threads that sit in the poller.
pub(crate) fn timer_slack() -> io::Result<()> {
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1)).map_err(io::Error::from)
}

/// What the tests of this module share.
#[cfg(all(test, not(mainspring_loom)))]
mod testing {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    use super::source::{Direction, Refused, Source, WaiterId};

    /// One operation that waits on one side, and how often it was woken.
    pub(super) struct Waiter {
        count: Arc<Count>,
        pub(super) id: Option<WaiterId>,
    }

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            crate::base::rank::assert_unlocked("call a waker");
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Waiter {
        pub(super) fn new() -> Waiter {
            Waiter { count: Arc::new(Count(AtomicUsize::new(0))), id: None }
        }

        pub(super) fn poll(&mut self, source: &Source, direction: Direction) -> Poll<Result<(), Refused>> {
            let waker = self.waker();
            source.poll_wait(direction, &mut self.id, &Context::from_waker(&waker))
        }

        pub(super) fn waker(&self) -> Waker {
            Waker::from(Arc::clone(&self.count))
        }

        pub(super) fn woken(&self) -> usize {
            self.count.0.load(Ordering::SeqCst)
        }

        /// How many wakers of it exist.
        pub(super) fn wakers(&self) -> usize {
            Arc::strong_count(&self.count) - 1
        }
    }

    /// Calls all wakers and says how many there were.
    pub(super) fn wake(wakers: &mut Vec<Waker>) -> usize {
        wakers.drain(..).map(Waker::wake).count()
    }

    /// Takes the readiness away that a source has at first.
    pub(super) fn make_unready(source: &Source, direction: Direction) {
        let attempt = source.attempt(direction).unwrap();
        source.not_ready(direction, attempt);
        assert_eq!(source.attempt(direction).unwrap_err(), Refused::NotReady);
    }
}

#[cfg(all(test, not(mainspring_loom)))]
mod tests {
    #[test]
    fn timer_slack_is_one_nanosecond_afterwards() {
        std::thread::spawn(|| {
            assert_ne!(rustix::thread::current_timer_slack().unwrap(), 1);
            super::timer_slack().unwrap();
            assert_eq!(rustix::thread::current_timer_slack().unwrap(), 1);
        })
        .join()
        .unwrap();
    }
}
