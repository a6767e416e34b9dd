//! Deadlines of what makes connections: accepting and connecting, over TCP and over Unix sockets.

mod common;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use common::kinds::{Side, Socket, assert_waits};
use common::sockets::{SocketPath, is_timeout, poll_once, read_one};
use common::{SOON, run, until, watched};
use mainspring::net::{Deadlines, TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use mainspring::time::{Duration, Instant, sleep, timeout};

const HOUR: Duration = Duration::from_secs(3600);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn past() -> Instant {
    Instant::now() - HOUR
}

/// A socket that accepts, with a place to connect to.
trait Listener: Sized + Send + Sync + 'static {
    type Stream: Socket;

    /// With a queue for so many connections that wait to be accepted, about.
    fn bind(backlog: u32) -> impl Future<Output = Self> + Send;

    fn connect(&self) -> impl Future<Output = Self::Stream> + Send;

    fn connect_deadline(&self, at: Instant) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    fn connect_timeout(&self, after: Duration) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Connects to where somebody has listened, and does not any more.
    fn connect_to_nobody(after: Duration) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    fn set_deadline(&self, at: impl Into<Option<Instant>>);

    fn deadlines(&self) -> Deadlines;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn bind(backlog: u32) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        socket.listen(backlog).unwrap()
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.local_addr().unwrap()).await.unwrap()
    }

    async fn connect_deadline(&self, at: Instant) -> io::Result<TcpStream> {
        TcpStream::connect_deadline(self.local_addr().unwrap(), at).await
    }

    async fn connect_timeout(&self, after: Duration) -> io::Result<TcpStream> {
        TcpStream::connect_timeout(self.local_addr().unwrap(), after).await
    }

    async fn connect_to_nobody(after: Duration) -> io::Result<TcpStream> {
        let addr = <TcpListener as Listener>::bind(1).await.local_addr().unwrap();
        TcpStream::connect_timeout(addr, after).await
    }

    async fn accept(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }

    fn set_deadline(&self, at: impl Into<Option<Instant>>) {
        self.set_deadline(at).unwrap();
    }

    fn deadlines(&self) -> Deadlines {
        self.deadlines()
    }
}

/// A Unix listener, whose file goes with it.
struct AtPath {
    listener: UnixListener,
    path: SocketPath,
}

impl Listener for AtPath {
    type Stream = UnixStream;

    async fn bind(backlog: u32) -> Self {
        let path = SocketPath::new();
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        socket.bind(&socket2::SockAddr::unix(&path.0).unwrap()).unwrap();
        socket.listen(backlog as i32).unwrap();
        AtPath { listener: std::os::unix::net::UnixListener::from(socket).try_into().unwrap(), path }
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.path).await.unwrap()
    }

    async fn connect_deadline(&self, at: Instant) -> io::Result<UnixStream> {
        UnixStream::connect_deadline(&self.path, at).await
    }

    async fn connect_timeout(&self, after: Duration) -> io::Result<UnixStream> {
        UnixStream::connect_timeout(&self.path, after).await
    }

    async fn connect_to_nobody(after: Duration) -> io::Result<UnixStream> {
        let AtPath { listener, path } = AtPath::bind(1).await;
        drop(listener);
        UnixStream::connect_timeout(&path, after).await
    }

    async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }

    fn set_deadline(&self, at: impl Into<Option<Instant>>) {
        self.listener.set_deadline(at).unwrap();
    }

    fn deadlines(&self) -> Deadlines {
        self.listener.deadlines()
    }
}

/// How many connections may wait where that is not the subject.
const MANY: u32 = 128;

/// A listener whose queue is full, so that connecting takes for ever, and the connections in the queue.
async fn stuck<L: Listener>() -> (L, Vec<L::Stream>) {
    let listener = L::bind(0).await;
    let mut queued = Vec::new();
    loop {
        match listener.connect_timeout(ms(50)).await {
            Ok(stream) => queued.push(stream),
            result => {
                assert!(is_timeout(&result));
                return (listener, queued);
            }
        }
        assert!(queued.len() < 20, "the queue does not get full");
    }
}

macro_rules! on_every_listener {
    ($($test:ident),* $(,)?) => {
        on_every_listener!(@ tcp, mainspring::net::TcpListener, [$($test),*]);
        on_every_listener!(@ unix, super::AtPath, [$($test),*]);
    };
    (@ $module:ident, $listener:ty, [$($test:ident),*]) => {
        mod $module {
            $(
                #[test]
                fn $test() {
                    super::$test::<$listener>();
                }
            )*
        }
    };
}

on_every_listener!(
    a_past_deadline_fails_accept_also_with_a_connection_that_waits_which_is_not_lost,
    an_accept_must_return_at_a_deadline_set_while_it_waits,
    an_accept_must_not_return_by_a_deadline_that_was_cleared,
    an_accept_ends_at_its_deadline_however_far_that_is,
    a_deadline_moved_under_an_accept_takes_effect,
    what_is_accepted_or_connected_has_no_deadline_of_its_listeners,
    no_connection_is_lost_by_accepts_that_time_out_all_the_time,
    a_listener_that_is_closed_leaves_handles_that_fail_and_no_timer,
    connecting_after_its_deadline_fails_without_an_attempt,
    connecting_ends_at_its_deadline_however_far_that_is_and_leaves_nothing,
    connecting_before_its_deadline_gives_a_connection_without_one,
    connecting_to_nobody_fails_before_the_deadline_with_its_own_error,
    connecting_that_waits_for_room_gets_it_before_the_deadline,
);

/// Checks that the two are ends of one connection.
async fn assert_connected<S: Socket>(a: &S, b: &S, byte: u8) {
    a.write(&[byte]).await.unwrap();
    assert_eq!(timeout(SOON, read_one(b)).await.expect("not the other end").unwrap(), byte);
}

fn a_past_deadline_fails_accept_also_with_a_connection_that_waits_which_is_not_lost<L: Listener>() {
    run(2, async {
        let listener = L::bind(MANY).await;
        let client = listener.connect().await;
        for _ in 0..3 {
            for at in [past(), Instant::now()] {
                listener.set_deadline(at);
                assert!(is_timeout(&listener.accept().await));
            }
        }
        listener.set_deadline(None);
        let server = listener.accept().await.unwrap();
        assert_connected(&client, &server, b'x').await;
        assert_connected(&server, &client, b'y').await;
        assert!(poll_once(pin!(listener.accept())).await.is_pending());
    });
}

fn an_accept_must_return_at_a_deadline_set_while_it_waits<L: Listener>() {
    run(2, async {
        let listener = L::bind(MANY).await;
        for from_elsewhere in [false, true] {
            listener.set_deadline(None);
            let mut accept = pin!(listener.accept());
            assert!(poll_once(accept.as_mut()).await.is_pending());
            let at = Instant::now() + ms(10);
            let deadlines = listener.deadlines();
            let set = move || deadlines.set_deadline(at).unwrap();
            if from_elsewhere {
                thread::spawn(set).join().unwrap();
            } else {
                set();
            }
            assert!(is_timeout(&accept.await));
            assert!(Instant::now() >= at);
        }
    });
}

fn an_accept_must_not_return_by_a_deadline_that_was_cleared<L: Listener>() {
    run(2, async {
        let listener = L::bind(MANY).await;
        listener.set_deadline(past());
        assert!(is_timeout(&listener.accept().await));
        for never in [None, Some(Instant::now() + Duration::MAX)] {
            listener.set_deadline(Instant::now() + ms(5));
            let mut accept = pin!(listener.accept());
            assert!(poll_once(accept.as_mut()).await.is_pending());
            listener.set_deadline(never);
            assert!(timeout(ms(30), accept.as_mut()).await.is_err());
            let client = listener.connect().await;
            let server = accept.await.unwrap();
            assert_connected(&client, &server, b'x').await;
        }
    });
}

fn an_accept_ends_at_its_deadline_however_far_that_is<L: Listener>() {
    run(1, async {
        let listener = L::bind(MANY).await;
        for after in (0..7).map(|power| ms(1 << power)) {
            let start = Instant::now();
            listener.set_deadline(start + after);
            let result = timeout(SOON, listener.accept()).await.expect("its deadline was lost");
            assert!(is_timeout(&result));
            assert!(start.elapsed() >= after, "{after:?}: early");
        }
    });
}

fn a_deadline_moved_under_an_accept_takes_effect<L: Listener>() {
    run(2, async {
        let listener = L::bind(MANY).await;
        let mut in_time = 0;
        for _ in 0..10 {
            let start = Instant::now();
            listener.set_deadline(start + ms(10));
            let mut accept = pin!(listener.accept());
            assert!(poll_once(accept.as_mut()).await.is_pending());
            listener.set_deadline(start + HOUR);
            listener.set_deadline(start + ms(20));
            let moved = Instant::now();
            assert!(is_timeout(&accept.await));
            if moved < start + ms(10) {
                in_time += 1;
                assert!(start.elapsed() >= ms(20), "early");
            }
        }
        assert!(in_time > 0, "this machine is too slow for the test to show anything");
    });
}

fn what_is_accepted_or_connected_has_no_deadline_of_its_listeners<L: Listener>() {
    run(2, async {
        let listener = L::bind(MANY).await;
        let client = listener.connect().await;
        listener.set_deadline(Instant::now() + HOUR);
        let server = listener.accept().await.unwrap();
        listener.set_deadline(past());
        assert_connected(&client, &server, b'x').await;
        assert_connected(&server, &client, b'y').await;
    });
}

/// Each accept has 20 microseconds, while clients come one after the other.
fn no_connection_is_lost_by_accepts_that_time_out_all_the_time<L: Listener>() {
    run(2, async {
        let listener = Arc::new(L::bind(MANY).await);
        let timeouts = Arc::new(AtomicUsize::new(0));
        let clients = {
            let (listener, timeouts) = (Arc::clone(&listener), Arc::clone(&timeouts));
            mainspring::spawn(async move {
                let mut clients = Vec::new();
                for byte in 0..100_u8 {
                    // However slow the machine is, there is something to be shown.
                    until(|| timeouts.load(Ordering::Relaxed) >= usize::from(byte) / 4).await;
                    let client = listener.connect().await;
                    client.write(&[byte]).await.unwrap();
                    clients.push(client);
                    sleep(Duration::from_micros(100)).await;
                }
                clients
            })
        };
        let mut seen = [false; 100];
        while seen.contains(&false) {
            listener.set_deadline(Instant::now() + Duration::from_micros(20));
            match listener.accept().await {
                Ok(server) => {
                    let byte = timeout(SOON, read_one(&server)).await.unwrap().unwrap();
                    assert!(!std::mem::replace(&mut seen[usize::from(byte)], true));
                }
                result => {
                    assert!(is_timeout(&result));
                    timeouts.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        assert_eq!(clients.await.unwrap().len(), 100);
    });
}

fn a_listener_that_is_closed_leaves_handles_that_fail_and_no_timer<L: Listener>() {
    let (_watchdog, runtime) = watched(2);
    runtime.block_on(async {
        let listener = L::bind(MANY).await;
        let deadlines = listener.deadlines();
        deadlines.set_deadline(Instant::now() + HOUR).unwrap();
        let mut accept = Box::pin(listener.accept());
        assert!(poll_once(accept.as_mut()).await.is_pending());
        drop(accept);
        drop(listener);
        let error = deadlines.set_deadline(past()).unwrap_err();
        assert_ne!(error.kind(), io::ErrorKind::TimedOut);
        deadlines.set_read_deadline(None).unwrap_err();
    });
    assert_eq!(runtime.metrics().timers_pending, 0);
    assert_eq!(runtime.metrics().descriptors, 0);
}

fn connecting_after_its_deadline_fails_without_an_attempt<L: Listener>() {
    run(2, async {
        let listener = L::bind(MANY).await;
        assert!(is_timeout(&listener.connect_timeout(Duration::ZERO).await));
        for at in [past(), Instant::now()] {
            assert!(is_timeout(&listener.connect_deadline(at).await));
        }
        let accept = pin!(listener.accept());
        assert!(timeout(ms(5), accept).await.is_err(), "it has connected all the same");
    });
}

fn connecting_ends_at_its_deadline_however_far_that_is_and_leaves_nothing<L: Listener>() {
    let (_watchdog, runtime) = watched(2);
    runtime.block_on(async {
        let (listener, _queued) = stuck::<L>().await;
        let before = runtime.metrics().descriptors;
        let micros = [1, 10, 100, 1_000, 5_000, 60_000];
        for after in micros.map(Duration::from_micros) {
            let start = Instant::now();
            let result = timeout(SOON, listener.connect_timeout(after)).await.expect("its deadline was lost");
            assert!(is_timeout(&result), "{after:?}");
            assert!(start.elapsed() >= after, "{after:?}: early");
            let at = Instant::now() + after;
            let result = timeout(SOON, listener.connect_deadline(at)).await.expect("its deadline was lost");
            assert!(is_timeout(&result), "{after:?}");
            assert!(Instant::now() >= at, "{after:?}: early");
        }
        assert_eq!(runtime.metrics().descriptors, before, "sockets are left behind");
    });
    assert_eq!(runtime.metrics().timers_pending, 0);
    assert_eq!(runtime.metrics().descriptors, 0);
}

fn connecting_before_its_deadline_gives_a_connection_without_one<L: Listener>() {
    run(2, async {
        let listener = L::bind(MANY).await;
        for after in [ms(20), HOUR, Duration::MAX] {
            let start = Instant::now();
            let client = match listener.connect_timeout(after).await {
                Ok(client) => client,
                // This machine is busy with other things.
                result => {
                    assert!(
                        is_timeout(&result) && start.elapsed() >= after,
                        "{result:?}",
                        result = result.err()
                    );
                    continue;
                }
            };
            let server = listener.accept().await.unwrap();
            if after < HOUR {
                sleep(after).await;
            }
            assert_waits(&client, Side::Read).await;
            assert_connected(&client, &server, b'x').await;
            assert_connected(&server, &client, b'y').await;
        }
    });
}

fn connecting_to_nobody_fails_before_the_deadline_with_its_own_error<L: Listener>() {
    run(2, async {
        let error = timeout(SOON, L::connect_to_nobody(HOUR)).await.expect("it hangs").err();
        let kind = error.expect("nobody listens").kind();
        assert!(matches!(kind, io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound), "{kind}");
    });
}

fn connecting_that_waits_for_room_gets_it_before_the_deadline<L: Listener>() {
    run(2, async {
        let (listener, mut queued) = stuck::<L>().await;
        let listener = Arc::new(listener);
        let connecting = {
            let listener = Arc::clone(&listener);
            mainspring::spawn(async move { listener.connect_timeout(SOON).await })
        };
        sleep(ms(5)).await;
        let mut accepted = Vec::new();
        while !connecting.is_finished() {
            listener.set_deadline(Instant::now() + ms(20));
            match listener.accept().await {
                Ok(stream) => accepted.push(stream),
                result => assert!(is_timeout(&result)),
            }
        }
        queued.push(connecting.await.unwrap().expect("it was given room"));
    });
}
