//! What several test files need: a watchdog, runtimes of a given size, values that count their drops,
//! and an executor that is not ours.
#![allow(dead_code, reason = "each test file uses its own part of this")]
#![allow(unreachable_pub, reason = "a module of every test file, public to it")]

use std::future::Future;
use std::panic::Location;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use mainspring::runtime::{Builder, Runtime};

/// Longer than any wait in these tests takes, on however busy a machine.
pub const LONG: Duration = Duration::from_secs(20);

/// Ends the process with a message unless it is dropped within a minute.
#[must_use]
pub struct Watchdog {
    _alive: Sender<()>,
}

#[track_caller]
pub fn watchdog() -> Watchdog {
    let (alive, dropped) = channel();
    let caller = Location::caller();
    std::thread::spawn(move || {
        if dropped.recv_timeout(Duration::from_secs(60)) == Err(RecvTimeoutError::Timeout) {
            eprintln!("the test at {caller} hangs");
            std::process::abort();
        }
    });
    Watchdog { _alive: alive }
}

pub fn runtime(processors: usize) -> Runtime {
    Builder::new().processors(processors).build().unwrap()
}

/// Runs a test's future on runtimes of one and of two processors.
#[track_caller]
pub fn check<F: Future<Output = ()>>(test: impl Fn() -> F) {
    let _watchdog = watchdog();
    for processors in [1, 2] {
        runtime(processors).block_on(test());
    }
}

/// Runs a future on this thread, by an executor that knows nothing of mainspring.
pub fn foreign_block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park();
    }
}

/// Waits, not for long, until `condition` holds.
#[track_caller]
pub fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LONG, "{what}: not within {LONG:?}");
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// A count that threads share.
#[derive(Clone, Default)]
pub struct Count(Arc<AtomicUsize>);

impl Count {
    pub fn new() -> Count {
        Count::default()
    }

    pub fn add(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub fn subtract(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }

    pub fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// A value that adds one when it is dropped.
    pub fn on_drop(&self) -> OnDrop<impl FnMut() + Send + use<>> {
        let count = self.clone();
        on_drop(move || {
            count.add();
        })
    }
}

/// Calls a function when it is dropped.
pub struct OnDrop<F: FnMut()>(F);

pub fn on_drop<F: FnMut()>(f: F) -> OnDrop<F> {
    OnDrop(f)
}

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
