//! The one place that chooses between std's and loom's synchronisation primitives.
//!
//! Everything that takes part in a protocol imports atomics, mutexes and condition variables from
//! here, so that `--cfg mainspring_loom` puts the whole protocol under the model checker. The cfg is
//! our own: the plain `loom` would switch dependencies as well. `Arc` is always std's, since wakers
//! are made of it.

#[cfg(not(mainspring_loom))]
mod real {
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, atomic};
    pub(crate) use std::thread;
}

#[cfg(mainspring_loom)]
mod real {
    pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard, atomic};
    // The model checker runs its threads by turns on one of the system's, and names them itself.
    pub(crate) use loom::thread;
}

pub(crate) use real::*;

/// A full fence between the stores before it and the loads after it.
///
/// Both sides of a sleep/wake decision need one: "publish, barrier, look for sleepers" against
/// "announce sleep, barrier, look for work". It decides who wakes whom and guards no data: data is
/// published by locks.
///
/// ThreadSanitizer does not model fences and loom takes `SeqCst` accesses for `AcqRel`, so neither
/// a fence nor a `SeqCst` access alone would serve both.
pub(crate) fn full_barrier() {
    #[cfg(mainspring_tsan)]
    {
        // ordering: a read-modify-write on one shared cell puts all barriers into one total order.
        static BARRIER: atomic::AtomicUsize = atomic::AtomicUsize::new(0);
        BARRIER.fetch_add(1, atomic::Ordering::SeqCst);
    }
    // ordering: SeqCst, pairs with every other call of this function.
    atomic::fence(atomic::Ordering::SeqCst);
}

/// A cell whose accesses loom checks against one another.
#[cfg(not(mainspring_loom))]
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(mainspring_loom))]
impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> UnsafeCell<T> {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    /// Gives the pointer to `f`; whether it may be written through is for `f` to justify.
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

#[cfg(mainspring_loom)]
pub(crate) use loom::cell::UnsafeCell;

/// Atomics that stay std's under loom: for statics, which loom's cannot be, and only for what is no
/// part of any protocol.
pub(crate) mod plain {
    pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
}
