//! An HTTP service on mainspring: an axum router, served through hyper, over HTTP/1.1 and HTTP/2 on one
//! port. `cargo run --release --example http -- --help` lists its flags, and `/` explains its routes.
//!
//! From top to bottom: the command line, the service's life from bind to shutdown, the deadlines of a
//! connection, the routes. Of tokio only channels and traits are compiled, not its runtime, and hyper gets
//! no timer: what ends a connection that stalls is a deadline on its descriptor.
//!
//! Invariant: nothing here wakes up unless there is something to do. No connection, no wake-up.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{Request, Response, StatusCode, header};
use axum::response::{Html, IntoResponse};
use axum::routing::{any, get};
use clap::Parser;
use clap::error::ErrorKind;
use futures_util::future::{Either, select};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::server::conn::auto;
use mainspring::compat::hyper::Executor;
use mainspring::net::{Deadlines, TcpListener, TcpStream};
use mainspring::runtime::{self, Metrics};
use mainspring::time::{Instant, sleep, timeout};
use tokio::sync::watch;
use tower_service::Service;

/// Longest request to `/sleep`.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Longest request to `/block`, which costs a thread.
const BLOCK_MAX: Duration = Duration::from_secs(10);

/// How long running requests may go on after SIGINT or SIGTERM.
const GRACE: Duration = Duration::from_secs(10);

/// The pauses between attempts to accept while the system has no descriptor or no memory to give: the
/// first, and the longest. Picked by feel.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

// The command line.

/// An HTTP service on mainspring: HTTP/1.1 and HTTP/2 (with prior knowledge), deadlines on every connection
#[derive(Parser, Debug)]
#[command(name = "http", version)]
struct Options {
    /// Where to listen; port 0 means any free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = address)]
    listen: SocketAddr,

    /// How many tasks run at once [default: what the machine has to offer]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    processors: Option<u16>,

    /// How long the head of a connection's first request may take
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    header_timeout: Duration,

    /// How long a connection may do nothing: between two requests, within a body, while an answer waits to be read
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    idle_timeout: Duration,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let mut addresses = text.to_socket_addrs().map_err(|error| error.to_string())?;
    addresses.next().ok_or_else(|| "the name has no address".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("not a time that can be waited for".to_owned()),
    }
}

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => return refuse(&error),
    };
    match run(&options) {
        Ok(summary) => {
            say(&summary);
            ExitCode::SUCCESS
        }
        Err(message) => {
            complain(&message);
            ExitCode::FAILURE
        }
    }
}

/// Prints what was asked for, or the first line of what is wrong.
fn refuse(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    let line = text.lines().next().unwrap_or_default();
    complain(&format!("{} (--help lists the flags)", line.trim_start_matches("error: ")));
    ExitCode::from(2)
}

// `println!` panics when nobody reads it any more; a service must not end for that.

fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "http: {line}");
}

// The service's life.

/// What all connections share.
struct Server {
    router: Router,
    http: auto::Builder<Executor>,
    header_timeout: Duration,
    idle_timeout: Duration,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Counters {
    /// Requests that were answered.
    served: AtomicU64,
    /// Connections accepted.
    accepted: AtomicU64,
    /// Connections that are open.
    open: AtomicU64,
}

impl Counters {
    // ordering: Relaxed throughout, these are statistics.
    fn add_one(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

fn run(options: &Options) -> Result<String, String> {
    let mut builder = runtime::Builder::new();
    if let Some(processors) = options.processors {
        builder = builder.processors(processors.into());
    }
    let runtime = builder.build().map_err(|error| format!("the runtime cannot start: {error}"))?;
    runtime.block_on(serve(options))
}

/// Serves until a signal comes; returns the line that says what was done.
async fn serve(options: &Options) -> Result<String, String> {
    // Who holds a receiver has to stop when something is sent, and drops it when it has stopped.
    let (stopping, stop) = watch::channel(());
    stop_by_signal(stopping.clone()).map_err(|error| format!("cannot wait for signals: {error}"))?;

    let cannot_listen = |error| format!("cannot listen on {}: {error}", options.listen);
    let listener = TcpListener::bind(options.listen).await.map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(cannot_listen)?;

    let counters = Arc::new(Counters::default());
    let server = Arc::new(Server {
        router: router(Arc::clone(&counters)),
        http: auto::Builder::new(Executor::new()),
        header_timeout: options.header_timeout,
        idle_timeout: options.idle_timeout,
        counters: Arc::clone(&counters),
    });
    let processors = runtime::Handle::current().metrics().processors;
    say(&format!("listening on http://{address}/, processors: {processors}"));

    // In a task, because the thread of `block_on` is not a worker: each of its wake-ups costs more.
    mainspring::spawn(accept_until(stop, listener, server))
        .await
        .map_err(|error| format!("the accepting task failed: {error}"))?;
    let finished = timeout(GRACE, stopping.closed()).await.is_ok();

    let mut line = format!("served {} requests", Counters::get(&counters.served));
    if !finished {
        let open = Counters::get(&counters.open);
        let _ = write!(line, "; cut off {open} connections that were not done after {} s", GRACE.as_secs());
    }
    Ok(line)
}

/// The first SIGINT or SIGTERM is passed on; the second one ends the process on the spot.
fn stop_by_signal(stopping: watch::Sender<()>) -> io::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};

    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut signals = signals.forever();
        if signals.next().is_some() {
            // It fails if everything has stopped already.
            let _ = stopping.send(());
        }
        if let Some(signal) = signals.next() {
            std::process::exit(128 + signal);
        }
    })?;
    Ok(())
}

/// Accepts connections until it has to stop, and closes the listener.
async fn accept_until(mut stop: watch::Receiver<()>, listener: TcpListener, server: Arc<Server>) {
    let for_connections = stop.clone();
    select(pin!(stop.changed()), pin!(accept_all(&listener, &server, &for_connections))).await;
}

async fn accept_all(listener: &TcpListener, server: &Arc<Server>, stop: &watch::Receiver<()>) -> Infallible {
    let mut pause = ACCEPT_PAUSE.0;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                pause = ACCEPT_PAUSE.0;
                Counters::add_one(&server.counters.accepted);
                mainspring::spawn(connection(Arc::clone(server), stream, stop.clone()));
            }
            // The client has gone again. That took one connection out of the queue, so this cannot spin.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            // No descriptor or no memory is left. Said once, until a connection is accepted again.
            Err(error) => {
                if pause == ACCEPT_PAUSE.0 {
                    complain(&format!("cannot accept connections for now: {error}"));
                }
                sleep(pause).await;
                pause = (pause * 2).min(ACCEPT_PAUSE.1);
            }
        }
    }
}

/// Serves one connection to its end. When it has to stop, running requests are finished first.
async fn connection(server: Arc<Server>, stream: TcpStream, mut stop: watch::Receiver<()>) {
    let _open = Open::new(Arc::clone(&server.counters));
    // hyper writes what it has at once, so there is nothing to be gained from waiting for more. A socket
    // that refuses the option is only slower.
    let _ = stream.set_nodelay(true);
    let peer = Arc::new(Peer::new(stream.deadlines(), server.header_timeout, server.idle_timeout));
    let service = service_fn(|request: Request<Incoming>| {
        // hyper calls this as soon as the head is there, and polls what is returned later.
        let answering = Turn::answering(&peer);
        let receiving = Turn::receiving(&peer);
        let request = request.map(|inner| Body::new(RequestBody { inner, turn: receiving }));
        let answer = server.router.clone().call(request);
        let counters = Arc::clone(&server.counters);
        async move {
            let answer = answer.await;
            Counters::add_one(&counters.served);
            answer.map(|answer| answer.map(|inner| AnswerBody::new(inner, answering)))
        }
    });
    let mut connection = pin!(server.http.serve_connection(stream, service));
    // An error says that the peer has gone, broke the protocol or missed a deadline: its own loss.
    let open = matches!(select(connection.as_mut(), pin!(stop.changed())).await, Either::Right(_));
    if open {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

/// Counts a connection as open while it lives.
struct Open(Arc<Counters>);

impl Open {
    fn new(counters: Arc<Counters>) -> Open {
        counters.open.fetch_add(1, Ordering::Relaxed);
        Open(counters)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

// The deadlines of a connection.

/// By when the peer of one connection must have done something.
///
/// The deadline runs while it is the peer's turn: it is to send a head, or the next part of a body that is
/// being waited for, or to read what it was sent. It does not run while only the service has something
/// to do. It is set for reading and for writing at once, because HTTP/2 waits for a peer that does not
/// read by reading: for permission to send more.
///
/// What cannot be seen from here is how fast the peer reads the last part of an answer, which is out of
/// hyper's hands when the answer counts as finished. So answers should come in parts that any peer
/// can read within the idle timeout; those of this service do.
struct Peer {
    deadlines: Deadlines,
    idle_timeout: Duration,
    state: Mutex<PeerState>,
}

#[derive(Default)]
struct PeerState {
    /// Requests whose answer is not finished; several at a time in HTTP/2.
    requests: usize,
    /// Bodies of which the next part is the peer's to send or to take.
    waits: usize,
}

impl Peer {
    fn new(deadlines: Deadlines, header_timeout: Duration, idle_timeout: Duration) -> Peer {
        // This and the other deadline fail only if the connection has been closed, and then none matters.
        let _ = deadlines.set_deadline(Instant::now() + header_timeout);
        Peer { deadlines, idle_timeout, state: Mutex::default() }
    }

    /// Something went on. The deadline is set under the lock, so that of two changes the later one counts.
    fn update(&self, change: impl FnOnce(&mut PeerState)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let peers_turn = state.requests == 0 || state.waits > 0;
        let deadline = peers_turn.then(|| Instant::now() + self.idle_timeout);
        let _ = self.deadlines.set_deadline(deadline);
    }
}

/// What one body, or one request with the body of its answer, adds to the peer's state while it lives.
struct Turn {
    peer: Arc<Peer>,
    request: bool,
    waits: bool,
}

impl Turn {
    /// For a request, until its answer is finished.
    fn answering(peer: &Arc<Peer>) -> Turn {
        peer.update(|state| state.requests += 1);
        Turn { peer: Arc::clone(peer), request: true, waits: false }
    }

    /// For a request's body.
    fn receiving(peer: &Arc<Peer>) -> Turn {
        Turn { peer: Arc::clone(peer), request: false, waits: false }
    }

    /// A part was sent or taken, or is waited for from now on.
    fn set(&mut self, waits: bool) {
        let before = usize::from(std::mem::replace(&mut self.waits, waits));
        self.peer.update(|state| state.waits = state.waits - before + usize::from(waits));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.request || self.waits {
            self.peer.update(|state| {
                state.requests -= usize::from(self.request);
                state.waits -= usize::from(self.waits);
            });
        }
    }
}

/// The body of a request. It is the peer's turn from when somebody asks for the next part until it is here.
struct RequestBody {
    inner: Incoming,
    turn: Turn,
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let poll = Pin::new(&mut self.inner).poll_frame(context);
        // Asking twice makes nobody's time longer.
        if poll.is_pending() != self.turn.waits {
            self.turn.set(poll.is_pending());
        }
        poll
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of an answer. It is the peer's turn from when a part was given to hyper until hyper, which
/// has room for a part at a time, asks for the next one.
struct AnswerBody {
    inner: Body,
    turn: Turn,
}

impl AnswerBody {
    fn new(inner: Body, mut turn: Turn) -> AnswerBody {
        if !inner.is_end_stream() {
            turn.set(true);
        }
        AnswerBody { inner, turn }
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let poll = Pin::new(&mut self.inner).poll_frame(context);
        if poll.is_ready() || self.turn.waits {
            self.turn.set(poll.is_ready());
        }
        poll
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

// The routes.

fn router(counters: Arc<Counters>) -> Router {
    Router::new()
        .route("/", get(async || Html(include_str!("http.html"))))
        .route("/sleep/{ms}", get(sleep_for))
        .route("/block/{ms}", get(block_for))
        .route("/echo", any(echo))
        .route("/metrics", get(metrics))
        .with_state(counters)
}

async fn sleep_for(Path(ms): Path<String>) -> Result<String, BadRequest> {
    let duration = milliseconds(&ms, SLEEP_MAX)?;
    sleep(duration).await;
    Ok(format!("slept {} ms\n", duration.as_millis()))
}

async fn block_for(Path(ms): Path<String>) -> Result<String, BadRequest> {
    let duration = milliseconds(&ms, BLOCK_MAX)?;
    std::thread::sleep(duration);
    Ok(format!("blocked a thread for {} ms\n", duration.as_millis()))
}

/// Sends the body back as it comes, with the type that it came with.
async fn echo(request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let mut answer = Response::new(body);
    if let Some(kind) = head.headers.get(header::CONTENT_TYPE) {
        answer.headers_mut().insert(header::CONTENT_TYPE, kind.clone());
    }
    answer
}

async fn metrics(State(counters): State<Arc<Counters>>) -> impl IntoResponse {
    let text = exposition(&runtime::Handle::current().metrics(), &counters);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

/// An answer with status 400.
struct BadRequest(String);

impl IntoResponse for BadRequest {
    fn into_response(self) -> axum::response::Response {
        (StatusCode::BAD_REQUEST, self.0).into_response()
    }
}

fn milliseconds(text: &str, max: Duration) -> Result<Duration, BadRequest> {
    match text.parse().map(Duration::from_millis) {
        Ok(duration) if duration <= max => Ok(duration),
        _ => Err(BadRequest(format!("give a whole number of milliseconds, at most {}\n", max.as_millis()))),
    }
}

/// The counters in the text format of Prometheus.
fn exposition(runtime: &Metrics, counters: &Counters) -> String {
    let mut text = String::new();
    let mut sample = |kind: &str, name: &str, help: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    };
    let gauges = [
        ("mainspring_processors", "Processors: how many tasks can run at once.", runtime.processors),
        ("mainspring_processors_idle", "Processors that nobody holds.", runtime.idle_processors),
        ("mainspring_threads", "Threads.", runtime.threads),
        ("mainspring_blocking_threads", "Threads of the blocking pool.", runtime.blocking_threads),
        ("mainspring_tasks", "Tasks that have not ended.", runtime.tasks_alive),
        ("mainspring_tasks_queued", "Tasks in run queues.", runtime.queued),
        ("mainspring_timers", "Timers that are armed.", runtime.timers_pending),
        ("mainspring_descriptors", "Descriptors registered with the poller.", runtime.descriptors),
    ];
    for (name, help, value) in gauges {
        sample("gauge", name, help, &value);
    }
    let lateness = Duration::from_nanos(runtime.timer_lateness_ns_max).as_secs_f64();
    sample("gauge", "mainspring_timer_lateness_seconds_max", "The latest that a timer ever was.", &lateness);
    sample("gauge", "http_connections", "Connections that are open.", &Counters::get(&counters.open));
    let totals = [
        ("mainspring_tasks_spawned_total", "Tasks spawned.", runtime.tasks_spawned),
        ("mainspring_panics_total", "Tasks and timer functions that panicked.", runtime.panics),
        ("mainspring_polls_total", "Polls of tasks, and runs of timer functions.", runtime.polls),
        ("mainspring_steals_total", "Tasks taken from another processor.", runtime.steals),
        ("mainspring_handoffs_total", "Processors taken over from a blocked worker.", runtime.handoffs),
        ("mainspring_parks_total", "Times a worker went to sleep.", runtime.parks),
        ("mainspring_wakeups_total", "Times a worker was woken for work.", runtime.wakeups),
        ("mainspring_rescues_total", "Times the monitor found work left lying.", runtime.rescues),
        ("mainspring_thread_failures_total", "Threads that the system refused.", runtime.thread_failures),
        ("mainspring_timers_armed_total", "Timers armed.", runtime.timers_armed),
        ("mainspring_timers_fired_total", "Timers that fired.", runtime.timers_fired),
        ("mainspring_timers_cancelled_total", "Timers cancelled in time.", runtime.timers_cancelled),
        ("mainspring_poller_polls_total", "Times the system was asked for events.", runtime.poller_polls),
        ("mainspring_poller_waits_total", "How many of these could wait.", runtime.poller_waits),
        ("mainspring_poller_events_total", "Events that the poller returned.", runtime.poller_events),
        ("mainspring_poller_interrupts_total", "Waits that were cut short.", runtime.poller_interrupts),
        ("http_connections_total", "Connections accepted.", Counters::get(&counters.accepted)),
        ("http_requests_total", "Requests answered.", Counters::get(&counters.served)),
    ];
    for (name, help, value) in totals {
        sample("counter", name, help, &value);
    }
    text
}
