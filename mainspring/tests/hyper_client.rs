//! hyper-util's client with the connector, against the server.
#![cfg(feature = "hyper")]

mod common;
#[path = "common/http.rs"]
mod http;

use std::error::Error;
use std::io;

use common::{SOON, run, until};
use http::{Answer, bind, echo};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, Uri};
use hyper_util::client::legacy::Client;
use mainspring::compat::hyper::{Connector, Executor, Timer};
use mainspring::net::TcpListener;
use mainspring::serve::{Connections, RequestBody};
use mainspring::spawn;
use mainspring::time::{Duration, Instant};
use tower_service::Service;

fn client(connector: Connector, idle: Duration) -> Client<Connector, Full<Bytes>> {
    let mut builder = Client::builder(Executor::new());
    builder.timer(Timer::new()).pool_timer(Timer::new()).pool_idle_timeout(idle);
    builder.build(connector)
}

async fn post(client: &Client<Connector, Full<Bytes>>, uri: &str, body: &str) -> String {
    let request = Request::post(uri).body(Full::new(body.to_owned().into())).unwrap();
    let body = client.request(request).await.unwrap().into_body().collect().await.unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

/// The innermost error of a request that must fail.
async fn failure(client: &Client<Connector, Full<Bytes>>, uri: &str) -> io::ErrorKind {
    let error = client.get(uri.parse().unwrap()).await.unwrap_err();
    let mut source: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.kind();
        }
        source = error.source();
    }
    panic!("{error:?}");
}

#[test]
fn a_connection_is_used_again() {
    run(2, async {
        let connections = Connections::new();
        let (address, server) = bind(echo).await;
        let server = server.with_connections(connections.clone());
        spawn(async move { server.await });
        let client = client(Connector::new(), SOON);
        // By name: each of the addresses of `localhost` is tried.
        let uri = format!("http://localhost:{}/", address.port());
        for number in 0..50 {
            assert_eq!(post(&client, &uri, &number.to_string()).await, number.to_string());
        }
        // The client opens another one if the last has not come back to its pool yet.
        assert!(connections.accepted() <= 25, "{connections:?}");
    });
}

#[test]
fn a_connection_that_is_idle_for_too_long_is_closed() {
    run(2, async {
        let connections = Connections::new();
        let (address, server) = bind(echo).await;
        let server = server.with_connections(connections.clone());
        spawn(async move { server.await });
        let client = client(Connector::new(), Duration::from_millis(20));
        let uri = format!("http://{address}/");
        assert_eq!(post(&client, &uri, "once").await, "once");
        // The pool's timer is ours.
        until(|| connections.open() == 0).await;
        assert_eq!(post(&client, &uri, "again").await, "again");
    });
}

#[test]
fn requests_at_once_have_connections_of_their_own() {
    run(2, async {
        let (address, server) = bind(echo).await;
        spawn(async move { server.await });
        let client = client(Connector::new(), SOON);
        let uri = format!("http://{address}/");
        let tasks: Vec<_> = (0..100)
            .map(|number| {
                let (client, uri) = (client.clone(), uri.clone());
                spawn(async move {
                    assert_eq!(post(&client, &uri, &number.to_string()).await, number.to_string());
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn a_connection_that_cannot_be_had_is_an_error() {
    run(2, async {
        let client = client(Connector::new(), SOON);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(failure(&client, &format!("http://{address}/")).await, io::ErrorKind::ConnectionRefused);
        assert_eq!(failure(&client, "https://localhost/").await, io::ErrorKind::InvalidInput);
    });
}

#[test]
fn connecting_takes_no_longer_than_it_may() {
    run(2, async {
        // A listener whose queue is full answers no further connection.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&socket2::SockAddr::from(std::net::SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let uri: Uri = format!("http://{address}/").parse().unwrap();
        let mut connector = Connector::new().connect_timeout(Duration::from_millis(50));
        let mut connected = Vec::new();
        let error = loop {
            let start = Instant::now();
            match connector.call(uri.clone()).await {
                Ok(stream) => connected.push(stream),
                Err(error) => {
                    assert!(start.elapsed() >= Duration::from_millis(50));
                    break error;
                }
            }
            assert!(connected.len() < 10);
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains("50ms"), "{error}");
    });
}

#[test]
fn a_connection_of_http2_carries_many_requests() {
    run(2, async {
        let version = |request: Request<RequestBody>| async move {
            Answer::new(Full::new(format!("{:?}", request.version()).into()))
        };
        let connections = Connections::new();
        let (address, server) = bind(version).await;
        let server = server.with_connections(connections.clone());
        spawn(async move { server.await });
        let mut builder = Client::builder(Executor::new());
        builder.http2_only(true).timer(Timer::new()).http2_keep_alive_interval(Duration::from_millis(5));
        let client = builder.build(Connector::new());
        let uri = format!("http://{address}/");
        assert_eq!(post(&client, &uri, "").await, "HTTP/2.0");
        let all = (0..50).map(|_| {
            let (client, uri) = (client.clone(), uri.clone());
            spawn(async move { post(&client, &uri, "").await })
        });
        for task in all.collect::<Vec<_>>() {
            assert_eq!(task.await.unwrap(), "HTTP/2.0");
        }
        assert_eq!(connections.accepted(), 1);
    });
}
