//! Choosing a runtime's size and names.

use std::any::Any;
use std::io;
use std::num::NonZeroUsize;

use super::Runtime;
use crate::base::alarm::Alarm;
use crate::base::clock::Clock;
use crate::base::tokio_context;
use crate::poll::poller::Poller;
use crate::sched::handoff::{Handoff, HandoffHook, HandoffReport};
use crate::sched::threads::OsThreads;
use crate::sched::{PanicHook, Parts, Scheduler};

/// More processors than any machine needs; it bounds what a typing error costs.
const PROCESSORS_MAX: usize = 4096;

/// Builds a [`Runtime`].
///
/// # Examples
///
/// ```
/// let runtime = mainspring::runtime::Builder::new()
///     .processors(2)
///     .thread_name("ingest")
///     .build()?;
/// assert_eq!(runtime.metrics().processors, 2);
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use = "a builder does nothing until `build` is called"]
pub struct Builder {
    processors: Option<usize>,
    max_threads: usize,
    thread_name: String,
    seed: Option<u64>,
    panic_hook: Option<PanicHook>,
    handoff: Handoff,
    handoff_hook: Option<HandoffHook>,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("processors", &self.processors)
            .field("max_threads", &self.max_threads)
            .field("thread_name", &self.thread_name)
            .finish_non_exhaustive()
    }
}

impl Default for Builder {
    fn default() -> Builder {
        Builder::new()
    }
}

impl Builder {
    /// The defaults: as many processors as the machine has to offer, at most 512 threads.
    pub fn new() -> Builder {
        Builder {
            processors: None,
            max_threads: 512,
            thread_name: "mainspring".to_owned(),
            seed: None,
            panic_hook: None,
            handoff: Handoff::default(),
            handoff_hook: None,
        }
    }

    /// How many tasks run at once. The default is the parallelism that the machine has to offer.
    pub fn processors(mut self, count: usize) -> Builder {
        self.processors = Some(count);
        self
    }

    /// Bound on the threads: those that run tasks, those that are blocked in one, and those that run functions of
    /// [`spawn_blocking`](crate::spawn_blocking), which leave one for each processor. 512 by default, and at least
    /// one more than there are processors. At the bound, or if the operating system gives no thread, blocked
    /// threads keep their processors, and functions wait for one another. (The monitor's thread is not counted.)
    ///
    /// If all of them are blocked, timers and sockets are looked after by the monitor, so that whoever waits for
    /// these in a `block_on` is woken: every 10 ms, or after 0.1 s where blocked threads keep the processors. A
    /// task has to wait for a thread.
    pub fn max_threads(mut self, count: usize) -> Builder {
        self.max_threads = count;
        self
    }

    /// What the names of the runtime's threads begin with: "mainspring" by default. (Linux shows the
    /// first 15 bytes.)
    pub fn thread_name(mut self, name: impl Into<String>) -> Builder {
        self.thread_name = name.into();
        self
    }

    /// The seed of the scheduler's random choices: where a search for work begins. A random one by default.
    pub fn seed(mut self, seed: u64) -> Builder {
        self.seed = Some(seed);
        self
    }

    /// A function that is called with what a task or a timer function panicked with, on the thread where
    /// that happened, with nothing locked. The panic also goes to std's panic hook, and a task's to who joins it.
    pub fn panic_hook(mut self, hook: impl Fn(&(dyn Any + Send)) + Send + Sync + 'static) -> Builder {
        self.panic_hook = Some(Box::new(hook));
        self
    }

    /// When the processor of a thread that is stuck in a task goes to another thread; [`Handoff::off`] for never.
    pub fn handoff(mut self, handoff: Handoff) -> Builder {
        self.handoff = handoff;
        self
    }

    /// A function that is told of each hand-off: which task, spawned where, has blocked its thread, and for how long.
    /// That finds the code that blocks. It is called on a worker, with nothing locked, once when the processor is
    /// taken and once more, with the whole duration, when the poll has returned.
    ///
    /// With the feature `tracing` the same is told as events of the target `mainspring::handoff`.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = mainspring::runtime::Builder::new()
    ///     .handoff_hook(|report| eprintln!("{report}"))
    ///     .build()?;
    /// # drop(runtime);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn handoff_hook(mut self, hook: impl Fn(&HandoffReport) + Send + Sync + 'static) -> Builder {
        self.handoff_hook = Some(Box::new(hook));
        self
    }

    /// Builds the runtime and starts its first threads: one worker and the monitor.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for no processors or no threads, or a thread name with a zero byte. Otherwise what the
    /// operating system says when it gives no thread, no epoll instance, no eventfd or no timerfd.
    pub fn build(self) -> io::Result<Runtime> {
        let invalid = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, what.to_owned()));
        let processors = match self.processors {
            None => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            Some(0) => return invalid("a runtime needs at least one processor"),
            Some(count) if count > PROCESSORS_MAX => return invalid("more than 4096 processors"),
            Some(count) => count,
        };
        if self.max_threads == 0 {
            return invalid("a runtime needs at least one thread");
        }
        if self.thread_name.contains('\0') {
            return invalid("a zero byte in the thread name");
        }
        tokio_context::start()?;
        let scheduler = Scheduler::new(Parts {
            processors,
            threads_max: self.max_threads.max(processors + 1),
            thread_name: self.thread_name,
            panic_hook: self.panic_hook,
            handoff: self.handoff,
            handoff_hook: self.handoff_hook,
            clock: Clock::Real,
            seed: self.seed.unwrap_or_else(random_seed),
            spawner: Box::new(OsThreads),
            poller: Poller::new()?,
            alarm: Alarm::new()?,
        });
        scheduler.start()?;
        Ok(Runtime::new(scheduler))
    }
}

/// A number that differs from run to run, from the keys of std's hash maps.
fn random_seed() -> u64 {
    use std::hash::BuildHasher;
    std::hash::RandomState::new().hash_one(0_u64)
}
