//! Models of the readiness protocol and of pauses, and what those of deadlines, beside this, are made of.
//!
//! Each has a canary: the same model with one step in the wrong place, which has to fail.

mod deadline_tests;

use std::sync::Arc;
use std::task::Wake;

use loom::thread;

use super::Direction::{Read, Write};
use super::*;
use crate::base::park::Parker;
use crate::base::primitive::Mutex;
use crate::base::primitive::atomic::AtomicUsize;
use crate::timers::Timers;

struct Unpark(Parker);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        assert_unlocked("call a waker");
        self.0.unpark();
    }
}

fn source() -> Arc<Source> {
    Arc::new(Source::new(Key::new(0, 0)))
}

fn tick(n: u64) -> Tick {
    Tick::from_nanos(n)
}

/// A descriptor as the kernel has it: how many bytes there are.
struct Kernel {
    bytes: Mutex<usize>,
}

impl Kernel {
    fn write(&self, source: &Source) {
        *self.bytes.lock().unwrap() += 1;
        let mut wakers = Vec::new();
        source.deliver(Event { token: 0, read: Some(Edge::Ready), write: None }, &mut wakers);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Takes one byte; false is EAGAIN.
    fn read(&self) -> bool {
        let mut bytes = self.bytes.lock().unwrap();
        let some = *bytes > 0;
        *bytes -= usize::from(some);
        some
    }
}

/// Reads one byte, going round the loop of the protocol.
fn read(source: &Source, kernel: &Kernel) {
    let unpark = Arc::new(Unpark(Parker::new()));
    let waker = Waker::from(Arc::clone(&unpark));
    let mut id = None;
    loop {
        if let Ok(attempt) = source.attempt(Read) {
            if kernel.read() {
                return;
            }
            source.not_ready(Read, attempt);
        }
        if source.poll_wait(Read, &mut id, &Context::from_waker(&waker)).is_pending() {
            unpark.0.park();
        }
    }
}

fn edge_model(readers: usize) {
    loom::model(move || {
        let (source, kernel) = (source(), Arc::new(Kernel { bytes: Mutex::new(0) }));
        let readers: Vec<_> = (0..readers)
            .map(|_| {
                let (source, kernel) = (Arc::clone(&source), Arc::clone(&kernel));
                thread::spawn(move || read(&source, &kernel))
            })
            .collect();
        for _ in 0..readers.len() {
            kernel.write(&source);
        }
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn loom_an_edge_between_the_system_call_and_the_registration_is_not_lost() {
    edge_model(1);
}

#[test]
fn loom_two_readers_of_one_side_both_get_their_byte() {
    edge_model(2);
}

/// One pass through the loop against one byte; instead of sleeping, looks whether it would have been woken.
fn one_pass(ticket_too_late: bool) {
    loom::model(move || {
        let (timed, kernel) = (Timed::new(), Arc::new(Kernel { bytes: Mutex::new(0) }));
        let writer = thread::spawn({
            let (timed, kernel) = (Arc::clone(&timed), Arc::clone(&kernel));
            move || kernel.write(&timed.source)
        });
        let mut attempt = timed.source.attempt(Read).unwrap();
        let mut pending = false;
        if !kernel.read() {
            if ticket_too_late {
                // Under the lock, because loom does not try this load alone on both sides of the edge.
                attempt = timed.source.lock(Read).word().check().unwrap();
            }
            timed.source.not_ready(Read, attempt);
            pending = timed.poll_wait().is_pending();
        }
        writer.join().unwrap();
        let woken = timed.woken.load(Ordering::Relaxed) == 1;
        timed.source.close(&mut Vec::new());
        assert_eq!(pending, woken, "the edge is lost");
    });
}

#[test]
fn loom_whoever_is_told_to_wait_is_woken_by_the_edge() {
    one_pass(false);
}

#[test]
#[should_panic(expected = "the edge is lost")]
fn loom_canary_a_ticket_taken_after_the_system_call_loses_an_edge() {
    one_pass(true);
}

/// A descriptor with deadlines, a processor's timer store, and a task that waits to read.
struct Timed {
    source: Arc<Source>,
    store: RankedMutex<Timers>,
    woken: AtomicUsize,
    /// The last setting, stored under the side's lock.
    last: AtomicU64,
}

/// The order in which the layer above sets and expires the two sides.
const BOTH: [Direction; 2] = [Write, Read];

struct Woken(Arc<Timed>);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        assert_unlocked("call a waker");
        self.0.woken.fetch_add(1, Ordering::Relaxed);
    }
}

impl Timed {
    fn new() -> Arc<Timed> {
        Arc::new(Timed {
            source: source(),
            store: RankedMutex::new(Rank::Core, Timers::new()),
            woken: AtomicUsize::new(0),
            last: AtomicU64::new(0),
        })
    }

    /// With nothing to read, so that a reader waits.
    fn unready() -> Arc<Timed> {
        let timed = Timed::new();
        timed.source.not_ready(Read, timed.source.attempt(Read).unwrap());
        timed
    }

    /// Operates the timer, as the layer above does under the side's lock.
    fn arm(&self, side: &mut LockedSide<'_>, action: TimerAction) {
        let (TimerAction::Arm(at) | TimerAction::Earlier(at)) = action else { return };
        let mut store = self.store.lock();
        if side.timer().is_some_and(|id| store.reset(id.key, at).is_some()) {
            return;
        }
        let (key, _) = store.insert(at, at, Waker::noop().clone());
        *side.timer() = Some(timers::Id::new(0, key));
    }

    fn set(&self, now: u64, at: Option<u64>) {
        self.set_in_order(now, at, true);
    }

    /// With `right`, the timer is operated before the side is unlocked.
    fn set_in_order(&self, now: u64, at: Option<u64>, right: bool) {
        let mut wakers = Vec::new();
        let action = {
            let mut side = self.source.lock(Read);
            let action = side.set_deadline(tick(now), at.map(tick), &mut wakers).unwrap();
            self.last.store(at.unwrap_or(0), Ordering::Relaxed);
            if right {
                self.arm(&mut side, action);
            }
            action
        };
        if !right {
            self.arm(&mut self.source.lock(Read), action);
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Sets both sides, and wakes only then. `Closed` if one was.
    fn set_both(&self, now: u64, at: u64, order: [Direction; 2]) -> Result<(), Refused> {
        self.set_sides(now, order.map(|direction| (direction, at)))
    }

    /// As [`set_both`](Timed::set_both), each to a time of its own.
    fn set_sides(&self, now: u64, sides: [(Direction, u64); 2]) -> Result<(), Refused> {
        let mut wakers = Vec::new();
        let result = sides.into_iter().try_for_each(|(direction, at)| {
            let mut side = self.source.lock(direction);
            let action = side.set_deadline(tick(now), Some(tick(at)), &mut wakers)?;
            self.arm(&mut side, action);
            Ok(())
        });
        wakers.into_iter().for_each(Waker::wake);
        result
    }

    /// What a worker does that finds due timers: takes them out, unlocks, calls.
    fn run_timers(&self, now: u64) {
        self.take_and_call(now, BOTH, false);
    }

    /// With `lock_is_kept`, it does not unlock: the mistake of Go's issue 35532.
    fn take_and_call(&self, now: u64, order: [Direction; 2], lock_is_kept: bool) {
        let mut due = Vec::new();
        let mut store = self.store.lock();
        assert!(!store.take_due(tick(now), 8, &mut due), "more timers than two sides have");
        let kept = lock_is_kept.then_some(store);
        for _ in &due {
            self.fired(now, order);
        }
        drop(kept);
    }

    /// One timer went off; which side's does not matter.
    fn fired(&self, now: u64, order: [Direction; 2]) {
        let mut wakers = Vec::new();
        for direction in order {
            let mut side = self.source.lock(direction);
            if let Fired::Rearm(at) = side.timer_fired(tick(now), &mut wakers) {
                self.arm(&mut side, TimerAction::Arm(at));
            }
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// With `right`, nothing can be armed any more when the timers are taken away.
    fn close(&self, right: bool) {
        let mut wakers = Vec::new();
        if right {
            self.source.close(&mut wakers);
        }
        for direction in BOTH {
            let id = self.source.lock(direction).take_timer();
            drop(id.and_then(|id| self.store.lock().remove(id.key)));
        }
        self.source.close(&mut wakers);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn poll_wait(self: &Arc<Self>) -> Poll<Result<(), Refused>> {
        let waker = Waker::from(Arc::new(Woken(Arc::clone(self))));
        self.source.poll_wait(Read, &mut Some(WaiterId::SHARED), &Context::from_waker(&waker))
    }

    /// Registers a task that waits; the side must have nothing for it.
    fn wait(self: &Arc<Self>) {
        assert!(self.poll_wait().is_pending());
    }

    fn expired(&self) -> bool {
        self.has_expired(Read)
    }

    fn has_expired(&self, direction: Direction) -> bool {
        matches!(self.source.attempt(direction), Err(Refused::Expired))
    }
}

/// A call has failed and its side pauses, while an edge comes and the timer that ends the pause may go off at once.
/// Instead of sleeping, looks whether it would have been woken. With `right`, the timer is armed, which means that it
/// may go off, and the pause begun under one lock.
fn paused(right: bool) {
    loom::model(move || {
        let (timed, kernel) = (Timed::new(), Arc::new(Kernel { bytes: Mutex::new(0) }));
        let writer = thread::spawn({
            let timed = Arc::clone(&timed);
            move || kernel.write(&timed.source)
        });
        let timer = {
            let timed = Arc::clone(&timed);
            move || {
                let mut wakers = Vec::new();
                timed.source.lock(Read).resume(&mut wakers);
                wakers.into_iter().for_each(Waker::wake);
            }
        };
        let timer = if right {
            let mut side = timed.source.lock(Read);
            let timer = thread::spawn(timer);
            side.pause();
            timer
        } else {
            let timer = thread::spawn(timer);
            timed.source.lock(Read).pause();
            timer
        };
        let pending = timed.poll_wait().is_pending();
        writer.join().unwrap();
        timer.join().unwrap();
        let woken = timed.woken.load(Ordering::Relaxed) == 1;
        timed.source.close(&mut Vec::new());
        assert_eq!(pending, woken, "nobody ends the pause");
    });
}

#[test]
fn loom_whoever_waits_in_a_pause_is_woken_at_its_end() {
    paused(true);
}

#[test]
#[should_panic(expected = "nobody ends the pause")]
fn loom_canary_a_pause_that_begins_after_its_timer_is_armed_may_not_end() {
    paused(false);
}

/// Nothing was ready when the side began to pause, and an edge comes while the pause ends and a task is about to wait.
/// `right`: the end of the pause wakes.
fn edge_at_the_end_of_a_pause(right: bool) {
    loom::model(move || {
        let (timed, kernel) = (Timed::unready(), Kernel { bytes: Mutex::new(0) });
        timed.source.lock(Read).pause();
        let writer = thread::spawn({
            let timed = Arc::clone(&timed);
            move || kernel.write(&timed.source)
        });
        let timer = thread::spawn({
            let timed = Arc::clone(&timed);
            move || {
                let mut wakers = Vec::new();
                timed.source.lock(Read).resume(&mut wakers);
                if right {
                    wakers.into_iter().for_each(Waker::wake);
                }
            }
        });
        let pending = timed.poll_wait().is_pending();
        writer.join().unwrap();
        timer.join().unwrap();
        let woken = timed.woken.load(Ordering::Relaxed) == 1;
        timed.source.attempt(Read).expect("there is something, and no pause any more");
        timed.close(true);
        assert_eq!(pending, woken, "the edge is lost");
    });
}

#[test]
fn loom_an_edge_at_the_end_of_a_pause_is_not_lost() {
    edge_at_the_end_of_a_pause(true);
}

#[test]
#[should_panic(expected = "the edge is lost")]
fn loom_canary_a_pause_that_ends_in_silence_loses_an_edge() {
    edge_at_the_end_of_a_pause(false);
}
