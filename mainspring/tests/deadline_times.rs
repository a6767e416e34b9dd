//! Deadlines of every kind of socket against the clock: for each length and each operation, never early and never
//! lost, while data flows and while it does not.
//!
//! Bounds from above are generous, as the machine may be busy; from below they are exact.

mod common;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::thread;

use common::kinds::{Side, Socket, assert_waits, on_every_kind, stuck_pair};
use common::sockets::{is_timeout, poll_once, read_one};
use common::{SOON, run, watched};
use mainspring::time::{Duration, Instant, sleep_until, timeout};

const HOUR: Duration = Duration::from_secs(3600);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn past() -> Instant {
    Instant::now() - HOUR
}

on_every_kind!(
    [
        an_operation_ends_at_its_deadline_however_far_that_is,
        no_deadline_passes_early_and_every_one_passes,
        deadlines_of_every_length_pass_while_data_flows_on_one_processor,
        deadlines_of_every_length_pass_while_data_flows_on_four_processors,
        what_comes_before_the_deadline_is_read_and_then_every_read_fails,
        a_deadline_set_while_operations_wait_without_one_ends_them,
        a_deadline_that_passed_and_was_cleared_lets_every_operation_wait,
        a_deadline_cleared_again_and_again_just_before_its_time_ends_nothing,
    ],
    []
);

/// Deadlines that double from a millisecond on, set before an operation begins or while it waits.
fn an_operation_ends_at_its_deadline_however_far_that_is<S: Socket>() {
    run(2, async {
        let (a, _b) = stuck_pair::<S>().await;
        for &side in S::WAITING {
            for after in (0..7).map(|power| ms(1 << power)) {
                for waits in [false, true] {
                    a.set_deadline(None).unwrap();
                    let mut operation = pin!(side.operate(&a));
                    if waits {
                        assert!(poll_once(operation.as_mut()).await.is_pending());
                    }
                    let start = Instant::now();
                    a.set_deadline(start + after).unwrap();
                    let result = timeout(SOON, operation).await.expect("its deadline was lost");
                    assert!(is_timeout(&result));
                    assert!(start.elapsed() >= after, "{after:?}: early");
                }
            }
        }
    });
}

fn no_deadline_passes_early_and_every_one_passes<S: Socket>() {
    for processors in [1, 2, 8] {
        run(processors, async {
            let (a, _b) = stuck_pair::<S>().await;
            let nanos = [1, 100, 1_000, 5_000, 20_000, 100_000, 500_000, 1_000_000, 3_000_000, 20_000_000];
            for after in nanos.into_iter().chain(nanos).map(Duration::from_nanos) {
                for &side in S::WAITING {
                    let at = Instant::now() + after;
                    side.set(&a, at);
                    assert!(is_timeout(&side.operate(&a).await));
                    assert!(Instant::now() >= at, "{side:?}, {after:?}: early");
                    assert!(at.elapsed() < SOON, "{side:?}, {after:?}: late by {:?}", at.elapsed());
                    assert!(is_timeout(&side.operate(&a).await), "{side:?}, {after:?}: it stays so");
                }
            }
        });
    }
}

/// Up to a second, in nanoseconds.
const VARIOUS: [u64; 19] = [
    1,
    2,
    5,
    50,
    100,
    200,
    500,
    750,
    1_000,
    5_000,
    25_000,
    250_000,
    500_000,
    1_000_000,
    5_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
];

/// Reads from a peer that writes without end, until the deadline.
async fn reads_until<S: Socket>(after: Duration) {
    let (a, b) = S::pair().await;
    let peer = mainspring::spawn(async move { while b.write(&[0; 4_096]).await.is_ok() {} });
    let mut buffer = vec![0; 4_096];
    let start = Instant::now();
    a.set_deadline(start + after).unwrap();
    let error = loop {
        match a.read(&mut buffer).await {
            Ok(count) => assert!(count > 0 && start.elapsed() < SOON, "{after:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(start.elapsed() >= after, "{after:?}: early");
    assert!(is_timeout(&a.write(b"!").await) || !S::TOGETHER, "{after:?}: the other side");
    // What has flowed meanwhile is still there.
    a.set_deadline(None).unwrap();
    assert!(a.read(&mut buffer).await.unwrap() > 0);
    drop(a);
    // A peer that finds that out for itself has ended by then.
    peer.abort();
    let _ = peer.await;
}

/// The short ones again and again, the long ones once and all at the same time.
fn deadlines_under_load<S: Socket>(processors: usize) {
    let (_watchdog, runtime) = watched(processors);
    let (long, short): (Vec<_>, Vec<_>) =
        VARIOUS.into_iter().map(Duration::from_nanos).partition(|&after| after > ms(10));
    runtime.block_on(async {
        mainspring::spawn(async move {
            for after in short {
                for _ in 0..10 {
                    reads_until::<S>(after).await;
                }
            }
        })
        .await
        .unwrap();
        let tasks: Vec<_> =
            long.into_iter().map(|after| mainspring::spawn(reads_until::<S>(after))).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(runtime.metrics().timers_pending, 0);
}

fn deadlines_of_every_length_pass_while_data_flows_on_one_processor<S: Socket>() {
    deadlines_under_load::<S>(1);
}

fn deadlines_of_every_length_pass_while_data_flows_on_four_processors<S: Socket>() {
    deadlines_under_load::<S>(4);
}

fn what_comes_before_the_deadline_is_read_and_then_every_read_fails<S: Socket>() {
    run(2, async {
        let (a, b) = S::pair().await;
        for byte in 0..10 {
            b.write(&[byte]).await.unwrap();
        }
        a.readable().await.unwrap();
        a.set_read_deadline(past()).unwrap();
        for _ in 0..2 {
            assert!(is_timeout(&read_one(&a).await));
        }
        let start = Instant::now();
        a.set_read_deadline(start + ms(50)).unwrap();
        let mut read = 0;
        let ended = loop {
            match read_one(&a).await {
                Ok(byte) => {
                    assert_eq!(byte, read);
                    read += 1;
                }
                Err(error) => break error,
            }
        };
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= ms(50));
        for _ in 0..2 {
            assert!(is_timeout(&read_one(&a).await));
        }
        // A machine that is busy may have taken the whole time for less; nothing is lost then either.
        a.set_read_deadline(None).unwrap();
        for byte in read..10 {
            assert_eq!(read_one(&a).await.unwrap(), byte);
        }
    });
}

/// Polls an operation of each side that can wait, and ends them by one deadline for both.
async fn ends_both<S: Socket, F: Future<Output = io::Result<usize>>>(
    a: &S,
    operation: impl Fn(Side) -> F,
    set: impl FnOnce(Instant),
) {
    let mut waiting: Vec<_> = S::WAITING.iter().map(|&side| Box::pin(operation(side))).collect();
    for operation in &mut waiting {
        assert!(poll_once(operation.as_mut()).await.is_pending());
    }
    let at = Instant::now() + ms(10);
    set(at);
    for operation in waiting {
        assert!(is_timeout(&operation.await));
    }
    assert!(Instant::now() >= at);
    a.set_deadline(None).unwrap();
}

fn a_deadline_set_while_operations_wait_without_one_ends_them<S: Socket>() {
    run(2, async {
        let (a, _b) = stuck_pair::<S>().await;
        ends_both(&a, |side| side.operate(&a), |at| a.set_deadline(at).unwrap()).await;
        let handles = a.handles();
        let from_elsewhere = |at| thread::spawn(move || handles.set_both(at)).join().unwrap().unwrap();
        ends_both(&a, |side| side.operate(&a), from_elsewhere).await;
    });
}

fn a_deadline_that_passed_and_was_cleared_lets_every_operation_wait<S: Socket>() {
    run(2, async {
        let (a, _b) = stuck_pair::<S>().await;
        a.set_deadline(past()).unwrap();
        for side in [Side::Read, Side::Write] {
            assert!(is_timeout(&side.operate(&a).await));
        }
        a.handles().set_both(None).unwrap();
        for &side in S::WAITING {
            assert_waits(&a, side).await;
        }
        // One side only: the other stays as it was.
        for &side in S::WAITING {
            let other = if side == Side::Read { Side::Write } else { Side::Read };
            a.set_deadline(past()).unwrap();
            side.set(&a, None);
            assert_waits(&a, side).await;
            assert!(is_timeout(&other.operate(&a).await));
        }
    });
}

fn a_deadline_cleared_again_and_again_just_before_its_time_ends_nothing<S: Socket>() {
    run(2, async {
        let (a, b) = S::pair().await;
        let a = Arc::new(a);
        let reader = {
            let a = Arc::clone(&a);
            mainspring::spawn(async move { read_one(&*a).await })
        };
        for _ in 0..30 {
            let at = Instant::now() + ms(2);
            a.set_read_deadline(at).unwrap();
            sleep_until(at - ms(1)).await;
            a.set_read_deadline(None).unwrap();
            if Instant::now() >= at {
                // The machine was busy. What has ended must have ended by the deadline.
                break;
            }
            sleep_until(at + Duration::from_micros(200)).await;
            assert!(!reader.is_finished(), "a deadline that was cleared in time has ended the read");
        }
        b.write(b"x").await.unwrap();
        let result = reader.await.unwrap();
        assert!(is_timeout(&result) || result.unwrap() == b'x');
    });
}
