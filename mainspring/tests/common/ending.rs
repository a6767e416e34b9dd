//! What the tests of a runtime's end share: values that are counted while they live, and waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mainspring::runtime::Runtime;
use mainspring::task::yield_now;

use super::runtime;
use super::watchdog::Watchdog;

/// What no end of a runtime takes, on the busiest machine; the bound that the documentation implies is
/// much lower.
pub(crate) const LONG: Duration = Duration::from_secs(2);

/// How many tokens there are.
#[derive(Clone, Default)]
pub(crate) struct Tally(Arc<AtomicUsize>);

impl Tally {
    pub(crate) fn token(&self) -> Token {
        self.0.fetch_add(1, Ordering::SeqCst);
        Token(self.clone())
    }

    pub(crate) fn alive(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Waits for the last one, which may be dropped by a thread that nobody waits for.
    #[track_caller]
    pub(crate) fn assert_all_dropped(&self) {
        wait_until(|| self.alive() == 0, || format!("{} values are left", self.alive()));
    }
}

/// A value that is counted while it lives.
pub(crate) struct Token(Tally);

impl Token {
    /// Uses it, so that a closure or a future owns it whole.
    pub(crate) fn hold(&self) {}
}

impl Drop for Token {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[track_caller]
pub(crate) fn wait_until(condition: impl Fn() -> bool, what: impl Fn() -> String) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "{}", what());
        thread::sleep(Duration::from_millis(1));
    }
}

/// Runs `test` on runtimes with one and with three processors, watched over.
pub(crate) fn on_runtimes(name: &str, test: impl Fn(Runtime)) {
    let watchdog = Watchdog::new(name);
    for processors in [1, 3] {
        watchdog.step(format!("{name}, {processors} processors"));
        let runtime = runtime(processors);
        watchdog.watch(&runtime.handle());
        test(runtime);
    }
}

/// Waits until a task has been polled and is pending for good.
pub(crate) fn settle(runtime: &Runtime) {
    for _ in 0..3 {
        runtime.block_on(async { mainspring::spawn(yield_now()).await.unwrap() });
    }
}
