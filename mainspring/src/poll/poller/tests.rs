//! The poller on the system's epoll, and on a backend that counts.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::task::Poll;

use super::super::backend::Edge;
use super::super::source::Direction::{Read, Write};
use super::super::testing::{Waiter, make_unready, wake};
use super::*;

fn pair() -> (UnixStream, UnixStream) {
    let (a, b) = UnixStream::pair().unwrap();
    a.set_nonblocking(true).unwrap();
    (a, b)
}

/// Polls without waiting and calls the wakers.
fn poll(poller: &Poller) -> usize {
    let mut wakers = Vec::new();
    let events = poller.try_turn().unwrap().poll_now(&mut wakers).unwrap();
    wake(&mut wakers);
    events
}

#[test]
fn data_wakes_the_reader_and_room_the_writer() {
    let poller = Poller::new().unwrap();
    let (mut a, mut b) = pair();
    let source = poller.register(a.as_fd()).unwrap();
    assert_eq!(poll(&poller), 1);
    make_unready(&source, Read);
    let (mut reader, mut writer) = (Waiter::new(), Waiter::new());
    assert_eq!(reader.poll(&source, Read), Poll::Pending);
    b.write_all(b"x").unwrap();
    assert_eq!(poll(&poller), 1);
    assert_eq!(reader.woken(), 1);
    assert!(source.attempt(Read).is_ok());

    let attempt = loop {
        let attempt = source.attempt(Write).unwrap();
        match a.write(&[0; 4096]) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break attempt,
            Err(error) => panic!("{error}"),
        }
    };
    source.not_ready(Write, attempt);
    assert_eq!(writer.poll(&source, Write), Poll::Pending);
    assert_eq!(poll(&poller), 0);
    b.set_nonblocking(true).unwrap();
    while b.read(&mut [0; 65536]).is_ok() {}
    poll(&poller);
    assert_eq!(writer.woken(), 1);
    assert!(source.attempt(Write).is_ok());
}

#[test]
fn an_end_of_file_behind_a_short_read_is_found_without_another_edge() {
    let poller = Poller::new().unwrap();
    let (mut a, mut b) = pair();
    let source = poller.register(a.as_fd()).unwrap();
    b.write_all(b"the end").unwrap();
    drop(b);
    assert_eq!(poll(&poller), 1);
    let attempt = source.attempt(Read).unwrap();
    assert_eq!(a.read(&mut [0; 64]).unwrap(), 7);
    source.short(Read, attempt);
    assert_eq!(poll(&poller), 0, "there is no other edge");
    assert!(source.attempt(Read).is_ok());
    assert_eq!(a.read(&mut [0; 64]).unwrap(), 0);
}

#[test]
fn a_short_read_waits_for_the_next_edge_and_gets_it() {
    let poller = Poller::new().unwrap();
    let (mut a, mut b) = pair();
    let source = poller.register(a.as_fd()).unwrap();
    b.write_all(b"one").unwrap();
    assert_eq!(poll(&poller), 1);
    let attempt = source.attempt(Read).unwrap();
    assert_eq!(a.read(&mut [0; 64]).unwrap(), 3);
    b.write_all(b"two").unwrap();
    source.short(Read, attempt);
    let mut waiter = Waiter::new();
    assert_eq!(waiter.poll(&source, Read), Poll::Pending);
    assert_eq!(poll(&poller), 1);
    assert_eq!(waiter.woken(), 1);
}

#[test]
fn events_for_a_place_that_is_used_again_are_squelched() {
    let poller = Poller::new().unwrap();
    let (a, _peer) = pair();
    let old = poller.register(a.as_fd()).unwrap();
    // The events of the old source are taken from the kernel, and before they are delivered the
    // descriptor goes and another one gets its place.
    let mut events = Vec::new();
    poller.backend.wait(None, &mut events).unwrap();
    assert_eq!(events.len(), 1);
    let mut wakers = Vec::new();
    poller.deregister(&old, a.as_fd(), &mut wakers).unwrap();
    let (b, _peer) = pair();
    let new = poller.register(b.as_fd()).unwrap();
    assert_eq!(new.key().index(), old.key().index());
    make_unready(&new, Write);
    assert_eq!(poller.deliver(&events, &mut wakers), 0);
    assert_eq!(new.attempt(Write).unwrap_err(), Refused::NotReady);
    assert_eq!(poll(&poller), 1, "its own event comes");
    assert!(new.attempt(Write).is_ok());
}

#[test]
fn deregistering_wakes_whoever_waits_and_operations_fail_from_then_on() {
    let poller = Poller::new().unwrap();
    let (a, _b) = pair();
    let source = poller.register(a.as_fd()).unwrap();
    make_unready(&source, Read);
    make_unready(&source, Write);
    let mut waiters = [Waiter::new(), Waiter::new()];
    assert_eq!(waiters[0].poll(&source, Read), Poll::Pending);
    assert_eq!(waiters[1].poll(&source, Write), Poll::Pending);
    let mut wakers = Vec::new();
    poller.deregister(&source, a.as_fd(), &mut wakers).unwrap();
    assert_eq!(wake(&mut wakers), 2);
    assert_eq!(waiters[0].poll(&source, Read), Poll::Ready(Err(Refused::Closed)));
    assert_eq!(Arc::strong_count(&source), 1);
    assert!(poller.register(a.as_fd()).is_ok(), "the descriptor itself is as good as before");
}

#[test]
fn a_descriptor_that_cannot_be_watched_is_refused_and_leaves_nothing() {
    let poller = Poller::new().unwrap();
    let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
    let error = poller.register(file.as_fd()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(poller.table.lock().sources.len(), 0);
}

#[test]
fn closing_wakes_everybody_and_refuses_new_descriptors() {
    let poller = Poller::new().unwrap();
    let (a, b) = pair();
    let sources = [&a, &b].map(|stream| poller.register(stream.as_fd()).unwrap());
    let mut waiters = [Waiter::new(), Waiter::new()];
    for (source, waiter) in sources.iter().zip(&mut waiters) {
        make_unready(source, Read);
        assert_eq!(waiter.poll(source, Read), Poll::Pending);
    }
    let mut wakers = poller.close();
    assert_eq!(wake(&mut wakers), 2);
    for source in &sources {
        assert_eq!(source.attempt(Write).unwrap_err(), Refused::Closed);
    }
    let (c, _d) = pair();
    assert_eq!(poller.register(c.as_fd()).unwrap_err().kind(), io::ErrorKind::Other);
    poller.deregister(&sources[0], a.as_fd(), &mut wakers).unwrap();
    assert!(wakers.is_empty());
}

#[test]
fn only_one_thread_has_the_turn() {
    let poller = Poller::new().unwrap();
    let turn = poller.try_turn().unwrap();
    assert!(poller.try_turn().is_none());
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(poller.try_turn().is_none()));
    });
    drop(turn);
    assert!(poller.try_turn().is_some());
}

/// A backend that never has an event and counts what it is asked for.
#[derive(Clone, Debug, Default)]
struct Counting(Arc<Asked>);

#[derive(Debug, Default)]
struct Asked {
    interrupts: AtomicUsize,
    timeouts: Mutex<Vec<Option<Duration>>>,
}

impl Backend for Counting {
    fn add(&self, _: BorrowedFd<'_>, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }

    fn wait(&self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        events.clear();
        self.0.timeouts.lock().unwrap().push(timeout);
        Ok(())
    }

    fn interrupt(&self) {
        self.0.interrupts.fetch_add(1, Ordering::SeqCst);
    }
}

fn counting() -> (Poller, Counting) {
    let backend = Counting::default();
    (Poller::with_backend(Box::new(backend.clone())), backend)
}

#[test]
fn nobody_is_interrupted_who_does_not_sit_in_the_poller() {
    let (poller, backend) = counting();
    let zero = Tick::from_nanos(0);
    assert!(!poller.interrupt_if_after(zero));
    let mut turn = poller.try_turn().unwrap();
    turn.poll_now(&mut Vec::new()).unwrap();
    assert!(!poller.interrupt_if_after(zero), "it polls without waiting");
    turn.announce(Tick::NEVER).withdraw();
    assert!(!poller.interrupt_if_after(zero), "it has withdrawn");
    turn.announce(Tick::NEVER).wait(None, &mut Vec::new()).unwrap();
    assert!(!poller.interrupt_if_after(zero), "it is back");
    assert_eq!(backend.0.interrupts.load(Ordering::SeqCst), 0);
    assert_eq!(*backend.0.timeouts.lock().unwrap(), [Some(Duration::ZERO), None]);
    assert_eq!(poller.counters(), Counters { polls: 2, waits: 1, events: 0, interrupts: 0 });
}

#[test]
fn one_of_many_publishers_interrupts_and_only_a_sleep_that_is_too_long() {
    let (poller, backend) = counting();
    let at = |n| Tick::START.saturating_add(Duration::from_nanos(n));
    let mut turn = poller.try_turn().unwrap();
    for (until, needed, expected) in [
        (at(10), at(10), 0),
        (at(10), at(11), 0),
        (at(10), Tick::NEVER, 0),
        (at(10), at(9), 1),
        (at(10), Tick::from_nanos(0), 1),
        (Tick::NEVER, at(1 << 40), 1),
        (Tick::NEVER, Tick::NEVER, 0),
        (Tick::from_nanos(0), Tick::from_nanos(0), 1),
    ] {
        let before = backend.0.interrupts.load(Ordering::SeqCst);
        let announced = turn.announce(until);
        let won = (0..3).filter(|_| poller.interrupt_if_after(needed)).count();
        announced.withdraw();
        assert_eq!(won, expected, "until {until:?}, needed {needed:?}");
        assert_eq!(backend.0.interrupts.load(Ordering::SeqCst) - before, expected);
    }
}

#[test]
fn a_thread_in_the_poller_is_woken_by_work_each_time() {
    const ROUNDS: usize = 2_000;
    let poller = Poller::new().unwrap();
    let (work, seen) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=ROUNDS {
                work.store(round, Ordering::Relaxed);
                full_barrier();
                poller.interrupt_if_after(Tick::from_nanos(0));
                // Two come close together, then one that finds the sleeper asleep or going there.
                while round % 3 != 0 && seen.load(Ordering::Relaxed) < round {
                    std::thread::yield_now();
                }
            }
        });
        let mut turn = poller.try_turn().unwrap();
        while seen.load(Ordering::Relaxed) < ROUNDS {
            let announced = turn.announce(Tick::NEVER);
            let now = work.load(Ordering::Relaxed);
            if now == seen.load(Ordering::Relaxed) {
                assert_eq!(announced.wait(None, &mut Vec::new()).unwrap(), 0);
            } else {
                announced.withdraw();
                seen.store(now, Ordering::Relaxed);
            }
        }
    });
}

#[test]
fn counters_count_events_that_arrive() {
    let poller = Poller::new().unwrap();
    let (a, mut b) = pair();
    let _source = poller.register(a.as_fd()).unwrap();
    b.write_all(b"x").unwrap();
    assert_eq!(poll(&poller), 1);
    assert_eq!(poll(&poller), 0);
    assert_eq!(poller.counters(), Counters { polls: 2, waits: 0, events: 1, interrupts: 0 });
    assert_eq!(poller.polls(), 2);
}

#[test]
fn a_hang_up_wakes_both_sides() {
    let poller = Poller::new().unwrap();
    let (a, b) = pair();
    let source = poller.register(a.as_fd()).unwrap();
    poll(&poller);
    make_unready(&source, Read);
    make_unready(&source, Write);
    let mut waiters = [Waiter::new(), Waiter::new()];
    assert_eq!(waiters[0].poll(&source, Read), Poll::Pending);
    assert_eq!(waiters[1].poll(&source, Write), Poll::Pending);
    drop(b);
    assert_eq!(poll(&poller), 1);
    assert_eq!(waiters.each_ref().map(Waiter::woken), [1, 1]);
}

#[test]
fn events_of_a_source_that_is_gone_do_not_stop_those_of_others() {
    let (poller, _) = counting();
    let (a, b) = pair();
    let gone = poller.register(a.as_fd()).unwrap();
    let stays = poller.register(b.as_fd()).unwrap();
    make_unready(&stays, Read);
    let event =
        |source: &Source| Event { token: source.key().to_u64(), read: Some(Edge::Ready), write: None };
    let events = [event(&gone), event(&stays)];
    let mut wakers = Vec::new();
    poller.deregister(&gone, a.as_fd(), &mut wakers).unwrap();
    assert_eq!(poller.deliver(&events, &mut wakers), 1);
    assert!(stays.attempt(Read).is_ok());
}
