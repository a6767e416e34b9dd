//! Deadlines by behaviour, on every kind of socket: what Go's net and os packages promise of them, and what
//! their tests ask (`net/timeout_test.go`, `net/net_test.go`, `os/timeout_test.go`), in own code.
//!
//! Which file shows what, by the names of those tests:
//!
//! * here: `ReadTimeout`, `ReadFromTimeout`, `WriteTimeout`, `WriteToTimeout` (a past deadline fails every
//!   operation, also with data or room), `ReadTimeoutUnblocksRead`, the `MustNotReturn` ones (cleared),
//!   `ReadWriteProlongedTimeout`, `DialTimeoutMaxDuration` (the greatest time), `CloseUnblocksRead` as far as Rust
//!   lets it be asked (handles that outlive, operations that are given up, a runtime that ends), and what the
//!   documentation says of moving, of the two sides, and of closing;
//! * `deadline_times.rs`: `Fluctuation`, `VariousDeadlines` on one and four processors, `MustReturn`;
//! * `deadline_races.rs`: `ReadWriteDeadlineRace`, `ConcurrentSetDeadline`, `RacyRead`, `RacyWrite`, closing while one
//!   fires, exactly at expiry, and the lock inversion of Go's issue 35532;
//! * `deadline_writes.rs`: the bytes of a write that times out half way;
//! * `deadline_open.rs`: `AcceptTimeout*`, `ListenerClose`, `DialTimeout*`;
//! * `deadline_reuse.rs`: descriptors that are used again (Go's issue 59545).
//!
//! Not as in Go: an expiry beats an edge that has woken the operation already. `TestNonpollableDeadline` has nothing
//! to ask here, as a descriptor that cannot be watched becomes no socket in the first place.

mod common;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::thread;

use common::kinds::{Side, Socket, assert_waits, on_every_kind, stuck_pair};
use common::sockets::{is_timeout, poll_once, read_one};
use common::{SOON, run, watched};
use mainspring::time::{Duration, Instant, sleep, timeout};

const HOUR: Duration = Duration::from_secs(3600);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A time that is over, by whatever clock.
fn past() -> Instant {
    Instant::now() - HOUR
}

on_every_kind!(
    [
        a_past_deadline_fails_every_read_also_with_data_and_nothing_is_lost,
        a_past_deadline_fails_every_write_also_with_room_and_nothing_is_sent,
        a_past_deadline_wakes_whoever_waits_at_once,
        a_deadline_holds_for_all_who_wait,
        extending_it_under_a_blocked_operation_keeps_it_blocked_until_the_new_time,
        shortening_it_under_a_blocked_operation_takes_effect,
        clearing_it_and_the_greatest_time_let_operations_wait_without_limit,
        the_greatest_time_hurts_no_other_deadline,
        the_two_sides_have_deadlines_of_their_own_and_one_call_sets_both,
        prolonged_by_an_hour_each_time_it_arms_few_timers,
        woken_by_data_and_run_after_the_deadline_an_operation_fails_and_leaves_the_data,
        an_operation_given_up_disturbs_nobody_and_leaves_nothing,
        the_handle_outlives_the_socket_fails_then_and_leaves_no_timer,
        the_end_of_the_runtime_beats_a_deadline,
        a_deadline_passes_while_every_processor_runs_tasks,
    ],
    [a_handle_does_not_keep_the_socket_open]
);

fn a_past_deadline_fails_every_read_also_with_data_and_nothing_is_lost<S: Socket>() {
    run(2, async {
        let (a, b) = S::pair().await;
        for byte in b"xyz" {
            b.write(&[*byte]).await.unwrap();
        }
        a.readable().await.unwrap();
        for _ in 0..3 {
            for at in [past(), Instant::now()] {
                a.set_read_deadline(at).unwrap();
                for (way, result) in a.all_reads().await.iter().enumerate() {
                    assert!(is_timeout(result), "way {way} to read: {result:?}");
                }
            }
        }
        a.set_read_deadline(None).unwrap();
        assert_eq!(read_one(&a).await.unwrap(), b'x');
        a.set_read_deadline(past()).unwrap();
        assert!(is_timeout(&read_one(&a).await));
        a.set_read_deadline(Instant::now() + HOUR).unwrap();
        assert_eq!(read_one(&a).await.unwrap(), b'y');
        assert_eq!(read_one(&a).await.unwrap(), b'z');
        assert_waits(&a, Side::Read).await;
    });
}

fn a_past_deadline_fails_every_write_also_with_room_and_nothing_is_sent<S: Socket>() {
    run(2, async {
        let (a, b) = S::pair().await;
        for at in [past(), Instant::now()] {
            a.set_write_deadline(at).unwrap();
            for (way, result) in a.all_writes().await.iter().enumerate() {
                assert!(is_timeout(result), "way {way} to write: {result:?}");
            }
        }
        for usable in [None, Some(Instant::now() + HOUR)] {
            a.set_write_deadline(usable).unwrap();
            a.write(b"w").await.unwrap();
            assert_eq!(read_one(&b).await.unwrap(), b'w');
            a.set_write_deadline(past()).unwrap();
            assert!(is_timeout(&a.write(b"!").await));
        }
        assert_waits(&b, Side::Read).await;
    });
}

fn a_past_deadline_wakes_whoever_waits_at_once<S: Socket>() {
    run(2, async {
        let (a, _b) = stuck_pair::<S>().await;
        for &side in S::WAITING {
            for at in [past(), Instant::now()] {
                side.set(&a, None);
                let mut operation = pin!(side.operate(&a));
                assert!(poll_once(operation.as_mut()).await.is_pending());
                let handles = a.handles();
                let setter = thread::spawn(move || handles.set(side, at));
                assert!(is_timeout(&operation.await));
                setter.join().unwrap().unwrap();
            }
        }
    });
}

fn a_deadline_holds_for_all_who_wait<S: Socket>() {
    run(2, async {
        let (a, _b) = stuck_pair::<S>().await;
        let a = Arc::new(a);
        let at = Instant::now() + ms(10);
        let waiting: Vec<_> = (0..20)
            .flat_map(|_| S::WAITING)
            .map(|side| {
                let a = Arc::clone(&a);
                mainspring::spawn(async move { (side.operate(&*a).await, Instant::now()) })
            })
            .collect();
        a.set_deadline(at).unwrap();
        for task in waiting {
            let (result, ended) = task.await.unwrap();
            assert!(is_timeout(&result));
            assert!(ended >= at);
        }
    });
}

/// Has one operation wait while its deadline is moved from each of `steps` to the next by another thread.
/// True if every move came before the time that it replaced; then the wait must have lasted until the last.
/// A machine that is busy with other things may come too late now and then.
async fn extend_under<S: Socket>(a: &S, side: Side, steps: Vec<Instant>) -> bool {
    let last = *steps.last().unwrap();
    side.set(a, steps[0]);
    let mut operation = pin!(side.operate(a));
    if poll_once(operation.as_mut()).await.is_ready() {
        assert!(Instant::now() >= steps[0]);
        return false;
    }
    let handles = a.handles();
    let setter = thread::spawn(move || {
        steps.windows(2).all(|step| {
            handles.set(side, step[1]).unwrap();
            Instant::now() < step[0]
        })
    });
    assert!(is_timeout(&operation.await));
    let ended = Instant::now();
    let in_time = setter.join().unwrap();
    assert!(ended >= last || !in_time, "early by {:?}", last - ended);
    in_time
}

fn extending_it_under_a_blocked_operation_keeps_it_blocked_until_the_new_time<S: Socket>() {
    run(2, async {
        let (a, _b) = stuck_pair::<S>().await;
        for &side in S::WAITING {
            let mut in_time = 0;
            for round in 0..10 {
                let start = Instant::now();
                in_time += u32::from(extend_under(&a, side, vec![start + ms(5), start + ms(10)]).await);
                let start = Instant::now();
                let many = (5..50).map(|step| start + ms(step + round) / 2).collect();
                in_time += u32::from(extend_under(&a, side, many).await);
            }
            assert!(in_time > 0, "this machine is too slow for the test to show anything");
            side.set(&a, None);
            assert_waits(&a, side).await;
        }
    });
}

fn shortening_it_under_a_blocked_operation_takes_effect<S: Socket>() {
    run(2, async {
        let (a, _b) = stuck_pair::<S>().await;
        for &side in S::WAITING {
            side.set(&a, Instant::now() + HOUR);
            let mut operation = pin!(side.operate(&a));
            assert!(poll_once(operation.as_mut()).await.is_pending());
            let at = Instant::now() + ms(5);
            let handles = a.handles();
            thread::spawn(move || handles.set(side, at)).join().unwrap().unwrap();
            assert!(is_timeout(&operation.await));
            assert!(Instant::now() >= at);
            assert!(at.elapsed() < SOON);
        }
    });
}

fn clearing_it_and_the_greatest_time_let_operations_wait_without_limit<S: Socket>() {
    run(2, async {
        let (a, b) = S::pair().await;
        for never in [None, Some(Instant::now() + Duration::MAX)] {
            a.set_deadline(past()).unwrap();
            a.set_read_deadline(never).unwrap();
            assert_waits(&a, Side::Read).await;
            assert!(is_timeout(&a.write(b"!").await), "the side for writing has its own");
            // Cleared while somebody waits: nobody is woken, and what comes is read.
            a.set_read_deadline(Instant::now() + ms(10)).unwrap();
            let mut read = pin!(read_one(&a));
            assert!(poll_once(read.as_mut()).await.is_pending());
            a.set_read_deadline(never).unwrap();
            assert!(timeout(ms(30), read.as_mut()).await.is_err());
            b.write(b"x").await.unwrap();
            assert_eq!(read.await.unwrap(), b'x');
        }
        let (a, _b) = stuck_pair::<S>().await;
        for &side in S::WAITING {
            side.set(&a, Instant::now() + ms(10));
            side.set(&a, None);
            let operation = pin!(side.operate(&a));
            assert!(
                timeout(ms(30), operation).await.is_err(),
                "{side:?} ended by a deadline that was cleared"
            );
        }
    });
}

fn the_greatest_time_hurts_no_other_deadline<S: Socket>() {
    run(1, async {
        let ((a, _a), (b, _b)) = (S::pair().await, S::pair().await);
        for far in [Duration::MAX, Duration::from_nanos(u64::MAX), Duration::from_secs(u64::MAX / 2)] {
            a.set_deadline(Instant::now() + far).unwrap();
            let mut waits = pin!(read_one(&a));
            assert!(poll_once(waits.as_mut()).await.is_pending());
            let at = Instant::now() + ms(2);
            b.set_read_deadline(at).unwrap();
            assert!(is_timeout(&read_one(&b).await));
            assert!(Instant::now() >= at);
            assert!(poll_once(waits.as_mut()).await.is_pending(), "{far:?} has overflowed");
            // And it can be moved to something nearer.
            let at = Instant::now() + ms(2);
            a.set_read_deadline(at).unwrap();
            assert!(is_timeout(&waits.await));
            assert!(Instant::now() >= at);
        }
    });
}

fn the_two_sides_have_deadlines_of_their_own_and_one_call_sets_both<S: Socket>() {
    run(2, async {
        let (a, b) = S::pair().await;
        a.set_read_deadline(past()).unwrap();
        a.write(b"x").await.unwrap();
        assert!(is_timeout(&read_one(&a).await));
        assert_eq!(read_one(&b).await.unwrap(), b'x');
        a.set_deadline(None).unwrap();
        a.set_write_deadline(past()).unwrap();
        assert!(is_timeout(&a.write(b"!").await));
        b.write(b"z").await.unwrap();
        assert_eq!(read_one(&a).await.unwrap(), b'z');
        for through_handle in [false, true] {
            let set = |at: Option<Instant>| {
                if through_handle { a.handles().set_both(at) } else { a.set_deadline(at) }.unwrap();
            };
            set(Some(past()));
            assert!(is_timeout(&read_one(&a).await));
            assert!(is_timeout(&a.write(b"!").await));
            set(Some(Instant::now() + HOUR));
            a.write(b"w").await.unwrap();
            assert_eq!(read_one(&b).await.unwrap(), b'w', "nothing that had timed out was written");
            assert_waits(&a, Side::Read).await;
            set(Some(past()));
            set(None);
            assert_waits(&a, Side::Read).await;
        }
    });
}

fn prolonged_by_an_hour_each_time_it_arms_few_timers<S: Socket>() {
    let (_watchdog, runtime) = watched(2);
    runtime.block_on(async {
        let (a, b) = S::pair().await;
        let before = runtime.metrics().timers_armed;
        for count in 0..1_000_u32 {
            a.set_deadline(Instant::now() + HOUR).unwrap();
            b.set_deadline(Instant::now() + HOUR).unwrap();
            a.write(&[count as u8]).await.unwrap();
            assert_eq!(read_one(&b).await.unwrap(), count as u8);
        }
        let armed = runtime.metrics().timers_armed - before;
        assert!(armed <= 4, "{armed} timers for four sides");
    });
}

fn woken_by_data_and_run_after_the_deadline_an_operation_fails_and_leaves_the_data<S: Socket>() {
    run(2, async {
        let (a, b) = S::pair().await;
        let mut read = pin!(read_one(&a));
        assert!(poll_once(read.as_mut()).await.is_pending());
        b.write(b"x").await.unwrap();
        sleep(ms(5)).await;
        a.set_read_deadline(past()).unwrap();
        let Poll::Ready(result) = poll_once(read.as_mut()).await else { panic!("it must know") };
        assert!(is_timeout(&result));
        a.set_read_deadline(None).unwrap();
        assert_eq!(read_one(&a).await.unwrap(), b'x');
    });
}

fn an_operation_given_up_disturbs_nobody_and_leaves_nothing<S: Socket>() {
    let (_watchdog, runtime) = watched(2);
    runtime.block_on(async {
        let (a, b) = stuck_pair::<S>().await;
        for _ in 0..20 {
            for &side in S::WAITING {
                side.set(&a, Instant::now() + ms(1));
                let mut given_up = Box::pin(side.operate(&a));
                if let Poll::Ready(result) = poll_once(given_up.as_mut()).await {
                    assert!(is_timeout(&result), "{result:?}");
                }
                drop(given_up);
                sleep(ms(2)).await;
                side.set(&a, None);
            }
        }
        // Who was given up after an edge has woken it takes nobody's data along.
        let (mut woken, mut stays) = (Box::pin(read_one(&a)), pin!(read_one(&a)));
        assert!(poll_once(woken.as_mut()).await.is_pending());
        assert!(poll_once(stays.as_mut()).await.is_pending());
        b.write(b"x").await.unwrap();
        sleep(ms(2)).await;
        drop(woken);
        assert_eq!(timeout(SOON, stays).await.expect("the data was lost").unwrap(), b'x');
        a.set_deadline(Instant::now() + HOUR).unwrap();
    });
    assert_eq!(runtime.metrics().timers_pending, 0);
    assert_eq!(runtime.metrics().descriptors, 0);
}

fn the_handle_outlives_the_socket_fails_then_and_leaves_no_timer<S: Socket>() {
    let (_watchdog, runtime) = watched(2);
    runtime.block_on(async {
        let (a, _b) = S::pair().await;
        let handles = a.handles().clone();
        handles.set_both(Instant::now() + HOUR).unwrap();
        handles.set(Side::Write, None).unwrap();
        drop(a);
        let elsewhere = move || {
            for at in [None, Some(past()), Some(Instant::now() + HOUR)] {
                let sides = [Side::Read, Side::Write].map(|side| handles.set(side, at));
                for result in sides.into_iter().chain([handles.set_both(at)]) {
                    assert_ne!(result.unwrap_err().kind(), io::ErrorKind::TimedOut);
                }
            }
        };
        thread::spawn(elsewhere).join().unwrap();
    });
    assert_eq!(runtime.metrics().timers_pending, 0, "a closed socket leaves no timer");
    assert_eq!(runtime.metrics().descriptors, 0);
}

fn a_handle_does_not_keep_the_socket_open<S: Socket>() {
    run(2, async {
        let (a, b) = S::pair().await;
        let handles = a.handles();
        handles.set_both(Instant::now() + HOUR).unwrap();
        drop(a);
        assert_eq!(b.read(&mut [0]).await.unwrap(), 0, "closed, whoever has a handle");
        handles.set_both(None).unwrap_err();
    });
}

fn the_end_of_the_runtime_beats_a_deadline<S: Socket>() {
    let (a, waits, handles) = {
        let (_watchdog, runtime) = watched(2);
        let (a, waits, handles) = runtime.block_on(async {
            let ((a, _a), (b, _b)) = (S::pair().await, S::pair().await);
            a.set_deadline(past()).unwrap();
            assert!(is_timeout(&read_one(&a).await));
            // This one waits on a thread of its own, with a deadline to come, until the runtime ends.
            b.set_deadline(Instant::now() + HOUR).unwrap();
            let waiting = Arc::new(AtomicBool::new(false));
            let waits = thread::spawn({
                let waiting = Arc::clone(&waiting);
                move || {
                    mainspring::block_on(async {
                        let mut read = pin!(read_one(&b));
                        let first = poll_once(read.as_mut()).await;
                        waiting.store(true, Ordering::Relaxed);
                        assert!(first.is_pending());
                        let result = read.await;
                        drop(_b);
                        result
                    })
                }
            });
            common::until(|| waiting.load(Ordering::Relaxed)).await;
            let handles = a.handles();
            (a, waits, handles)
        });
        drop(runtime);
        (a, waits, handles)
    };
    for error in [mainspring::block_on(read_one(&a)).unwrap_err(), waits.join().unwrap().unwrap_err()] {
        assert_ne!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    }
    handles.set_both(None).unwrap_err();
}

fn a_deadline_passes_while_every_processor_runs_tasks<S: Socket>() {
    run(1, async {
        let (a, _b) = stuck_pair::<S>().await;
        let stop = Arc::new(AtomicBool::new(false));
        let busy: Vec<_> = (0..3)
            .map(|_| {
                let stop = Arc::clone(&stop);
                mainspring::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        mainspring::task::yield_now().await;
                    }
                })
            })
            .collect();
        for _ in 0..10 {
            for &side in S::WAITING {
                let at = Instant::now() + ms(1);
                side.set(&a, at);
                assert!(is_timeout(&side.operate(&a).await));
                assert!(Instant::now() >= at);
            }
        }
        stop.store(true, Ordering::Relaxed);
        for task in busy {
            task.await.unwrap();
        }
    });
}
