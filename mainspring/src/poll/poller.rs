//! All descriptors, whose turn it is to poll, and the protocol that ends a wait.
//!
//! Knows nothing of tasks, workers and processors, nor of clocks: the time until which a thread means to
//! sleep comes in as a [`Tick`]. It calls no waker; polling returns them.
//!
//! # Turns
//!
//! At most one thread polls at a time, whether it blocks or not: the one that holds the [`Turn`]. A thread
//! that is refused knows only that somebody else polls at this moment, *not* that somebody sits in the
//! poller. So whoever ends a turn looks whether a thread has to go and sit there.
//!
//! # Ending a wait
//!
//! One word says whether a thread sits in the poller: NOBODY, NOTIFIED (it is being interrupted), or the
//! time until which it will sit there.
//!
//! ```text
//!            announce              interrupt_if_after
//!  NOBODY ─────────────▶ until ──────────────────────▶ NOTIFIED
//!    ▲                     │                               │
//!    └─ withdraw, or wait ─┴───────────────────────────────┘
//!       has returned
//! ```
//!
//! The *sleeper* holds the turn, and
//!
//! * S1. announces until when it means to sleep (store);
//! * S2. full barrier;
//! * S3. looks at **every** source of work once more: queues, timers, requests to shut down. If it finds
//!   one, or a time that comes before `until`, it withdraws;
//! * S4. waits;
//! * S5. stores NOBODY, and only then applies the events. It will pass S1 to S3 again before it sleeps again.
//!
//! A *publisher* of work that is needed at the time `needed` (zero: now)
//!
//! * P1. publishes the work, where S3 looks;
//! * P2. full barrier;
//! * P3. loads the word. NOBODY, NOTIFIED, or a time not after `needed`: done;
//! * P4. compare-and-swap of that time to NOTIFIED. It fails: done;
//! * P5. the one system call.
//!
//! **No wake-up is lost.** The two barriers have an order. If P2 comes first, S3 sees the work. Else the load in P3
//! sees the announcement of S1 or something later in the life of the word:
//!
//! * the announcement itself: the sleeper sits there until early enough, or P4 decides. Of several publishers one
//!   wins and makes the system call, which ends the present wait or, if the sleeper is not there yet,
//!   the wait that it is about to begin;
//! * NOTIFIED: somebody else has won P4 and makes that call;
//! * NOBODY or another announcement: the sleeper is through S5, and S3 stands before its next sleep. That S3
//!   sees the work, unless P2 comes after that S2 too, and then P3 sees that announcement or
//!   something later, and so on.
//!
//! P4 fails only if the word has moved on since P3. What P3 saw was then older than any announcement that has
//! been made since, so P2 came before the barrier of that one, and its S3 sees the work.
//!
//! **What is not exact, and harmless.** The winner of P4 can be slow: by the time of its system call the sleeper
//! may have left, and a later wait returns at once without a reason. The same happens if a time is announced
//! again that P4 still expects. A sleeper must cope with that anyway: the wait also ends for signals.
//! The interrupt itself is kept by the backend until a wait takes it. `poll_now` may take it too, but
//! needs the turn, and so only when the sleeper it was meant for is through S5.
//!
//! What the thread that returns from S4 does before it passes S3 again is the scheduler's affair: it is
//! awake, and owes what every thread owes that looks for work.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use crate::base::clock::Tick;
use crate::base::primitive::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::base::primitive::full_barrier;
use crate::base::rank::{Rank, RankedMutex, assert_unlocked};
use crate::base::slab::{Key, Slab};

use super::backend::{Backend, Event};
use super::epoll::Epoll;
use super::source::{Refused, Source};

/// Nobody sits in the poller.
const NOBODY: u64 = 0;
/// Whoever sits in the poller is being interrupted. Greater values are the time until which somebody
/// sits there, in nanoseconds.
const NOTIFIED: u64 = 1;

#[derive(Debug)]
pub(crate) struct Poller {
    backend: Box<dyn Backend>,
    table: RankedMutex<Table>,
    /// NOBODY, NOTIFIED or a time. Written by the holder of the turn, and by the publisher that wins P4.
    sleeping: AtomicU64,
    /// True while there is a [`Turn`]. Set by whoever gets it, cleared by its drop.
    turn: AtomicBool,
    /// The buffer for events while there is no [`Turn`], so that not every turn allocates one.
    events_spare: RankedMutex<Vec<Event>>,
    /// Calls of the backend's wait that returned, blocking or not. This and the next two: written by
    /// the holder of the turn, read by anybody.
    polls: AtomicU64,
    /// Those of them that could block.
    waits: AtomicU64,
    /// Events that reached a source.
    events: AtomicU64,
    /// System calls made to end a wait. Written by winners of P4.
    interrupts: AtomicU64,
}

#[derive(Debug)]
struct Table {
    /// A place is `None` only inside of `register`, while its source is being made.
    sources: Slab<Option<Arc<Source>>>,
    /// The runtime has shut down.
    closed: bool,
}

/// A snapshot of the poller's counters.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Counters {
    /// Times that the system was asked, blocking or not.
    pub(crate) polls: u64,
    /// How many of them could block.
    pub(crate) waits: u64,
    /// Events that reached a descriptor.
    pub(crate) events: u64,
    /// System calls that interrupted a wait.
    pub(crate) interrupts: u64,
}

impl Poller {
    /// The system's poller.
    ///
    /// # Errors
    ///
    /// The system's, commonly that no descriptor is left.
    pub(crate) fn new() -> io::Result<Poller> {
        Ok(Poller::with_backend(Box::new(Epoll::new()?)))
    }

    pub(crate) fn with_backend(backend: Box<dyn Backend>) -> Poller {
        Poller {
            backend,
            table: RankedMutex::new(Rank::Descriptors, Table { sources: Slab::new(), closed: false }),
            sleeping: AtomicU64::new(NOBODY),
            turn: AtomicBool::new(false),
            events_spare: RankedMutex::new(Rank::Events, Vec::new()),
            polls: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            events: AtomicU64::new(0),
            interrupts: AtomicU64::new(0),
        }
    }

    /// Begins to watch `fd`, which must be in non-blocking mode and stay open until
    /// [`deregister`](Poller::deregister). A socket that is to be connected is registered after
    /// `connect` was called: before, it counts as hung up.
    ///
    /// # Errors
    ///
    /// The system's (a regular file cannot be watched: `PermissionDenied`), or `Closed` after
    /// [`close`](Poller::close).
    pub(crate) fn register(&self, fd: BorrowedFd<'_>) -> io::Result<Arc<Source>> {
        self.add(fd, false)
    }

    /// As [`register`](Poller::register), but also for what cannot be watched and need not be, a regular file: no
    /// call on it says that it would have blocked. Its source stays ready.
    ///
    /// # Errors
    ///
    /// As there.
    pub(crate) fn register_any(&self, fd: BorrowedFd<'_>) -> io::Result<Arc<Source>> {
        self.add(fd, true)
    }

    fn add(&self, fd: BorrowedFd<'_>, file: bool) -> io::Result<Arc<Source>> {
        let source = {
            let mut table = self.table.lock();
            if table.closed {
                return Err(Refused::Closed.into());
            }
            let key = table.sources.insert(None);
            let source = Arc::new(Source::new(key));
            table.sources.at_mut(key.index()).replace(Arc::clone(&source));
            source
        };
        match self.backend.add(fd, source.key().to_u64()) {
            Err(error) if !(file && error.kind() == io::ErrorKind::PermissionDenied) => {
                self.table.lock().sources.remove(source.key());
                Err(error)
            }
            _ => Ok(source),
        }
    }

    /// Ends the watch over `fd`, which was registered as `source`. Operations on the source fail from now on;
    /// whoever waits for one is added to `wakers`. The timers of its sides are the caller's to cancel.
    ///
    /// # Errors
    ///
    /// The system's; the source is closed all the same.
    pub(crate) fn deregister(
        &self,
        source: &Source,
        fd: BorrowedFd<'_>,
        wakers: &mut Vec<Waker>,
    ) -> io::Result<()> {
        let result = self.backend.remove(fd);
        // From here on an event that is still on its way finds nothing, even if the place is used again.
        let removed = self.table.lock().sources.remove(source.key());
        source.close(wakers);
        drop(removed);
        result
    }

    /// Ends the service: all operations on all sources fail from now on, and so does `register`. Returns
    /// everybody who waits.
    #[must_use = "whoever waits has to be woken"]
    pub(crate) fn close(&self) -> Vec<Waker> {
        let mut wakers = Vec::new();
        let mut table = self.table.lock();
        table.closed = true;
        for source in table.sources.iter().flatten() {
            source.close(&mut wakers);
        }
        wakers
    }

    /// The right to poll, if nobody has it.
    pub(crate) fn try_turn(&self) -> Option<Turn<'_>> {
        // ordering: Acquire, pairs with the Release in the drop of the turn before.
        let free = self.turn.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok();
        free.then(|| Turn { poller: self, events: std::mem::take(&mut *self.events_spare.lock()) })
    }

    /// For whoever has published work that is needed at the time `needed` (tick zero: in any case),
    /// and has called `full_barrier` since: interrupts the thread that sits in the poller, if there
    /// is one and it would sit there for longer than that. True if this call did it.
    pub(crate) fn interrupt_if_after(&self, needed: Tick) -> bool {
        // ordering: Relaxed; the barriers P2 and S2 decide what is seen here.
        let until = self.sleeping.load(Ordering::Relaxed);
        if until <= needed.as_nanos().max(NOTIFIED) {
            return false;
        }
        // ordering: Relaxed, it decides who makes the call and publishes nothing.
        let won =
            self.sleeping.compare_exchange(until, NOTIFIED, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if won {
            // ordering: Relaxed, only a count.
            self.interrupts.fetch_add(1, Ordering::Relaxed);
            self.backend.interrupt();
        }
        won
    }

    /// Whether a thread sits in the poller, or is about to. Like `interrupt_if_after`, of use after a barrier.
    pub(crate) fn is_attended(&self) -> bool {
        // ordering: Relaxed; the barriers P2 and S2 decide what is seen here.
        self.sleeping.load(Ordering::Relaxed) != NOBODY
    }

    /// Until when a thread sits in the poller; tick zero if it is being interrupted, `None` if nobody
    /// sits there. Of use for reports, and after a barrier.
    pub(crate) fn sits_until(&self) -> Option<Tick> {
        // ordering: Relaxed; the barriers P2 and S2 decide what is seen here.
        match self.sleeping.load(Ordering::Relaxed) {
            NOBODY => None,
            NOTIFIED => Some(Tick::from_nanos(0)),
            until => Some(Tick::from_nanos(until)),
        }
    }

    /// Whether there is a [`Turn`], for reports.
    pub(crate) fn turn_is_taken(&self) -> bool {
        // ordering: Relaxed, only reported.
        self.turn.load(Ordering::Relaxed)
    }

    /// How many descriptors are registered.
    pub(crate) fn len(&self) -> usize {
        self.table.lock().sources.len()
    }

    /// How often the system was asked. A monitor that finds it unchanged for too long asks itself.
    pub(crate) fn polls(&self) -> u64 {
        // ordering: Relaxed, only compared with an earlier reading.
        self.polls.load(Ordering::Relaxed)
    }

    pub(crate) fn counters(&self) -> Counters {
        // ordering: Relaxed, they are only counts.
        Counters {
            polls: self.polls(),
            waits: self.waits.load(Ordering::Relaxed),
            // ordering: Relaxed, as above.
            events: self.events.load(Ordering::Relaxed),
            interrupts: self.interrupts.load(Ordering::Relaxed),
        }
    }

    /// Hands events to their sources; those for a source that is gone are dropped. Returns how many arrived.
    fn deliver(&self, events: &[Event], wakers: &mut Vec<Waker>) -> usize {
        let table = self.table.lock();
        let mut delivered = 0;
        for &event in events {
            if let Some(Some(source)) = table.sources.get(Key::from_u64(event.token)) {
                source.deliver(event, wakers);
                delivered += 1;
            }
        }
        delivered
    }
}

/// The right to poll; only one exists at a time.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    poller: &'a Poller,
    events: Vec<Event>,
}

impl<'a> Turn<'a> {
    /// Looks what has become ready, without waiting. Adds whoever has to be woken to `wakers` and
    /// returns how many events there were.
    pub(crate) fn poll_now(&mut self, wakers: &mut Vec<Waker>) -> io::Result<usize> {
        self.poller.backend.wait(Some(Duration::ZERO), &mut self.events)?;
        Ok(self.deliver(wakers))
    }

    /// S1 and S2 of the protocol above: says that this thread is going to sit in the poller until
    /// `until` (`Tick::NEVER`: without limit). The caller looks at every source of work once more and
    /// then waits or withdraws.
    pub(crate) fn announce(&mut self, until: Tick) -> Announced<'_, 'a> {
        // A time before all time would look like one of the marks; such a sleep is over at once.
        let word = until.as_nanos().max(NOTIFIED + 1);
        // ordering: Relaxed, the barrier below puts it before the looks at every source of work.
        self.poller.sleeping.store(word, Ordering::Relaxed);
        full_barrier();
        Announced { turn: self }
    }

    fn deliver(&mut self, wakers: &mut Vec<Waker>) -> usize {
        let poller = self.poller;
        // ordering: Relaxed, this and the next are only counts.
        poller.polls.fetch_add(1, Ordering::Relaxed);
        if self.events.is_empty() {
            return 0;
        }
        let delivered = poller.deliver(&self.events, wakers);
        // ordering: Relaxed, only a count.
        poller.events.fetch_add(delivered as u64, Ordering::Relaxed);
        delivered
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.poller.events_spare.lock() = std::mem::take(&mut self.events);
        // ordering: Release, pairs with the Acquire in `try_turn`.
        self.poller.turn.store(false, Ordering::Release);
    }
}

/// Proof that it is known that this thread is going to sit in the poller. Dropping it withdraws.
#[must_use = "announced to wait, or to withdraw"]
#[derive(Debug)]
pub(crate) struct Announced<'t, 'a> {
    turn: &'t mut Turn<'a>,
}

impl Announced<'_, '_> {
    /// Waits until something is ready, `timeout` is over (`None`: no limit) or somebody interrupts. It may
    /// also end early without a reason. Adds whoever has to be woken to `wakers` and returns how many
    /// events there were.
    ///
    /// # Errors
    ///
    /// The system's; a signal is none.
    pub(crate) fn wait(self, timeout: Option<Duration>, wakers: &mut Vec<Waker>) -> io::Result<usize> {
        assert_unlocked("wait in the poller");
        let result = self.turn.poller.backend.wait(timeout, &mut self.turn.events);
        self.retract();
        // ordering: Relaxed, only a count.
        self.turn.poller.waits.fetch_add(1, Ordering::Relaxed);
        result?;
        Ok(self.turn.deliver(wakers))
    }

    /// There was work: this thread does not wait.
    pub(crate) fn withdraw(self) {}

    /// S5. Only the holder of the turn announces, so doing it twice takes nobody else's word away.
    fn retract(&self) {
        // ordering: Relaxed. A publisher that sees the older word interrupts for nothing, and one that
        // sees this relies on the barrier of the next announcement.
        self.turn.poller.sleeping.store(NOBODY, Ordering::Relaxed);
    }
}

impl Drop for Announced<'_, '_> {
    fn drop(&mut self) {
        self.retract();
    }
}

#[cfg(all(test, not(mainspring_loom)))]
mod tests;

#[cfg(all(test, mainspring_loom))]
mod loom_tests;
