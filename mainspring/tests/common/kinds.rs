//! Every kind of socket behind one trait, so that a test of what all of them promise is written once.
//!
//! A test is a function over a [`Socket`]; [`on_every_kind!`] makes one `#[test]` of it for each kind, in a
//! module named after the kind. Knows nothing of what is tested.

use std::future::{Future, poll_fn};
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::unix::net::UnixStream as StdStream;

use mainspring::net::{Async, Deadlines, TcpListener, TcpStream, UdpSocket, UnixDatagram, UnixStream};
use mainspring::time::Instant;

use super::sockets::{fill, poll_once};

/// One end of a connected pair.
pub(crate) trait Socket: Sized + Send + Sync + 'static {
    /// The sides on which an operation can be made to wait. Over the loopback UDP throws away what has no
    /// room, and its writes never wait.
    const WAITING: &'static [Side] = &[Side::Read, Side::Write];

    /// Whether bytes flow without bounds between writes; otherwise each write is a message.
    const STREAM: bool = true;

    /// Whether both sides are of one descriptor: a deadline that was set for both passes for both at once.
    const TOGETHER: bool = true;

    /// Two ends of one connection.
    fn pair() -> impl Future<Output = (Self, Self)> + Send;

    fn read(&self, buffer: &mut [u8]) -> impl Future<Output = io::Result<usize>> + Send;

    fn write(&self, bytes: &[u8]) -> impl Future<Output = io::Result<usize>> + Send;

    /// Streams' only.
    fn write_all(&self, bytes: &[u8]) -> impl Future<Output = io::Result<()>> + Send {
        async move { panic!("a message is not written in parts: {}", bytes.len()) }
    }

    /// Waits until there is something to be read, and leaves it there.
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send;

    /// What every way to read gives, one after the other, for a socket that refuses them all at once.
    fn all_reads(&self) -> impl Future<Output = Vec<io::Result<()>>> + Send;

    /// What every way to write gives, as with `all_reads`.
    fn all_writes(&self) -> impl Future<Output = Vec<io::Result<()>>> + Send;

    fn set_deadline(&self, at: impl Into<Option<Instant>>) -> io::Result<()>;

    fn set_read_deadline(&self, at: impl Into<Option<Instant>>) -> io::Result<()>;

    fn set_write_deadline(&self, at: impl Into<Option<Instant>>) -> io::Result<()>;

    fn handles(&self) -> Handles;
}

/// Reading or writing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Read,
    Write,
}

impl Side {
    /// Reads or writes one byte.
    pub(crate) async fn operate<S: Socket>(self, socket: &S) -> io::Result<usize> {
        match self {
            Side::Read => socket.read(&mut [0]).await,
            Side::Write => socket.write(b"x").await,
        }
    }

    /// Every way to read or to write.
    pub(crate) async fn operate_in_all_ways<S: Socket>(self, socket: &S) -> Vec<io::Result<()>> {
        match self {
            Side::Read => socket.all_reads().await,
            Side::Write => socket.all_writes().await,
        }
    }

    pub(crate) fn set<S: Socket>(self, socket: &S, at: impl Into<Option<Instant>>) {
        match self {
            Side::Read => socket.set_read_deadline(at),
            Side::Write => socket.set_write_deadline(at),
        }
        .expect("the socket is open");
    }
}

/// The handles to an end's deadlines. An end that is made of two descriptors has two.
#[derive(Clone)]
pub(crate) struct Handles {
    read: Deadlines,
    /// `None` if `read` serves both sides.
    write: Option<Deadlines>,
}

impl Handles {
    pub(crate) fn set(&self, side: Side, at: impl Into<Option<Instant>>) -> io::Result<()> {
        match side {
            Side::Read => self.read.set_read_deadline(at),
            Side::Write => self.write.as_ref().unwrap_or(&self.read).set_write_deadline(at),
        }
    }

    pub(crate) fn set_both(&self, at: impl Into<Option<Instant>>) -> io::Result<()> {
        let at = at.into();
        match &self.write {
            None => self.read.set_deadline(at),
            Some(write) => write.set_write_deadline(at).and_then(|()| self.read.set_read_deadline(at)),
        }
    }
}

/// A pair whose first end has nothing to read and no room to write: every operation that can wait does.
pub(crate) async fn stuck_pair<S: Socket>() -> (S, S) {
    let (a, b) = S::pair().await;
    if S::WAITING.contains(&Side::Write) {
        fill(&a).await;
    }
    (a, b)
}

/// Checks that an operation of that side waits, now and after a while.
pub(crate) async fn assert_waits<S: Socket>(socket: &S, side: Side) {
    let mut operation = std::pin::pin!(side.operate(socket));
    assert!(poll_once(operation.as_mut()).await.is_pending(), "{side:?} does not wait");
    mainspring::time::sleep(std::time::Duration::from_millis(5)).await;
    assert!(poll_once(operation.as_mut()).await.is_pending(), "{side:?} does not wait for long");
}

/// The deadline methods, which all sockets have alike.
macro_rules! deadlines_of {
    () => {
        fn set_deadline(&self, at: impl Into<Option<Instant>>) -> io::Result<()> {
            self.set_deadline(at)
        }

        fn set_read_deadline(&self, at: impl Into<Option<Instant>>) -> io::Result<()> {
            self.set_read_deadline(at)
        }

        fn set_write_deadline(&self, at: impl Into<Option<Instant>>) -> io::Result<()> {
            self.set_write_deadline(at)
        }

        fn handles(&self) -> Handles {
            Handles { read: self.deadlines(), write: None }
        }
    };
}

/// The streams, which have the same methods.
macro_rules! stream {
    ($stream:ty, $pair:expr) => {
        impl Socket for $stream {
            async fn pair() -> (Self, Self) {
                $pair.await
            }

            async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
                self.read(buffer).await
            }

            async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
                self.write(bytes).await
            }

            async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
                self.write_all(bytes).await
            }

            async fn readable(&self) -> io::Result<()> {
                self.peek(&mut [0]).await.map(drop)
            }

            async fn all_reads(&self) -> Vec<io::Result<()>> {
                use futures_util::AsyncReadExt as _;
                vec![
                    self.read(&mut [0]).await.map(drop),
                    self.read(&mut []).await.map(drop),
                    self.read_exact(&mut [0]).await,
                    self.readv(&mut [io::IoSliceMut::new(&mut [0])]).await.map(drop),
                    self.peek(&mut [0]).await.map(drop),
                    self.readable().await,
                    self.read_with(|_| Ok(())).await,
                    self.try_read(&mut [0]).map(drop),
                    self.try_readv(&mut [io::IoSliceMut::new(&mut [0])]).map(drop),
                    self.try_read_with(|_| Ok(())),
                    self.split().0.read(&mut [0]).await.map(drop),
                    (&mut { self }).read(&mut [0]).await.map(drop),
                ]
            }

            async fn all_writes(&self) -> Vec<io::Result<()>> {
                use futures_util::AsyncWriteExt as _;
                vec![
                    self.write(b"!").await.map(drop),
                    self.write(b"").await.map(drop),
                    self.write_all(b"!").await,
                    self.writev(&[io::IoSlice::new(b"!")]).await.map(drop),
                    self.writable().await,
                    self.write_with(|_| Ok(())).await,
                    self.try_write(b"!").map(drop),
                    self.try_writev(&[io::IoSlice::new(b"!")]).map(drop),
                    self.try_write_with(|_| Ok(())),
                    self.split().1.write(b"!").await.map(drop),
                    (&mut { self }).write(b"!").await.map(drop),
                ]
            }

            deadlines_of!();
        }
    };
}

stream!(TcpStream, async {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (client, server)
});

stream!(UnixStream, async { UnixStream::pair().unwrap() });

/// The sockets for datagrams, which have the same methods.
macro_rules! datagrams {
    ($socket:ty, $send_to:ident, $waiting:expr, $pair:expr) => {
        impl Socket for $socket {
            const WAITING: &'static [Side] = $waiting;
            const STREAM: bool = false;

            async fn pair() -> (Self, Self) {
                $pair.await
            }

            async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
                self.recv(buffer).await
            }

            async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
                self.send(bytes).await
            }

            async fn readable(&self) -> io::Result<()> {
                self.peek(&mut [0]).await.map(drop)
            }

            async fn all_reads(&self) -> Vec<io::Result<()>> {
                vec![
                    self.recv(&mut [0]).await.map(drop),
                    self.recv(&mut []).await.map(drop),
                    self.recv_from(&mut [0]).await.map(drop),
                    self.peek(&mut [0]).await.map(drop),
                    self.peek_from(&mut [0]).await.map(drop),
                    self.readable().await,
                    self.try_recv(&mut [0]).map(drop),
                    self.try_recv_from(&mut [0]).map(drop),
                    poll_fn(|context| self.poll_recv(context, &mut [0])).await.map(drop),
                    poll_fn(|context| self.poll_recv_from(context, &mut [0])).await.map(drop),
                ]
            }

            async fn all_writes(&self) -> Vec<io::Result<()>> {
                let peer = self.peer_addr().unwrap();
                vec![
                    self.send(b"!").await.map(drop),
                    self.send(b"").await.map(drop),
                    self.$send_to(b"!", &peer).await.map(drop),
                    self.writable().await,
                    self.try_send(b"!").map(drop),
                    poll_fn(|context| self.poll_send(context, b"!")).await.map(drop),
                ]
            }

            deadlines_of!();
        }
    };
}

datagrams!(UdpSocket, send_to, &[Side::Read], async {
    let a = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let b = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    a.connect(b.local_addr().unwrap()).await.unwrap();
    b.connect(a.local_addr().unwrap()).await.unwrap();
    (a, b)
});

datagrams!(UnixDatagram, send_to_addr, &[Side::Read, Side::Write], async { UnixDatagram::pair().unwrap() });

/// A descriptor of the user's: a socket of std's, read and written with the user's calls.
impl Socket for Async<StdStream> {
    async fn pair() -> (Self, Self) {
        let (a, b) = StdStream::pair().unwrap();
        (Async::new(a).unwrap(), Async::new(b).unwrap())
    }

    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_with(|mut io| io.read(buffer)).await
    }

    async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.write_with(|mut io| io.write(bytes)).await
    }

    async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes).await
    }

    async fn readable(&self) -> io::Result<()> {
        self.readable().await
    }

    async fn all_reads(&self) -> Vec<io::Result<()>> {
        vec![
            self.read(&mut [0]).await.map(drop),
            self.read(&mut []).await.map(drop),
            self.read_exact(&mut [0]).await,
            self.readable().await,
            self.read_with(|_| Ok(())).await,
            poll_fn(|context| self.poll_readable(context)).await,
            poll_fn(|context| self.poll_read_with(context, |_| Ok(()))).await,
        ]
    }

    async fn all_writes(&self) -> Vec<io::Result<()>> {
        vec![
            self.write(b"!").await.map(drop),
            self.write(b"").await.map(drop),
            self.write_all(b"!").await,
            self.writable().await,
            self.write_with(|_| Ok(())).await,
            poll_fn(|context| self.poll_writable(context)).await,
            poll_fn(|context| self.poll_write_with(context, |_| Ok(()))).await,
        ]
    }

    deadlines_of!();
}

/// One end of two pipes, one for each direction.
pub(crate) struct Pipes {
    input: Async<PipeReader>,
    output: Async<PipeWriter>,
}

impl Socket for Pipes {
    const TOGETHER: bool = false;

    async fn pair() -> (Self, Self) {
        let pipe = || {
            let (input, output) = io::pipe().unwrap();
            (Async::new(input).unwrap(), Async::new(output).unwrap())
        };
        let ((input, there), (here, output)) = (pipe(), pipe());
        (Pipes { input, output }, Pipes { input: here, output: there })
    }

    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.input.read(buffer).await
    }

    async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes).await
    }

    async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        self.output.write_all(bytes).await
    }

    async fn readable(&self) -> io::Result<()> {
        self.input.readable().await
    }

    async fn all_reads(&self) -> Vec<io::Result<()>> {
        vec![self.read(&mut [0]).await.map(drop), self.read(&mut []).await.map(drop), self.readable().await]
    }

    async fn all_writes(&self) -> Vec<io::Result<()>> {
        let output = &self.output;
        vec![self.write(b"!").await.map(drop), output.write_all(b"!").await, output.writable().await]
    }

    fn set_deadline(&self, at: impl Into<Option<Instant>>) -> io::Result<()> {
        self.handles().set_both(at)
    }

    fn set_read_deadline(&self, at: impl Into<Option<Instant>>) -> io::Result<()> {
        self.input.set_read_deadline(at)
    }

    fn set_write_deadline(&self, at: impl Into<Option<Instant>>) -> io::Result<()> {
        self.output.set_write_deadline(at)
    }

    fn handles(&self) -> Handles {
        Handles { read: self.input.deadlines(), write: Some(self.output.deadlines()) }
    }
}

/// Makes one test for each kind of socket of each function in the first list, and for each kind of stream
/// of those in the second.
#[allow(unused_macros, reason = "for the tests of what all kinds of sockets promise")]
macro_rules! on_every_kind {
    ($sockets:tt, $streams:tt) => {
        crate::common::kinds::on_every_kind!(@ tcp, mainspring::net::TcpStream, $sockets, $streams);
        crate::common::kinds::on_every_kind!(
            @ other, mainspring::net::Async<std::os::unix::net::UnixStream>, $sockets, $streams
        );
        crate::common::kinds::on_every_kind!(@ unix, mainspring::net::UnixStream, $sockets, $streams);
        crate::common::kinds::on_every_kind!(@ udp, mainspring::net::UdpSocket, $sockets, []);
        crate::common::kinds::on_every_kind!(@ unix_datagram, mainspring::net::UnixDatagram, $sockets, []);
        crate::common::kinds::on_every_kind!(@ pipes, crate::common::kinds::Pipes, $sockets, $streams);
    };
    (@ $module:ident, $kind:ty, [$($socket:ident),* $(,)?], [$($stream:ident),* $(,)?]) => {
        mod $module {
            $(
                #[test]
                fn $socket() {
                    super::$socket::<$kind>();
                }
            )*
            $(
                #[test]
                fn $stream() {
                    super::$stream::<$kind>();
                }
            )*
        }
    };
}
#[allow(unused_imports, reason = "as above")]
pub(crate) use on_every_kind;
