//! Models of the protocol that ends a wait, on a backend made of a mutex and a condition variable.
//!
//! The canaries are the same model with one step left out or in the wrong place; they have to fail.

use loom::thread;

use super::*;
use crate::base::primitive::atomic::AtomicUsize;
use crate::base::primitive::{Condvar, Mutex};

/// Has no descriptors; waits until it is interrupted, or not at all.
#[derive(Debug)]
struct Fake {
    interrupted: Mutex<bool>,
    condvar: Condvar,
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
        let mut interrupted = self.interrupted.lock().unwrap();
        while timeout.is_none() && !*interrupted {
            interrupted = self.condvar.wait(interrupted).unwrap();
        }
        *interrupted = false;
        Ok(())
    }

    fn interrupt(&self) {
        *self.interrupted.lock().unwrap() = true;
        self.condvar.notify_one();
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
        let backend = Fake { interrupted: Mutex::new(false), condvar: Condvar::new() };
        Arc::new(World { poller: Poller::with_backend(Box::new(backend)), work: AtomicUsize::new(0) })
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
    fn sleep(&self, amount: usize, fault: Fault) {
        let mut seen = 0;
        while seen < amount {
            let Some(mut turn) = self.poller.try_turn() else {
                thread::yield_now();
                continue;
            };
            let before = self.work();
            let announced = turn.announce(Tick::NEVER);
            let now = if fault == Fault::LooksBeforeItAnnounces { before } else { self.work() };
            if now == seen {
                announced.wait(None, &mut Vec::new()).unwrap();
            } else {
                announced.withdraw();
                seen = now;
            }
        }
    }
}

/// Each publisher has one piece of work. The main thread sleeps until it has seen all; a wake-up that is lost
/// is a deadlock.
fn model(publishers: usize, fault: Fault) {
    loom::model(move || {
        let world = World::new();
        let publishers: Vec<_> = (0..publishers)
            .map(|_| {
                let world = Arc::clone(&world);
                thread::spawn(move || world.publish(fault))
            })
            .collect();
        world.sleep(publishers.len(), fault);
        for publisher in publishers {
            publisher.join().unwrap();
        }
        assert!(world.poller.counters().interrupts <= 2);
    });
}

#[test]
fn loom_work_published_while_a_thread_goes_to_sleep_in_the_poller_wakes_it() {
    model(1, Fault::None);
}

#[test]
fn loom_of_two_publishers_neither_is_overheard() {
    model(2, Fault::None);
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
        world.sleep(1, Fault::None);
        publisher.join().unwrap();
        monitor.join().unwrap();
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn loom_canary_without_the_publishers_barrier_a_wake_up_is_lost() {
    model(1, Fault::NoBarrier);
}

#[test]
#[should_panic(expected = "deadlock")]
fn loom_canary_looking_before_announcing_loses_a_wake_up() {
    model(1, Fault::LooksBeforeItAnnounces);
}
