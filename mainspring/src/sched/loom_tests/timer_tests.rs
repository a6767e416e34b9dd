//! Models of timers on processors: an earlier one against the thread that sits in the poller, and firing
//! against the loss of the processor.

use super::*;
use crate::sched::handoff::release_processor;
use crate::timers::Earliest;

#[test]
fn loom_a_timer_armed_earlier_than_the_one_the_sitter_sits_for_is_fired() {
    check("an earlier timer", || {
        let (scheduler, _) = scheduler(1);
        let tally = Tally::new();
        let now = scheduler.now();
        let (later, _) = scheduler
            .arm(scheduler.now(), now.saturating_add(Duration::from_secs(1)), Waker::noop().clone())
            .unwrap();
        let threads = start_workers(&scheduler, 1);
        let (_, earliest) =
            scheduler.arm(scheduler.now(), now, Waker::from(Arc::new(Count(Arc::clone(&tally))))).unwrap();
        scheduler.announce_timer(earliest);
        tally.wait_for(1);
        drop(scheduler.cancel_timer(later));
        finish(&scheduler, threads);
    });
}

/// What the sitter or the armer of the following model leaves out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Omission {
    Nothing,
    /// The armer's announcement, T1.
    Announcement,
    /// The armer's barrier, T1.
    Barrier,
    /// The sitter's second look, S4.
    Look,
}

/// The steps of `Worker::sit` and of who arms a timer, and nothing else. Instead of sleeping the sitter waits for
/// the armer, and looks whether it would have been woken: loom cannot unwind from a deadlock.
fn sits_while_an_earlier_timer_is_armed(omission: Omission) {
    check_with_preemptions(4, &format!("bare sitter: without {omission:?}"), move || {
        let (scheduler, readiness) = scheduler(1);
        let _driver = Driver::new(&scheduler);
        let after = |secs| scheduler.now().saturating_add(Duration::from_secs(secs));
        let (earlier, later) = (after(1), after(2));
        let _ = scheduler.arm(scheduler.now(), later, Waker::noop().clone()).unwrap();
        let armer = thread::spawn({
            let scheduler = Arc::clone(&scheduler);
            move || match scheduler.arm(scheduler.now(), earlier, Waker::noop().clone()).unwrap().1 {
                Earliest::Moved(at) if omission == Omission::Barrier => {
                    scheduler.poller.interrupt_if_after(at);
                }
                _ if omission == Omission::Announcement => {}
                earliest => scheduler.announce_timer(earliest),
            }
        });
        let mut turn = scheduler.poller.try_turn().expect("nobody else polls");
        let (until, _) = scheduler.settle_next_due();
        let announced = turn.announce(until);
        let sees = omission != Omission::Look && scheduler.next_due() < until;
        armer.join().unwrap();
        announced.withdraw();
        drop(turn);
        let woken = readiness.state.lock().unwrap().interrupted;
        assert!(until == earlier || sees || woken, "a timer is overslept");
    });
}

#[test]
fn loom_who_sits_in_the_poller_sees_an_earlier_timer_or_is_woken() {
    sits_while_an_earlier_timer_is_armed(Omission::Nothing);
}

#[test]
#[should_panic(expected = "a timer is overslept")]
fn loom_canary_an_earlier_timer_that_is_not_announced_is_overslept() {
    sits_while_an_earlier_timer_is_armed(Omission::Announcement);
}

#[test]
#[should_panic(expected = "a timer is overslept")]
fn loom_canary_an_earlier_timer_announced_without_a_barrier_is_overslept() {
    sits_while_an_earlier_timer_is_armed(Omission::Barrier);
}

#[test]
#[should_panic(expected = "a timer is overslept")]
fn loom_canary_a_sitter_that_does_not_look_again_oversleeps_an_earlier_timer() {
    sits_while_an_earlier_timer_is_armed(Omission::Look);
}

/// A waker that gives its thread's processor away, arms another timer there, and blocks until somebody has
/// fired that one.
struct BlocksOnATimer(Arc<Scheduler>, Arc<Tally>);

impl Wake for BlocksOnATimer {
    fn wake(self: Arc<Self>) {
        let scheduler = &self.0;
        release_processor();
        let inner = Tally::new();
        let waker = Waker::from(Arc::new(Count(Arc::clone(&inner))));
        let (_, earliest) = scheduler.arm(scheduler.now(), scheduler.now(), waker).unwrap();
        scheduler.announce_timer(earliest);
        inner.wait_for(1);
        assert_eq!(inner.count.load(Ordering::Acquire), 1);
        self.1.count.fetch_add(1, Ordering::AcqRel);
        self.1.parker.unpark();
    }
}

#[test]
fn loom_a_waker_that_blocks_leaves_the_timers_of_its_processor_to_another_worker() {
    check("a waker that blocks on a timer of its own processor", || {
        let (scheduler, _) = scheduler(1);
        let tally = Tally::new();
        let blocks = Waker::from(Arc::new(BlocksOnATimer(Arc::clone(&scheduler), Arc::clone(&tally))));
        let count = Waker::from(Arc::new(Count(Arc::clone(&tally))));
        // One batch: what is behind the one that blocks is in its worker's hands.
        for waker in [blocks, count] {
            let _ = scheduler.arm(scheduler.now(), scheduler.now(), waker).unwrap();
        }
        let threads = start_workers(&scheduler, 2);
        tally.wait_for(2);
        finish(&scheduler, threads);
        assert_eq!(tally.count.load(Ordering::Acquire), 2);
        assert_eq!(scheduler.metrics().timers_fired, 3);
    });
}

/// A waker that queues a job, as those of tasks and timer functions do.
struct Queues(Arc<Scheduler>, Arc<Tally>);

impl Wake for Queues {
    fn wake(self: Arc<Self>) {
        self.0.schedule(Arc::new(Job(Arc::clone(&self.1))));
    }
}

/// While a worker fires what is due on its processor, another one takes the processor over, at any moment, and fires
/// in its turn.
#[test]
fn loom_a_processor_taken_over_while_its_timers_fire_loses_none_and_fires_none_twice() {
    check_with_preemptions(4, "a processor taken over while its timers fire", || {
        let (scheduler, _) = scheduler(1);
        let (former, tallies) = (Driver::new(&scheduler), [Tally::new(), Tally::new()]);
        let seat = scheduler.threads.new_seat(usize::MAX).unwrap();
        let later = Driver { scheduler: Arc::clone(&scheduler), seat, processor: former.processor };
        let _entered = current::enter(Arc::clone(&scheduler));
        let mut worker = former.worker();
        assert_eq!(worker.step(), Step::Sleep, "nothing is due yet");
        let due = scheduler.now().saturating_add(Duration::from_secs(1));
        let queues = Arc::new(Queues(Arc::clone(&scheduler), Arc::clone(&tallies[0])));
        let count = Arc::new(Count(Arc::clone(&tallies[1])));
        for waker in [Waker::from(queues), Waker::from(count)] {
            let _ = scheduler.arm(scheduler.now(), due, waker).unwrap();
        }
        advance(&scheduler, Duration::from_secs(1));
        let other = thread::spawn(move || {
            let mut core = later.scheduler.processors[later.processor].lock();
            core.owner = None;
            core.demote_next();
            drop(core);
            later.run();
            later
        });
        while worker.step() == Step::Ran {}
        former.leave(worker);
        // What was queued after the other one had looked.
        other.join().unwrap().run();
        assert_eq!(tallies.map(|tally| tally.count.load(Ordering::Acquire)), [1, 1]);
        assert_eq!(scheduler.metrics().timers_pending, 0);
    });
}
