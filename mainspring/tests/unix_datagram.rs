//! Unix sockets of datagrams by behaviour: what holds for all sockets of datagrams, and what is their own: addresses
//! and the receivers' queues.

mod common;
#[path = "common/datagrams.rs"]
mod datagrams;

use std::future::Future;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use common::sockets::{is_timeout, poll_once};
use common::{SOON, check, run};
use mainspring::net::UnixDatagram;
use mainspring::time::{Duration, Instant, sleep, timeout};

type Socket = UnixDatagram;
type Std = std::os::unix::net::UnixDatagram;

/// An abstract name that no other test has.
fn name() -> SocketAddr {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    SocketAddr::from_abstract_name(format!("mainspring-test-{}-{number}", std::process::id())).unwrap()
}

fn bound() -> (UnixDatagram, SocketAddr) {
    let name = name();
    (UnixDatagram::bind_addr(&name).unwrap(), name)
}

async fn pair() -> (UnixDatagram, UnixDatagram) {
    let ((a, a_addr), (b, b_addr)) = (bound(), bound());
    a.connect_addr(&b_addr).unwrap();
    b.connect_addr(&a_addr).unwrap();
    (a, b)
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("mainspring-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A receiver whose queue others have filled.
fn full_receiver() -> (UnixDatagram, SocketAddr) {
    let (receiver, addr) = bound();
    // A connected one is told by the kernel how full the queue is, others that it is full.
    let other = Std::unbound().unwrap();
    other.set_nonblocking(true).unwrap();
    while other.send_to_addr(b"others", &addr).is_ok() {}
    (receiver, addr)
}

async fn received(socket: &UnixDatagram) -> Vec<u8> {
    let mut buffer = [0; 100];
    let count = timeout(SOON, socket.recv(&mut buffer)).await.expect("it comes soon").unwrap();
    buffer[..count].to_vec()
}

/// Receives what comes until it is this.
async fn received_at_last(socket: &UnixDatagram, last: &[u8]) {
    while received(socket).await != last {}
}

#[test]
fn a_pair_is_connected_and_has_no_names() {
    check(|| async {
        let (a, b) = UnixDatagram::pair().unwrap();
        a.send(b"to b").await.unwrap();
        b.send(b"to a").await.unwrap();
        assert_eq!(received(&b).await, b"to b");
        let mut buffer = [0; 9];
        let (count, peer) = a.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..count], b"to a");
        assert!(peer.is_unnamed() && a.local_addr().unwrap().is_unnamed());
    });
}

#[test]
fn paths_and_abstract_names_lead_to_sockets_and_back() {
    run(2, async {
        let folder = Folder::new("paths");
        let (a_path, b_path) = (folder.0.join("a"), folder.0.join("b"));
        let (a, b) = (UnixDatagram::bind(&a_path).unwrap(), UnixDatagram::bind(&b_path).unwrap());
        let (c, c_addr) = bound();
        assert_eq!(a.local_addr().unwrap().as_pathname(), Some(&*a_path));
        b.send_to(b"from b", &a_path).await.unwrap();
        c.try_send_to(b"from c", &a_path).unwrap();
        UnixDatagram::unbound().unwrap().send_to(b"from nobody", &a_path).await.unwrap();
        let mut buffer = [0; 100];
        let (count, peer) = a.peek_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..count], peer.as_pathname()), (&b"from b"[..], Some(&*b_path)));
        assert_eq!(received(&a).await, b"from b");
        a.send_to_addr(b"to b", &peer).await.unwrap();
        assert_eq!(received(&b).await, b"to b");
        let (count, peer) = a.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..count], b"from c");
        assert_eq!(peer.as_abstract_name(), c_addr.as_abstract_name());
        a.send_to_addr(b"to c", &peer).await.unwrap();
        assert_eq!(received(&c).await, b"to c");
        let (count, peer) = a.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..count], b"from nobody");
        assert!(peer.is_unnamed());

        b.connect(&a_path).unwrap();
        assert_eq!(b.peer_addr().unwrap().as_pathname(), Some(&*a_path));
        b.send(b"connected").await.unwrap();
        assert_eq!(received(&a).await, b"connected");
    });
}

#[test]
fn a_sender_with_the_longest_path_that_there_may_be_is_told() {
    run(1, async {
        let folder = Folder::new("longest");
        let (receiver, addr) = bound();
        let length = 108 - folder.0.as_os_str().len() - 1;
        let path = folder.0.join("x".repeat(length));
        // Without a zero at its end, which std and socket2 do not allow, but others do.
        let sender = Std::unbound().unwrap();
        rustix::net::bind(&sender, &rustix::net::SocketAddrUnix::new(&path).unwrap()).unwrap();
        for way in 0..3 {
            sender.send_to_addr(b"datagram", &addr).unwrap();
            let mut buffer = [0; 9];
            let error = receiver.peek_from(&mut buffer).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
            let (count, peer) = match way {
                0 => receiver.recv_from(&mut buffer).await,
                1 => receiver.try_recv_from(&mut buffer),
                _ => std::future::poll_fn(|context| receiver.poll_recv_from(context, &mut buffer)).await,
            }
            .unwrap();
            assert_eq!((count, peer.as_pathname()), (8, Some(&*path)));
        }
    });
}

#[test]
fn what_is_wrong_with_an_address_is_said() {
    run(1, async {
        let folder = Folder::new("wrong");
        let path = folder.0.join("a");
        let kind = |result: io::Result<UnixDatagram>| result.unwrap_err().kind();
        let a = UnixDatagram::bind(&path).unwrap();
        assert_eq!(kind(UnixDatagram::bind(&path)), io::ErrorKind::AddrInUse);
        assert_eq!(kind(UnixDatagram::bind("x".repeat(200))), io::ErrorKind::InvalidInput);
        let b = UnixDatagram::unbound().unwrap();
        let kind = |result: io::Result<usize>| result.unwrap_err().kind();
        assert_eq!(kind(b.send_to(b"x", "x".repeat(200)).await), io::ErrorKind::InvalidInput);
        assert_eq!(kind(b.send_to(b"x", folder.0.join("none")).await), io::ErrorKind::NotFound);
        assert_eq!(b.connect(folder.0.join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(kind(b.send(b"x").await), io::ErrorKind::NotConnected);
        drop(a);
        // The path stays, and leads nowhere.
        assert_eq!(kind(b.send_to(b"x", &path).await), io::ErrorKind::ConnectionRefused);
        assert_eq!(kind(b.try_send_to(b"x", &path)), io::ErrorKind::ConnectionRefused);
        // An abstract name goes.
        let (c, name) = bound();
        drop(c);
        UnixDatagram::bind_addr(&name).unwrap();
    });
}

// Full queues.

#[test]
fn a_sender_goes_on_when_the_connected_receiver_takes_a_datagram_of_others() {
    check(|| async {
        let (receiver, addr) = full_receiver();
        let sender = UnixDatagram::unbound().unwrap();
        sender.connect_addr(&addr).unwrap();
        for _ in 0..20 {
            let mut send = Box::pin(sender.send(b"at last"));
            assert!(poll_once(send.as_mut()).await.is_pending());
            assert_eq!(sender.try_send(b"x").unwrap_err().kind(), io::ErrorKind::WouldBlock);
            // Without a pause of its own: it is the kernel that tells.
            received(&receiver).await;
            received(&receiver).await;
            assert_eq!(timeout(SOON, send).await.unwrap().unwrap(), 7);
            while sender.try_send(b"others").is_ok() {}
        }
    });
}

#[test]
fn a_sender_goes_on_when_an_unconnected_receiver_takes_a_datagram_of_others() {
    check(|| async {
        let (receiver, addr) = full_receiver();
        let sender = UnixDatagram::unbound().unwrap();
        let mut send = Box::pin(sender.send_to_addr(b"at last", &addr));
        assert!(poll_once(send.as_mut()).await.is_pending());
        received(&receiver).await;
        received(&receiver).await;
        assert_eq!(timeout(SOON, send).await.unwrap().unwrap(), 7);
        received_at_last(&receiver, b"at last").await;
    });
}

#[test]
fn a_full_receiver_does_not_keep_those_waiting_who_send_to_others() {
    check(|| async {
        let (_full, full_addr) = full_receiver();
        let ((free, free_addr), (peer, peer_addr)) = (bound(), bound());
        let sender = UnixDatagram::unbound().unwrap();
        sender.connect_addr(&peer_addr).unwrap();
        let mut blocked = Box::pin(sender.send_to_addr(b"blocked", &full_addr));
        for _ in 0..5 {
            assert!(poll_once(blocked.as_mut()).await.is_pending());
            timeout(SOON, sender.send_to_addr(b"free", &free_addr)).await.unwrap().unwrap();
            assert_eq!(received(&free).await, b"free");
            assert!(poll_once(blocked.as_mut()).await.is_pending());
            timeout(SOON, sender.send(b"peer")).await.unwrap().unwrap();
            assert_eq!(received(&peer).await, b"peer");
            assert!(poll_once(blocked.as_mut()).await.is_pending());
            let send = std::future::poll_fn(|context| sender.poll_send(context, b"polled"));
            timeout(SOON, send).await.unwrap().unwrap();
            assert_eq!(received(&peer).await, b"polled");
        }
    });
}

#[test]
fn a_task_that_sends_to_a_receiver_that_always_has_room_yields_all_the_same() {
    run(1, async {
        let (receiver, addr) = bound();
        let sender = UnixDatagram::unbound().unwrap();
        let yields = std::future::poll_fn(|context| {
            Poll::Ready((0..1_000).any(|_| {
                let pending = pin!(sender.send_to_addr(b"x", &addr)).poll(context).is_pending();
                let _ = receiver.try_recv(&mut [0]);
                pending
            }))
        });
        assert!(yields.await);
    });
}

/// Counts how often a future is polled.
struct Polls<F>(Pin<Box<F>>, usize);

impl<F: Future> Future for Polls<F> {
    type Output = (F::Output, usize);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.1 += 1;
        let polls = self.1;
        self.0.as_mut().poll(context).map(|output| (output, polls))
    }
}

#[test]
fn a_sender_that_waits_for_a_full_receiver_does_not_spin() {
    run(2, async {
        let (_full, addr) = full_receiver();
        let (free, free_addr) = bound();
        let sender = UnixDatagram::unbound().unwrap();
        sender.set_write_deadline(Instant::now() + Duration::from_millis(300)).unwrap();
        let (result, polls) = Polls(Box::pin(sender.send_to_addr(b"x", &addr)), 0).await;
        assert!(is_timeout(&result));
        // After 0.25, 0.5, 1, 2, 4, 8 and then each 16 ms, and each time once more, as each failure is an edge.
        assert!((8..=80).contains(&polls), "{polls}");
        sender.set_write_deadline(Instant::now() + Duration::from_millis(100)).unwrap();
        sender.connect_addr(&addr).unwrap();
        let (result, polls) = Polls(Box::pin(sender.send(b"x")), 0).await;
        assert!(is_timeout(&result));
        // The kernel tells when there is room.
        assert!(polls <= 4, "{polls}");
        sender.set_deadline(None).unwrap();
        sender.send_to_addr(b"free", &free_addr).await.unwrap();
        assert_eq!(received(&free).await, b"free");
    });
}

#[test]
fn senders_that_wait_for_full_receivers_do_not_keep_one_another_busy() {
    run(2, async {
        let ((_full, addr), (_other_full, other_addr)) = (full_receiver(), full_receiver());
        let sender = UnixDatagram::unbound().unwrap();
        sender.set_write_deadline(Instant::now() + Duration::from_millis(300)).unwrap();
        let first = Polls(Box::pin(sender.send_to_addr(b"x", &addr)), 0);
        let second = Polls(Box::pin(sender.send_to_addr(b"x", &other_addr)), 0);
        let ((first, polls), (second, _)) = futures_util::join!(first, second);
        assert!(is_timeout(&first) && is_timeout(&second));
        assert!(polls <= 200, "{polls}");
    });
}

/// Each attempt of one that fails is an edge of the socket that all of them share.
#[test]
fn many_who_wait_to_send_on_one_socket_do_not_wake_one_another() {
    const SENDERS: usize = 100;
    run(2, async {
        let (_full, addr) = full_receiver();
        let sender = Arc::new(UnixDatagram::unbound().unwrap());
        sender.set_write_deadline(Instant::now() + Duration::from_millis(500)).unwrap();
        let mut sends = Vec::new();
        for _ in 0..SENDERS {
            let (sender, addr) = (Arc::clone(&sender), addr.clone());
            sends.push(mainspring::spawn(async move {
                Polls(Box::pin(sender.send_to_addr(b"x", &addr)), 0).await
            }));
            // So that they do not try again at the same times.
            sleep(Duration::from_micros(300)).await;
        }
        let mut polls = 0;
        for send in sends {
            let (result, of_one) = send.await.unwrap();
            assert!(is_timeout(&result));
            polls += of_one;
        }
        // Some 40 attempts each, and a poll for each.
        assert!(polls <= 100 * SENDERS, "{polls}");
    });
}

/// Counts how often it is called.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_deadline_that_lies_in_the_past_wakes_who_sends_at_once() {
    run(2, async {
        let (_full, addr) = full_receiver();
        let sender = UnixDatagram::unbound().unwrap();
        let (woken, mut send) = (Arc::new(Woken::default()), Box::pin(sender.send_to_addr(b"x", &addr)));
        let waker = Waker::from(Arc::clone(&woken));
        let mut poll = || send.as_mut().poll(&mut Context::from_waker(&waker));
        // Until it is between two attempts, and its own last failure has been heard of.
        loop {
            let before = woken.0.load(Ordering::SeqCst);
            assert!(poll().is_pending());
            sleep(Duration::from_millis(3)).await;
            if woken.0.load(Ordering::SeqCst) == before {
                break;
            }
        }
        let before = woken.0.load(Ordering::SeqCst);
        sender.set_write_deadline(Instant::now() - Duration::from_secs(1)).unwrap();
        assert!(woken.0.load(Ordering::SeqCst) > before);
        assert!(matches!(poll(), Poll::Ready(result) if is_timeout(&result)));
    });
}

#[test]
fn senders_that_wait_are_told_that_the_receiver_is_gone() {
    check(|| async {
        let refused = |result: io::Result<usize>| {
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        };
        let (receiver, addr) = full_receiver();
        let sender = UnixDatagram::unbound().unwrap();
        sender.connect_addr(&addr).unwrap();
        let mut connected = Box::pin(sender.send(b"x"));
        let other = UnixDatagram::unbound().unwrap();
        let mut unconnected = Box::pin(other.send_to_addr(b"x", &addr));
        assert!(poll_once(connected.as_mut()).await.is_pending());
        assert!(poll_once(unconnected.as_mut()).await.is_pending());
        drop(receiver);
        refused(timeout(SOON, connected).await.unwrap());
        refused(timeout(SOON, unconnected).await.unwrap());

        let (a, b) = UnixDatagram::pair().unwrap();
        while a.try_send(&[0; 100]).is_ok() {}
        let mut send = Box::pin(a.send(b"x"));
        assert!(poll_once(send.as_mut()).await.is_pending());
        drop(b);
        refused(timeout(SOON, send).await.unwrap());
    });
}

#[test]
fn datagrams_of_several_senders_arrive_once_and_in_order_however_slow_the_receiver_is() {
    check(|| async {
        const EACH: u32 = 1_000;
        let (receiver, addr) = bound();
        let senders: Vec<_> = (0..4_u8)
            .map(|sender| {
                let addr = addr.clone();
                mainspring::spawn(async move {
                    let socket = UnixDatagram::unbound().unwrap();
                    if sender % 2 == 0 {
                        socket.connect_addr(&addr).unwrap();
                    }
                    for number in 0..EACH {
                        let mut datagram = vec![sender];
                        datagram.extend(number.to_le_bytes());
                        if sender % 2 == 0 {
                            socket.send(&datagram).await.unwrap();
                        } else {
                            socket.send_to_addr(&datagram, &addr).await.unwrap();
                        }
                    }
                })
            })
            .collect();
        let mut next = [0_u32; 4];
        for count in 0..4 * EACH {
            let datagram = received(&receiver).await;
            let sender = usize::from(datagram[0]);
            assert_eq!(datagram[1..], next[sender].to_le_bytes());
            next[sender] += 1;
            if count % 512 == 0 {
                sleep(Duration::from_millis(1)).await;
            }
        }
        for sender in senders {
            sender.await.unwrap();
        }
    });
}
