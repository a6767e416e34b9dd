//! The runtimes that are compared, each behind the same trait in a file of its own.
//!
//! An adapter does what the runtime's documentation tells its users to do, and nothing clever: two
//! processors or worker threads, all else as it comes. Go is a peer without an adapter: its workloads
//! are a program of their own, in `bench/go`.

#[cfg(feature = "compat")]
mod compat;
mod mainspring;
mod smol;
mod tokio;

use std::fmt::{self, Debug};
use std::future::{Future, Ready};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::Serialize;

/// Processors or worker threads of each runtime.
pub(crate) const PROCESSORS: usize = 2;

/// What a workload asks of a runtime.
pub(crate) trait Peer: Sized + Send + Sync + 'static {
    type JoinError: Debug + Send;
    type Join<T: Send + 'static>: Future<Output = Result<T, Self::JoinError>> + Send;
    type Sleep: Future<Output: Send> + Send + 'static;
    type Listener: Send + Sync;
    type Stream: Send;
    type HttpStream: hyper::rt::Read + hyper::rt::Write + Unpin + Send;

    /// Runs a task, and waits for it on this thread.
    fn run<F>(&self, root: F) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static;

    /// Spawns a task; within one.
    fn spawn<F>(future: F) -> Self::Join<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static;

    fn yield_now() -> impl Future<Output = ()> + Send;

    fn sleep(duration: Duration) -> Self::Sleep;
    fn sleep_until(at: Instant) -> Self::Sleep;
    fn reset(sleep: Pin<&mut Self::Sleep>, at: Instant);
    /// Reads the clock, in the way that the peer's users do.
    fn reset_in(sleep: Pin<&mut Self::Sleep>, duration: Duration);

    /// Stops a function's timer and starts it again, each time it is called; `None` if there are no such timers.
    fn restarter(_timeout: Duration) -> Option<Box<dyn FnMut() + Send>> {
        None
    }

    /// Calls a function that blocks its thread, on the thread of the task that calls this, and says so to the
    /// runtime; `None` if it has nothing for that.
    fn in_place<R>(_function: impl FnOnce() -> R) -> Option<R> {
        None
    }

    /// Calls a function that blocks its thread, in the way that the documentation names first; `None` if the
    /// peer has none here.
    fn declared(
        _function: impl FnOnce() + Send + 'static,
    ) -> Option<impl Future<Output = ()> + Send + 'static> {
        None::<Ready<()>>
    }

    /// Listens at a free port of the loopback interface.
    fn bind() -> impl Future<Output = io::Result<(Self::Listener, SocketAddr)>> + Send;
    /// The stream has TCP_NODELAY set.
    fn accept(listener: &Self::Listener) -> impl Future<Output = io::Result<Self::Stream>> + Send;
    fn read(stream: &mut Self::Stream, buffer: &mut [u8]) -> impl Future<Output = io::Result<usize>> + Send;
    fn write_all(stream: &mut Self::Stream, bytes: &[u8]) -> impl Future<Output = io::Result<()>> + Send;
    /// A read that fails when `timeout` has passed since its start, in the way that the documentation names first.
    fn read_within(
        stream: &mut Self::Stream,
        buffer: &mut [u8],
        timeout: Duration,
    ) -> impl Future<Output = io::Result<usize>> + Send;
    /// What `read_within` does, around something that stands for its read and does not time out.
    fn guard<F>(
        stream: &mut Self::Stream,
        timeout: Duration,
        read: F,
    ) -> impl Future<Output = io::Result<()>> + Send
    where
        F: Future<Output = io::Result<()>> + Send;
    fn http(stream: Self::Stream) -> Self::HttpStream;
    /// Serves an app of axum's in the way that the documentation names first; `None` if the peer has none.
    fn serve(
        _listener: Self::Listener,
        _app: axum::Router,
    ) -> Option<impl Future<Output = io::Result<()>> + Send + 'static> {
        None::<Ready<io::Result<()>>>
    }
}

/// The peers, in the order in which they are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PeerName {
    Tokio,
    /// tokio with `enable_alt_timer`, which takes a build of its own
    TokioAlt,
    Smol,
    Go,
    Mainspring,
    /// mainspring without hand-off, to see what that brings and what it costs
    MainspringOff,
    /// mainspring's tasks with tokio's sockets and timers, to see what its feature tokio-compat costs; taken only if
    /// it is named, and takes a build of its own
    MainspringCompat,
}

/// What is to be done in a process whose peer the command line says.
pub(crate) trait Job {
    type Output;

    fn on<P: Peer>(self, peer: &P) -> io::Result<Self::Output>;
}

impl PeerName {
    /// Those that are taken if none is named.
    pub(crate) const USUAL: [PeerName; 6] = [
        PeerName::Tokio,
        PeerName::TokioAlt,
        PeerName::Smol,
        PeerName::Go,
        PeerName::Mainspring,
        PeerName::MainspringOff,
    ];

    /// Starts the peer in this process and gives it the job; or why it cannot be started in this one.
    pub(crate) fn run<J: Job>(self, job: J) -> io::Result<Result<J::Output, String>> {
        let output = match self {
            PeerName::Tokio => job.on(&tokio::Tokio::new()?),
            #[cfg(tokio_unstable)]
            PeerName::TokioAlt => job.on(&tokio::Tokio::with_alternative_timer()?),
            #[cfg(not(tokio_unstable))]
            PeerName::TokioAlt => return Ok(Err("this build is not for it".to_owned())),
            #[cfg(feature = "compat")]
            PeerName::MainspringCompat => job.on(&compat::Compat::new()?),
            #[cfg(not(feature = "compat"))]
            PeerName::MainspringCompat => return Ok(Err("this build is not for it".to_owned())),
            PeerName::Smol => job.on(&smol::Smol::new()?),
            PeerName::Go => return Ok(Err("a program of its own runs it".to_owned())),
            PeerName::Mainspring => job.on(&mainspring::Mainspring::new()?),
            PeerName::MainspringOff => job.on(&mainspring::Mainspring::without_handoff()?),
        };
        output.map(Ok)
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("no peer is hidden");
        f.write_str(value.get_name())
    }
}
