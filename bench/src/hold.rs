//! The clients of `idle_conns`: a process of its own that holds connections, and does nothing.
//!
//! For each line on its standard input it does what that asks for, and prints [`DONE`]: a number is how many more
//! connections are to be made, [`ECHO`] asks for a message on each, all different, and for the answers to be compared.

use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::limits;

pub(crate) const ECHO: &str = "echo";
pub(crate) const DONE: &str = "done";

const MESSAGE: usize = 64;
/// A server that does not answer for so long never will.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn run(address: SocketAddr) -> io::Result<()> {
    limits::raise_descriptors()?;
    let mut streams: Vec<TcpStream> = Vec::new();
    for line in io::stdin().lock().lines() {
        let line = line?;
        if line == ECHO {
            echo(&mut streams)?;
        } else {
            let more: usize = line.parse().map_err(io::Error::other)?;
            for _ in 0..more {
                let stream = TcpStream::connect(address)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                streams.push(stream);
            }
        }
        println!("{DONE}");
    }
    Ok(())
}

/// Sends on all of them before it reads any answer.
fn echo(streams: &mut [TcpStream]) -> io::Result<()> {
    for (n, stream) in streams.iter_mut().enumerate() {
        stream.write_all(&message(n))?;
    }
    for (n, stream) in streams.iter_mut().enumerate() {
        let mut answer = [0; MESSAGE];
        stream.read_exact(&mut answer)?;
        if answer != message(n) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "another message than was sent"));
        }
    }
    Ok(())
}

fn message(n: usize) -> [u8; MESSAGE] {
    let mut message = [b'x'; MESSAGE];
    message[..8].copy_from_slice(&(n as u64).to_le_bytes());
    message
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Sends on two connections, whose answers a server gives in an order of its own.
    fn echo_on_two(order: [usize; 2]) -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let mut clients = [TcpStream::connect(address)?, TcpStream::connect(address)?];
        let mut servers = [listener.accept()?.0, listener.accept()?.0];
        let server = thread::spawn(move || -> io::Result<()> {
            let mut messages = [[0; MESSAGE]; 2];
            for (server, message) in servers.iter_mut().zip(&mut messages) {
                server.read_exact(message)?;
            }
            servers.iter_mut().zip(order).try_for_each(|(server, n)| server.write_all(&messages[n]))
        });
        let result = echo(&mut clients);
        server.join().expect("the server")?;
        result
    }

    #[test]
    fn an_answer_on_another_connection_is_noticed() {
        echo_on_two([0, 1]).unwrap();
        assert_eq!(echo_on_two([1, 0]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
