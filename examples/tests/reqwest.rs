//! reqwest in tasks of mainspring, against a server of mainspring.

use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use mainspring::net::TcpListener;
use mainspring::serve::Connections;
use mainspring::spawn;
use mainspring::time::{sleep, timeout};

use super::*;

const SOON: Duration = Duration::from_secs(30);

async fn start() -> (SocketAddr, Connections) {
    let router = Router::new()
        .route("/", get(async || "x".repeat(100_000)))
        .route("/slow", get(async || sleep(Duration::from_secs(3_600)).await));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Connections::new();
    let counted = connections.clone();
    spawn(async move { mainspring::serve(listener, router).with_connections(counted).await });
    (address, connections)
}

#[mainspring::test]
async fn hundreds_of_requests_at_once_are_answered_whole() {
    let (address, _connections) = start().await;
    let client = client(SOON).unwrap();
    let pages = timeout(SOON, fetch(&client, &format!("http://{address}/"), 400)).await.unwrap();
    assert_eq!(pages.len(), 400);
    for page in pages {
        assert_eq!(page.unwrap(), Page { status: 200, length: 100_000 });
    }
}

#[mainspring::test]
async fn connections_are_used_again() {
    let (address, connections) = start().await;
    let client = client(SOON).unwrap();
    for _ in 0..50 {
        let pages = fetch(&client, &format!("http://{address}/"), 1).await;
        assert_eq!(pages[0].as_ref().unwrap().status, 200);
    }
    // The client opens another one if the last has not come back to its pool yet.
    assert!(connections.accepted() <= 25, "{connections:?}");
}

#[mainspring::test]
async fn a_request_that_takes_too_long_fails_in_time_and_delays_no_other() {
    let (address, _connections) = start().await;
    let limit = Duration::from_millis(100);
    let client = client(limit).unwrap();
    let slow_client = client.clone();
    let start = Instant::now();
    let slow = spawn(async move { fetch(&slow_client, &format!("http://{address}/slow"), 10).await });
    let pages = fetch(&client, &format!("http://{address}/missing"), 1).await;
    assert_eq!(pages[0].as_ref().unwrap().status, 404);
    for page in timeout(SOON, slow).await.unwrap().unwrap() {
        assert!(page.unwrap_err().is_timeout());
    }
    assert!(start.elapsed() >= limit);
}

#[mainspring::test]
async fn nobody_at_the_other_end_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let pages = fetch(&client(SOON).unwrap(), &format!("http://{address}/"), 3).await;
    assert!(pages.into_iter().all(|page| page.unwrap_err().is_connect()));
}
