//! An echo service over QUIC and its client: quinn on mainspring's sockets, tasks and clock.
//!
//! `cargo run --release --example quinn_echo -- server` makes a certificate, leaves it in a file and listens; the same
//! with `client` trusts that file, sends bytes on several streams at once and checks what comes back.
//!
//! From top to bottom: the command line, the server, the client. What is mainspring's is the `Runtime` in `endpoint`.
//!
//! Invariant: nothing is held for a client that is not bounded by QUIC's windows, and a silent one is let go.

use std::error::Error;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use futures_util::future::select;
use mainspring::compat::quinn::Runtime;
use mainspring::signal::unix::{SignalKind, signal};
use mainspring::task::JoinSet;
use quinn::rustls::RootCertStore;
use quinn::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig, Incoming, RecvStream, SendStream,
    ServerConfig, TransportConfig, VarInt,
};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The name in the certificate, which the client asks for.
const NAME: &str = "localhost";

/// How long a connection may be silent before it counts as lost.
const IDLE: Duration = Duration::from_secs(30);

/// The most that is read at once.
const CHUNK: usize = 64 * 1024;

/// With this the server and the client end their connections: nothing is wrong.
const DONE: VarInt = VarInt::from_u32(0);

/// An echo service over QUIC, and its client
#[derive(Parser, Debug)]
#[command(name = "quinn_echo", version)]
struct Options {
    /// Where the server leaves its certificate and the client finds it
    #[arg(long, global = true, value_name = "FILE", default_value = "quinn_echo.der")]
    certificate: PathBuf,

    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand, Debug)]
enum Role {
    /// Listens, until SIGINT or SIGTERM
    Server {
        /// Where to listen; port 0 means any free one
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4433")]
        listen: SocketAddr,
    },
    /// Sends bytes and checks that they come back
    Client {
        /// Where the server listens
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4433")]
        connect: SocketAddr,
        /// How many streams at once
        #[arg(long, value_name = "N", default_value = "8")]
        streams: usize,
        /// How many bytes on each
        #[arg(long, value_name = "N", default_value = "10000000")]
        bytes: usize,
    },
}

#[mainspring::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    match options.role {
        Role::Server { listen } => {
            let (certificate, key) = certificate()?;
            fs::write(&options.certificate, &certificate)?;
            let endpoint = server(UdpSocket::bind(listen)?, certificate, key, IDLE)?;
            println!("quinn_echo: listening on {}", endpoint.local_addr()?);
            close_on_signal(endpoint.clone())?;
            serve(endpoint).await;
        }
        Role::Client { connect, streams, bytes } => {
            let certificate = CertificateDer::from(fs::read(&options.certificate)?);
            let endpoint = client(certificate)?;
            let start = Instant::now();
            let connection = endpoint.connect(connect, NAME)?.await?;
            let sum = echo_on_streams(&connection, streams, bytes).await?;
            println!("quinn_echo: {sum} bytes there and back in {:?}", start.elapsed());
            connection.close(DONE, b"done");
            endpoint.wait_idle().await;
        }
    }
    Ok(())
}

/// Has the endpoint close when the process is told to end.
fn close_on_signal(endpoint: Endpoint) -> Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    mainspring::spawn(async move {
        select(pin!(interrupt.recv()), pin!(terminate.recv())).await;
        endpoint.close(DONE, b"the server ends");
    });
    Ok(())
}

/// A certificate that vouches for itself, and its key.
fn certificate() -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>)> {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    Ok((made.cert.der().clone(), key.into()))
}

fn endpoint(socket: UdpSocket, server: Option<ServerConfig>) -> Result<Endpoint> {
    Ok(Endpoint::new(EndpointConfig::default(), server, socket, Arc::new(Runtime::new()))?)
}

fn transport(idle: Duration) -> Result<Arc<TransportConfig>> {
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(Some(idle.try_into()?));
    Ok(Arc::new(transport))
}

// The server.

fn server(
    socket: UdpSocket,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    idle: Duration,
) -> Result<Endpoint> {
    let mut config = ServerConfig::with_single_cert(vec![certificate], key)?;
    config.transport_config(transport(idle)?);
    endpoint(socket, Some(config))
}

/// Serves every connection until the endpoint is closed, and waits until the peers have been told.
async fn serve(endpoint: Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        mainspring::spawn(async move {
            if let Err(error) = serve_connection(incoming).await {
                eprintln!("quinn_echo: {error}");
            }
        });
    }
    endpoint.wait_idle().await;
}

/// Serves the streams of one connection until it ends.
async fn serve_connection(incoming: Incoming) -> Result<()> {
    let connection = incoming.await?;
    loop {
        let (send, receive) = match connection.accept_bi().await {
            Ok(stream) => stream,
            Err(ConnectionError::ApplicationClosed(_) | ConnectionError::LocallyClosed) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        mainspring::spawn(async move {
            // A stream that breaks off is the client's affair; the connection tells if it was that.
            let _ = echo_back(send, receive).await;
        });
    }
}

/// Sends back what comes. What has not been taken back yet is bounded by QUIC's windows.
async fn echo_back(mut send: SendStream, mut receive: RecvStream) -> Result<()> {
    while let Some(chunk) = receive.read_chunk(CHUNK, true).await? {
        send.write_chunk(chunk.bytes).await?;
    }
    send.finish()?;
    Ok(())
}

// The client.

fn client(certificate: CertificateDer<'static>) -> Result<Endpoint> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate)?;
    let mut config = ClientConfig::with_root_certificates(Arc::new(roots))?;
    config.transport_config(transport(IDLE)?);
    let mut endpoint = endpoint(UdpSocket::bind("127.0.0.1:0")?, None)?;
    endpoint.set_default_client_config(config);
    Ok(endpoint)
}

/// Sends `bytes` bytes on each of several streams at once; how many came back in all.
///
/// # Errors
///
/// If the connection breaks, or what comes back is not what was sent.
async fn echo_on_streams(connection: &Connection, streams: usize, bytes: usize) -> Result<usize> {
    let mut tasks = JoinSet::new();
    for stream in 0..streams {
        let connection = connection.clone();
        tasks.spawn(async move { echo(&connection, stream, bytes).await });
    }
    let mut sum = 0;
    while let Some(received) = tasks.join_next().await {
        sum += received??;
    }
    Ok(sum)
}

/// One stream's worth: a task sends while this one receives and checks.
async fn echo(connection: &Connection, stream: usize, bytes: usize) -> Result<usize> {
    let (mut send, mut receive) = connection.open_bi().await?;
    let sender = mainspring::spawn(async move {
        let mut sent = 0;
        while sent < bytes {
            let end = bytes.min(sent + CHUNK);
            let chunk: Vec<u8> = (sent..end).map(|place| byte_at(stream, place)).collect();
            send.write_all(&chunk).await?;
            sent = end;
        }
        send.finish()?;
        Result::Ok(())
    });
    let mut received = 0;
    while let Some(chunk) = receive.read_chunk(CHUNK, true).await? {
        for byte in &chunk.bytes {
            if *byte != byte_at(stream, received) {
                return Err(format!("byte {received} of stream {stream} came back changed").into());
            }
            received += 1;
        }
    }
    sender.await??;
    if received != bytes {
        return Err(format!("{received} of {bytes} bytes of stream {stream} came back").into());
    }
    Ok(received)
}

/// A byte that tells its place and its stream.
fn byte_at(stream: usize, place: usize) -> u8 {
    (stream * 31 + place % 251 + place / 65_537) as u8
}

#[cfg(test)]
#[path = "tests/quinn_echo.rs"]
mod tests;
