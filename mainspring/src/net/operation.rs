//! One operation on a descriptor as a future: its name among the waiters, and its end when it is dropped.

use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::descriptor::{Descriptor, Transfer};
use crate::poll::source::{Direction, WaiterId};

#[must_use = "futures do nothing unless polled"]
pub(super) struct Operation<'a, T: AsFd, F> {
    descriptor: &'a Descriptor<T>,
    direction: Direction,
    asked: Option<usize>,
    id: Option<WaiterId>,
    call: F,
}

impl<'a, T: AsFd, R, F> Operation<'a, T, F>
where
    R: Transfer,
    F: FnMut(&T) -> io::Result<R> + Unpin,
{
    /// As [`Descriptor::poll_io`].
    pub(super) fn new(
        descriptor: &'a Descriptor<T>,
        direction: Direction,
        asked: Option<usize>,
        call: F,
    ) -> Self {
        Operation { descriptor, direction, asked, id: None, call }
    }
}

impl<T: AsFd, R, F> Future for Operation<'_, T, F>
where
    R: Transfer,
    F: FnMut(&T) -> io::Result<R> + Unpin,
{
    type Output = io::Result<R>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Operation { descriptor, direction, asked, id, call } = &mut *self;
        descriptor.poll_io(*direction, *asked, id, context, call)
    }
}

impl<T: AsFd, F> Drop for Operation<'_, T, F> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.descriptor.forget(self.direction, id);
        }
    }
}
