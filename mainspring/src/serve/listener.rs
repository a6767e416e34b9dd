//! What a server accepts connections from. Knows nothing of HTTP.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;

use crate::net::{Deadlines, TcpListener, TcpStream, UnixListener, UnixStream};

/// Accepts connections for [`serve`](super::serve).
pub trait Listener: Send + Sync + 'static {
    /// A connection.
    type Stream: Send + 'static;
    /// Who is at its other end.
    type Addr: Clone + fmt::Debug + Send + Sync + 'static;

    /// Accepts a connection. It only takes one that is there: what needs the peer's help, a handshake, is for
    /// [`Serve::handshake`](super::Serve::handshake), or the next connection would wait for it.
    ///
    /// # Errors
    ///
    /// Those of the listener. What is wrong with a single connection is no such error: the next one is accepted instead,
    /// as [`TcpListener::accept`] does. The server goes on after errors of the system, which have a
    /// [`raw_os_error`](io::Error::raw_os_error), and ends with any other; see [`serve`](super::serve).
    ///
    /// An implementation need not pause after an error: how often it may fail is the server's to see to. If it
    /// pauses, as those of [`net`](crate::net) do, the server does not wait for as long again.
    ///
    /// # Cancel safety
    ///
    /// No connection may be lost when the future is dropped.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Self::Addr)>> + Send;

    /// The deadlines of a connection that was just accepted. `None` if it has no such thing; the timeouts of
    /// [`Serve`](super::Serve) do not apply to it then.
    fn deadlines(stream: &Self::Stream) -> Option<Deadlines>;
}

impl Listener for TcpListener {
    type Stream = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let accepted = TcpListener::accept(self).await?;
        // What is written is complete, so there is nothing to be gained from waiting for more. A socket that refuses
        // the option is only slower.
        let _ = accepted.0.set_nodelay(true);
        Ok(accepted)
    }

    fn deadlines(stream: &TcpStream) -> Option<Deadlines> {
        Some(stream.deadlines())
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;
    type Addr = std::os::unix::net::SocketAddr;

    async fn accept(&self) -> io::Result<(UnixStream, Self::Addr)> {
        UnixListener::accept(self).await
    }

    fn deadlines(stream: &UnixStream) -> Option<Deadlines> {
        Some(stream.deadlines())
    }
}

/// What makes of an accepted stream the one that HTTP is spoken on: TLS, above all. Implemented for functions;
/// see [`Serve::handshake`](super::Serve::handshake).
pub trait Handshake<S>: Clone + Send + 'static {
    /// What HTTP is spoken on.
    type Io: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static;

    /// Does it.
    ///
    /// # Errors
    ///
    /// The connection is closed then. Nobody else is told.
    fn handshake(&self, stream: S) -> impl Future<Output = io::Result<Self::Io>> + Send;
}

/// No handshake: HTTP is spoken on the stream as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl<S> Handshake<S> for Plain
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    type Io = S;

    fn handshake(&self, stream: S) -> impl Future<Output = io::Result<S>> + Send {
        std::future::ready(Ok(stream))
    }
}

impl<S, F, Fut, Io> Handshake<S> for F
where
    F: Fn(S) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = io::Result<Io>> + Send,
    Io: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    type Io = Io;

    fn handshake(&self, stream: S) -> impl Future<Output = io::Result<Io>> + Send {
        self(stream)
    }
}
