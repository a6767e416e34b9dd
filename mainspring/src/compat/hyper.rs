//! hyper's executor and timer, and a connector for hyper-util's client. A server is [`mainspring::serve`](crate::serve()).
//!
//! # Examples
//!
//! A server of one connection:
//!
//! ```
//! use hyper::service::service_fn;
//! use hyper::{Request, Response, body::Incoming};
//! # use std::convert::Infallible;
//! use mainspring::compat::hyper::Timer;
//! use mainspring::net::{TcpListener, TcpStream};
//!
//! # mainspring::block_on(async {
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! let client = TcpStream::connect(listener.local_addr()?).await?;
//! let server = mainspring::spawn(async move {
//!     let (stream, _) = listener.accept().await.unwrap();
//!     let hello = |_: Request<Incoming>| async { Ok::<_, Infallible>(Response::new("hello".to_owned())) };
//!     hyper::server::conn::http1::Builder::new()
//!         .timer(Timer::new())
//!         .serve_connection(stream, service_fn(hello))
//!         .await
//! });
//! client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
//! server.await.unwrap().unwrap();
//! let mut answer = vec![0; 12];
//! client.read_exact(&mut answer).await?;
//! assert_eq!(answer, b"HTTP/1.1 200");
//! # std::io::Result::Ok(()) }).unwrap();
//! ```

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ::hyper::{Uri, rt};
use hyper_util::client::legacy::connect::{Connected, Connection};
use tower_service::Service;

use crate::net::TcpStream;
use crate::runtime::Handle;
use crate::time;

/// Spawns hyper's tasks: on one runtime, or wherever it is called.
#[derive(Clone, Debug, Default)]
pub struct Executor {
    handle: Option<Handle>,
}

impl Executor {
    /// Spawns on the current runtime of the thread that calls it, or on the ambient one.
    pub fn new() -> Executor {
        Executor { handle: None }
    }

    /// Spawns on the given runtime.
    pub fn on(handle: Handle) -> Executor {
        Executor { handle: Some(handle) }
    }
}

impl<F> rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    #[track_caller]
    fn execute(&self, future: F) {
        match &self.handle {
            Some(handle) => drop(handle.spawn(future)),
            None => drop(crate::spawn(future)),
        }
    }
}

/// hyper's timer, on [`mainspring::time`](crate::time).
#[derive(Clone, Copy, Debug, Default)]
pub struct Timer(());

impl Timer {
    /// The timer.
    pub fn new() -> Timer {
        Timer(())
    }
}

impl rt::Timer for Timer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(time::sleep(duration))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(time::sleep_until(deadline.into()))
    }

    fn now(&self) -> Instant {
        time::Instant::now().into()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn rt::Sleep>>, deadline: Instant) {
        match sleep.as_mut().downcast_mut_pin::<time::Sleep>() {
            Some(mut sleep) => sleep.reset(deadline.into()),
            None => *sleep = self.sleep_until(deadline),
        }
    }
}

impl rt::Sleep for time::Sleep {}

/// Makes the connections of hyper-util's client: names are looked up by the system's resolver, off the workers, and several
/// addresses are tried as [`TcpStream::connect`] does.
///
/// It speaks no TLS. What does wraps it: after [`enforce_http(false)`](Connector::enforce_http), any connector that
/// wraps another one's streams.
///
/// # Examples
///
/// ```
/// use hyper_util::client::legacy::Client;
/// use mainspring::compat::hyper::{Connector, Executor, Timer};
/// # use mainspring::time::Duration;
///
/// let connector = Connector::new().connect_timeout(Duration::from_secs(5));
/// let client: Client<_, String> =
///     Client::builder(Executor::new()).timer(Timer::new()).pool_timer(Timer::new()).build(connector);
/// # drop(client);
/// ```
#[derive(Clone, Debug)]
pub struct Connector {
    connect_timeout: Option<Duration>,
    enforce_http: bool,
}

impl Default for Connector {
    fn default() -> Connector {
        Connector::new()
    }
}

impl Connector {
    /// Connects to URIs of the scheme http, for as long as the system tries.
    pub fn new() -> Connector {
        Connector { connect_timeout: None, enforce_http: true }
    }

    /// How long looking up a name and connecting may take together. After that the connector fails with `TimedOut`.
    pub fn connect_timeout(mut self, limit: impl Into<Option<Duration>>) -> Connector {
        self.connect_timeout = limit.into();
        self
    }

    /// Whether URIs of other schemes are refused, as they are by default. A connector that is wrapped by one that
    /// speaks TLS must not do that; the port is 443 then for https, unless the URI says another.
    pub fn enforce_http(mut self, enforce: bool) -> Connector {
        self.enforce_http = enforce;
        self
    }

    fn target(&self, uri: &Uri) -> io::Result<(String, u16)> {
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{uri}: {what}"));
        let port = match uri.scheme_str() {
            None => return Err(invalid("a URI without a scheme")),
            Some("http") => 80,
            Some(_) if self.enforce_http => return Err(invalid("not of the scheme http")),
            Some("https") => 443,
            Some(_) => return Err(invalid("neither http nor https")),
        };
        let host =
            uri.host().filter(|host| !host.is_empty()).ok_or_else(|| invalid("a URI without a host"))?;
        // An IPv6 address stands in brackets.
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Ok((host.to_owned(), uri.port_u16().unwrap_or(port)))
    }

    async fn connect(self, uri: Uri) -> io::Result<TcpStream> {
        let connect = TcpStream::connect(self.target(&uri)?);
        let stream = match self.connect_timeout {
            None => connect.await?,
            Some(limit) => match time::timeout(limit, connect).await {
                Ok(result) => result?,
                Err(_) => {
                    let message = format!("{uri}: no connection within {limit:?}");
                    return Err(io::Error::new(io::ErrorKind::TimedOut, message));
                }
            },
        };
        // hyper writes what it has at once. A socket that refuses the option is only slower.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }
}

impl Service<Uri> for Connector {
    type Response = TcpStream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// # Cancel safety
    ///
    /// If the future is dropped, there is no connection.
    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

impl Connection for TcpStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

#[cfg(all(test, not(mainspring_loom)))]
mod tests {
    use super::*;

    fn target(connector: &Connector, uri: &str) -> String {
        match connector.target(&uri.parse().unwrap()) {
            Ok((host, port)) => format!("{host} {port}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn hosts_and_ports_are_those_of_the_uri() {
        let connector = Connector::new();
        assert_eq!(target(&connector, "http://example.org/x"), "example.org 80");
        assert_eq!(target(&connector, "http://example.org:81"), "example.org 81");
        assert_eq!(target(&connector, "http://[::1]:82/"), "::1 82");
        assert_eq!(
            target(&connector, "https://example.org/"),
            "https://example.org/: not of the scheme http"
        );
        assert_eq!(target(&connector, "/x"), "/x: a URI without a scheme");
        let wrapped = connector.enforce_http(false);
        assert_eq!(target(&wrapped, "https://example.org/"), "example.org 443");
        assert_eq!(target(&wrapped, "ftp://example.org/"), "ftp://example.org/: neither http nor https");
    }
}
