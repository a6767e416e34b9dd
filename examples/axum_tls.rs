//! An axum router over TLS by rustls, HTTP/2 or HTTP/1.1 as the client likes (ALPN).
//!
//! `cargo run --release --example axum_tls -- 127.0.0.1:8443` serves with a certificate that it signs itself;
//! `curl --insecure https://localhost:8443/` asks it, and Ctrl-C ends it.
//!
//! The handshake runs in each connection's own task, under the deadline for the first head: a client that connects and
//! says nothing delays nobody, and is gone after ten seconds.

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Extension;
use axum::http::Version;
use axum::routing::get;
use axum::{Json, Router};
use hyper_util::rt::TokioIo;
use mainspring::net::{TcpListener, TcpStream};
use mainspring::serve::PeerAddr;
use mainspring::signal::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

/// A certificate, and the key that belongs to it.
struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Signed by nobody else: for tests.
    fn self_signed() -> Result<Identity, rcgen::Error> {
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let key = PrivateKeyDer::Pkcs8(signed.signing_key.serialize_der().into());
        Ok(Identity { certificate: signed.cert.der().clone(), key })
    }

    fn acceptor(self) -> Result<TlsAcceptor, rustls::Error> {
        // Named, because a program may have several of rustls's providers compiled in.
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate], self.key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn router() -> Router {
    Router::new().route("/", get(hello)).route("/double/{number}", get(double))
}

async fn hello(version: Version, Extension(peer): Extension<PeerAddr<SocketAddr>>) -> String {
    format!("hello over {version:?}, {}\n", peer.0.ip())
}

async fn double(number: axum::extract::Path<u32>) -> Json<u64> {
    Json(2 * u64::from(*number))
}

/// Serves until `stop` is ready. A client has `patience` for its handshake and the head of its first request.
async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    patience: Duration,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    mainspring::serve(listener, router())
        .handshake(move |stream: TcpStream| {
            let accepting = acceptor.accept(stream);
            async { Ok(TokioIo::new(accepting.await?)) }
        })
        .header_timeout(patience)
        .with_peer_addr()
        .with_graceful_shutdown(stop)
        .await
}

#[mainspring::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8443".to_owned());
    let acceptor = Identity::self_signed()?.acceptor()?;
    let listener = TcpListener::bind(address.as_str()).await?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    println!("listening on https://{}/", listener.local_addr()?);
    let stop = async move {
        let _ = interrupt.recv().await;
    };
    serve(listener, acceptor, Duration::from_secs(10), stop).await?;
    Ok(())
}

#[cfg(test)]
#[path = "tests/axum_tls.rs"]
mod tests;
