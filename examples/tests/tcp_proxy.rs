//! The proxy between real sockets: every byte in order, ends of directions, upstreams that do not answer, idle
//! sessions, slow readers, the limit of sessions, and the end of the proxy. What an upstream does is written in
//! each test.

mod common;

use std::io::ErrorKind;
use std::sync::atomic::Ordering;

use common::{SOON, run, run_on};
use mainspring::runtime::Handle;
use mainspring::task::JoinHandle;
use mainspring::time::sleep;
use tokio::sync::oneshot;

use super::*;

/// A running proxy.
struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Arc<Summary>>,
}

impl Running {
    async fn start(options: Options) -> Running {
        let listener = TcpListener::bind(options.listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let stopped = async { stopped.await.unwrap_or(()) };
        Running { address, stop, task: mainspring::spawn(serve(listener, options, stopped)) }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn end(self) -> Counts {
        self.stop.send(()).unwrap();
        Counts::of(&self.task.await.unwrap())
    }
}

#[derive(Debug, Eq, PartialEq)]
struct Counts {
    sessions: u64,
    refused: u64,
    broken: u64,
}

impl Counts {
    fn of(summary: &Summary) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            sessions: get(&summary.sessions),
            refused: get(&summary.refused),
            broken: get(&summary.broken),
        }
    }
}

fn options(upstreams: Vec<SocketAddr>) -> Options {
    Options {
        upstreams,
        listen: ([127, 0, 0, 1], 0).into(),
        connect_timeout: SOON,
        idle_timeout: SOON,
        max_sessions: 1000,
        grace: SOON,
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An address at which nobody listens.
async fn refusing() -> SocketAddr {
    listen().await.1
}

/// A proxy, and both ends of one session through it.
async fn through(set: impl FnOnce(&mut Options)) -> (Running, TcpStream, TcpStream) {
    let (upstream, address) = listen().await;
    let mut options = options(vec![address]);
    set(&mut options);
    let proxy = Running::start(options).await;
    let client = proxy.connect().await;
    let (server, _) = upstream.accept().await.unwrap();
    // The proxy may not have noticed yet that it is connected. A server that resets before it has is one that refuses.
    server.write_all(b"!").await.unwrap();
    client.read_exact(&mut [0]).await.unwrap();
    (proxy, client, server)
}

/// Sends everything back, in parts of random sizes, until the client has finished.
async fn echo_all(upstream: TcpListener) {
    loop {
        let (stream, _) = upstream.accept().await.unwrap();
        mainspring::spawn(async move {
            let mut sizes = Sizes(7);
            loop {
                let mut buffer = vec![0; sizes.next(40_000)];
                match stream.read(&mut buffer).await.unwrap() {
                    0 => return,
                    length => stream.write_all(&buffer[..length]).await.unwrap(),
                }
            }
        });
    }
}

/// A byte that tells its place in a long stream, so that one that is lost or doubled shows.
fn byte_at(place: usize) -> u8 {
    // No power of two, so that it is no divisor of the sizes of buffers.
    u8::try_from(place % 251).unwrap()
}

/// Writes until nothing has been taken for a while; how many bytes were.
async fn fill(stream: &TcpStream) -> usize {
    let mut sum = 0;
    loop {
        let part: Vec<u8> = (sum..sum + 65_536).map(byte_at).collect();
        stream.set_write_deadline(Instant::now() + Duration::from_millis(300)).unwrap();
        match stream.write(&part).await {
            Ok(written) => sum += written,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::TimedOut);
                return sum;
            }
        }
    }
}

/// Random sizes, the same ones for the same seed.
struct Sizes(u64);

impl Sizes {
    fn next(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        1 + usize::try_from(self.0 % most as u64).unwrap()
    }
}

/// Sends `total` bytes that tell their place, `offset` later ones, in parts of random sizes.
async fn send(stream: &TcpStream, offset: usize, total: usize) {
    let mut sizes = Sizes(1 + offset as u64);
    let mut sent = 0;
    while sent < total {
        let size = sizes.next(70_000).min(total - sent);
        let part: Vec<u8> = (sent..sent + size).map(|place| byte_at(offset + place)).collect();
        stream.write_all(&part).await.unwrap();
        sent += size;
    }
    stream.shutdown(Shutdown::Write).unwrap();
}

/// Reads to the end, and looks at each byte.
async fn receive(stream: &TcpStream, offset: usize) -> usize {
    let mut sizes = Sizes(99 + offset as u64);
    let mut received = 0;
    loop {
        let mut buffer = vec![0; sizes.next(50_000)];
        let length = stream.read(&mut buffer).await.unwrap();
        if length == 0 {
            return received;
        }
        for (index, byte) in buffer[..length].iter().enumerate() {
            assert_eq!(*byte, byte_at(offset + received + index), "byte {}", received + index);
        }
        received += length;
    }
}

#[test]
fn every_byte_comes_through_in_order_in_both_directions_at_once() {
    run(async {
        let (proxy, client, server) = through(|_| ()).await;
        let (up, down) = (3_000_000, 2_000_001);
        let far = mainspring::spawn(async move {
            let (_, received) = futures_util::future::join(send(&server, 5, down), receive(&server, 0)).await;
            received
        });
        let (_, received) = futures_util::future::join(send(&client, 0, up), receive(&client, 5)).await;
        assert_eq!((far.await.unwrap(), received), (up, down));
        assert_eq!(proxy.end().await, Counts { sessions: 1, refused: 0, broken: 0 });
    });
}

#[test]
fn the_end_of_one_direction_is_passed_on_and_the_other_goes_on() {
    run(async {
        let (proxy, client, server) = through(|_| ()).await;
        client.write_all(b"question").await.unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut buffer = [0; 100];
        server.read_exact(&mut buffer[..8]).await.unwrap();
        assert_eq!(server.read(&mut buffer).await.unwrap(), 0);
        // The client has finished writing and still reads.
        server.write_all(b"answer").await.unwrap();
        client.read_exact(&mut buffer[..6]).await.unwrap();
        assert_eq!(&buffer[..6], b"answer");
        drop(server);
        assert_eq!(client.read(&mut buffer).await.unwrap(), 0);
        assert_eq!(proxy.end().await, Counts { sessions: 1, refused: 0, broken: 0 });
    });
}

#[test]
fn an_upstream_that_refuses_is_passed_over() {
    run(async {
        let (upstream, address) = listen().await;
        let echo = mainspring::spawn(echo_all(upstream));
        let proxy = Running::start(options(vec![refusing().await, address])).await;
        // Sessions take turns in where they look first.
        for _ in 0..4 {
            let client = proxy.connect().await;
            let ((), received) =
                futures_util::future::join(send(&client, 0, 100_000), receive(&client, 0)).await;
            assert_eq!(received, 100_000);
        }
        assert_eq!(proxy.end().await, Counts { sessions: 4, refused: 0, broken: 0 });
        echo.abort();
    });
}

#[test]
fn a_client_for_whom_no_upstream_answers_is_reset() {
    run(async {
        let proxy = Running::start(options(vec![refusing().await, refusing().await])).await;
        // It may be so quick that connecting hears of it.
        let error = match TcpStream::connect(proxy.address).await {
            Ok(client) => client.read(&mut [0]).await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(proxy.end().await, Counts { sessions: 0, refused: 1, broken: 0 });
    });
}

#[test]
fn an_upstream_that_does_not_answer_in_time_is_passed_over() {
    run(async {
        // A listener whose queue is full answers no more; std's is short.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let silent_address = silent.local_addr().unwrap();
        let mut queue = Vec::new();
        let brief = Duration::from_millis(200);
        while let Ok(stream) = timeout(brief, TcpStream::connect(silent_address)).await {
            queue.push(stream.unwrap());
        }
        let (upstream, address) = listen().await;
        let proxy =
            Running::start(Options { connect_timeout: brief, ..options(vec![silent_address, address]) })
                .await;
        let client = proxy.connect().await;
        let (server, _) = upstream.accept().await.unwrap();
        drop((client, server));
        assert_eq!(proxy.end().await.sessions, 1);
    });
}

#[test]
fn an_idle_session_is_cut_off_and_both_ends_are_told() {
    run(async {
        let idle = Duration::from_millis(100);
        let start = Instant::now();
        let (proxy, client, server) = through(|options| options.idle_timeout = idle).await;
        assert_eq!(client.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(server.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!(start.elapsed() >= idle);
        assert_eq!(proxy.end().await, Counts { sessions: 1, refused: 0, broken: 1 });
    });
}

#[test]
fn bytes_in_one_direction_keep_both_alive() {
    run(async {
        let idle = Duration::from_secs(1);
        let (proxy, client, server) = through(|options| options.idle_timeout = idle).await;
        let start = Instant::now();
        while start.elapsed() < idle * 2 {
            client.write_all(b"x").await.unwrap();
            server.read_exact(&mut [0]).await.unwrap();
            sleep(Duration::from_millis(20)).await;
        }
        // The other direction, which was silent all the time.
        server.write_all(b"y").await.unwrap();
        client.read_exact(&mut [0]).await.unwrap();
        drop((client, server));
        proxy.end().await;
    });
}

#[test]
fn a_slow_reader_holds_up_the_writer_and_loses_nothing() {
    run(async {
        let (proxy, client, server) = through(|_| ()).await;
        // Until nothing moves any more: the proxy has a buffer and no more.
        let sent = fill(&client).await;
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(receive(&server, 0).await, sent);
        drop((client, server));
        let summary = proxy.task;
        proxy.stop.send(()).unwrap();
        // ordering: Relaxed, the task has ended.
        assert_eq!(summary.await.unwrap().up.load(Ordering::Relaxed), sent as u64);
    });
}

#[test]
fn a_reader_that_does_not_read_for_too_long_is_cut_off() {
    run(async {
        let (proxy, client, server) =
            through(|options| options.idle_timeout = Duration::from_millis(300)).await;
        let error = loop {
            if let Err(error) = client.write(&[0; 65_536]).await {
                break error;
            }
        };
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
        drop(server);
        assert_eq!(proxy.end().await, Counts { sessions: 1, refused: 0, broken: 1 });
    });
}

#[test]
fn a_reset_by_one_end_resets_the_other() {
    run(async {
        for server_resets in [false, true] {
            let (proxy, client, server) = through(|_| ()).await;
            let (resetting, other) = if server_resets { (server, client) } else { (client, server) };
            resetting.set_linger(Some(Duration::ZERO)).unwrap();
            drop(resetting);
            assert_eq!(other.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
            assert_eq!(proxy.end().await, Counts { sessions: 1, refused: 0, broken: 1 });
        }
    });
}

#[test]
fn the_last_words_of_an_upstream_that_reads_no_more_are_passed_on() {
    // On one processor, so that the answer and the reset are both there before the session runs again.
    run_on(1, async {
        let (proxy, client, server) = through(|_| ()).await;
        // The session waits in a write, and looks there first.
        fill(&client).await;
        // With unread bytes, closing is a reset.
        let last_words = mainspring::spawn(async move { server.write_all(b"too much").await });
        last_words.await.unwrap().unwrap();
        let mut buffer = [0; 8];
        client.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"too much");
        drop(client);
        assert_eq!(proxy.end().await, Counts { sessions: 1, refused: 0, broken: 1 });
    });
}

#[test]
fn hundreds_of_sessions_at_once_do_not_mix() {
    run(async {
        let (upstream, address) = listen().await;
        let echo = mainspring::spawn(echo_all(upstream));
        let proxy = Running::start(options(vec![address])).await;
        let mut clients = mainspring::task::JoinSet::new();
        let all_there = Arc::new(tokio::sync::Barrier::new(300));
        for number in 0..300 {
            let client = proxy.connect().await;
            let all_there = Arc::clone(&all_there);
            clients.spawn(async move {
                all_there.wait().await;
                let ((), received) =
                    futures_util::future::join(send(&client, number, 30_000), receive(&client, number)).await;
                assert_eq!(received, 30_000);
            });
        }
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
        assert_eq!(proxy.end().await, Counts { sessions: 300, refused: 0, broken: 0 });
        echo.abort();
    });
}

#[test]
fn clients_beyond_the_limit_wait_until_a_session_ends() {
    run(async {
        let (upstream, address) = listen().await;
        let proxy = Running::start(Options { max_sessions: 2, ..options(vec![address]) }).await;
        let mut open = Vec::new();
        for _ in 0..2 {
            // One after the other, so that it is known which end belongs to which.
            let client = proxy.connect().await;
            let (server, _) = upstream.accept().await.unwrap();
            open.push((client, server));
        }
        let third = proxy.connect().await;
        let accepted = timeout(Duration::from_millis(100), upstream.accept()).await;
        assert!(accepted.is_err(), "a third session while two are open");
        open.pop();
        let (third_server, _) = upstream.accept().await.unwrap();
        third_server.write_all(b"x").await.unwrap();
        third.read_exact(&mut [0]).await.unwrap();
        drop((open, third, third_server));
        assert_eq!(proxy.end().await.sessions, 3);
    });
}

#[test]
fn sessions_may_finish_after_the_stop_and_new_ones_are_refused() {
    run(async {
        let (proxy, client, server) = through(|_| ()).await;
        proxy.stop.send(()).unwrap();
        while TcpStream::connect(proxy.address).await.is_ok() {
            sleep(Duration::from_millis(1)).await;
        }
        client.write_all(b"x").await.unwrap();
        server.read_exact(&mut [0]).await.unwrap();
        assert!(!proxy.task.is_finished());
        drop((client, server));
        let counts = Counts::of(&proxy.task.await.unwrap());
        assert_eq!((counts.sessions, counts.broken), (1, 0));
    });
}

#[test]
fn sessions_that_do_not_finish_in_the_time_of_grace_are_cut_off() {
    run(async {
        let (proxy, client, server) = through(|options| {
            options.grace = Duration::from_millis(50);
            // Nothing else ends the session.
            options.idle_timeout = Duration::MAX;
        })
        .await;
        proxy.end().await;
        assert_eq!(client.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(server.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        mainspring::task::yield_now().await;
        assert_eq!(Handle::current().metrics().descriptors, 2, "the sockets of this test");
    });
}
