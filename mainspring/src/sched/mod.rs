#![doc = include_str!("README.md")]

pub(crate) mod blocking;
pub(crate) mod current;
mod global;
pub(crate) mod handoff;
mod idle;
#[cfg(all(test, mainspring_loom))]
pub(crate) mod loom_tests;
pub(crate) mod metrics;
mod monitor;
mod pace;
pub(crate) mod processor;
mod search;
mod seat;
mod shutdown;
mod snapshot;
pub(crate) mod task;
#[cfg(all(test, not(mainspring_loom)))]
mod tests;
pub(crate) mod threads;
mod timing;
mod watch;
mod worker;

use std::any::Any;
use std::future::Future;
use std::io;
use std::panic::Location;
use std::sync::{Arc, Weak};

use self::blocking::Blocking;
use self::global::Global;
use self::handoff::{Handoff, HandoffHook, Regions};
use self::idle::{Claim, Claimed, Idle};
use self::metrics::{Metrics, SharedCounters};
use self::monitor::Monitor;
use self::pace::Pace;
use self::processor::{Place, Processor};
use self::seat::{Assigned, Seat};
use self::task::{Cell, Id, Identity, Joinable, Named, Registration, Registry, Runnable, Schedule, TaskRef};
use self::threads::{SpawnThread, Threads};
use self::worker::Worker;
use crate::base::alarm::Alarm;
use crate::base::clock::{Clock, Tick};
use crate::base::primitive::atomic::AtomicU8;
use crate::base::primitive::full_barrier;
use crate::base::rank::assert_unlocked;
use crate::base::tokio_context;
use crate::poll::poller::Poller;

/// What a scheduler is built of; time, chance, threads and the poller come from outside.
pub(crate) struct Parts {
    pub(crate) processors: usize,
    /// More than the processors.
    pub(crate) threads_max: usize,
    pub(crate) thread_name: String,
    pub(crate) panic_hook: Option<PanicHook>,
    pub(crate) handoff: Handoff,
    pub(crate) handoff_hook: Option<HandoffHook>,
    pub(crate) clock: Clock,
    pub(crate) seed: u64,
    pub(crate) spawner: Box<dyn SpawnThread>,
    pub(crate) poller: Poller,
    pub(crate) alarm: Alarm,
}

/// Told of each panic of a task or timer function, beside std's own hook.
pub(crate) type PanicHook = Box<dyn Fn(&(dyn Any + Send)) + Send + Sync>;

/// One runtime's scheduler: what its workers share.
pub(crate) struct Scheduler {
    clock: Clock,
    seed: u64,
    processors: Box<[Arc<Processor>]>,
    global: Global,
    idle: Idle,
    pub(crate) poller: Poller,
    registry: Registry,
    blocking: Blocking,
    threads: Threads,
    monitor: Monitor,
    pace: Pace,
    panic_hook: Option<PanicHook>,
    handoff: Handoff,
    handoff_hook: Option<HandoffHook>,
    regions: Regions,
    counters: SharedCounters,
    /// OPEN, CLOSING or SWEPT; see [`shutdown`]. Written by who shuts down.
    phase: AtomicU8,
}

impl Scheduler {
    /// A scheduler without threads.
    pub(crate) fn new(parts: Parts) -> Arc<Scheduler> {
        let processors = parts.processors;
        let clock = parts.clock;
        Arc::new_cyclic(|weak| Scheduler {
            processors: (0..processors)
                .map(|_| Arc::new(Processor::new(Weak::clone(weak), clock.clone())))
                .collect(),
            clock,
            seed: parts.seed,
            global: Global::new(),
            idle: Idle::new(processors),
            poller: parts.poller,
            registry: Registry::new(processors),
            // Jobs leave a thread for each processor.
            blocking: Blocking::new(parts.threads_max - processors),
            threads: Threads::new(parts.spawner, parts.thread_name, parts.threads_max),
            monitor: Monitor::new(parts.alarm),
            pace: Pace::default(),
            panic_hook: parts.panic_hook,
            handoff: parts.handoff,
            handoff_hook: parts.handoff_hook,
            regions: Regions::default(),
            counters: SharedCounters::default(),
            phase: AtomicU8::new(shutdown::OPEN),
        })
    }

    /// Starts the first worker and the monitor; the other workers start when there is work for them.
    ///
    /// # Errors
    ///
    /// If no thread can be had. The scheduler has shut down then.
    pub(crate) fn start(self: &Arc<Self>) -> io::Result<()> {
        let scheduler = Arc::clone(self);
        let started = self
            .start_worker(None)
            .and_then(|()| self.threads.spawn("monitor", move || scheduler.run_monitor()));
        if started.is_err() {
            self.shut_down_with_patience();
        }
        started
    }

    /// Starts a worker thread, with a processor if one was claimed for it.
    fn start_worker(self: &Arc<Self>, claimed: Option<usize>) -> io::Result<()> {
        let Some(seat) = self.threads.new_seat(self.processors.len()) else {
            return Err(io::Error::other("no room for another worker"));
        };
        if let Some(processor) = claimed {
            seat.assign(Assigned::Processor(processor));
        }
        self.start_thread(&seat)
    }

    /// Starts a thread with a ticket of the blocking pool.
    fn start_thread_for_jobs(self: &Arc<Self>) -> io::Result<()> {
        let Some(seat) = self.threads.new_seat_for_jobs() else {
            return Err(io::Error::other("no room for another thread"));
        };
        seat.assign(Assigned::Jobs);
        self.start_thread(&seat)
    }

    fn start_thread(self: &Arc<Self>, seat: &Arc<Seat>) -> io::Result<()> {
        let (scheduler, own) = (Arc::clone(self), Arc::clone(seat));
        let role = format!("worker-{}", seat.id.0);
        let started = self.threads.spawn(&role, move || scheduler.run_worker(&own));
        if started.is_err() {
            self.counters.thread_failures.add_one();
            self.retire(seat);
        }
        started
    }

    fn run_worker(self: Arc<Self>, seat: &Arc<Seat>) {
        // For the whole of the thread's life: what is cleared away at its end may want it as well.
        let _tokio = tokio_context::enter();
        Worker::new(&self, Arc::clone(seat)).run();
        self.retire(seat);
    }

    /// A worker has ended, or its thread could not be had. The last one clears away what is left. It stays
    /// listed meanwhile: who shuts down waits for that, though not for a destructor that blocks.
    fn retire(self: &Arc<Self>, seat: &Seat) {
        if self.threads.remove_seat_unless_last(seat) {
            return;
        }
        if self.may_exit() {
            seat.set_identity(Identity::NONE);
            seat.begin_piece();
            self.sweep();
            seat.end_piece();
        }
        self.threads.remove_seat(seat);
    }

    /// Spawns a task. If the runtime has shut down, the task is cancelled at once.
    pub(crate) fn spawn<F>(
        self: &Arc<Self>,
        future: F,
        spawned_at: &'static Location<'static>,
    ) -> Arc<dyn Joinable<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.launch(Cell::new(future, Home::<false>(Arc::clone(self)), spawned_at))
    }

    /// Spawns a task that the blocking pool runs.
    pub(crate) fn spawn_blocking<F>(
        self: &Arc<Self>,
        future: F,
        spawned_at: &'static Location<'static>,
    ) -> Arc<dyn Joinable<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.launch(Cell::new(future, Home::<true>(Arc::clone(self)), spawned_at))
    }

    /// Spawns a task that may have a name.
    pub(crate) fn spawn_named<F>(
        self: &Arc<Self>,
        future: F,
        name: Option<Arc<str>>,
        spawned_at: &'static Location<'static>,
    ) -> Arc<dyn Joinable<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.launch(Cell::new(future, Named::new(Home::<false>(Arc::clone(self)), name), spawned_at))
    }

    /// Spawns a task that may have a name and that the blocking pool runs.
    pub(crate) fn spawn_blocking_named<F>(
        self: &Arc<Self>,
        future: F,
        name: Option<Arc<str>>,
        spawned_at: &'static Location<'static>,
    ) -> Arc<dyn Joinable<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.launch(Cell::new(future, Named::new(Home::<true>(Arc::clone(self)), name), spawned_at))
    }

    fn launch<F, S>(&self, task: Arc<Cell<F, S>>) -> Arc<dyn Joinable<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
        S: Schedule,
    {
        self.counters.tasks_spawned.add_one();
        match self.registry.insert(Arc::clone(&task) as _) {
            Some(registration) => {
                task.register(registration);
                task.enqueue();
            }
            None => Arc::clone(&task).cancel(),
        }
        task
    }

    /// Queues a task: on a worker of this scheduler at its processor, elsewhere globally. A worker whose processor was taken
    /// queues at that one all the same, and what a timer wakes is queued where the timer was, also by a worker that has
    /// no processor: whoever comes for the processor finds it there, and the global queue would be one more station.
    pub(crate) fn schedule(self: &Arc<Self>, task: TaskRef) {
        let Some(token) = current::token(self) else {
            return self.schedule_global(task);
        };
        let mut core = self.processors[token.processor].lock();
        let is_owner = core.owner == Some(token.worker);
        // After the runtime's end nobody may come to this queue; the global one is closed then.
        if core.timers_are_closed() {
            drop(core);
            return self.schedule_global(task);
        }
        // Whoever owns it now has a task of its own that comes next.
        let place = if is_owner || token.place == Place::Due { token.place } else { Place::Back };
        let waiting = core.push(task, place);
        drop(core);
        if !is_owner {
            return self.notify();
        }
        // A task that only stands in the `next` slot runs as soon as this poll ends. Between polls the
        // worker looks at its queue next anyway.
        if token.place == Place::Next && waiting > 0 && self.idle.processors() > 0 {
            self.notify();
        }
    }

    /// Queues a task globally.
    pub(crate) fn schedule_global(self: &Arc<Self>, task: TaskRef) {
        match self.global.push(task) {
            Ok(()) => self.notify(),
            // Nobody is left to run it.
            Err(task) => task.cancel(),
        }
    }

    /// Work was published: makes sure that a worker comes for it (README, steps N).
    fn notify(self: &Arc<Self>) {
        full_barrier();
        if self.idle.wants_worker() {
            self.wake_one();
        }
    }

    /// Gives an idle processor to a sleeping worker, or to a new one.
    fn wake_one(self: &Arc<Self>) {
        self.staff(self.idle.claim());
    }

    /// Does what a claim owes.
    fn staff(self: &Arc<Self>, claim: Claim) {
        match claim {
            Claim::Nothing => {}
            Claim::Worker(claimed) => self.deliver(claimed),
            Claim::Processor(processor) => {
                if self.start_worker(Some(processor)).is_ok() {
                    return;
                }
                match self.idle.offer(processor) {
                    Some(claimed) => self.deliver(claimed),
                    // If every worker is blocked, nobody looks again but the monitor.
                    None => self.monitor.wake_if_resting(),
                }
            }
        }
    }

    fn deliver(&self, claimed: Claimed) {
        self.counters.wakeups.add_one();
        match claimed {
            Claimed::Parked(seat) => seat.parker.unpark(),
            Claimed::InPoller => {
                // Either this sees the announcement, or the worker sees what was assigned (S4).
                full_barrier();
                self.poller.interrupt_if_after(Tick::from_nanos(0));
            }
        }
    }

    /// Whether any queue that others may take from has a task.
    fn work_is_visible(&self) -> bool {
        self.global.len() > 0 || self.processors.iter().any(|processor| processor.queue_len() > 0)
    }

    fn forget(&self, id: Id, registration: Registration) {
        let task = self.registry.remove(id, registration);
        assert_unlocked("drop a task");
        drop(task);
    }

    fn panicked(&self, payload: &(dyn Any + Send)) {
        self.counters.panics.add_one();
        if let Some(hook) = &self.panic_hook {
            assert_unlocked("call a panic hook");
            task::contain(|| hook(payload));
        }
    }

    /// A timer function panicked: nobody joins it, so the payload ends here.
    pub(crate) fn report_panic(&self, payload: Box<dyn Any + Send>) {
        self.panicked(&*payload);
        task::drop_user_value(payload);
    }

    pub(crate) fn metrics(&self) -> Metrics {
        let poller = self.poller.counters();
        let mut metrics = Metrics {
            processors: self.processors.len(),
            idle_processors: self.idle.processors(),
            threads: self.threads.count(),
            blocking_threads: self.blocking.threads(),
            thread_failures: self.counters.thread_failures.get(),
            tasks_alive: self.registry.len(),
            tasks_spawned: self.counters.tasks_spawned.get(),
            panics: self.counters.panics.get(),
            queued: self.global.len(),
            handoffs_asleep: self.counters.handoffs_asleep.get(),
            handoffs_on_cpu: self.counters.handoffs_on_cpu.get(),
            handoffs_declared: self.counters.handoffs_declared.get(),
            parks: self.counters.parks.get(),
            wakeups: self.counters.wakeups.get(),
            rescues: self.counters.rescues.get(),
            poller_polls: poller.polls,
            poller_waits: poller.waits,
            poller_events: poller.events,
            poller_interrupts: poller.interrupts,
            descriptors: self.poller.len(),
            ..Metrics::default()
        };
        metrics.handoffs = metrics.handoffs_asleep + metrics.handoffs_on_cpu + metrics.handoffs_declared;
        for processor in &self.processors {
            let core = processor.lock();
            let counters = core.counters;
            metrics.timers_pending += core.timers.len();
            metrics.queued += usize::from(core.next.is_some());
            drop(core);
            metrics.queued += processor.queue_len();
            metrics.polls += counters.polls;
            metrics.steals += counters.stolen;
            metrics.timers_armed += counters.timers_armed;
            metrics.timers_fired += counters.timers_fired;
            metrics.timers_cancelled += counters.timers_cancelled;
            metrics.timer_lateness_ns_max = metrics.timer_lateness_ns_max.max(counters.timer_lateness_ns_max);
        }
        metrics
    }
}

/// Where a task runs when it is woken: on the workers, or on the blocking pool. A type each, so that a task
/// spends no byte on it.
struct Home<const BLOCKING: bool>(Arc<Scheduler>);

impl<const BLOCKING: bool> Schedule for Home<BLOCKING> {
    fn schedule(&self, task: TaskRef) {
        if BLOCKING { self.0.schedule_blocking(task) } else { self.0.schedule(task) }
    }

    fn finished(&self, id: Id, registration: Registration) {
        self.0.forget(id, registration);
    }

    fn panicked(&self, payload: &(dyn Any + Send)) {
        self.0.panicked(payload);
    }
}

#[cfg(all(test, debug_assertions))]
impl Scheduler {
    /// The mistake of Go's issue 35532, for canaries: fires what is due on a processor and keeps its lock.
    pub(crate) fn fire_with_the_core_locked(&self, processor: usize, wake: impl FnMut(std::task::Waker)) {
        let now = self.now();
        let mut due = Vec::new();
        let mut core = self.processors[processor].lock();
        core.timers.take_due(now, usize::MAX, &mut due);
        core.publish_timers();
        due.into_iter().map(|due| due.waker).for_each(wake);
    }
}
