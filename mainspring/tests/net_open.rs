//! TCP sockets by behaviour: connecting, accepting and closing, with few descriptors and with many
//! connections, on this runtime, on another, on none, and after the end of their own.

#[path = "net/accepting.rs"]
mod accepting;
mod common;

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::thread;

use common::foreign::foreign_block_on;
use common::sockets::pair;
use common::watchdog::Watchdog;
use common::{run, watched};
use mainspring::net::{TcpListener as Listener, TcpStream as Stream};
use mainspring::net::{TcpListener, TcpStream};
use mainspring::time::{Duration, sleep, timeout};

const DOMAIN: socket2::Domain = socket2::Domain::IPV4;

async fn listen() -> Listener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

async fn connect(listener: &Listener) -> io::Result<Stream> {
    TcpStream::connect(listener.local_addr().unwrap()).await
}

fn connect_socket(socket: &socket2::Socket, listener: &Listener) {
    socket.connect(&listener.local_addr().unwrap().into()).unwrap();
}

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
