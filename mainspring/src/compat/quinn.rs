//! quinn's runtime: QUIC on mainspring's sockets, tasks and clock.
//!
//! Datagrams are sent and received as [`quinn::udp`] does it: many with one system call where the kernel
//! can (GSO and GRO), with congestion marks. Knows nothing of QUIC.
//!
//! # Examples
//!
//! A server's endpoint; a client's has no [`ServerConfig`](::quinn::ServerConfig). Both at work are in
//! `examples/quinn_echo.rs`.
//!
//! ```
//! use std::sync::Arc;
//!
//! use mainspring::compat::quinn::Runtime;
//! use quinn::{Endpoint, EndpointConfig, ServerConfig};
//!
//! fn listen(config: EndpointConfig, server: ServerConfig) -> std::io::Result<Endpoint> {
//!     let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
//!     Endpoint::new(config, Some(server), socket, Arc::new(Runtime::new()))
//! }
//! ```

#[cfg(all(test, not(mainspring_loom)))]
mod tests;

use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use ::quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use ::quinn::{AsyncTimer, AsyncUdpSocket, UdpPoller};
use rustix::io::Errno;

use crate::net::UdpSocket;
use crate::poll::source::{Direction, WaiterId};
use crate::runtime::Handle;
use crate::sched::current;
use crate::time::{self, Sleep};

/// quinn's runtime: one of this process's, or whichever is at hand.
///
/// When that runtime shuts down, the endpoint's connections end with an error.
#[derive(Clone, Debug, Default)]
pub struct Runtime {
    handle: Option<Handle>,
}

impl Runtime {
    /// Uses the current runtime of the thread that calls it, or the ambient one.
    pub fn new() -> Runtime {
        Runtime { handle: None }
    }

    /// Uses the given runtime.
    pub fn on(handle: Handle) -> Runtime {
        Runtime { handle: Some(handle) }
    }
}

impl ::quinn::Runtime for Runtime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(time::sleep_until(at.into()))
    }

    #[track_caller]
    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        match &self.handle {
            Some(handle) => drop(handle.spawn(future)),
            None => drop(crate::spawn(future)),
        }
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let _entered = self.handle.as_ref().map(|handle| current::enter(Arc::clone(handle.scheduler())));
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Arc::new(Socket { io: UdpSocket::try_from(socket)?, state }))
    }

    fn now(&self) -> Instant {
        time::Instant::now().into()
    }
}

impl AsyncTimer for Sleep {
    fn reset(self: Pin<&mut Self>, at: Instant) {
        Sleep::reset(self.get_mut(), at.into());
    }

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Future::poll(self, context)
    }
}

/// A socket with what `quinn::udp` knows of it.
struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller { socket: self, id: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.io.descriptor().try_anyway(Direction::Write, |io| self.state.send(io.into(), transmit))
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        // The endpoint's task alone receives: one waker is enough.
        let call = |io: &std::net::UdpSocket| loop {
            match self.state.recv(io.into(), buffers, metas) {
                Err(error) if is_of_one_sent(&error) => {}
                result => return result,
            }
        };
        self.io.descriptor().poll_shared(Direction::Read, None, context, call)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

/// Whether an error of receiving is about some datagram that was sent before, which only a connected socket is told,
/// once for each. quinn would give the endpoint up, but QUIC finds out by itself what has arrived.
fn is_of_one_sent(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::CONNREFUSED | Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::NOPROTOOPT | Errno::MSGSIZE
        )
    )
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.io.fmt(f)
    }
}

/// One connection's place among those that wait for room to send.
struct Poller {
    socket: Arc<Socket>,
    id: Option<WaiterId>,
}

impl UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Poller { socket, id } = &mut *self;
        socket.io.descriptor().poll_io(Direction::Write, None, id, context, |_| Ok(()))
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.socket.io.descriptor().forget(Direction::Write, id);
        }
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Poller").field(&self.socket).finish()
    }
}
