//! What users say about the hand-off of processors, and what they are told of it. Plain values.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::sched::task;

/// When the processor of a thread that is stuck in a task is given to another thread.
///
/// A task that blocks its thread (in a lock, a system call, a long computation) would delay whatever else is queued on
/// its processor, and whatever timer or socket nobody attends to meanwhile. A monitor sees that, and gives the processor
/// to another thread; the task goes on on its own. What is *not* rescued is what runs in the same task: the other
/// branches of its `join!` or `select!`, and the rest of a `block_on`. Nor are wakers that are called in the same batch as
/// one that blocks.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainspring::runtime::{Builder, Handoff};
///
/// let handoff = Handoff::default().on_cpu_after(Duration::from_millis(20));
/// let runtime = Builder::new().handoff(handoff).build()?;
/// # drop(runtime);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use = "it is for `Builder::handoff`"]
pub struct Handoff {
    pub(crate) enabled: bool,
    pub(crate) asleep_after: Duration,
    pub(crate) on_cpu_after: Duration,
    pub(crate) on_cpu_threads: Option<usize>,
}

impl Default for Handoff {
    /// 20 us for a thread that sleeps, 10 ms for one that computes; both are Go's.
    fn default() -> Handoff {
        Handoff {
            enabled: true,
            asleep_after: Duration::from_micros(20),
            on_cpu_after: Duration::from_millis(10),
            on_cpu_threads: None,
        }
    }
}

impl Handoff {
    /// No processor is taken from a task, however long it blocks its thread, also not within
    /// [`blocking`](crate::blocking). (A `block_on` in a task gives its processor away all the same.)
    pub fn off() -> Handoff {
        Handoff { enabled: false, ..Handoff::default() }
    }

    /// How long a thread has to be asleep in the kernel, within one poll, before its processor is taken: 20 us by
    /// default. While every processor is at work the monitor looks each millisecond, and more often right after a
    /// hand-off, so it takes up to a millisecond longer; up to 4 ms if there was no hand-off in the last 10 s. (While a
    /// processor is idle, its thread takes what waits.)
    ///
    /// A poll that sleeps often but never for long counts as asleep once it has taken as long as one that computes may.
    pub fn asleep_after(mut self, duration: Duration) -> Handoff {
        self.asleep_after = duration;
        self
    }

    /// How long a poll may take that computes, before its processor is taken: 10 ms by default, at least half of them on
    /// the CPU. After half of it, the task is asked to yield; see [`consume_budget`](crate::task::consume_budget).
    pub fn on_cpu_after(mut self, duration: Duration) -> Handoff {
        self.on_cpu_after = duration;
        self
    }

    /// How many threads whose processor was taken because they computed may do so at a time; by default as many as there
    /// are processors. With 0, no processor is taken from a poll that computes.
    ///
    /// It does not bound what else computes beside the processors: a poll whose thread was asleep when its processor was
    /// taken, and which computes after that. It is asked to yield at its next operation.
    /// [`max_threads`](crate::runtime::Builder::max_threads) bounds all of them.
    pub fn on_cpu_threads(mut self, count: usize) -> Handoff {
        self.on_cpu_threads = Some(count);
        self
    }
}

/// Why a processor was taken from its thread.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum HandoffCause {
    /// The thread was asleep in the kernel.
    Asleep,
    /// The thread computed for too long.
    OnCpu,
    /// The thread was in [`blocking`](crate::blocking) or `block_on`.
    Declared,
}

impl fmt::Display for HandoffCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HandoffCause::Asleep => "asleep in the kernel",
            HandoffCause::OnCpu => "on the CPU",
            HandoffCause::Declared => "declared to block",
        })
    }
}

/// What is told of a hand-off; see [`Builder::handoff_hook`](crate::runtime::Builder::handoff_hook).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HandoffReport {
    /// The task that blocked its thread; `None` if it was a timer function, a waker, or a task that had ended (the
    /// destructor of its output, say).
    pub task: Option<task::Id>,
    /// The task's name, if it was given one.
    pub name: Option<Arc<str>>,
    /// Where the task was spawned.
    pub spawned_at: Option<&'static Location<'static>>,
    /// Whether the thread was asleep or computing when its processor was taken.
    pub cause: HandoffCause,
    /// For how long the thread has been in the same poll, as far as the monitor has seen.
    pub lasted: Duration,
    /// False in the report of the hand-off itself; true in the second one, after the poll has returned.
    pub returned: bool,
}

impl fmt::Display for HandoffReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.task {
            Some(id) => write!(f, "task {id}")?,
            None => f.write_str("a timer function or a waker")?,
        }
        if let Some(name) = &self.name {
            write!(f, " ({name})")?;
        }
        if let Some(place) = self.spawned_at {
            write!(f, ", spawned at {place},")?;
        }
        let verb = if self.returned { "blocked its thread for" } else { "has blocked its thread for" };
        write!(f, " {verb} {:?}, {}", self.lasted, self.cause)
    }
}
