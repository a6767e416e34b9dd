//! Threads that are held until somebody lets them go; what the tests of hand-offs share. It knows of time only that
//! it passes: what holds a thread ends when a gate opens, and in no other way.
#![allow(dead_code, reason = "each test program uses its own part of this")]

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use mainspring::runtime::{Builder, Runtime};
use mainspring::task::yield_now;

use crate::common::drops::Count;
use crate::common::watchdog::Watchdog;

/// How a task holds the thread that it runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// Sleeps again and again.
    Nap,
    /// Receives from a channel.
    Channel,
    /// Waits for a condition variable.
    Condition,
    /// Locks a mutex that another thread has locked.
    Lock,
    /// Reads from a pipe.
    Pipe,
    /// Receives from a channel, and says so.
    Declared,
    /// Computes.
    Spin,
}

/// The ways in which a thread is asleep in the kernel, undeclared.
pub(crate) const ASLEEP: [Way; 5] = [Way::Nap, Way::Channel, Way::Condition, Way::Lock, Way::Pipe];

/// One way of each kind.
pub(crate) const KINDS: [Way; 3] = [Way::Channel, Way::Declared, Way::Spin];

/// Holds the calling thread until the gate opens.
pub(crate) type Hold = Box<dyn FnOnce() + Send>;

/// Opens when it is dropped, so that no thread is left behind by a test that fails.
pub(crate) struct Gate(Option<Hold>);

impl Gate {
    fn new(open: impl FnOnce() + Send + 'static) -> Gate {
        Gate(Some(Box::new(open)))
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if let Some(open) = self.0.take() {
            open();
        }
    }
}

impl Way {
    /// A gate, and what holds a thread until it opens.
    pub(crate) fn gate(self) -> (Gate, Hold) {
        match self {
            Way::Nap => {
                let (open, is_open) = flag();
                let hold = move || {
                    while !is_open() {
                        thread::sleep(Duration::from_millis(5));
                    }
                };
                (Gate::new(open), Box::new(hold))
            }
            Way::Spin => {
                let (open, is_open) = flag();
                let hold = move || {
                    while !is_open() {
                        std::hint::spin_loop();
                    }
                };
                (Gate::new(open), Box::new(hold))
            }
            Way::Channel => {
                let (sender, receiver) = mpsc::channel();
                (Gate::new(move || sender.send(()).unwrap_or(())), Box::new(move || receiver.recv().unwrap()))
            }
            Way::Declared => {
                let (gate, hold) = Way::Channel.gate();
                (gate, Box::new(move || mainspring::blocking(hold)))
            }
            Way::Condition => {
                let pair = Arc::new((Mutex::new(false), Condvar::new()));
                let other = Arc::clone(&pair);
                let open = move || {
                    *other.0.lock().unwrap() = true;
                    other.1.notify_all();
                };
                let hold = move || {
                    let closed = pair.1.wait_while(pair.0.lock().unwrap(), |open| !*open);
                    drop(closed.unwrap());
                };
                (Gate::new(open), Box::new(hold))
            }
            Way::Lock => lock(),
            Way::Pipe => {
                let (mut reader, mut writer) = std::io::pipe().unwrap();
                let hold = move || reader.read_exact(&mut [0]).unwrap();
                (Gate::new(move || writer.write_all(&[0]).unwrap_or(())), Box::new(hold))
            }
        }
    }
}

fn flag() -> (impl FnOnce() + Send + 'static, impl Fn() -> bool + Send + 'static) {
    let open = Arc::new(AtomicBool::new(false));
    let other = Arc::clone(&open);
    (move || other.store(true, Ordering::SeqCst), move || open.load(Ordering::SeqCst))
}

/// A thread beside has locked the mutex, and keeps it until it hears something.
fn lock() -> (Gate, Hold) {
    let mutex = Arc::new(Mutex::new(()));
    let (locked, is_locked) = mpsc::channel();
    let (open, opened) = mpsc::channel::<()>();
    let owned = Arc::clone(&mutex);
    thread::spawn(move || {
        let guard = owned.lock().unwrap();
        locked.send(()).unwrap();
        let _ = opened.recv();
        drop(guard);
    });
    is_locked.recv().unwrap();
    (Gate::new(move || open.send(()).unwrap_or(())), Box::new(move || drop(mutex.lock().unwrap())))
}

/// Threads that are to be held at the same time, and are let go together.
#[derive(Clone)]
pub(crate) struct Crew {
    held: Count,
    size: usize,
    gates: Arc<Mutex<Vec<Gate>>>,
}

impl Crew {
    /// A crew of `size`, and what holds the thread of each member.
    pub(crate) fn new(way: Way, size: usize) -> (Crew, Vec<Hold>) {
        let (gates, holds): (Vec<_>, Vec<_>) = (0..size).map(|_| way.gate()).unzip();
        let crew = Crew { held: Count::new(), size, gates: Arc::new(Mutex::new(gates)) };
        let counted = |hold: Hold| -> Hold {
            let held = crew.held.clone();
            Box::new(move || {
                held.add();
                hold();
            })
        };
        let holds = holds.into_iter().map(counted).collect();
        (crew, holds)
    }

    /// A crew of one.
    pub(crate) fn one(way: Way) -> (Crew, Hold) {
        let (crew, mut holds) = Crew::new(way, 1);
        (crew, holds.pop().unwrap())
    }

    /// How many have been held so far.
    pub(crate) fn held(&self) -> usize {
        self.held.get()
    }

    pub(crate) fn all_held(&self) -> bool {
        self.held() == self.size
    }

    /// Waits in a task for as long as not all are held, without a timer.
    pub(crate) async fn until_all_held(&self) {
        while !self.all_held() {
            yield_now().await;
        }
    }

    pub(crate) fn let_go(&self) {
        let gates = std::mem::take(&mut *self.gates.lock().unwrap());
        drop(gates);
    }

    /// Lets go if all are held; whether they are.
    pub(crate) fn let_go_if_all_held(&self) -> bool {
        let all_held = self.all_held();
        if all_held {
            self.let_go();
        }
        all_held
    }
}

/// Runs a test for each of the ways on runtimes of one and of two processors, watched over.
#[track_caller]
pub(crate) fn for_each_way(ways: &[Way], test: impl Fn(&Runtime, Way)) {
    let watchdog = Watchdog::here();
    for processors in [1, 2] {
        for &way in ways {
            let runtime = step(&watchdog, Builder::new().processors(processors), &format!("{way:?}"));
            test(&runtime, way);
        }
    }
}

/// Begins a step of a test, on a runtime of its own.
#[track_caller]
pub(crate) fn step(watchdog: &Watchdog, builder: Builder, what: &str) -> Runtime {
    let runtime = builder.build().unwrap();
    let name = thread::current().name().unwrap_or("a test").to_owned();
    watchdog.step(format!("{name}: {what}, {} processors", runtime.metrics().processors));
    watchdog.watch(&runtime.handle());
    runtime
}

/// How many threads the process has whose names begin like this. (Linux keeps the first 15 bytes.)
pub(crate) fn threads_named(prefix: &str) -> usize {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    // A thread may end between the two.
    let names = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with(prefix)).count()
}
