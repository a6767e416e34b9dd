//! Waiting until a point in time.
//!
//! Invariant: readiness is decided by the clock alone, so a sleep cannot be due and pending; the timer
//! is only there to have the sleep polled, at the deadline at the latest. So a deadline that is moved later,
//! which is the commonest thing to happen to one, leaves the timer where it is, and the poll that follows when
//! it fires moves it. A timer that has fired or gone with its runtime leaves a
//! stale id, which does no harm.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::Instant;
use crate::base::clock::Tick;
use crate::runtime::{current_or_ambient, other_than};
use crate::sched::task::drop_user_value;
use crate::sched::{Scheduler, current};
use crate::timers::Id;

/// Waits until `duration` has passed.
///
/// It works anywhere, also on other executors. A zero duration is ready at the first poll,
/// [`Duration::MAX`] never.
///
/// # Cancel safety
///
/// Dropping it takes its timer away; nothing can be lost.
///
/// # Examples
///
/// ```
/// use mainspring::time::{Duration, Instant, sleep};
///
/// # mainspring::block_on(async {
/// let start = Instant::now();
/// sleep(Duration::from_micros(50)).await;
/// assert!(start.elapsed() >= Duration::from_micros(50));
/// # });
/// ```
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(Instant::now() + duration)
}

/// Waits until `deadline`; see [`sleep`].
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline: deadline.tick(), armed: None }
}

/// The future of [`sleep`] and [`sleep_until`]. It needs no pinning.
#[must_use = "futures do nothing unless polled"]
pub struct Sleep {
    deadline: Tick,
    armed: Option<Armed>,
}

/// A timer in some runtime's store.
struct Armed {
    scheduler: Arc<Scheduler>,
    id: Id,
    /// When it fires. Not after the deadline; before it, if that was moved later since.
    at: Tick,
    /// What the timer wakes, kept here so that a poll with the same waker takes no lock.
    waker: Waker,
}

impl Sleep {
    /// When it ends.
    pub fn deadline(&self) -> Instant {
        Instant::from_tick(self.deadline)
    }

    /// Whether it is over.
    pub fn is_elapsed(&self) -> bool {
        self.now() >= self.deadline
    }

    fn now(&self) -> Tick {
        match &self.armed {
            Some(armed) => armed.scheduler.now(),
            None => current::now(),
        }
    }

    /// Moves its end, also if it is over. A task that waits for it is woken at the new time, and may be
    /// woken at the old one as well, to wait on when it polls the sleep then. Moving it later costs a
    /// comparison and a store.
    pub fn reset(&mut self, deadline: Instant) {
        self.deadline = deadline.tick();
        let Some(armed) = &mut self.armed else { return };
        if armed.at <= self.deadline {
            // The poll that follows when it fires moves it.
            return;
        }
        match armed.scheduler.reset_timer(armed.id, self.deadline) {
            Some(earliest) => {
                armed.at = self.deadline;
                armed.scheduler.announce_timer(earliest);
            }
            // Its runtime has shut down, and whoever waits has been woken: the next poll arms another one.
            None => self.disarm(),
        }
    }

    fn disarm(&mut self) {
        if let Some(Armed { scheduler, id, at: _, waker }) = self.armed.take() {
            drop_user_value(scheduler.cancel_timer(id));
            drop_user_value(waker);
        }
    }

    /// Arms a timer on the runtime at hand, or on another one if that has shut down.
    fn arm(&mut self, waker: &Waker) {
        let mut scheduler = current_or_ambient();
        loop {
            match scheduler.arm(self.deadline, waker.clone()) {
                Ok((id, earliest)) => {
                    scheduler.announce_timer(earliest);
                    self.armed = Some(Armed { scheduler, id, at: self.deadline, waker: waker.clone() });
                    return;
                }
                Err(unused) => {
                    drop_user_value(unused);
                    scheduler = other_than(&scheduler);
                }
            }
        }
    }

    /// Makes sure that a timer is armed that wakes `waker`, at the deadline or before it. False if there is
    /// no such timer any more. `now` is before the deadline.
    fn rearm(&mut self, now: Tick, waker: &Waker) -> bool {
        let Some(armed) = &mut self.armed else { return false };
        if armed.scheduler.is_closing() {
            return false;
        }
        if armed.at <= now {
            // It has fired, or is just about to, for a deadline that was moved later.
            let Some(earliest) = armed.scheduler.reset_timer(armed.id, self.deadline) else { return false };
            armed.at = self.deadline;
            armed.scheduler.announce_timer(earliest);
        }
        if armed.waker.will_wake(waker) {
            return true;
        }
        let former = armed.scheduler.replace_timer_waker(armed.id, waker.clone());
        let replaced = former.is_ok();
        let kept = std::mem::replace(&mut armed.waker, waker.clone());
        drop_user_value(former);
        drop_user_value(kept);
        replaced
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let now = self.now();
        if now >= self.deadline {
            self.disarm();
            return Poll::Ready(());
        }
        if !self.rearm(now, context.waker()) {
            self.disarm();
            self.arm(context.waker());
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.disarm();
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("deadline", &self.deadline()).finish_non_exhaustive()
    }
}
