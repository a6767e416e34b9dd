//! hyper's executor and timer.
//!
//! # Examples
//!
//! A server of one connection:
//!
//! ```
//! use hyper::service::service_fn;
//! use hyper::{Request, Response, body::Incoming};
//! # use std::convert::Infallible;
//! use mainspring::compat::hyper::Timer;
//! use mainspring::net::{TcpListener, TcpStream};
//!
//! # mainspring::block_on(async {
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! let client = TcpStream::connect(listener.local_addr()?).await?;
//! let server = mainspring::spawn(async move {
//!     let (stream, _) = listener.accept().await.unwrap();
//!     let hello = |_: Request<Incoming>| async { Ok::<_, Infallible>(Response::new("hello".to_owned())) };
//!     hyper::server::conn::http1::Builder::new()
//!         .timer(Timer::new())
//!         .serve_connection(stream, service_fn(hello))
//!         .await
//! });
//! client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
//! server.await.unwrap().unwrap();
//! let mut answer = vec![0; 12];
//! client.read_exact(&mut answer).await?;
//! assert_eq!(answer, b"HTTP/1.1 200");
//! # std::io::Result::Ok(()) }).unwrap();
//! ```

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use ::hyper::rt;

use crate::runtime::Handle;
use crate::time;

/// Spawns hyper's tasks: on one runtime, or wherever it is called.
#[derive(Clone, Debug, Default)]
pub struct Executor {
    handle: Option<Handle>,
}

impl Executor {
    /// Spawns on the current runtime of the thread that calls it, or on the ambient one.
    pub fn new() -> Executor {
        Executor { handle: None }
    }

    /// Spawns on the given runtime.
    pub fn on(handle: Handle) -> Executor {
        Executor { handle: Some(handle) }
    }
}

impl<F> rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    #[track_caller]
    fn execute(&self, future: F) {
        match &self.handle {
            Some(handle) => drop(handle.spawn(future)),
            None => drop(crate::spawn(future)),
        }
    }
}

/// hyper's timer, on [`mainspring::time`](crate::time).
#[derive(Clone, Copy, Debug, Default)]
pub struct Timer(());

impl Timer {
    /// The timer.
    pub fn new() -> Timer {
        Timer(())
    }
}

impl rt::Timer for Timer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(time::sleep(duration))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(time::sleep_until(deadline.into()))
    }

    fn now(&self) -> Instant {
        time::Instant::now().into()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn rt::Sleep>>, deadline: Instant) {
        match sleep.as_mut().downcast_mut_pin::<time::Sleep>() {
            Some(mut sleep) => sleep.reset(deadline.into()),
            None => *sleep = self.sleep_until(deadline),
        }
    }
}

impl rt::Sleep for time::Sleep {}
