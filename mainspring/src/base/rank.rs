//! Locks with ranks, and the check of the rule: *no runtime lock is held while user code runs*.
//!
//! Every lock of the runtime is a [`RankedMutex`], and [`Rank`] lists them outer first: while one is
//! held, only locks of a greater rank may be taken, and none of the same. In builds with debug
//! assertions each thread keeps a list of what it holds; taking a lock out of order, or coming to
//! user code ([`assert_unlocked`]) with any lock held, panics and names both locks and where each was
//! taken. One pass through a wrong path is enough to see it, without the race that it would need to
//! deadlock (the method of Go's `lockrank.go`). In release builds it is a plain mutex.
//!
//! Poisoning is ignored: no user code runs under a lock, so a panic under one is a bug of ours that
//! the panic itself has already reported.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;

use super::primitive::{Mutex, MutexGuard};

/// The order of all locks of the runtime, outer first.
///
/// ```text
/// Turns < Side                                 whose turn it is decides on deadlines, in one step
/// Descriptors < Side < Function < Core < Seat  a side and a timer function arm timers under their lock
/// Registry, Idle, Global, Blocking, Threads   leaves: nothing is taken under them but Parker
/// Join, Wakers, Events, Lookups, Parker       leaves
/// Connections, Rate, Context                  leaves, of the adapters
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(crate) enum Rank {
    /// Whose turn it is on a connection of a server.
    #[cfg(feature = "hyper")]
    Turns,
    /// The table of the poller's descriptors.
    Descriptors,
    /// One direction of a descriptor: its waiters and its deadline.
    Side,
    /// The state of one timer function.
    Function,
    /// A processor's data: run queue, timers, counters.
    Core,
    /// What is to be reported when a worker comes back.
    Seat,
    /// One shard of the list of live tasks.
    Registry,
    /// Which processors and workers are idle.
    Idle,
    /// The global run queue.
    Global,
    /// The queue and the counts of the blocking pool.
    Blocking,
    /// The state of threads: how many there are and who waits for them to end.
    Threads,
    /// A task's output and who waits for it.
    Join,
    /// Wakers that a worker is to call.
    Wakers,
    /// The poller's spare buffer.
    Events,
    /// Who waits to look up a name.
    Lookups,
    /// The lock below a condition variable of a [`Parker`](super::park::Parker).
    Parker,
    /// The connections of a server.
    #[cfg(feature = "hyper")]
    Connections,
    /// The calls that a rate limit has let through.
    #[cfg(feature = "tower")]
    Rate,
    /// Whether tokio's side thread has been started.
    #[cfg(all(feature = "tokio-compat", not(mainspring_loom)))]
    Context,
}

/// A mutex with a place in the order of all locks.
pub(crate) struct RankedMutex<T> {
    #[cfg(debug_assertions)]
    rank: Rank,
    inner: Mutex<T>,
}

impl<T> RankedMutex<T> {
    pub(crate) fn new(rank: Rank, value: T) -> RankedMutex<T> {
        let _ = rank;
        RankedMutex {
            #[cfg(debug_assertions)]
            rank,
            inner: Mutex::new(value),
        }
    }

    #[cfg_attr(debug_assertions, track_caller)]
    pub(crate) fn lock(&self) -> RankedGuard<'_, T> {
        #[cfg(debug_assertions)]
        let held = held::Entry::push(self.rank);
        let guard = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        RankedGuard {
            guard,
            #[cfg(debug_assertions)]
            _held: held,
        }
    }
}

impl<T> fmt::Debug for RankedMutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RankedMutex").finish_non_exhaustive()
    }
}

/// Holding one proves that the lock is held.
pub(crate) struct RankedGuard<'a, T> {
    guard: MutexGuard<'a, T>,
    #[cfg(debug_assertions)]
    _held: held::Entry,
}

impl<'a, T> RankedGuard<'a, T> {
    /// Gives up the lock for the time of `wait`, which gets the plain guard and returns it; for
    /// condition variables.
    pub(crate) fn wait_with(
        self,
        wait: impl FnOnce(MutexGuard<'a, T>) -> MutexGuard<'a, T>,
    ) -> RankedGuard<'a, T> {
        RankedGuard {
            guard: wait(self.guard),
            #[cfg(debug_assertions)]
            _held: self._held,
        }
    }
}

impl<T> Deref for RankedGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for RankedGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// The gate to user code: whoever is about to poll a task, call a waker or a timer function, or drop a
/// user's value calls this first. `what` says what is about to run.
///
/// # Panics
///
/// In builds with debug assertions, if this thread holds a lock of the runtime.
#[cfg_attr(debug_assertions, track_caller)]
#[inline]
pub(crate) fn assert_unlocked(what: &str) {
    #[cfg(debug_assertions)]
    held::assert_none(what);
    #[cfg(not(debug_assertions))]
    let _ = what;
}

#[cfg(debug_assertions)]
mod held {
    use std::cell::Cell;
    use std::panic::Location;

    use super::Rank;

    /// More locks than any path holds at once.
    const DEPTH_MAX: usize = 8;

    type Slot = Option<(Rank, &'static Location<'static>)>;

    // The model checker runs its threads by turns on one of the system's, so it needs its own kind.
    #[cfg(mainspring_loom)]
    loom::thread_local! {
        static HELD: [Cell<Slot>; DEPTH_MAX] = [const { Cell::new(None) }; DEPTH_MAX];
    }

    #[cfg(not(mainspring_loom))]
    thread_local! {
        /// What this thread holds. Plain cells without a destructor, so that locks work while the
        /// thread's other values are being destroyed.
        static HELD: [Cell<Slot>; DEPTH_MAX] = const { [const { Cell::new(None) }; DEPTH_MAX] };
    }

    /// One line of the list of locks held; dropping it takes the line out.
    pub(super) struct Entry {
        index: usize,
    }

    impl Entry {
        /// Called before the lock is taken, so that an inversion is reported instead of deadlocking.
        #[track_caller]
        pub(super) fn push(rank: Rank) -> Entry {
            let here = Location::caller();
            HELD.with(|held| {
                let highest = held.iter().filter_map(Cell::get).max_by_key(|(rank, _)| *rank);
                if let Some((other, there)) = highest
                    && other >= rank
                {
                    panic!(
                        "lock order: {rank:?} is taken at {here} while {other:?}, taken at {there}, is held"
                    );
                }
                let Some(index) = held.iter().position(|slot| slot.get().is_none()) else {
                    panic!("lock order: more than {DEPTH_MAX} locks held at {here}");
                };
                held[index].set(Some((rank, here)));
                Entry { index }
            })
        }
    }

    impl Drop for Entry {
        fn drop(&mut self) {
            HELD.with(|held| held[self.index].set(None));
        }
    }

    #[track_caller]
    pub(super) fn assert_none(what: &str) {
        let here = Location::caller();
        HELD.with(|held| {
            if let Some((rank, there)) = held.iter().find_map(Cell::get) {
                panic!("lock held over user code: about to {what} at {here} while {rank:?}, taken at {there}, is held");
            }
        });
    }
}

#[cfg(all(test, debug_assertions, not(mainspring_loom)))]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn message(f: impl FnOnce()) -> String {
        let panic = catch_unwind(AssertUnwindSafe(f)).expect_err("it must panic");
        panic.downcast_ref::<String>().expect("a formatted message").clone()
    }

    #[test]
    fn locks_in_order_pass() {
        let outer = RankedMutex::new(Rank::Side, 1);
        let inner = RankedMutex::new(Rank::Core, 2);
        let outer = outer.lock();
        let inner = inner.lock();
        assert_eq!(*outer + *inner, 3);
        drop(outer);
        drop(inner);
        assert_unlocked("do anything");
    }

    #[test]
    fn an_inversion_panics_and_names_both_locks_and_places() {
        let outer = RankedMutex::new(Rank::Side, ());
        let inner = RankedMutex::new(Rank::Core, ());
        let message = message(|| {
            let _inner = inner.lock();
            let _outer = outer.lock();
        });
        assert!(message.contains("Side is taken at"), "{message}");
        assert!(message.contains("while Core, taken at"), "{message}");
        assert_eq!(message.matches("rank.rs:").count(), 2, "{message}");
        assert_unlocked("go on after the panic");
    }

    #[test]
    fn two_locks_of_one_rank_are_never_held_together() {
        let one = RankedMutex::new(Rank::Core, ());
        let other = RankedMutex::new(Rank::Core, ());
        let message = message(|| {
            let _one = one.lock();
            let _other = other.lock();
        });
        assert!(message.contains("Core is taken at"), "{message}");
    }

    #[test]
    fn user_code_under_a_lock_panics_and_names_the_lock() {
        let lock = RankedMutex::new(Rank::Global, ());
        let message = message(|| {
            let _guard = lock.lock();
            assert_unlocked("poll a task");
        });
        assert!(message.contains("about to poll a task at"), "{message}");
        assert!(message.contains("while Global, taken at"), "{message}");
    }

    #[test]
    fn an_order_that_is_wrong_after_an_out_of_order_release_is_still_seen() {
        let a = RankedMutex::new(Rank::Descriptors, ());
        let b = RankedMutex::new(Rank::Side, ());
        let c = RankedMutex::new(Rank::Core, ());
        let message = message(|| {
            let a = a.lock();
            let _c = c.lock();
            drop(a);
            let _b = b.lock();
        });
        assert!(message.contains("Side is taken at"), "{message}");
    }
}
