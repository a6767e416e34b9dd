//! Deadlines of every kind of socket that are set, moved and taken away by several threads at once, beside
//! reads, writes, closing and functions of the user's.

mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread;

use common::kinds::{Side, Socket, assert_waits, on_every_kind, stuck_pair};
use common::sockets::{byte_at, is_timeout, pair, poll_once, read_one};
use common::{SOON, eventually, run, until, watched};
use mainspring::time::{Duration, Instant, after_func, timeout};

const HOUR: Duration = Duration::from_secs(3600);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

on_every_kind!(
    [
        reads_and_writes_race_with_deadlines_of_two_microseconds,
        threads_that_set_steadily_earlier_deadlines_at_once_end_every_read,
        a_deadline_moved_exactly_when_the_former_one_passes_is_neither_missed_nor_early,
        closing_while_deadlines_pass_and_are_set_leaves_no_timer,
    ],
    []
);

/// Sends back whatever comes, until the other end is closed or the task is aborted.
async fn echo<S: Socket>(b: S) {
    let mut buffer = [0; 4096];
    while let Ok(count) = b.read(&mut buffer).await
        && count > 0
    {
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let Ok(count) = b.write(rest).await else { return };
            rest = &rest[count..];
        }
    }
}

fn reads_and_writes_race_with_deadlines_of_two_microseconds<S: Socket>() {
    // What UDP's peer has no room for is thrown away.
    let reliable = S::WAITING.contains(&Side::Write);
    for processors in [1, 2, 8] {
        run(processors, async {
            let (a, b) = S::pair().await;
            let a = Arc::new(a);
            let stop = Arc::new(AtomicBool::new(false));
            let setter = {
                let (handles, stop) = (a.handles(), Arc::clone(&stop));
                thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        handles.set_both(Instant::now() + Duration::from_micros(2)).unwrap();
                        thread::yield_now();
                    }
                })
            };
            let echo = mainspring::spawn(echo(b));
            let writer = {
                let a = Arc::clone(&a);
                mainspring::spawn(async move {
                    let mut written = 0;
                    for _ in 0..1_000 {
                        match a.write(&[byte_at(written)]).await {
                            Ok(count) => written += count,
                            result => assert!(is_timeout(&result), "{result:?}"),
                        }
                    }
                    written
                })
            };
            let mut read = 0;
            for _ in 0..1_000 {
                match read_one(&*a).await {
                    Ok(byte) => {
                        assert!(byte == byte_at(read) || !reliable);
                        read += 1;
                    }
                    result => assert!(is_timeout(&result), "{result:?}"),
                }
            }
            let written = writer.await.unwrap();
            stop.store(true, Ordering::Relaxed);
            setter.join().unwrap();
            // All that was written comes back, however often reading has timed out.
            a.set_deadline(None).unwrap();
            while reliable && read < written {
                assert_eq!(read_one(&*a).await.unwrap(), byte_at(read));
                read += 1;
            }
            echo.abort();
            let _ = echo.await;
        });
    }
}

fn threads_that_set_steadily_earlier_deadlines_at_once_end_every_read<S: Socket>() {
    for processors in [1, 2] {
        run(processors, async {
            let mut pairs = Vec::new();
            for _ in 0..10 {
                pairs.push(S::pair().await);
            }
            let handles: Vec<_> = pairs.iter().map(|(a, _)| a.handles()).collect();
            let start = Instant::now();
            let first = start + ms(20);
            let readers: Vec<_> = pairs
                .into_iter()
                .map(|(a, b)| {
                    mainspring::spawn(async move {
                        let result = read_one(&a).await;
                        drop(b);
                        (result, Instant::now())
                    })
                })
                .collect();
            let setters: Vec<_> = (0..8)
                .map(|_| {
                    let handles = handles.clone();
                    thread::spawn(move || {
                        for step in (0..100).rev() {
                            for handle in &handles {
                                // Readers end as soon as the first of them passes, and close.
                                let _ = handle.set(Side::Read, first + ms(step * 10));
                            }
                        }
                    })
                })
                .collect();
            setters.into_iter().for_each(|setter| setter.join().unwrap());
            for reader in readers {
                let (result, ended) = reader.await.unwrap();
                assert!(is_timeout(&result));
                assert!(ended >= first, "before any of the deadlines");
            }
        });
    }
}

/// Waits for a thread without blocking this one.
async fn joined<T>(thread: thread::JoinHandle<T>) -> T {
    until(|| thread.is_finished()).await;
    thread.join().unwrap()
}

/// One thread waits until the very moment of each deadline and sets the next one then, while its timer goes
/// off and a task waits. Each deadline must pass or be replaced, none may pass before its time.
fn a_deadline_moved_exactly_when_the_former_one_passes_is_neither_missed_nor_early<S: Socket>() {
    run(2, async {
        let (a, b) = stuck_pair::<S>().await;
        let a = Arc::new(a);
        for &side in S::WAITING {
            for after in [5, 20, 60, 200].map(Duration::from_micros) {
                let first = Instant::now() + after;
                side.set(&*a, first);
                let task = {
                    let a = Arc::clone(&a);
                    mainspring::spawn(async move { (side.operate(&*a).await, Instant::now()) })
                };
                let handles = a.handles();
                let setter = thread::spawn(move || {
                    let mut at = first;
                    for _ in 0..50 {
                        while Instant::now() < at {
                            std::hint::spin_loop();
                        }
                        at = Instant::now() + after;
                        handles.set(side, at).unwrap();
                    }
                    at
                });
                let (result, ended) = timeout(SOON, task).await.expect("missed").unwrap();
                assert!(is_timeout(&result), "{result:?}");
                assert!(ended >= first, "early by {:?}", first - ended);
                let last = joined(setter).await;
                let result = timeout(SOON, side.operate(&*a)).await.expect("the last one is missed");
                assert!(is_timeout(&result), "{result:?}");
                assert!(Instant::now() >= last, "the last one is early by {:?}", last - Instant::now());
                // No timer of a former one reaches what is set now.
                side.set(&*a, Instant::now() + HOUR);
                assert_waits(&*a, side).await;
            }
        }
        a.set_deadline(None).unwrap();
        b.write(b"x").await.unwrap();
        assert_eq!(read_one(&*a).await.unwrap(), b'x');
    });
}

/// The socket is dropped at all moments of deadlines that are set, moved earlier, about to pass and passing.
fn closing_while_deadlines_pass_and_are_set_leaves_no_timer<S: Socket>() {
    let (_watchdog, runtime) = watched(2);
    runtime.block_on(async {
        for round in 0..200 {
            let (a, _b) = S::pair().await;
            let handles = a.handles();
            let setter = thread::spawn(move || {
                let mut settings = 0_u32;
                let after = |settings| match round % 2 {
                    0 => HOUR - ms(u64::from(settings)),
                    _ => Duration::from_micros(u64::from(settings % 30)),
                };
                while handles.set_both(Instant::now() + after(settings)).is_ok() {
                    settings += 1;
                }
            });
            // A read that is given up by the drop, or that some deadline has ended.
            let mut read = Box::pin(read_one(&a));
            for _ in 0..round % 8 {
                if let Poll::Ready(result) = poll_once(read.as_mut()).await {
                    assert!(is_timeout(&result), "{result:?}");
                    read = Box::pin(read_one(&a));
                }
                mainspring::task::yield_now().await;
            }
            drop(read);
            drop(a);
            setter.join().unwrap();
        }
    });
    assert_eq!(runtime.metrics().timers_pending, 0);
    assert_eq!(runtime.metrics().descriptors, 0);
}

/// After Go's issue 35532: there a timer function ran under the timers' lock, and whoever set a deadline
/// had the descriptor's lock and wanted the timers'. The parties are the same: a reader that waits, a loop that sets
/// its deadline two microseconds ahead, and, in the scavenger's place, a job that arms a timer under a lock which the
/// timer's function takes, here the user's own mutex. `MAINSPRING_SOAK_SECONDS` says for how long.
#[test]
fn deadlines_and_functions_that_share_a_mutex_with_their_makers_do_not_deadlock() {
    let seconds = std::env::var("MAINSPRING_SOAK_SECONDS")
        .map_or(3, |text| text.parse().expect("MAINSPRING_SOAK_SECONDS is a whole number"));
    let end = Instant::now() + Duration::from_secs(seconds);
    let (watchdog, runtime) = watched(2);
    let (a, _b) = runtime.block_on(pair());
    let deadlines = a.deadlines();
    let reads = Arc::new(AtomicUsize::new(0));
    let calls = Arc::new(AtomicUsize::new(0));
    let armed = Arc::new(AtomicUsize::new(0));
    let reader = {
        let reads = Arc::clone(&reads);
        runtime.spawn(async move {
            loop {
                let result = read_one(&a).await;
                assert!(is_timeout(&result), "{result:?}");
                if reads.fetch_add(1, Ordering::Relaxed).is_multiple_of(64) {
                    mainspring::task::yield_now().await;
                }
            }
        })
    };
    let shared = Arc::new(Mutex::new(0_u64));
    let arm = {
        let (handle, calls, armed) = (runtime.handle(), Arc::clone(&calls), Arc::clone(&armed));
        let shared = Arc::clone(&shared);
        move || {
            handle.block_on(async {
                while Instant::now() < end {
                    // Not more than the functions can keep up with.
                    if armed.load(Ordering::Relaxed) - calls.load(Ordering::Relaxed) > 1_000 {
                        thread::yield_now();
                        continue;
                    }
                    armed.fetch_add(1, Ordering::Relaxed);
                    let (inner, calls) = (Arc::clone(&shared), Arc::clone(&calls));
                    let mut held = shared.lock().unwrap();
                    *held += 1;
                    after_func(Duration::from_micros(2), move || {
                        *inner.lock().unwrap() += 1;
                        calls.fetch_add(1, Ordering::Relaxed);
                    });
                }
            });
        }
    };
    let set = move || {
        while Instant::now() < end {
            deadlines.set_read_deadline(Instant::now() + Duration::from_micros(2)).unwrap();
        }
    };
    let threads = [thread::spawn(arm), thread::spawn(set)];
    // Each half second must bring something, however long the soak.
    let mut before = (0, 0);
    while Instant::now() < end {
        let now = || (reads.load(Ordering::Relaxed), calls.load(Ordering::Relaxed));
        eventually("nothing moves any more", || {
            (now().0 > before.0 && now().1 > before.1) || Instant::now() >= end
        });
        before = now();
        thread::sleep(ms(500).min(end - Instant::now()));
        watchdog.step("the next half second");
        watchdog.watch(&runtime.handle());
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    eventually("every function runs", || calls.load(Ordering::Relaxed) == armed.load(Ordering::Relaxed));
    assert!(reads.load(Ordering::Relaxed) > 100 && calls.load(Ordering::Relaxed) > 100);
    reader.abort();
    drop(runtime);
    drop(watchdog);
}
