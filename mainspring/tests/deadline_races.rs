//! Deadlines of TCP sockets that are set, moved and taken away by several threads at once, beside reads,
//! writes, closing and functions of the user's.

mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use common::sockets::{byte_at, is_timeout, pair, read_one};
use common::{eventually, run, watched};
use mainspring::time::{Duration, Instant, after_func};

const HOUR: Duration = Duration::from_secs(3600);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[test]
fn reads_and_writes_race_with_deadlines_of_two_microseconds() {
    for processors in [1, 2, 8] {
        run(processors, async {
            let (a, b) = pair().await;
            let a = Arc::new(a);
            let stop = Arc::new(AtomicBool::new(false));
            let setter = {
                let (deadlines, stop) = (a.deadlines(), Arc::clone(&stop));
                thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        deadlines.set_deadline(Instant::now() + Duration::from_micros(2)).unwrap();
                        thread::yield_now();
                    }
                })
            };
            let echo = mainspring::spawn(async move {
                let mut buffer = [0; 4096];
                loop {
                    match b.read(&mut buffer).await.unwrap() {
                        0 => return,
                        count => b.write_all(&buffer[..count]).await.unwrap(),
                    }
                }
            });
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
                match read_one(&a).await {
                    Ok(byte) => {
                        assert_eq!(byte, byte_at(read));
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
            while read < written {
                assert_eq!(read_one(&a).await.unwrap(), byte_at(read));
                read += 1;
            }
            drop(a);
            echo.await.unwrap();
        });
    }
}

#[test]
fn threads_that_set_steadily_earlier_deadlines_at_once_end_every_read() {
    for processors in [1, 2] {
        run(processors, async {
            let mut pairs = Vec::new();
            for _ in 0..10 {
                pairs.push(pair().await);
            }
            let handles: Vec<_> = pairs.iter().map(|(a, _)| a.deadlines()).collect();
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
                                let _ = handle.set_read_deadline(first + ms(step * 10));
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

#[test]
fn setting_deadlines_while_the_socket_is_closed_leaves_no_timer() {
    let (_watchdog, runtime) = watched(2);
    runtime.block_on(async {
        for _ in 0..200 {
            let (a, _b) = pair().await;
            let deadlines = a.deadlines();
            let setter = thread::spawn(move || {
                let mut settings = 0_u32;
                while deadlines.set_deadline(Instant::now() + HOUR - ms(settings.into())).is_ok() {
                    settings += 1;
                }
            });
            mainspring::task::yield_now().await;
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
