//! The TLS server and clients that do as they should, and others.

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use mainspring::compat::hyper::Executor;
use mainspring::spawn;
use mainspring::task::JoinHandle;
use mainspring::time::{Instant, timeout};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::*;

const SOON: Duration = Duration::from_secs(30);
/// What some are to miss and others not, on a busy machine too.
const SHORT: Duration = Duration::from_millis(1_000);

struct Server {
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<io::Result<()>>,
}

async fn start(patience: Duration) -> Server {
    let identity = Identity::self_signed().unwrap();
    let certificate = identity.certificate.clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let stopped = async {
        let _ = stopped.await;
    };
    let task = spawn(serve(listener, identity.acceptor().unwrap(), patience, stopped));
    Server { address, certificate, stop, task }
}

impl Server {
    /// A connection of a client that knows the certificate, and offers these protocols.
    async fn connect(&self, protocols: &[&[u8]]) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let stream = TcpStream::connect(self.address).await.unwrap();
        TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await.unwrap()
    }

    async fn get_by_http2(&self, path: &str) -> (StatusCode, String) {
        let stream = self.connect(&[b"h2", b"http/1.1"]).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(Executor::new(), TokioIo::new(stream)).await.unwrap();
        spawn(connection);
        let request = Request::get(format!("https://localhost{path}")).body(Empty::<Bytes>::new()).unwrap();
        read(sender.send_request(request).await.unwrap()).await
    }

    async fn get_by_http1(&self, path: &str) -> (StatusCode, String) {
        let stream = self.connect(&[b"http/1.1"]).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        spawn(connection);
        let request = Request::get(path).header("host", "localhost").body(Empty::<Bytes>::new()).unwrap();
        read(sender.send_request(request).await.unwrap()).await
    }
}

async fn read(answer: hyper::Response<hyper::body::Incoming>) -> (StatusCode, String) {
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn is_closed(stream: &TcpStream) -> bool {
    let mut buffer = [0; 100];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => return true,
            // An alert.
            Ok(_) => {}
            Err(error) => return error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

#[mainspring::test]
async fn clients_get_the_version_that_they_offer() {
    let server = start(SOON).await;
    let expected = |version: &str| (StatusCode::OK, format!("hello over {version}, 127.0.0.1\n"));
    assert_eq!(server.get_by_http2("/").await, expected("HTTP/2.0"));
    assert_eq!(server.get_by_http1("/").await, expected("HTTP/1.1"));
    assert_eq!(server.get_by_http2("/double/21").await, (StatusCode::OK, "42".to_owned()));
    assert_eq!(server.get_by_http2("/nothing").await.0, StatusCode::NOT_FOUND);
}

#[mainspring::test(processors = 1)]
async fn clients_that_say_nothing_delay_nobody_and_are_gone_in_time() {
    let server = start(SHORT).await;
    let start = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    // In the middle of a handshake as well.
    silent[0].write_all(&[0x16, 0x03, 0x01, 0x02]).await.unwrap();
    assert_eq!(server.get_by_http2("/").await.0, StatusCode::OK);
    for stream in &silent {
        assert!(timeout(SOON, is_closed(stream)).await.unwrap());
    }
    assert!(start.elapsed() >= SHORT);
    assert_eq!(server.get_by_http2("/").await.0, StatusCode::OK);
}

#[mainspring::test]
async fn a_client_that_speaks_no_tls_is_sent_away() {
    let server = start(SOON).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    assert!(timeout(SOON, is_closed(&stream)).await.unwrap());
}

#[mainspring::test]
async fn connections_end_with_the_server() {
    let server = start(SOON).await;
    let stream = server.connect(&[b"h2"]).await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(Executor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = spawn(connection);
    let request = Request::get("https://localhost/").body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(read(sender.send_request(request).await.unwrap()).await.0, StatusCode::OK);
    server.stop.send(()).unwrap();
    timeout(SOON, connection).await.unwrap().unwrap().unwrap();
    timeout(SOON, server.task).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}
