//! The example's server and client over the loopback interface, each with its own endpoint.

use std::future::Future;

use mainspring::runtime::Builder;
use mainspring::task::JoinHandle;
use mainspring::time::{sleep, timeout};

use super::*;

const SOON: Duration = Duration::from_secs(60);

async fn soon<F: Future>(future: F) -> F::Output {
    timeout(SOON, future).await.expect("it comes soon")
}

/// A server at work: its endpoint, its certificate, its task.
fn start(idle: Duration) -> (Endpoint, CertificateDer<'static>, JoinHandle<()>) {
    let (certificate, key) = certificate().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let endpoint = server(socket, certificate.clone(), key, idle).unwrap();
    let serving = mainspring::spawn(serve(endpoint.clone()));
    (endpoint, certificate, serving)
}

#[mainspring::test]
async fn every_byte_comes_back_on_many_streams_of_several_connections() {
    const CONNECTIONS: usize = 4;
    const STREAMS: usize = 8;
    const BYTES: usize = 150_000;
    let (endpoint, certificate, serving) = start(IDLE);
    let addr = endpoint.local_addr().unwrap();
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let certificate = certificate.clone();
        clients.spawn(async move {
            let client = client(certificate).unwrap();
            let connection = client.connect(addr, NAME).unwrap().await.unwrap();
            let sum = echo_on_streams(&connection, STREAMS, BYTES).await.unwrap();
            connection.close(DONE, b"done");
            client.wait_idle().await;
            sum
        });
    }
    let mut sum = 0;
    while let Some(received) = soon(clients.join_next()).await {
        sum += received.unwrap();
    }
    assert_eq!(sum, CONNECTIONS * STREAMS * BYTES);
    endpoint.close(DONE, b"done");
    soon(serving).await.unwrap();
    assert_eq!(endpoint.open_connections(), 0);
}

#[mainspring::test]
async fn several_connections_share_the_sockets_of_one_endpoint() {
    let (endpoint, certificate, _serving) = start(IDLE);
    let client = client(certificate).unwrap();
    let addr = endpoint.local_addr().unwrap();
    let mut connections = JoinSet::new();
    for _ in 0..8 {
        let connecting = client.connect(addr, NAME).unwrap();
        connections.spawn(async move { echo_on_streams(&connecting.await?, 2, 100_000).await });
    }
    while let Some(sum) = soon(connections.join_next()).await {
        assert_eq!(sum.unwrap().unwrap(), 200_000);
    }
}

#[mainspring::test]
async fn closing_the_server_tells_its_clients_and_ends_it() {
    let (endpoint, certificate, serving) = start(IDLE);
    let client = client(certificate).unwrap();
    let addr = endpoint.local_addr().unwrap();
    let connection = soon(client.connect(addr, NAME).unwrap()).await.unwrap();
    // Streams without an end are cut off.
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(b"begun").await.unwrap();
    let mut begun = [0; 5];
    soon(receive.read_exact(&mut begun)).await.unwrap();
    endpoint.close(VarInt::from_u32(7), b"over");
    match soon(connection.closed()).await {
        ConnectionError::ApplicationClosed(close) => {
            assert_eq!((close.error_code, &close.reason[..]), (VarInt::from_u32(7), &b"over"[..]));
        }
        error => panic!("{error}"),
    }
    assert!(soon(receive.read_exact(&mut begun)).await.is_err());
    soon(serving).await.unwrap();
}

#[mainspring::test]
async fn a_client_that_vanishes_is_noticed_when_its_time_is_over() {
    let (endpoint, certificate, serving) = start(Duration::from_millis(300));
    let addr = endpoint.local_addr().unwrap();
    let other = Builder::new().processors(1).build().unwrap();
    let connection = other.spawn(async move {
        let client = client(certificate).unwrap();
        let connection = client.connect(addr, NAME).unwrap().await.unwrap();
        assert_eq!(echo_on_streams(&connection, 1, 1_000).await.unwrap(), 1_000);
        connection
    });
    let connection = soon(connection).await.unwrap();
    assert_eq!(endpoint.open_connections(), 1);
    // Nobody says goodbye any more.
    other.shutdown(SOON).unwrap();
    assert!(
        matches!(soon(connection.closed()).await, ConnectionError::LocallyClosed),
        "its tasks have ended"
    );
    let start = Instant::now();
    while endpoint.open_connections() > 0 {
        assert!(start.elapsed() < SOON);
        sleep(Duration::from_millis(5)).await;
    }
    endpoint.close(DONE, b"");
    soon(serving).await.unwrap();
}

#[mainspring::test]
async fn a_client_that_moves_to_another_address_goes_on() {
    let (endpoint, certificate, _serving) = start(IDLE);
    let client = client(certificate).unwrap();
    let addr = endpoint.local_addr().unwrap();
    let connection = soon(client.connect(addr, NAME).unwrap()).await.unwrap();
    for _ in 0..3 {
        let before = client.local_addr().unwrap();
        client.rebind(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
        assert_ne!(client.local_addr().unwrap(), before);
        assert_eq!(soon(echo_on_streams(&connection, 2, 50_000)).await.unwrap(), 100_000);
    }
}

#[mainspring::test]
async fn a_server_with_another_certificate_is_not_trusted() {
    let (endpoint, _, _serving) = start(IDLE);
    let (other, _) = certificate().unwrap();
    let client = client(other).unwrap();
    let addr = endpoint.local_addr().unwrap();
    let error = soon(client.connect(addr, NAME).unwrap()).await.unwrap_err();
    assert!(matches!(error, ConnectionError::TransportError(_)), "{error}");
}

#[mainspring::test]
async fn nobody_there_is_reported_when_the_time_is_over() {
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (certificate, _) = certificate().unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let mut config = ClientConfig::with_root_certificates(Arc::new(roots)).unwrap();
    config.transport_config(transport(Duration::from_millis(200)).unwrap());
    let client = endpoint(UdpSocket::bind("127.0.0.1:0").unwrap(), None).unwrap();
    let error = soon(client.connect_with(config, nobody, NAME).unwrap()).await.unwrap_err();
    assert!(matches!(error, ConnectionError::TimedOut), "{error}");
}
