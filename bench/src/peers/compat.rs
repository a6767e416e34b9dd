//! This runtime's tasks with tokio's sockets and timers, as code has that insists on tokio (feature `tokio-compat`).

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use super::Peer;
use super::mainspring::Mainspring;
use super::tokio::Tokio;

pub(crate) struct Compat(Mainspring);

impl Compat {
    pub(crate) fn new() -> io::Result<Compat> {
        Mainspring::new().map(Compat)
    }
}

impl Peer for Compat {
    type JoinError = <Mainspring as Peer>::JoinError;
    type Join<T: Send + 'static> = <Mainspring as Peer>::Join<T>;
    type Sleep = <Tokio as Peer>::Sleep;
    type Listener = <Tokio as Peer>::Listener;
    type Stream = <Tokio as Peer>::Stream;
    type HttpStream = <Tokio as Peer>::HttpStream;

    fn run<F>(&self, root: F) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.0.run(root)
    }

    fn spawn<F>(future: F) -> Self::Join<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        Mainspring::spawn(future)
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        Mainspring::yield_now()
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Tokio::sleep(duration)
    }

    fn sleep_until(at: Instant) -> Self::Sleep {
        Tokio::sleep_until(at)
    }

    fn reset(sleep: Pin<&mut Self::Sleep>, at: Instant) {
        Tokio::reset(sleep, at);
    }

    fn reset_in(sleep: Pin<&mut Self::Sleep>, duration: Duration) {
        Tokio::reset_in(sleep, duration);
    }

    fn bind() -> impl Future<Output = io::Result<(Self::Listener, SocketAddr)>> + Send {
        Tokio::bind()
    }

    fn accept(listener: &Self::Listener) -> impl Future<Output = io::Result<Self::Stream>> + Send {
        Tokio::accept(listener)
    }

    fn read(stream: &mut Self::Stream, buffer: &mut [u8]) -> impl Future<Output = io::Result<usize>> + Send {
        Tokio::read(stream, buffer)
    }

    fn write_all(stream: &mut Self::Stream, bytes: &[u8]) -> impl Future<Output = io::Result<()>> + Send {
        Tokio::write_all(stream, bytes)
    }

    fn read_within(
        stream: &mut Self::Stream,
        buffer: &mut [u8],
        timeout: Duration,
    ) -> impl Future<Output = io::Result<usize>> + Send {
        Tokio::read_within(stream, buffer, timeout)
    }

    fn guard<F>(
        stream: &mut Self::Stream,
        timeout: Duration,
        read: F,
    ) -> impl Future<Output = io::Result<()>> + Send
    where
        F: Future<Output = io::Result<()>> + Send,
    {
        Tokio::guard(stream, timeout, read)
    }

    fn http(stream: Self::Stream) -> Self::HttpStream {
        Tokio::http(stream)
    }
}
