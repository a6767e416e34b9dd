//! Wakers that tell what happens to them.

use std::sync::Arc;
use std::task::{Wake, Waker};

use super::drops::Count;

/// A waker that counts its wakes.
pub(crate) struct Wakes(pub(crate) Count);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.add();
    }
}

pub(crate) fn counting_waker(count: &Count) -> Waker {
    Waker::from(Arc::new(Wakes(count.clone())))
}
