//! smol: one executor on two threads, and async-io, which has a thread of its own for sockets and timers.

use std::convert::Infallible;
use std::future::{self, Future};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use async_executor::{Executor, Task};
use async_io::{Async, Timer};
use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt};
use smol_hyper::rt::FuturesIo;

use super::{PROCESSORS, Peer};

static EXECUTOR: Executor<'static> = Executor::new();

/// The executor is a static, as it is in the crate smol, whose `spawn` needs it from anywhere.
pub(crate) struct Smol;

impl Smol {
    pub(crate) fn new() -> io::Result<Smol> {
        for _ in 0..PROCESSORS {
            thread::Builder::new().spawn(|| async_io::block_on(EXECUTOR.run(future::pending::<()>())))?;
        }
        Ok(Smol)
    }
}

/// A task that goes on when this is dropped, as those of the other peers do.
pub(crate) struct Join<T>(Option<Task<T>>);

impl<T> Future for Join<T> {
    type Output = Result<T, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let task = self.0.as_mut().expect("it is taken by the drop alone");
        Pin::new(task).poll(context).map(Ok)
    }
}

impl<T> Drop for Join<T> {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.detach();
        }
    }
}

async fn time_out<T>(timeout: Duration) -> io::Result<T> {
    Timer::after(timeout).await;
    Err(io::ErrorKind::TimedOut.into())
}

impl Peer for Smol {
    type JoinError = Infallible;
    type Join<T: Send + 'static> = Join<T>;
    type Sleep = Timer;
    type Listener = Async<TcpListener>;
    type Stream = Async<TcpStream>;
    type HttpStream = FuturesIo<Async<TcpStream>>;

    fn run<F>(&self, root: F) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        futures_lite::future::block_on(EXECUTOR.spawn(root))
    }

    fn spawn<F>(future: F) -> Join<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        Join(Some(EXECUTOR.spawn(future)))
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        futures_lite::future::yield_now()
    }

    fn sleep(duration: Duration) -> Timer {
        Timer::after(duration)
    }

    fn sleep_until(at: Instant) -> Timer {
        Timer::at(at)
    }

    fn reset(mut sleep: Pin<&mut Timer>, at: Instant) {
        sleep.set_at(at);
    }

    fn reset_in(mut sleep: Pin<&mut Timer>, duration: Duration) {
        sleep.set_after(duration);
    }

    async fn bind() -> io::Result<(Async<TcpListener>, SocketAddr)> {
        let listener = Async::<TcpListener>::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.get_ref().local_addr()?;
        Ok((listener, address))
    }

    async fn accept(listener: &Async<TcpListener>) -> io::Result<Async<TcpStream>> {
        let (stream, _) = listener.accept().await?;
        stream.get_ref().set_nodelay(true)?;
        Ok(stream)
    }

    async fn read(stream: &mut Async<TcpStream>, buffer: &mut [u8]) -> io::Result<usize> {
        stream.read(buffer).await
    }

    async fn write_all(stream: &mut Async<TcpStream>, bytes: &[u8]) -> io::Result<()> {
        stream.write_all(bytes).await
    }

    async fn read_within(
        stream: &mut Async<TcpStream>,
        buffer: &mut [u8],
        timeout: Duration,
    ) -> io::Result<usize> {
        stream.read(buffer).or(time_out(timeout)).await
    }

    async fn guard<F>(_: &mut Async<TcpStream>, timeout: Duration, read: F) -> io::Result<()>
    where
        F: Future<Output = io::Result<()>> + Send,
    {
        read.or(time_out(timeout)).await
    }

    fn http(stream: Async<TcpStream>) -> FuturesIo<Async<TcpStream>> {
        FuturesIo::new(stream)
    }
}
