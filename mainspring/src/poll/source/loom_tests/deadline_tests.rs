//! Models of deadlines that are moved, passed and closed at once. The timer store is the real one, and each step is
//! made as the layer above makes it; the clock is a number.

use super::*;

/// A task waits with a deadline of 10, the clock shows 10, and while one thread runs the timers another, which
/// read the clock at `now`, moves the deadline to `at`.
fn moved_while_it_fires(now: u64, at: Option<u64>, lock_is_kept: bool) {
    loom::model(move || {
        let timed = Timed::unready();
        timed.set(0, Some(10));
        timed.wait();
        let other = thread::spawn({
            let timed = Arc::clone(&timed);
            move || timed.set(now, at)
        });
        timed.take_and_call(10, BOTH, lock_is_kept);
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
        timed.source.close(&mut Vec::new());
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

/// A deadline of 10 is passing, another thread closes the descriptor, and a task is about to wait.
#[test]
fn loom_who_waits_while_the_deadline_passes_and_the_descriptor_is_closed_is_woken() {
    loom::model(|| {
        let timed = Timed::unready();
        timed.set(0, Some(10));
        let run = |act: fn(&Timed)| {
            let timed = Arc::clone(&timed);
            thread::spawn(move || act(&timed))
        };
        let others = [run(|timed| timed.run_timers(10)), run(|timed| timed.close(true))];
        let poll = timed.poll_wait();
        for other in others {
            other.join().unwrap();
        }
        let woken = timed.woken.load(Ordering::Relaxed);
        match poll {
            Poll::Pending => assert_eq!(woken, 1, "it waits for ever"),
            Poll::Ready(Err(Refused::Expired | Refused::Closed)) => assert_eq!(woken, 0),
            Poll::Ready(result) => panic!("nothing was there: {result:?}"),
        }
        assert_eq!(timed.source.attempt(Read).unwrap_err(), Refused::Closed, "closing beats the deadline");
        assert_eq!(timed.store.lock().len(), 0);
    });
}

/// While a deadline of 10 passes that was moved to 20 before, and another thread sets both to 15, the descriptor
/// is closed. Whatever came first, no timer is left behind.
fn closed_while_it_is_armed(right: bool) {
    loom::model(move || {
        let timed = Timed::unready();
        timed.set(0, Some(10));
        timed.set(0, Some(20));
        let run = |act: fn(&Timed)| {
            let timed = Arc::clone(&timed);
            thread::spawn(move || act(&timed))
        };
        let others = [
            run(|timed| timed.run_timers(10)),
            run(|timed| {
                let _ = timed.set_both(10, 15, BOTH);
            }),
        ];
        timed.close(right);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(timed.set_both(10, 30, BOTH), Err(Refused::Closed));
        assert_eq!(timed.store.lock().len(), 0, "a timer is left");
    });
}

#[test]
fn loom_a_descriptor_closed_while_its_deadline_passes_and_is_set_leaves_no_timer() {
    closed_while_it_is_armed(true);
}

#[test]
#[should_panic(expected = "a timer is left")]
fn loom_canary_timers_taken_away_before_the_sides_are_closed_are_armed_again() {
    closed_while_it_is_armed(false);
}

/// Both sides have a deadline of 10, and while their timers go off another thread sets both to `at`.
fn both_moved_while_they_fire(at: u64) {
    loom::model(move || {
        let timed = Timed::unready();
        timed.set_both(0, 10, BOTH).unwrap();
        timed.wait();
        let other = thread::spawn({
            let timed = Arc::clone(&timed);
            move || timed.set_both(9, at, BOTH).unwrap()
        });
        timed.run_timers(10);
        other.join().unwrap();
        timed.run_timers(10);
        for direction in BOTH {
            assert_eq!(timed.has_expired(direction), at <= 10, "{direction:?}");
        }
        timed.run_timers(19);
        assert_eq!(timed.expired(), at <= 19);
        timed.run_timers(20);
        for direction in BOTH {
            assert!(timed.has_expired(direction), "{direction:?}: the new deadline is missed");
        }
        timed.close(true);
    });
}

#[test]
fn loom_both_deadlines_moved_later_by_one_call_exactly_when_they_pass() {
    both_moved_while_they_fire(20);
}

#[test]
fn loom_both_deadlines_set_by_one_call_that_pass_already() {
    both_moved_while_they_fire(9);
}

/// Who is told that reading is over finds that writing is over as well, if one call had set both: whether
/// timers say so, or whoever sets a time that has passed.
fn told_at_once(order: [Direction; 2], by_timers: bool) {
    loom::model(move || {
        let timed = Timed::unready();
        if by_timers {
            timed.set_both(0, 10, BOTH).unwrap();
        }
        let other = thread::spawn({
            let timed = Arc::clone(&timed);
            move || {
                if by_timers {
                    timed.take_and_call(10, order, false);
                } else {
                    timed.set_both(10, 5, order).unwrap();
                }
            }
        });
        // Under the locks, because loom does not try the loads alone on both sides of an expiry.
        let sees = |direction| timed.source.lock(direction).word().has(Word::EXPIRED);
        if sees(Read) {
            assert!(sees(Write), "the other side is still open");
        }
        other.join().unwrap();
        assert!(timed.expired() && timed.has_expired(Write));
        timed.close(true);
    });
}

#[test]
fn loom_both_deadlines_pass_at_once_for_who_looks_at_reading_first() {
    told_at_once(BOTH, true);
}

#[test]
fn loom_both_deadlines_set_to_the_past_are_over_at_once_for_who_looks_at_reading_first() {
    told_at_once(BOTH, false);
}

#[test]
#[should_panic(expected = "the other side is still open")]
fn loom_canary_deadlines_that_pass_for_reading_first_leave_writing_open() {
    told_at_once([Read, Write], true);
}

#[test]
#[should_panic(expected = "the other side is still open")]
fn loom_canary_deadlines_set_to_the_past_for_reading_first_leave_writing_open() {
    told_at_once([Read, Write], false);
}

/// The timers of both sides are in two processors' stores, and two workers find them at once: one that has seen the
/// time at which writing is over, and one that has seen a later time, at which reading is.
#[test]
fn loom_timers_of_both_sides_that_go_off_on_two_workers_at_once() {
    loom::model(|| {
        let timed = Timed::unready();
        timed.set_sides(0, [(Write, 9), (Read, 10)]).unwrap();
        timed.wait();
        // Both are out of their stores.
        let mut due = Vec::new();
        assert!(!timed.store.lock().take_due(tick(10), 8, &mut due));
        assert_eq!(due.len(), 2);
        let other = thread::spawn({
            let timed = Arc::clone(&timed);
            move || timed.fired(9, BOTH)
        });
        timed.fired(10, BOTH);
        other.join().unwrap();
        assert!(timed.expired() && timed.has_expired(Write));
        assert_eq!(timed.woken.load(Ordering::Relaxed), 1);
        // Whatever was armed once more serves what is set next.
        timed.set_sides(11, [(Write, 20), (Read, 30)]).unwrap();
        timed.run_timers(20);
        assert!(timed.has_expired(Write) && !timed.expired());
        timed.run_timers(30);
        assert!(timed.expired(), "the new deadline is missed");
        timed.close(true);
    });
}
