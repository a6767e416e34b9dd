//! One registered descriptor: a read side and a write side, each with its readiness, its waiters and its
//! deadline.
//!
//! Knows nothing of the poller that delivers events, of the timer store, or of the system calls that
//! its users make. It calls no waker: operations that have to wake somebody put the wakers into a
//! list of the caller's.
//!
//! # The readiness protocol
//!
//! Each side has one word: READY, EXPIRED, CLOSED, LAST, PAUSED, and the number of edges so far. It is *written
//! only under the side's lock* and read without it, so that an operation that need not wait costs one
//! load besides its system call.
//!
//! An operation goes round this loop:
//!
//! 1. [`attempt`](Source::attempt): load the word. Closed or expired: fail, also when there is data.
//!    Not ready: go to 4. Else keep the number of edges, the *ticket*.
//! 2. Make the system call. It did something: done, after [`short`](Source::short) if it did less than it
//!    was asked to.
//! 3. It would have blocked: [`not_ready`](Source::not_ready) takes READY away, under the lock, *unless the
//!    number of edges is no longer that of the ticket*. Go to 1.
//! 4. [`poll_wait`](Source::poll_wait): under the lock, look at the word again; register if it still
//!    says not ready. When woken, go to 1.
//!
//! An event, under the lock: count the edge, set READY, take all waiters out.
//!
//! **No edge is lost.** Let data come that no system call sees. Its edge is counted (a) before step 1, then
//! READY is set when the word is loaded, and the system call sees the data after all; (b) between 1 and 3:
//! then 3 finds another number and leaves READY; (c) between 3 and the lock in 4: then 4 finds READY;
//! (d) later: then it finds the waiter. The ticket has to be *older* than the system call, which is
//! why the load is an Acquire: nothing after it, the system call included, moves before it. A ticket that
//! is too old is harmless and costs one more system call.
//!
//! **Short transfers.** A stream that gave less than was asked for is empty, and one that took less is full, so
//! the system call that would only say EAGAIN is saved. Not so after the last edge (hang-up, half-close,
//! error): what remains is an end of file or an error, and no further edge announces that; nor with
//! urgent data, at whose mark each read stops short of what lies behind it. Hence LAST, which is never
//! taken back.
//!
//! **Pauses.** PAUSED hides READY: the system call would do something, and it is wanted that it is not made for
//! a while, since it has just failed for a reason that does not go away at once. Edges are counted and set READY
//! meanwhile, but take no waiters out. [`resume`](LockedSide::resume) takes the bit away, and, if the side is READY
//! then, all waiters out. Whoever sets it, under the lock, sees to it that `resume` is called.
//!
//! **Invariant.** A side with waiters has none of READY, EXPIRED and CLOSED, unless READY is hidden by a pause:
//! whoever sets one of these, or ends the pause, takes all waiters out under the same lock. (Who waits for the last
//! two alone, in [`poll_failure`](Source::poll_failure), is there beside READY, and is taken out by those two only.) Several tasks may wait on one side; all of them are woken, one gets the data, and the others wait again.
//! So a waiter that is dropped after it was woken takes nobody's wake-up along.
//!
//! A new source is READY: the first system call finds out.
//!
//! # Deadlines
//!
//! The arithmetic is [`Deadline`]'s. Expiry sets EXPIRED and wakes all; from then on step 1 fails, until the
//! deadline is moved. Readiness and expiry are both state, not messages: a task that an edge has woken and
//! that runs only after the expiry fails with `TimedOut`. (Go hands the edge over to the reader and lets it
//! win.) No byte is lost, since READY stays for the time after.
//!
//! The timer is operated by the layer above, between [`lock`](Source::lock) and the drop of that guard, so
//! that the timer and what the side believes of it never differ. Lock order: `Side < Core`.

use std::io;
use std::task::{Context, Poll, Waker};

use crate::base::clock::Tick;
use crate::base::primitive::atomic::{AtomicU64, Ordering};
use crate::base::rank::{Rank, RankedGuard, RankedMutex, assert_unlocked};
use crate::base::slab::Key;
use crate::timers;

use super::backend::{Edge, Event};
use super::deadline::{Deadline, Fired, TimerAction};
pub(crate) use super::waiters::WaiterId;
use super::waiters::{Awaited, Waiters};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// Why an operation may not make its system call now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// It has to wait.
    NotReady,
    /// The side's deadline has passed.
    Expired,
    /// The descriptor was deregistered, or its runtime has shut down. Wins over an expired deadline.
    Closed,
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> io::Error {
        match refused {
            Refused::NotReady => io::ErrorKind::WouldBlock.into(),
            Refused::Expired => io::Error::new(io::ErrorKind::TimedOut, "deadline has passed"),
            Refused::Closed => io::Error::other("descriptor is closed, or its runtime has shut down"),
        }
    }
}

/// The right to make one system call: the ticket of the readiness protocol.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    edges: u64,
}

/// The state of a side in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Word(u64);

impl Word {
    const READY: u64 = 1;
    const EXPIRED: u64 = 1 << 1;
    const CLOSED: u64 = 1 << 2;
    /// An edge came that may have been the last one.
    const LAST: u64 = 1 << 3;
    /// READY does not count.
    const PAUSED: u64 = 1 << 4;
    /// One edge. 59 bits of them do not come round.
    const EDGE: u64 = 1 << 5;

    fn has(self, bit: u64) -> bool {
        self.0 & bit != 0
    }

    fn with(self, bit: u64, on: bool) -> Word {
        Word(if on { self.0 | bit } else { self.0 & !bit })
    }

    fn edges(self) -> u64 {
        self.0 / Word::EDGE
    }

    fn check(self) -> Result<Attempt, Refused> {
        if self.has(Word::CLOSED) {
            return Err(Refused::Closed);
        }
        if self.has(Word::EXPIRED) {
            return Err(Refused::Expired);
        }
        if self.0 & (Word::READY | Word::PAUSED) != Word::READY {
            return Err(Refused::NotReady);
        }
        Ok(Attempt { edges: self.edges() })
    }
}

/// One direction of a descriptor.
#[derive(Debug)]
struct Side {
    /// A [`Word`]. Written under `state`, read by anybody.
    word: AtomicU64,
    state: RankedMutex<State>,
}

/// What the side's lock guards.
#[derive(Debug, Default)]
struct State {
    waiters: Waiters,
    deadline: Deadline,
    /// The timer that serves the deadline, or the last one that did.
    timer: Option<timers::Id>,
}

impl Side {
    fn new() -> Side {
        Side { word: AtomicU64::new(Word::READY), state: RankedMutex::new(Rank::Side, State::default()) }
    }

    fn load(&self) -> Word {
        // ordering: Acquire, so that the system call comes after the ticket is taken; pairs with the
        // Release in `LockedSide::update`.
        Word(self.word.load(Ordering::Acquire))
    }

    #[cfg_attr(debug_assertions, track_caller)]
    fn lock(&self) -> LockedSide<'_> {
        LockedSide { word: &self.word, state: self.state.lock() }
    }
}

/// A side whose lock is held. While it lives, no waker may be cloned, called or dropped.
pub(crate) struct LockedSide<'a> {
    word: &'a AtomicU64,
    state: RankedGuard<'a, State>,
}

impl LockedSide<'_> {
    fn word(&self) -> Word {
        // ordering: Relaxed, all writes are made under the lock that is held.
        Word(self.word.load(Ordering::Relaxed))
    }

    fn update(&mut self, word: Word) {
        // ordering: Release, pairs with `Side::load`.
        self.word.store(word.0, Ordering::Release);
    }

    /// Sets `bit` and takes out all waiters whom it concerns: what READY, EXPIRED and CLOSED have in common.
    fn raise(&mut self, word: Word, bit: u64, wakers: &mut Vec<Waker>) {
        self.update(word.with(bit, true));
        if bit == Word::READY {
            self.state.waiters.take_ready(wakers);
        } else {
            self.state.waiters.take_all(wakers);
        }
    }

    fn edge(&mut self, edge: Edge, wakers: &mut Vec<Waker>) {
        let word = self.word();
        let last = word.has(Word::LAST) || edge == Edge::Last;
        let counted = Word(word.0.wrapping_add(Word::EDGE)).with(Word::LAST, last);
        if counted.has(Word::PAUSED) {
            self.update(counted.with(Word::READY, true));
        } else {
            self.raise(counted, Word::READY, wakers);
        }
    }

    fn not_ready(&mut self, attempt: Attempt) {
        let word = self.word();
        if word.edges() == attempt.edges {
            self.update(word.with(Word::READY, false));
        }
    }

    fn close(&mut self, wakers: &mut Vec<Waker>) {
        self.raise(self.word(), Word::CLOSED, wakers);
    }

    /// Sets the deadline of this side anew, for operations to come and for those that wait now; `None`
    /// and `Tick::NEVER` clear it. If it has passed already, the waiters' wakers are added to `wakers`,
    /// to be called after the side is unlocked. What is returned is to be done before that.
    ///
    /// # Errors
    ///
    /// `Closed`, if the side is.
    pub(crate) fn set_deadline(
        &mut self,
        now: Tick,
        at: Option<Tick>,
        wakers: &mut Vec<Waker>,
    ) -> Result<TimerAction, Refused> {
        let word = self.word();
        if word.has(Word::CLOSED) {
            return Err(Refused::Closed);
        }
        let action = self.state.deadline.set(now, at);
        if self.state.deadline.expired() {
            self.raise(word, Word::EXPIRED, wakers);
        } else if word.has(Word::EXPIRED) {
            self.update(word.with(Word::EXPIRED, false));
        }
        Ok(action)
    }

    /// The side's timer went off, or may have; `now` was read after that. If the deadline has passed, the waiters'
    /// wakers are added to `wakers`, to be called after the side is unlocked. What is returned is to be
    /// done before that.
    pub(crate) fn timer_fired(&mut self, now: Tick, wakers: &mut Vec<Waker>) -> Fired {
        let word = self.word();
        if word.has(Word::CLOSED) {
            return Fired::Nothing;
        }
        let fired = self.state.deadline.fired(now);
        if fired == Fired::Expired {
            self.raise(word, Word::EXPIRED, wakers);
        }
        fired
    }

    pub(crate) fn paused(&self) -> bool {
        self.word().has(Word::PAUSED)
    }

    /// From now until [`resume`](LockedSide::resume), operations wait as if nothing were ready.
    pub(crate) fn pause(&mut self) {
        let word = self.word();
        self.update(word.with(Word::PAUSED, true));
    }

    /// Ends a pause. Whoever waits, if the side is ready, is added to `wakers`, to be called after the side
    /// is unlocked.
    pub(crate) fn resume(&mut self, wakers: &mut Vec<Waker>) {
        let word = self.word().with(Word::PAUSED, false);
        if word.has(Word::READY) {
            self.raise(word, Word::READY, wakers);
        } else {
            self.update(word);
        }
    }

    /// Where the layer above keeps the id of the side's timer.
    pub(crate) fn timer(&mut self) -> &mut Option<timers::Id> {
        &mut self.state.timer
    }

    /// Takes the timer's id out, to cancel it when the descriptor is closed.
    pub(crate) fn take_timer(&mut self) -> Option<timers::Id> {
        self.state.timer.take()
    }
}

/// A descriptor as the poller knows it.
#[derive(Debug)]
pub(crate) struct Source {
    key: Key,
    read: Side,
    write: Side,
}

impl Source {
    pub(super) fn new(key: Key) -> Source {
        Source { key, read: Side::new(), write: Side::new() }
    }

    pub(super) fn key(&self) -> Key {
        self.key
    }

    fn side(&self, direction: Direction) -> &Side {
        match direction {
            Direction::Read => &self.read,
            Direction::Write => &self.write,
        }
    }

    /// Locks one side, for its deadline and its timer. Only one side of all is locked at a time.
    #[cfg_attr(debug_assertions, track_caller)]
    pub(crate) fn lock(&self, direction: Direction) -> LockedSide<'_> {
        self.side(direction).lock()
    }

    /// Asked before each system call: may it be made?
    pub(crate) fn attempt(&self, direction: Direction) -> Result<Attempt, Refused> {
        self.side(direction).load().check()
    }

    /// The system call of `attempt` would have blocked.
    pub(crate) fn not_ready(&self, direction: Direction, attempt: Attempt) {
        self.lock(direction).not_ready(attempt);
    }

    /// The system call of `attempt` moved some bytes of a stream, but fewer than it was asked to. (None
    /// at all is an end of file and not short, and a datagram is never short.)
    pub(crate) fn short(&self, direction: Direction, attempt: Attempt) {
        let mut side = self.lock(direction);
        if !side.word().has(Word::LAST) {
            side.not_ready(attempt);
        }
    }

    /// Ready when an [`attempt`](Source::attempt) is worth while or will say why not; else the task of
    /// `context` is woken when it may have become so.
    ///
    /// `id` is where the operation keeps its name from one poll to the next, `None` at first, or
    /// [`WaiterId::SHARED`]. An operation that is given up calls [`forget`](Source::forget).
    pub(crate) fn poll_wait(
        &self,
        direction: Direction,
        id: &mut Option<WaiterId>,
        context: &Context<'_>,
    ) -> Poll<Result<(), Refused>> {
        let side = self.side(direction);
        // Without the lock first. No waiter is left behind: a side that is ready has none of this operation's.
        match side.load().check() {
            Err(Refused::NotReady) => {}
            result => return Poll::Ready(result.map(drop)),
        }
        assert_unlocked("clone a waker");
        let waker = context.waker().clone();
        let (poll, _unused) = {
            let mut side = side.lock();
            match side.word().check() {
                Err(Refused::NotReady) => {
                    (Poll::Pending, side.state.waiters.register(id, Awaited::Ready, waker))
                }
                result => (Poll::Ready(result.map(drop)), Some(waker)),
            }
        };
        assert_unlocked("drop a waker");
        poll
    }

    /// Ready once operations in this direction fail, with the reason; else the task of `context` is woken when that has
    /// become so. For operations about which edges say nothing. `id` is where the operation keeps its name, as in
    /// [`poll_wait`](Source::poll_wait), but another one than there.
    pub(crate) fn poll_failure(
        &self,
        direction: Direction,
        id: &mut Option<WaiterId>,
        context: &Context<'_>,
    ) -> Poll<Refused> {
        assert_unlocked("clone a waker");
        let waker = context.waker().clone();
        let (poll, _unused) = {
            let mut side = self.side(direction).lock();
            match side.word().check() {
                Err(failure @ (Refused::Expired | Refused::Closed)) => (Poll::Ready(failure), Some(waker)),
                _ => (Poll::Pending, side.state.waiters.register(id, Awaited::Failure, waker)),
            }
        };
        assert_unlocked("drop a waker");
        poll
    }

    /// Ends the registration of an operation that was given up. The waker is returned to be dropped
    /// where nothing is locked.
    #[must_use = "a waker is dropped where nothing is locked"]
    pub(crate) fn forget(&self, direction: Direction, id: WaiterId) -> Option<Waker> {
        self.lock(direction).state.waiters.remove(id)
    }

    /// Applies what the system said and adds whoever has to be woken to `wakers`.
    pub(super) fn deliver(&self, event: Event, wakers: &mut Vec<Waker>) {
        if let Some(edge) = event.read {
            self.lock(Direction::Read).edge(edge, wakers);
        }
        if let Some(edge) = event.write {
            self.lock(Direction::Write).edge(edge, wakers);
        }
    }

    /// From now on all operations fail. Whoever waits is added to `wakers`, to be called.
    pub(super) fn close(&self, wakers: &mut Vec<Waker>) {
        for direction in [Direction::Read, Direction::Write] {
            self.lock(direction).close(wakers);
        }
    }
}

#[cfg(all(test, not(mainspring_loom)))]
mod tests;

#[cfg(all(test, mainspring_loom))]
mod loom_tests;
