//! Giving the others their turn.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Lets every other task that is ready on this processor run first.
///
/// # Cancel safety
///
/// Nothing can be lost.
///
/// # Examples
///
/// ```
/// # mainspring::block_on(async {
/// for chunk in [1, 2, 3] {
///     // ... a part of a long computation ...
///     # let _ = chunk;
///     mainspring::task::yield_now().await;
/// }
/// # });
/// ```
pub fn yield_now() -> YieldNow {
    YieldNow { yielded: false }
}

/// The future of [`yield_now`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct YieldNow {
    yielded: bool,
}

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Yields if the task has had its share: after 128 operations, its own and those of sockets and sleeps together, or
/// when the runtime has asked it to yield because it runs for long and others wait. Else it is ready at once, for
/// some nanoseconds.
///
/// For loops that compute for long, and await nothing else.
///
/// # Cancel safety
///
/// Nothing can be lost.
///
/// # Examples
///
/// ```
/// # mainspring::block_on(async {
/// let mut sum = 0_u64;
/// for chunk in (0..100_000).collect::<Vec<u64>>().chunks(1_000) {
///     sum += chunk.iter().sum::<u64>();
///     mainspring::task::consume_budget().await;
/// }
/// # assert_eq!(sum, 4_999_950_000);
/// # });
/// ```
pub async fn consume_budget() {
    if !crate::sched::current::spend_budget() {
        yield_now().await;
    }
}
