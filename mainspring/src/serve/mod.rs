//! A server for any tower service: axum's router, tonic's, or one of your own, over HTTP/1.1 and HTTP/2 on one port.
//!
//! What takes too long is ended by deadlines on the connection's descriptor, which cost a store where a timer would be
//! armed and cancelled. Knows nothing of routes and of TLS; `connections.rs` knows who is there, `turns.rs` whose
//! turn it is, `connection.rs` serves one.
//!
//! Invariants: one connection delays no other, whatever its peer does. Nothing wakes up unless there is something to do.

mod connection;
mod connections;
mod listener;
mod pace;
mod parts;
mod turns;

use std::error::Error;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use hyper::body::Body;
use hyper::{Request, Response};
use hyper_util::server::conn::auto;
use rustix::io::Errno;
use tower_service::Service;

use self::connection::{Accepted, connection};
pub use self::connections::Connections;
use self::connections::{Phase, Registry};
pub use self::listener::{Handshake, Listener, Plain};
use self::pace::Pace;
pub use self::turns::RequestBody;
use self::turns::Turns;
use crate::compat::hyper::{Executor, Timer};
use crate::task::JoinHandle;
use crate::time::{Instant, sleep_until, timeout};

type BoxError = Box<dyn Error + Send + Sync>;

/// By when the head of a connection's first request must have come, handshake included, unless another time is set. The
/// same as hyper's.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves connections with an app: any tower service that takes requests of HTTP, for each of which it is cloned.
///
/// Awaited, it serves until it fails, or until [`with_graceful_shutdown`](Serve::with_graceful_shutdown) ends it. Each
/// connection is a task of the current runtime; HTTP/1.1 and HTTP/2 are told apart by their first bytes, and
/// upgrades, to websockets say, work through hyper's `upgrade::on`. A handler that panics ends its own request in HTTP/2,
/// and its own connection in HTTP/1.1. With axum it stands in for `axum::serve`.
///
/// # Errors
///
/// Accepting goes on after every error of the system that may pass, but not at any rate: two errors with no connection
/// in between are at least 5 ms apart, and twice as far each time, up to 1 s. What ends the server is a listener that
/// accepts nothing any more: its deadline has passed, its runtime has shut down, its descriptor is none. Connections
/// that are there go on then. See also [`with_graceful_shutdown`](Serve::with_graceful_shutdown).
///
/// # Cancel safety
///
/// If the future is dropped, no further connection is accepted; those that are there go on.
///
/// # Examples
///
/// With axum, the last line would be the one that changes: `mainspring::serve(listener, router).await`.
///
/// ```
/// use std::convert::Infallible;
///
/// use hyper::{Request, Response};
/// use mainspring::net::{TcpListener, TcpStream};
/// use mainspring::serve::RequestBody;
///
/// #[derive(Clone)]
/// struct Hello;
///
/// impl tower_service::Service<Request<RequestBody>> for Hello {
///     type Response = Response<String>;
///     type Error = Infallible;
///     type Future = std::future::Ready<Result<Response<String>, Infallible>>;
///
///     fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
///         std::task::Poll::Ready(Ok(()))
///     }
///
///     fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
///         std::future::ready(Ok(Response::new(format!("hello from {}", request.uri().path()))))
///     }
/// }
///
/// # mainspring::block_on(async {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let address = listener.local_addr()?;
/// mainspring::spawn(async move { mainspring::serve(listener, Hello).await });
///
/// let client = TcpStream::connect(address).await?;
/// client.write_all(b"GET /there HTTP/1.1\r\nhost: x\r\n\r\n").await?;
/// let mut answer = [0; 12];
/// client.read_exact(&mut answer).await?;
/// assert_eq!(&answer, b"HTTP/1.1 200");
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub fn serve<L, S>(listener: L, app: S) -> Serve<L, S>
where
    L: Listener,
    S: App,
{
    let mut http = auto::Builder::new(Executor::new());
    // hyper's own timeout arms a timer for each head; a deadline does the same here.
    http.http1().timer(Timer::new()).header_read_timeout(None);
    http.http2().timer(Timer::new());
    Serve {
        listener,
        app,
        handshake: Plain,
        http,
        header_timeout: Some(HEADER_TIMEOUT),
        idle_timeout: None,
        peer_addr: false,
        stop: None,
        shutdown_timeout: None,
        on_accept_error: None,
        connections: Connections::new(),
    }
}

/// What can be served: every tower service that takes requests of HTTP and answers them with any body. There is nothing to
/// implement here.
///
/// axum's router and tonic's servers take requests with any body. A service that asks for hyper's `Incoming` gets it by
/// tower's `ServiceExt::map_request` and [`RequestBody::into_incoming`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be served: it is no `tower::Service` of `Request<mainspring::serve::RequestBody>`",
    note = "its answers must be a `Response` with a body that is `Send`, it must be `Clone + Send + 'static`, and its errors \
            must be errors or convertible to boxed ones"
)]
pub trait App:
    Service<
        Request<RequestBody>,
        Response = Response<<Self as App>::Body>,
        Error: Into<BoxError>,
        Future: Send + 'static,
    > + Clone
    + Send
    + 'static
{
    /// The body of its answers.
    type Body: Body<Data: Send, Error: Into<BoxError>> + Send + 'static;
}

impl<S, B> App for S
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error: Into<BoxError>, Future: Send + 'static>
        + Clone
        + Send
        + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Body = B;
}

/// A server, to be awaited; see [`serve`].
#[must_use = "a server does nothing until it is awaited"]
pub struct Serve<L, S, H = Plain> {
    listener: L,
    app: S,
    handshake: H,
    http: auto::Builder<Executor>,
    header_timeout: Option<Duration>,
    idle_timeout: Option<Duration>,
    peer_addr: bool,
    stop: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    shutdown_timeout: Option<Duration>,
    on_accept_error: Option<OnAcceptError>,
    connections: Connections,
}

type OnAcceptError = Box<dyn FnMut(&io::Error) + Send>;

/// Who is at the other end of a request's connection: an extension of the request, after
/// [`Serve::with_peer_addr`]. Of TCP it is a [`SocketAddr`](std::net::SocketAddr).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerAddr<A>(pub A);

/// Connections that were not done when the time for a graceful shutdown was over. It is what
/// [`io::Error::get_ref`] of the server's error gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CutOff {
    /// How many were cut off.
    pub connections: usize,
}

impl fmt::Display for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} connections were cut off, as they were not done in time", self.connections)
    }
}

impl Error for CutOff {}

impl<L, S, H> Serve<L, S, H>
where
    L: Listener,
{
    /// Stops when `signal` is ready: no further connection is accepted, the listener is closed, requests that have
    /// begun are finished, and the server is ready when the last connection is gone. A connection that was upgraded is
    /// in other hands, and is not waited for. Those that the kernel has in the listener's queue are reset, and a client
    /// that sends a request on an idle connection at this moment finds it closed: as with other servers, whoever must
    /// lose no request has the load balancer look elsewhere first.
    ///
    /// # Errors
    ///
    /// After [`shutdown_timeout`](Serve::shutdown_timeout) the server fails with `TimedOut` and [`CutOff`].
    pub fn with_graceful_shutdown(mut self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.stop = Some(Box::pin(signal));
        self
    }

    /// How long requests that have begun may go on after the signal. Then their connections are cut off, and the
    /// server says how many these were. By default there is no limit.
    pub fn shutdown_timeout(mut self, limit: Duration) -> Self {
        self.shutdown_timeout = Some(limit);
        self
    }

    /// By when the head of a connection's first request must have come, counted from when it was accepted: the
    /// handshake is part of it. 30 s by default; `None` for no limit.
    pub fn header_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.header_timeout = limit.into();
        self
    }

    /// How long a connection may do nothing while it is the peer's turn: between two requests, when the next part of a
    /// body is waited for, while a part of an answer waits to be read. While a handler is at work, nothing runs out. By
    /// default there is no limit.
    ///
    /// A peer that is slow and not idle may take longer. What is out of sight is the end of an answer, once it is in
    /// hyper's buffer, which has room for some 400 KiB unless that is [changed](Serve::http): a peer must be able to read
    /// as much within the limit.
    pub fn idle_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.idle_timeout = limit.into();
        self
    }

    /// Gives each request a [`PeerAddr`] among its extensions. It is an option because it costs each request some
    /// allocations.
    pub fn with_peer_addr(mut self) -> Self {
        self.peer_addr = true;
        self
    }

    /// Changes hyper's settings. Its timers are set already, for those of its options that need one.
    ///
    /// # Examples
    ///
    /// ```
    /// # use mainspring::{net::TcpListener, serve::Serve};
    /// fn tuned<S>(server: Serve<TcpListener, S>) -> Serve<TcpListener, S> {
    ///     server.http(|http| {
    ///         http.http2().max_concurrent_streams(100);
    ///         http.http1().max_buf_size(64 << 10);
    ///     })
    /// }
    /// ```
    pub fn http(mut self, change: impl FnOnce(&mut auto::Builder<Executor>)) -> Self {
        change(&mut self.http);
        self
    }

    /// Is told of each error of accepting after which the server goes on.
    pub fn on_accept_error(mut self, tell: impl FnMut(&io::Error) + Send + 'static) -> Self {
        self.on_accept_error = Some(Box::new(tell));
        self
    }

    /// What HTTP is spoken on, made of each accepted stream: TLS, for example. It runs in the connection's own task, so a
    /// peer that is slow at it delays nobody, and under the deadline of [`header_timeout`](Serve::header_timeout).
    /// Streams that have tokio's traits, as those of tokio-rustls, need hyper-util's `TokioIo` around them;
    /// no runtime of tokio's is needed.
    ///
    /// # Examples
    ///
    /// A greeting before HTTP begins. For TLS see the repository's `examples/axum_tls.rs`.
    ///
    /// ```
    /// # use mainspring::{net::{TcpListener, TcpStream}, serve::{Handshake, Serve}};
    /// fn greeted<S>(server: Serve<TcpListener, S>) -> Serve<TcpListener, S, impl Handshake<TcpStream>> {
    ///     server.handshake(|stream: TcpStream| async move {
    ///         stream.write_all(b"hello\n").await?;
    ///         Ok(stream)
    ///     })
    /// }
    /// ```
    pub fn handshake<F: Handshake<L::Stream>>(self, handshake: F) -> Serve<L, S, F> {
        Serve {
            listener: self.listener,
            app: self.app,
            handshake,
            http: self.http,
            header_timeout: self.header_timeout,
            idle_timeout: self.idle_timeout,
            peer_addr: self.peer_addr,
            stop: self.stop,
            shutdown_timeout: self.shutdown_timeout,
            on_accept_error: self.on_accept_error,
            connections: self.connections,
        }
    }

    /// Counts the server's connections, for whoever has a clone.
    pub fn with_connections(mut self, connections: Connections) -> Self {
        self.connections = connections;
        self
    }
}

impl<L: fmt::Debug, S, H> fmt::Debug for Serve<L, S, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("listener", &self.listener)
            .field("header_timeout", &self.header_timeout)
            .field("idle_timeout", &self.idle_timeout)
            .field("shutdown_timeout", &self.shutdown_timeout)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

impl<L, S, H> IntoFuture for Serve<L, S, H>
where
    L: Listener,
    H: Handshake<L::Stream>,
    S: App,
{
    type Output = io::Result<()>;
    type IntoFuture = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl<L, S, H> Serve<L, S, H>
where
    L: Listener,
    H: Handshake<L::Stream>,
    S: App,
{
    async fn run(mut self) -> io::Result<()> {
        let registry = Registry::new();
        let stop = self.stop.take();
        let shutdown_timeout = self.shutdown_timeout;
        // In a task of its own, because a thread in `block_on` is not a worker: each of its wake-ups costs more.
        let mut accepting = Accepting(crate::spawn(self.accept_all(registry.clone())));
        let Some(stop) = stop else { return Err(accepting.failed().await) };
        if let Either::Left((error, _)) = select(pin!(accepting.failed()), stop).await {
            return Err(error);
        }
        accepting.stop().await;
        registry.tell(Phase::Finish);
        let Some(limit) = shutdown_timeout else {
            registry.all_gone().await;
            return Ok(());
        };
        if timeout(limit, registry.all_gone()).await.is_ok() {
            return Ok(());
        }
        let cut_off = CutOff { connections: registry.len() };
        registry.tell(Phase::CutOff);
        Err(io::Error::new(io::ErrorKind::TimedOut, cut_off))
    }

    /// Accepts until that cannot go on.
    async fn accept_all(mut self, registry: Registry) -> io::Error {
        let http = Arc::new(self.http);
        let mut pace = Pace::default();
        loop {
            let error = match self.listener.accept().await {
                Ok((stream, addr)) => {
                    pace.accepted();
                    let accepted = Accepted {
                        turns: L::deadlines(&stream).and_then(|deadlines| {
                            let limited = self.header_timeout.is_some() || self.idle_timeout.is_some();
                            let first = self.header_timeout.or(self.idle_timeout);
                            let first = first.map(|limit| Instant::now() + limit);
                            limited.then(|| Turns::new(deadlines, first, self.idle_timeout))
                        }),
                        stream,
                        addr: self.peer_addr.then_some(addr),
                        entry: registry.enter(&self.connections),
                    };
                    let http = Arc::clone(&http);
                    let (handshake, app) = (self.handshake.clone(), self.app.clone());
                    drop(crate::spawn(connection(accepted, handshake, http, app)));
                    continue;
                }
                Err(error) => error,
            };
            if is_final(&error) {
                return error;
            }
            if let Some(tell) = &mut self.on_accept_error {
                tell(&error);
            }
            if let Some(until) = pace.failed(Instant::now()) {
                sleep_until(until).await;
            }
        }
    }
}

/// The task that accepts. It ends with this.
struct Accepting(JoinHandle<io::Error>);

impl Accepting {
    /// The error that has ended it.
    async fn failed(&mut self) -> io::Error {
        match (&mut self.0).await {
            Ok(error) => error,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // Its runtime has shut down.
            Err(error) => io::Error::other(error),
        }
    }

    /// Ends it, and with it the listener is closed when this returns.
    async fn stop(mut self) {
        self.0.abort();
        let _ = (&mut self.0).await;
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Whether a listener that has failed so accepts nothing any more.
fn is_final(error: &io::Error) -> bool {
    // No error of the system's: the deadline, or the runtime's end.
    let Some(errno) = error.raw_os_error().map(Errno::from_raw_os_error) else { return true };
    matches!(errno, Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP)
}

#[cfg(all(test, not(mainspring_loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_does_not_end_a_server() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::CONNABORTED] {
            assert!(!is_final(&errno.into()), "{errno:?}");
        }
        assert!(is_final(&Errno::BADF.into()));
        assert!(is_final(&io::ErrorKind::TimedOut.into()));
    }
}
