//! Signals of the operating system as streams.
//!
//! The handler is the crate signal-hook's, which calls on whoever else listens. Ours writes one byte into a pipe,
//! and the pipe's other end waits in the poller like any descriptor: no thread, and no wake-up before a signal
//! comes. Each [`Signal`] has a pipe of its own, so that no list of listeners has to be kept, locked and woken
//! here. What that costs is two descriptors a listener.
//!
//! Knows nothing of tasks; works outside of a runtime, on the ambient one.
//!
//! Invariant: a byte is in the pipe whenever a signal came that has not been received. The pipe is one page, so
//! that one read empties it, and a full one loses nothing, because signals coalesce.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll};

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use signal_hook::SigId;
use signal_hook::consts::FORBIDDEN;
use signal_hook::low_level;

use crate::net::Async;

/// The same names where tokio has them.
pub mod unix {
    pub use super::{Signal, SignalKind, signal};
}

/// Waits for a SIGINT, which a terminal sends on Ctrl-C.
///
/// From the first poll on, SIGINT does not end the process any more; see [`signal`]. A program that waits for it only
/// once is deaf to a second Ctrl-C: to hear all of them, keep a [`Signal`].
///
/// # Errors
///
/// As [`signal`]; or if the runtime that it waits on shuts down.
///
/// # Cancel safety
///
/// A signal that comes after the future was dropped is not heard by it.
///
/// # Examples
///
/// ```
/// use mainspring::signal::ctrl_c;
/// use mainspring::time::{Duration, timeout};
///
/// # mainspring::block_on(async {
/// // Serves until somebody presses Ctrl-C, or for a millisecond.
/// let pressed = timeout(Duration::from_millis(1), ctrl_c()).await;
/// assert!(pressed.is_err());
/// # });
/// ```
pub async fn ctrl_c() -> io::Result<()> {
    let closed = || io::Error::other("the runtime has shut down");
    signal(SignalKind::interrupt())?.recv().await.ok_or_else(closed)
}

/// Begins to listen for signals of one kind.
///
/// The first call for a kind replaces what the system does by default, which is to end the process for most
/// kinds, for the rest of the process's life, also after the last [`Signal`] has been dropped. (It is the same in
/// tokio. Restoring it could not be done without a moment at which a signal kills.) A handler that was there
/// before is called as well.
///
/// # Errors
///
/// `InvalidInput` for those that cannot be caught or must not be: SIGKILL, SIGSTOP, SIGILL, SIGFPE, SIGSEGV, and
/// for what is no signal. Otherwise the system's, commonly that no descriptor is left.
///
/// # Examples
///
/// ```
/// use mainspring::signal::{SignalKind, signal};
///
/// # mainspring::block_on(async {
/// let mut reload = signal(SignalKind::hangup())?;
/// signal_hook::low_level::raise(SignalKind::hangup().as_raw_value())?;
/// assert_eq!(reload.recv().await, Some(()));
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub fn signal(kind: SignalKind) -> io::Result<Signal> {
    if FORBIDDEN.contains(&kind.0) {
        let text = format!("signal {} cannot be listened for", kind.0);
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    // Refused, if at all, to a user who has too much in pipes; a bigger one takes some more reads to empty.
    let _ = fcntl_setpipe_size(&write, PAGE);
    let pipe = Async::new(read)?;
    let registration = Registration(low_level::pipe::register(kind.0, write)?);
    Ok(Signal { _registration: registration, pipe, kind })
}

const PAGE: usize = 4096;

/// A kind of signal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SignalKind(i32);

impl SignalKind {
    /// By its number, for those that have no function here. Whether there is such a signal is found out by
    /// [`signal`].
    pub const fn from_raw(number: i32) -> SignalKind {
        SignalKind(number)
    }

    /// The number.
    pub const fn as_raw_value(&self) -> i32 {
        self.0
    }

    /// SIGALRM: a timer of alarm(2) or setitimer(2) has expired.
    pub const fn alarm() -> SignalKind {
        SignalKind(libc::SIGALRM)
    }

    /// SIGCHLD: a child process has ended or stopped.
    pub const fn child() -> SignalKind {
        SignalKind(libc::SIGCHLD)
    }

    /// SIGHUP: the terminal was closed; asks a daemon to read its configuration again.
    pub const fn hangup() -> SignalKind {
        SignalKind(libc::SIGHUP)
    }

    /// SIGINT: Ctrl-C in a terminal.
    pub const fn interrupt() -> SignalKind {
        SignalKind(libc::SIGINT)
    }

    /// SIGIO: a descriptor in signal-driven mode is ready.
    pub const fn io() -> SignalKind {
        SignalKind(libc::SIGIO)
    }

    /// SIGPIPE: somebody writes to a pipe that nobody reads.
    pub const fn pipe() -> SignalKind {
        SignalKind(libc::SIGPIPE)
    }

    /// SIGQUIT: Ctrl-\ in a terminal.
    pub const fn quit() -> SignalKind {
        SignalKind(libc::SIGQUIT)
    }

    /// SIGTERM: the polite request to end.
    pub const fn terminate() -> SignalKind {
        SignalKind(libc::SIGTERM)
    }

    /// SIGUSR1: whatever the program says.
    pub const fn user_defined1() -> SignalKind {
        SignalKind(libc::SIGUSR1)
    }

    /// SIGUSR2: whatever the program says.
    pub const fn user_defined2() -> SignalKind {
        SignalKind(libc::SIGUSR2)
    }

    /// SIGWINCH: the terminal's window has another size.
    pub const fn window_change() -> SignalKind {
        SignalKind(libc::SIGWINCH)
    }
}

impl From<i32> for SignalKind {
    fn from(number: i32) -> SignalKind {
        SignalKind(number)
    }
}

impl From<SignalKind> for i32 {
    fn from(kind: SignalKind) -> i32 {
        kind.0
    }
}

/// A stream of signals of one kind, from the call of [`signal`] that made it until it is dropped. Every stream of a
/// kind hears every signal.
///
/// Signals coalesce: several that come before [`recv`](Signal::recv) is called, or before its task runs, are
/// received as one.
#[must_use = "it hears nothing after it was dropped"]
pub struct Signal {
    // Before the pipe's end for reading is closed there is nobody left who writes: fields are dropped in order.
    _registration: Registration,
    pipe: Async<OwnedFd>,
    kind: SignalKind,
}

struct Registration(SigId);

impl Drop for Registration {
    fn drop(&mut self) {
        low_level::unregister(self.0);
    }
}

impl Signal {
    /// Waits for a signal that came after the last call. `None` if the runtime that the stream was made on has
    /// shut down; the process is no less deaf to the default action then.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no signal is lost: the next call receives it.
    pub async fn recv(&mut self) -> Option<()> {
        self.pipe.read_with(empty).await.ok()
    }

    /// As [`recv`](Signal::recv), for poll functions.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<()>> {
        self.pipe.poll_read_with(context, empty).map(Result::ok)
    }
}

/// Takes everything out of the pipe; `WouldBlock` if there is nothing.
fn empty(pipe: &impl AsFd) -> io::Result<()> {
    let pipe: BorrowedFd<'_> = pipe.as_fd();
    let mut bytes = [0; PAGE];
    let mut count = rustix::io::read(pipe, &mut bytes)?;
    while count == bytes.len() {
        count = match rustix::io::read(pipe, &mut bytes) {
            Err(rustix::io::Errno::INTR) => count,
            result => result.unwrap_or(0),
        };
    }
    Ok(())
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signal").field(&self.kind).finish()
    }
}
