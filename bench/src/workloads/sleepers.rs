//! Many tasks that sleep once each, and how late each of them was. To note that costs the same on every
//! peer, and little: a slot that no other task writes to, and one counter for all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::Notify;

use crate::peers::Peer;

pub(super) struct Sleepers {
    /// How late each one was, in nanoseconds.
    late: Vec<Line>,
    /// How many sleep still.
    left: Line,
    done: Notify,
}

/// A number in a cache line of its own.
#[repr(align(64))]
struct Line(AtomicU64);

impl Sleepers {
    /// There is one in a process, and it is never freed: to count its users, all tasks would have to write
    /// to one more cache line.
    pub(super) fn new(count: u64) -> &'static Sleepers {
        Box::leak(Box::new(Sleepers {
            late: (0..count).map(|_| Line(AtomicU64::new(0))).collect(),
            left: Line(AtomicU64::new(count)),
            done: Notify::new(),
        }))
    }

    /// Spawns the tasks; the n-th one sleeps until `at(n)`.
    pub(super) fn spawn<P: Peer>(&'static self, at: impl Fn(u64) -> Instant) {
        for (n, slot) in self.late.iter().enumerate() {
            drop(P::spawn(self.sleep::<P>(at(n as u64), slot)));
        }
    }

    async fn sleep<P: Peer>(&self, at: Instant, slot: &Line) {
        P::sleep_until(at).await;
        slot.0.store(at.elapsed().as_nanos() as u64, Ordering::Relaxed);
        // The last one comes after all others, so whoever sees it done sees all slots.
        if self.left.0.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }

    pub(super) fn are_done(&self) -> bool {
        self.left.0.load(Ordering::Acquire) == 0
    }

    /// Waits until all are done; for one task.
    pub(super) async fn done(&self) {
        self.done.notified().await;
    }

    /// How late each one was, in nanoseconds; once all are done.
    pub(super) fn late(&self) -> Vec<f64> {
        self.late.iter().map(|slot| slot.0.load(Ordering::Relaxed) as f64).collect()
    }
}
