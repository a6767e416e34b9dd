//! An HTTP service on mainspring: an axum router over HTTP/1.1 and HTTP/2 on one port, with deadlines on every connection
//! and a graceful end. `cargo run --release --example http -- --help` lists its flags, and `/` explains its routes.
//!
//! From top to bottom: the command line, the service's life from bind to shutdown, the routes. What ends a connection
//! that stalls is `mainspring::serve`.
//!
//! Invariant: nothing here wakes up unless there is something to do. No connection, no wake-up.

use std::fmt::Write as _;
use std::future::Future;
use std::io::{self, Write as _};
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Request, Response, StatusCode, header};
use axum::response::{Html, IntoResponse};
use axum::routing::{any, get};
use clap::Parser;
use clap::error::ErrorKind;
use futures_util::future::{Either, select};
use mainspring::net::TcpListener;
use mainspring::runtime::{self, Metrics};
use mainspring::serve::{Connections, CutOff, RequestBody};
use mainspring::signal::unix::{self, SignalKind};
use mainspring::time::sleep;
use tokio::sync::oneshot;
use tower::ServiceExt;

/// Longest request to `/sleep`.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Longest request to `/block`, which costs a thread.
const BLOCK_MAX: Duration = Duration::from_secs(10);

/// How long running requests may go on after SIGINT or SIGTERM.
const GRACE: Duration = Duration::from_secs(10);

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

/// What `/metrics` tells of the server.
#[derive(Clone)]
struct Counters {
    /// Requests that were answered.
    served: Arc<AtomicU64>,
    connections: Connections,
}

impl Counters {
    fn served(&self) -> u64 {
        // ordering: Relaxed, a statistic.
        self.served.load(Ordering::Relaxed)
    }
}

fn run(options: &Options) -> Result<String, String> {
    let mut builder = runtime::Builder::new();
    if let Some(processors) = options.processors {
        builder = builder.processors(processors.into());
    }
    let runtime = builder.build().map_err(|error| format!("the runtime cannot start: {error}"))?;
    runtime.block_on(async {
        let stop = signal().map_err(|error| format!("cannot wait for signals: {error}"))?;
        let cannot_listen = |error| format!("cannot listen on {}: {error}", options.listen);
        let listener = TcpListener::bind(options.listen).await.map_err(cannot_listen)?;
        let address = listener.local_addr().map_err(cannot_listen)?;
        let processors = runtime::Handle::current().metrics().processors;
        say(&format!("listening on http://{address}/, processors: {processors}"));
        serve(listener, options, stop).await
    })
}

/// Serves until `stop` is ready; returns the line that says what was done.
async fn serve(
    listener: TcpListener,
    options: &Options,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<String, String> {
    let connections = Connections::new();
    let counters = Counters { served: Arc::default(), connections: connections.clone() };
    let count = Arc::clone(&counters.served);
    let app = ServiceExt::<Request<RequestBody>>::map_response(router(counters.clone()), move |answer| {
        // ordering: Relaxed, a statistic.
        count.fetch_add(1, Ordering::Relaxed);
        answer
    });
    let result = mainspring::serve(listener, app)
        .with_connections(connections)
        .header_timeout(options.header_timeout)
        .idle_timeout(options.idle_timeout)
        .on_accept_error(|error| complain(&format!("cannot accept connections for now: {error}")))
        .with_graceful_shutdown(stop)
        .shutdown_timeout(GRACE)
        .await;
    let mut line = format!("served {} requests", counters.served());
    if let Err(error) = result {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<CutOff>()) {
            Some(cut_off) => {
                let _ = write!(line, "; {cut_off} ({} s)", GRACE.as_secs());
            }
            None => return Err(format!("cannot accept connections any more: {error}")),
        }
    }
    Ok(line)
}

/// Is ready at the first SIGINT or SIGTERM; the second one ends the process on the spot.
fn signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let (mut interrupt, mut terminate) =
        (unix::signal(SignalKind::interrupt())?, unix::signal(SignalKind::terminate())?);
    let (stop, stopped) = oneshot::channel();
    mainspring::spawn(async move {
        let mut next = async || match select(pin!(interrupt.recv()), pin!(terminate.recv())).await {
            Either::Left(_) => SignalKind::interrupt(),
            Either::Right(_) => SignalKind::terminate(),
        };
        next().await;
        // It fails if everything has stopped already.
        let _ = stop.send(());
        std::process::exit(128 + next().await.as_raw_value());
    });
    Ok(async {
        let _ = stopped.await;
    })
}

// The routes.

fn router(counters: Counters) -> Router {
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

async fn metrics(State(counters): State<Counters>) -> impl IntoResponse {
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
    sample("gauge", "http_connections", "Connections that are open.", &counters.connections.open());
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
        ("http_connections_total", "Connections accepted.", counters.connections.accepted()),
        ("http_requests_total", "Requests answered.", counters.served()),
    ];
    for (name, help, value) in totals {
        sample("counter", name, help, &value);
    }
    text
}

#[cfg(test)]
#[path = "tests/http.rs"]
mod tests;
