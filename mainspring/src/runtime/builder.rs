//! Choosing a runtime's size and names.

use std::any::Any;
use std::io;
use std::num::NonZeroUsize;

use super::Runtime;
use crate::base::clock::Clock;
use crate::poll::poller::Poller;
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
    /// The defaults: as many processors as the machine has to offer, at most 512 threads of each kind.
    pub fn new() -> Builder {
        Builder {
            processors: None,
            max_threads: 512,
            thread_name: "mainspring".to_owned(),
            seed: None,
            panic_hook: None,
        }
    }

    /// How many tasks run at once. The default is the parallelism that the machine has to offer.
    pub fn processors(mut self, count: usize) -> Builder {
        self.processors = Some(count);
        self
    }

    /// Bound on the worker threads, and on the threads of the blocking pool. The default is 512 for
    /// each. It is not lower than the number of processors.
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

    /// Builds the runtime and starts its first threads: one worker and the monitor.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for no processors or no threads, or a thread name with a zero byte. Otherwise what the
    /// operating system says when it gives no thread, no epoll instance or no eventfd.
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
        let scheduler = Scheduler::new(Parts {
            processors,
            threads_max: self.max_threads.max(processors),
            thread_name: self.thread_name,
            panic_hook: self.panic_hook,
            clock: Clock::Real,
            seed: self.seed.unwrap_or_else(random_seed),
            spawner: Box::new(OsThreads),
            poller: Poller::new()?,
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
