//! What the tests of sockets share: a runtime under a watchdog, pairs of streams, looking at a future once.
#![allow(dead_code, reason = "each test program uses its own part of it")]

use std::future::Future;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use mainspring::net::{TcpListener, TcpStream};
use mainspring::runtime::{Builder, Handle, Runtime};

/// After this long a test hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longer than anything takes here that is not stuck, for what must happen soon.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Ends the process, and says what the runtime was doing, if it is not dropped in time.
pub(crate) struct Watchdog {
    _alive: Sender<()>,
}

impl Watchdog {
    pub(crate) fn new(handle: Handle) -> Watchdog {
        let name = thread::current().name().unwrap_or("a test").to_owned();
        let (alive, watched) = channel();
        thread::spawn(move || watch(&watched, &name, handle));
        Watchdog { _alive: alive }
    }
}

fn watch(watched: &Receiver<()>, name: &str, handle: Handle) {
    if watched.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
        return;
    }
    // Not by `eprintln`, which the test harness keeps for the end that does not come.
    let _ = writeln!(io::stderr(), "{name} hangs");
    // On a thread of its own: if a lock is what hangs, this does too.
    thread::spawn(move || writeln!(io::stderr(), "{handle:#?}\n{:#?}", handle.metrics()));
    thread::sleep(Duration::from_secs(2));
    std::process::abort();
}

pub(crate) fn runtime(processors: usize) -> (Runtime, Watchdog) {
    let runtime = Builder::new().processors(processors).build().unwrap();
    let watchdog = Watchdog::new(runtime.handle());
    (runtime, watchdog)
}

/// Runs a future, and the end of its runtime, under a watchdog.
pub(crate) fn run<F: Future>(processors: usize, future: F) -> F::Output {
    let (runtime, _watchdog) = runtime(processors);
    let output = runtime.block_on(future);
    drop(runtime);
    output
}

/// Two ends of one connection.
pub(crate) async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (client, server)
}

/// Polls a future once.
pub(crate) async fn poll_once<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

pub(crate) fn is_timeout<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::TimedOut)
}

/// Waits until `condition` holds, for what another thread does in its own time.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < SOON, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Somebody else's executor: the least one.
pub(crate) fn foreign_block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        thread::park();
    }
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
