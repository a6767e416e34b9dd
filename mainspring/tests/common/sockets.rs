//! What the tests of sockets share: pairs of streams, looking at a future once, bytes that tell their place.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use mainspring::net::{TcpListener, TcpStream};

/// Two ends of one connection.
pub(crate) async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (client, server)
}

/// Reads one byte, which must come.
pub(crate) async fn read_one(stream: &TcpStream) -> io::Result<u8> {
    let mut buffer = [0];
    match stream.read(&mut buffer).await? {
        1 => Ok(buffer[0]),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Polls a future once.
pub(crate) async fn poll_once<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

pub(crate) fn is_timeout<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::TimedOut)
}

/// Writes until the socket takes no more for now; how many bytes it took.
pub(crate) async fn fill(stream: &TcpStream) -> usize {
    let mut sum = 0;
    loop {
        let chunk: Vec<u8> = (sum..sum + 65_536).map(byte_at).collect();
        let write = std::pin::pin!(stream.write(&chunk));
        match poll_once(write).await {
            Poll::Ready(count) => sum += count.unwrap(),
            // The kernel moves what it has towards the reader in its own time.
            Poll::Pending => {
                let settled = mainspring::time::sleep(Duration::from_millis(20));
                settled.await;
                let write = std::pin::pin!(stream.write(&chunk));
                match poll_once(write).await {
                    Poll::Ready(count) => sum += count.unwrap(),
                    Poll::Pending => return sum,
                }
            }
        }
    }
}

/// A byte that tells its place in a long stream, so that one that is lost or doubled shows.
pub(crate) fn byte_at(place: usize) -> u8 {
    (place % 251) as u8
}
