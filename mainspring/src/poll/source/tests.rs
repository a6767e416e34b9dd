//! One source without a poller: events are handed to it.

use std::sync::Arc;
use std::task::Poll;
use std::task::Wake;

use super::super::testing::{Waiter, make_unready, wake};
use super::Direction::{Read, Write};
use super::*;

fn source() -> Source {
    Source::new(Key::new(0, 0))
}

fn tick(n: u64) -> Tick {
    Tick::from_nanos(n)
}

fn deliver(source: &Source, read: Option<Edge>, write: Option<Edge>) -> usize {
    let mut wakers = Vec::new();
    source.deliver(Event { token: 0, read, write }, &mut wakers);
    wake(&mut wakers)
}

fn set(source: &Source, direction: Direction, now: u64, at: Option<u64>) -> (TimerAction, usize) {
    let mut wakers = Vec::new();
    let action = source.lock(direction).set_deadline(tick(now), at.map(tick), &mut wakers).unwrap();
    (action, wake(&mut wakers))
}

fn fire(source: &Source, direction: Direction, now: u64) -> (Fired, usize) {
    let mut wakers = Vec::new();
    let fired = source.lock(direction).timer_fired(tick(now), &mut wakers);
    (fired, wake(&mut wakers))
}

#[test]
fn a_new_source_is_ready_until_a_system_call_finds_otherwise() {
    let source = source();
    for direction in [Read, Write] {
        assert!(source.attempt(direction).is_ok());
        make_unready(&source, direction);
    }
}

#[test]
fn an_edge_wakes_the_waiters_of_its_side_only() {
    let source = source();
    make_unready(&source, Read);
    make_unready(&source, Write);
    let (mut reader, mut writer) = (Waiter::new(), Waiter::new());
    assert_eq!(reader.poll(&source, Read), Poll::Pending);
    assert_eq!(writer.poll(&source, Write), Poll::Pending);
    assert_eq!(deliver(&source, Some(Edge::Ready), None), 1);
    assert_eq!((reader.woken(), writer.woken()), (1, 0));
    assert_eq!(reader.poll(&source, Read), Poll::Ready(Ok(())));
    assert_eq!(deliver(&source, Some(Edge::Last), Some(Edge::Last)), 1);
    assert_eq!((reader.woken(), writer.woken()), (1, 1));
}

#[test]
fn an_edge_after_the_ticket_keeps_the_side_ready() {
    let source = source();
    let attempt = source.attempt(Read).unwrap();
    deliver(&source, Some(Edge::Ready), None);
    source.not_ready(Read, attempt);
    let attempt = source.attempt(Read).expect("the edge came after the ticket");
    source.not_ready(Read, attempt);
    assert_eq!(source.attempt(Read).unwrap_err(), Refused::NotReady);
    deliver(&source, None, Some(Edge::Ready));
    assert_eq!(source.attempt(Read).unwrap_err(), Refused::NotReady, "the other side's edge");
}

#[test]
fn a_short_transfer_takes_readiness_away_but_not_after_the_last_edge() {
    let source = source();
    let attempt = source.attempt(Read).unwrap();
    source.short(Read, attempt);
    assert_eq!(source.attempt(Read).unwrap_err(), Refused::NotReady);
    deliver(&source, Some(Edge::Last), None);
    let attempt = source.attempt(Read).unwrap();
    source.short(Read, attempt);
    assert!(source.attempt(Read).is_ok(), "nothing would announce the end of file");
    deliver(&source, Some(Edge::Ready), None);
    source.short(Read, source.attempt(Read).unwrap());
    assert!(source.attempt(Read).is_ok(), "the last edge is not forgotten");
    source.not_ready(Read, source.attempt(Read).unwrap());
    assert_eq!(source.attempt(Read).unwrap_err(), Refused::NotReady, "EAGAIN is the truth at any time");
}

#[test]
fn all_waiters_of_a_side_are_woken_and_can_wait_again() {
    let source = source();
    make_unready(&source, Read);
    let mut waiters = [Waiter::new(), Waiter::new(), Waiter::new()];
    for round in 1..4 {
        for waiter in &mut waiters {
            assert_eq!(waiter.poll(&source, Read), Poll::Pending);
        }
        assert_eq!(deliver(&source, Some(Edge::Ready), None), 3);
        assert_eq!(waiters.each_ref().map(Waiter::woken), [round; 3]);
        make_unready(&source, Read);
    }
    let ids = waiters.each_ref().map(|waiter| waiter.id.unwrap());
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
}

#[test]
fn a_waiter_that_polls_again_replaces_its_waker() {
    let source = source();
    make_unready(&source, Read);
    let mut waiters = [Waiter::new(), Waiter::new()];
    for _ in 0..3 {
        for waiter in &mut waiters {
            assert_eq!(waiter.poll(&source, Read), Poll::Pending);
            assert_eq!(waiter.wakers(), 1);
        }
    }
    assert_eq!(deliver(&source, Some(Edge::Ready), None), 2);
}

#[test]
fn the_shared_place_belongs_to_whoever_polled_last() {
    let source = source();
    make_unready(&source, Write);
    let (mut first, mut second, mut other) = (Waiter::new(), Waiter::new(), Waiter::new());
    first.id = Some(WaiterId::SHARED);
    second.id = Some(WaiterId::SHARED);
    assert_eq!(first.poll(&source, Write), Poll::Pending);
    assert_eq!(other.poll(&source, Write), Poll::Pending);
    assert_eq!(second.poll(&source, Write), Poll::Pending);
    assert_eq!(first.wakers(), 0);
    assert_eq!(deliver(&source, None, Some(Edge::Ready)), 2);
    assert_eq!([first.woken(), second.woken(), other.woken()], [0, 1, 1]);
}

#[test]
fn a_forgotten_waiter_is_not_woken_and_the_others_are() {
    let source = source();
    make_unready(&source, Read);
    let mut waiters = [Waiter::new(), Waiter::new(), Waiter::new()];
    for waiter in &mut waiters {
        assert_eq!(waiter.poll(&source, Read), Poll::Pending);
    }
    for gone in [0, 2] {
        let id = waiters[gone].id.unwrap();
        assert!(source.forget(Read, id).is_some());
        assert!(source.forget(Read, id).is_none());
        assert!(source.forget(Write, id).is_none());
    }
    assert_eq!(deliver(&source, Some(Edge::Ready), None), 1);
    assert_eq!(waiters.each_ref().map(Waiter::woken), [0, 1, 0]);
}

#[test]
fn a_side_that_is_ready_or_refuses_registers_nobody() {
    let mut waiter = Waiter::new();
    let ready = source();
    assert_eq!(waiter.poll(&ready, Read), Poll::Ready(Ok(())));
    let expired = source();
    make_unready(&expired, Read);
    assert_eq!(set(&expired, Read, 1, Some(0)), (TimerAction::None, 0));
    assert_eq!(waiter.poll(&expired, Read), Poll::Ready(Err(Refused::Expired)));
    expired.close(&mut Vec::new());
    assert_eq!(waiter.poll(&expired, Read), Poll::Ready(Err(Refused::Closed)));
    assert_eq!((waiter.wakers(), waiter.id), (0, None));
}

#[test]
fn who_waits_for_failure_waits_beside_readiness_and_is_woken_by_expiry_and_closing_alone() {
    let source = source();
    let mut waiter = Waiter::new();
    let poll = |waiter: &mut Waiter| {
        let waker = waiter.waker();
        source.poll_failure(Read, &mut waiter.id, &Context::from_waker(&waker))
    };
    assert_eq!(poll(&mut waiter), Poll::Pending, "it is ready, which is no failure");
    assert_eq!(poll(&mut waiter), Poll::Pending);
    assert_eq!(waiter.wakers(), 1);
    assert_eq!(deliver(&source, Some(Edge::Ready), None), 0, "an edge does not concern it");
    assert!(source.attempt(Read).is_ok(), "it takes no readiness away");
    make_unready(&source, Read);
    let mut others = [Waiter::new(), Waiter::new()];
    others.iter_mut().for_each(|other| assert!(other.poll(&source, Read).is_pending()));
    assert_eq!(deliver(&source, Some(Edge::Ready), None), 2, "but it does concern others");
    assert_eq!((waiter.woken(), waiter.wakers()), (0, 1));
    assert_eq!(set(&source, Read, 1, Some(0)), (TimerAction::None, 1));
    assert_eq!(poll(&mut waiter), Poll::Ready(Refused::Expired));
    assert_eq!(set(&source, Read, 1, None), (TimerAction::None, 0));
    assert_eq!(poll(&mut waiter), Poll::Pending);
    let mut wakers = Vec::new();
    source.close(&mut wakers);
    assert_eq!(wake(&mut wakers), 1);
    assert_eq!(poll(&mut waiter), Poll::Ready(Refused::Closed));
    assert_eq!(waiter.wakers(), 0);
}

// The rules of deadlines, numbered as in Go's documentation and tests of SetDeadline.

#[test]
fn d2_an_expired_deadline_fails_operations_also_when_data_is_ready() {
    let source = source();
    assert_eq!(set(&source, Read, 0, Some(10)).0, TimerAction::Arm(tick(10)));
    assert!(source.attempt(Read).is_ok());
    assert_eq!(fire(&source, Read, 10), (Fired::Expired, 0));
    deliver(&source, Some(Edge::Ready), None);
    let refused = source.attempt(Read).unwrap_err();
    assert_eq!(refused, Refused::Expired);
    assert_eq!(io::Error::from(refused).kind(), io::ErrorKind::TimedOut);
}

#[test]
fn d3_a_past_deadline_wakes_all_who_wait_at_once() {
    for past in [0, 1, 100] {
        let source = source();
        make_unready(&source, Read);
        let mut waiters = [Waiter::new(), Waiter::new()];
        for waiter in &mut waiters {
            assert_eq!(waiter.poll(&source, Read), Poll::Pending);
        }
        assert_eq!(set(&source, Read, 100, Some(past)), (TimerAction::None, 2));
        for waiter in &mut waiters {
            assert_eq!(waiter.poll(&source, Read), Poll::Ready(Err(Refused::Expired)));
        }
    }
}

#[test]
fn d4_clearing_wakes_nobody_and_the_wait_has_no_limit_then() {
    let source = source();
    make_unready(&source, Read);
    let mut waiter = Waiter::new();
    assert_eq!(set(&source, Read, 0, Some(10)).0, TimerAction::Arm(tick(10)));
    assert_eq!(waiter.poll(&source, Read), Poll::Pending);
    assert_eq!(set(&source, Read, 5, None), (TimerAction::None, 0));
    assert_eq!(fire(&source, Read, 10), (Fired::Nothing, 0));
    assert_eq!(waiter.poll(&source, Read), Poll::Pending);
}

#[test]
fn d5_moving_an_expired_deadline_makes_the_side_usable_and_loses_no_edge() {
    for (moved, action) in [(None, TimerAction::None), (Some(50), TimerAction::Arm(tick(50)))] {
        let source = source();
        make_unready(&source, Read);
        assert_eq!(set(&source, Read, 10, Some(1)).0, TimerAction::None);
        deliver(&source, Some(Edge::Ready), None);
        assert_eq!(source.attempt(Read).unwrap_err(), Refused::Expired);
        assert_eq!(set(&source, Read, 10, moved), (action, 0));
        assert!(source.attempt(Read).is_ok(), "the edge came while it was expired");
    }
}

#[test]
fn d6_the_sides_have_deadlines_of_their_own() {
    let source = source();
    assert_eq!(set(&source, Read, 10, Some(1)).0, TimerAction::None);
    assert_eq!(source.attempt(Read).unwrap_err(), Refused::Expired);
    assert!(source.attempt(Write).is_ok());
    assert_eq!(set(&source, Write, 10, Some(20)).0, TimerAction::Arm(tick(20)));
    assert_eq!(fire(&source, Write, 20), (Fired::Expired, 0));
    assert_eq!(set(&source, Read, 20, None).0, TimerAction::None);
    assert!(source.attempt(Read).is_ok());
    assert_eq!(source.attempt(Write).unwrap_err(), Refused::Expired);
}

#[test]
fn d7_and_d8_moving_it_while_a_task_waits_takes_effect_and_never_early() {
    let source = source();
    make_unready(&source, Read);
    let mut waiter = Waiter::new();
    assert_eq!(set(&source, Read, 0, Some(10)).0, TimerAction::Arm(tick(10)));
    assert_eq!(waiter.poll(&source, Read), Poll::Pending);
    assert_eq!(set(&source, Read, 5, Some(30)), (TimerAction::None, 0));
    assert_eq!(fire(&source, Read, 10), (Fired::Rearm(tick(30)), 0));
    assert_eq!(set(&source, Read, 11, Some(20)), (TimerAction::Earlier(tick(20)), 0));
    assert_eq!(fire(&source, Read, 19), (Fired::Rearm(tick(20)), 0));
    assert_eq!(fire(&source, Read, 20), (Fired::Expired, 1));
    assert_eq!(waiter.poll(&source, Read), Poll::Ready(Err(Refused::Expired)));
}

#[test]
fn d10_and_d12_close_beats_the_deadline_and_nothing_can_be_set_afterwards() {
    let source = source();
    make_unready(&source, Read);
    let mut waiter = Waiter::new();
    assert_eq!(waiter.poll(&source, Read), Poll::Pending);
    assert_eq!(set(&source, Read, 0, Some(10)).0, TimerAction::Arm(tick(10)));
    let id = timers::Id::new(3, Key::new(1, 2));
    *source.lock(Read).timer() = Some(id);
    let mut wakers = Vec::new();
    source.close(&mut wakers);
    assert_eq!(wake(&mut wakers), 1);
    assert_eq!(source.lock(Read).take_timer(), Some(id));
    assert_eq!(source.lock(Read).take_timer(), None);
    let refused = source.lock(Read).set_deadline(tick(0), Some(tick(20)), &mut wakers);
    assert_eq!(refused, Err(Refused::Closed));
    assert_eq!(fire(&source, Read, 10), (Fired::Nothing, 0));
    for direction in [Read, Write] {
        let error = io::Error::from(source.attempt(direction).unwrap_err());
        assert_eq!(error.kind(), io::ErrorKind::Other);
    }
}

#[test]
fn d13_a_timer_of_an_older_setting_does_nothing_to_a_newer_one() {
    for (newer, fired) in [(None, Fired::Nothing), (Some(30), Fired::Rearm(tick(30)))] {
        let source = source();
        make_unready(&source, Read);
        let mut waiter = Waiter::new();
        assert_eq!(waiter.poll(&source, Read), Poll::Pending);
        assert_eq!(set(&source, Read, 0, Some(10)).0, TimerAction::Arm(tick(10)));
        // The timer goes off at 10 and is heard at 11; in between the deadline is moved.
        assert_eq!(set(&source, Read, 10, newer), (TimerAction::None, 0));
        assert_eq!(fire(&source, Read, 11), (fired, 0));
        assert_eq!(waiter.woken(), 0);
    }
}

#[test]
fn d14_readiness_that_woke_a_task_before_the_expiry_is_kept_for_later() {
    let source = source();
    make_unready(&source, Read);
    let mut waiter = Waiter::new();
    assert_eq!(waiter.poll(&source, Read), Poll::Pending);
    assert_eq!(set(&source, Read, 0, Some(10)).0, TimerAction::Arm(tick(10)));
    assert_eq!(deliver(&source, Some(Edge::Ready), None), 1);
    assert_eq!(fire(&source, Read, 10), (Fired::Expired, 0));
    // Here we differ from Go on purpose: the task runs after the expiry, so it times out.
    assert_eq!(waiter.poll(&source, Read), Poll::Ready(Err(Refused::Expired)));
    assert_eq!(set(&source, Read, 10, None).0, TimerAction::None);
    assert!(source.attempt(Read).is_ok());
}

#[test]
fn never_is_no_deadline() {
    let source = source();
    assert_eq!(set(&source, Read, 0, Some(u64::MAX)), (TimerAction::None, 0));
    assert_eq!(set(&source, Read, 0, Some(10)).0, TimerAction::Arm(tick(10)));
    assert_eq!(set(&source, Read, 0, Some(u64::MAX)), (TimerAction::None, 0));
    assert_eq!(fire(&source, Read, 10), (Fired::Nothing, 0));
}

/// A waker that comes back to the source when it is dropped, as a user's may.
struct Nosy {
    source: Arc<Source>,
}

impl Wake for Nosy {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Nosy {
    fn drop(&mut self) {
        assert_unlocked("drop a user's value");
        drop(self.source.lock(Read));
    }
}

#[test]
fn wakers_are_dropped_with_nothing_locked() {
    let source = Arc::new(source());
    make_unready(&source, Read);
    let mut id = None;
    for _ in 0..3 {
        let waker = Waker::from(Arc::new(Nosy { source: Arc::clone(&source) }));
        assert!(source.poll_wait(Read, &mut id, &Context::from_waker(&waker)).is_pending());
    }
    drop(source.forget(Read, id.unwrap()));
    assert_eq!(Arc::strong_count(&source), 1);
}

fn pause(source: &Source) {
    let mut side = source.lock(Read);
    assert!(!side.paused());
    side.pause();
    assert!(side.paused());
}

fn resume(source: &Source) -> usize {
    let mut wakers = Vec::new();
    source.lock(Read).resume(&mut wakers);
    wake(&mut wakers)
}

#[test]
fn a_pause_hides_readiness_and_edges_until_its_end() {
    let source = source();
    pause(&source);
    assert_eq!(source.attempt(Read).unwrap_err(), Refused::NotReady);
    let mut waiter = Waiter::new();
    assert_eq!(waiter.poll(&source, Read), Poll::Pending);
    assert_eq!(deliver(&source, Some(Edge::Ready), None), 0);
    assert_eq!(resume(&source), 1);
    assert!(source.attempt(Read).is_ok());
    assert_eq!(resume(&source), 0, "a timer that comes twice");
}

#[test]
fn the_end_of_a_pause_wakes_nobody_where_nothing_is_ready_and_an_edge_in_it_is_not_lost() {
    let source = source();
    make_unready(&source, Read);
    let mut waiter = Waiter::new();
    assert_eq!(waiter.poll(&source, Read), Poll::Pending);
    pause(&source);
    assert_eq!(resume(&source), 0);
    assert_eq!(deliver(&source, Some(Edge::Ready), None), 1);
    make_unready(&source, Read);
    pause(&source);
    assert_eq!(deliver(&source, Some(Edge::Ready), None), 0);
    assert_eq!(waiter.poll(&source, Read), Poll::Pending);
    assert_eq!(resume(&source), 1);
}

#[test]
fn a_deadline_and_the_end_reach_who_waits_in_a_pause() {
    let source = source();
    pause(&source);
    let mut waiter = Waiter::new();
    assert_eq!(waiter.poll(&source, Read), Poll::Pending);
    let (_, woken) = set(&source, Read, 10, Some(5));
    assert_eq!(woken, 1);
    assert_eq!(source.attempt(Read).unwrap_err(), Refused::Expired);
    assert_eq!(set(&source, Read, 10, None), (TimerAction::None, 0));
    assert_eq!(source.attempt(Read).unwrap_err(), Refused::NotReady, "it goes on");
    assert_eq!(waiter.poll(&source, Read), Poll::Pending);
    let mut wakers = Vec::new();
    source.close(&mut wakers);
    assert_eq!(wake(&mut wakers), 1);
    assert_eq!(source.attempt(Read).unwrap_err(), Refused::Closed);
}
