//! A worker: a thread that runs tasks while it holds a processor.
//!
//! [`Worker::step`] never blocks by itself: it fires what is due, runs one task or looks for one, and
//! says when there is nothing to do. [`Worker::sleep`] is the part that blocks. A loop around the two
//! is a worker thread; a simulation calls `step` alone.
//!
//! Invariants: nothing is locked while a task, a timer function or a waker runs. After each of them
//! the worker asks the core whether the processor is still its own; if it was handed off, the worker
//! finishes what it had begun, and its wakes go to the global queue.

use std::sync::Arc;

use super::idle::{Leave, Left, Seat};
use super::processor::{End, Place};
use super::task::{TaskRef, wake};
use super::{Scheduler, current};
use crate::base::clock::Tick;
use crate::base::primitive::full_barrier;
use crate::base::rng::Rng;
use crate::poll::poller::Turn;
use crate::poll::timer_slack;
use crate::timers::Due;

/// Every so many steps the global queue comes first and the poller is looked at, so that neither
/// starves beside a local queue that is never empty. Go and tokio use the same number.
const LOOK_AROUND_INTERVAL: u32 = 61;

/// Most tasks taken from the global queue at once; the rest is for the other workers.
const GLOBAL_BATCH_MAX: usize = 32;

pub(crate) struct Worker<'a> {
    pub(super) scheduler: &'a Arc<Scheduler>,
    pub(super) seat: Arc<Seat>,
    /// The processor that this worker holds, unless it was handed off since.
    pub(super) processor: Option<usize>,
    /// Whether this worker is counted as searching.
    pub(super) searching: bool,
    /// The task that was woken while it ran: it goes to the back of the queue.
    again: Option<TaskRef>,
    steps: u32,
    /// How many tasks have their turn before more is fired of what was too much for one batch of this processor.
    /// Meanwhile only others that search fire what is due here.
    turns_before_firing: usize,
    pub(super) rng: Rng,
    /// Buffers that are empty between steps.
    pub(super) due: Vec<Due>,
    wakers: Vec<std::task::Waker>,
    pub(super) loot: Vec<TaskRef>,
}

/// What came of a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Something was done; there may be more.
    Ran,
    /// There is nothing to do for this worker.
    Sleep,
    /// The runtime has shut down and nothing is left.
    Exit,
}

/// What came of firing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fired {
    /// Nothing was due.
    Nothing,
    /// All that was due.
    All,
    /// A batch; more is due, or has to be filed anew before that is known.
    AndMore,
}

enum Next {
    Task(TaskRef),
    Empty,
    /// The processor was handed off.
    Lost,
}

impl<'a> Worker<'a> {
    pub(crate) fn new(scheduler: &'a Arc<Scheduler>, seat: Arc<Seat>) -> Worker<'a> {
        let rng = Rng::new(scheduler.seed ^ (seat.id.0 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Worker {
            scheduler,
            seat,
            processor: None,
            searching: false,
            again: None,
            steps: 0,
            turns_before_firing: 0,
            rng,
            due: Vec::new(),
            wakers: Vec::new(),
            loot: Vec::new(),
        }
    }

    /// A worker thread's whole life.
    pub(crate) fn run(mut self) {
        let _entered = current::enter(Arc::clone(self.scheduler));
        current::become_worker(self.scheduler);
        // Without it timers are late by the thread's default slack of 50 us; nothing else depends on it.
        let _ = timer_slack();
        loop {
            match self.step() {
                Step::Ran => {}
                Step::Sleep => self.sleep(),
                Step::Exit => break,
            }
        }
        self.give_up_processor();
    }

    /// Does one thing, or finds that there is nothing to do.
    pub(crate) fn step(&mut self) -> Step {
        let Some(index) = self.processor.or_else(|| self.take_assigned()) else {
            return self.step_without_processor();
        };
        self.steps = self.steps.wrapping_add(1);
        let others_turns = self.turns_before_firing > 0;
        let fired = if others_turns {
            self.turns_before_firing -= 1;
            Fired::Nothing
        } else {
            self.fire(index)
        };
        if self.steps.is_multiple_of(LOOK_AROUND_INTERVAL) {
            self.look_around(index);
        }
        match self.next_task(index) {
            Next::Task(task) => {
                self.run_task(task);
                Step::Ran
            }
            Next::Lost => {
                self.lose_processor();
                Step::Ran
            }
            Next::Empty => match self.look_further(index) {
                // There is more to fire, and nobody whose turn it is before that.
                Step::Sleep if others_turns || fired == Fired::AndMore => {
                    self.turns_before_firing = 0;
                    Step::Ran
                }
                step => step,
            },
        }
    }

    /// A worker that has no processor runs no task. But it may be the one that sat in the poller until
    /// a timer, and whose timer it is may be stuck: so it fires what is due.
    fn step_without_processor(&mut self) -> Step {
        let scheduler = self.scheduler;
        if scheduler.may_exit() {
            Step::Exit
        } else if (0..scheduler.processors.len()).any(|index| self.fire(index) != Fired::Nothing) {
            Step::Ran
        } else {
            Step::Sleep
        }
    }

    /// The processor that a claimer has put into this worker's seat.
    fn take_assigned(&mut self) -> Option<usize> {
        let index = self.seat.take_assigned()?;
        self.searching = true;
        self.adopt(index);
        Some(index)
    }

    /// Becomes the owner of a processor that was taken out of the idle list.
    fn adopt(&mut self, index: usize) {
        let former = self.scheduler.processors[index].lock().owner.replace(self.seat.id);
        debug_assert_eq!(former, None, "an idle processor has an owner");
        self.processor = Some(index);
        self.turns_before_firing = 0;
        self.set_token(Place::Back);
        self.scheduler.monitor.wake_if_asleep();
    }

    pub(super) fn set_token(&self, place: Place) {
        let worker = self.seat.id;
        current::set_token(self.processor.map(|processor| current::Token { worker, processor, place }));
    }

    /// Wakes what is due on a processor, its own or another's.
    ///
    /// If there is more than one batch of it, as many tasks have a turn before the next batch is woken. Else a
    /// hundred thousand timers of one instant would all be in the queue before a task that was ready before.
    pub(super) fn fire(&mut self, index: usize) -> Fired {
        let more = self.scheduler.take_due(index, &mut self.due);
        if more && self.processor == Some(index) {
            self.turns_before_firing = self.due.len();
        }
        if !self.due.is_empty() {
            self.end_search_with_work();
            self.seat.toggle_activity();
            for due in self.due.drain(..) {
                wake(due.waker);
            }
            self.seat.toggle_activity();
        } else if !more {
            return Fired::Nothing;
        }
        if more { Fired::AndMore } else { Fired::All }
    }

    fn wake_all(&mut self) {
        if self.wakers.is_empty() {
            return;
        }
        self.end_search_with_work();
        self.seat.toggle_activity();
        self.wakers.drain(..).for_each(wake);
        self.seat.toggle_activity();
    }

    /// Looks at what would starve beside a local queue that is never empty.
    fn look_around(&mut self, index: usize) {
        if let Some(mut turn) = self.scheduler.poller.try_turn() {
            // An error shows again, and is dealt with, when a worker waits.
            let _ = turn.poll_now(&mut self.wakers);
            drop(turn);
            self.wake_all();
        }
        if self.scheduler.global.len() > 0 {
            self.scheduler.global.pop(1, &mut self.loot);
            self.keep_loot(index, End::Front);
        }
    }

    fn next_task(&mut self, index: usize) -> Next {
        let mut core = self.scheduler.processors[index].lock();
        if core.owner != Some(self.seat.id) {
            return Next::Lost;
        }
        if let Some(task) = self.again.take() {
            core.push(task, Place::Back);
        }
        let Some(task) = core.pop() else {
            return Next::Empty;
        };
        core.begin_poll();
        drop(core);
        // Tasks that wait here while a processor is idle are somebody else's to run.
        if self.scheduler.processors[index].queue_len() > 0 && self.scheduler.idle.wants_worker() {
            self.scheduler.wake_one();
        }
        Next::Task(task)
    }

    /// Runs a task, with nothing held.
    fn run_task(&mut self, task: TaskRef) {
        self.end_search_with_work();
        self.set_token(Place::Next);
        current::refill_budget();
        self.seat.toggle_activity();
        let again = if self.scheduler.is_closing() {
            task.cancel();
            None
        } else {
            task.run()
        };
        self.seat.toggle_activity();
        self.set_token(Place::Back);
        debug_assert!(self.again.is_none());
        self.again = again;
    }

    /// Ends the search because work was found, before any user code runs: that may take long, and
    /// nobody is woken while somebody searches. The last one to do so owes a look at what others have
    /// published while they counted on the search (README, N1).
    fn end_search_with_work(&mut self) {
        if std::mem::take(&mut self.searching) && self.scheduler.idle.end_search() {
            full_barrier();
            if self.scheduler.work_is_visible() && self.scheduler.idle.wants_worker() {
                self.scheduler.wake_one();
            }
        }
    }

    /// The local queue is empty: the global queue, then the other processors.
    fn look_further(&mut self, index: usize) -> Step {
        if self.take_from_global(index) || self.search(index) {
            return Step::Ran;
        }
        if self.scheduler.may_exit() && !self.scheduler.work_is_visible() { Step::Exit } else { Step::Sleep }
    }

    fn take_from_global(&mut self, index: usize) -> bool {
        let len = self.scheduler.global.len();
        if len == 0 {
            return false;
        }
        let share = len / self.scheduler.processors.len() + 1;
        self.scheduler.global.pop(share.min(GLOBAL_BATCH_MAX), &mut self.loot);
        self.keep_loot(index, End::Back)
    }

    /// Puts what was taken elsewhere into the own queue; true if it was anything.
    pub(super) fn keep_loot(&mut self, index: usize, end: End) -> bool {
        if self.loot.is_empty() {
            return false;
        }
        let mut core = self.scheduler.processors[index].lock();
        if core.owner == Some(self.seat.id) {
            core.extend(self.loot.drain(..), end);
            return true;
        }
        drop(core);
        for task in self.loot.drain(..) {
            self.scheduler.schedule_global(task);
        }
        true
    }

    /// The processor was handed off while user code ran.
    fn lose_processor(&mut self) {
        self.processor = None;
        self.seat.set_released(false);
        self.set_token(Place::Back);
        if let Some(task) = self.again.take() {
            self.scheduler.schedule_global(task);
        }
        if std::mem::take(&mut self.searching) {
            self.scheduler.idle.end_search();
        }
    }

    /// Gives the processor up, if it is still this worker's: to the caller, who puts it where it goes.
    fn disown(&mut self) -> Option<usize> {
        let index = self.processor.take()?;
        current::set_token(None);
        let mut core = self.scheduler.processors[index].lock();
        if core.owner == Some(self.seat.id) {
            core.owner = None;
            return Some(index);
        }
        drop(core);
        self.seat.set_released(false);
        None
    }

    fn give_up_processor(&mut self) {
        if std::mem::take(&mut self.searching) {
            self.scheduler.idle.end_search();
        }
        if let Some(index) = self.disown() {
            self.scheduler.idle.release(index);
        }
    }

    /// Announces that this worker is idle, looks once more, and sleeps until there is work: in the
    /// poller if nobody sits there, else parked. The essay is this folder's README.
    pub(crate) fn sleep(&mut self) {
        if let Some(task) = self.again.take() {
            self.scheduler.schedule_global(task);
        }
        if std::mem::take(&mut self.searching) {
            self.scheduler.idle.end_search(); // S1
        }
        let processor = self.disown();
        let scheduler = self.scheduler;
        if let Some(turn) = scheduler.poller.try_turn() {
            scheduler.idle.enter(processor, &self.seat, true); // S2
            return self.sit(turn);
        }
        scheduler.idle.enter(processor, &self.seat, false); // S2
        full_barrier(); // S3
        // Whoever had the turn may have given it back and counted on nobody to take it (README, P).
        if let Some(turn) = scheduler.poller.try_turn()
            && scheduler.idle.move_to_poller(&self.seat)
        {
            return self.sit(turn);
        }
        self.park();
    }

    /// Sleeps in the poller until something is ready, the earliest timer is due, or there is work. The
    /// seat has left the lists before the turn ends, so that they hold one sitter at most.
    fn sit(&mut self, mut turn: Turn<'_>) {
        let scheduler = self.scheduler;
        let until = scheduler.settle_next_due();
        let announced = turn.announce(until); // S3, with the full barrier
        let now = if until == Tick::NEVER { None } else { Some(scheduler.now()) };
        let is_over = scheduler.next_due() < until || now.is_some_and(|now| until <= now);
        // S4. A claimer that came before the announcement has assigned a processor and interrupted
        // nobody. Work alone is no reason to stay awake while every processor is at work: whoever gives
        // one up looks after that.
        if is_over || scheduler.may_exit() || self.seat.assigned().is_some() {
            self.leave(Leave::Searching);
            return announced.withdraw();
        }
        if scheduler.work_is_visible() && self.leave(Leave::IfUseful) {
            return announced.withdraw();
        }
        scheduler.counters.parks.add_one();
        let timeout = now.map(|now| until.saturating_since(now));
        let waited = announced.wait(timeout, &mut self.wakers);
        self.leave(Leave::Awake);
        drop(turn);
        if waited.is_err() {
            // The poller cannot be waited for, which no error that we know of can mean for long. Do
            // not spin, and come back.
            self.seat.parker.park_timeout(std::time::Duration::from_millis(1));
        }
        self.wake_all();
    }

    /// Sleeps until somebody assigns a processor.
    fn park(&mut self) {
        let scheduler = self.scheduler;
        let next_timer = scheduler.next_due();
        let due = next_timer != Tick::NEVER && next_timer <= scheduler.now();
        if (due || scheduler.work_is_visible()) && self.leave(Leave::IfUseful) {
            return; // S4
        }
        // Whoever sits in the poller must not oversleep what is left here.
        scheduler.poller.interrupt_if_after(next_timer);
        scheduler.counters.parks.add_one();
        loop {
            if self.take_assigned().is_some() {
                return;
            }
            if scheduler.may_exit() {
                return scheduler.idle.withdraw(&self.seat);
            }
            self.seat.parker.park();
        }
    }

    /// Takes the seat out of the lists, and a processor if one is idle. True if the worker has one now.
    fn leave(&mut self, how: Leave) -> bool {
        match self.scheduler.idle.leave(&self.seat, how) {
            Left::With(index) => {
                self.searching = how != Leave::Awake;
                self.adopt(index);
                true
            }
            Left::Assigned => self.take_assigned().is_some(),
            Left::Without => false,
        }
    }
}

impl Scheduler {
    /// A worker thread is about to block in user code: its processor goes to whoever wants it. The
    /// worker counts as blocked until it notices that the processor is gone: it may well go on for long
    /// in the same piece of user code after what blocked it. Does nothing if this thread holds no
    /// processor of this scheduler.
    pub(crate) fn release_for_blocking(self: &Arc<Self>) {
        let Some(token) = current::token(self) else { return };
        let Some(seat) = self.threads.seat(token.worker) else { return };
        let mut core = self.processors[token.processor].lock();
        if core.owner != Some(token.worker) {
            return;
        }
        core.owner = None;
        core.demote_next();
        drop(core);
        current::set_token(None);
        self.counters.handoffs.add_one();
        seat.set_released(true);
        self.idle.release(token.processor);
        full_barrier();
        if self.idle.wants_worker() {
            self.wake_one();
        }
    }
}
