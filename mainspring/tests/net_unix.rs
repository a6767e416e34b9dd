//! Unix sockets by behaviour: what all kinds of streams and listeners have in common, and what is their own: names,
//! credentials, descriptors that are passed, and full queues.

#[path = "net/accepting.rs"]
mod accepting;
mod common;
#[path = "net/streams.rs"]
mod streams;

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::sockets::{SocketPath, is_timeout, poll_once};
use common::{SOON, run, watched};
use mainspring::net::unix::SocketAddr;
use mainspring::net::{UnixListener as Listener, UnixStream as Stream};
use mainspring::time::{Duration, Instant, sleep, timeout};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

const DOMAIN: socket2::Domain = socket2::Domain::UNIX;

/// At a name of its own.
async fn listen() -> Listener {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("mainspring-test-{}-{number}", std::process::id());
    Listener::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap()
}

async fn connect(listener: &Listener) -> io::Result<Stream> {
    Stream::connect_addr(&listener.local_addr()?).await
}

fn connect_socket(socket: &socket2::Socket, listener: &Listener) {
    let addr = listener.local_addr().unwrap();
    let name = [b"\0", addr.as_abstract_name().unwrap()].concat();
    let addr = socket2::SockAddr::unix(std::str::from_utf8(&name).unwrap()).unwrap();
    socket.connect(&addr).unwrap();
}

async fn pair() -> (Stream, Stream) {
    Stream::pair().unwrap()
}

// Names.

#[test]
fn a_listener_at_a_path_is_found_there_and_tells_peers_names() {
    run(2, async {
        let path = SocketPath::new();
        let listener = Listener::bind(&path).unwrap();
        assert_eq!(listener.local_addr().unwrap().as_pathname(), Some(path.as_ref()));
        let client = Stream::connect(&path).await.unwrap();
        assert_eq!(client.peer_addr().unwrap().as_pathname(), Some(path.as_ref()));
        let (server, peer) = listener.accept().await.unwrap();
        assert!(peer.is_unnamed());
        server.write_all(b"x").await.unwrap();
        assert_eq!(client.read(&mut [0; 9]).await.unwrap(), 1);
        // A peer that has a name, at a path or an abstract one.
        let own = SocketPath::new();
        let named = socket2::Socket::new(DOMAIN, socket2::Type::STREAM, None).unwrap();
        named.bind(&socket2::SockAddr::unix(&own).unwrap()).unwrap();
        named.connect(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
        let (_server, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.as_pathname(), Some(own.as_ref()));
        let named = socket2::Socket::new(DOMAIN, socket2::Type::STREAM, None).unwrap();
        let name = format!("mainspring-test-{}-peer", std::process::id());
        named.bind(&socket2::SockAddr::unix(format!("\0{name}")).unwrap()).unwrap();
        named.connect(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
        let (_server, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.as_abstract_name(), Some(name.as_bytes()));
        // The longest that there may be, without a zero at its end.
        let longest = SocketPath::of_length(108);
        let named = socket2::Socket::new(DOMAIN, socket2::Type::STREAM, None).unwrap();
        let addr = rustix::net::SocketAddrUnix::new(longest.0.as_path()).unwrap();
        rustix::net::bind(&named, &addr).unwrap();
        named.connect(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
        let (_server, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.as_pathname(), Some(longest.as_ref()));
    });
}

#[test]
fn names_that_are_taken_absent_left_behind_or_impossible_are_errors() {
    run(2, async {
        let path = SocketPath::new();
        let absent = Stream::connect(&path).await.unwrap_err();
        assert_eq!(absent.kind(), io::ErrorKind::NotFound);
        let listener = Listener::bind(&path).unwrap();
        assert_eq!(Listener::bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        let left = Stream::connect(&path).await.unwrap_err();
        assert_eq!(left.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(Listener::bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let long = "x".repeat(200);
        assert_eq!(Listener::bind(&long).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(Stream::connect(&long).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let (a, _b) = pair().await;
        let unnamed = a.local_addr().unwrap();
        assert_eq!(Listener::bind_addr(&unnamed).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(Stream::connect_addr(&unnamed).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        // An abstract name goes with its listener.
        let listener = listen().await;
        let addr = listener.local_addr().unwrap();
        Listener::bind_addr(&addr).unwrap_err();
        drop(listener);
        Listener::bind_addr(&addr).unwrap();
    });
}

#[test]
fn the_credentials_of_a_peer_are_those_of_its_process() {
    run(2, async {
        let listener = listen().await;
        let client = connect(&listener).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        for stream in [&client, &server] {
            let cred = stream.peer_cred().unwrap();
            assert_eq!(cred.pid(), Some(std::process::id() as i32));
            assert_eq!(cred.uid(), rustix::process::geteuid().as_raw());
            assert_eq!(cred.gid(), rustix::process::getegid().as_raw());
        }
    });
}

#[test]
fn unix_sockets_go_from_std_and_back() {
    run(2, async {
        let path = SocketPath::new();
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let listener = Listener::try_from(listener).unwrap();
        let mut std_client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let (server, _) = listener.accept().await.unwrap();
        std_client.write_all(b"hello").unwrap();
        let client = Stream::try_from(std_client).unwrap();
        server.write_all(b"olleh").await.unwrap();
        let mut buffer = [0; 5];
        server.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"hello");
        let mut std_client = std::os::unix::net::UnixStream::from(client);
        std_client.set_nonblocking(false).unwrap();
        std_client.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"olleh");
        let std_listener = std::os::unix::net::UnixListener::from(listener);
        std_listener.set_nonblocking(false).unwrap();
        let _another = Stream::connect(&path).await.unwrap();
        std_listener.accept().unwrap();
    });
}

// A full queue.

/// A listener whose queue is full, with the connections that are in it.
async fn full_listener(path: &SocketPath) -> (Listener, Vec<Stream>) {
    let socket = socket2::Socket::new(DOMAIN, socket2::Type::STREAM, None).unwrap();
    socket.bind(&socket2::SockAddr::unix(path).unwrap()).unwrap();
    socket.listen(1).unwrap();
    let listener = Listener::try_from(std::os::unix::net::UnixListener::from(socket)).unwrap();
    let mut streams = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(20), Stream::connect(path)).await {
        streams.push(stream.unwrap());
        assert!(streams.len() < 10, "all of them were taken");
    }
    (listener, streams)
}

#[test]
fn a_connection_to_a_full_queue_waits_until_one_is_accepted() {
    run(2, async {
        let path = SocketPath::new();
        let (listener, mut streams) = full_listener(&path).await;
        let waiting = {
            let path = path.0.clone();
            mainspring::spawn(async move { Stream::connect(path).await })
        };
        sleep(Duration::from_millis(100)).await;
        assert!(!waiting.is_finished());
        listener.accept().await.unwrap();
        streams.push(timeout(SOON, waiting).await.expect("there is room").unwrap().unwrap());
        // Each connection is one that can be accepted.
        for _ in 1..streams.len() {
            timeout(SOON, listener.accept()).await.expect("one is missing").unwrap();
        }
        assert!(poll_once(std::pin::pin!(listener.accept())).await.is_pending());
    });
}

#[test]
fn a_connection_to_a_full_queue_ends_at_its_deadline_or_when_it_is_dropped_and_leaves_nothing_behind() {
    let (_watchdog, runtime) = watched(2);
    let path = SocketPath::new();
    runtime.block_on(async {
        let (listener, streams) = full_listener(&path).await;
        for wait in [Duration::ZERO, Duration::from_micros(2), Duration::from_millis(30)] {
            let at = Instant::now() + wait;
            assert!(is_timeout(&Stream::connect_deadline(&path, at).await));
            assert!(Instant::now() >= at);
            assert!(is_timeout(&Stream::connect_timeout(&path, wait).await));
        }
        assert!(timeout(Duration::from_millis(30), Stream::connect(&path)).await.is_err());
        assert_eq!(runtime.metrics().descriptors, streams.len() + 1);
        // It was the listener that was closed, not the queue that had room.
        let waiting = {
            let path = path.0.clone();
            mainspring::spawn(Stream::connect_timeout(path, Duration::MAX))
        };
        sleep(Duration::from_millis(5)).await;
        drop(listener);
        let refused = timeout(SOON, waiting).await.expect("it notices").unwrap().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    });
    assert_eq!(runtime.metrics().timers_pending, 0);
}

// Descriptors that are passed.

fn send_with_a_descriptor(stream: &impl AsFd, bytes: &[u8], passed: &impl AsFd) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [passed.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    Ok(rustix::net::sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::empty())?)
}

#[test]
fn what_lies_behind_a_passed_descriptor_is_read_without_another_edge() {
    run(2, async {
        for _ in 0..20 {
            let (a, b) = pair().await;
            let (passed, _) = pair().await;
            assert!(poll_once(std::pin::pin!(b.read(&mut [0]))).await.is_pending());
            a.write_with(|io| send_with_a_descriptor(io, b"with", &passed)).await.unwrap();
            a.write_all(b"behind").await.unwrap();
            sleep(Duration::from_millis(2)).await;
            let mut all: Vec<u8> = Vec::new();
            while all.len() < 10 {
                // A read stops behind the bytes that came with a descriptor, short of what it was asked for.
                let mut buffer = [0; 100];
                let read = timeout(SOON, b.read(&mut buffer)).await.expect("there is more");
                all.extend(&buffer[..read.unwrap()]);
            }
            assert_eq!(all, b"withbehind");
        }
    });
}

#[test]
fn a_descriptor_is_passed_by_calls_of_ones_own() {
    run(2, async {
        let (a, b) = pair().await;
        let (passed, mut peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let receiver = mainspring::spawn(async move {
            b.read_with(|io| {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let mut byte = [0];
                let buffers = &mut [IoSliceMut::new(&mut byte)];
                let received = rustix::net::recvmsg(io, buffers, &mut control, RecvFlags::CMSG_CLOEXEC)?;
                assert_eq!(received.bytes, 1);
                Ok(control.drain().find_map(|message| match message {
                    RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                    _ => None,
                }))
            })
            .await
        });
        sleep(Duration::from_millis(2)).await;
        a.write_with(|io| send_with_a_descriptor(io, b"x", &passed)).await.unwrap();
        let received = receiver.await.unwrap().unwrap().expect("it came along");
        drop(passed);
        let received = Stream::try_from(std::os::unix::net::UnixStream::from(received)).unwrap();
        received.write_all(b"through it").await.unwrap();
        let mut buffer = [0; 10];
        peer.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"through it");
    });
}

#[test]
fn a_peer_that_closes_with_unread_bytes_resets_the_connection() {
    run(2, async {
        let (a, b) = pair().await;
        a.write_all(b"never read").await.unwrap();
        let reader = mainspring::spawn(async move { (a.read(&mut [0]).await, a.write(b"x").await) });
        sleep(Duration::from_millis(2)).await;
        drop(b);
        let (read, written) = timeout(SOON, reader).await.expect("it notices").unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    });
}
