//! TCP sockets by behaviour: connecting, accepting and closing, with few descriptors and with many
//! connections, on this runtime, on another, on none, and after the end of their own.

mod common;

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use common::foreign::foreign_block_on;
use common::sockets::{byte_at, fill, pair, poll_once};
use common::watchdog::Watchdog;
use common::{SOON, eventually, run, watched};
use mainspring::net::{TcpListener, TcpStream};
use mainspring::time::{Duration, sleep, timeout};

// Connecting and listening.

#[test]
fn connecting_where_nobody_listens_is_refused() {
    run(2, async {
        // Bound, so that nobody else gets the port, but not listening.
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let bound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        bound.bind(&any.into()).unwrap();
        let addr = bound.local_addr().unwrap().as_socket().unwrap();
        for _ in 0..20 {
            let error = TcpStream::connect(addr).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        }
        // Of several addresses the first that answers is taken.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let answers = listener.local_addr().unwrap();
        let stream = TcpStream::connect(&[addr, answers][..]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), answers);
        let invalid = TcpStream::connect(&[][..]).await.unwrap_err();
        assert_eq!(invalid.kind(), io::ErrorKind::InvalidInput);
        let invalid = TcpStream::connect("no port").await.unwrap_err();
        assert_eq!(invalid.kind(), io::ErrorKind::InvalidInput);
    });
}

#[test]
fn names_are_looked_up() {
    run(2, async {
        let listener = TcpListener::bind("localhost:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(("localhost", port)).await.unwrap();
        TcpStream::connect(format!("localhost:{port}")).await.unwrap();
        TcpStream::connect((String::from("localhost"), port)).await.unwrap();
    });
}

#[test]
fn an_address_in_use_is_an_error_and_one_that_was_used_is_not() {
    run(2, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let error = TcpListener::bind(addr).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let client = TcpStream::connect(addr).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        // The server's end closes first, so that its address lingers.
        drop(server);
        drop(listener);
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        drop(client);
        TcpListener::bind(addr).await.unwrap();
    });
}

#[test]
fn a_connection_attempt_that_is_given_up_leaves_nothing_behind() {
    let (_watchdog, runtime) = watched(2);
    runtime.block_on(async {
        // A listener that takes next to nothing: attempts beyond that wait.
        let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        full.bind(&any.into()).unwrap();
        full.listen(0).unwrap();
        let addr = full.local_addr().unwrap().as_socket().unwrap();
        let mut streams = Vec::new();
        while let Ok(stream) = timeout(Duration::from_millis(50), TcpStream::connect(addr)).await {
            streams.push(stream.unwrap());
            assert!(streams.len() < 100, "all of them were taken");
        }
        assert_eq!(runtime.metrics().descriptors, streams.len());
    });
}

#[test]
fn an_accept_that_is_dropped_loses_no_connection() {
    run(2, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        for _ in 0..50 {
            let client;
            {
                let mut accept = pin!(listener.accept());
                assert!(poll_once(accept.as_mut()).await.is_pending());
                client = TcpStream::connect(addr).await.unwrap();
                sleep(Duration::from_micros(200)).await;
            }
            let (_server, peer) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
            assert_eq!(peer, client.local_addr().unwrap());
        }
    });
}

#[test]
fn several_acceptors_take_every_connection() {
    run(2, async {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let addr = listener.local_addr().unwrap();
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
        let clients: Vec<_> = (0..100).map(|_| mainspring::spawn(TcpStream::connect(addr))).collect();
        for client in clients {
            client.await.unwrap().unwrap();
        }
        for acceptor in acceptors {
            timeout(SOON, acceptor).await.expect("it misses a connection").unwrap();
        }
    });
}

/// Runs itself in a child process that may open few files.
#[test]
fn without_descriptors_accept_fails_and_the_connection_waits() {
    const CHILD: &str = "MAINSPRING_TEST_FEW_DESCRIPTORS";
    if std::env::var_os(CHILD).is_none() {
        let output = std::process::Command::new("sh")
            .args(["-c", "ulimit -n 40 && exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "without_descriptors_accept_fails_and_the_connection_waits"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    run(2, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut files = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            files.push(file);
        }
        for _ in 0..3 {
            let error = listener.accept().await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(24), "EMFILE and not {error}");
        }
        let error = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(24));
        drop(files);
        let (_server, peer) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
    });
}

#[test]
fn two_hundred_connections_echo_at_once() {
    for processors in [1, 2, 8] {
        let (_watchdog, runtime) = watched(processors);
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            let server = mainspring::spawn(async move {
                for _ in 0..200 {
                    let (stream, _) = listener.accept().await.unwrap();
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
                    mainspring::spawn(async move {
                        let stream = TcpStream::connect(addr).await.unwrap();
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

// Runtimes and others.

#[test]
fn sockets_work_on_a_foreign_executor_and_in_plain_block_on() {
    async fn echo_once() {
        let (a, b) = pair().await;
        let read = async {
            let mut buffer = [0; 5];
            b.read_exact(&mut buffer).await.unwrap();
            buffer
        };
        let write = async {
            sleep(Duration::from_millis(1)).await;
            a.write_all(b"hello").await.unwrap();
        };
        let (read, ()) = futures_util::future::join(read, write).await;
        assert_eq!(&read, b"hello");
        // More operations than a task's budget.
        for _ in 0..500 {
            a.write_all(b"x").await.unwrap();
            assert_eq!(b.read(&mut [0]).await.unwrap(), 1);
        }
    }
    let _watchdog = Watchdog::here();
    foreign_block_on(echo_once());
    mainspring::block_on(echo_once());
    // Made on one runtime, used on another and on none.
    let (_watchdog, one) = watched(1);
    let (a, b) = one.block_on(pair());
    let reader = thread::spawn(move || {
        let mut buffer = [0; 5];
        foreign_block_on(b.read_exact(&mut buffer)).unwrap();
        (b, buffer)
    });
    run(2, a.write_all(b"again")).unwrap();
    let (b, buffer) = reader.join().unwrap();
    assert_eq!(&buffer, b"again");
    // Dropped where there is no runtime: the peer sees it all the same.
    thread::spawn(move || drop(b)).join().unwrap();
    assert_eq!(one.block_on(a.read(&mut [0])).unwrap(), 0);
}

#[test]
fn sockets_that_outlive_their_runtime_fail_and_do_not_hang() {
    for processors in [1, 2] {
        let (watchdog, runtime) = watched(processors);
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
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
            let listener = TcpListener::try_from(listener).unwrap();
            TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            listener.accept().await.unwrap();
            let a = TcpStream::try_from(a).unwrap();
            drop(b);
            a.set_deadline(None).unwrap();
        });
        drop(watchdog);
    }
}

#[test]
fn streams_go_from_std_and_back() {
    run(2, async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let listener = TcpListener::try_from(listener).unwrap();
        let mut std_client = std::net::TcpStream::connect(addr).unwrap();
        let (server, _) = listener.accept().await.unwrap();
        std_client.write_all(b"hello").unwrap();
        let client = TcpStream::try_from(std_client).unwrap();
        server.write_all(b"olleh").await.unwrap();
        let mut buffer = [0; 5];
        server.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"hello");
        let mut std_client = client.into_std();
        std_client.set_nonblocking(false).unwrap();
        let mut buffer = [0; 5];
        std_client.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"olleh");
        let std_listener = listener.into_std();
        std_listener.set_nonblocking(false).unwrap();
        let another = TcpStream::connect(addr).await.unwrap();
        assert_eq!(std_listener.accept().unwrap().1, another.local_addr().unwrap());
    });
}

#[test]
fn a_runtime_drops_tasks_with_pending_operations_and_their_sockets() {
    for processors in [1, 2, 8] {
        let (watchdog, runtime) = watched(processors);
        let (a, b) = runtime.block_on(pair());
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
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
