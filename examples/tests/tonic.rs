//! Client and server of `tonic.rs`, over a real connection.

use std::sync::Arc;
use std::time::Instant;

use mainspring::spawn;
use mainspring::task::JoinHandle;
use mainspring::time::timeout;
use tokio::sync::{Notify, mpsc};
use tonic::Code;

use super::*;

const SOON: Duration = Duration::from_secs(30);

async fn start() -> (SocketAddr, Arc<Notify>, JoinHandle<std::io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = Arc::new(Notify::new());
    let stopped = Arc::clone(&stop);
    let server = spawn(serve(listener, async move { stopped.notified().await }));
    (address, stop, server)
}

fn request(name: &str, count: u32, delay_ms: u32) -> HelloRequest {
    HelloRequest { name: name.to_owned(), count, delay_ms }
}

#[mainspring::test]
async fn calls_are_answered_many_at_a_time() {
    let (address, _stop, _server) = start().await;
    let client = connect(address, SOON).await.unwrap();
    let start = Instant::now();
    let calls: Vec<_> = (0..200)
        .map(|number| {
            let mut client = client.clone();
            spawn(async move {
                let reply = client.say_hello(request(&number.to_string(), 0, 100)).await.unwrap();
                assert_eq!(reply.into_inner().message, format!("Hello, {number}!"));
            })
        })
        .collect();
    for call in calls {
        timeout(SOON, call).await.unwrap().unwrap();
    }
    // One after the other they would take 20 s.
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[mainspring::test]
async fn a_mistake_has_its_status() {
    let (address, _stop, _server) = start().await;
    let mut client = connect(address, SOON).await.unwrap();
    let status = client.say_hello(request("", 0, 0)).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "whom?"));
}

#[mainspring::test]
async fn streams_come_one_by_one_and_end() {
    let (address, _stop, _server) = start().await;
    let mut client = connect(address, SOON).await.unwrap();
    let mut replies = client.say_hellos(request("you", 5, 1)).await.unwrap().into_inner();
    for number in 0..5 {
        let reply = replies.message().await.unwrap().unwrap();
        assert_eq!(reply.message, format!("Hello, you {number}!"));
    }
    assert_eq!(replies.message().await.unwrap(), None);

    // In both directions: each is answered before the next is sent.
    let (send, receive) = mpsc::channel(1);
    let requests = stream::unfold(receive, |mut receive| async { Some((receive.recv().await?, receive)) });
    let mut replies = client.chat(requests).await.unwrap().into_inner();
    for name in ["Ada", "Grace", "Barbara"] {
        send.send(request(name, 0, 0)).await.unwrap();
        assert_eq!(replies.message().await.unwrap().unwrap().message, format!("Hello, {name}!"));
    }
    drop(send);
    assert_eq!(replies.message().await.unwrap(), None);
}

#[mainspring::test]
async fn a_call_that_takes_too_long_fails_in_time() {
    let (address, _stop, _server) = start().await;
    let mut client = connect(address, Duration::from_millis(50)).await.unwrap();
    let start = Instant::now();
    let status = client.say_hello(request("you", 0, 3_600_000)).await.unwrap_err();
    assert!(start.elapsed() >= Duration::from_millis(50));
    assert!(matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded), "{status}");
    assert_eq!(client.say_hello(request("you", 0, 0)).await.unwrap().into_inner().message, "Hello, you!");
}

#[mainspring::test]
async fn a_stream_is_finished_before_the_server_ends() {
    let (address, stop, server) = start().await;
    let mut client = connect(address, SOON).await.unwrap();
    let mut replies = client.say_hellos(request("you", 10, 10)).await.unwrap().into_inner();
    replies.message().await.unwrap().unwrap();
    stop.notify_one();
    let mut count = 1;
    while let Some(_reply) = replies.message().await.unwrap() {
        count += 1;
    }
    assert_eq!(count, 10);
    timeout(SOON, server).await.unwrap().unwrap().unwrap();
    assert!(connect(address, SOON).await.is_err());
}
