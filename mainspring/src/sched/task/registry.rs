//! The list of live tasks, so that shutdown reaches every one of them, also those that nobody will
//! ever wake.
//!
//! Invariant: a task is listed from before it is first queued until it has ended. After `close`
//! nothing can be added.

use std::sync::Arc;

use super::{Id, Identity, Task};
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

    /// Asks the task of an [`Identity`] something, if it is alive and the two numbers are of the same
    /// task. It is asked under a lock, and only what is no user code: to hold on to the task could mean to drop it.
    pub(crate) fn ask<R>(&self, identity: Identity, f: impl FnOnce(&dyn Task) -> R) -> Option<R> {
        let id = Id::from_u64(identity.id)?;
        let registration = Registration::from_u64(identity.registration);
        let shard = self.shard(id).lock();
        // A place that is used again has another key, but the numbers may come from two tasks of one shard.
        shard.tasks.get(registration.key).filter(|task| task.id() == id).map(|task| f(&**task))
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

#[cfg(all(test, not(mainspring_loom)))]
mod tests {
    use std::any::Any;
    use std::future::{Pending, pending};
    use std::panic::Location;

    use super::super::{Cell, Identity, Runnable, Schedule, TaskRef};
    use super::*;

    /// The tasks of these tests are never run.
    struct Nowhere;

    impl Schedule for Nowhere {
        fn schedule(&self, _: TaskRef) {}
        fn finished(&self, _: Id, _: Registration) {}
        fn panicked(&self, _: &(dyn Any + Send)) {}
    }

    fn listed(registry: &Registry) -> (Arc<Cell<Pending<()>, Nowhere>>, Registration) {
        let task = Cell::new(pending(), Nowhere, Location::caller());
        let registration = registry.insert(Arc::clone(&task) as _).unwrap();
        task.register(registration);
        (task, registration)
    }

    fn found(registry: &Registry, identity: Identity) -> Option<Id> {
        registry.ask(identity, |task| task.id())
    }

    #[test]
    fn a_task_is_found_by_its_identity_until_it_is_removed() {
        let registry = Registry::new(4);
        let tasks: Vec<_> = (0..20).map(|_| listed(&registry)).collect();
        for (task, _) in &tasks {
            assert_eq!(found(&registry, task.identity()), Some(task.id()));
        }
        for (task, registration) in &tasks {
            drop(registry.remove(task.id(), *registration));
            assert_eq!(found(&registry, task.identity()), None);
        }
    }

    #[test]
    fn a_place_that_is_used_again_is_not_found_by_the_identity_of_its_former_task() {
        let registry = Registry::new(1);
        let (former, registration) = listed(&registry);
        drop(registry.remove(former.id(), registration));
        let (present, again) = listed(&registry);
        assert_eq!(again.key.index(), registration.key.index());
        assert_eq!(found(&registry, former.identity()), None);
        assert_eq!(found(&registry, present.identity()), Some(present.id()));
    }

    #[test]
    fn numbers_of_two_tasks_find_neither() {
        let registry = Registry::new(1);
        let ((one, _), (other, _)) = (listed(&registry), listed(&registry));
        let mixed = Identity { id: one.identity().id, ..other.identity() };
        assert_eq!(found(&registry, mixed), None);
    }

    #[test]
    fn what_is_no_task_or_is_not_listed_yet_is_not_found() {
        let registry = Registry::new(1);
        let _listed = listed(&registry);
        assert_eq!(found(&registry, Identity::NONE), None);
        assert_eq!(
            found(&registry, Cell::new(pending::<()>(), Nowhere, Location::caller()).identity()),
            None
        );
    }
}
