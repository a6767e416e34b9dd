//! The server: every kind of client, peers that stall, handlers that panic, and listeners that fail.
#![cfg(feature = "hyper")]

mod common;
#[path = "common/http.rs"]
mod http;

use std::future::{Future, IntoFuture, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use common::sockets::byte_at;
use common::{SOON, run, until};
use http::{Answer, App, answer, bind, echo, get, is_closed, status};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::rt::{Read, ReadBuf, Write};
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::server::conn::auto::upgrade;
use mainspring::compat::hyper::Executor;
use mainspring::net::{Deadlines, TcpListener, TcpStream};
use mainspring::serve::{Connections, Listener, PeerAddr, RequestBody};
use mainspring::spawn;
use mainspring::time::{Duration, Instant, sleep, timeout};
use tokio::sync::oneshot;
use tower_service::Service;

/// Limits that some are to miss and others not, on a busy machine too.
const SHORT: Duration = Duration::from_millis(300);

fn request(count: usize) -> Request<Full<Bytes>> {
    let body: Vec<u8> = (0..count).map(byte_at).collect();
    Request::post("http://test/").header("host", "test").body(Full::new(body.into())).unwrap()
}

fn is_whole(body: &[u8], count: usize) -> bool {
    body.len() == count && body.iter().enumerate().all(|(place, byte)| *byte == byte_at(place))
}

#[test]
fn clients_of_both_versions_are_served_on_one_port() {
    run(2, async {
        let connections = Connections::new();
        let (address, server) = bind(echo).await;
        let server = server.with_connections(connections.clone());
        spawn(async move { server.idle_timeout(SOON).await });
        let old = spawn(async move {
            let stream = TcpStream::connect(address).await.unwrap();
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
            spawn(connection);
            for count in [0, 1, 1_000, 300_000] {
                sender.ready().await.unwrap();
                let answer = sender.send_request(request(count)).await.unwrap();
                assert!(is_whole(&answer.into_body().collect().await.unwrap().to_bytes(), count));
            }
        });
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(Executor::new(), stream).await.unwrap();
        spawn(connection);
        let requests: Vec<_> = (0..50)
            .map(|number| {
                let mut sender = sender.clone();
                spawn(async move {
                    let answer = sender.send_request(request(number * 3_000)).await.unwrap();
                    let body = answer.into_body().collect().await.unwrap().to_bytes();
                    assert!(is_whole(&body, number * 3_000));
                })
            })
            .collect();
        for request in requests {
            request.await.unwrap();
        }
        old.await.unwrap();
        assert_eq!(connections.accepted(), 2);
        drop(sender);
        until(|| connections.open() == 0).await;
    });
}

#[test]
fn a_request_knows_who_sent_it() {
    run(2, async {
        let who = async |request: Request<RequestBody>| -> Answer {
            let peer = request.extensions().get::<PeerAddr<SocketAddr>>();
            Response::new(Full::new(peer.map_or("nobody".to_owned(), |peer| peer.0.to_string()).into()))
        };
        let who = move |request| Box::pin(who(request));
        let (address, server) = bind(who).await;
        spawn(async move { server.with_peer_addr().await });
        let stream = TcpStream::connect(address).await.unwrap();
        let own = stream.local_addr().unwrap().to_string();
        assert_eq!(get(&stream, "/").await.unwrap().1, own.as_bytes());
        let (address, server) = bind(who).await;
        spawn(async move { server.await });
        let stream = TcpStream::connect(address).await.unwrap();
        assert_eq!(get(&stream, "/").await.unwrap().1, b"nobody");
    });
}

#[test]
fn a_unix_socket_is_served_as_well() {
    run(2, async {
        let path = std::env::temp_dir().join(format!("mainspring-serve-{}", std::process::id()));
        let listener = mainspring::net::UnixListener::bind(&path).unwrap();
        spawn(async move { mainspring::serve(listener, App(echo)).header_timeout(SHORT).await });
        let stream = mainspring::net::UnixStream::connect(&path).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        let silent = mainspring::net::UnixStream::connect(&path).await.unwrap();
        assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
        std::fs::remove_file(&path).unwrap();
    });
}

/// A service that is ready when it is told, and counts the calls that came before.
#[derive(Clone)]
struct Gate {
    open: Arc<AtomicBool>,
    waiting: Arc<Mutex<Vec<Waker>>>,
}

impl Service<Request<RequestBody>> for Gate {
    type Response = Answer;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Answer, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let mut waiting = self.waiting.lock().unwrap();
        if self.open.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        waiting.push(context.waker().clone());
        Poll::Pending
    }

    fn call(&mut self, _: Request<RequestBody>) -> Self::Future {
        let open = self.open.load(Ordering::Relaxed);
        std::future::ready(Ok(status(if open { StatusCode::OK } else { StatusCode::CONFLICT })))
    }
}

#[test]
fn a_service_is_called_when_it_is_ready() {
    run(2, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Gate { open: Arc::default(), waiting: Arc::default() };
        let app = gate.clone();
        spawn(async move { mainspring::serve(listener, app).await });
        let stream = TcpStream::connect(address).await.unwrap();
        let asking = spawn(async move { get(&stream, "/").await });
        until(|| !gate.waiting.lock().unwrap().is_empty()).await;
        gate.open.store(true, Ordering::Relaxed);
        gate.waiting.lock().unwrap().drain(..).for_each(Waker::wake);
        assert_eq!(asking.await.unwrap().unwrap().0, 200);
    });
}

// Peers that stall.

#[test]
fn who_sends_no_head_in_time_is_cut_off_and_delays_nobody() {
    run(1, async {
        let connections = Connections::new();
        let (address, server) = bind(echo).await;
        let server = server.with_connections(connections.clone());
        spawn(async move { server.header_timeout(SHORT).await });
        let start = Instant::now();
        let silent = TcpStream::connect(address).await.unwrap();
        let slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
        // It has no idle timeout, so it outlives the time for the first head.
        let quick = TcpStream::connect(address).await.unwrap();
        assert_eq!(get(&quick, "/").await.unwrap().0, 200);
        assert!(is_closed(&silent).await);
        assert!(is_closed(&slow).await);
        assert!(start.elapsed() >= SHORT);
        until(|| connections.open() == 1).await;
        sleep(SHORT).await;
        assert_eq!(get(&quick, "/").await.unwrap().0, 200);
    });
}

#[test]
fn a_handshake_that_never_ends_delays_nobody_and_is_cut_off_in_time() {
    run(1, async {
        let connections = Connections::new();
        let (address, server) = bind(echo).await;
        let server = server.with_connections(connections.clone());
        let server = server.header_timeout(SHORT).handshake(|stream: TcpStream| async move {
            let mut word = [0; 5];
            stream.read_exact(&mut word).await?;
            if &word == b"hello" { Ok(stream) } else { Err(io::ErrorKind::InvalidData.into()) }
        });
        spawn(async move { server.await });
        let start = Instant::now();
        let silent: Vec<_> = {
            let mut silent = Vec::new();
            for _ in 0..20 {
                silent.push(TcpStream::connect(address).await.unwrap());
            }
            silent
        };
        let wrong = TcpStream::connect(address).await.unwrap();
        wrong.write_all(b"GET /").await.unwrap();
        assert!(is_closed(&wrong).await);
        let stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        assert_eq!(get(&stream, "/").await.unwrap().0, 200);
        for stream in &silent {
            assert!(is_closed(stream).await);
        }
        assert!(start.elapsed() >= SHORT);
        until(|| connections.open() == 1).await;
    });
}

#[test]
fn a_peer_whose_turn_it_is_may_not_be_idle_for_longer_than_allowed() {
    run(2, async {
        let app = |request: Request<RequestBody>| async move {
            match request.uri().path() {
                "/large" => Response::new(Full::new(vec![0; 64 << 20].into())),
                _ => echo(request).await,
            }
        };
        let connections = Connections::new();
        let (address, server) = bind(app).await;
        let server = server.with_connections(connections.clone());
        spawn(async move { server.idle_timeout(SHORT).await });
        let start = Instant::now();
        // Between two requests; in the middle of a body; before an answer that nobody reads.
        let between = TcpStream::connect(address).await.unwrap();
        assert_eq!(get(&between, "/").await.unwrap().0, 200);
        let within = TcpStream::connect(address).await.unwrap();
        within.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nab").await.unwrap();
        let unread = TcpStream::connect(address).await.unwrap();
        unread.write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert!(is_closed(&between).await);
        until(|| connections.open() == 0).await;
        assert!(start.elapsed() >= SHORT);
        drop((within, unread));
    });
}

#[test]
fn a_handler_may_take_longer_than_a_peer() {
    run(2, async {
        let app = |request: Request<RequestBody>| async move {
            sleep(4 * SHORT).await;
            echo(request).await
        };
        let (address, server) = bind(app).await;
        spawn(async move { server.idle_timeout(SHORT).header_timeout(SHORT).await });
        let stream = TcpStream::connect(address).await.unwrap();
        assert_eq!(get(&stream, "/").await.unwrap().0, 200);
        assert_eq!(get(&stream, "/").await.unwrap().0, 200);
        assert!(is_closed(&stream).await);
    });
}

// Upgrades.

/// Answers 101 and sends back what comes then, until the end.
async fn upgrade_to_echo(mut request: Request<RequestBody>) -> Answer {
    let upgrade = hyper::upgrade::on(&mut request);
    spawn(async move {
        let parts = upgrade::downcast::<TcpStream>(upgrade.await.unwrap()).unwrap();
        let (stream, mut buffer) = (parts.io, parts.read_buf.to_vec());
        // A deadline of its own, which nobody else clears.
        stream.set_write_deadline(Instant::now()).unwrap();
        sleep(SHORT).await;
        assert_eq!(stream.write(b"x").await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        stream.set_write_deadline(None).unwrap();
        // The request's body is dropped only now, and starts no deadline.
        drop(request);
        loop {
            stream.write_all(&buffer).await.unwrap();
            buffer.resize(100, 0);
            let count = stream.read(&mut buffer).await.unwrap();
            if count == 0 {
                break;
            }
            buffer.truncate(count);
        }
    });
    let mut answer = status(StatusCode::SWITCHING_PROTOCOLS);
    answer.headers_mut().insert("connection", "upgrade".parse().unwrap());
    answer.headers_mut().insert("upgrade", "echo".parse().unwrap());
    answer
}

async fn upgraded(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.unwrap();
    let head = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    stream.write_all(head).await.unwrap();
    assert_eq!(answer(&stream).await.unwrap().0, 101);
    stream
}

#[test]
fn an_upgraded_connection_has_no_deadline_and_is_not_waited_for() {
    run(2, async {
        let (address, server) = bind(upgrade_to_echo).await;
        let (stop, stopped) = oneshot::channel::<()>();
        let server = server.idle_timeout(SHORT).header_timeout(SHORT).with_graceful_shutdown(async {
            let _ = stopped.await;
        });
        let server = spawn(async move { server.await });
        let stream = upgraded(address).await;
        sleep(3 * SHORT).await;
        stop.send(()).unwrap();
        server.await.unwrap().unwrap();
        stream.write_all(b"still here").await.unwrap();
        let mut back = [0; 10];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"still here");
    });
}

/// Reads some bytes by hyper's trait.
async fn read_some(io: &mut Upgraded) -> Vec<u8> {
    let mut memory = [0; 100];
    let mut buffer = ReadBuf::new(&mut memory);
    poll_fn(|context| Pin::new(&mut *io).poll_read(context, buffer.unfilled())).await.unwrap();
    buffer.filled().to_vec()
}

/// Writes all by hyper's trait.
async fn write_all(io: &mut Upgraded, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let count = poll_fn(|context| Pin::new(&mut *io).poll_write(context, bytes)).await.unwrap();
        bytes = &bytes[count..];
    }
}

#[test]
fn a_tunnel_through_http2_outlives_the_idle_timeout() {
    run(2, async {
        let app = |request: Request<RequestBody>| async move {
            spawn(async move {
                let mut tunnel = hyper::upgrade::on(request).await.unwrap();
                loop {
                    let bytes = read_some(&mut tunnel).await;
                    if bytes.is_empty() {
                        break;
                    }
                    write_all(&mut tunnel, &bytes).await;
                }
            });
            status(StatusCode::OK)
        };
        let (address, server) = bind(app).await;
        spawn(async move { server.idle_timeout(SHORT).await });
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(Executor::new(), stream).await.unwrap();
        spawn(connection);
        let connect = Request::connect("test:80").body(Full::<Bytes>::default()).unwrap();
        let answer = sender.send_request(connect).await.unwrap();
        let mut tunnel = hyper::upgrade::on(answer).await.unwrap();
        for word in [&b"one"[..], b"two"] {
            sleep(3 * SHORT).await;
            write_all(&mut tunnel, word).await;
            assert_eq!(read_some(&mut tunnel).await, word);
        }
    });
}

// Panics.

type Handling = Pin<Box<dyn Future<Output = Answer> + Send>>;

fn panic_at(path: &'static str) -> impl Fn(Request<RequestBody>) -> Handling + Clone {
    move |request| {
        Box::pin(async move {
            if request.uri().path() == path {
                panic!("expected: a handler that panics");
            }
            echo(request).await
        })
    }
}

#[test]
fn a_panic_ends_a_connection_of_http1_and_a_request_of_http2() {
    run(2, async {
        let connections = Connections::new();
        let (address, server) = bind(panic_at("/planted")).await;
        let server = server.with_connections(connections.clone());
        spawn(async move { server.await });
        let other = TcpStream::connect(address).await.unwrap();
        assert_eq!(get(&other, "/").await.unwrap().0, 200);
        let stream = TcpStream::connect(address).await.unwrap();
        assert!(get(&stream, "/planted").await.is_err());
        until(|| connections.open() == 1).await;
        assert_eq!(get(&other, "/").await.unwrap().0, 200);

        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(Executor::new(), stream).await.unwrap();
        spawn(connection);
        let planted = Request::get("http://test/planted").body(Full::<Bytes>::default()).unwrap();
        assert!(sender.send_request(planted).await.is_err());
        assert!(sender.send_request(request(10)).await.is_ok());
    });
}

// Listeners that fail.

/// Fails a number of times before each connection.
struct Failing {
    inner: TcpListener,
    errors: Mutex<Vec<io::Error>>,
    calls: Arc<AtomicUsize>,
}

impl Listener for Failing {
    type Stream = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let error = self.errors.lock().unwrap().pop();
        match error {
            Some(error) => Err(error),
            None => self.inner.accept().await,
        }
    }

    fn deadlines(stream: &TcpStream) -> Option<Deadlines> {
        Some(stream.deadlines())
    }
}

#[test]
fn a_server_goes_on_after_errors_that_pass_and_does_not_spin() {
    const EMFILE: i32 = 24;
    const ECONNABORTED: i32 = 103;
    run(2, async {
        let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = inner.local_addr().unwrap();
        let error = |number: usize| io::Error::from_raw_os_error([EMFILE, ECONNABORTED][number % 2]);
        let calls = Arc::new(AtomicUsize::new(0));
        let errors = Mutex::new((0..5).map(error).collect());
        let listener = Failing { inner, errors, calls: Arc::clone(&calls) };
        let told = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told);
        let server = mainspring::serve(listener, App(echo)).on_accept_error(move |error| {
            assert!(error.raw_os_error().is_some());
            count.fetch_add(1, Ordering::Relaxed);
        });
        let start = Instant::now();
        spawn(async move { server.await });
        let stream = TcpStream::connect(address).await.unwrap();
        assert_eq!(get(&stream, "/").await.unwrap().0, 200);
        // The distances of five errors: 5, 10, 20 and 40 ms.
        assert!(start.elapsed() >= Duration::from_millis(75), "{:?}", start.elapsed());
        assert_eq!(told.load(Ordering::Relaxed), 5);
        until(|| calls.load(Ordering::Relaxed) == 7).await;
    });
}

#[test]
fn a_listener_whose_deadline_has_passed_ends_the_server_and_not_its_connections() {
    run(2, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, deadlines) = (listener.local_addr().unwrap(), listener.deadlines());
        let server = spawn(async move { mainspring::serve(listener, App(echo)).await });
        let stream = TcpStream::connect(address).await.unwrap();
        assert_eq!(get(&stream, "/").await.unwrap().0, 200);
        deadlines.set_deadline(Instant::now()).unwrap();
        assert_eq!(server.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(get(&stream, "/").await.unwrap().0, 200);
        assert!(TcpStream::connect(address).await.is_err());
    });
}

#[test]
fn a_server_that_is_dropped_accepts_no_more_and_its_connections_go_on() {
    run(2, async {
        let (address, server) = bind(echo).await;
        let mut server = Box::pin(server.into_future());
        poll_fn(|context| {
            assert!(server.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
        let stream = TcpStream::connect(address).await.unwrap();
        assert_eq!(get(&stream, "/").await.unwrap().0, 200);
        drop(server);
        let refused = async {
            while TcpStream::connect(address).await.is_ok() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(SOON, refused).await.unwrap();
        assert_eq!(get(&stream, "/").await.unwrap().0, 200);
    });
}
