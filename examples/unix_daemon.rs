//! A daemon on a Unix socket: a counter that is shared by its clients, one command a line.
//!
//! ```text
//! cargo run --example unix_daemon -- --socket /tmp/counter.sock --config counter.conf
//! echo add 3 | nc -U /tmp/counter.sock
//! ```
//!
//! It shows what a daemon needs: SIGHUP reads the configuration again, SIGTERM and Ctrl-C end it in order, a
//! client that says nothing is sent away by its deadline, the socket's file of a daemon that crashed is taken
//! over, and that of one that runs is not.
//!
//! The stop needs no channel and no `select!`: it moves the deadlines of all connections into the past. Who waits
//! for a command wakes up, and who works on one finishes it.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Parser;
use futures_util::future::select;
use mainspring::net::{Deadlines, UnixListener, UnixStream};
use mainspring::signal::{SignalKind, signal};
use mainspring::task::JoinSet;
use mainspring::time::Instant;

/// A shared counter on a Unix socket.
#[derive(Parser)]
struct Options {
    /// Where the socket is.
    #[arg(long, default_value = "/tmp/mainspring-counter.sock")]
    socket: PathBuf,
    /// Lines `idle_ms = 60000` and `greeting = hello`; read again on SIGHUP.
    #[arg(long)]
    config: Option<PathBuf>,
}

/// The longest line that is a command.
const LINE_MAX: usize = 4096;

/// How long a client may take to accept an answer.
const WRITE_TIME: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
struct Config {
    greeting: String,
    /// How long a client may be silent.
    idle: Duration,
}

impl Config {
    fn parse(text: &str) -> io::Result<Config> {
        let mut config = Config { greeting: "hello".to_owned(), idle: Duration::from_secs(60) };
        let invalid =
            |line: &str| io::Error::new(io::ErrorKind::InvalidData, format!("configuration: {line:?}"));
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let (key, value) = line.split_once('=').ok_or_else(|| invalid(line))?;
            match (key.trim(), value.trim()) {
                ("greeting", value) => config.greeting = value.to_owned(),
                ("idle_ms", value) => {
                    config.idle = Duration::from_millis(value.parse().map_err(|_| invalid(line))?);
                }
                _ => return Err(invalid(line)),
            }
        }
        Ok(config)
    }

    async fn load(path: Option<&Path>) -> io::Result<Config> {
        match path {
            Some(path) => Config::parse(&mainspring::fs::read_to_string(path).await?),
            None => Config::parse(""),
        }
    }
}

struct Daemon {
    config_path: Option<PathBuf>,
    config: Mutex<Config>,
    total: AtomicI64,
    commands: AtomicU64,
    stopping: AtomicBool,
    /// The deadlines of all that wait: clients by number, and the listener as number 0.
    deadlines: Mutex<HashMap<u64, Deadlines>>,
}

impl Daemon {
    async fn new(config_path: Option<PathBuf>) -> io::Result<Arc<Daemon>> {
        let config = Config::load(config_path.as_deref()).await?;
        Ok(Arc::new(Daemon {
            config_path,
            config: Mutex::new(config),
            total: AtomicI64::new(0),
            commands: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            deadlines: Mutex::new(HashMap::new()),
        }))
    }

    fn config(&self) -> Config {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the configuration again. A bad one changes nothing.
    async fn reload(&self) -> io::Result<()> {
        let config = Config::load(self.config_path.as_deref()).await?;
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    fn stop(&self) {
        // Before the deadlines: whoever sets his own after this looks at the flag next.
        self.stopping.store(true, Ordering::SeqCst);
        for deadlines in self.deadlines().values() {
            // An error says that it is closed.
            let _ = deadlines.set_read_deadline(Instant::now());
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn deadlines(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Deadlines>> {
        self.deadlines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts and serves clients until [`stop`](Daemon::stop); returns when all of them are served.
    async fn serve(self: &Arc<Self>, listener: UnixListener) {
        let mut clients = JoinSet::new();
        self.deadlines().insert(0, listener.deadlines());
        for number in 1.. {
            if self.is_stopping() {
                break;
            }
            match listener.accept().await {
                Ok((stream, _)) => {
                    let daemon = Arc::clone(self);
                    clients.spawn(async move { daemon.client(number, stream).await });
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                // No descriptor is left, for example. The listener waits a little before it accepts again.
                Err(error) => eprintln!("accepting: {error}"),
            }
            while clients.try_join_next().is_some() {}
        }
        drop(listener);
        while clients.join_next().await.is_some() {}
    }

    async fn client(&self, number: u64, stream: UnixStream) {
        self.deadlines().insert(number, stream.deadlines());
        if let Err(error) = self.converse(&stream).await {
            eprintln!("client {number}: {error}");
        }
        self.deadlines().remove(&number);
    }

    async fn converse(&self, stream: &UnixStream) -> io::Result<()> {
        let greeting = self.config().greeting;
        answer(stream, &greeting).await?;
        let mut buffer = Vec::new();
        loop {
            let line = match self.next_line(stream, &mut buffer).await {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    let why = if self.is_stopping() { "bye" } else { "error: silent for too long" };
                    return answer(stream, why).await;
                }
                Err(error) => return Err(error),
            };
            self.commands.fetch_add(1, Ordering::Relaxed);
            match self.command(&line) {
                Some(text) => answer(stream, &text).await?,
                None => return answer(stream, "bye").await,
            }
        }
    }

    /// `None` is for whoever wants to go.
    fn command(&self, line: &str) -> Option<String> {
        let mut words = line.split_whitespace();
        Some(match (words.next(), words.next(), words.next()) {
            (Some("ping"), None, None) => "pong".to_owned(),
            (Some("get"), None, None) => self.total.load(Ordering::Relaxed).to_string(),
            (Some("add"), Some(number), None) => match number.parse::<i64>() {
                Ok(number) => {
                    self.total.fetch_add(number, Ordering::Relaxed).wrapping_add(number).to_string()
                }
                Err(_) => "error: no number".to_owned(),
            },
            (Some("status"), None, None) => {
                let (commands, clients) = (self.commands.load(Ordering::Relaxed), self.deadlines().len() - 1);
                format!("clients {clients} commands {commands}")
            }
            (Some("quit"), None, None) => return None,
            _ => "error: ping, get, add NUMBER, status or quit".to_owned(),
        })
    }

    /// The next line, or the end. What was read beyond it stays in `buffer`.
    async fn next_line(&self, stream: &UnixStream, buffer: &mut Vec<u8>) -> io::Result<Option<String>> {
        stream.set_read_deadline(Instant::now() + self.config().idle)?;
        if self.is_stopping() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        loop {
            if let Some(end) = buffer.iter().position(|&byte| byte == b'\n') {
                let line = buffer.drain(..=end).collect();
                let invalid = |_| io::Error::new(io::ErrorKind::InvalidData, "a line that is no text");
                return String::from_utf8(line).map(Some).map_err(invalid);
            }
            if buffer.len() >= LINE_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line that does not end"));
            }
            let mut some = [0; 1024];
            match stream.read(&mut some).await? {
                0 => return Ok(None),
                count => buffer.extend_from_slice(&some[..count]),
            }
        }
    }
}

async fn answer(stream: &UnixStream, text: &str) -> io::Result<()> {
    stream.set_write_deadline(Instant::now() + WRITE_TIME)?;
    stream.write_all(format!("{text}\n").as_bytes()).await
}

/// Listens at `path`. What a daemon left there that is gone is removed; one that runs is left alone. (Of two that
/// start at the same moment both may find the first one's file: who fears that needs a lock beside it.)
async fn listen(path: &Path) -> io::Result<UnixListener> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => match UnixStream::connect(path).await {
            Err(gone) if gone.kind() == io::ErrorKind::ConnectionRefused => {
                mainspring::fs::remove_file(path).await?;
                UnixListener::bind(path)?
            }
            _ => return Err(error),
        },
        result => result?,
    };
    mainspring::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).await?;
    Ok(listener)
}

/// Runs the daemon until SIGTERM or Ctrl-C.
async fn run(socket: &Path, config: Option<PathBuf>) -> io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let daemon = Daemon::new(config).await?;
    let listener = listen(socket).await?;
    println!("listening at {}", socket.display());

    let reloads = mainspring::spawn({
        let daemon = Arc::clone(&daemon);
        async move {
            while hangup.recv().await.is_some() {
                match daemon.reload().await {
                    Ok(()) => println!("configuration read"),
                    Err(error) => eprintln!("configuration left as it was: {error}"),
                }
            }
        }
    });
    let server = mainspring::spawn({
        let daemon = Arc::clone(&daemon);
        async move { daemon.serve(listener).await }
    });
    select(pin!(terminate.recv()), pin!(interrupt.recv())).await;
    println!("stopping");
    // While it is ours: as soon as nobody listens there, the next daemon may take it over.
    let removed = mainspring::fs::remove_file(socket).await;
    daemon.stop();
    server.await?;
    reloads.abort();
    removed
}

#[mainspring::main]
async fn main() -> io::Result<()> {
    let options = Options::parse();
    run(&options.socket, options.config).await
}

#[cfg(test)]
#[path = "tests/unix_daemon.rs"]
mod tests;
