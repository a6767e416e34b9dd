//! The runtime as quinn uses it, without QUIC. QUIC itself is in `examples/quinn_echo.rs`.

use std::future::{Future, poll_fn};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use ::quinn::Runtime as _;

use super::*;
use crate::runtime::Builder;

const SOON: Duration = Duration::from_secs(30);

fn bound() -> std::net::UdpSocket {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap()
}

fn transmit(destination: SocketAddr, contents: &[u8], segment_size: Option<usize>) -> Transmit<'_> {
    Transmit { destination, ecn: None, contents, segment_size, src_ip: None }
}

async fn soon<F: Future>(future: F) -> F::Output {
    time::timeout(SOON, future).await.expect("it comes soon")
}

/// Receives once; the datagrams with their senders.
async fn received(socket: &dyn AsyncUdpSocket) -> io::Result<Vec<(Vec<u8>, SocketAddr)>> {
    let mut buffers = vec![vec![0; 65_536]; 4];
    let mut metas = [RecvMeta::default(); 4];
    let count = soon(poll_fn(|context| {
        let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        socket.poll_recv(context, &mut slices, &mut metas)
    }))
    .await?;
    let each = metas[..count].iter().zip(&buffers).flat_map(|(meta, buffer)| {
        buffer[..meta.len].chunks(meta.stride.max(1)).map(|datagram| (datagram.to_vec(), meta.addr))
    });
    Ok(each.collect())
}

#[test]
fn what_is_sent_in_segments_arrives_as_datagrams() {
    crate::block_on(async {
        let runtime = Runtime::new();
        let (a, b) = (runtime.wrap_udp_socket(bound()).unwrap(), runtime.wrap_udp_socket(bound()).unwrap());
        let (a_addr, b_addr) = (a.local_addr().unwrap(), b.local_addr().unwrap());
        // What the kernel can is used: this kernel's own answer.
        let state = UdpSocketState::new((&bound()).into()).unwrap();
        assert_eq!(a.max_transmit_segments(), state.max_gso_segments());
        assert_eq!(a.max_receive_segments(), state.gro_segments());
        assert_eq!(a.may_fragment(), state.may_fragment());

        let segments = a.max_transmit_segments().min(8);
        let contents: Vec<u8> = (0..segments * 1_000 - 1).map(|place| (place / 1_000) as u8).collect();
        a.try_send(&transmit(b_addr, &contents, Some(1_000))).unwrap();
        let mut all = Vec::new();
        while all.len() < segments {
            all.extend(received(&*b).await.unwrap());
        }
        let expected: Vec<_> = contents.chunks(1_000).map(|datagram| (datagram.to_vec(), a_addr)).collect();
        assert_eq!(all, expected);
    });
}

#[test]
fn that_an_earlier_datagram_was_refused_does_not_end_receiving() {
    crate::block_on(async {
        let nobody = bound().local_addr().unwrap();
        let a = bound();
        a.connect(nobody).unwrap();
        let a_addr = a.local_addr().unwrap();
        let a = Runtime::new().wrap_udp_socket(a).unwrap();
        let waits = crate::spawn({
            let a = Arc::clone(&a);
            async move { received(&*a).await }
        });
        a.try_send(&transmit(nobody, b"x", None)).unwrap();
        time::sleep(Duration::from_millis(5)).await;
        a.try_send(&transmit(nobody, b"x", None)).unwrap();
        let peer = std::net::UdpSocket::bind(nobody).unwrap();
        peer.send_to(b"here", a_addr).unwrap();
        assert_eq!(soon(waits).await.unwrap().unwrap(), [(b"here".to_vec(), nobody)]);
    });
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn each_poller_is_woken_when_there_is_room_again() {
    // A Unix socket in a UDP socket's place: of a UDP socket on the loopback interface the buffer is never full.
    let (a, b) = UnixDatagram::pair().unwrap();
    a.set_nonblocking(true).unwrap();
    b.set_nonblocking(true).unwrap();
    let a = std::net::UdpSocket::from(OwnedFd::from(a));
    let state = UdpSocketState::new((&bound()).into()).unwrap();
    let socket = Arc::new(Socket { io: UdpSocket::try_from(a).unwrap(), state });
    let counts: Vec<Arc<Count>> = (0..3).map(|_| Arc::default()).collect();
    let mut pollers: Vec<_> = counts.iter().map(|_| Arc::clone(&socket).create_io_poller()).collect();
    let mut poll = |which: usize| {
        let waker = Waker::from(Arc::clone(&counts[which]));
        pollers[which].as_mut().poll_writable(&mut Context::from_waker(&waker))
    };
    let woken = || counts.iter().map(|count| count.0.load(Ordering::SeqCst)).collect::<Vec<_>>();
    for round in 1..=3 {
        assert!(matches!(poll(0), Poll::Ready(Ok(()))), "there is room");
        assert!(matches!(poll(0), Poll::Ready(Ok(()))), "a poller may be used again");
        let fill = || socket.io.descriptor().try_anyway(Direction::Write, |io| io.send(&[0; 1_000]));
        let full = std::iter::repeat_with(fill).find_map(Result::err).unwrap();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        assert!((0..3).all(|which| poll(which).is_pending()), "the failed attempt took the readiness away");
        while b.recv(&mut [0; 1_000]).is_ok() {}
        let start = Instant::now();
        while woken() != vec![round; 3] && start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(woken(), vec![round; 3]);
    }
    drop(pollers);
}

#[test]
fn on_a_given_runtime_everything_happens_there() {
    let first = Builder::new().processors(1).thread_name("quinn-here").build().unwrap();
    let runtime = Runtime::on(first.handle());
    // From a thread of no runtime.
    let (send, receive) = std::sync::mpsc::channel();
    runtime.spawn(Box::pin(async move {
        send.send(std::thread::current().name().map(str::to_owned)).unwrap();
    }));
    let name = receive.recv_timeout(SOON).unwrap().unwrap();
    assert!(name.starts_with("quinn-here"), "{name}");
    let socket = runtime.wrap_udp_socket(bound()).unwrap();
    assert!(crate::runtime::Handle::try_current().is_err(), "the thread works for none again");
    drop(first);
    let error = crate::block_on(received(&*socket)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Other, "its poller has ended");
    assert!(runtime.wrap_udp_socket(bound()).is_err());
}

#[test]
fn a_timer_can_be_set_anew_also_after_it_has_fired() {
    crate::block_on(async {
        let runtime = Runtime::new();
        let start = runtime.now();
        let mut timer = runtime.new_timer(start + Duration::from_secs(3_600));
        for milliseconds in [2, 4] {
            let at = start + Duration::from_millis(milliseconds);
            timer.as_mut().reset(at);
            soon(poll_fn(|context| timer.as_mut().poll(context))).await;
            assert!(runtime.now() >= at);
        }
        timer.as_mut().reset(start + Duration::from_secs(3_600));
        let mut waits = pin!(poll_fn(|context| timer.as_mut().poll(context)));
        assert!(poll_fn(|context| Poll::Ready(waits.as_mut().poll(context))).await.is_pending());
    });
}
