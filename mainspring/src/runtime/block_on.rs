//! Running a future on the calling thread, which sleeps while the future waits.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crate::base::park::Parker;
use crate::base::rank::assert_unlocked;
use crate::base::tokio_context;
use crate::sched::handoff::{declare_blocking, release_processor};
use crate::sched::{Scheduler, current};

struct Unpark(Parker);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls `future` to its end. On a worker, whose processor would stand still meanwhile, the processor goes to
/// another worker before the thread sleeps.
pub(super) fn block_on<F: Future>(scheduler: &Arc<Scheduler>, future: F) -> F::Output {
    assert_unlocked("block on a future");
    let _declared = declare_blocking();
    let _tokio = tokio_context::enter();
    let unpark = Arc::new(Unpark(Parker::new()));
    let waker = Waker::from(Arc::clone(&unpark));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    let _entered = current::enter(Arc::clone(scheduler));
    let mut has_processor = true;
    loop {
        current::refill_budget();
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        if std::mem::take(&mut has_processor) {
            release_processor();
        }
        unpark.0.park();
    }
}
