//! A TCP proxy: passes bytes between clients and the first of several upstreams that answers.
//! `cargo run --release --example tcp_proxy -- 127.0.0.1:5432 127.0.0.1:5433 --listen 127.0.0.1:7000`
//!
//! It shows what deadlines are for. A session that moves no byte for the idle timeout is cut off, and each byte
//! pushes that back by a store into the deadlines of both sockets: no timer is made, no task watches. One buffer
//! for each direction is all the memory that a session has, so whoever reads slowly slows down whoever writes.
//!
//! It knows nothing of what it carries. Invariants: what comes out on one side is what went in on the other; the
//! end of one direction is passed on, and the other direction goes on; a session that breaks off ends with a reset,
//! never with what could be taken for its proper end.

use std::fmt;
use std::io::{self, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use clap::Parser;
use futures_util::future::{select, try_join};
use mainspring::net::{TcpListener, TcpStream};
use mainspring::signal::unix::{SignalKind, signal};
use mainspring::time::{Instant, timeout};
use tokio::sync::{Semaphore, watch};

/// The buffer of one direction. Picked by feel.
const BUFFER: usize = 16 * 1024;

/// Passes TCP connections on to an upstream
#[derive(Parser, Debug)]
struct Options {
    /// Where to connect to; the next one is tried when one does not answer
    #[arg(required = true)]
    upstreams: Vec<SocketAddr>,

    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7000")]
    listen: SocketAddr,

    /// How long one upstream may take to answer
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    connect_timeout: Duration,

    /// How long a session may move no byte
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    idle_timeout: Duration,

    /// How many sessions there may be at once; more clients wait to be accepted
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_sessions: u32,

    /// How long sessions may go on after SIGINT or SIGTERM
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    grace: Duration,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|_| "not a time that can be waited for".to_owned())
}

#[mainspring::main]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(summary) => {
            let _ = writeln!(io::stdout(), "{summary}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "tcp_proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the proxy until SIGINT or SIGTERM.
async fn run(options: Options) -> io::Result<Arc<Summary>> {
    let listener = TcpListener::bind(options.listen).await?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stop = async {
        select(pin!(interrupt.recv()), pin!(terminate.recv())).await;
    };
    Ok(serve(listener, options, stop).await)
}

/// What a proxy has done.
#[derive(Debug, Default)]
struct Summary {
    /// Sessions that reached an upstream.
    sessions: AtomicU64,
    /// Clients for whom no upstream answered.
    refused: AtomicU64,
    /// Sessions that broke off or were cut off.
    broken: AtomicU64,
    /// Bytes from clients to upstreams, and back.
    up: AtomicU64,
    down: AtomicU64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // ordering: Relaxed here and where they are counted, these are statistics.
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        write!(f, "{} sessions, {} of them broken off", get(&self.sessions), get(&self.broken))?;
        write!(f, ", {} clients refused", get(&self.refused))?;
        write!(f, ", {} bytes up, {} bytes down", get(&self.up), get(&self.down))
    }
}

/// What all sessions share.
struct Proxy {
    options: Options,
    /// Where the next session looks first.
    next: AtomicUsize,
    summary: Arc<Summary>,
}

/// Passes connections on until `stop` is ready, then lets the sessions finish for the time of grace, and cuts off
/// the rest.
async fn serve(listener: TcpListener, options: Options, stop: impl Future<Output = ()>) -> Arc<Summary> {
    let summary = Arc::new(Summary::default());
    let grace = options.grace;
    let max = options.max_sessions;
    // A session holds a permit for its life: they are the limit, and whoever has all of them knows that none is left.
    let permits = Arc::new(Semaphore::new(max as usize));
    let (cut, _) = watch::channel(());
    let proxy = Arc::new(Proxy { options, next: AtomicUsize::new(0), summary: Arc::clone(&summary) });
    {
        let accepting = accept_all(&listener, &permits, |client| {
            let session = session(Arc::clone(&proxy), client);
            let mut cut = cut.subscribe();
            async move {
                select(pin!(session), pin!(cut.changed())).await;
            }
        });
        select(pin!(accepting), pin!(stop)).await;
    }
    drop(listener);
    if timeout(grace, permits.acquire_many(max)).await.is_err() {
        // It fails if the last session has ended this moment.
        let _ = cut.send(());
        let _ = permits.acquire_many(max).await;
    }
    summary
}

/// Accepts a connection whenever there is a permit, and starts its session.
async fn accept_all<F>(listener: &TcpListener, permits: &Arc<Semaphore>, session: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    while let Ok(permit) = Arc::clone(permits).acquire_owned().await {
        let client = loop {
            // After an error, when no descriptor is left for example, the next call makes a pause itself.
            if let Ok((client, _)) = listener.accept().await {
                break client;
            }
        };
        let session = session(client);
        mainspring::spawn(async move {
            session.await;
            drop(permit);
        });
    }
}

/// One client's session, to its end.
async fn session(proxy: Arc<Proxy>, client: TcpStream) {
    let summary = &proxy.summary;
    let client = ResetOnDrop::new(client);
    let Some(upstream) = connect(&proxy).await else {
        summary.refused.fetch_add(1, Ordering::Relaxed);
        return;
    };
    summary.sessions.fetch_add(1, Ordering::Relaxed);
    let upstream = ResetOnDrop::new(upstream);
    let session = Session { idle_timeout: proxy.options.idle_timeout, streams: [&client.0, &upstream.0] };
    session.moved();
    let up = session.copy(&client.0, &upstream.0, &summary.up);
    let down = session.copy(&upstream.0, &client.0, &summary.down);
    match try_join(up, down).await {
        Ok((Copied::ToTheEnd, Copied::ToTheEnd)) => {
            client.end();
            upstream.end();
        }
        Ok(_) | Err(_) => {
            summary.broken.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Connects to the first upstream that answers in time. Sessions begin to look at different ones.
async fn connect(proxy: &Proxy) -> Option<TcpStream> {
    let upstreams = &proxy.options.upstreams;
    // ordering: Relaxed, any order will do.
    let first = proxy.next.fetch_add(1, Ordering::Relaxed) % upstreams.len();
    for address in upstreams[first..].iter().chain(&upstreams[..first]) {
        if let Ok(stream) = TcpStream::connect_timeout(*address, proxy.options.connect_timeout).await {
            return Some(stream);
        }
    }
    None
}

/// How one direction ended.
enum Copied {
    /// The reader was told that there is no more.
    ToTheEnd,
    /// The reader takes no more. It may still have something to say, and what it has said may still be under way.
    NotWanted,
}

struct Session<'a> {
    idle_timeout: Duration,
    streams: [&'a TcpStream; 2],
}

impl Session<'_> {
    /// A byte was moved: from now on the session may be idle again for the whole time.
    fn moved(&self) {
        let deadline = Instant::now() + self.idle_timeout;
        for stream in self.streams {
            // It fails if the runtime shuts down, and then nothing matters.
            let _ = stream.set_deadline(deadline);
        }
    }

    /// Passes one direction on to its end.
    ///
    /// # Errors
    ///
    /// If the session as a whole is over: it was idle, or `from` is lost.
    async fn copy(&self, from: &TcpStream, to: &TcpStream, count: &AtomicU64) -> io::Result<Copied> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = from.read(&mut buffer).await?;
            if length == 0 {
                // The peer may have closed altogether, which the other direction notices.
                let _ = to.shutdown(Shutdown::Write);
                return Ok(Copied::ToTheEnd);
            }
            let mut rest = &buffer[..length];
            while !rest.is_empty() {
                match to.write(rest).await {
                    Ok(written) => rest = &rest[written..],
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(error),
                    Err(_) => {
                        let _ = from.shutdown(Shutdown::Read);
                        return Ok(Copied::NotWanted);
                    }
                }
                self.moved();
            }
            count.fetch_add(length as u64, Ordering::Relaxed);
        }
    }
}

/// A stream whose peer is told of a broken session, whatever it was that broke it, the end of the task included.
struct ResetOnDrop(TcpStream);

impl ResetOnDrop {
    fn new(stream: TcpStream) -> ResetOnDrop {
        // What comes in small parts is passed on in small parts. A socket that refuses the option is only slower.
        let _ = stream.set_nodelay(true);
        // Zero makes closing a reset.
        let _ = stream.set_linger(Some(Duration::ZERO));
        ResetOnDrop(stream)
    }

    /// It ended properly, and what is under way still goes out.
    fn end(self) {
        let _ = self.0.set_linger(None);
    }
}

#[cfg(test)]
#[path = "tests/tcp_proxy.rs"]
mod tests;
