//! tokio's multi-thread runtime, in its default settings or with its alternative timer.

use std::future::{Future, IntoFuture};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

use super::{PROCESSORS, Peer};

pub(crate) struct Tokio(Runtime);

impl Tokio {
    pub(crate) fn new() -> io::Result<Tokio> {
        Self::builder().build().map(Tokio)
    }

    #[cfg(tokio_unstable)]
    pub(crate) fn with_alternative_timer() -> io::Result<Tokio> {
        Self::builder().enable_alt_timer().build().map(Tokio)
    }

    fn builder() -> Builder {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(PROCESSORS).enable_all();
        builder
    }
}

impl Peer for Tokio {
    type JoinError = tokio::task::JoinError;
    type Join<T: Send + 'static> = tokio::task::JoinHandle<T>;
    type Sleep = tokio::time::Sleep;
    type Listener = TcpListener;
    type Stream = TcpStream;
    type HttpStream = TokioIo<TcpStream>;

    fn run<F>(&self, root: F) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.0.block_on(self.0.spawn(root)).expect("the root task")
    }

    fn spawn<F>(future: F) -> Self::Join<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(future)
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        tokio::task::yield_now()
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        tokio::time::sleep(duration)
    }

    fn sleep_until(at: Instant) -> Self::Sleep {
        tokio::time::sleep_until(at.into())
    }

    fn reset(sleep: Pin<&mut Self::Sleep>, at: Instant) {
        sleep.reset(at.into());
    }

    fn reset_in(sleep: Pin<&mut Self::Sleep>, duration: Duration) {
        sleep.reset(tokio::time::Instant::now() + duration);
    }

    fn in_place<R>(function: impl FnOnce() -> R) -> Option<R> {
        Some(tokio::task::block_in_place(function))
    }

    fn declared(
        function: impl FnOnce() + Send + 'static,
    ) -> Option<impl Future<Output = ()> + Send + 'static> {
        Some(async { tokio::task::spawn_blocking(function).await.expect("a function that blocks") })
    }

    async fn bind() -> io::Result<(TcpListener, SocketAddr)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    }

    async fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        stream.read(buffer).await
    }

    async fn write_all(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
        stream.write_all(bytes).await
    }

    async fn read_within(stream: &mut TcpStream, buffer: &mut [u8], timeout: Duration) -> io::Result<usize> {
        tokio::time::timeout(timeout, stream.read(buffer)).await?
    }

    async fn guard<F>(_: &mut TcpStream, timeout: Duration, read: F) -> io::Result<()>
    where
        F: Future<Output = io::Result<()>> + Send,
    {
        tokio::time::timeout(timeout, read).await?
    }

    fn http(stream: TcpStream) -> TokioIo<TcpStream> {
        TokioIo::new(stream)
    }

    fn serve(
        listener: TcpListener,
        app: axum::Router,
    ) -> Option<impl Future<Output = io::Result<()>> + Send + 'static> {
        Some(axum::serve(listener, app).into_future())
    }
}
