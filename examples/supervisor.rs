//! A process supervisor: starts commands, shows what they write behind their names, starts those that fail again,
//! ever more slowly, and stops all of them on SIGTERM or Ctrl-C: politely, then for good.
//!
//! ```text
//! cargo run --example supervisor -- 'web=python3 -m http.server 8000' 'beat=while sleep 1; do date; done'
//! ```
//!
//! Each command has one task, which waits for its end or for the stop, whatever comes first, and one for each of
//! its two pipes. No task waits for another one's command.

use std::io;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::str::FromStr;
use std::time::Duration;

use clap::Parser;
use futures_util::future::{Either, select};
use mainspring::process::{Child, Command};
use mainspring::signal::{SignalKind, signal};
use mainspring::task::JoinSet;
use mainspring::time::{Instant, sleep, timeout};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::{mpsc, watch};

/// Starts commands and keeps them running.
#[derive(Parser)]
struct Options {
    /// What is run, each as NAME=COMMAND; the shell runs it.
    #[arg(required = true)]
    services: Vec<Service>,
    /// How long a command has to end after SIGTERM, in milliseconds, before it is killed.
    #[arg(long, default_value_t = 5_000)]
    grace_ms: u64,
}

#[derive(Clone, Debug)]
struct Service {
    name: String,
    command: String,
}

impl FromStr for Service {
    type Err = String;

    fn from_str(text: &str) -> Result<Service, String> {
        match text.split_once('=') {
            Some((name, command)) if !name.is_empty() && !command.is_empty() => {
                Ok(Service { name: name.to_owned(), command: command.to_owned() })
            }
            _ => Err("NAME=COMMAND is needed".to_owned()),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Times {
    /// Before the first restart; doubled for each further one.
    first_pause: Duration,
    longest_pause: Duration,
    /// What has run for so long has not failed in a row.
    stable: Duration,
    grace: Duration,
}

impl Times {
    fn new(grace: Duration) -> Times {
        let seconds = Duration::from_secs;
        Times {
            first_pause: Duration::from_millis(100),
            longest_pause: seconds(30),
            stable: seconds(10),
            grace,
        }
    }
}

/// Where lines go; each is behind a name.
type Lines = mpsc::Sender<String>;

/// Says to all when it is time to stop.
type Stop = watch::Receiver<bool>;

async fn stopped(stop: &mut Stop) {
    // An error says that nobody is left who could say so; that is a stop, too.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Keeps one service running until it succeeds or until the stop.
async fn supervise(service: Service, times: Times, lines: Lines, mut stop: Stop) {
    let say = async |text: String| {
        // Nobody listens any more: the supervisor is on its way out.
        let _ = lines.send(format!("{}: {text}", service.name)).await;
    };
    let mut pause = times.first_pause;
    loop {
        let started = Instant::now();
        match run_once(&service, times, &lines, &mut stop).await {
            Ok(Run::Stopped(status)) => return say(format!("stopped, {status}")).await,
            Ok(Run::Ended(status)) if status.success() => return say("done".to_owned()).await,
            Ok(Run::Ended(status)) => say(format!("failed, {status}")).await,
            Err(error) => say(format!("cannot be run: {error}")).await,
        }
        if started.elapsed() >= times.stable {
            pause = times.first_pause;
        }
        say(format!("starts again in {pause:?}")).await;
        if let Either::Right(_) = select(sleep(pause), pin!(stopped(&mut stop))).await {
            return say("stopped while it waited".to_owned()).await;
        }
        pause = (pause * 2).min(times.longest_pause);
    }
}

/// How a run came to its end.
enum Run {
    Ended(ExitStatus),
    Stopped(ExitStatus),
}

/// Runs the service once, to its end or to the stop, and until all that it has written is shown.
async fn run_once(service: &Service, times: Times, lines: &Lines, stop: &mut Stop) -> io::Result<Run> {
    let mut child = Command::new("sh")
        .args(["-c", &service.command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // All that it starts is in one group, to be told of the stop together. The terminal's Ctrl-C is not for them,
        // but for the supervisor.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut pipes = JoinSet::new();
    if let Some(stdout) = stdout {
        pipes.spawn(forward(stdout, service.name.clone(), lines.clone()));
    }
    if let Some(stderr) = stderr {
        pipes.spawn(forward(stderr, service.name.clone(), lines.clone()));
    }

    // Waiting can be given up without harm, and is begun again below.
    let ended = match select(pin!(child.wait()), pin!(stopped(stop))).await {
        Either::Left((status, _)) => Some(status?),
        Either::Right(_) => None,
    };
    let run = match ended {
        Some(status) => Run::Ended(status),
        None => Run::Stopped(end(&mut child, times.grace).await?),
    };
    // A grandchild may hold the pipes for longer than anybody wants to wait.
    let _ = timeout(times.grace, async { while pipes.join_next().await.is_some() {} }).await;
    Ok(run)
}

/// SIGTERM, and SIGKILL when the time of grace is over.
async fn end(child: &mut Child, grace: Duration) -> io::Result<ExitStatus> {
    signal_group(child, Signal::TERM)?;
    if let Ok(status) = timeout(grace, child.wait()).await {
        return status;
    }
    signal_group(child, Signal::KILL)?;
    child.wait().await
}

/// Signals the child and all that it has started; [`Child::send_signal`] would reach the shell alone.
fn signal_group(child: &Child, signal: Signal) -> io::Result<()> {
    // The number of the group is that of the child, and nobody else's until the child has been waited for.
    match child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
        Some(group) => Ok(kill_process_group(group, signal)?),
        None => Ok(()),
    }
}

/// Sends each line behind the name. What is no text is shown as far as it is.
async fn forward(pipe: impl AsyncRead + Unpin, name: String, lines: Lines) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    // An error is an end.
    while pipe.read_until(b'\n', &mut line).await.is_ok_and(|count| count > 0) {
        let text = format!("{name} | {}", String::from_utf8_lossy(&line).trim_end());
        if lines.send(text).await.is_err() {
            return;
        }
        line.clear();
    }
}

/// Runs all services until each has succeeded, or until SIGTERM or Ctrl-C.
async fn run(services: Vec<Service>, times: Times, lines: Lines) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, told) = watch::channel(false);
    let mut running = JoinSet::new();
    for service in services {
        running.spawn(supervise(service, times, lines.clone(), told.clone()));
    }
    let all = async { while running.join_next().await.is_some() {} };
    let asked = async {
        select(pin!(terminate.recv()), pin!(interrupt.recv())).await;
    };
    if let Either::Right((_, all)) = select(pin!(all), pin!(asked)).await {
        stop.send_replace(true);
        all.await;
    }
    Ok(())
}

/// Writes the lines to standard output; who reads it slowly slows the services down, and holds nobody else up.
async fn print(mut lines: mpsc::Receiver<String>) -> io::Result<()> {
    let output = mainspring::io::stdout()?;
    while let Some(line) = lines.recv().await {
        output.write_all(format!("{line}\n").as_bytes()).await?;
    }
    Ok(())
}

#[mainspring::main]
async fn main() -> io::Result<()> {
    let options = Options::parse();
    let (lines, printed) = mpsc::channel(64);
    let printer = mainspring::spawn(print(printed));
    run(options.services, Times::new(Duration::from_millis(options.grace_ms)), lines).await?;
    printer.await?
}

#[cfg(test)]
#[path = "tests/supervisor.rs"]
mod tests;
