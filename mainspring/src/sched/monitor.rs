//! The monitor: a thread that watches the workers from outside and owns no processor.
//!
//! At each look it asks which workers are stuck in one piece of user code ([`super::watch`]) while somebody waits: tasks
//! queued behind that piece or globally, timers that are due, or descriptors while nobody is on the way to the
//! poller. If a processor is idle, it wakes a worker for it, who finds all that by stealing. If none is, it hands a stuck
//! one off ([`super::handoff`]): at once if the thread sleeps in the kernel or has declared that it blocks, after a slice
//! if it computes.
//!
//! How often it looks: every 20 us after a hand-off, then half as often each time that there was nothing to hand off,
//! down to every millisecond or so: [`ALERT`] at first, [`CALM`] after ten seconds without a hand-off or while all workers
//! compute for long. It never looks more often than a look takes, and comes back at once if a thread seems to have fallen
//! asleep. It rests for [`PERIOD`] while a processor is idle, somebody sits in the poller and no task waits (whoever gives
//! that up wakes it), and sleeps for good while every processor is idle as well: an idle program makes no wake-ups.
//!
//! A worker that has something to do all the time looks at the global queue and the poller every so many polls. The
//! monitor asks for it at each look, in case that polls are long.
//!
//! Every [`PERIOD`] it also looks after what others should have seen to: it polls, and fires what is overdue, if all
//! processors are at work and nobody has, and wakes somebody for overdue timers and for tasks that are left in a queue.
//! What the idle protocol should have seen to itself is counted as a rescue, and tests ask for none: a queue that held tasks
//! beside an idle processor at two such looks in a row, nobody searching, and from which nothing was taken in
//! between (at a single look, a thread may just be between queueing a task and waking a worker); and an overdue timer
//! while somebody sits in the poller for longer.
//!
//! What it polls or fires for others is user code, which may block: a task of wakers, for a worker to run. Only when nobody
//! has come for them in a [`PERIOD`], or when all threads are blocked that there may be, it calls them itself: perhaps
//! all wait for just that.
//!
//! Its rest is a protocol with the workers. They do not wake it: they set its alarm, so that it looks a little later,
//! when most of them are asleep again:
//!
//! ```text
//! monitor: M0 alarm set for the end of the rest   worker: W1 take a processor out of the idle list
//!          M1 resting = true                              W2 full barrier
//!          M2 full barrier                                W3 resting? taken back by one of them, who
//!          M3 still nothing to do? wait                      sets the alarm for a look soon
//! ```
//!
//! One of the two sees the other: if M3 misses W1, then M1 comes before W3; and W3's alarm comes after M0's. Who has
//! published a task and cannot have a worker for it does W2 and W3 as well, and M3 looks for tasks. The end of the
//! runtime is seen by M3 likewise.

#[cfg(all(test, mainspring_loom))]
mod loom_tests;

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::handoff::{HandoffCause, Regions};
use super::processor::Place;
use super::task::{Identity, Runnable, TaskRef, wake};
use super::watch::Watch;
use super::{Scheduler, current};
use crate::base::alarm::Alarm;
use crate::base::clock::Tick;
use crate::base::primitive::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::base::primitive::full_barrier;
use crate::base::rank::{Rank, RankedMutex};

/// Go's monitor takes the same time for "nobody has polled for long".
const PERIOD: Duration = Duration::from_millis(10);

/// Between two looks after a hand-off.
const FAST: Duration = Duration::from_micros(20);
/// At most between two looks while workers work is a [`CALMER`]th of the time since the last hand-off, but no less than
/// [`ALERT`] and no more than [`CALM`]; and while all workers compute for long, a quarter of how long they have. Each look
/// costs some 10 to 30 us of CPU time. An echo service that takes all of a small machine is slower by 6 % if it is
/// looked at every [`BUSY`].
const ALERT: Duration = Duration::from_micros(500);
const BUSY: Duration = Duration::from_millis(1);
const CALM: Duration = Duration::from_millis(4);
/// So it is calm after ten seconds.
const CALMER: u32 = 2_500;

pub(crate) struct Monitor {
    alarm: Alarm,
    /// Written by the monitor; taken back by the worker that sets the alarm.
    resting: AtomicBool,
    /// How soon it looks when it is called, in nanoseconds. Written by the monitor.
    soon: AtomicU64,
}

/// So long overdue, timers of a processor that cannot be handed off are fired from outside. What is fired sooner by its
/// own worker runs in the order in which it was armed.
const STUCK: Duration = Duration::from_millis(100);

/// What comes after a look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rest {
    /// Another one, after this time.
    For(Duration),
    /// Another one after [`PERIOD`], or when it is called.
    UntilCalled,
}

/// What the monitor saw at its last look after what others should have seen to.
#[derive(Default)]
struct Look {
    at: Option<Tick>,
    poller_polls: u64,
    /// Polls of each processor.
    polls: Vec<u64>,
    /// Of each queue that had tasks beside an idle processor, the global one last, how many tasks had
    /// been taken from it.
    left_over: Vec<Option<u64>>,
    /// What was left to a worker to call at that look.
    wakers: Option<Arc<Wakers>>,
    /// Whether nobody sits in the poller and nobody can, as all threads are blocked that there may be.
    in_need: bool,
}

/// What the workers were seen to do.
#[derive(Default)]
struct Survey {
    /// Those that are in the same piece of user code as at the last look.
    stuck: Vec<Stuck>,
    /// Whether any other one holds a processor.
    somebody_moves: bool,
    /// See [`super::watch::Seen`].
    somebody_naps: bool,
    /// If every processor is held by a worker that computes in the same piece: since when at least.
    all_compute_for: Option<Duration>,
    /// Whether a task is in a `next` slot, of which nobody knows but the monitor if its worker gets stuck.
    next_waits: bool,
}

struct Stuck {
    processor: usize,
    lasted: Duration,
    /// Whether something waits for the processor.
    waits: bool,
    /// Whether others take what waits there.
    is_served: bool,
}

/// The monitor's own state.
struct Rounds {
    watch: Watch,
    look: Look,
    interval: Duration,
    /// At first, as long ago as makes for looks every [`BUSY`].
    last_handoff: Tick,
    /// How many tasks had been taken from the global queue at the last look, and how often the poller had been asked.
    looked_around: (u64, u64),
    /// Whether this look comes early because of a suspicion.
    suspicious: bool,
    /// The system has refused a thread: until when none is asked for.
    no_thread_before: Tick,
}

impl Monitor {
    pub(crate) fn new(alarm: Alarm) -> Monitor {
        let soon = AtomicU64::new(BUSY.as_nanos() as u64);
        Monitor { alarm, resting: AtomicBool::new(false), soon }
    }

    /// A worker has taken a processor out of the idle ones (W2 and W3).
    pub(crate) fn wake_if_resting(&self) {
        full_barrier();
        // ordering: Relaxed load, settled by the barriers; the swap makes one caller of many.
        if self.resting.load(Ordering::Relaxed) && self.resting.swap(false, Ordering::AcqRel) {
            // ordering: Relaxed, any value will do.
            self.alarm.set(Some(Duration::from_nanos(self.soon.load(Ordering::Relaxed))));
        }
    }

    /// Whether it rests, for reports.
    pub(crate) fn is_resting(&self) -> bool {
        // ordering: Relaxed, only reported.
        self.resting.load(Ordering::Relaxed)
    }

    /// Wakes the monitor in any case; for shutdown, after a full barrier.
    pub(crate) fn wake(&self) {
        self.alarm.set(Some(Duration::ZERO));
    }
}

impl Scheduler {
    /// The monitor's thread.
    pub(crate) fn run_monitor(self: &Arc<Self>) {
        let _entered = current::enter(Arc::clone(self));
        let mut rounds = Rounds {
            watch: Watch::new(self.processors.len()),
            look: Look::default(),
            interval: BUSY,
            last_handoff: self.now().saturating_sub(BUSY * CALMER),
            looked_around: (0, 0),
            suspicious: false,
            no_thread_before: Tick::from_nanos(0),
        };
        let mut rest = Rest::UntilCalled;
        loop {
            self.rest_monitor(rest);
            if self.is_closing() {
                return;
            }
            let now = self.now();
            if rounds.look.at.is_none_or(|at| now.saturating_since(at) >= PERIOD) {
                self.look_after(&mut rounds.look);
                self.retry_jobs();
                rounds.look.at = Some(now);
            }
            rest = if self.handoff.enabled {
                match self.look_at_workers(&mut rounds, now) {
                    // With hundreds of processors a look takes long.
                    Rest::For(time) => Rest::For(time.max(self.now().saturating_since(now))),
                    rest => rest,
                }
            } else if self.idle.all_idle() && self.all_is_attended() {
                Rest::UntilCalled
            } else {
                Rest::For(PERIOD)
            };
        }
    }

    fn rest_monitor(&self, rest: Rest) {
        let monitor = &self.monitor;
        if let Rest::For(time) = rest {
            monitor.alarm.set(Some(time));
            full_barrier();
        } else {
            let all_idle = self.idle.all_idle();
            monitor.alarm.set(if all_idle { None } else { Some(PERIOD) }); // M0
            // ordering: Relaxed, settled by the barrier (M1, M2).
            monitor.resting.store(true, Ordering::Relaxed);
            full_barrier();
            let nothing_to_do = self.all_is_attended() && (!all_idle || self.idle.all_idle()); // M3
            // ordering: AcqRel, as in `wake_if_resting`: whoever is first sets the alarm.
            if !nothing_to_do && monitor.resting.swap(false, Ordering::AcqRel) {
                monitor.alarm.set(Some(BUSY));
            }
        }
        if !self.is_closing() {
            monitor.alarm.wait();
        }
        // ordering: Relaxed, whoever takes it first has set the alarm, and there is one look more.
        monitor.resting.store(false, Ordering::Relaxed);
    }

    /// Whether whatever comes meets somebody who sees to it, who would wake the monitor in doing so.
    fn all_is_attended(&self) -> bool {
        let somebody_waits = self.work_is_visible() || self.blocking.wants_thread();
        !somebody_waits && self.idle.processors() > 0 && self.poller.is_attended()
    }

    /// Looks at the workers, and hands processors off.
    fn look_at_workers(self: &Arc<Self>, rounds: &mut Rounds, now: Tick) -> Rest {
        let survey = self.survey(rounds, now);
        // Whoever is between two pieces comes to the poller by himself.
        let poller_waits = !survey.somebody_moves && !self.poller.is_attended();
        let (mut handed_off, mut help_is_needed) = (false, false);
        for &Stuck { processor, lasted, waits, is_served } in &survey.stuck {
            let needed = waits || poller_waits && !handed_off;
            if !needed {
                continue;
            }
            if lasted >= self.handoff.on_cpu_after / 2 {
                rounds.watch.ask_to_yield(processor);
            }
            if self.idle.processors() > 0 {
                help_is_needed = true;
            } else if now >= rounds.no_thread_before && self.can_staff() {
                let is_served = is_served && self.processors[processor].next_due() > now;
                let may_not_compute = !is_served && (waits || self.somebody_needs_the_poller());
                handed_off |= self.judge_and_hand_off(rounds, processor, may_not_compute, now);
            }
        }
        if help_is_needed && now >= rounds.no_thread_before && self.idle.wants_worker() {
            let refused = self.counters.thread_failures.get();
            self.wake_one();
            self.note_refusal(rounds, refused, now);
        }
        if handed_off {
            rounds.last_handoff = now;
        }
        // A thread that has just fallen asleep, it seems: that is to be known soon. Not twice in a row without a
        // hand-off, or naps that are short would keep the monitor awake.
        let suspicious = survey.somebody_naps && !rounds.suspicious;
        rounds.suspicious = suspicious && !handed_off;
        let longest = self.longest(&survey, rounds.last_handoff, now);
        // ordering: Relaxed, the monitor alone writes it, and any value will do.
        self.monitor.soon.store(longest.min(BUSY).as_nanos() as u64, Ordering::Relaxed);
        rounds.interval = if handed_off { FAST } else { (rounds.interval * 2).min(longest) };
        if suspicious {
            Rest::For(FAST)
        } else if handed_off || survey.next_waits || !self.all_is_attended() {
            Rest::For(rounds.interval)
        } else {
            rounds.interval = BUSY;
            Rest::UntilCalled
        }
    }

    /// At most between two looks, after this one.
    fn longest(&self, survey: &Survey, last_handoff: Tick, now: Tick) -> Duration {
        match survey.all_compute_for {
            // What has computed for long will go on; but its slice is not to be longer by that.
            Some(time) => {
                let slice_left = self.handoff.on_cpu_after.saturating_sub(time);
                let longest = (time / 4).clamp(BUSY, CALM);
                if slice_left.is_zero() { longest } else { longest.min(slice_left.max(BUSY)) }
            }
            None => (now.saturating_since(last_handoff) / CALMER).clamp(ALERT, CALM),
        }
    }

    /// Whether there is a descriptor or a timer to wait for.
    fn somebody_needs_the_poller(&self) -> bool {
        self.next_due() != Tick::NEVER || self.poller.len() > 0
    }

    /// Sees what each worker does and whether something waits for it.
    fn survey(&self, rounds: &mut Rounds, now: Tick) -> Survey {
        let mut survey = Survey::default();
        let mut computing = Some(Duration::MAX);
        let seen = (self.global.taken(), self.poller.polls());
        let (taken, polled) = std::mem::replace(&mut rounds.looked_around, seen);
        let others_wait =
            self.global.len() > 0 && seen.0 == taken || !self.poller.is_attended() && seen.1 == polled;
        for (index, processor) in self.processors.iter().enumerate() {
            let core = processor.lock();
            let (owner, next_taken, stolen) = (core.owner, core.next.is_some(), core.counters.stolen);
            drop(core);
            let watch = &mut rounds.watch;
            let seat = owner.and_then(|owner| watch.seat(index, owner).or_else(|| self.threads.seat(owner)));
            let Some(seat) = seat else {
                watch.forget(index);
                continue;
            };
            if others_wait {
                processor.ask_to_look_around();
            }
            let waits = next_taken || self.something_waits_for(index, now);
            let clock = self.idle.processors() == 0 && (waits || !self.poller.is_attended());
            let seen = watch.see(index, seat, stolen, now, clock);
            survey.somebody_naps |= seen.naps;
            survey.next_waits |= next_taken;
            match seen.same {
                Some(lasted) => {
                    let is_served = seen.is_stolen_from;
                    survey.stuck.push(Stuck { processor: index, lasted, waits, is_served });
                }
                None => survey.somebody_moves = true,
            }
            computing =
                computing.filter(|_| seen.computes).zip(seen.same).map(|(least, time)| least.min(time));
        }
        survey.all_compute_for = computing.filter(|_| survey.stuck.len() == self.processors.len());
        survey
    }

    /// Hands a processor off if its worker sleeps or, where it may not, has computed for too long: that is where somebody
    /// certainly waits, whom nobody else serves. (A task that spawns for long beside a worker that runs what it spawns
    /// would only be slowed down.)
    fn judge_and_hand_off(
        self: &Arc<Self>,
        rounds: &mut Rounds,
        index: usize,
        may_not_compute: bool,
        now: Tick,
    ) -> bool {
        let Some((seat, stuck)) = rounds.watch.judge(index, &self.handoff, now) else { return false };
        if stuck.cause == HandoffCause::OnCpu && !may_not_compute {
            return false;
        }
        let refused = self.counters.thread_failures.get();
        let handed_off = self.hand_off(&seat, &stuck);
        if handed_off {
            if stuck.cause == HandoffCause::Declared {
                self.regions.record(Regions::LONG);
            }
            rounds.watch.was_taken(seat, &stuck);
        }
        self.note_refusal(rounds, refused, now);
        handed_off
    }

    /// If the system has refused a thread since there were so many failures, none is asked for for a while.
    fn note_refusal(&self, rounds: &mut Rounds, before: u64, now: Tick) {
        if self.counters.thread_failures.get() != before {
            rounds.no_thread_before = now.saturating_add(PERIOD);
        }
    }

    /// Whether something waits, beside what is in the `next` slot, for a processor whose worker is stuck in user code.
    fn something_waits_for(&self, index: usize, now: Tick) -> bool {
        let processor = &self.processors[index];
        processor.queue_len() > 0 || self.global.len() > 0 || processor.next_due() <= now
    }

    /// Looks after what others should have seen to.
    fn look_after(self: &Arc<Self>, look: &mut Look) {
        let asked = self.poller.polls();
        let unattended = !self.poller.is_attended() && asked == look.poller_polls;
        look.poller_polls = asked;
        let polls: Vec<u64> = self.processors.iter().map(|processor| processor.polls()).collect();
        let before = std::mem::replace(&mut look.polls, polls);

        if let Some(wakers) = look.wakers.take() {
            // Nobody has come for them: every processor is stuck, and perhaps waits for one of these.
            wakers.call();
        }
        let next_timer = self.next_due();
        let overdue = next_timer.saturating_add(PERIOD) < self.now();
        if self.idle.processors() == 0 {
            look.left_over.clear();
            // All are at work. Who waits for a descriptor should not wait for the longest of them; nor who waits for a
            // timer, where no processor can be handed off.
            let is_stuck_for_good =
                next_timer.saturating_add(STUCK) < self.now() && !(self.handoff.enabled && self.can_staff());
            if unattended || is_stuck_for_good {
                look.wakers = self.attend_from_outside(is_stuck_for_good);
            }
            return;
        }
        let overslept = overdue && self.poller.sits_until().is_some_and(|until| until > next_timer);
        let taken = self.left_over();
        let left_over = taken.iter().zip(&look.left_over).any(|(now, then)| now.is_some() && now == then);
        look.left_over = taken;
        let stuck = self.processors.iter().zip(&look.polls).enumerate().any(|(index, (processor, polls))| {
            before.get(index) == Some(polls) && processor.lock().next.is_some()
        });
        let refused = self.counters.thread_failures.get();
        if (unattended || overdue || left_over || stuck || look.in_need) && self.idle.wants_worker() {
            if left_over || overslept {
                self.counters.rescues.add_one();
            }
            self.wake_one();
        }
        let none_to_be_had = self.counters.thread_failures.get() != refused || !self.threads.has_room();
        look.in_need = none_to_be_had && self.nobody_comes() && self.idle.sleepers() == 0;
        if look.in_need {
            // Perhaps they wait for just this. A waker that blocks does no more harm here than it would have done anyway.
            self.attend(true).into_iter().for_each(wake);
        }
    }

    /// Whether a processor is idle and no thread is on its way to it. One that is awake without a processor looks before it
    /// sleeps, if the system lets it run at last.
    fn nobody_comes(&self) -> bool {
        let busy = self.processors.len() - self.idle.processors();
        self.idle.wants_worker() && self.threads.available() <= busy + self.idle.sleepers()
    }

    /// Of each queue how many tasks have been taken from it, if it has tasks that nobody comes for.
    fn left_over(&self) -> Vec<Option<u64>> {
        let nobody_comes = self.nobody_comes();
        let local = self.processors.iter().map(|processor| {
            let counters = processor.lock().counters;
            (processor.queue_len() > 0 && nobody_comes).then_some(counters.polls + counters.stolen)
        });
        let global = (self.global.len() > 0 && nobody_comes).then(|| self.global.taken());
        local.chain([global]).collect()
    }

    /// Does what a worker would do that sits in the poller; what it wakes goes to the global queue, behind the wakers
    /// themselves, which are a task.
    pub(super) fn attend_from_outside(self: &Arc<Self>, fires: bool) -> Option<Arc<Wakers>> {
        let wakers = self.attend(fires);
        if wakers.is_empty() {
            return None;
        }
        let wakers = Arc::new(Wakers(RankedMutex::new(Rank::Wakers, wakers)));
        self.schedule_global(Arc::clone(&wakers) as TaskRef);
        Some(wakers)
    }

    /// Looks at the poller without waiting, and takes what is due on any processor, if it `fires` at all.
    fn attend(self: &Arc<Self>, fires: bool) -> Vec<Waker> {
        let mut wakers = Vec::new();
        if let Some(mut turn) = self.poller.try_turn() {
            // An error is the next worker's to meet: it polls in earnest.
            let _ = turn.poll_now(&mut wakers);
        }
        // A worker that went to sleep meanwhile has found the turn taken (README, P).
        full_barrier();
        if self.idle.wants_worker() && !self.poller.is_attended() {
            self.wake_one();
        }
        let mut due = Vec::new();
        for processor in (0..self.processors.len()).filter(|_| fires) {
            self.take_due(processor, &mut due);
        }
        wakers.extend(due.into_iter().map(|due| due.waker));
        wakers
    }
}

/// Wakers on their way to a worker: they are user code, which may block, and the monitor must not. Whoever comes first
/// calls them.
pub(super) struct Wakers(RankedMutex<Vec<Waker>>);

impl Wakers {
    fn call(&self) {
        let wakers = std::mem::take(&mut *self.0.lock());
        wakers.into_iter().for_each(wake);
    }
}

impl Runnable for Wakers {
    fn run(self: Arc<Self>) -> Option<TaskRef> {
        // In their order, as a worker calls them between two polls.
        let token = current::replace_place(Place::Due);
        self.call();
        current::set_token(token);
        None
    }

    fn cancel(self: Arc<Self>) {
        self.call();
    }

    fn identity(&self) -> Identity {
        Identity::NONE
    }
}
