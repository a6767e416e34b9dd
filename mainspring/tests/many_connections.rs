//! Thousands of TCP connections at once on one runtime with the default settings, each end setting a fresh deadline
//! before each read and each write, every byte checked: none wrong, no connection lost, no deadline passed.
//!
//! Three of four connections send message after message, of all sizes; of eight, one is closed in good order
//! and opened again after some messages, and one waits in a read for most of the time, until the end. What the test does
//! not know is how fast that is; it prints what was done.
//!
//! `MAINSPRING_SOAK_SECONDS` says for how long, and `MAINSPRING_CONNECTIONS` how many there are. Both ends are in this
//! process, so there are two descriptors to each connection. Where the limit on descriptors does not allow as many, it
//! takes as many as it can and says so.

mod common;

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant as StdInstant;

use common::stress::Rng;
use common::watchdog::Watchdog;
use mainspring::net::{TcpListener, TcpStream};
use mainspring::runtime::Builder;
use mainspring::task::JoinHandle;
use mainspring::time::{Duration, Instant, sleep, timeout};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::Semaphore;

/// How many connections there are, if nothing else is asked for and possible.
const CONNECTIONS: usize = 8_000;

/// Addresses to connect to. Closed connections keep their pair of ports for a minute, and there are some 28,000 to
/// each address.
const LISTENERS: u8 = 8;

/// How many connect at the same time, so that no queue of a listener gets full and makes one wait a second.
const CONNECTING: usize = 64;

/// Nothing takes as long as that which is not stuck, however busy the machine is.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long a client may be silent, which is longer than the test.
const SILENCE: Duration = Duration::from_secs(24 * 3600);

/// The longest message. Most are far shorter.
const LONGEST: u64 = 4_096;

/// What has happened on all connections.
#[derive(Default)]
struct Counts {
    /// Clients that have been connected.
    clients: AtomicU64,
    opened: AtomicU64,
    /// Closed by the client in good order, and the server's end seen.
    closed: AtomicU64,
    messages: AtomicU64,
    bytes: AtomicU64,
    wrong_bytes: AtomicU64,
    /// Ended by what is no timeout, before their time.
    lost: AtomicU64,
    timeouts: AtomicU64,
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Counts {
    /// Counts what has ended a connection.
    fn ended(&self, result: io::Result<()>) {
        match result {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::TimedOut => add(&self.timeouts, 1),
            Err(error) => {
                if self.lost.fetch_add(1, Ordering::Relaxed) == 0 {
                    println!("the first connection that was lost: {error}");
                }
            }
        }
    }
}

/// What a client knows.
struct Client {
    addr: SocketAddr,
    counts: Arc<Counts>,
    connecting: Arc<Semaphore>,
    stop: Arc<AtomicBool>,
    rng: Rng,
    was_connected: bool,
}

/// How a client uses its connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Habit {
    /// One message after the other.
    Busy,
    /// As busy, but closes after some messages and opens again.
    Reopens,
    /// Waits in a read, with a deadline far ahead, and exchanges a message at the end.
    Idle,
}

impl Habit {
    fn of(number: usize) -> Habit {
        match number % 8 {
            0 => Habit::Reopens,
            1 => Habit::Idle,
            _ => Habit::Busy,
        }
    }
}

impl Client {
    async fn run(mut self, habit: Habit) {
        for connection in 0.. {
            let result = self.one_connection(habit).await;
            // Twice at least.
            let again = habit == Habit::Reopens
                && result.is_ok()
                && (connection == 0 || !self.stop.load(Ordering::Relaxed));
            self.counts.ended(result);
            if !again {
                return;
            }
        }
    }

    async fn one_connection(&mut self, habit: Habit) -> io::Result<()> {
        let stream = {
            let _permit = self.connecting.acquire().await.expect("never closed");
            TcpStream::connect_timeout(self.addr, DEADLINE).await?
        };
        add(&self.counts.opened, 1);
        add(&self.counts.clients, u64::from(!std::mem::replace(&mut self.was_connected, true)));
        stream.set_nodelay(true)?;
        // Tells this connection's bytes from all others'.
        let mut sequence = Sequence::new(&stream, self.rng.next()).await?;
        let messages = if habit == Habit::Reopens { 1 + self.rng.below(20) } else { u64::MAX };
        if habit == Habit::Idle {
            self.wait_in_a_read(&stream).await?;
        }
        for _ in 0..messages {
            self.exchange(&stream, &mut sequence).await?;
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
        }
        stream.shutdown(Shutdown::Write)?;
        stream.set_read_deadline(Instant::now() + DEADLINE)?;
        match stream.read(&mut [0]).await? {
            0 => add(&self.counts.closed, 1),
            _ => add(&self.counts.wrong_bytes, 1),
        }
        Ok(())
    }

    /// Sends a message and reads it back.
    async fn exchange(&mut self, stream: &TcpStream, sequence: &mut Sequence) -> io::Result<()> {
        // Short ones more often than long ones.
        let longest = 1 + self.rng.below(LONGEST);
        let length = 1 + self.rng.below(longest) as usize;
        let message = sequence.next(length);
        let mut rest = &message[..];
        while !rest.is_empty() {
            stream.set_write_deadline(Instant::now() + DEADLINE)?;
            let count = stream.write(rest).await?;
            rest = &rest[count..];
        }
        let mut echo = vec![0; length];
        let mut filled = 0;
        while filled < length {
            stream.set_read_deadline(Instant::now() + DEADLINE)?;
            match stream.read(&mut echo[filled..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        let wrong = message.iter().zip(&echo).filter(|(sent, back)| sent != back).count();
        add(&self.counts.wrong_bytes, wrong as u64);
        add(&self.counts.bytes, length as u64);
        add(&self.counts.messages, 1);
        Ok(())
    }

    /// Nothing may end this read but its being given up.
    async fn wait_in_a_read(&self, stream: &TcpStream) -> io::Result<()> {
        while !self.stop.load(Ordering::Relaxed) {
            stream.set_read_deadline(Instant::now() + DEADLINE)?;
            if let Ok(result) = timeout(Duration::from_millis(900), stream.read(&mut [0])).await {
                match result? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => add(&self.counts.wrong_bytes, count as u64),
                }
            }
        }
        Ok(())
    }
}

/// The bytes of one connection, which no other one has: the server begins by sending back what it is told first.
struct Sequence(Rng);

impl Sequence {
    async fn new(stream: &TcpStream, seed: u64) -> io::Result<Sequence> {
        stream.set_deadline(Instant::now() + DEADLINE)?;
        stream.write_all(&seed.to_ne_bytes()).await?;
        let mut back = [0; 8];
        stream.read_exact(&mut back).await?;
        if u64::from_ne_bytes(back) != seed {
            return Err(io::Error::other("it is not its own connection that answers"));
        }
        Ok(Sequence(Rng(seed)))
    }

    fn next(&mut self, length: usize) -> Vec<u8> {
        (0..length.div_ceil(8)).flat_map(|_| self.0.next().to_ne_bytes()).take(length).collect()
    }
}

/// Sends back whatever comes, until the client has finished.
async fn echo(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 2_048];
    loop {
        stream.set_read_deadline(Instant::now() + SILENCE)?;
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            stream.set_write_deadline(Instant::now() + DEADLINE)?;
            let count = stream.write(rest).await?;
            rest = &rest[count..];
        }
    }
}

async fn listen(host: u8, counts: &Arc<Counts>) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, host], 0))).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let counts = Arc::clone(counts);
    let server = mainspring::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let counts = Arc::clone(&counts);
                    mainspring::spawn(async move { counts.ended(echo(stream).await) });
                }
                Err(error) => counts.ended(Err(error)),
            }
        }
    });
    (addr, server)
}

/// How many connections there shall be: as many as asked for, or as the limit on descriptors allows, which is raised
/// as far as that goes.
fn connections() -> usize {
    let asked = number("MAINSPRING_CONNECTIONS").map_or(CONNECTIONS, |number| number as usize);
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let Some(limit) = getrlimit(Resource::Nofile).current else { return asked };
    // Two to a connection, and some for all the rest.
    let possible = (limit as usize).saturating_sub(300) / 2;
    if possible < asked {
        println!(
            "many_connections: {possible} connections instead of {asked}, by the limit of {limit} descriptors"
        );
    }
    asked.min(possible)
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a whole number")))
}

/// The process's resident memory, as the system writes it.
fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap_or("memory unknown").trim().to_owned()
}

#[test]
fn every_byte_of_thousands_of_connections_comes_back_and_none_is_lost() {
    let seconds = number("MAINSPRING_SOAK_SECONDS").unwrap_or(2);
    let connections = connections();
    assert!(connections > 0);
    let watchdog = Watchdog::here();
    let runtime = Builder::new().build().unwrap();
    watchdog.watch(&runtime.handle());
    let counts = Arc::new(Counts::default());
    let stop = Arc::new(AtomicBool::new(false));
    let start = StdInstant::now();
    runtime.block_on(async {
        let mut listeners = Vec::new();
        for host in 1..=LISTENERS {
            listeners.push(listen(host, &counts).await);
        }
        let connecting = Arc::new(Semaphore::new(CONNECTING));
        let clients: Vec<_> = (0..connections)
            .map(|number| {
                let client = Client {
                    addr: listeners[number % listeners.len()].0,
                    counts: Arc::clone(&counts),
                    connecting: Arc::clone(&connecting),
                    stop: Arc::clone(&stop),
                    rng: Rng(number as u64),
                    was_connected: false,
                };
                mainspring::spawn(client.run(Habit::of(number / listeners.len())))
            })
            .collect();
        common::until(|| read(&counts.clients) == connections as u64 || read(&counts.lost) > 0).await;
        let all_open = StdInstant::now();
        println!("many_connections: {connections} connections open after {:?}", all_open - start);
        let before = read(&counts.messages);
        for second in 0..seconds {
            watchdog.step(format!("second {second}"));
            watchdog.watch(&runtime.handle());
            sleep(Duration::from_secs(1)).await;
        }
        let rate = (read(&counts.messages) - before) as f64 / all_open.elapsed().as_secs_f64();
        println!("many_connections: {rate:.0} messages a second, {} resident", resident());
        watchdog.step("the end");
        watchdog.watch(&runtime.handle());
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.await.unwrap();
        }
        // Each server has seen the end of its connection, and only the listeners are left.
        common::until(|| runtime.metrics().descriptors == listeners.len()).await;
        for (_, server) in listeners {
            server.abort();
            let _ = server.await;
        }
    });
    let [opened, closed, messages, bytes] =
        [&counts.opened, &counts.closed, &counts.messages, &counts.bytes].map(read);
    let [wrong, lost, timeouts] = [&counts.wrong_bytes, &counts.lost, &counts.timeouts].map(read);
    println!(
        "many_connections: {messages} messages, {bytes} bytes, {opened} connections opened, {closed} closed; \
         {wrong} wrong bytes, {lost} connections lost, {timeouts} timeouts; {:?}",
        start.elapsed()
    );
    assert_eq!((wrong, lost, timeouts), (0, 0, 0), "wrong bytes, connections lost, timeouts");
    assert_eq!(opened, closed);
    assert!(messages >= opened && opened >= connections as u64 + connections as u64 / 10);
    assert_eq!(runtime.metrics().timers_pending, 0);
    common::stress::assert_no_rescue(&runtime, "many connections");
}
