//! The list of live tasks, so that shutdown reaches every one of them, also those that nobody will
//! ever wake.
//!
//! Invariant: a task is listed from before it is first queued until it has ended. After `close`
//! nothing can be added.

use std::sync::Arc;

use super::{Id, Task};
use crate::base::rank::{Rank, RankedMutex};
use crate::base::slab::{Key, Slab};

/// Where a task stands in the list: the key within the shard that its id chooses, and the shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Registration {
    key: Key,
}

impl Registration {
    pub(super) fn to_u64(self) -> u64 {
        self.key.to_u64()
    }

    pub(super) fn from_u64(word: u64) -> Registration {
        Registration { key: Key::from_u64(word) }
    }
}

pub(crate) struct Registry {
    /// A power of two of them, so that spawning threads seldom meet.
    shards: Box<[RankedMutex<Shard>]>,
}

struct Shard {
    tasks: Slab<Arc<dyn Task>>,
    closed: bool,
}

impl Registry {
    pub(crate) fn new(shards: usize) -> Registry {
        let shard = || RankedMutex::new(Rank::Registry, Shard { tasks: Slab::new(), closed: false });
        Registry { shards: (0..shards.next_power_of_two()).map(|_| shard()).collect() }
    }

    fn shard(&self, id: Id) -> &RankedMutex<Shard> {
        &self.shards[id.as_u64() as usize & (self.shards.len() - 1)]
    }

    /// Lists a task; `None` if the runtime has shut down.
    pub(crate) fn insert(&self, task: Arc<dyn Task>) -> Option<Registration> {
        let mut shard = self.shard(task.id()).lock();
        if shard.closed {
            drop(shard);
            return None;
        }
        let key = shard.tasks.insert(task);
        Some(Registration { key })
    }

    /// Takes a task that has ended out of the list. It is given back because dropping the last
    /// reference drops what is the user's.
    #[must_use]
    pub(crate) fn remove(&self, id: Id, registration: Registration) -> Option<Arc<dyn Task>> {
        self.shard(id).lock().tasks.remove(registration.key)
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().tasks.len()).sum()
    }

    /// Lets no task in any more, and gives those that are listed. They stay listed until they end.
    pub(crate) fn close(&self) -> Vec<Arc<dyn Task>> {
        let mut tasks = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.closed = true;
            tasks.extend(shard.tasks.iter().cloned());
        }
        tasks
    }
}
