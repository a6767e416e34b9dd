//! Connecting over TCP by behaviour: deadlines, several addresses, sockets with options; and operations that do
//! not wait.

mod common;

use std::cell::Cell;
use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Instant as StdInstant;

use common::sockets::{fill, is_timeout, pair, poll_once, read_one};
use common::{SOON, run, until, watched};
use mainspring::net::{TcpListener, TcpSocket, TcpStream};
use mainspring::time::{Duration, Instant, sleep, timeout};

/// What RFC 8305 recommends between two attempts.
const DELAY: Duration = Duration::from_millis(250);

/// A socket that nobody can connect to, and its address: attempts are refused.
fn refusing(domain: socket2::Domain) -> (socket2::Socket, SocketAddr) {
    let any: SocketAddr =
        if domain == socket2::Domain::IPV4 { "127.0.0.1:0" } else { "[::1]:0" }.parse().unwrap();
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
    socket.bind(&any.into()).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, addr)
}

/// A listener whose queue is full: attempts are not answered. With it what fills the queue.
struct BlackHole {
    _listener: socket2::Socket,
    in_queue: Vec<TcpStream>,
    addr: SocketAddr,
}

impl BlackHole {
    async fn new() -> BlackHole {
        let (listener, addr) = refusing(socket2::Domain::IPV4);
        listener.listen(0).unwrap();
        let mut in_queue = Vec::new();
        while let Ok(stream) = timeout(Duration::from_millis(200), TcpStream::connect(addr)).await {
            in_queue.push(stream.unwrap());
            assert!(in_queue.len() < 100, "all of them were taken");
        }
        BlackHole { _listener: listener, in_queue, addr }
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

// Deadlines.

#[test]
fn connecting_ends_at_the_deadline_and_leaves_nothing_behind() {
    let (_watchdog, runtime) = watched(2);
    runtime.block_on(async {
        let hole = BlackHole::new().await;
        for wait in [Duration::ZERO, Duration::from_micros(2), Duration::from_millis(20)] {
            let at = Instant::now() + wait;
            assert!(is_timeout(&TcpStream::connect_deadline(hole.addr, at).await));
            assert!(Instant::now() >= at);
            assert!(is_timeout(&TcpStream::connect_timeout(hole.addr, wait).await));
            // The limit is for all addresses together.
            let start = StdInstant::now();
            let addrs = [hole.addr; 3];
            assert!(is_timeout(&TcpStream::connect_timeout(&addrs[..], 3 * wait).await));
            assert!(start.elapsed() >= 3 * wait);
        }
        assert_eq!(runtime.metrics().descriptors, hole.in_queue.len());
    });
    assert_eq!(runtime.metrics().timers_pending, 0);
}

#[test]
fn a_deadline_that_has_passed_makes_no_attempt_and_one_that_never_comes_is_none() {
    run(2, async {
        let (listener, addr) = listen().await;
        let past = Instant::now();
        assert!(is_timeout(&TcpStream::connect_deadline(addr, past).await));
        // Not even for a name.
        assert!(is_timeout(&TcpStream::connect_timeout("no.such.name.invalid:1", Duration::ZERO).await));
        assert!(poll_once(pin!(listener.accept())).await.is_pending());
        let stream = TcpStream::connect_timeout(addr, Duration::MAX).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        // The deadline was for connecting only.
        let soon = Instant::now() + Duration::from_millis(5);
        let other = TcpStream::connect_deadline(addr, soon).await;
        sleep(Duration::from_millis(10)).await;
        server.write_all(b"x").await.unwrap();
        assert_eq!(read_one(&stream).await.unwrap(), b'x');
        if let Ok(other) = other {
            other.write_all(b"y").await.unwrap();
        }
    });
}

#[test]
fn thousands_of_tiny_deadlines_give_a_connection_or_a_timeout_and_nothing_else() {
    let (_watchdog, runtime) = watched(2);
    runtime.block_on(async {
        let (listener, addr) = listen().await;
        let accepting = mainspring::spawn(async move {
            loop {
                // One that was given up is reset: nothing of it stays here.
                drop(listener.accept().await.unwrap());
            }
        });
        let (mut made, mut timed_out) = (0, 0);
        for number in 0..1_000 {
            match TcpStream::connect_timeout(addr, Duration::from_micros(number % 100)).await {
                Ok(_) => made += 1,
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                    timed_out += 1;
                }
            }
        }
        assert!(timed_out >= 10, "{made} made, {timed_out} timed out");
        accepting.abort();
        let _ = accepting.await;
        until(|| runtime.metrics().descriptors == 0).await;
    });
}

// Several addresses.

#[test]
fn an_address_that_does_not_answer_holds_up_the_next_one_for_the_delay_only() {
    let (_watchdog, runtime) = watched(2);
    runtime.block_on(async {
        let hole = BlackHole::new().await;
        let (_listener, good) = listen().await;
        let start = StdInstant::now();
        let stream = timeout(SOON, TcpStream::connect(&[hole.addr, good][..])).await.unwrap().unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        assert!(start.elapsed() >= DELAY, "{:?}", start.elapsed());
        // The attempt that did not win is closed.
        assert_eq!(runtime.metrics().descriptors, hole.in_queue.len() + 2);
    });
    assert_eq!(runtime.metrics().timers_pending, 0);
}

#[test]
fn an_address_that_refuses_holds_up_the_next_one_not_at_all() {
    run(2, async {
        let refusing: Vec<_> = (0..8).map(|_| refusing(socket2::Domain::IPV4)).collect();
        let (_listener, good) = listen().await;
        let mut addrs: Vec<_> = refusing.iter().map(|(_, addr)| *addr).collect();
        addrs.push(good);
        let start = StdInstant::now();
        let stream = TcpStream::connect(&addrs[..]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        assert!(start.elapsed() < 8 * DELAY, "{:?}", start.elapsed());
        addrs.pop();
        let error = TcpStream::connect(&addrs[..]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn giving_up_closes_all_attempts_at_once() {
    let (_watchdog, runtime) = watched(2);
    runtime.block_on(async {
        let hole = BlackHole::new().await;
        let before = runtime.metrics().descriptors;
        {
            let addrs = [hole.addr; 3];
            let mut connecting = pin!(TcpStream::connect(&addrs[..]));
            while runtime.metrics().descriptors < before + 2 {
                assert!(timeout(DELAY / 10, connecting.as_mut()).await.is_err());
            }
        }
        assert_eq!(runtime.metrics().descriptors, before);
    });
    assert_eq!(runtime.metrics().timers_pending, 0);
}

// Sockets with options.

#[test]
fn a_socket_keeps_the_options_that_were_set_before_it_connected_or_listened() {
    run(2, async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.set_reuseport(true).unwrap();
        socket.set_recv_buffer_size(20_000).unwrap();
        assert!(socket.reuseaddr().unwrap() && socket.reuseport().unwrap());
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = socket.local_addr().unwrap();
        let listener = socket.listen(10).unwrap();
        assert_eq!(listener.local_addr().unwrap(), addr);
        // A second one at the same address, as both have said so.
        let second = TcpSocket::new_v4().unwrap();
        second.bind(addr).unwrap_err();
        second.set_reuseport(true).unwrap();
        second.bind(addr).unwrap();

        let socket = TcpSocket::new_v4().unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_keepalive(true).unwrap();
        socket.set_send_buffer_size(30_000).unwrap();
        assert!(socket.nodelay().unwrap() && socket.keepalive().unwrap());
        let (sent, received) = (socket.send_buffer_size().unwrap(), socket.recv_buffer_size().unwrap());
        assert!(sent >= 30_000 && received > 0);
        let stream = socket.connect(addr).await.unwrap();
        let option = socket2::SockRef::from(&stream);
        assert!(stream.nodelay().unwrap() && option.keepalive().unwrap());
        assert_eq!(option.send_buffer_size().unwrap(), sent as usize);
        let (server, _) = listener.accept().await.unwrap();
        assert_eq!(socket2::SockRef::from(&server).recv_buffer_size().unwrap(), 40_000);
        stream.set_ttl(7).unwrap();
        assert_eq!(stream.ttl().unwrap(), 7);
        assert!(stream.take_error().unwrap().is_none());
    });
}

#[test]
fn a_socket_for_ipv6_and_one_of_stds_connect() {
    run(2, async {
        let listener = TcpSocket::new_v6().and_then(|socket| {
            socket.bind("[::1]:0".parse().unwrap())?;
            socket.listen(10)
        });
        match listener {
            Ok(listener) => {
                let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                assert!(stream.peer_addr().unwrap().is_ipv6());
            }
            // EAFNOSUPPORT or EADDRNOTAVAIL: there is no IPv6 on this machine.
            Err(error) => assert!(matches!(error.raw_os_error(), Some(97 | 99)), "{error}"),
        }
        let (_listener, addr) = listen().await;
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let socket = TcpSocket::from_std_stream(socket.into()).unwrap();
        assert_eq!(socket.connect(addr).await.unwrap().peer_addr().unwrap(), addr);
        let (_bound, refusing) = refusing(socket2::Domain::IPV4);
        let error = TcpSocket::new_v4().unwrap().connect(refusing).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    });
}

// Without waiting.

fn would_block<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

#[test]
fn trying_does_what_can_be_done_now_and_says_where_nothing_can() {
    run(2, async {
        let (a, b) = pair().await;
        let mut buffer = [0; 10];
        assert!(would_block(&b.try_read(&mut buffer)));
        assert!(would_block(&b.try_readv(&mut [IoSliceMut::new(&mut buffer)])));
        assert_eq!(b.try_read(&mut []).unwrap(), 0);
        assert_eq!(a.try_write(b"one").unwrap(), 3);
        assert_eq!(a.try_writev(&[IoSlice::new(b"tw"), IoSlice::new(b"o")]).unwrap(), 3);
        timeout(SOON, b.readable()).await.unwrap().unwrap();
        let mut count = 0;
        while count < 6 {
            match b.try_read(&mut buffer[count..]) {
                Ok(read) => count += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => b.readable().await.unwrap(),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(&buffer[..6], b"onetwo");
        // Nothing is there, so this waits, as soon as the events of what was read have come.
        while poll_once(pin!(b.readable())).await.is_ready() {
            assert!(would_block(&b.try_read(&mut buffer)));
        }
        fill(&a).await;
        assert!(would_block(&a.try_write(b"x")));
        assert_eq!(a.try_write(b"").unwrap(), 0);
        {
            let mut writable = pin!(a.writable());
            assert!(poll_once(writable.as_mut()).await.is_pending());
            let make_room = pin!(async {
                let mut buffer = vec![0; 100_000];
                while b.read(&mut buffer).await.unwrap() > 0 {}
            });
            let either = futures_util::future::select(writable, make_room);
            timeout(SOON, either).await.expect("there is room");
        }
        let past = Instant::now();
        b.set_read_deadline(past).unwrap();
        assert!(is_timeout(&b.try_read(&mut buffer)));
        assert!(is_timeout(&b.readable().await));
        b.set_read_deadline(None).unwrap();
        drop(a);
        timeout(SOON, b.readable()).await.unwrap().unwrap();
    });
}

#[test]
fn calls_of_ones_own_wait_where_they_would_block_and_are_made_again() {
    run(2, async {
        let (a, b) = pair().await;
        let calls = Cell::new(0);
        let mut reading = pin!(b.read_with(|io| {
            calls.set(calls.get() + 1);
            let mut byte = [0];
            let read = io::Read::read(&mut &*io, &mut byte)?;
            assert_eq!(read, 1);
            Ok(byte[0])
        }));
        assert!(poll_once(reading.as_mut()).await.is_pending());
        // Looked at again without a reason, it makes no call.
        assert!(poll_once(reading.as_mut()).await.is_pending());
        a.write_with(|io| io::Write::write(&mut &*io, b"x")).await.unwrap();
        assert_eq!(timeout(SOON, reading).await.unwrap().unwrap(), b'x');
        assert_eq!(calls.get(), 2);
        assert!(would_block(&b.try_read_with(|io| io::Read::read(&mut &*io, &mut [0]))));
        assert!(would_block(&b.try_read_with(|_| -> io::Result<()> { panic!("it is known to block") })));
        assert_eq!(a.try_write_with(|io| io::Write::write(&mut &*io, b"y")).unwrap(), 1);
        let error = b.read_with(|_| -> io::Result<()> { Err(io::Error::other("mine")) }).await.unwrap_err();
        assert_eq!(error.to_string(), "mine");
        b.set_read_deadline(Instant::now()).unwrap();
        assert!(is_timeout(&b.read_with(|_| Ok(())).await));
        is_send(b.read_with(|_| Ok(())));
    });
}

fn is_send(_: impl Future + Send) {}
