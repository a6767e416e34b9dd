//! The end of a server: what has begun is finished, nothing else is waited for, and what takes too long is cut off.
#![cfg(feature = "hyper")]

mod common;
#[path = "common/http.rs"]
mod http;

use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::{SOON, run, until};
use http::{Answer, answer, bind, echo, get, is_closed, status};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::server::conn::auto::upgrade;
use mainspring::compat::hyper::Executor;
use mainspring::net::TcpStream;
use mainspring::serve::{Connections, CutOff, RequestBody};
use mainspring::spawn;
use mainspring::time::{Duration, Instant, sleep, timeout};
use tokio::sync::{Notify, oneshot};

const SHORT: Duration = Duration::from_millis(50);

type Handling = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// An app whose `/wait` answers when it is told to, and that counts those in it.
#[derive(Clone, Default)]
struct Waiting {
    go_on: Arc<Notify>,
    inside: Arc<AtomicUsize>,
}

impl Waiting {
    fn app(&self) -> impl Fn(Request<RequestBody>) -> Handling + Clone + use<> {
        let this = self.clone();
        move |request| {
            let this = this.clone();
            Box::pin(async move {
                if request.uri().path() == "/wait" {
                    let go_on = this.go_on.notified();
                    this.inside.fetch_add(1, Ordering::Relaxed);
                    go_on.await;
                }
                echo(request).await
            })
        }
    }

    async fn until_inside(&self, count: usize) {
        until(|| self.inside.load(Ordering::Relaxed) == count).await;
    }
}

#[test]
fn a_graceful_shutdown_finishes_what_has_begun_and_nothing_else() {
    run(2, async {
        let waiting = Waiting::default();
        let (address, server) = bind(waiting.app()).await;
        let (stop, stopped) = oneshot::channel::<()>();
        let server = server.with_graceful_shutdown(async {
            let _ = stopped.await;
        });
        let server = spawn(async move { server.await });
        let idle = TcpStream::connect(address).await.unwrap();
        assert_eq!(get(&idle, "/").await.unwrap().0, 200);
        let silent = TcpStream::connect(address).await.unwrap();
        let busy = TcpStream::connect(address).await.unwrap();
        busy.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let http2 = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(Executor::new(), http2).await.unwrap();
        let connection = spawn(connection);
        let wait = Request::get("http://test/wait").body(Full::<Bytes>::default()).unwrap();
        let waits = spawn(async move { sender.send_request(wait).await });
        waiting.until_inside(2).await;
        // hyper's client looks whether there was a GOAWAY after it has sent a request, and gives that up then.
        sleep(SHORT).await;
        stop.send(()).unwrap();
        assert!(is_closed(&idle).await);
        assert!(is_closed(&silent).await);
        assert!(TcpStream::connect(address).await.is_err(), "it still listens");
        assert!(!server.is_finished());
        waiting.go_on.notify_waiters();
        assert_eq!(answer(&busy).await.unwrap().0, 200);
        assert_eq!(waits.await.unwrap().unwrap().status(), StatusCode::OK);
        timeout(SOON, server).await.unwrap().unwrap().unwrap();
        assert!(is_closed(&busy).await);
        connection.await.unwrap().unwrap();
    });
}

#[test]
fn what_is_not_done_in_time_is_cut_off_and_counted() {
    run(2, async {
        let waiting = Waiting::default();
        let connections = Connections::new();
        let (address, server) = bind(waiting.app()).await;
        let server = server.with_connections(connections.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let server = server.shutdown_timeout(SHORT).with_graceful_shutdown(async {
            let _ = stopped.await;
        });
        let server = spawn(async move { server.await });
        let mut busy = Vec::new();
        for _ in 0..3 {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            busy.push(stream);
        }
        waiting.until_inside(3).await;
        let start = Instant::now();
        stop.send(()).unwrap();
        let error = timeout(SOON, server).await.unwrap().unwrap().unwrap_err();
        assert!(start.elapsed() >= SHORT);
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let cut_off = error.get_ref().and_then(|inner| inner.downcast_ref::<CutOff>()).unwrap();
        assert_eq!(cut_off.connections, 3);
        for stream in busy {
            assert!(is_closed(&stream).await);
        }
        until(|| connections.open() == 0).await;
    });
}

#[test]
fn a_shutdown_does_not_wait_for_a_handshake() {
    run(2, async {
        let connections = Connections::new();
        let (address, server) = bind(echo).await;
        let server = server.with_connections(connections.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let server = server
            .with_graceful_shutdown(async {
                let _ = stopped.await;
            })
            .handshake(|_: TcpStream| pending::<io::Result<TcpStream>>());
        let server = spawn(async move { server.await });
        let stream = TcpStream::connect(address).await.unwrap();
        until(|| connections.open() == 1).await;
        stop.send(()).unwrap();
        timeout(SOON, server).await.unwrap().unwrap().unwrap();
        assert!(is_closed(&stream).await);
    });
}

#[test]
fn a_request_that_has_arrived_when_the_server_is_told_to_stop_is_answered() {
    run(2, async {
        let (address, server) = bind(echo).await;
        let (stop, stopped) = oneshot::channel::<()>();
        let stop = Arc::new(Mutex::new(Some(stop)));
        let server = server
            .with_graceful_shutdown(async {
                let _ = stopped.await;
            })
            .handshake(move |stream: TcpStream| {
                let stop = stop.lock().unwrap().take();
                async move {
                    // The first connection stays within one poll until the server is about to stop.
                    if let Some(stop) = stop {
                        stop.send(()).unwrap();
                        while std::net::TcpStream::connect(address).is_ok() {}
                        std::thread::sleep(SHORT);
                    }
                    Ok(stream)
                }
            });
        let stream = std::net::TcpStream::connect(address).unwrap();
        io::Write::write_all(&mut &stream, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let server = spawn(async move { server.await });
        stream.set_nonblocking(true).unwrap();
        let stream = TcpStream::try_from(stream).unwrap();
        assert_eq!(answer(&stream).await.unwrap().0, 200);
        timeout(SOON, server).await.unwrap().unwrap().unwrap();
        assert!(is_closed(&stream).await);
    });
}

#[test]
fn an_upgrade_that_has_begun_succeeds() {
    run(2, async {
        let waiting = Waiting::default();
        let inside = waiting.clone();
        let app = move |mut request: Request<RequestBody>| {
            let inside = inside.clone();
            async move {
                let go_on = inside.go_on.notified();
                inside.inside.fetch_add(1, Ordering::Relaxed);
                go_on.await;
                let upgrade = hyper::upgrade::on(&mut request);
                spawn(async move {
                    let parts = upgrade::downcast::<TcpStream>(upgrade.await.unwrap()).unwrap();
                    parts.io.write_all(b"hello").await.unwrap();
                });
                let mut answer = status(StatusCode::SWITCHING_PROTOCOLS);
                answer.headers_mut().insert("connection", "upgrade".parse().unwrap());
                answer.headers_mut().insert("upgrade", "hello".parse().unwrap());
                answer
            }
        };
        let (address, server) = bind(app).await;
        let (stop, stopped) = oneshot::channel::<()>();
        let server = server.idle_timeout(SOON).with_graceful_shutdown(async {
            let _ = stopped.await;
        });
        let server = spawn(async move { server.await });
        let idle = TcpStream::connect(address).await.unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let head = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: hello\r\n\r\n";
        stream.write_all(head).await.unwrap();
        waiting.until_inside(1).await;
        stop.send(()).unwrap();
        assert!(is_closed(&idle).await);
        waiting.go_on.notify_waiters();
        assert_eq!(answer(&stream).await.unwrap().0, 101);
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).await.unwrap();
        assert_eq!(&hello, b"hello");
        timeout(SOON, server).await.unwrap().unwrap().unwrap();
    });
}

#[test]
fn handlers_of_both_versions_are_dropped_when_their_connection_is_cut_off() {
    struct Inside(Arc<AtomicUsize>);
    impl Drop for Inside {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
    run(2, async {
        let count = Arc::new(AtomicUsize::new(0));
        let inside = Arc::clone(&count);
        let app = move |_: Request<RequestBody>| {
            inside.fetch_add(1, Ordering::Relaxed);
            let inside = Inside(Arc::clone(&inside));
            async move {
                pending::<()>().await;
                drop(inside);
                status(StatusCode::OK)
            }
        };
        let (address, server) = bind(app).await;
        let (stop, stopped) = oneshot::channel::<()>();
        let server = server.shutdown_timeout(SHORT).with_graceful_shutdown(async {
            let _ = stopped.await;
        });
        let server = spawn(async move { server.await });
        let stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let http2 = TcpStream::connect(address).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(Executor::new(), http2).await.unwrap();
        spawn(connection);
        let asking: Vec<_> = (0..3)
            .map(|_| {
                let mut sender = sender.clone();
                let request = Request::get("http://test/").body(Full::<Bytes>::default()).unwrap();
                spawn(async move { sender.send_request(request).await })
            })
            .collect();
        until(|| count.load(Ordering::Relaxed) == 4).await;
        stop.send(()).unwrap();
        let error = timeout(SOON, server).await.unwrap().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        until(|| count.load(Ordering::Relaxed) == 0).await;
        assert!(is_closed(&stream).await);
        for asking in asking {
            assert!(asking.await.unwrap().is_err());
        }
    });
}
