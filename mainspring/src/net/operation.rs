//! One operation on a descriptor as a future: its name among the waiters, and its end when it is dropped.
//!
//! Operations of streams are handed to users as they are, without an async function around them, as that would keep
//! its arguments twice: the tasks of idle connections consist of little else.

use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::descriptor::{Descriptor, Transfer};
use crate::poll::source::{Direction, WaiterId};

#[must_use = "futures do nothing unless polled"]
pub(crate) struct Operation<'a, T: AsFd, F> {
    descriptor: &'a Descriptor<T>,
    id: Option<WaiterId>,
    direction: Direction,
    poll: F,
}

impl<'a, T: AsFd, R, F> Operation<'a, T, F>
where
    F: FnMut(&Descriptor<T>, &mut Option<WaiterId>, &mut Context<'_>) -> Poll<R> + Unpin,
{
    /// An operation that consists of such polls. They wait in this direction only, under the name that they are given.
    pub(crate) fn of_polls(descriptor: &'a Descriptor<T>, direction: Direction, poll: F) -> Self {
        Operation { descriptor, id: None, direction, poll }
    }
}

/// One call, as [`Descriptor::poll_io`] makes it, about which nothing is known but its result.
pub(crate) fn operation<T: AsFd, R: Transfer>(
    descriptor: &Descriptor<T>,
    direction: Direction,
    mut call: impl FnMut(&T) -> io::Result<R> + Unpin,
) -> impl Future<Output = io::Result<R>> {
    Operation::of_polls(descriptor, direction, move |descriptor: &Descriptor<T>, id, context| {
        descriptor.poll_io(direction, None, id, context, &mut call)
    })
}

impl<T: AsFd, R, F> Future for Operation<'_, T, F>
where
    F: FnMut(&Descriptor<T>, &mut Option<WaiterId>, &mut Context<'_>) -> Poll<R> + Unpin,
{
    type Output = R;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<R> {
        let Operation { descriptor, id, poll, .. } = &mut *self;
        poll(descriptor, id, context)
    }
}

impl<T: AsFd, F> Drop for Operation<'_, T, F> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.descriptor.forget(self.direction, id);
        }
    }
}
