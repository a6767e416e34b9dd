//! Models of the idle protocol: the real scheduler and its real workers, on a poller that has nothing
//! but interrupts, with tasks that only count.
//!
//! A task that is left behind shows as a deadlock: the main thread waits until all have run. The
//! canaries are a worker of our own that makes one step of the protocol wrong; they have to fail.
//!
//! The parts of these models serve others as well: those beside this, and those of the monitor's rest and of timer
//! functions.

mod blocking_tests;
mod handoff_tests;
mod timer_tests;

use std::io;
use std::os::fd::BorrowedFd;
use std::task::{Wake, Waker};
use std::time::Duration;

use loom::thread;

use super::handoff::release_processor;
use super::idle::{Leave, Left};
use super::task::Identity;
use super::worker::Step;
use super::*;
use crate::base::clock::{Clock, ManualClock};
use crate::base::park::Parker;
use crate::base::primitive::atomic::{AtomicUsize, Ordering};
use crate::base::primitive::plain;
use crate::base::primitive::{Condvar, Mutex};
use crate::poll::backend::{Backend, Event};

/// Has no descriptors, but events of which nobody but the model knows. No time passes: a wait ends with
/// an event or an interrupt.
#[derive(Debug)]
struct Fake(Arc<Readiness>);

#[derive(Debug)]
pub(crate) struct Readiness {
    state: Mutex<State>,
    condvar: Condvar,
}

#[derive(Debug, Default)]
struct State {
    interrupted: bool,
    event: bool,
    /// Whether a wait has taken the event.
    taken: bool,
}

impl Readiness {
    fn new() -> Arc<Readiness> {
        Arc::new(Readiness { state: Mutex::new(State::default()), condvar: Condvar::new() })
    }

    fn event(&self) {
        self.state.lock().unwrap().event = true;
        self.condvar.notify_all();
    }

    fn wait_until_taken(&self) {
        let mut state = self.state.lock().unwrap();
        while !state.taken {
            state = self.condvar.wait(state).unwrap();
        }
    }
}

impl Backend for Fake {
    fn add(&self, _: BorrowedFd<'_>, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }

    fn wait(&self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        events.clear();
        let mut state = self.0.state.lock().unwrap();
        while timeout != Some(Duration::ZERO) && !state.interrupted && !state.event {
            state = self.0.condvar.wait(state).unwrap();
        }
        if std::mem::take(&mut state.event) {
            state.taken = true;
            self.0.condvar.notify_all();
        }
        state.interrupted = false;
        Ok(())
    }

    fn interrupt(&self) {
        self.0.state.lock().unwrap().interrupted = true;
        self.0.condvar.notify_all();
    }
}

/// Gives no thread: the workers of a model are all there from the start.
struct NoThreads;

impl threads::SpawnThread for NoThreads {
    fn spawn(&self, _: String, _: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

pub(crate) fn scheduler(processors: usize) -> (Arc<Scheduler>, Arc<Readiness>) {
    let readiness = Readiness::new();
    let scheduler = Scheduler::new(Parts {
        processors,
        threads_max: 8,
        thread_name: String::new(),
        panic_hook: None,
        handoff: handoff::Handoff::off(),
        handoff_hook: None,
        clock: Clock::Manual(ManualClock::new()),
        seed: 1,
        spawner: Box::new(NoThreads),
        poller: Poller::with_backend(Box::new(Fake(Arc::clone(&readiness)))),
        alarm: Alarm::new().unwrap(),
    });
    (scheduler, readiness)
}

/// How many tasks have run, and who waits for that.
pub(crate) struct Tally {
    count: AtomicUsize,
    parker: Parker,
}

impl Tally {
    pub(crate) fn new() -> Arc<Tally> {
        Arc::new(Tally { count: AtomicUsize::new(0), parker: Parker::new() })
    }

    /// Waits until `count` tasks have run; only the main thread does.
    pub(crate) fn wait_for(&self, count: usize) {
        while self.count.load(Ordering::Acquire) < count {
            self.parker.park();
        }
    }
}

/// Counts, and wakes who waits for it.
pub(crate) fn tell(tally: &Tally) {
    tally.count.fetch_add(1, Ordering::AcqRel);
    tally.parker.unpark();
}

/// A task that counts itself.
struct Job(Arc<Tally>);

impl Runnable for Job {
    fn run(self: Arc<Self>) -> Option<TaskRef> {
        self.0.count.fetch_add(1, Ordering::AcqRel);
        self.0.parker.unpark();
        None
    }

    fn cancel(self: Arc<Self>) {
        self.run();
    }

    fn identity(&self) -> Identity {
        Identity::NONE
    }
}

pub(crate) fn start_workers(scheduler: &Arc<Scheduler>, count: usize) -> Vec<thread::JoinHandle<()>> {
    (0..count)
        .map(|_| {
            let seat = scheduler.threads.new_seat(usize::MAX).expect("room for a worker");
            let scheduler = Arc::clone(scheduler);
            thread::spawn(move || Worker::new(&scheduler, seat).run())
        })
        .collect()
}

/// A worker that never sleeps: on whatever thread it is asked to, it does what there is to do. It has taken a
/// processor out of the idle ones for good, so nobody looks for a worker beside it.
pub(crate) struct Driver {
    scheduler: Arc<Scheduler>,
    seat: Arc<Seat>,
    processor: usize,
}

impl Driver {
    pub(crate) fn new(scheduler: &Arc<Scheduler>) -> Driver {
        let seat = scheduler.threads.new_seat(usize::MAX).expect("room for a worker");
        scheduler.idle.enter(None, &seat, false);
        let Left::With(processor) = scheduler.idle.leave(&seat, Leave::Awake) else {
            panic!("no processor is idle");
        };
        Driver { scheduler: Arc::clone(scheduler), seat, processor }
    }

    /// Steps until there is nothing to do.
    pub(crate) fn run(&self) {
        let _entered = current::enter(Arc::clone(&self.scheduler));
        let mut worker = self.worker();
        while worker.step() == Step::Ran {}
        self.leave(worker);
    }

    /// A worker to which the processor is assigned, as by a claimer.
    fn worker(&self) -> Worker<'_> {
        self.scheduler.idle.begin_search();
        self.seat.assign(Assigned::Processor(self.processor));
        Worker::new(&self.scheduler, Arc::clone(&self.seat))
    }

    fn leave(&self, worker: Worker<'_>) {
        if worker.searching {
            self.scheduler.idle.end_search();
        }
        let mut core = self.scheduler.processors[self.processor].lock();
        core.owner.take_if(|owner| *owner == self.seat.id);
    }
}

/// Moves the scheduler's clock, which else stands still.
pub(crate) fn advance(scheduler: &Scheduler, by: Duration) {
    let Clock::Manual(clock) = &scheduler.clock else { panic!("a model has its own clock") };
    clock.advance(by);
}

/// Ends the scheduler, and looks whether everything is in its place.
pub(crate) fn finish(scheduler: &Arc<Scheduler>, threads: Vec<thread::JoinHandle<()>>) {
    scheduler.close();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(scheduler.idle.processors(), scheduler.processors.len(), "a processor was lost");
    assert_eq!(scheduler.idle.searching(), 0, "a search was not ended");
}

/// Runs a model and says how many executions it took.
#[track_caller]
pub(crate) fn check(name: &str, model: impl Fn() + Send + Sync + 'static) {
    check_with(loom::model::Builder::new(), name, model);
}

/// As `check`, with at most so many preemptions: one for models that are too large for more, and more than the
/// command says for those that are small.
#[track_caller]
pub(crate) fn check_with_preemptions(count: usize, name: &str, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(count);
    check_with(builder, name, model);
}

#[track_caller]
fn check_with(mut builder: loom::model::Builder, name: &str, model: impl Fn() + Send + Sync + 'static) {
    let executions = Arc::new(plain::AtomicU64::new(0));
    let count = Arc::clone(&executions);
    let start = std::time::Instant::now();
    builder.max_branches = 10_000;
    builder.check(move || {
        count.fetch_add(1, plain::Ordering::Relaxed);
        model();
    });
    let executions = executions.load(plain::Ordering::Relaxed);
    eprintln!("{name}: {executions} executions in {:?}", start.elapsed());
}

/// The main thread publishes `mine` tasks, another one, if `other`, one more, and all are run.
fn tasks_are_run(workers: usize, processors: usize, mine: usize, other: bool) {
    let (scheduler, _) = scheduler(processors);
    let tally = Tally::new();
    let mut threads = start_workers(&scheduler, workers);
    threads.extend(other.then(|| {
        let (scheduler, tally) = (Arc::clone(&scheduler), Arc::clone(&tally));
        thread::spawn(move || scheduler.schedule_global(Arc::new(Job(tally))))
    }));
    for _ in 0..mine {
        scheduler.schedule_global(Arc::new(Job(Arc::clone(&tally))));
    }
    tally.wait_for(mine + usize::from(other));
    finish(&scheduler, threads);
}

#[test]
fn loom_a_task_published_while_the_last_worker_goes_to_sleep_is_run() {
    check("one worker, one publisher", || tasks_are_run(1, 1, 1, false));
}

#[test]
fn loom_of_two_publishers_neither_counts_on_the_other_in_vain() {
    check("one worker, two publishers", || tasks_are_run(1, 1, 1, true));
}

#[test]
fn loom_a_task_published_while_one_of_two_workers_finds_other_work_is_run() {
    check_with_preemptions(1, "two workers, two tasks", || tasks_are_run(2, 2, 2, false));
}

#[test]
fn loom_a_worker_without_a_processor_takes_no_wake_up_from_the_one_that_has_it() {
    check("two workers of one processor, two tasks", || tasks_are_run(2, 1, 2, false));
}

#[test]
fn loom_a_task_that_is_published_while_the_runtime_ends_is_run_or_cancelled() {
    check("shutdown", || {
        let (scheduler, _) = scheduler(1);
        let tally = Tally::new();
        let mut threads = start_workers(&scheduler, 1);
        threads.push(thread::spawn({
            let (scheduler, tally) = (Arc::clone(&scheduler), Arc::clone(&tally));
            move || scheduler.schedule_global(Arc::new(Job(tally)))
        }));
        scheduler.close();
        scheduler.sweep();
        for thread in threads {
            thread.join().unwrap();
        }
        scheduler.sweep();
        assert_eq!(tally.count.load(Ordering::Acquire), 1);
    });
}

#[test]
fn loom_when_all_workers_sleep_one_sits_in_the_poller() {
    check("the monitor polls while the last worker goes to sleep", || {
        let (scheduler, readiness) = scheduler(1);
        let mut threads = start_workers(&scheduler, 1);
        threads.push(thread::spawn({
            let scheduler = Arc::clone(&scheduler);
            move || drop(scheduler.attend_from_outside(true))
        }));
        threads.pop().unwrap().join().unwrap();
        readiness.event();
        readiness.wait_until_taken();
        finish(&scheduler, threads);
    });
}

#[test]
fn loom_of_two_workers_that_go_to_sleep_at_once_one_sits_in_the_poller() {
    check("two workers of one processor and a task, then an event", || {
        let (scheduler, readiness) = scheduler(1);
        let tally = Tally::new();
        let threads = start_workers(&scheduler, 2);
        scheduler.schedule_global(Arc::new(Job(Arc::clone(&tally))));
        tally.wait_for(1);
        readiness.event();
        readiness.wait_until_taken();
        finish(&scheduler, threads);
    });
}

#[test]
fn loom_a_task_that_blocks_on_another_one_leaves_it_the_processor() {
    check("a task that blocks on another one", || {
        let (scheduler, _) = scheduler(1);
        let tally = Tally::new();
        let threads = start_workers(&scheduler, 2);
        scheduler.schedule_global(Arc::new(Blocks(Arc::clone(&scheduler), Arc::clone(&tally))));
        tally.wait_for(2);
        finish(&scheduler, threads);
    });
}

/// A waker that counts.
pub(crate) struct Count(Arc<Tally>);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.count.fetch_add(1, Ordering::AcqRel);
        self.0.parker.unpark();
    }
}

/// A task that blocks its thread until another task has run.
struct Blocks(Arc<Scheduler>, Arc<Tally>);

impl Runnable for Blocks {
    fn run(self: Arc<Self>) -> Option<TaskRef> {
        release_processor();
        let inner = Tally::new();
        self.0.schedule(Arc::new(Job(Arc::clone(&inner))));
        inner.wait_for(1);
        self.1.count.fetch_add(2, Ordering::AcqRel);
        self.1.parker.unpark();
        None
    }

    fn cancel(self: Arc<Self>) {
        unreachable!("the runtime ends after this task");
    }

    fn identity(&self) -> Identity {
        Identity::NONE
    }
}

/// What a sleeper or a notifier of the following model leaves out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    Nothing,
    /// The notifier's barrier, N1.
    NotifiersBarrier,
    /// The sleeper's barrier, S3.
    SleepersBarrier,
    /// The second look, S4.
    Look,
    /// The look at what was assigned, in S4 of the one in the poller.
    Assigned,
}

/// A worker made of the protocol's steps alone, which runs one task. Instead of sleeping it waits for
/// the end of the notifier, and looks whether it would have been woken: loom cannot unwind from a
/// deadlock, so the canaries must not make one.
struct Bare {
    scheduler: Arc<Scheduler>,
    readiness: Arc<Readiness>,
    notifier: Option<thread::JoinHandle<()>>,
    seat: Arc<Seat>,
    fault: Fault,
    processor: Option<usize>,
    searching: bool,
}

impl Bare {
    fn run(mut self, sits: bool) {
        loop {
            let mut tasks = Vec::new();
            self.scheduler.global.pop(1, &mut tasks);
            if let Some(task) = tasks.pop() {
                assert!(task.run().is_none());
                break;
            }
            if std::mem::take(&mut self.searching) {
                self.scheduler.idle.end_search();
            }
            self.scheduler.idle.enter(self.processor.take(), &self.seat, sits);
            if sits {
                self.sit();
            } else {
                self.park();
            }
        }
        self.join_notifier();
    }

    fn join_notifier(&mut self) {
        if let Some(notifier) = self.notifier.take() {
            notifier.join().unwrap();
        }
    }

    fn park(&mut self) {
        if self.fault != Fault::SleepersBarrier {
            full_barrier();
        }
        if self.fault != Fault::Look && self.scheduler.work_is_visible() && self.leave(Leave::IfUseful) {
            return;
        }
        self.join_notifier();
        assert!(self.take_assigned(), "a task is left behind");
    }

    fn sit(&mut self) {
        let scheduler = Arc::clone(&self.scheduler);
        let mut turn = scheduler.poller.try_turn().expect("nobody else polls");
        let announced = turn.announce(Tick::NEVER);
        let assigned = self.fault != Fault::Assigned && self.seat.assigned().is_some();
        if assigned || scheduler.work_is_visible() {
            self.leave(Leave::Searching);
            return announced.withdraw();
        }
        self.join_notifier();
        announced.withdraw();
        self.leave(Leave::Awake);
        drop(turn);
        let woken = std::mem::take(&mut self.readiness.state.lock().unwrap().interrupted);
        assert!(woken, "a task is left behind");
    }

    fn leave(&mut self, how: Leave) -> bool {
        match self.scheduler.idle.leave(&self.seat, how) {
            Left::With(processor) => {
                self.processor = Some(processor);
                self.searching = how != Leave::Awake;
                true
            }
            Left::Assigned => self.take_assigned(),
            Left::Without => false,
        }
    }

    fn take_assigned(&mut self) -> bool {
        self.processor = match self.seat.take_assigned() {
            Some(Assigned::Processor(processor)) => Some(processor),
            _ => None,
        };
        self.searching = self.processor.is_some();
        self.searching
    }
}

/// A notifier that publishes one task, or first one that it takes away again, and a bare worker.
fn bare(fault: Fault, sits: bool, takes_away: bool) {
    check(&format!("bare: fault {fault:?}, sits {sits}"), move || {
        let (scheduler, readiness) = scheduler(1);
        let tally = Tally::new();
        let seat = scheduler.threads.new_seat(usize::MAX).unwrap();
        // It begins with the processor, so that the notifier sees none idle until the worker sleeps.
        scheduler.idle.enter(None, &seat, false);
        let Left::With(processor) = scheduler.idle.leave(&seat, Leave::Awake) else {
            panic!("no processor is idle");
        };
        let notifying = Arc::clone(&scheduler);
        let notifier = thread::spawn(move || {
            let scheduler = notifying;
            let publish = || {
                assert!(scheduler.global.push(Arc::new(Job(Arc::clone(&tally)))).is_ok());
                if fault != Fault::NotifiersBarrier {
                    full_barrier();
                }
                if scheduler.idle.wants_worker() {
                    scheduler.wake_one();
                }
            };
            if takes_away {
                publish();
                let mut tasks = Vec::new();
                scheduler.global.pop(1, &mut tasks);
                tasks.into_iter().for_each(|task| drop(task.run()));
            }
            publish();
        });
        let processor = Some(processor);
        let notifier = Some(notifier);
        Bare { scheduler, readiness, notifier, seat, fault, processor, searching: false }.run(sits);
    });
}

#[test]
fn loom_the_bare_protocol_loses_no_task() {
    bare(Fault::Nothing, false, false);
    bare(Fault::Nothing, true, false);
}

#[test]
fn loom_a_worker_claimed_for_a_task_that_is_gone_is_woken_all_the_same() {
    bare(Fault::Nothing, true, true);
    check("a real worker, claimed for a task that is gone", || {
        let (scheduler, _) = scheduler(1);
        let tally = Tally::new();
        let mut threads = start_workers(&scheduler, 1);
        threads.push(thread::spawn({
            let (scheduler, tally) = (Arc::clone(&scheduler), Arc::clone(&tally));
            move || {
                scheduler.schedule_global(Arc::new(Job(Arc::clone(&tally))));
                let mut tasks = Vec::new();
                scheduler.global.pop(1, &mut tasks);
                tasks.into_iter().for_each(|task| drop(task.run()));
                scheduler.schedule_global(Arc::new(Job(tally)));
            }
        }));
        tally.wait_for(2);
        finish(&scheduler, threads);
    });
}

#[test]
#[should_panic(expected = "a task is left behind")]
fn loom_canary_without_the_notifiers_barrier_a_task_is_lost() {
    bare(Fault::NotifiersBarrier, false, false);
}

#[test]
#[should_panic(expected = "a task is left behind")]
fn loom_canary_without_the_sleepers_barrier_a_task_is_lost() {
    bare(Fault::SleepersBarrier, false, false);
}

#[test]
#[should_panic(expected = "a task is left behind")]
fn loom_canary_without_the_second_look_a_task_is_lost() {
    bare(Fault::Look, false, false);
}

#[test]
#[should_panic(expected = "a task is left behind")]
fn loom_canary_a_sitter_that_does_not_look_at_what_was_assigned_oversleeps() {
    bare(Fault::Assigned, true, true);
}
