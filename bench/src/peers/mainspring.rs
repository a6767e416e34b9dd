//! This runtime.

use std::future::{Future, IntoFuture};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::time::{Duration, Instant};

use mainspring::net::{TcpListener, TcpStream};
use mainspring::runtime::{Builder, Handoff, Runtime};

use super::{PROCESSORS, Peer};

pub(crate) struct Mainspring(Runtime);

impl Mainspring {
    pub(crate) fn new() -> io::Result<Mainspring> {
        Self::builder().build().map(Mainspring)
    }

    pub(crate) fn without_handoff() -> io::Result<Mainspring> {
        Self::builder().handoff(Handoff::off()).build().map(Mainspring)
    }

    fn builder() -> Builder {
        Builder::new().processors(PROCESSORS)
    }
}

impl Peer for Mainspring {
    type JoinError = mainspring::task::JoinError;
    type Join<T: Send + 'static> = mainspring::task::JoinHandle<T>;
    type Sleep = mainspring::time::Sleep;
    type Listener = TcpListener;
    type Stream = TcpStream;
    type HttpStream = TcpStream;

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
        mainspring::spawn(future)
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        mainspring::task::yield_now()
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        mainspring::time::sleep(duration)
    }

    fn sleep_until(at: Instant) -> Self::Sleep {
        mainspring::time::sleep_until(at.into())
    }

    fn reset(sleep: Pin<&mut Self::Sleep>, at: Instant) {
        sleep.get_mut().reset(at.into());
    }

    fn reset_in(sleep: Pin<&mut Self::Sleep>, duration: Duration) {
        sleep.get_mut().reset_after(duration);
    }

    fn restarter(timeout: Duration) -> Option<Box<dyn FnMut() + Send>> {
        let timer = mainspring::time::after_func(timeout, || ());
        Some(Box::new(move || {
            assert!(timer.stop(), "{timeout:?} passed at once");
            timer.reset(timeout);
        }))
    }

    fn in_place<R>(function: impl FnOnce() -> R) -> Option<R> {
        Some(mainspring::blocking(function))
    }

    fn declared(
        function: impl FnOnce() + Send + 'static,
    ) -> Option<impl Future<Output = ()> + Send + 'static> {
        Some(async { mainspring::blocking(function) })
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
        stream.set_read_deadline(mainspring::time::Instant::now() + timeout)?;
        stream.read(buffer).await
    }

    async fn guard<F>(stream: &mut TcpStream, timeout: Duration, read: F) -> io::Result<()>
    where
        F: Future<Output = io::Result<()>> + Send,
    {
        stream.set_read_deadline(mainspring::time::Instant::now() + timeout)?;
        read.await
    }

    fn http(stream: TcpStream) -> TcpStream {
        stream
    }

    fn serve(
        listener: TcpListener,
        app: axum::Router,
    ) -> Option<impl Future<Output = io::Result<()>> + Send + 'static> {
        Some(mainspring::serve(listener, app).into_future())
    }
}
