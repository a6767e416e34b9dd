//! Deadlines of TCP sockets, by behaviour: what Go's net package promises of them, and what its tests ask.
//!
//! That a deadline never passes early is checked exactly. How late it may pass is not the subject here: the
//! bounds only tell late from never.

mod sockets;

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread;

use mainspring::net::{TcpListener, TcpStream};
use mainspring::time::{Duration, Instant, after_func, sleep, timeout};
use sockets::{SOON, byte_at, eventually, fill, is_timeout, pair, poll_once, run, runtime};

const HOUR: Duration = Duration::from_secs(3600);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A time that is over, by whatever clock.
fn past() -> Instant {
    Instant::now() - HOUR
}

async fn read_one(stream: &TcpStream) -> io::Result<u8> {
    let mut buffer = [0];
    match stream.read(&mut buffer).await? {
        1 => Ok(buffer[0]),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Checks that the side is usable and has nothing: the read waits.
async fn assert_read_blocks(stream: &TcpStream) {
    let read = pin!(read_one(stream));
    assert!(timeout(ms(20), read).await.is_err(), "nothing was sent, and the deadline is no more");
}

#[test]
fn a_past_deadline_fails_at_once_also_with_data_ready_and_no_byte_is_lost() {
    run(2, async {
        let (a, b) = pair().await;
        b.write_all(b"xyz").await.unwrap();
        a.peek(&mut [0]).await.unwrap();
        for _ in 0..3 {
            for at in [past(), Instant::now()] {
                a.set_read_deadline(at).unwrap();
                assert!(is_timeout(&read_one(&a).await));
                assert!(is_timeout(&a.peek(&mut [0]).await));
                assert!(is_timeout(&a.read(&mut []).await), "also a read of nothing");
                assert!(is_timeout(&a.readv(&mut [io::IoSliceMut::new(&mut [0])]).await));
            }
        }
        a.set_read_deadline(None).unwrap();
        assert_eq!(read_one(&a).await.unwrap(), b'x');
        a.set_read_deadline(past()).unwrap();
        assert!(is_timeout(&read_one(&a).await));
        a.set_read_deadline(Instant::now() + HOUR).unwrap();
        assert_eq!(read_one(&a).await.unwrap(), b'y');
        assert_eq!(read_one(&a).await.unwrap(), b'z');
        assert_read_blocks(&a).await;
    });
}

#[test]
fn a_past_deadline_wakes_whoever_waits_at_once() {
    run(2, async {
        let (a, _b) = pair().await;
        for at in [past(), Instant::now()] {
            a.set_read_deadline(None).unwrap();
            let mut read = pin!(read_one(&a));
            assert!(poll_once(read.as_mut()).await.is_pending());
            let deadlines = a.deadlines();
            let setter = thread::spawn(move || deadlines.set_read_deadline(at));
            assert!(is_timeout(&read.await));
            setter.join().unwrap().unwrap();
        }
    });
}

#[test]
fn no_deadline_passes_early_and_every_one_passes() {
    for processors in [1, 2, 8] {
        run(processors, async {
            let (a, _b) = pair().await;
            fill(&a).await;
            let nanos = [1, 100, 1_000, 5_000, 20_000, 100_000, 500_000, 1_000_000, 3_000_000, 20_000_000];
            for after in nanos.into_iter().chain(nanos).map(Duration::from_nanos) {
                let at = Instant::now() + after;
                a.set_read_deadline(at).unwrap();
                assert!(is_timeout(&read_one(&a).await));
                assert!(Instant::now() >= at, "{after:?}: early");
                assert!(at.elapsed() < SOON, "{after:?}: late by {:?}", at.elapsed());
                assert!(is_timeout(&read_one(&a).await), "{after:?}: it stays so");
                let at = Instant::now() + after;
                a.set_write_deadline(at).unwrap();
                assert!(is_timeout(&a.write(b"x").await));
                assert!(Instant::now() >= at, "{after:?}: early to write");
            }
        });
    }
}

#[test]
fn a_deadline_holds_for_all_who_wait() {
    run(2, async {
        let (a, _b) = pair().await;
        let a = Arc::new(a);
        let at = Instant::now() + ms(10);
        let readers: Vec<_> = (0..20)
            .map(|_| {
                let a = Arc::clone(&a);
                mainspring::spawn(async move { (read_one(&a).await, Instant::now()) })
            })
            .collect();
        a.set_read_deadline(at).unwrap();
        for reader in readers {
            let (result, ended) = reader.await.unwrap();
            assert!(is_timeout(&result));
            assert!(ended >= at);
        }
    });
}

/// Has one reader wait while its deadline is moved from each of `steps` to the next by another thread.
/// True if every move came before the time that it replaced; then the read must have lasted until the last.
/// A machine that is busy with other things may come too late now and then.
async fn extend_under_a_reader(a: &TcpStream, steps: Vec<Instant>) -> bool {
    let last = *steps.last().unwrap();
    a.set_read_deadline(steps[0]).unwrap();
    let mut read = pin!(read_one(a));
    if poll_once(read.as_mut()).await.is_ready() {
        assert!(Instant::now() >= steps[0]);
        return false;
    }
    let deadlines = a.deadlines();
    let setter = thread::spawn(move || {
        steps.windows(2).all(|step| {
            deadlines.set_read_deadline(step[1]).unwrap();
            Instant::now() < step[0]
        })
    });
    assert!(is_timeout(&read.await));
    let ended = Instant::now();
    let in_time = setter.join().unwrap();
    assert!(ended >= last || !in_time, "early by {:?}", last - ended);
    in_time
}

#[test]
fn extending_it_under_a_blocked_reader_keeps_it_blocked_until_the_new_time() {
    run(2, async {
        let (a, _b) = pair().await;
        let mut in_time = 0;
        for round in 0..20 {
            let start = Instant::now();
            in_time += u32::from(extend_under_a_reader(&a, vec![start + ms(5), start + ms(10)]).await);
            let start = Instant::now();
            let many = (5..50).map(|step| start + ms(step + round) / 2).collect();
            in_time += u32::from(extend_under_a_reader(&a, many).await);
        }
        assert!(in_time > 0, "this machine is too slow for the test to show anything");
        a.set_read_deadline(None).unwrap();
        assert_read_blocks(&a).await;
    });
}

#[test]
fn shortening_it_under_a_blocked_reader_takes_effect() {
    run(2, async {
        let (a, _b) = pair().await;
        a.set_read_deadline(Instant::now() + HOUR).unwrap();
        let mut read = pin!(read_one(&a));
        assert!(poll_once(read.as_mut()).await.is_pending());
        let at = Instant::now() + ms(5);
        let deadlines = a.deadlines();
        thread::spawn(move || deadlines.set_read_deadline(at)).join().unwrap().unwrap();
        assert!(is_timeout(&read.await));
        assert!(Instant::now() >= at);
        assert!(at.elapsed() < SOON);
    });
}

#[test]
fn clearing_it_and_the_greatest_time_let_operations_wait_without_limit() {
    run(2, async {
        let (a, b) = pair().await;
        for never in [None, Some(Instant::now() + Duration::MAX)] {
            a.set_deadline(past()).unwrap();
            a.set_read_deadline(never).unwrap();
            assert_read_blocks(&a).await;
            assert!(is_timeout(&a.write(b"x").await), "the side for writing has its own");
            // Cleared while somebody waits: nobody is woken, and what comes is read.
            a.set_read_deadline(Instant::now() + ms(10)).unwrap();
            let mut read = pin!(read_one(&a));
            assert!(poll_once(read.as_mut()).await.is_pending());
            a.set_read_deadline(never).unwrap();
            assert!(timeout(ms(30), read.as_mut()).await.is_err());
            b.write_all(b"x").await.unwrap();
            assert_eq!(read.await.unwrap(), b'x');
        }
    });
}

#[test]
fn the_two_sides_have_deadlines_of_their_own_and_set_deadline_sets_both() {
    run(2, async {
        let (a, b) = pair().await;
        a.set_read_deadline(past()).unwrap();
        a.write_all(b"x").await.unwrap();
        assert!(is_timeout(&read_one(&a).await));
        assert_eq!(read_one(&b).await.unwrap(), b'x');
        a.set_deadline(None).unwrap();
        a.set_write_deadline(past()).unwrap();
        assert!(is_timeout(&a.write(b"y").await));
        assert!(is_timeout(&a.writev(&[io::IoSlice::new(b"y")]).await));
        b.write_all(b"z").await.unwrap();
        assert_eq!(read_one(&a).await.unwrap(), b'z');
        a.set_deadline(past()).unwrap();
        assert!(is_timeout(&read_one(&a).await));
        assert!(is_timeout(&a.write(b"y").await));
        a.set_deadline(Instant::now() + HOUR).unwrap();
        a.write_all(b"w").await.unwrap();
        assert_eq!(read_one(&b).await.unwrap(), b'w', "nothing that had timed out was written");
    });
}

#[test]
fn what_a_write_took_before_its_deadline_arrives_and_nothing_else() {
    run(2, async {
        let (a, b) = pair().await;
        let mut taken = fill(&a).await;
        a.set_write_deadline(Instant::now() + ms(5)).unwrap();
        let chunk: Vec<u8> = (taken..taken + 65_536).map(byte_at).collect();
        assert!(is_timeout(&a.write(&chunk).await));
        assert!(is_timeout(&a.write(&chunk).await), "it stays so");
        let reader = mainspring::spawn(async move {
            let mut all = Vec::new();
            let mut buffer = vec![0; 100_000];
            loop {
                match b.read(&mut buffer).await.unwrap() {
                    0 => return all,
                    count => all.extend_from_slice(&buffer[..count]),
                }
            }
        });
        a.set_write_deadline(Instant::now() + HOUR).unwrap();
        let last = taken + 1_000_000;
        while taken < last {
            let chunk: Vec<u8> = (taken..last).map(byte_at).collect();
            taken += a.write(&chunk).await.unwrap();
        }
        drop(a);
        let all = reader.await.unwrap();
        assert_eq!(all.len(), last);
        assert!(all.iter().enumerate().all(|(place, byte)| *byte == byte_at(place)));
    });
}

#[test]
fn a_listener_has_a_deadline_too_and_loses_no_connection_by_it() {
    run(2, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let client = TcpStream::connect(addr).await.unwrap();
        listener.set_deadline(past()).unwrap();
        assert!(is_timeout(&listener.accept().await), "also with a connection waiting");
        listener.set_deadline(None).unwrap();
        let (_server, peer) = listener.accept().await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());

        // None at first, then one while the accept waits.
        let mut accept = pin!(listener.accept());
        assert!(poll_once(accept.as_mut()).await.is_pending());
        let at = Instant::now() + ms(10);
        listener.deadlines().set_read_deadline(at).unwrap();
        assert!(is_timeout(&accept.await));
        assert!(Instant::now() >= at);

        // Over, then cleared: it waits, and gets what comes.
        listener.set_deadline(None).unwrap();
        let mut accept = pin!(listener.accept());
        assert!(timeout(ms(20), accept.as_mut()).await.is_err());
        let client = TcpStream::connect(addr).await.unwrap();
        assert_eq!(accept.await.unwrap().1, client.local_addr().unwrap());
    });
}

#[test]
fn an_accepted_or_connected_stream_has_no_deadline_of_its_listeners() {
    run(2, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        listener.set_deadline(Instant::now() + HOUR).unwrap();
        let (server, _) = listener.accept().await.unwrap();
        listener.set_deadline(past()).unwrap();
        client.write_all(b"x").await.unwrap();
        assert_eq!(read_one(&server).await.unwrap(), b'x');
    });
}

#[test]
fn a_deadline_prolonged_by_an_hour_each_time_arms_few_timers() {
    let (runtime, _watchdog) = runtime(2);
    runtime.block_on(async {
        let (a, b) = pair().await;
        let before = runtime.metrics().timers_armed;
        for count in 0..2_000_u32 {
            a.set_deadline(Instant::now() + HOUR).unwrap();
            b.set_deadline(Instant::now() + HOUR).unwrap();
            a.write_all(&[count as u8]).await.unwrap();
            assert_eq!(read_one(&b).await.unwrap(), count as u8);
        }
        let armed = runtime.metrics().timers_armed - before;
        assert!(armed <= 4, "{armed} timers for four sides");
    });
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
fn an_operation_that_was_woken_by_data_and_runs_after_the_deadline_fails_and_leaves_the_data() {
    run(2, async {
        let (a, b) = pair().await;
        let mut read = pin!(read_one(&a));
        assert!(poll_once(read.as_mut()).await.is_pending());
        b.write_all(b"x").await.unwrap();
        sleep(ms(5)).await;
        a.set_read_deadline(past()).unwrap();
        let Poll::Ready(result) = poll_once(read.as_mut()).await else { panic!("it must know") };
        assert!(is_timeout(&result));
        a.set_read_deadline(None).unwrap();
        assert_eq!(read_one(&a).await.unwrap(), b'x');
    });
}

#[test]
fn the_handle_outlives_the_socket_fails_then_and_does_not_keep_it_open() {
    let (runtime, _watchdog) = runtime(2);
    runtime.block_on(async {
        let (a, b) = pair().await;
        let deadlines = a.deadlines().clone();
        deadlines.set_deadline(Instant::now() + HOUR).unwrap();
        deadlines.set_write_deadline(None).unwrap();
        drop(a);
        assert_eq!(b.read(&mut [0]).await.unwrap(), 0, "closed, whoever has a handle");
        for at in [None, Some(past()), Some(Instant::now() + HOUR)] {
            for result in [
                deadlines.set_deadline(at),
                deadlines.set_read_deadline(at),
                deadlines.set_write_deadline(at),
            ] {
                assert_ne!(result.unwrap_err().kind(), io::ErrorKind::TimedOut);
            }
        }
        let deadlines = b.deadlines();
        let std = b.into_std();
        deadlines.set_deadline(past()).unwrap_err();
        drop(std);
    });
    assert_eq!(runtime.metrics().timers_pending, 0, "a closed socket leaves no timer");
    assert_eq!(runtime.metrics().descriptors, 0);
}

#[test]
fn setting_deadlines_while_the_socket_is_closed_leaves_no_timer() {
    let (runtime, _watchdog) = runtime(2);
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

#[test]
fn the_end_of_the_runtime_beats_a_deadline() {
    let (a, deadlines) = {
        let (runtime, _watchdog) = runtime(2);
        runtime.block_on(async {
            let (a, _b) = pair().await;
            a.set_deadline(past()).unwrap();
            assert!(is_timeout(&read_one(&a).await));
            let deadlines = a.deadlines();
            (a, deadlines)
        })
    };
    let error = mainspring::block_on(read_one(&a)).unwrap_err();
    assert_ne!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    deadlines.set_deadline(None).unwrap_err();
}

#[test]
fn a_deadline_passes_while_every_processor_runs_tasks() {
    run(1, async {
        let (a, _b) = pair().await;
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
        for _ in 0..20 {
            let at = Instant::now() + ms(1);
            a.set_read_deadline(at).unwrap();
            assert!(is_timeout(&read_one(&a).await));
            assert!(Instant::now() >= at);
        }
        stop.store(true, Ordering::Relaxed);
        for task in busy {
            task.await.unwrap();
        }
    });
}

/// After Go's issue 35532: there a timer function ran under the timers' lock, and whoever set a deadline
/// had the descriptor's lock and wanted the timers'. Here the user's own mutex closes the circle.
#[test]
fn deadlines_and_functions_that_share_a_mutex_with_their_makers_do_not_deadlock() {
    let seconds = std::env::var("MAINSPRING_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(3));
    let (runtime, mut watchdog) = runtime(2);
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
        watchdog = sockets::Watchdog::new(runtime.handle());
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    eventually("every function runs", || calls.load(Ordering::Relaxed) == armed.load(Ordering::Relaxed));
    assert!(reads.load(Ordering::Relaxed) > 100 && calls.load(Ordering::Relaxed) > 100);
    reader.abort();
    drop(runtime);
    drop(watchdog);
}
