//! A worker: a thread that runs tasks while it holds a processor.
//!
//! [`Worker::step`] never blocks by itself: it fires what is due, runs one task or looks for one, and
//! says when there is nothing to do. [`Worker::sleep`] is the part that blocks. A loop around the two
//! is a worker thread; a simulation calls `step` alone.
//!
//! Invariants: nothing is locked while a task, a timer function or a waker runs. After each of them
//! the worker asks the core whether the processor is still its own; if it was handed off, the worker
//! finishes what it had begun, and what it wakes is for whoever has the processor now.

use std::sync::Arc;
use std::time::Duration;

use super::idle::{Leave, Left};
use super::processor::{End, Place};
use super::seat::{Assigned, Seat};
use super::task::{Identity, TaskRef, wake};
use super::{Scheduler, current};
use crate::base::clock::Tick;
use crate::base::primitive::full_barrier;
use crate::base::rng::Rng;
use crate::base::thread_probe::ThreadId;
use crate::poll::poller::Turn;
use crate::poll::timer_slack;
use crate::timers::Due;

/// Every so many steps the global queue comes first and the poller is looked at, so that neither
/// starves beside a local queue that is never empty. Go and tokio use the same number. Where so many steps take long, the
/// monitor asks for it earlier.
const LOOK_AROUND_INTERVAL: u32 = 61;

/// Most tasks taken from the global queue at once; the rest is for the other workers.
const GLOBAL_BATCH_MAX: usize = 32;

/// How long a thread stays that is not needed, unless it is one of as many as there are processors; as in tokio.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

pub(crate) struct Worker<'a> {
    pub(super) scheduler: &'a Arc<Scheduler>,
    pub(super) seat: Arc<Seat>,
    /// The processor that this worker holds, unless it was handed off since.
    pub(super) processor: Option<usize>,
    /// Whether others want to know which task runs.
    reports: bool,
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

/// What came of a sleep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Slept {
    Woke,
    /// The thread was not needed for a long time and is to end.
    NotNeeded,
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
            reports: scheduler.reports_are_wanted(),
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
        current::become_worker(self.scheduler, &self.seat);
        self.seat.set_thread(ThreadId::current());
        // Without it timers are late by the thread's default slack of 50 us; nothing else depends on it.
        let _ = timer_slack();
        loop {
            match self.step() {
                Step::Ran => {}
                Step::Sleep => match self.sleep() {
                    Slept::Woke => {}
                    Slept::NotNeeded => break,
                },
                Step::Exit => break,
            }
        }
        self.give_up_processor();
    }

    /// Does one thing, or finds that there is nothing to do.
    pub(crate) fn step(&mut self) -> Step {
        if self.processor.is_none() && !self.take_assigned() {
            return self.step_without_processor();
        }
        let Some(index) = self.processor else {
            return Step::Ran;
        };
        self.steps = self.steps.wrapping_add(1);
        let others_turns = self.turns_before_firing > 0;
        let fired = if others_turns {
            self.turns_before_firing -= 1;
            Fired::Nothing
        } else {
            self.fire(index)
        };
        let asked = self.scheduler.processors[index].take_ask_to_look_around();
        if asked || self.steps.is_multiple_of(LOOK_AROUND_INTERVAL) {
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

    /// Does what a claimer has put into this worker's seat: takes a processor, or runs jobs. False if there is nothing.
    fn take_assigned(&mut self) -> bool {
        match self.seat.take_assigned() {
            None => return false,
            Some(Assigned::Processor(index)) => {
                self.searching = true;
                self.adopt(index);
            }
            Some(Assigned::Jobs) => self.run_jobs(),
        }
        true
    }

    /// Runs jobs of the blocking pool, for which this thread has a ticket.
    fn run_jobs(&mut self) {
        self.seat.set_in_jobs(true);
        self.look_before_jobs();
        while let Some(job) = self.scheduler.blocking.next() {
            self.seat.begin_piece();
            if self.scheduler.is_closing() {
                job.cancel();
            } else {
                let mut job = Some(job);
                while let Some(again) = job {
                    job = again.run();
                }
            }
            self.seat.end_piece();
        }
        self.seat.set_in_jobs(false);
    }

    /// If this worker was about to park, others count on its looking once more (README, S4 and P), and the first job may
    /// keep it from that for ever: what it would find is somebody else's to see to.
    pub(super) fn look_before_jobs(&self) {
        let scheduler = self.scheduler;
        full_barrier();
        let unattended = scheduler.idle.all_idle() && !scheduler.poller.is_attended();
        if (unattended || scheduler.work_is_visible()) && scheduler.idle.wants_worker() {
            scheduler.wake_one();
        }
        scheduler.poller.interrupt_if_after(scheduler.next_due());
    }

    /// Becomes the owner of a processor that was taken out of the idle list.
    fn adopt(&mut self, index: usize) {
        let former = self.scheduler.processors[index].lock().owner.replace(self.seat.id);
        debug_assert_eq!(former, None, "an idle processor has an owner");
        self.processor = Some(index);
        self.turns_before_firing = 0;
        self.set_token(Place::Due);
        self.scheduler.monitor.wake_if_resting();
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
            if self.processor.is_none() {
                let token = current::Token { worker: self.seat.id, processor: index, place: Place::Due };
                current::set_token(Some(token));
            }
            self.begin_waking();
            for due in self.due.drain(..) {
                wake(due.waker);
            }
            self.end_waking();
            self.set_token(Place::Due);
        } else if !more {
            return Fired::Nothing;
        }
        if more { Fired::AndMore } else { Fired::All }
    }

    fn wake_all(&mut self) {
        if self.wakers.is_empty() {
            return;
        }
        self.begin_waking();
        self.wakers.drain(..).for_each(wake);
        self.end_waking();
    }

    /// Wakers are about to be called, which may take long. A worker without a processor does not count as one that will
    /// soon look for one meanwhile, so that another one can be started; what needed one while it did, is looked after.
    fn begin_waking(&mut self) {
        if let Some(task) = self.again.take() {
            self.keep(task);
        }
        self.end_search_with_work();
        if self.processor.is_none() {
            self.seat.set_released(true);
            full_barrier();
            if self.scheduler.work_is_visible() && self.scheduler.idle.wants_worker() {
                self.scheduler.wake_one();
            }
        }
        self.seat.set_identity(Identity::NONE);
        self.seat.begin_piece();
    }

    fn end_waking(&self) {
        self.seat.end_piece();
        if self.processor.is_none() {
            self.seat.set_released(false);
        }
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
        if self.reports {
            self.seat.set_identity(task.identity());
        }
        self.seat.begin_piece();
        let again = if self.scheduler.is_closing() {
            task.cancel();
            None
        } else {
            task.run()
        };
        self.seat.end_piece();
        self.set_token(Place::Due);
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

    /// Puts a task into the own queue.
    fn keep(&mut self, task: TaskRef) {
        self.loot.push(task);
        match self.processor {
            Some(index) => {
                self.keep_loot(index, End::Back);
            }
            None => self.loot.drain(..).for_each(|task| self.scheduler.schedule_global(task)),
        }
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
        self.set_token(Place::Due);
        // Before anything is told of it: that is user code, and may block.
        if let Some(task) = self.again.take() {
            self.scheduler.schedule_global(task);
        }
        if std::mem::take(&mut self.searching) {
            self.scheduler.idle.end_search();
        }
        self.come_back();
    }

    /// The worker has noticed that its processor was taken.
    fn come_back(&mut self) {
        // What is told may block: it does not count as a worker that will soon look for a processor until then.
        self.scheduler.report_return(&self.seat);
        self.seat.set_released(false);
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
        self.come_back();
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
    pub(crate) fn sleep(&mut self) -> Slept {
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
            self.sit(turn);
            return Slept::Woke;
        }
        scheduler.idle.enter(processor, &self.seat, false); // S2
        full_barrier(); // S3
        // Whoever had the turn may have given it back and counted on nobody to take it (README, P).
        if let Some(turn) = scheduler.poller.try_turn() {
            if scheduler.idle.move_to_poller(&self.seat) {
                self.sit(turn);
                return Slept::Woke;
            }
            drop(turn);
            // Whoever has found the turn taken counts on this worker to come to the poller, and one that was claimed for
            // jobs will not: so this is as P3.
            full_barrier();
            if scheduler.idle.wants_worker() && !scheduler.poller.is_attended() {
                scheduler.wake_one();
            }
        }
        self.park()
    }

    /// Sleeps in the poller until something is ready, the earliest timer is due, or there is work. The
    /// seat has left the lists before the turn ends, so that they hold one sitter at most.
    fn sit(&mut self, mut turn: Turn<'_>) {
        let scheduler = self.scheduler;
        let (until, now) = scheduler.settle_next_due();
        let announced = turn.announce(until); // S3, with the full barrier
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
            self.seat.parker.park_timeout(Duration::from_millis(1));
        }
        self.wake_all();
    }

    /// Sleeps until somebody assigns a processor or a job, or until the thread has not been needed for long.
    fn park(&mut self) -> Slept {
        let scheduler = self.scheduler;
        let next_timer = scheduler.next_due();
        let due = next_timer != Tick::NEVER && next_timer <= scheduler.now();
        if (due || scheduler.work_is_visible()) && self.leave(Leave::IfUseful) {
            return Slept::Woke; // S4
        }
        if scheduler.blocking.wants_thread() && scheduler.idle.withdraw(&self.seat) {
            if scheduler.blocking.take_ticket() {
                self.run_jobs();
            }
            return Slept::Woke;
        }
        // Whoever sits in the poller must not oversleep what is left here.
        scheduler.poller.interrupt_if_after(next_timer);
        scheduler.counters.parks.add_one();
        loop {
            if self.take_assigned() {
                return Slept::Woke;
            }
            if scheduler.may_exit() {
                scheduler.idle.withdraw(&self.seat);
                return Slept::Woke;
            }
            if !scheduler.has_spare_threads() {
                self.seat.parker.park();
            } else if !self.seat.parker.park_timeout(KEEP_ALIVE)
                && scheduler.has_spare_threads()
                && scheduler.idle.withdraw(&self.seat)
            {
                return Slept::NotNeeded;
            }
        }
    }

    /// Takes the seat out of the lists, and a processor if one is idle. True if the worker is out of the lists with one,
    /// or has been: there is something to do or to look for, and it must not sleep before it is in the lists again.
    fn leave(&mut self, how: Leave) -> bool {
        match self.scheduler.idle.leave(&self.seat, how) {
            Left::With(index) => {
                self.searching = how != Leave::Awake;
                self.adopt(index);
                true
            }
            Left::Assigned => self.take_assigned(),
            Left::Without => false,
        }
    }
}

impl Scheduler {
    /// Whether there are more threads than can hold a processor.
    fn has_spare_threads(&self) -> bool {
        self.threads.count() > self.processors.len()
    }
}
