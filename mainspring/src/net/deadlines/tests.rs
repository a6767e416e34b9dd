//! Canary: the mistake of Go's issue 35532 is reported by the lock ranks, on a real socket, and without the race.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::Deadlines;
use crate::base::alarm::Alarm;
use crate::base::clock::{Clock, ManualClock};
use crate::net::TcpStream;
use crate::poll::poller::Poller;
use crate::sched::threads::SpawnThread;
use crate::sched::{Parts, Scheduler, current};
use crate::time::Instant;

/// Gives no thread: nothing happens that the test does not do.
struct NoThreads;

impl SpawnThread for NoThreads {
    fn spawn(&self, _: String, _: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// Sets a deadline for a read that waits, lets it pass, and has `fire` do what a worker does then; whether the read
/// has timed out, or the message of the panic.
fn expire(fire: impl FnOnce(&Arc<Scheduler>)) -> Result<bool, String> {
    let clock = ManualClock::new();
    let scheduler = Scheduler::new(Parts {
        processors: 1,
        threads_max: 2,
        thread_name: String::new(),
        panic_hook: None,
        handoff: crate::sched::handoff::Handoff::off(),
        handoff_hook: None,
        clock: Clock::Manual(Arc::clone(&clock)),
        seed: 1,
        spawner: Box::new(NoThreads),
        poller: Poller::new().unwrap(),
        alarm: Alarm::new().unwrap(),
    });
    let _entered = current::enter(Arc::clone(&scheduler));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let stream = TcpStream::try_from(peer).unwrap();
    let mut byte = [0];
    let mut read = Box::pin(stream.read(&mut byte));
    let mut poll = || read.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(poll().is_pending());
    let deadlines: Deadlines = stream.deadlines();
    let at = clock.now().saturating_add(Duration::from_micros(2));
    deadlines.set_read_deadline(Instant::from_tick(at)).unwrap();
    clock.advance(Duration::from_micros(2));
    match catch_unwind(AssertUnwindSafe(|| fire(&scheduler))) {
        Ok(()) => Ok(matches!(poll(), Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::TimedOut)),
        Err(panic) => Err(*panic.downcast().expect("a formatted message")),
    }
}

#[test]
fn one_deadline_that_expires_with_the_store_locked_is_enough_to_report_the_inversion() {
    // The timer's waker takes the side's lock, under which others arm timers in the store.
    let message = expire(|scheduler| scheduler.fire_with_the_core_locked(0, Waker::wake)).unwrap_err();
    assert!(message.contains("lock order: Side is taken at"), "{message}");
    assert!(message.contains("while Core, taken at"), "{message}");
    // The gate before every waker names the lock as well, before anything is called.
    let gated = crate::sched::task::wake;
    let message = expire(|scheduler| scheduler.fire_with_the_core_locked(0, gated)).unwrap_err();
    assert!(message.contains("about to call a waker"), "{message}");
    assert!(message.contains("while Core, taken at"), "{message}");
}

#[test]
fn with_the_store_unlocked_it_expires_and_nothing_is_reported() {
    let expired = expire(|scheduler| {
        let mut wakers = Vec::new();
        scheduler.fire_with_the_core_locked(0, |waker| wakers.push(waker));
        wakers.into_iter().for_each(Waker::wake);
    });
    assert_eq!(expired, Ok(true));
}
