//! A name for a task, kept beside its scheduler.
//!
//! Knows nothing of what names are for. They are in the type of a task's scheduler, so a task that was spawned
//! without a [`Builder`](crate::task::Builder) spends no byte on one.

use std::any::Any;
use std::sync::Arc;

use super::{Id, Registration, Schedule, TaskRef};

/// A scheduler, and what a task of it is called, if anything.
pub(crate) struct Named<S> {
    scheduler: S,
    name: Option<Arc<str>>,
}

impl<S: Schedule> Named<S> {
    pub(crate) fn new(scheduler: S, name: Option<Arc<str>>) -> Named<S> {
        Named { scheduler, name }
    }
}

impl<S: Schedule> Schedule for Named<S> {
    fn schedule(&self, task: TaskRef) {
        self.scheduler.schedule(task);
    }

    fn finished(&self, id: Id, registration: Registration) {
        self.scheduler.finished(id, registration);
    }

    fn panicked(&self, payload: &(dyn Any + Send)) {
        self.scheduler.panicked(payload);
    }

    fn name(&self) -> Option<&Arc<str>> {
        self.name.as_ref()
    }
}
