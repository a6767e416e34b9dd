//! Deadlines of a descriptor: the part that operates timers.
//!
//! `poll` says what is to be done with the timer of a side, and here it is done, while the side is
//! locked (rank Side before Core), so that the timer and what the side believes of it never differ. Wakers are
//! called, and sleepers told, after the side is unlocked.

#[cfg(all(test, debug_assertions, not(mainspring_loom)))]
mod tests;

use std::fmt;
use std::io;
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};

use crate::base::clock::Tick;
use crate::poll::deadline::{Fired, TimerAction};
use crate::poll::source::{Direction, LockedSide, Source};
use crate::sched::Scheduler;
use crate::sched::task::{drop_user_value, wake};
use crate::time::Instant;
use crate::timers::Earliest;

/// A handle to a socket's deadlines, to be used while somebody else owns the socket: a protocol
/// library, for example. Cheap to clone. It does not keep the socket open.
///
/// # Examples
///
/// ```
/// use mainspring::net::{TcpListener, TcpStream};
/// use mainspring::time::{Duration, Instant};
///
/// # mainspring::block_on(async {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let stream = TcpStream::connect(listener.local_addr()?).await?;
/// let deadlines = stream.deadlines();
/// let reader = mainspring::spawn(async move { stream.read(&mut [0]).await });
/// deadlines.set_read_deadline(Instant::now() + Duration::from_millis(1))?;
/// let error = reader.await.unwrap().unwrap_err();
/// assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct Deadlines {
    registration: Arc<Registration>,
}

/// The sides in the order in which their deadlines are set and pass. Often they have the same one. Whoever is told
/// that reading is over, and writes to say goodbye, must not find that still open.
pub(in crate::net) const BOTH: [Direction; 2] = [Direction::Write, Direction::Read];

/// A descriptor's place in a runtime.
pub(super) struct Registration {
    pub(super) source: Arc<Source>,
    pub(super) scheduler: Arc<Scheduler>,
}

impl Deadlines {
    pub(super) fn new(registration: Arc<Registration>) -> Deadlines {
        Deadlines { registration }
    }

    /// Sets both deadlines; `None` clears them.
    ///
    /// # Errors
    ///
    /// If the socket is closed or its runtime has shut down.
    pub fn set_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
        self.registration.set_deadline(&BOTH, deadline.into())
    }

    /// Sets the deadline for reading and accepting; `None` clears it.
    ///
    /// # Errors
    ///
    /// As [`set_deadline`](Deadlines::set_deadline).
    pub fn set_read_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
        self.registration.set_deadline(&[Direction::Read], deadline.into())
    }

    /// Sets the deadline for writing; `None` clears it.
    ///
    /// # Errors
    ///
    /// As [`set_deadline`](Deadlines::set_deadline).
    pub fn set_write_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
        self.registration.set_deadline(&[Direction::Write], deadline.into())
    }
}

impl fmt::Debug for Deadlines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deadlines").finish_non_exhaustive()
    }
}

impl Registration {
    /// Sets the deadlines of some directions, one after the other, before anybody is woken for any of them.
    pub(super) fn set_deadline(
        self: &Arc<Self>,
        directions: &[Direction],
        at: Option<Instant>,
    ) -> io::Result<()> {
        let at = at.map(Instant::tick);
        let mut now = self.scheduler.now_or_later();
        if at.is_some_and(|at| at <= now) {
            // It may have passed, which only the clock can tell.
            now = self.scheduler.now();
        }
        let mut left = Left::default();
        let result = directions.iter().try_for_each(|&direction| {
            let mut side = self.source.lock(direction);
            match side.set_deadline(now, at, &mut left.wakers)? {
                TimerAction::None => {}
                TimerAction::Arm(at) | TimerAction::Earlier(at) => {
                    self.file(&mut side, direction, now, at, &mut left);
                }
            }
            Ok(())
        });
        left.finish(&self.scheduler);
        result
    }

    fn timer_fired(self: &Arc<Self>, direction: Direction) {
        let now = self.scheduler.now();
        let mut left = Left::default();
        for side_of in BOTH {
            let mut side = self.source.lock(side_of);
            if side_of != direction {
                side.expire(now, &mut left.wakers);
            } else if let Fired::Rearm(at) = side.timer_fired(now, &mut left.wakers) {
                self.file(&mut side, direction, now, at, &mut left);
            }
        }
        left.finish(&self.scheduler);
    }

    /// Has the side's timer go off at `at`: the present one, or a new one if that has gone off.
    fn file(
        self: &Arc<Self>,
        side: &mut LockedSide<'_>,
        direction: Direction,
        now: Tick,
        at: Tick,
        left: &mut Left,
    ) {
        if let Some(id) = *side.timer()
            && let Some(earliest) = self.scheduler.reset_timer(id, at)
        {
            left.earliest = left.earliest.or(earliest);
            return;
        }
        // The waker is our own: making and cloning it runs no user code.
        let waker = side.deadline_waker().get_or_insert_with(|| {
            Waker::from(Arc::new(DeadlineTimer { registration: Arc::downgrade(self), direction }))
        });
        match self.scheduler.arm(now, at, waker.clone()) {
            Ok((id, earliest)) => {
                *side.timer() = Some(id);
                left.earliest = left.earliest.or(earliest);
            }
            // The runtime has shut down, and every operation on the socket fails.
            Err(unused) => left.unused.push(unused),
        }
    }

    /// Takes the timers of both sides away; the descriptor is being closed.
    pub(super) fn cancel_timers(&self) {
        for direction in BOTH {
            let id = self.source.lock(direction).take_timer();
            let waker = id.and_then(|id| self.scheduler.cancel_timer(id));
            drop_user_value(waker);
        }
    }
}

/// What is left to do once no side is locked.
#[derive(Default)]
struct Left {
    wakers: Vec<Waker>,
    /// What filing timers did to the earliest time of all.
    earliest: Earliest,
    unused: Vec<Waker>,
}

impl Left {
    fn finish(self, scheduler: &Arc<Scheduler>) {
        scheduler.announce_timer(self.earliest);
        self.unused.into_iter().for_each(drop_user_value);
        self.wakers.into_iter().for_each(wake);
    }
}

/// What the timer of one side wakes.
struct DeadlineTimer {
    registration: Weak<Registration>,
    direction: Direction,
}

impl Wake for DeadlineTimer {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(registration) = self.registration.upgrade() {
            registration.timer_fired(self.direction);
        }
    }
}
