//! Deadlines of a descriptor: the part that operates timers.
//!
//! `poll` says what is to be done with the timer of a side, and here it is done, while the side is
//! locked (rank Side before Core), so that the timer and what the side believes of it never differ. Wakers are
//! called, and sleepers told, after the side is unlocked.

#[cfg(all(test, debug_assertions, not(mainspring_loom)))]
mod tests;

use std::fmt;
use std::io;
use std::sync::Arc;
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

/// The methods that set deadlines, once for everything with two sides, in an `impl` of a type with a field `descriptor`.
macro_rules! deadline_methods {
    () => {
        /// Sets both deadlines; `None` clears them. See [the module](crate::net).
        ///
        /// # Errors
        ///
        /// If it is registered with a runtime that has shut down.
        pub fn set_deadline(
            &self,
            deadline: impl Into<Option<$crate::time::Instant>>,
        ) -> ::std::io::Result<()> {
            self.descriptor.set_deadline(&$crate::net::deadlines::BOTH, deadline.into())
        }

        /// Sets the deadline for reading; `None` clears it.
        ///
        /// # Errors
        ///
        /// As [`set_deadline`](Self::set_deadline).
        pub fn set_read_deadline(
            &self,
            deadline: impl Into<Option<$crate::time::Instant>>,
        ) -> ::std::io::Result<()> {
            self.descriptor.set_deadline(&[$crate::poll::source::Direction::Read], deadline.into())
        }

        /// Sets the deadline for writing; `None` clears it.
        ///
        /// # Errors
        ///
        /// As [`set_deadline`](Self::set_deadline).
        pub fn set_write_deadline(
            &self,
            deadline: impl Into<Option<$crate::time::Instant>>,
        ) -> ::std::io::Result<()> {
            self.descriptor.set_deadline(&[$crate::poll::source::Direction::Write], deadline.into())
        }

        /// A handle to the deadlines, for use while somebody else owns this.
        pub fn deadlines(&self) -> $crate::net::Deadlines {
            self.descriptor.deadlines()
        }
    };
}

pub(crate) use deadline_methods;

/// The sides in the order in which their deadlines are set and pass. Often they have the same one. Whoever is told
/// that reading is over, and writes to say goodbye, must not find that still open.
pub(crate) const BOTH: [Direction; 2] = [Direction::Write, Direction::Read];

/// A descriptor's place in a runtime.
pub(crate) struct Registration {
    pub(crate) source: Arc<Source>,
    pub(crate) scheduler: Arc<Scheduler>,
}

impl Deadlines {
    pub(crate) fn new(registration: Arc<Registration>) -> Deadlines {
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

    /// Sets both deadlines, for who has a lock of the rank Turns: it has to finish what is left after unlocking that.
    #[cfg(feature = "hyper")]
    #[must_use]
    pub(crate) fn set_deadline_locked(&self, deadline: Option<Instant>) -> Unfinished<'_> {
        let mut left = Left::default();
        // It fails only if the socket has been closed, and then its deadlines do not matter.
        let _ = self.registration.change_deadline(&BOTH, deadline, &mut left);
        Unfinished { left, scheduler: &self.registration.scheduler }
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
    pub(crate) fn set_deadline(
        self: &Arc<Self>,
        directions: &[Direction],
        at: Option<Instant>,
    ) -> io::Result<()> {
        let mut left = Left::default();
        let result = self.change_deadline(directions, at, &mut left);
        left.finish(&self.scheduler);
        result
    }

    #[inline]
    fn change_deadline(
        self: &Arc<Self>,
        directions: &[Direction],
        at: Option<Instant>,
        left: &mut Left,
    ) -> io::Result<()> {
        let at = at.map(Instant::tick);
        let mut now = self.scheduler.now_or_later();
        if at.is_some_and(|at| at <= now) {
            // It may have passed, which only the clock can tell.
            now = self.scheduler.now();
        }
        directions.iter().try_for_each(|&direction| {
            let mut side = self.source.lock(direction);
            match side.set_deadline(now, at, &mut left.wakers)? {
                TimerAction::None => {}
                TimerAction::Arm(at) | TimerAction::Earlier(at) => {
                    self.file(&mut side, now, at, left);
                }
            }
            Ok(())
        })
    }

    /// A timer of one of the sides went off. Which of them is not asked: what counts is what time it is.
    fn timer_fired(self: &Arc<Self>) {
        let now = self.scheduler.now();
        let mut left = Left::default();
        for direction in BOTH {
            let mut side = self.source.lock(direction);
            if let Fired::Rearm(at) = side.timer_fired(now, &mut left.wakers) {
                self.file(&mut side, now, at, &mut left);
            }
        }
        left.finish(&self.scheduler);
    }

    /// Has the side's timer go off at `at`: the present one, or a new one if that has gone off.
    fn file(self: &Arc<Self>, side: &mut LockedSide<'_>, now: Tick, at: Tick, left: &mut Left) {
        if let Some(id) = *side.timer()
            && let Some(earliest) = self.scheduler.reset_timer(id, at)
        {
            left.earliest = left.earliest.or(earliest);
            return;
        }
        // The waker is our own: making it runs no user code.
        match self.scheduler.arm(now, at, Waker::from(Arc::clone(self))) {
            Ok((id, earliest)) => {
                *side.timer() = Some(id);
                left.earliest = left.earliest.or(earliest);
            }
            // The runtime has shut down, and every operation on the socket fails.
            Err(unused) => left.unused.push(unused),
        }
    }

    /// Takes the timers of both sides away; the descriptor is being closed.
    pub(crate) fn cancel_timers(&self) {
        for direction in BOTH {
            let id = self.source.lock(direction).take_timer();
            let waker = id.and_then(|id| self.scheduler.cancel_timer(id));
            drop_user_value(waker);
        }
    }
}

/// What [`Deadlines::set_deadline_locked`] leaves to do.
#[cfg(feature = "hyper")]
pub(crate) struct Unfinished<'a> {
    left: Left,
    scheduler: &'a Arc<Scheduler>,
}

#[cfg(feature = "hyper")]
impl Unfinished<'_> {
    /// Calls wakers; nothing may be locked.
    pub(crate) fn finish(self) {
        self.left.finish(self.scheduler);
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
    #[inline]
    fn finish(self, scheduler: &Arc<Scheduler>) {
        if !self.wakers.is_empty() || !self.unused.is_empty() || self.earliest != Earliest::default() {
            self.finish_all(scheduler);
        }
    }

    #[cold]
    fn finish_all(self, scheduler: &Arc<Scheduler>) {
        scheduler.announce_timer(self.earliest);
        self.unused.into_iter().for_each(drop_user_value);
        self.wakers.into_iter().for_each(wake);
    }
}

/// What the timers of both sides wake. They are taken away when the descriptor is closed, and when the runtime ends, so
/// none keeps the registration longer than that.
impl Wake for Registration {
    fn wake(self: Arc<Self>) {
        self.timer_fired();
    }
}
