//! The runtimes that are compared, each behind the same trait in a file of its own.
//!
//! An adapter does what the runtime's documentation tells its users to do, and nothing clever: two
//! processors or worker threads, all else as it comes. Go is a peer without an adapter: its workloads
//! are a program of their own, in `bench/go`.

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

use crate::measure::Outcome;
use crate::workloads::{self, Plan, WorkloadName};

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
    fn http(stream: Self::Stream) -> Self::HttpStream;
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
}

impl PeerName {
    /// Measures in this process.
    pub(crate) fn run(self, workload: WorkloadName, plan: Plan) -> io::Result<Outcome> {
        match self {
            PeerName::Tokio => workloads::run(&tokio::Tokio::new()?, workload, plan),
            #[cfg(tokio_unstable)]
            PeerName::TokioAlt => workloads::run(&tokio::Tokio::with_alternative_timer()?, workload, plan),
            #[cfg(not(tokio_unstable))]
            PeerName::TokioAlt => Ok(Outcome::Skipped("this build is not for it".to_owned())),
            PeerName::Smol => workloads::run(&smol::Smol::new()?, workload, plan),
            PeerName::Go => Ok(Outcome::Skipped("a program of its own runs it".to_owned())),
            PeerName::Mainspring => workloads::run(&mainspring::Mainspring::new()?, workload, plan),
            PeerName::MainspringOff => {
                workloads::run(&mainspring::Mainspring::without_handoff()?, workload, plan)
            }
        }
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("no peer is hidden");
        f.write_str(value.get_name())
    }
}
