//! Middleware of tower's on this clock: [`Timeout`], [`RateLimit`] and [`Buffer`].
//!
//! tower's own layers of these names need tokio's timers or its `spawn`. These need no runtime of tokio's; tower's others (`ConcurrencyLimit`,
//! `LoadShed`, `Retry` without a backoff, `util`) need none anyway.
//!
//! # Examples
//!
//! ```
//! use mainspring::compat::tower::{BufferLayer, RateLimitLayer, TimeoutLayer};
//! use mainspring::time::Duration;
//! use tower_layer::Layer;
//! # use std::task::{Context, Poll};
//! # use tower_service::Service;
//! # struct Double;
//! # impl Service<u32> for Double {
//! #     type Response = u32;
//! #     type Error = std::convert::Infallible;
//! #     type Future = std::future::Ready<Result<u32, std::convert::Infallible>>;
//! #     fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> { Poll::Ready(Ok(())) }
//! #     fn call(&mut self, number: u32) -> Self::Future { std::future::ready(Ok(2 * number)) }
//! # }
//!
//! # mainspring::block_on(async {
//! let service = TimeoutLayer::new(Duration::from_secs(1)).layer(Double);
//! let service = RateLimitLayer::new(100, Duration::from_secs(1)).layer(service);
//! let mut service = BufferLayer::new(16).layer(service);
//! std::future::poll_fn(|context| service.poll_ready(context)).await?;
//! assert_eq!(service.call(4).await?, 8);
//! # Ok::<_, Box<dyn std::error::Error + Send + Sync>>(()) }).unwrap();
//! ```

mod rate;
mod timeout;

use std::fmt;
use std::marker::PhantomData;

use tower_layer::Layer;
use tower_service::Service;

pub use self::rate::{RateLimit, RateLimitLayer};
pub use self::timeout::{ResponseFuture, Timeout, TimeoutLayer};

/// Any error, as tower has it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// tower's own buffer, in front of a service that a task of mainspring calls.
pub type Buffer<Request, Future> = tower::buffer::Buffer<Request, Future>;

/// Puts a service into a task of the current runtime, and a queue in front of it: what is returned can be cloned, and the
/// requests of all its clones come to the one service. `bound` is how many requests may wait in the queue; with
/// more, `poll_ready` waits. It should be at least as large as the number of clones that are ready at a time.
///
/// # Errors
///
/// The service's own, boxed. When the service fails to become ready, it is given up: every request that waits, and each
/// one to come, fails with tower's `ServiceError`; the same, as `Closed`, if the runtime has shut down.
///
/// # Panics
///
/// If `bound` is zero.
pub fn buffer<S, Request>(service: S, bound: usize) -> Buffer<Request, S::Future>
where
    S: Service<Request, Error: Into<BoxError> + Send + Sync, Future: Send + 'static> + Send + 'static,
    Request: Send + 'static,
{
    let (buffer, worker) = Buffer::pair(service, bound);
    drop(crate::spawn(worker));
    buffer
}

/// Applies [`buffer`] to services.
pub struct BufferLayer<Request> {
    bound: usize,
    requests: PhantomData<fn(Request)>,
}

impl<Request> BufferLayer<Request> {
    /// A queue of `bound` requests.
    pub fn new(bound: usize) -> BufferLayer<Request> {
        BufferLayer { bound, requests: PhantomData }
    }
}

impl<Request> Clone for BufferLayer<Request> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Request> Copy for BufferLayer<Request> {}

impl<Request> fmt::Debug for BufferLayer<Request> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferLayer").field("bound", &self.bound).finish()
    }
}

impl<S, Request> Layer<S> for BufferLayer<Request>
where
    S: Service<Request, Error: Into<BoxError> + Send + Sync, Future: Send + 'static> + Send + 'static,
    Request: Send + 'static,
{
    type Service = Buffer<Request, S::Future>;

    fn layer(&self, service: S) -> Self::Service {
        buffer(service, self.bound)
    }
}
