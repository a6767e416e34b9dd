//! Real servers for tests: one that the environment names, or a private one that is started for this test program,
//! or none. It knows how to come to an address, and nothing of what is spoken there.
//!
//! Invariant: a private server ends with this process, in whatever way that ends, because it lives as long as a
//! pipe from here (see `services.sh`). Where there is no server, that is said past the capture of the test harness,
//! once.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// How often a port that looked free may turn out to be taken.
const ATTEMPTS: usize = 3;

/// A server to test against.
#[derive(Debug)]
pub(crate) enum Server {
    /// What the environment variable says.
    Named(String),
    /// A private one, on 127.0.0.1 and with a Unix socket in this directory.
    Private { port: u16, directory: PathBuf },
}

/// The server of this kind, `postgres` or `redis`, for all tests of this program; `None` if there is none to be had.
pub(crate) fn server(kind: &str, variable: &str) -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER
        .get_or_init(|| match std::env::var(variable) {
            Ok(named) if !named.is_empty() => Some(Server::Named(named)),
            _ => (0..ATTEMPTS).find_map(|_| start(kind)).unwrap_or_else(|| panic!("{kind} does not start")),
        })
        .as_ref()
}

/// `None` is a failure, `Some(None)` says that this machine has no such server.
#[expect(clippy::zombie_processes, reason = "the script outlives this process")]
fn start(kind: &str) -> Option<Option<Server>> {
    // Free at this moment; whoever takes it first has it.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut child = Command::new("sh")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services.sh"))
        .args([kind, &port.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    if let Some(directory) = line.trim_end().strip_prefix("ready ") {
        // The end that the script listens to stays open as long as this process.
        static PIPE: OnceLock<std::process::ChildStdin> = OnceLock::new();
        PIPE.set(child.stdin.take().unwrap()).expect("one server for each test program");
        return Some(Some(Server::Private { port, directory: directory.into() }));
    }
    let _ = child.wait();
    if line.starts_with("skipped: ") {
        let _ = write!(std::io::stderr(), "{line}");
        return Some(None);
    }
    None
}
