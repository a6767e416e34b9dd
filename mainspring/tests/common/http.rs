//! What the tests of HTTP share: an app made of a function, and raw HTTP/1.1 on a stream.
#![allow(dead_code, reason = "each test program uses its own part of this")]

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, Response, StatusCode};
use mainspring::net::{TcpListener, TcpStream};
use mainspring::serve::{RequestBody, Serve};
use tower_service::Service;

pub(crate) type Answer = Response<Full<Bytes>>;

/// A tower service made of a function.
#[derive(Clone)]
pub(crate) struct App<F>(pub(crate) F);

impl<F, Fut> Service<Request<RequestBody>> for App<F>
where
    F: Fn(Request<RequestBody>) -> Fut,
    Fut: Future<Output = Answer> + Send + 'static,
{
    type Response = Answer;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let answer = (self.0)(request);
        Box::pin(async move { Ok(answer.await) })
    }
}

/// Sends the body back.
pub(crate) async fn echo(request: Request<RequestBody>) -> Answer {
    match request.into_body().collect().await {
        Ok(body) => Response::new(Full::new(body.to_bytes())),
        Err(_) => status(StatusCode::BAD_REQUEST),
    }
}

pub(crate) fn status(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}

/// A server of `app` on a free port.
pub(crate) async fn bind<F, Fut>(app: F) -> (SocketAddr, Serve<TcpListener, App<F>>)
where
    F: Fn(Request<RequestBody>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener.local_addr().unwrap(), mainspring::serve(listener, App(app)))
}

/// Sends a request without a body, and returns the answer's status and body.
pub(crate) async fn get(stream: &TcpStream, path: &str) -> io::Result<(u16, Vec<u8>)> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes()).await?;
    answer(stream).await
}

/// Reads an answer of known length.
pub(crate) async fn answer(stream: &TcpStream) -> io::Result<(u16, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let status = head[9..12].parse().unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await?;
    Ok((status, body))
}

/// Whether the other end closes, without a byte.
pub(crate) async fn is_closed(stream: &TcpStream) -> bool {
    match stream.read(&mut [0]).await {
        Ok(count) => count == 0,
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            true
        }
    }
}
