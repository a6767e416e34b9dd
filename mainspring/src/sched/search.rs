//! Looking for work at other processors: stealing tasks, firing their due timers, and taking a task
//! from the `next` slot of a worker that is stuck.
//!
//! Invariant: never two cores at once. The victim is locked, its tasks go to a buffer, it is unlocked,
//! and only then the thief's own core is locked.

use super::processor::End;
use super::worker::{Fired, Worker};

/// Turns of a spin loop before a `next` slot counts as stuck: some microseconds, in which a worker
/// that is between two polls would have come for it. Picked by feel; Go sleeps 3 us here.
const NEXT_PATIENCE_SPINS: u32 = 100;

impl Worker<'_> {
    /// Searches the other processors once; true if there is something to do now.
    pub(super) fn search(&mut self, own: usize) -> bool {
        let scheduler = self.scheduler;
        let count = scheduler.processors.len();
        if count == 1 {
            return false;
        }
        if !self.searching {
            // Half of the busy ones at most: more would only meet at the same locks.
            let busy = count - scheduler.idle.processors();
            if 2 * scheduler.idle.searching() >= busy.max(1) {
                return false;
            }
            scheduler.idle.begin_search();
            self.searching = true;
        }
        let start = self.rng.below(count);
        let others = || (0..count).map(move |n| (start + n) % count).filter(move |&other| other != own);
        for victim in others() {
            if self.steal(victim, own) {
                return true;
            }
        }
        for victim in others() {
            if self.fire(victim) != Fired::Nothing {
                return true;
            }
        }
        others().any(|victim| self.steal_next(victim, own))
    }

    fn steal(&mut self, victim: usize, own: usize) -> bool {
        let victim = &self.scheduler.processors[victim];
        if victim.queue_len() == 0 {
            return false;
        }
        let mut core = victim.lock();
        core.steal_half(&mut self.loot);
        core.counters.stolen += self.loot.len() as u64;
        drop(core);
        self.keep_loot(own, End::Back)
    }

    /// Takes the task in the `next` slot of a processor whose worker does not come for it.
    fn steal_next(&mut self, victim: usize, own: usize) -> bool {
        let victim = &self.scheduler.processors[victim];
        let polls = victim.polls();
        let core = victim.lock();
        if core.next.is_none() || core.owner.is_none() {
            return false;
        }
        drop(core);
        for _ in 0..NEXT_PATIENCE_SPINS {
            std::hint::spin_loop();
        }
        let mut core = victim.lock();
        if victim.polls() != polls || core.next.is_none() {
            return false;
        }
        core.demote_next();
        core.steal_half(&mut self.loot);
        core.counters.stolen += self.loot.len() as u64;
        drop(core);
        self.keep_loot(own, End::Back)
    }
}
