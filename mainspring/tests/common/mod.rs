//! What the test files share: runtimes under the watchdog, and waiting for what others do.
#![allow(dead_code, reason = "each test program uses its own part of this")]

pub(crate) mod drops;
pub(crate) mod ending;
pub(crate) mod foreign;
pub(crate) mod kinds;
pub(crate) mod sockets;
pub(crate) mod stress;
pub(crate) mod wakers;
pub(crate) mod watchdog;

use std::future::Future;
use std::thread;
use std::time::{Duration, Instant};

use mainspring::runtime::{Builder, Runtime};
use mainspring::spawn;
use mainspring::task::yield_now;
use mainspring::time::sleep;
use watchdog::Watchdog;

/// Longer than anything takes here that is not stuck, for what must happen soon.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A runtime under a watchdog, which comes first so that it outlives the runtime and watches its end.
#[track_caller]
pub(crate) fn watched(processors: usize) -> (Watchdog, Runtime) {
    let watchdog = Watchdog::here();
    let runtime = runtime(processors);
    watchdog.watch(&runtime.handle());
    (watchdog, runtime)
}

pub(crate) fn runtime(processors: usize) -> Runtime {
    Builder::new().processors(processors).build().unwrap()
}

/// Runs a future, and the end of its runtime, under a watchdog.
#[track_caller]
pub(crate) fn run<F: Future>(processors: usize, future: F) -> F::Output {
    let (_watchdog, runtime) = watched(processors);
    runtime.block_on(future)
}

/// Runs a test's future on runtimes of one and of two processors.
#[track_caller]
pub(crate) fn check<F: Future<Output = ()>>(test: impl Fn() -> F) {
    for processors in [1, 2] {
        run(processors, test());
    }
}

/// Waits until `condition` holds, for what another thread does in its own time.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < SOON, "{what}: not within {SOON:?}");
        thread::sleep(Duration::from_micros(100));
    }
}

/// Gives 7, for which it needs a worker, a timer and another task.
pub(crate) async fn work() -> u32 {
    sleep(Duration::from_micros(100)).await;
    spawn(async {
        yield_now().await;
        7
    })
    .await
    .unwrap()
}

/// As [`eventually`], in a task.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < SOON);
        sleep(Duration::from_micros(100)).await;
    }
}
