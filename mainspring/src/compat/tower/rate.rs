//! A limit on how many calls come through in a time: in no interval of that length more than allowed, wherever it begins.
//!
//! The times of the last calls are kept, as many as are allowed. A clone that becomes ready holds a permit, until it is
//! called, which turns the permit into a time, or is dropped. Who finds no permit waits in a queue; only the first in it
//! has a sleep, so a thousand that wait cost one timer, and each that goes wakes the next.
//!
//! Invariants: permits that are held and calls that are younger than the period are together never more than allowed. The
//! first in the queue has been woken, or sleeps until the time at which there is a permit, or there is none before one
//! is given back. Wakers are called and dropped with nothing locked.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use tower_layer::Layer;
use tower_service::Service;

use crate::base::rank::{Rank, RankedMutex};
use crate::sched::task::{drop_user_value, wake};
use crate::time::{Duration, Instant, Sleep, sleep_until};

/// Applies [`RateLimit`] to services, a limit to each.
#[derive(Clone, Copy, Debug)]
pub struct RateLimitLayer {
    count: usize,
    period: Duration,
}

impl RateLimitLayer {
    /// At most `count` calls in each `period`.
    ///
    /// # Panics
    ///
    /// If `count` or `period` is zero.
    pub fn new(count: u64, period: Duration) -> RateLimitLayer {
        assert!(count > 0, "a rate of no calls");
        assert!(!period.is_zero(), "a rate in no time");
        RateLimitLayer { count: usize::try_from(count).unwrap_or(usize::MAX), period }
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimit<S>;

    fn layer(&self, inner: S) -> RateLimit<S> {
        let state = State { calls: VecDeque::new(), held: 0, queue: VecDeque::new(), next: 0 };
        let limit =
            Limit { count: self.count, period: self.period, state: RankedMutex::new(Rank::Rate, state) };
        RateLimit { inner, slot: Slot { limit: Arc::new(limit), at: At::Nowhere, sleep: None } }
    }
}

/// A service that becomes ready only so often: at most a number of times in any interval of a given length, not only in those
/// that follow one another. It costs 8 bytes for each call of the last period.
///
/// Clones share the limit, and wait for one another in the order in which they came. (tower's own can
/// not be cloned.)
pub struct RateLimit<S> {
    inner: S,
    slot: Slot,
}

impl<S> RateLimit<S> {
    /// At most `count` calls of `inner` in each `period`.
    ///
    /// # Panics
    ///
    /// If `count` or `period` is zero.
    pub fn new(inner: S, count: u64, period: Duration) -> RateLimit<S> {
        RateLimitLayer::new(count, period).layer(inner)
    }
}

impl<S: Clone> Clone for RateLimit<S> {
    /// Not ready yet, under the same limit.
    fn clone(&self) -> RateLimit<S> {
        let limit = Arc::clone(&self.slot.limit);
        RateLimit { inner: self.inner.clone(), slot: Slot { limit, at: At::Nowhere, sleep: None } }
    }
}

impl<S: fmt::Debug> fmt::Debug for RateLimit<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit")
            .field("inner", &self.inner)
            .field("count", &self.slot.limit.count)
            .field("period", &self.slot.limit.period)
            .finish_non_exhaustive()
    }
}

impl<S, Request> Service<Request> for RateLimit<S>
where
    S: Service<Request>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        ready!(self.slot.poll_permit(context));
        self.inner.poll_ready(context)
    }

    /// # Panics
    ///
    /// If the service was not ready.
    fn call(&mut self, request: Request) -> S::Future {
        assert!(matches!(self.slot.at, At::Permit), "`poll_ready` comes before `call`");
        self.slot.leave(true);
        self.inner.call(request)
    }
}

struct Limit {
    count: usize,
    period: Duration,
    state: RankedMutex<State>,
}

struct State {
    /// The times of the calls, oldest first, that are younger than the period, or were when somebody last looked.
    calls: VecDeque<Instant>,
    /// Permits of those that are ready.
    held: usize,
    /// Who waits, by number, in order. The waker is there unless it has been called.
    queue: VecDeque<(u64, Option<Waker>)>,
    /// The number of the next one that waits.
    next: u64,
}

/// What a clone has of the limit.
struct Slot {
    limit: Arc<Limit>,
    at: At,
    /// Of the first in the queue.
    sleep: Option<Sleep>,
}

#[derive(Clone, Copy)]
enum At {
    Nowhere,
    Queue(u64),
    Permit,
}

/// When there is a permit.
enum Free {
    Now,
    At(Instant),
    /// When one is called or given back.
    Later,
}

impl Slot {
    fn poll_permit(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if matches!(self.at, At::Permit) {
            return Poll::Ready(());
        }
        loop {
            let waker = context.waker().clone();
            let now = Instant::now();
            let mut state = self.limit.state.lock();
            let first = match (state.queue.front(), self.at) {
                (None, _) => true,
                (Some((number, _)), At::Queue(own)) => *number == own,
                (Some(_), _) => false,
            };
            let free = if first { state.free(now, self.limit.count, self.limit.period) } else { Free::Later };
            if let Free::Now = free {
                state.held += 1;
                let own = if let At::Queue(_) = self.at { state.queue.pop_front() } else { None };
                self.at = At::Permit;
                // There may be another permit.
                let next = state.take_first();
                drop(state);
                self.sleep = None;
                drop_user_value((own, waker));
                next.into_iter().for_each(wake);
                return Poll::Ready(());
            }
            let old = match self.at {
                At::Queue(own) => state.place(own).and_then(|place| state.queue[place].1.replace(waker)),
                _ => {
                    let own = state.next;
                    state.next += 1;
                    state.queue.push_back((own, Some(waker)));
                    self.at = At::Queue(own);
                    None
                }
            };
            drop(state);
            drop_user_value(old);
            let Free::At(at) = free else {
                self.sleep = None;
                return Poll::Pending;
            };
            let sleep = self.sleep.get_or_insert_with(|| sleep_until(at));
            if sleep.deadline() != at {
                sleep.reset(at);
            }
            ready!(Pin::new(sleep).poll(context));
        }
    }

    /// Gives the permit back, as a call or unused, or the place in the queue.
    fn leave(&mut self, called: bool) {
        self.sleep = None;
        let at = std::mem::replace(&mut self.at, At::Nowhere);
        if let At::Nowhere = at {
            return;
        }
        let mut state = self.limit.state.lock();
        let mut own = None;
        match at {
            At::Queue(number) => own = state.place(number).and_then(|place| state.queue.remove(place)),
            _ => {
                state.held -= 1;
                if called {
                    state.calls.push_back(Instant::now());
                }
            }
        }
        // It may be the first only now, or have waited for this very permit: it looks itself.
        let first = state.take_first();
        drop(state);
        drop_user_value(own);
        first.into_iter().for_each(wake);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.leave(false);
    }
}

impl State {
    fn free(&mut self, now: Instant, count: usize, period: Duration) -> Free {
        while self.calls.front().is_some_and(|call| *call + period <= now) {
            self.calls.pop_front();
        }
        match self.calls.front() {
            _ if self.held + self.calls.len() < count => Free::Now,
            Some(oldest) => Free::At(*oldest + period),
            None => Free::Later,
        }
    }

    /// Where in the queue a number is.
    fn place(&self, number: u64) -> Option<usize> {
        self.queue.binary_search_by_key(&number, |(number, _)| *number).ok()
    }

    /// The waker of the first in the queue, to be called.
    fn take_first(&mut self) -> Option<Waker> {
        self.queue.front_mut().and_then(|(_, waker)| waker.take())
    }
}
