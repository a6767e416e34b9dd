//! Models of the readiness protocol and of deadlines that are moved while their timer goes off.
//!
//! Each has a canary: the same model with one step in the wrong place, which has to fail.

use std::sync::Arc;
use std::task::Wake;

use loom::thread;

use super::Direction::Read;
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
        timed.source.close(&mut Vec::new(), &mut Vec::new());
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

/// A side with a deadline, a processor's timer store, and a task that waits.
struct Timed {
    source: Arc<Source>,
    store: RankedMutex<Timers>,
    woken: AtomicUsize,
    /// The last setting, stored under the side's lock.
    last: AtomicU64,
}

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

    /// Operates the timer, as the layer above does under the side's lock. Whom the timer wakes is known without a waker.
    fn arm(&self, side: &mut LockedSide<'_>, action: TimerAction) {
        let (TimerAction::Arm(at) | TimerAction::Earlier(at)) = action else { return };
        let mut store = self.store.lock();
        if side.timer().is_some_and(|id| store.reset(id.key, at).is_some()) {
            return;
        }
        let (key, _) = store.insert(at, at, Waker::noop().clone());
        *side.timer() = Some(timers::Id { store: 0, key });
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

    /// What a worker does that finds due timers: takes them out, unlocks, calls.
    fn run_timers(&self, now: u64) {
        self.take_and_call(now, false);
    }

    /// With `lock_is_kept`, it does not unlock: the mistake of Go's issue 35532.
    fn take_and_call(&self, now: u64, lock_is_kept: bool) {
        let mut due = Vec::new();
        let mut store = self.store.lock();
        assert!(!store.take_due(tick(now), 8, &mut due), "more timers than one side has");
        let kept = lock_is_kept.then_some(store);
        due.iter().for_each(|_| self.fired(now));
        drop(kept);
    }

    fn fired(&self, now: u64) {
        let mut wakers = Vec::new();
        {
            let mut side = self.source.lock(Read);
            if let Fired::Rearm(at) = side.timer_fired(tick(now), &mut wakers) {
                self.arm(&mut side, TimerAction::Arm(at));
            }
        }
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
        matches!(self.source.attempt(Read), Err(Refused::Expired))
    }
}

/// A task waits with a deadline of 10, the clock shows 10, and while one thread runs the timers another, which
/// read the clock at `now`, moves the deadline to `at`.
fn moved_while_it_fires(now: u64, at: Option<u64>, lock_is_kept: bool) {
    loom::model(move || {
        let timed = Timed::new();
        timed.source.not_ready(Read, timed.source.attempt(Read).unwrap());
        timed.set(0, Some(10));
        timed.wait();
        let other = thread::spawn({
            let timed = Arc::clone(&timed);
            move || timed.set(now, at)
        });
        timed.take_and_call(10, lock_is_kept);
        other.join().unwrap();
        // Whatever came first, and whatever is still armed: what counts now is the new setting alone.
        timed.run_timers(10);
        assert_eq!(timed.expired(), at.is_some_and(|at| at <= 10));
        let before = timed.woken.load(Ordering::Relaxed);
        if timed.expired() {
            assert_eq!(before, 1);
        } else {
            // One that was woken by the former deadline waits again, the other still does.
            timed.wait();
            timed.run_timers(19);
            assert_eq!(timed.woken.load(Ordering::Relaxed), before, "woken early");
            timed.run_timers(20);
            assert_eq!(timed.expired(), at.is_some(), "the new deadline is missed");
            let woken = timed.woken.load(Ordering::Relaxed);
            assert_eq!(woken, before + usize::from(at.is_some()));
        }
        // Break the circle of the wakers that are still registered.
        timed.source.close(&mut Vec::new(), &mut Vec::new());
    });
}

#[test]
fn loom_a_deadline_moved_later_exactly_when_its_timer_fires() {
    moved_while_it_fires(9, Some(20), false);
}

#[test]
fn loom_a_deadline_cleared_exactly_when_its_timer_fires() {
    moved_while_it_fires(9, None, false);
}

#[test]
fn loom_a_deadline_moved_earlier_exactly_when_its_timer_fires() {
    moved_while_it_fires(8, Some(9), false);
}

#[test]
#[should_panic(expected = "lock order: Side is taken")]
fn loom_canary_a_deadlines_timer_called_with_the_store_locked_is_seen() {
    moved_while_it_fires(9, Some(20), true);
}

/// Two threads set deadlines for the same side; the last one holds, whichever it is.
fn two_setters(right: bool) {
    loom::model(move || {
        let timed = Timed::new();
        let other = thread::spawn({
            let timed = Arc::clone(&timed);
            move || timed.set_in_order(0, Some(20), right)
        });
        timed.set_in_order(0, Some(10), right);
        other.join().unwrap();
        let last = timed.last.load(Ordering::Relaxed);
        timed.run_timers(last - 1);
        assert!(!timed.expired(), "it passed early");
        timed.run_timers(last);
        assert!(timed.expired(), "it is missed");
    });
}

#[test]
fn loom_of_two_deadlines_set_at_once_the_last_holds_and_its_timer_is_armed() {
    two_setters(true);
}

#[test]
#[should_panic(expected = "it is missed")]
fn loom_canary_a_timer_operated_after_the_side_is_unlocked_is_armed_too_late() {
    two_setters(false);
}
