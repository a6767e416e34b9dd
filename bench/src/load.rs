//! The load generator of the echo workloads: two threads over epoll, no runtime's.
//!
//! A process of its own. Each connection has one message in flight. It connects, warms up, and prints [`READY`].
//! Each answer is compared with what was sent.
//! For each line on its standard input it then measures once, and prints [`Answered`] as JSON. Lines that are
//! the same name the same kind of phase, whose latencies are taken together.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::time::Timespec;
use serde::{Deserialize, Serialize};

use crate::statistics::percentile;

pub(crate) const READY: &str = "ready\n";

const THREADS: usize = 2;
const WARM_UP: Duration = Duration::from_millis(300);
/// A server that does not answer for so long never will.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// What is asked of the load generator.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) connections: usize,
    /// Bytes of a message.
    pub(crate) message: usize,
    /// Of one phase.
    pub(crate) time: Duration,
}

/// What it saw in a phase.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answered {
    pub(crate) messages: u64,
    /// From the first message to the last answer.
    pub(crate) wall_ns: f64,
    /// Of the latencies in all phases of this kind so far.
    pub(crate) p50_ns: f64,
    pub(crate) p99_ns: f64,
    pub(crate) max_ns: f64,
}

impl Load {
    /// The command line that asks this binary for it.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        [
            "load".to_owned(),
            self.address.to_string(),
            format!("--connections={}", self.connections),
            format!("--message={}", self.message),
            format!("--seconds={}", self.time.as_secs_f64()),
        ]
        .map(OsString::from)
        .into()
    }

    /// The whole life of the process.
    pub(crate) fn run(&self) -> io::Result<()> {
        let mut shares = Vec::new();
        for n in 0..THREADS {
            let connections = self.connections / THREADS + usize::from(n < self.connections % THREADS);
            shares.push(Share::connect(self.address, connections, self.message)?);
        }
        drive(&mut shares, WARM_UP)?;
        io::stdout().write_all(READY.as_bytes())?;
        let mut latencies_by_kind: HashMap<String, Vec<f64>> = HashMap::new();
        for kind in io::stdin().lock().lines() {
            let start = Instant::now();
            let mut new = drive(&mut shares, self.time)?;
            let wall = start.elapsed();
            let messages = new.len() as u64;
            let latencies = latencies_by_kind.entry(kind?).or_default();
            latencies.append(&mut new);
            let answered = Answered {
                messages,
                wall_ns: wall.as_nanos() as f64,
                p50_ns: percentile(latencies, 0.5),
                p99_ns: percentile(latencies, 0.99),
                max_ns: percentile(latencies, 1.0),
            };
            println!("{}", serde_json::to_string(&answered)?);
        }
        Ok(())
    }
}

/// Drives all connections for a time; the latency of each message.
fn drive(shares: &mut [Share], time: Duration) -> io::Result<Vec<f64>> {
    let end = Instant::now() + time;
    thread::scope(|scope| {
        let threads: Vec<_> = shares.iter_mut().map(|share| scope.spawn(|| share.drive(end))).collect();
        let mut latencies = Vec::new();
        for thread in threads {
            latencies.append(&mut thread.join().expect("a thread of the load generator")?);
        }
        Ok(latencies)
    })
}

/// The connections of one thread.
struct Share {
    epoll: OwnedFd,
    connections: Vec<Connection>,
}

struct Connection {
    stream: TcpStream,
    sent_at: Instant,
    /// The present message. It begins with its number, so that none can be taken for the one before.
    message: Vec<u8>,
    number: u64,
    /// Bytes of the present message that have come back.
    received: usize,
}

impl Share {
    fn connect(address: SocketAddr, connections: usize, message: usize) -> io::Result<Share> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let connections = (0..connections)
            .map(|index| {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                let data = epoll::EventData::new_u64(index as u64);
                epoll::add(&epoll, &stream, data, epoll::EventFlags::IN)?;
                let message = vec![b'x'; message];
                Ok(Connection { stream, sent_at: Instant::now(), message, number: 0, received: 0 })
            })
            .collect::<io::Result<_>>()?;
        Ok(Share { epoll, connections })
    }

    /// Keeps a message in flight on each connection until `end`, and waits for the last answers.
    fn drive(&mut self, end: Instant) -> io::Result<Vec<f64>> {
        let mut latencies = Vec::new();
        let mut events = Vec::with_capacity(self.connections.len());
        for connection in &mut self.connections {
            connection.send()?;
        }
        let mut in_flight = self.connections.len();
        while in_flight > 0 {
            events.clear();
            let ready = rustix::buffer::spare_capacity(&mut events);
            if epoll::wait(&self.epoll, ready, Some(&PATIENCE))? == 0 {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the server does not answer"));
            }
            for event in &events {
                let event: &epoll::Event = event;
                let connection = &mut self.connections[event.data.u64() as usize];
                if connection.receive()? {
                    let now = Instant::now();
                    latencies.push((now - connection.sent_at).as_nanos() as f64);
                    if now < end {
                        connection.send()?;
                    } else {
                        in_flight -= 1;
                    }
                }
            }
        }
        Ok(latencies)
    }
}

impl Connection {
    /// A message is small and the socket's buffer is empty, so it fits.
    fn send(&mut self) -> io::Result<()> {
        self.number += 1;
        for (byte, number) in self.message.iter_mut().zip(self.number.to_le_bytes()) {
            *byte = number;
        }
        self.received = 0;
        self.sent_at = Instant::now();
        self.stream.write_all(&self.message)
    }

    /// Reads what is there; true if that completes the message.
    ///
    /// # Errors
    ///
    /// Also if it is not what was sent.
    fn receive(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                if !self.message[self.received..].starts_with(&buffer[..count]) {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "another message than was sent"));
                }
                self.received += count;
                Ok(self.received == self.message.len())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Drives one connection to a server that changes each message by `change`.
    fn drive_against(change: fn(&mut [u8])) -> io::Result<Vec<f64>> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        thread::spawn(move || -> io::Result<()> {
            let (mut stream, _) = listener.accept()?;
            let mut message = [0; 64];
            loop {
                stream.read_exact(&mut message)?;
                change(&mut message);
                stream.write_all(&message)?;
            }
        });
        drive(&mut [Share::connect(address, 1, 64)?], Duration::from_millis(200))
    }

    #[test]
    fn a_message_that_comes_back_as_it_was_counts() {
        assert!(!drive_against(|_| ()).unwrap().is_empty());
    }

    #[test]
    fn another_message_than_was_sent_is_noticed() {
        let at_the_end = drive_against(|message| message[63] ^= 1).unwrap_err();
        assert_eq!(at_the_end.kind(), io::ErrorKind::InvalidData);
        // The one before, which differs in its number alone.
        let former = drive_against(|message| message[0] -= message[0].min(1)).unwrap_err();
        assert_eq!(former.kind(), io::ErrorKind::InvalidData);
    }
}
