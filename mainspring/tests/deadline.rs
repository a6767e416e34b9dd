//! Deadlines of TCP sockets, by behaviour: what Go's net package promises of them, and what its tests ask.
//!
//! That a deadline never passes early is checked exactly. How late it may pass is not the subject here: the
//! bounds only tell late from never.

mod common;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::thread;

use common::sockets::{byte_at, fill, is_timeout, pair, poll_once, read_one};
use common::{SOON, run, watched};
use mainspring::net::{TcpListener, TcpStream};
use mainspring::time::{Duration, Instant, sleep, timeout};

const HOUR: Duration = Duration::from_secs(3600);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A time that is over, by whatever clock.
fn past() -> Instant {
    Instant::now() - HOUR
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
    let (_watchdog, runtime) = watched(2);
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
    let (_watchdog, runtime) = watched(2);
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
fn the_end_of_the_runtime_beats_a_deadline() {
    let (a, deadlines) = {
        let (_watchdog, runtime) = watched(2);
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
