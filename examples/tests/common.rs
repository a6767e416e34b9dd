//! What the examples' tests share: a runtime under the watchdog that the runtime's own tests have.
#![allow(dead_code, reason = "each test program uses its own part of this")]

#[path = "../../mainspring/tests/common/watchdog.rs"]
mod watchdog;

use std::future::Future;
use std::time::Duration;

use mainspring::runtime::Builder;
use watchdog::Watchdog;

/// Longer than anything takes here that is not stuck, for what must happen soon.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Runs a test's future, and the end of its runtime, under a watchdog.
#[track_caller]
pub(crate) fn run<F: Future>(future: F) -> F::Output {
    run_on(2, future)
}

/// The same on so many processors. Beside one, the body of the test is alone in running at the same time as a task.
#[track_caller]
pub(crate) fn run_on<F: Future>(processors: usize, future: F) -> F::Output {
    // The watchdog comes first, so that it outlives the runtime and watches its end.
    let watchdog = Watchdog::here();
    let runtime = Builder::new().processors(processors).build().unwrap();
    watchdog.watch(&runtime.handle());
    runtime.block_on(future)
}
