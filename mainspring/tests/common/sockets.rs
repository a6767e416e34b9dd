//! What the tests of sockets share: pairs of streams, looking at a future once, bytes that tell their place.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use mainspring::net::TcpStream;

use super::kinds::Socket;

/// Two ends of one TCP connection.
pub(crate) async fn pair() -> (TcpStream, TcpStream) {
    <TcpStream as Socket>::pair().await
}

/// Reads one byte, which must come.
pub(crate) async fn read_one<S: Socket>(socket: &S) -> io::Result<u8> {
    let mut buffer = [0];
    match socket.read(&mut buffer).await? {
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
pub(crate) async fn fill<S: Socket>(socket: &S) -> usize {
    let length = if S::STREAM { 65_536 } else { 1_024 };
    let (mut sum, mut settled) = (0, false);
    loop {
        let chunk: Vec<u8> = (sum..sum + length).map(byte_at).collect();
        let write = std::pin::pin!(socket.write(&chunk));
        match poll_once(write).await {
            Poll::Ready(count) => (sum, settled) = (sum + count.unwrap(), false),
            Poll::Pending if settled => return sum,
            // The kernel moves what it has towards the reader in its own time.
            Poll::Pending => {
                mainspring::time::sleep(Duration::from_millis(20)).await;
                settled = true;
            }
        }
    }
}

/// A byte that tells its place in a long stream, so that one that is lost or doubled shows.
pub(crate) fn byte_at(place: usize) -> u8 {
    (place % 251) as u8
}

/// A path for a socket that nothing else uses. It is removed in the end.
pub(crate) struct SocketPath(pub(crate) PathBuf);

impl SocketPath {
    pub(crate) fn new() -> SocketPath {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mainspring-test-{}-{number}.socket", std::process::id());
        SocketPath(std::env::temp_dir().join(name))
    }

    /// A path of so many bytes.
    pub(crate) fn of_length(bytes: usize) -> SocketPath {
        let mut path = SocketPath::new().0.clone();
        let short = bytes.checked_sub(path.as_os_str().len()).expect("the folder for temporary files");
        path.as_mut_os_string().push("x".repeat(short));
        SocketPath(path)
    }
}

impl AsRef<std::path::Path> for SocketPath {
    fn as_ref(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
