//! A processor: the right to run tasks, and the data that goes with it.
//!
//! All of it is plain data behind one lock, the core's, which is released whenever user code runs.
//! So anybody may look in at any moment at which user code runs: to add a task or a timer, to steal,
//! to fire what is due, or to take the processor over. Knows nothing of threads, nor of who sleeps.
//!
//! Invariants: `owner` is the worker that holds the processor, nobody while it is idle or on its way
//! to another worker. The hints are written under the lock, after each change, so with the lock free
//! they say what the core holds.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};

use super::Scheduler;
use super::metrics::Counters;
use super::task::TaskRef;
use crate::base::clock::{Clock, Tick};
use crate::base::primitive::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::base::rank::{Rank, RankedGuard, RankedMutex};
use crate::timers::Timers;

/// The number of a worker; never used twice in one scheduler.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct WorkerId(pub(crate) u64);

/// Most tasks that one theft takes; what fits on the stack without thought.
pub(crate) const STEAL_MAX: usize = 64;

/// How often in a row the `next` slot may be served before the queue has its turn, so that two tasks
/// that wake each other cannot keep the others waiting. Picked by feel; tokio uses the same.
const NEXT_IN_A_ROW_MAX: u8 = 3;

///
/// Aligned so that no two processors share a cache line, nor the pair of lines that is fetched together.
#[repr(align(128))]
pub(crate) struct Processor {
    core: RankedMutex<Core>,
    /// Where it belongs. For who knows the processor alone: a sleep.
    scheduler: Weak<Scheduler>,
    clock: Clock,
    /// Tasks in both queues, without the `next` slot. Written under the core's lock.
    queue_len: AtomicUsize,
    /// When the earliest timer is due, at the latest. Written under the core's lock.
    next_timer: AtomicU64,
    /// Polls begun. Written under the core's lock; one that does not move while `next` is taken
    /// shows a worker that is stuck in a poll.
    polls: AtomicU64,
    /// Until when no timer is fired, because they are dense. Written under the core's lock.
    rest_until: AtomicU64,
    /// Whether the worker is asked to look at the global queue and the poller after this poll, however few it has run since
    /// it last did. Written by the monitor; taken back by the worker.
    look_around: AtomicBool,
    /// A copy of the core's `timers_closed`. Written under the core's lock.
    timers_closed: AtomicBool,
}

pub(crate) struct Core {
    pub(crate) owner: Option<WorkerId>,
    /// The task that was woken last by the running one: it runs next, its data still warm.
    pub(crate) next: Option<TaskRef>,
    next_in_a_row: u8,
    queue: VecDeque<TaskRef>,
    /// What was woken by a timer or a descriptor. It takes turns with `queue`, so that it waits for its like and not for
    /// a backlog, and the backlog for no more than its own length again.
    due: VecDeque<TaskRef>,
    /// Whether the last task that was taken out of a queue was one of `due`.
    due_had_its_turn: bool,
    pub(crate) timers: Timers,
    /// After shutdown nothing would fire a timer: none is taken any more.
    timers_closed: bool,
    pub(crate) counters: Counters,
}

/// Where a task goes within a processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// It runs next; what stood there goes to the back of the queue.
    Next,
    /// At the back of the queue.
    Back,
    /// Behind others that were woken by a timer or a descriptor.
    Due,
}

/// One end of the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// Where tasks are taken out.
    Front,
    /// Where they are added.
    Back,
}

impl Processor {
    pub(crate) fn new(scheduler: Weak<Scheduler>, clock: Clock) -> Processor {
        let core = Core {
            owner: None,
            next: None,
            next_in_a_row: 0,
            queue: VecDeque::new(),
            due: VecDeque::new(),
            due_had_its_turn: false,
            timers: Timers::new(),
            timers_closed: false,
            counters: Counters::default(),
        };
        Processor {
            core: RankedMutex::new(Rank::Core, core),
            scheduler,
            clock,
            queue_len: AtomicUsize::new(0),
            next_timer: AtomicU64::new(Tick::NEVER.as_nanos()),
            polls: AtomicU64::new(0),
            rest_until: AtomicU64::new(0),
            look_around: AtomicBool::new(false),
            timers_closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn now(&self) -> Tick {
        self.clock.now()
    }

    pub(crate) fn now_before(&self, deadline: Tick) -> Option<Tick> {
        self.clock.now_before(deadline)
    }

    /// Its scheduler, unless that is gone.
    pub(crate) fn scheduler(&self) -> Option<Arc<Scheduler>> {
        self.scheduler.upgrade()
    }

    /// Whether its runtime has ended so far that no timer is left here, nor taken any more.
    pub(crate) fn timers_are_closed(&self) -> bool {
        // ordering: Acquire, pairs with `close_timers`. Whoever had a timer here is woken after that.
        self.timers_closed.load(Ordering::Acquire)
    }

    #[cfg_attr(debug_assertions, track_caller)]
    pub(crate) fn lock(&self) -> CoreGuard<'_> {
        CoreGuard { processor: self, core: self.core.lock() }
    }

    pub(crate) fn queue_len(&self) -> usize {
        // ordering: Relaxed, a hint; the decision to sleep is settled by `full_barrier` (sched/README).
        self.queue_len.load(Ordering::Relaxed)
    }

    /// A time no later than that of any timer here that this thread knows to have been armed.
    pub(crate) fn next_timer(&self) -> Tick {
        // ordering: Relaxed, as for `queue_len`. Whoever knows of a timer comes after the store that it led to.
        Tick::from_nanos(self.next_timer.load(Ordering::Relaxed))
    }

    /// When the earliest timer is to be fired: when it is due, but not while timers rest (`pace`).
    pub(crate) fn next_due(&self) -> Tick {
        // ordering: Relaxed, as for `queue_len`.
        self.next_timer().max(Tick::from_nanos(self.rest_until.load(Ordering::Relaxed)))
    }

    pub(crate) fn ask_to_look_around(&self) {
        // ordering: Relaxed, a hint.
        self.look_around.store(true, Ordering::Relaxed);
    }

    pub(crate) fn take_ask_to_look_around(&self) -> bool {
        // ordering: Relaxed, a hint.
        let asked = self.look_around.load(Ordering::Relaxed);
        if asked {
            // ordering: Relaxed, as above.
            self.look_around.store(false, Ordering::Relaxed);
        }
        asked
    }

    pub(crate) fn polls(&self) -> u64 {
        // ordering: Relaxed, only compared with an earlier reading.
        self.polls.load(Ordering::Relaxed)
    }
}

impl Core {
    /// How many tasks are in the queues.
    fn waiting(&self) -> usize {
        self.queue.len() + self.due.len()
    }
}

impl fmt::Debug for Processor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Processor").finish_non_exhaustive()
    }
}

/// The lock of a core. What changes the queue or the timers goes through its methods or is followed
/// by [`CoreGuard::publish_timers`], so that the hints are right when the lock is free.
pub(crate) struct CoreGuard<'a> {
    processor: &'a Processor,
    core: RankedGuard<'a, Core>,
}

impl std::ops::Deref for CoreGuard<'_> {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

impl std::ops::DerefMut for CoreGuard<'_> {
    fn deref_mut(&mut self) -> &mut Core {
        &mut self.core
    }
}

impl CoreGuard<'_> {
    fn publish_queue(&self) {
        // ordering: Relaxed, pairs with `Processor::queue_len`; see there.
        self.processor.queue_len.store(self.core.waiting(), Ordering::Relaxed);
    }

    /// Writes the hint of the earliest timer, after the timers changed.
    pub(crate) fn publish_timers(&self) {
        // ordering: Relaxed, pairs with `Processor::next_timer`; see there.
        self.processor.next_timer.store(self.core.timers.next().as_nanos(), Ordering::Relaxed);
    }

    /// Lets no timer fire until then; `None` takes that back.
    pub(crate) fn rest_timers(&self, until: Option<Tick>) {
        // ordering: Relaxed, pairs with `Processor::next_due`; see there.
        self.processor.rest_until.store(until.map_or(0, Tick::as_nanos), Ordering::Relaxed);
    }

    pub(crate) fn timers_are_closed(&self) -> bool {
        self.core.timers_closed
    }

    /// Takes no timer any more, and gives the wakers of those that are left.
    #[must_use = "whoever sleeps has to look for another runtime"]
    pub(crate) fn close_timers(&mut self) -> Vec<std::task::Waker> {
        self.core.timers_closed = true;
        // ordering: Release, pairs with `Processor::timers_are_closed`.
        self.processor.timers_closed.store(true, Ordering::Release);
        let wakers = self.core.timers.take_all();
        self.publish_timers();
        wakers
    }

    /// Adds a task; the number of tasks that wait in the queue now.
    pub(crate) fn push(&mut self, task: TaskRef, place: Place) -> usize {
        match place {
            Place::Back => self.core.queue.push_back(task),
            Place::Due => self.core.due.push_back(task),
            Place::Next => {
                if let Some(former) = self.core.next.replace(task) {
                    self.core.queue.push_back(former);
                }
            }
        }
        self.publish_queue();
        self.core.waiting()
    }

    /// Adds tasks at one end of the queue.
    pub(crate) fn extend(&mut self, tasks: impl Iterator<Item = TaskRef>, end: End) {
        match end {
            End::Back => self.core.queue.extend(tasks),
            End::Front => tasks.for_each(|task| self.core.queue.push_front(task)),
        }
        self.publish_queue();
    }

    /// Takes the task that runs next.
    pub(crate) fn pop(&mut self) -> Option<TaskRef> {
        let core = &mut *self.core;
        let next = core.next.take();
        if next.is_some() && (core.next_in_a_row < NEXT_IN_A_ROW_MAX || core.waiting() == 0) {
            core.next_in_a_row += u8::from(core.next_in_a_row < NEXT_IN_A_ROW_MAX);
            return next;
        }
        core.next_in_a_row = 0;
        // Before the one that has had its turns is added: it waits for a task of either kind.
        let due_is_first = !core.due.is_empty() && (!core.due_had_its_turn || core.queue.is_empty());
        if let Some(next) = next {
            core.queue.push_back(next);
        }
        core.due_had_its_turn = due_is_first;
        let task = if due_is_first { core.due.pop_front() } else { core.queue.pop_front() }?;
        self.publish_queue();
        Some(task)
    }

    /// Counts a poll that begins when the lock is released.
    pub(crate) fn begin_poll(&mut self) {
        self.core.counters.polls += 1;
        // ordering: Relaxed, see `Processor::polls`.
        self.processor.polls.store(self.core.counters.polls, Ordering::Relaxed);
    }

    /// Moves the older half of each queue, at most [`STEAL_MAX`] tasks, into `loot`.
    pub(crate) fn steal_half(&mut self, loot: &mut Vec<TaskRef>) {
        let core = &mut *self.core;
        let due = core.due.len().div_ceil(2).min(STEAL_MAX);
        loot.extend(core.due.drain(..due));
        let count = core.queue.len().div_ceil(2).min(STEAL_MAX - due);
        loot.extend(core.queue.drain(..count));
        self.publish_queue();
    }

    /// Makes what stands in the `next` slot an ordinary task of the queue.
    pub(crate) fn demote_next(&mut self) {
        if let Some(task) = self.core.next.take() {
            self.core.queue.push_front(task);
            self.publish_queue();
        }
    }

    /// Takes out every task, for shutdown.
    pub(crate) fn take_all(&mut self) -> Vec<TaskRef> {
        let tasks = {
            let core = &mut *self.core;
            core.next.take().into_iter().chain(core.due.drain(..)).chain(core.queue.drain(..)).collect()
        };
        self.publish_queue();
        tasks
    }
}
