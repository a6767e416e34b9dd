//! The server's idle timeout and peers that are slow, not idle: none of them is cut off. Time is the subject, so the
//! tests take longer than the timeout, and what is slow is several times as fast as it has to be.
#![cfg(feature = "hyper")]

mod common;
#[path = "common/http.rs"]
mod http;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use common::{SOON, run};
use http::{answer, bind, echo, get, is_closed, status};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Frame};
use hyper::{Request, Response, StatusCode};
use mainspring::compat::hyper::Executor;
use mainspring::net::{TcpListener, TcpSocket, TcpStream};
use mainspring::serve::RequestBody;
use mainspring::spawn;
use mainspring::time::{Duration, Instant, sleep, timeout};
use tower_service::Service;

const IDLE: Duration = Duration::from_millis(1_000);

/// Between two steps of what is slow.
const STEP: Duration = Duration::from_millis(150);

/// So many steps take half as long again as the idle timeout.
const STEPS: usize = 10;

/// A server of echo with the idle timeout, whose `/slow` answers after more than that.
async fn serve() -> SocketAddr {
    let app = |request: Request<RequestBody>| async move {
        match request.uri().path() {
            "/slow" => sleep(IDLE + IDLE / 2).await,
            "/refuse" => return status(StatusCode::FORBIDDEN),
            _ => {}
        }
        echo(request).await
    };
    let (address, server) = bind(app).await;
    spawn(async move { server.idle_timeout(IDLE).await });
    address
}

#[test]
fn a_slow_upload_is_taken() {
    run(2, async {
        let address = serve().await;
        let known = spawn(async move {
            let stream = TcpStream::connect(address).await.unwrap();
            let head = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {STEPS}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            for _ in 0..STEPS {
                sleep(STEP).await;
                stream.write_all(b"x").await.unwrap();
            }
            assert_eq!(answer(&stream).await.unwrap(), (200, vec![b'x'; STEPS]));
        });
        let chunked = spawn(async move {
            let stream = TcpStream::connect(address).await.unwrap();
            let head = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(head).await.unwrap();
            for _ in 0..STEPS {
                sleep(STEP).await;
                stream.write_all(b"1\r\nx\r\n").await.unwrap();
            }
            stream.write_all(b"0\r\n\r\n").await.unwrap();
            assert_eq!(answer(&stream).await.unwrap(), (200, vec![b'x'; STEPS]));
        });
        known.await.unwrap();
        chunked.await.unwrap();
    });
}

#[test]
fn a_client_that_waits_to_be_asked_for_the_body_is_asked() {
    run(2, async {
        let stream = TcpStream::connect(serve().await).await.unwrap();
        let head = b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n";
        stream.write_all(head).await.unwrap();
        assert_eq!(answer(&stream).await.unwrap().0, 100);
        for _ in 0..4 {
            sleep(IDLE / 3).await;
            stream.write_all(b"x").await.unwrap();
        }
        assert_eq!(answer(&stream).await.unwrap(), (200, b"xxxx".to_vec()));
        // And one that is asked and sends nothing is told so, by the handler, and cut off.
        stream.write_all(head).await.unwrap();
        assert_eq!(answer(&stream).await.unwrap().0, 100);
        assert_eq!(timeout(SOON, answer(&stream)).await.unwrap().unwrap().0, 400);
        assert!(timeout(SOON, is_closed(&stream)).await.unwrap());
    });
}

#[test]
fn pipelined_requests_are_answered_in_order_however_long_one_takes() {
    run(2, async {
        let stream = TcpStream::connect(serve().await).await.unwrap();
        let mut requests = Vec::new();
        for (path, body) in [("/", "a"), ("/slow", "b"), ("/", "c"), ("/slow", "d"), ("/", "e")] {
            let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n{body}");
            requests.extend_from_slice(head.as_bytes());
        }
        stream.write_all(&requests).await.unwrap();
        for body in [b"a", b"b", b"c", b"d", b"e"] {
            assert_eq!(answer(&stream).await.unwrap(), (200, body.to_vec()));
        }
        let start = Instant::now();
        assert!(timeout(SOON, is_closed(&stream)).await.unwrap());
        assert!(start.elapsed() > IDLE / 2, "{:?}", start.elapsed());
    });
}

#[test]
fn a_connection_goes_on_after_a_body_that_was_refused() {
    run(2, async {
        let stream = TcpStream::connect(serve().await).await.unwrap();
        for _ in 0..3 {
            let head = b"POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello";
            stream.write_all(head).await.unwrap();
            assert_eq!(answer(&stream).await.unwrap().0, 403);
            assert_eq!(get(&stream, "/").await.unwrap().0, 200);
        }
        assert!(timeout(SOON, is_closed(&stream)).await.unwrap());
    });
}

#[test]
fn streams_of_http2_do_not_end_each_other() {
    run(2, async {
        let stream = TcpStream::connect(serve().await).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(Executor::new(), stream).await.unwrap();
        let connection = spawn(connection);
        let ask = |path: &str, body: SlowBody| {
            let request = Request::post(format!("http://test{path}")).body(body).unwrap();
            let mut sender = sender.clone();
            spawn(async move {
                let answer = sender.send_request(request).await.unwrap();
                answer.into_body().collect().await.unwrap().to_bytes().len()
            })
        };
        // A handler at work, an upload that goes on, and short ones that come and go meanwhile.
        let working = ask("/slow", SlowBody::at_once(3));
        let uploading = ask("/", SlowBody::new(STEPS));
        for _ in 0..5 {
            assert_eq!(ask("/", SlowBody::at_once(7)).await.unwrap(), 7);
            sleep(STEP).await;
        }
        assert_eq!(uploading.await.unwrap(), STEPS);
        assert_eq!(working.await.unwrap(), 3);
        // With none left the connection is idle.
        assert!(timeout(SOON, connection).await.is_ok());
    });
}

/// A byte at each step.
struct SlowBody {
    left: usize,
    sleep: Option<Pin<Box<mainspring::time::Sleep>>>,
}

impl SlowBody {
    fn new(left: usize) -> SlowBody {
        SlowBody { left, sleep: Some(Box::pin(sleep(STEP))) }
    }

    fn at_once(left: usize) -> SlowBody {
        SlowBody { left, sleep: None }
    }
}

impl Body for SlowBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        if let Some(sleep) = &mut self.sleep {
            std::task::ready!(sleep.as_mut().poll(context));
            sleep.as_mut().reset_after(STEP);
        }
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
    }
}

/// Answers with megabytes in one part.
#[derive(Clone)]
struct Large(usize);

impl Service<Request<RequestBody>> for Large {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<RequestBody>) -> Self::Future {
        std::future::ready(Ok(Response::new(Full::new(vec![b'x'; self.0].into()))))
    }
}

#[test]
fn a_slow_reader_gets_all_of_a_large_answer() {
    run(2, async {
        let large = Large(20 << 20);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = large.clone();
        spawn(async move { mainspring::serve(listener, app).idle_timeout(IDLE).await });
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(64 << 10).unwrap();
        let stream = socket.connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut buffer = vec![0; 2 << 20];
        let mut sum = 0;
        let mut next = Instant::now();
        while sum < large.0 {
            // Some 10 MB a second.
            next += STEP;
            let mut step = 0;
            while step < (3 << 19) && sum < large.0 {
                let count = stream.read(&mut buffer).await.unwrap();
                assert!(count > 0, "cut off after {sum} bytes");
                sum += count;
                step += count;
            }
            sleep(next.saturating_duration_since(Instant::now())).await;
        }
    });
}
