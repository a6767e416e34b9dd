//! The scheduler stepped by hand: several workers on one thread, a clock that stands still, and
//! threads that are only asked for.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use super::idle::{Leave, Left};
use super::processor::WorkerId;
use super::task::{Identity, JoinHandle};
use super::worker::Step;
use super::*;
use crate::base::clock::ManualClock;
use crate::base::primitive::atomic::Ordering;

/// Keeps what threads were asked to do instead of starting them.
#[derive(Default)]
struct Kept {
    refuse: AtomicBool,
    names: Mutex<Vec<String>>,
}

struct Spawner(Arc<Kept>);

impl SpawnThread for Spawner {
    fn spawn(&self, name: String, _: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        if self.0.refuse.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0.names.lock().unwrap().push(name);
        Ok(())
    }
}

struct World {
    scheduler: Arc<Scheduler>,
    clock: Arc<ManualClock>,
    kept: Arc<Kept>,
    _entered: current::Entered,
}

impl World {
    fn new(processors: usize) -> World {
        let (clock, kept) = (ManualClock::new(), Arc::new(Kept::default()));
        let scheduler = Scheduler::new(Parts {
            processors,
            threads_max: 8,
            thread_name: "test".to_owned(),
            panic_hook: None,
            handoff: crate::sched::handoff::Handoff::off(),
            handoff_hook: None,
            clock: Clock::Manual(Arc::clone(&clock)),
            seed: 1,
            spawner: Box::new(Spawner(Arc::clone(&kept))),
            poller: Poller::new().unwrap(),
            alarm: Alarm::new().unwrap(),
        });
        let entered = current::enter(Arc::clone(&scheduler));
        World { scheduler, clock, kept, _entered: entered }
    }

    /// A worker without a processor.
    fn worker(&self) -> Worker<'_> {
        let seat = self.scheduler.threads.new_seat(usize::MAX).unwrap();
        Worker::new(&self.scheduler, seat)
    }

    /// A worker that gets a processor with its first step.
    fn worker_with_processor(&self) -> Worker<'_> {
        let worker = self.worker();
        self.scheduler.idle.enter(None, &worker.seat, false);
        let Left::With(processor) = self.scheduler.idle.leave(&worker.seat, Leave::Searching) else {
            panic!("no processor is idle");
        };
        worker.seat.assign(Assigned::Processor(processor));
        worker
    }

    fn arm(&self, after: Duration, counter: &Arc<AtomicUsize>) {
        let waker = std::task::Waker::from(Arc::new(Count(Arc::clone(counter))));
        let (_, earliest) = self
            .scheduler
            .arm(self.scheduler.now(), self.scheduler.now().saturating_add(after), waker)
            .unwrap();
        self.scheduler.announce_timer(earliest);
    }
}

/// A task that is left in a queue may hold the scheduler, which holds the queue.
impl Drop for World {
    fn drop(&mut self) {
        self.scheduler.sweep();
    }
}

/// Steps a worker as if it were on this thread alone.
fn step(worker: &mut Worker<'_>) -> Step {
    worker.set_token(Place::Due);
    let step = worker.step();
    current::set_token(None);
    step
}

fn step_until_idle(worker: &mut Worker<'_>) {
    for _ in 0..10_000 {
        if step(worker) != Step::Ran {
            return;
        }
    }
    panic!("the worker does not come to an end");
}

struct Count(Arc<AtomicUsize>);

impl std::task::Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A task made of a function; it yields if that says so.
struct Act<F>(F);

impl<F: Fn(TaskRef) -> bool + Send + Sync + 'static> Runnable for Act<F> {
    fn run(self: Arc<Self>) -> Option<TaskRef> {
        let again = (self.0)(Arc::clone(&self) as TaskRef);
        again.then_some(self as TaskRef)
    }

    fn cancel(self: Arc<Self>) {}

    fn identity(&self) -> Identity {
        Identity::NONE
    }
}

/// A task that is done when `f` has run.
fn once(f: impl Fn() + Send + Sync + 'static) -> TaskRef {
    Arc::new(Act(move |_| {
        f();
        false
    }))
}

fn counting(counter: &Arc<AtomicUsize>) -> TaskRef {
    let counter = Arc::clone(counter);
    once(move || {
        counter.fetch_add(1, Ordering::SeqCst);
    })
}

fn get(counter: &Arc<AtomicUsize>) -> usize {
    counter.load(Ordering::SeqCst)
}

#[test]
fn a_task_is_found_by_its_identity_from_its_spawning_to_its_end() {
    let world = World::new(1);
    let mut worker = world.worker_with_processor();
    let here = std::panic::Location::caller();
    let tasks = [
        world.scheduler.spawn(std::future::pending::<()>(), here),
        world.scheduler.spawn_blocking(std::future::pending::<()>(), here),
    ];
    let found = |task: &dyn Runnable| world.scheduler.registry.ask(task.identity(), |task| task.id());
    for task in &tasks {
        assert_eq!(found(&**task), Some(task.id()));
        Arc::clone(task).abort();
    }
    step_until_idle(&mut worker);
    world.scheduler.blocking.close().into_iter().for_each(Runnable::cancel);
    for task in &tasks {
        assert!(task.is_finished());
        assert_eq!(found(&**task), None);
    }
}

#[test]
fn due_timers_of_a_worker_that_is_stuck_are_fired_by_another_one() {
    let world = World::new(2);
    let fired = Arc::new(AtomicUsize::new(0));
    let (mut stuck, mut other) = (world.worker_with_processor(), world.worker_with_processor());
    step(&mut stuck);
    stuck.set_token(Place::Due);
    world.arm(Duration::from_millis(1), &fired);
    step_until_idle(&mut other);
    assert_eq!(get(&fired), 0);
    world.clock.advance(Duration::from_millis(1));
    // It sleeps in the poller until the timer is due, and is woken with a processor.
    other.sleep();
    step_until_idle(&mut other);
    assert_eq!(get(&fired), 1);
}

#[test]
fn a_worker_without_a_processor_fires_what_is_due() {
    let world = World::new(1);
    let fired = Arc::new(AtomicUsize::new(0));
    let (mut stuck, mut other) = (world.worker_with_processor(), world.worker());
    step(&mut stuck);
    stuck.set_token(Place::Due);
    world.arm(Duration::from_millis(1), &fired);
    assert_eq!(step(&mut other), Step::Sleep);
    world.clock.advance(Duration::from_millis(1));
    other.sleep();
    assert_eq!(step(&mut other), Step::Ran);
    assert_eq!(get(&fired), 1);
    assert_eq!(step(&mut other), Step::Sleep);
}

/// Schedules a task when it is woken.
struct Schedules(Arc<Scheduler>, TaskRef);

impl std::task::Wake for Schedules {
    fn wake(self: Arc<Self>) {
        self.0.schedule(Arc::clone(&self.1));
    }
}

#[test]
fn ten_thousand_timers_of_one_instant_leave_a_task_that_is_ready_its_turns() {
    const TIMERS: usize = 10_000;
    let world = World::new(1);
    let mut worker = world.worker_with_processor();
    step(&mut worker);
    worker.set_token(Place::Due);
    let woken = Arc::new(AtomicUsize::new(0));
    let at = world.scheduler.now().saturating_add(Duration::from_millis(1));
    for _ in 0..TIMERS {
        let waker =
            std::task::Waker::from(Arc::new(Schedules(Arc::clone(&world.scheduler), counting(&woken))));
        let _armed = world.scheduler.arm(world.scheduler.now(), at, waker).unwrap();
    }
    // How many of the woken had a turn between two turns of the one that yields.
    let (last, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let (seen, greatest) = (Arc::clone(&woken), Arc::clone(&most));
    world.scheduler.schedule(Arc::new(Act(move |_| {
        let now = get(&seen);
        greatest.fetch_max(now - last.swap(now, Ordering::SeqCst), Ordering::SeqCst);
        now < TIMERS
    })));
    world.clock.advance(Duration::from_millis(1));
    while step(&mut worker) == Step::Ran {}
    assert_eq!(get(&woken), TIMERS);
    assert!(get(&most) <= 2 * timing::FIRE_MAX, "{most:?} in a row");
}

#[test]
fn the_next_slot_is_served_three_times_in_a_row_at_most() {
    let world = World::new(1);
    let mut worker = world.worker_with_processor();
    step(&mut worker);
    let log = Arc::new(Mutex::new(Vec::new()));
    worker.set_token(Place::Due);
    let (scheduler, entry) = (Arc::clone(&world.scheduler), Arc::clone(&log));
    world.scheduler.schedule(Arc::new(Act(move |own| {
        entry.lock().unwrap().push("selfish");
        // Woken in its own poll, by itself: that goes to the `next` slot.
        if entry.lock().unwrap().len() < 20 {
            scheduler.schedule(own);
        }
        false
    })));
    let entry = Arc::clone(&log);
    world.scheduler.schedule(once(move || entry.lock().unwrap().push("patient")));
    step_until_idle(&mut worker);
    let log = log.lock().unwrap();
    assert_eq!(log.iter().position(|name| *name == "patient"), Some(4), "{log:?}");
    assert_eq!(log.len(), 20, "{log:?}");
}

#[test]
fn a_task_that_yields_is_not_lost_when_the_global_queue_is_looked_at() {
    let world = World::new(1);
    let mut worker = world.worker_with_processor();
    step(&mut worker);
    let (yields, others) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    worker.set_token(Place::Due);
    let count = Arc::clone(&yields);
    world.scheduler.schedule(Arc::new(Act(move |_| count.fetch_add(1, Ordering::SeqCst) < 499)));
    for _ in 0..500 {
        world.scheduler.schedule_global(counting(&others));
    }
    step_until_idle(&mut worker);
    assert_eq!((get(&yields), get(&others)), (500, 500));
}

#[test]
fn tasks_from_outside_do_not_starve_beside_one_that_always_yields() {
    let world = World::new(1);
    let mut worker = world.worker_with_processor();
    step(&mut worker);
    let others = Arc::new(AtomicUsize::new(0));
    worker.set_token(Place::Due);
    world.scheduler.schedule(Arc::new(Act(|_| true)));
    world.scheduler.schedule_global(counting(&others));
    for _ in 0..62 {
        assert_eq!(step(&mut worker), Step::Ran);
    }
    assert_eq!(get(&others), 1);
}

#[test]
fn a_thread_that_cannot_be_had_leaves_the_processor_idle_and_the_task_to_the_next_worker() {
    let world = World::new(2);
    let ran = Arc::new(AtomicUsize::new(0));
    world.kept.refuse.store(true, Ordering::SeqCst);
    world.scheduler.schedule_global(counting(&ran));
    let metrics = world.scheduler.metrics();
    assert_eq!((metrics.idle_processors, metrics.thread_failures, metrics.threads), (2, 1, 0));
    assert_eq!(world.scheduler.idle.searching(), 0);
    let mut worker = world.worker();
    assert_eq!(step(&mut worker), Step::Sleep);
    worker.sleep(); // It looks once more, and comes back with a processor.
    step_until_idle(&mut worker);
    assert_eq!(get(&ran), 1);
}

#[test]
fn a_thread_is_asked_for_once_while_a_search_is_on_its_way() {
    let world = World::new(4);
    let ran = Arc::new(AtomicUsize::new(0));
    for _ in 0..3 {
        world.scheduler.schedule_global(counting(&ran));
    }
    assert_eq!(*world.kept.names.lock().unwrap(), ["test-worker-0"]);
    let seat = world.scheduler.threads.seat(WorkerId(0)).unwrap();
    let mut worker = Worker::new(&world.scheduler, seat);
    assert_eq!(step(&mut worker), Step::Ran);
    // It has found work for more than one: before it begins with it, it asks for help.
    assert_eq!(step(&mut worker), Step::Ran);
    assert_eq!(world.kept.names.lock().unwrap().len(), 2);
    step_until_idle(&mut worker);
    assert_eq!(get(&ran), 3);
}

#[test]
fn a_processor_given_up_in_a_poll_is_lost_when_the_poll_ends() {
    let world = World::new(1);
    let mut blocked = world.worker_with_processor();
    step(&mut blocked);
    let (before, after) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (scheduler, seat) = (Arc::clone(&world.scheduler), Arc::clone(&blocked.seat));
    let (early, late) = (Arc::clone(&before), Arc::clone(&after));
    blocked.set_token(Place::Due);
    world.scheduler.schedule(Arc::new(Act(move |_| {
        scheduler.schedule(counting(&early));
        scheduler.release_from(&seat);
        assert!(seat.is_released());
        assert_eq!(scheduler.processors[0].queue_len(), 1, "the next task is left to others");
        scheduler.schedule(counting(&late));
        assert_eq!(scheduler.processors[0].queue_len(), 2, "what it wakes then is left to them as well");
        scheduler.release_from(&seat);
        true
    })));
    assert_eq!(step(&mut blocked), Step::Ran);
    assert_eq!(world.kept.names.lock().unwrap().len(), 1, "somebody else comes for the processor");
    assert_eq!(world.scheduler.metrics().handoffs, 1);
    // Still in its user code, as far as anybody can know.
    assert!(blocked.seat.is_released());

    let seat = world.scheduler.threads.seat(WorkerId(1)).unwrap();
    let mut successor = Worker::new(&world.scheduler, seat);
    step_until_idle(&mut successor);
    assert_eq!((get(&before), get(&after)), (1, 1));

    assert_eq!(step(&mut blocked), Step::Ran);
    assert!(!blocked.seat.is_released());
    assert_eq!(blocked.processor, None);
    assert_eq!(world.scheduler.global.len(), 1, "the task that yielded goes on elsewhere");
    assert_eq!(step(&mut blocked), Step::Sleep);
    assert_eq!(world.scheduler.idle.searching(), 0);
}

#[test]
fn a_search_ends_before_wakers_are_called() {
    struct Look(Arc<Scheduler>, Arc<AtomicUsize>);
    impl std::task::Wake for Look {
        fn wake(self: Arc<Self>) {
            self.1.store(self.0.idle.searching(), Ordering::SeqCst);
        }
    }
    let world = World::new(1);
    let searching = Arc::new(AtomicUsize::new(7));
    let waker = std::task::Waker::from(Arc::new(Look(Arc::clone(&world.scheduler), Arc::clone(&searching))));
    let _armed = world.scheduler.arm(world.scheduler.now(), world.scheduler.now(), waker).unwrap();
    let mut worker = world.worker_with_processor();
    step(&mut worker);
    assert_eq!(get(&searching), 0, "a waker that takes long would keep every wake-up from others");
}

#[test]
fn shutdown_cancels_what_waits_what_is_queued_and_what_comes_later() {
    struct OnDrop(Arc<AtomicUsize>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let world = World::new(2);
    let (dropped, fired) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let spawn = || {
        let guard = OnDrop(Arc::clone(&dropped));
        let future = async move {
            std::future::pending::<()>().await;
            drop(guard);
        };
        JoinHandle::new(world.scheduler.spawn(future, std::panic::Location::caller()))
    };
    let mut worker = world.worker_with_processor();
    let waiting = spawn();
    step_until_idle(&mut worker);
    let queued = spawn();
    world.arm(Duration::from_secs(1), &fired);
    world.scheduler.close();
    let late = spawn();
    assert!(late.is_finished());
    while step(&mut worker) != Step::Exit {}
    world.scheduler.sweep();
    world.scheduler.sweep();
    assert!(waiting.is_finished() && queued.is_finished());
    assert_eq!((get(&dropped), get(&fired)), (3, 1));
    assert_eq!(world.scheduler.metrics().tasks_alive, 0);
    assert!(
        world
            .scheduler
            .arm(world.scheduler.now(), world.scheduler.now(), std::task::Waker::noop().clone())
            .is_err()
    );
}

#[test]
fn a_worker_that_has_entered_another_runtime_is_not_taken_for_that_ones() {
    let (one, other) = (World::new(1), World::new(1));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let seat = one.scheduler.threads.new_seat(1).unwrap();
            current::become_worker(&one.scheduler, &seat);
            let _entered = current::enter(Arc::clone(&other.scheduler));
            let (scheduler, own) = current::worker().unwrap();
            assert!(Arc::ptr_eq(&scheduler, &one.scheduler) && Arc::ptr_eq(&own, &seat));
        });
    });
}

/// The one that runs may wait for the one that does not.
#[test]
fn a_job_that_could_not_have_a_thread_gets_one_later_though_another_job_runs() {
    for still_refused in [false, true] {
        let world = World::new(1);
        let scheduler = &world.scheduler;
        scheduler.schedule_blocking(once(|| ()));
        assert_eq!((world.kept.names.lock().unwrap().len(), scheduler.blocking.threads()), (1, 1));
        world.kept.refuse.store(true, Ordering::SeqCst);
        scheduler.schedule_blocking(once(|| ()));
        scheduler.schedule_blocking(once(|| ()));
        assert_eq!((scheduler.blocking.threads(), scheduler.global.len()), (1, 0));
        world.kept.refuse.store(still_refused, Ordering::SeqCst);
        scheduler.retry_jobs();
        if still_refused {
            assert_eq!((scheduler.blocking.threads(), scheduler.global.len()), (1, 1));
        } else {
            assert_eq!((scheduler.blocking.threads(), scheduler.global.len()), (2, 0));
        }
    }
}

#[test]
fn what_timers_and_descriptors_wake_does_not_starve_the_queue_by_what_it_wakes_in_its_turn() {
    let world = World::new(1);
    let processor = &world.scheduler.processors[0];
    let ran = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&ran);
    let queued = once(move || {
        counts.fetch_add(1, Ordering::SeqCst);
    });
    processor.lock().push(queued, Place::Back);
    for _ in 0..20 {
        let mut core = processor.lock();
        // As if each task that a timer has woken wakes another one, and the next timer is due by then.
        core.push(once(|| {}), Place::Due);
        core.push(once(|| {}), Place::Next);
        let tasks = [core.pop(), core.pop()];
        drop(core);
        for task in tasks.into_iter().flatten() {
            assert!(task.run().is_none());
        }
    }
    assert_eq!(ran.load(Ordering::SeqCst), 1, "the queue has never had its turn");
}

#[test]
fn a_job_without_a_thread_is_wanted_until_somebody_comes_for_it() {
    let world = World::new(1);
    let job = || once(|| {});
    world.scheduler.schedule_blocking(job());
    world.kept.refuse.store(true, Ordering::SeqCst);
    world.scheduler.schedule_blocking(job());
    world.scheduler.schedule_blocking(job());
    assert!(world.scheduler.blocking.wants_thread());
    // The one that has a ticket takes a job, which may take for ever: two are left, for which nobody comes.
    assert!(world.scheduler.blocking.next().is_some());
    assert!(world.scheduler.blocking.wants_thread(), "{:?}", world.scheduler.blocking.state());
    while world.scheduler.blocking.next().is_some() {}
    assert!(!world.scheduler.blocking.wants_thread());
}

#[test]
fn a_worker_that_is_asked_to_looks_at_the_global_queue_before_its_own() {
    let world = World::new(1);
    let mut worker = world.worker_with_processor();
    step(&mut worker);
    let others = Arc::new(AtomicUsize::new(0));
    worker.set_token(Place::Due);
    world.scheduler.schedule(Arc::new(Act(|_| true)));
    world.scheduler.schedule_global(counting(&others));
    assert_eq!(step(&mut worker), Step::Ran);
    assert_eq!(get(&others), 0);
    world.scheduler.processors[0].ask_to_look_around();
    for _ in 0..2 {
        assert_eq!(step(&mut worker), Step::Ran);
    }
    assert_eq!(get(&others), 1);
}
