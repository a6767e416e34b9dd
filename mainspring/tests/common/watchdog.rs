//! The watchdog: it shows the state of the runtimes when a test hangs, and hears panics that no test may have.

use std::cell::Cell;
use std::io::Write;
use std::panic::{Location, PanicHookInfo};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mainspring::runtime::Handle;

/// How long one step of a test may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// What planted panics begin with. Every other panic with a message on a thread that is not a test's own
/// fails the test; one with a payload that is no text is always planted.
pub(crate) const EXPECTED: &str = "expected:";

/// Aborts the process, with the state of the watched runtimes, when a step takes too long. At its
/// end the test fails if any thread has panicked with what was not expected.
#[must_use]
pub(crate) struct Watchdog {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    step: String,
    until: Instant,
    watched: Vec<Handle>,
    done: bool,
}

impl Watchdog {
    pub(crate) fn new(step: impl Into<String>) -> Watchdog {
        listen_for_panics();
        IS_TEST.set(true);
        let state =
            State { step: step.into(), until: Instant::now() + PATIENCE, watched: Vec::new(), done: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.watch()
        });
        Watchdog { shared }
    }

    /// Names itself after the thread, which has the name of the test, and the place of the call.
    #[track_caller]
    pub(crate) fn here() -> Watchdog {
        let thread = thread::current();
        Watchdog::new(format!("{}, {}", thread.name().unwrap_or("a test"), Location::caller()))
    }

    /// Begins a step, which has all the time again, and forgets what was watched.
    pub(crate) fn step(&self, step: impl Into<String>) {
        let mut state = self.shared.lock();
        state.step = step.into();
        state.until = Instant::now() + PATIENCE;
        state.watched.clear();
    }

    /// Shows this runtime if the present step hangs.
    pub(crate) fn watch(&self, handle: &Handle) {
        self.shared.lock().watched.push(handle.clone());
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.lock().done = true;
        self.shared.changed.notify_all();
        if !thread::panicking() {
            assert_no_unexpected_panic();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self) {
        let mut state = self.lock();
        while !state.done {
            let left = state.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                say(&format!("HUNG for {PATIENCE:?}: {}", state.step));
                let watched = std::mem::take(&mut state.watched);
                drop(state);
                // A lock that is never released would keep the report waiting as well.
                thread::spawn(|| {
                    thread::sleep(Duration::from_secs(5));
                    say("the report hangs too");
                    std::process::abort();
                });
                unexpected().iter().for_each(|panic| say(panic));
                watched.iter().for_each(|handle| say(&format!("{handle:#?}\n{:#?}", handle.metrics())));
                std::process::abort();
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Past the capture of the test harness, which shows nothing of a process that aborts.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

thread_local! {
    /// A test's own thread: its panic fails the test by itself.
    static IS_TEST: Cell<bool> = const { Cell::new(false) };
}

fn unexpected() -> MutexGuard<'static, Vec<String>> {
    static UNEXPECTED: Mutex<Vec<String>> = Mutex::new(Vec::new());
    UNEXPECTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes each panic that was not planted, on whatever thread: the runtime catches those of tasks, wakers
/// and timer functions, and a thread of its own that panics ends in silence.
fn listen_for_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if message(info).starts_with(EXPECTED) {
                return;
            }
            if !IS_TEST.get() {
                let note = format!("{info}");
                unexpected().push(note);
            }
            default(info);
        }));
    });
}

fn message<'a>(info: &'a PanicHookInfo<'_>) -> &'a str {
    info.payload_as_str().unwrap_or(EXPECTED)
}

fn assert_no_unexpected_panic() {
    let unexpected = unexpected().clone();
    assert!(unexpected.is_empty(), "a thread has panicked:\n{}", unexpected.join("\n"));
}
