//! Listeners by behaviour: accepting by several, given up, without descriptors, and after the end of the runtime. Run for
//! each kind of listener by the test program that includes it, which has `Listener`, `Stream`, `pair`, `listen`,
//! `connect`, and `connect_socket`, which connects a socket that exists already.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant as StdInstant;

use mainspring::time::{Duration, Instant, sleep, timeout};

use super::common::foreign::foreign_block_on;
use super::common::sockets::{byte_at, fill, is_timeout, poll_once, read_one};
use super::common::{SOON, eventually, run, watched};
use super::{DOMAIN, Listener, Stream, connect, connect_socket, listen, pair};

#[test]
fn an_accept_that_is_dropped_loses_no_connection() {
    run(2, async {
        let listener = listen().await;
        for number in 0..50 {
            let client;
            {
                let mut accept = pin!(listener.accept());
                assert!(poll_once(accept.as_mut()).await.is_pending());
                client = connect(&listener).await.unwrap();
                sleep(Duration::from_micros(200)).await;
            }
            client.write_all(&[number]).await.unwrap();
            let (server, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
            assert_eq!(read_one(&server).await.unwrap(), number);
        }
    });
}

#[test]
fn several_acceptors_take_every_connection() {
    run(2, async {
        let listener = Arc::new(listen().await);
        let acceptors: Vec<_> = (0..4)
            .map(|_| {
                let listener = Arc::clone(&listener);
                mainspring::spawn(async move {
                    for _ in 0..25 {
                        listener.accept().await.unwrap();
                    }
                })
            })
            .collect();
        let clients: Vec<_> = (0..100)
            .map(|_| {
                let listener = Arc::clone(&listener);
                mainspring::spawn(async move { connect(&listener).await.map(drop) })
            })
            .collect();
        for client in clients {
            client.await.unwrap().unwrap();
        }
        for acceptor in acceptors {
            timeout(SOON, acceptor).await.expect("it misses a connection").unwrap();
        }
    });
}

#[test]
fn an_accept_that_waits_ends_at_the_deadline_and_a_connection_that_came_later_is_there() {
    run(2, async {
        let listener = listen().await;
        let at = Instant::now() + Duration::from_millis(5);
        listener.set_deadline(at).unwrap();
        assert!(is_timeout(&listener.accept().await));
        assert!(Instant::now() >= at);
        let _client = connect(&listener).await.unwrap();
        assert!(is_timeout(&listener.accept().await));
        listener.set_deadline(None).unwrap();
        timeout(SOON, listener.accept()).await.unwrap().unwrap();
    });
}

// Without descriptors.

/// Runs a test in a child process that may open few files; false in that process.
fn in_a_child_with_few_descriptors(test: &str) -> bool {
    const CHILD: &str = "MAINSPRING_TEST_FEW_DESCRIPTORS";
    if std::env::var_os(CHILD).is_some() {
        return false;
    }
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("accepting::{test}")])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{said}");
    true
}

/// All descriptors that there are.
fn take_all() -> Vec<std::fs::File> {
    std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect()
}

fn is_emfile<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.raw_os_error() == Some(24))
}

#[test]
fn without_descriptors_accept_fails_and_the_connection_waits() {
    if in_a_child_with_few_descriptors("without_descriptors_accept_fails_and_the_connection_waits") {
        return;
    }
    run(2, async {
        let listener = listen().await;
        let client = connect(&listener).await.unwrap();
        client.write_all(b"x").await.unwrap();
        let files = take_all();
        for _ in 0..3 {
            assert!(is_emfile(&listener.accept().await));
        }
        assert!(is_emfile(&connect(&listener).await));
        drop(files);
        let (server, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
        assert_eq!(read_one(&server).await.unwrap(), b'x');
    });
}

#[test]
fn without_descriptors_loops_that_accept_again_at_once_do_not_spin() {
    const SPAN: Duration = Duration::from_millis(1_200);
    if in_a_child_with_few_descriptors("without_descriptors_loops_that_accept_again_at_once_do_not_spin") {
        return;
    }
    run(2, async {
        let listener = Arc::new(listen().await);
        let first = connect(&listener).await.unwrap();
        first.write_all(b"x").await.unwrap();
        // Ready to be connected later: there will be no descriptors for them.
        let sockets: Vec<_> =
            (0..20).map(|_| socket2::Socket::new(DOMAIN, socket2::Type::STREAM, None).unwrap()).collect();
        for acceptors in [1_usize, 3] {
            let files = take_all();
            let errors = Arc::new(AtomicUsize::new(0));
            let accepting: Vec<_> = (0..acceptors)
                .map(|_| {
                    let (listener, errors) = (Arc::clone(&listener), Arc::clone(&errors));
                    mainspring::spawn(async move {
                        loop {
                            match listener.accept().await {
                                Ok((server, _)) => return server,
                                Err(_) => errors.fetch_add(1, Ordering::Relaxed),
                            };
                        }
                    })
                })
                .collect();
            let cpu = cpu_time();
            // Connections that come meanwhile are no reason to try again.
            for socket in &sockets[(acceptors - 1) * 5..][..10] {
                connect_socket(socket, &listener);
                sleep(SPAN / 10).await;
            }
            // 5, 10, 20, 40 ms and so on: eight pauses, and one error before each and after the last.
            let errors = errors.load(Ordering::Relaxed);
            assert!(
                (3..=9 * acceptors).contains(&errors),
                "{errors} errors of {acceptors} acceptors in {SPAN:?}"
            );
            let cpu = cpu_time() - cpu;
            assert!(cpu < SPAN / 3, "{cpu:?} of CPU time in {SPAN:?}");
            drop(files);
            for acceptor in accepting {
                timeout(SOON, acceptor).await.expect("there are connections and descriptors").unwrap();
            }
        }
        drop(sockets);
    });
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn a_pause_ends_at_the_deadline_and_is_short_again_after_a_success() {
    if in_a_child_with_few_descriptors("a_pause_ends_at_the_deadline_and_is_short_again_after_a_success") {
        return;
    }
    run(2, async {
        let listener = listen().await;
        let _clients = [connect(&listener).await.unwrap(), connect(&listener).await.unwrap()];
        let files = take_all();
        // The pause after these is 640 ms.
        for _ in 0..8 {
            assert!(is_emfile(&listener.accept().await));
        }
        // A deadline ends the wait in between, and is told from the error.
        let start = StdInstant::now();
        listener.set_deadline(Instant::now() + Duration::from_millis(20)).unwrap();
        assert!(is_timeout(&listener.accept().await));
        assert!(is_timeout(&listener.accept().await));
        listener.set_deadline(None).unwrap();
        // Nor does dropping an accept end the pause.
        assert!(timeout(Duration::from_millis(20), listener.accept()).await.is_err());
        drop(files);
        timeout(SOON, listener.accept()).await.unwrap().unwrap();
        assert!(
            start.elapsed() >= Duration::from_millis(600),
            "the pause was over after {:?}",
            start.elapsed()
        );
        // From the beginning: 5, 10, 20 and 40 ms, and not 1 s each.
        let files = take_all();
        let start = StdInstant::now();
        for _ in 0..5 {
            assert!(is_emfile(&listener.accept().await));
        }
        assert!(start.elapsed() >= Duration::from_millis(75), "{:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_millis(2_000), "{:?}", start.elapsed());
        drop(files);
    });
}

#[test]
fn a_listener_that_is_closed_in_a_pause_leaves_nothing_behind() {
    if in_a_child_with_few_descriptors("a_listener_that_is_closed_in_a_pause_leaves_nothing_behind") {
        return;
    }
    let (_watchdog, runtime) = watched(2);
    let listener = runtime.block_on(listen());
    let _client = runtime.block_on(connect(&listener)).unwrap();
    let files = take_all();
    assert!(is_emfile(&runtime.block_on(listener.accept())));
    // The runtime ends: who waits for the end of the pause is told.
    let listener = Arc::new(listener);
    let waiting = {
        let listener = Arc::clone(&listener);
        thread::spawn(move || foreign_block_on(async move { listener.accept().await.map(drop) }))
    };
    drop(runtime);
    let error = waiting.join().unwrap().unwrap_err();
    // Whether it fails in the pause, or has just made the call that fails, it is over.
    assert!(
        error.raw_os_error() == Some(24) || error.to_string().contains("runtime has shut down"),
        "{error}"
    );
    drop(files);

    let (_watchdog, runtime) = watched(2);
    runtime.block_on(async {
        let listener = listen().await;
        let _client = connect(&listener).await.unwrap();
        let files = take_all();
        assert!(is_emfile(&listener.accept().await));
        drop(files);
        drop(listener);
        // Its timer goes off for nobody. Another listener, which may have its place, is not touched.
        let other = listen().await;
        sleep(Duration::from_millis(20)).await;
        let _client = connect(&other).await.unwrap();
        timeout(SOON, other.accept()).await.unwrap().unwrap();
    });
    assert_eq!(runtime.metrics().timers_pending, 0);
}

// Many, and the end of the runtime.

#[test]
fn two_hundred_connections_echo_at_once() {
    for processors in [1, 2, 8] {
        let (_watchdog, runtime) = watched(processors);
        runtime.block_on(async {
            let listener = Arc::new(listen().await);
            let accepting = Arc::clone(&listener);
            let server = mainspring::spawn(async move {
                for _ in 0..200 {
                    let (stream, _) = accepting.accept().await.unwrap();
                    mainspring::spawn(async move {
                        let mut buffer = [0; 512];
                        loop {
                            match stream.read(&mut buffer).await.unwrap() {
                                0 => return,
                                count => stream.write_all(&buffer[..count]).await.unwrap(),
                            }
                        }
                    });
                }
            });
            let clients: Vec<_> = (0..200_usize)
                .map(|number| {
                    let listener = Arc::clone(&listener);
                    mainspring::spawn(async move {
                        let stream = connect(&listener).await.unwrap();
                        for round in 0..20 {
                            let size = 1 + (number * 31 + round * 17) % 2_000;
                            let sent: Vec<u8> = (number..number + size).map(byte_at).collect();
                            stream.write_all(&sent).await.unwrap();
                            let mut received = vec![0; size];
                            stream.read_exact(&mut received).await.unwrap();
                            assert_eq!(received, sent);
                        }
                    })
                })
                .collect();
            for client in clients {
                client.await.unwrap();
            }
            server.await.unwrap();
        });
        eventually("the servers' ends close", || runtime.metrics().descriptors == 0);
    }
}

#[test]
fn sockets_that_outlive_their_runtime_fail_and_do_not_hang() {
    for processors in [1, 2] {
        let (watchdog, runtime) = watched(processors);
        let listener = runtime.block_on(listen());
        let (a, b) = runtime.block_on(pair());
        runtime.block_on(fill(&a));
        let (a, listener) = (Arc::new(a), Arc::new(listener));
        // These wait on threads of their own when the runtime ends.
        let started = Arc::new(AtomicUsize::new(0));
        let wait = |future: Pin<Box<dyn Future<Output = io::Result<()>> + Send>>| {
            let started = Arc::clone(&started);
            thread::spawn(move || {
                let mut future = future;
                foreign_block_on(std::future::poll_fn(|context| {
                    let poll = future.as_mut().poll(context);
                    started.fetch_add(1, Ordering::Relaxed);
                    poll
                }))
            })
        };
        let (reading, writing, accepting) = (Arc::clone(&a), Arc::clone(&a), Arc::clone(&listener));
        let waiting = [
            wait(Box::pin(async move { reading.read(&mut [0]).await.map(drop) })),
            wait(Box::pin(async move { writing.write(b"x").await.map(drop) })),
            wait(Box::pin(async move { accepting.accept().await.map(drop) })),
        ];
        eventually("they begin to wait", || started.load(Ordering::Relaxed) >= 3);
        drop(runtime);
        for thread in waiting {
            let error = thread.join().unwrap().unwrap_err();
            assert_eq!(error.to_string(), "descriptor is closed, or its runtime has shut down");
        }
        mainspring::block_on(async {
            a.read(&mut [0]).await.unwrap_err();
            a.write(b"x").await.unwrap_err();
            a.peek(&mut [0]).await.unwrap_err();
            listener.accept().await.unwrap_err();
        });
        // What is left can be taken to another runtime.
        let listener = Arc::into_inner(listener).unwrap().into_std();
        let a = Arc::into_inner(a).unwrap().into_std();
        mainspring::block_on(async {
            let listener = Listener::try_from(listener).unwrap();
            connect(&listener).await.unwrap();
            listener.accept().await.unwrap();
            let a = Stream::try_from(a).unwrap();
            drop(b);
            a.set_deadline(None).unwrap();
        });
        drop(watchdog);
    }
}

#[test]
fn a_runtime_drops_tasks_with_pending_operations_and_their_sockets() {
    for processors in [1, 2, 8] {
        let (watchdog, runtime) = watched(processors);
        let (a, b) = runtime.block_on(pair());
        let listener = runtime.block_on(listen());
        let handle = runtime.handle();
        runtime.spawn(async move { listener.accept().await.map(drop) });
        runtime.spawn(async move {
            b.set_read_deadline(mainspring::time::Instant::now() + SOON).unwrap();
            b.read(&mut [0]).await
        });
        drop(runtime);
        drop(watchdog);
        assert_eq!(handle.metrics().descriptors, 1, "only the one that is out here");
        assert_eq!(handle.metrics().timers_pending, 0);
        drop(a);
        assert_eq!(handle.metrics().descriptors, 0);
    }
}
