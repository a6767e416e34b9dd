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
use crate::runtime::{other_than_closing, with_current_or_ambient};
use crate::sched::current;
use crate::sched::processor::Processor;
use crate::sched::task::drop_user_value;
use crate::timers::Key;

/// How long before a timer's time a poll makes sure that it is still there. Much more than what clocks differ by.
const NEAR: Duration = Duration::from_micros(100);

/// Waits until `duration` has passed.
///
/// It works anywhere, also on other executors. A zero duration is ready at the first poll,
/// [`Duration::MAX`] never.
///
/// A task that sleeps again and again and never has to wait yields now and then all the same, so that others can
/// run: such a sleep is ready at its second poll.
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
    sleep_until(after(duration))
}

/// The time `duration` from now, or a little later, for less than the price of reading the clock.
pub(super) fn after(duration: Duration) -> Instant {
    // What takes no time is over now, and not a little later.
    let now = if duration.is_zero() { current::now() } else { current::now_or_later() };
    Instant::from_tick(now.saturating_add(duration))
}

/// Waits until `deadline`; see [`sleep`].
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline: deadline.tick(), armed: None, has_waited: false }
}

/// The future of [`sleep`] and [`sleep_until`]. It needs no pinning.
#[must_use = "futures do nothing unless polled"]
pub struct Sleep {
    deadline: Tick,
    armed: Option<Armed>,
    /// Whether a poll was pending since the deadline was set. A sleep that is over is put off only if not:
    /// so at most once, or a future beside it that uses up every budget would starve it.
    has_waited: bool,
}

/// A timer in some processor's store.
struct Armed {
    /// Not the scheduler: its count of references is shared by all threads, a processor's seldom is.
    processor: Arc<Processor>,
    key: Key,
    /// When it fires. Not after the deadline; before it, if that was moved later since.
    at: Tick,
    waker: WakerId,
}

/// Tells wakers from one another without owning one: the addresses of what it wakes and of its functions.
///
/// Two wakers that exist at the same time and have the same addresses wake the same. The waker of a timer
/// that has not fired exists, in the store.
#[derive(PartialEq, Eq)]
struct WakerId(usize, usize);

impl WakerId {
    fn of(waker: &Waker) -> WakerId {
        WakerId(waker.data() as usize, std::ptr::from_ref(waker.vtable()) as usize)
    }
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
            Some(armed) => armed.processor.now(),
            None => current::now(),
        }
    }

    /// Moves its end, also if it is over. A task that waits for it is woken at the new time, and may be
    /// woken at the old one as well, to wait on when it polls the sleep then. Moving it later costs a
    /// comparison and a store.
    pub fn reset(&mut self, deadline: Instant) {
        self.deadline = deadline.tick();
        self.has_waited = false;
        let Some(armed) = &mut self.armed else { return };
        if armed.at <= self.deadline {
            // The poll that follows when it fires moves it.
            return;
        }
        if !armed.move_to(self.deadline) {
            // It has fired just now, or its runtime has shut down: whoever waits has been woken, and the
            // next poll arms another one.
            self.armed = None;
        }
    }

    /// Moves its end to `duration` from now; see [`reset`](Sleep::reset).
    pub fn reset_after(&mut self, duration: Duration) {
        self.reset(after(duration));
    }

    fn disarm(&mut self) {
        // In place: to move what was just written, in other pieces than it was written in, waits for the cache.
        if let Some(armed) = &self.armed {
            // As long as the timer is in the store, the earliest one is no later. That it is later says that the
            // timer has fired, which is how most sleeps end, and saves the lock.
            if armed.processor.next_timer() <= armed.at {
                drop_user_value(armed.processor.cancel_timer(armed.key));
            }
            self.armed = None;
        }
    }

    /// Arms a timer on the runtime at hand, or on another one if that has shut down. `now` is before the
    /// deadline.
    fn arm(&mut self, now: Tick, waker: &Waker, mut processor: Arc<Processor>) {
        let mut unarmed = waker.clone();
        loop {
            match processor.arm_timer(now, self.deadline, unarmed) {
                Ok((key, earliest)) => {
                    processor.announce_timer(earliest);
                    self.armed = Some(Armed { processor, key, at: self.deadline, waker: WakerId::of(waker) });
                    return;
                }
                Err(waker) => unarmed = waker,
            }
            processor = Arc::clone(other_than_closing().processor_for_timers(None));
        }
    }

    /// The rest of a poll in which the sleep was found to be over.
    fn end(&mut self, has_waited: bool, context: &Context<'_>) -> Poll<()> {
        if !has_waited && !current::spend_budget() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.disarm();
        Poll::Ready(())
    }
}

impl Armed {
    /// Has the timer fire at `at`; false if it has fired or gone with its runtime.
    fn move_to(&mut self, at: Tick) -> bool {
        let Some(earliest) = self.processor.reset_timer(self.key, at) else { return false };
        self.at = at;
        self.processor.announce_timer(earliest);
        true
    }

    /// Makes sure that the timer wakes `waker`, at `deadline` or before it. False if it has fired or gone
    /// with its runtime. `now` is before the deadline.
    fn renew(&mut self, now: Tick, deadline: Tick, waker: &Waker) -> bool {
        if self.processor.timers_are_closed() {
            return false;
        }
        // If its time has come, it has fired, or is just about to, for a deadline that was moved later. The store
        // is asked already somewhat before that: then no error of the time, however it came about, makes a sleep
        // wait for a timer that has fired.
        if self.at <= now.saturating_add(NEAR) {
            // Moved to where it is, it would lose its turn among those of the same instant.
            let is_there =
                if self.at == deadline { self.processor.has_timer(self.key) } else { self.move_to(deadline) };
            if !is_there {
                return false;
            }
        }
        let id = WakerId::of(waker);
        if self.waker == id {
            return true;
        }
        let former = self.processor.replace_timer_waker(self.key, waker.clone());
        let replaced = former.is_ok();
        self.waker = id;
        drop_user_value(former);
        replaced
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        let has_waited = std::mem::replace(&mut self.has_waited, true);
        if let Some(armed) = &mut self.armed {
            let Some(now) = armed.processor.now_before(deadline) else {
                return self.end(has_waited, context);
            };
            if armed.renew(now, deadline, context.waker()) {
                return Poll::Pending;
            }
            self.disarm();
        }
        let at_hand = with_current_or_ambient(|scheduler, token| {
            let now = scheduler.now_before(deadline)?;
            Some((now, Arc::clone(scheduler.processor_for_timers(token))))
        });
        let Some((now, processor)) = at_hand else {
            return self.end(has_waited, context);
        };
        self.arm(now, context.waker(), processor);
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
