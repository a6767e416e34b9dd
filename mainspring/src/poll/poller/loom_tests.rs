//! Models of the protocol that ends a wait, on a backend made of a mutex and a condition variable.
//!
//! The canaries are the same model with one step left out or in the wrong place; they have to fail.

use std::os::fd::AsFd as _;

use loom::thread;

use super::*;
use crate::base::primitive::atomic::AtomicUsize;
use crate::base::primitive::{Condvar, Mutex};
use crate::poll::backend::Edge;
use crate::poll::source::Direction;

/// Has no descriptors; waits until it is interrupted, or not at all.
#[derive(Debug)]
struct Fake(Arc<Flag>);

/// Whether there is an interrupt that no wait has taken.
type Flag = (Mutex<bool>, Condvar);

impl Backend for Fake {
    fn add(&self, _: BorrowedFd<'_>, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }

    fn wait(&self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        events.clear();
        let mut interrupted = self.0.0.lock().unwrap();
        while timeout.is_none() && !*interrupted {
            interrupted = self.0.1.wait(interrupted).unwrap();
        }
        *interrupted = false;
        Ok(())
    }

    fn interrupt(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_one();
    }
}

/// A poller and the work that its sleeper is waiting for.
struct World {
    poller: Poller,
    /// How much was published in all. Relaxed throughout: the barriers alone have to do it.
    work: AtomicUsize,
}

/// Which step is wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// The publisher leaves out P2.
    NoBarrier,
    /// The sleeper makes S3 before S1.
    LooksBeforeItAnnounces,
}

impl World {
    fn new() -> Arc<World> {
        World::with_flag().0
    }

    fn with_flag() -> (Arc<World>, Arc<Flag>) {
        let flag = Arc::new((Mutex::new(false), Condvar::new()));
        let poller = Poller::with_backend(Box::new(Fake(Arc::clone(&flag))));
        (Arc::new(World { poller, work: AtomicUsize::new(0) }), flag)
    }

    fn publish(&self, fault: Fault) {
        self.work.fetch_add(1, Ordering::Relaxed);
        if fault != Fault::NoBarrier {
            full_barrier();
        }
        self.poller.interrupt_if_after(Tick::from_nanos(0));
    }

    fn work(&self) -> usize {
        self.work.load(Ordering::Relaxed)
    }

    /// Sleeps in the poller until `amount` was published.
    fn sleep(&self, amount: usize) {
        let mut seen = 0;
        while seen < amount {
            let Some(mut turn) = self.poller.try_turn() else {
                thread::yield_now();
                continue;
            };
            let announced = turn.announce(Tick::NEVER);
            let now = self.work();
            if now == seen {
                announced.wait(None, &mut Vec::new()).unwrap();
            } else {
                announced.withdraw();
                seen = now;
            }
        }
    }
}

/// Each publisher has one piece of work. The main thread sleeps until it has seen all; a wake-up that
/// is lost is a deadlock, which loom reports.
fn model(publishers: usize) {
    loom::model(move || {
        let world = World::new();
        let publishers: Vec<_> = (0..publishers)
            .map(|_| {
                let world = Arc::clone(&world);
                thread::spawn(move || world.publish(Fault::None))
            })
            .collect();
        world.sleep(publishers.len());
        for publisher in publishers {
            publisher.join().unwrap();
        }
        assert!(world.poller.counters().interrupts <= 2);
    });
}

/// Goes to sleep once, and instead of sleeping looks whether it would have been woken: loom cannot
/// unwind from a deadlock, so the canaries must not make one.
fn one_round(fault: Fault) {
    loom::model(move || {
        let (world, interrupted) = World::with_flag();
        let publisher = thread::spawn({
            let world = Arc::clone(&world);
            move || world.publish(fault)
        });
        let mut turn = world.poller.try_turn().unwrap();
        let before = world.work();
        let announced = turn.announce(Tick::NEVER);
        let found = if fault == Fault::LooksBeforeItAnnounces { before } else { world.work() };
        publisher.join().unwrap();
        let woken = *interrupted.0.lock().unwrap();
        announced.withdraw();
        drop(turn);
        assert!(found > 0 || woken, "a wake-up is lost");
    });
}

#[test]
fn loom_work_published_while_a_thread_goes_to_sleep_in_the_poller_wakes_it() {
    model(1);
}

#[test]
fn loom_of_two_publishers_neither_is_overheard() {
    model(2);
}

#[test]
fn loom_a_thread_that_polls_without_waiting_takes_nobody_elses_interrupt() {
    loom::model(|| {
        let world = World::new();
        let publisher = thread::spawn({
            let world = Arc::clone(&world);
            move || world.publish(Fault::None)
        });
        let monitor = thread::spawn({
            let world = Arc::clone(&world);
            move || {
                if let Some(mut turn) = world.poller.try_turn() {
                    turn.poll_now(&mut Vec::new()).unwrap();
                }
            }
        });
        world.sleep(1);
        publisher.join().unwrap();
        monitor.join().unwrap();
    });
}

#[test]
fn loom_without_a_fault_the_canaries_model_passes() {
    one_round(Fault::None);
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn loom_canary_without_the_publishers_barrier_a_wake_up_is_lost() {
    one_round(Fault::NoBarrier);
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn loom_canary_looking_before_announcing_loses_a_wake_up() {
    one_round(Fault::LooksBeforeItAnnounces);
}

/// The descriptor's place in the table is used again while an event for the old one is on its way: what was read from the
/// kernel before it was deregistered may be delivered before, in between, or after. `right`: the event
/// names the use of the place, not only the place.
fn place_used_again(right: bool) {
    loom::model(move || {
        let (world, _) = World::with_flag();
        // The fake backend asks nothing of the descriptor.
        let fd = std::io::stdin();
        let old = world.poller.register(fd.as_fd()).unwrap();
        let event = Event { token: old.key().to_u64(), read: Some(Edge::Last), write: Some(Edge::Ready) };
        let deliverer = thread::spawn({
            let world = Arc::clone(&world);
            move || {
                let event =
                    if right { event } else { Event { token: world.key_in_use(event.token), ..event } };
                let mut wakers = Vec::new();
                world.poller.deliver(&[event], &mut wakers);
                assert!(wakers.is_empty(), "nobody waits");
            }
        });
        world.poller.deregister(&old, fd.as_fd(), &mut Vec::new()).unwrap();
        let new = world.poller.register(fd.as_fd()).unwrap();
        assert_eq!(new.key().index(), old.key().index(), "the place is used again");
        for direction in [Direction::Read, Direction::Write] {
            new.not_ready(direction, new.attempt(direction).unwrap());
        }
        deliverer.join().unwrap();
        for direction in [Direction::Read, Direction::Write] {
            let ready = new.attempt(direction).is_ok();
            assert!(!ready, "an event of the old descriptor has reached the new one");
        }
        assert_eq!(old.attempt(Direction::Read).unwrap_err(), Refused::Closed);
    });
}

impl World {
    /// What a table without generations would take a token for.
    fn key_in_use(&self, token: u64) -> u64 {
        let table = self.poller.table.lock();
        let index = Key::from_u64(token).index();
        let found = table.sources.iter().flatten().find(|source| source.key().index() == index);
        found.map_or(token, |source| source.key().to_u64())
    }
}

#[test]
fn loom_an_event_that_comes_late_does_not_reach_the_descriptor_that_has_the_place_now() {
    place_used_again(true);
}

#[test]
#[should_panic(expected = "has reached the new one")]
fn loom_canary_an_event_that_names_only_the_place_reaches_the_new_descriptor() {
    place_used_again(false);
}
