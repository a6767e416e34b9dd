//! What holds for every kind of datagram socket; the file that includes this says which kind: its `Socket`, and
//! `pair`, two that are connected to one another and have addresses.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::join_all;
use mainspring::task::yield_now;
use mainspring::time::{Duration, Instant, sleep, timeout};
use tokio::sync::Semaphore;

use super::common::sockets::{is_timeout, poll_once};
use super::common::{SOON, check, run, runtime, until, watched};
use super::{Socket, Std, pair};

/// How many datagrams are on their way at most in the longer tests, as UDP drops what its receiver has no room for.
const WINDOW: usize = 16;

/// What must come soon.
async fn soon<F: Future>(future: F) -> F::Output {
    timeout(SOON, future).await.expect("it comes soon")
}

/// Receives one datagram.
async fn received(socket: &Socket) -> Vec<u8> {
    let mut buffer = vec![0; 65_536];
    let count = soon(socket.recv(&mut buffer)).await.unwrap();
    buffer.truncate(count);
    buffer
}

/// Nothing is there, now or within a moment.
async fn assert_nothing_comes(socket: &Socket) {
    let nothing = timeout(Duration::from_millis(5), socket.recv(&mut [0; 9])).await;
    assert!(nothing.is_err(), "{nothing:?}");
}

type Sent<'a> = Pin<Box<dyn Future<Output = io::Result<usize>> + Send + 'a>>;

#[test]
fn every_way_of_sending_and_receiving_moves_the_same_datagrams() {
    check(|| async {
        let (a, b) = pair().await;
        let sender = format!("{:?}", a.local_addr().unwrap());
        assert_eq!(format!("{:?}", b.peer_addr().unwrap()), sender);
        let ways: [fn(&Socket) -> Sent<'_>; 3] = [
            |a| Box::pin(a.send(b"datagram")),
            |a| Box::pin(async { a.try_send(b"datagram") }),
            |a| Box::pin(poll_fn(|context| a.poll_send(context, b"datagram"))),
        ];
        for send in ways {
            for receive in 0..6 {
                assert_eq!(soon(send(&a)).await.unwrap(), 8);
                soon(b.readable()).await.unwrap();
                let mut buffer = [0; 100];
                assert_eq!(soon(b.peek(&mut buffer)).await.unwrap(), 8);
                assert_eq!(&buffer[..9], b"datagram\0");
                let (count, peer) = soon(b.peek_from(&mut buffer)).await.unwrap();
                assert_eq!((count, format!("{peer:?}")), (8, sender.clone()));
                buffer.fill(0);
                let mut peer = None;
                let with_peer = |(count, address)| {
                    peer = Some(address);
                    count
                };
                let count = match receive {
                    0 => soon(b.recv(&mut buffer)).await,
                    1 => soon(b.recv_from(&mut buffer)).await.map(with_peer),
                    2 => b.try_recv(&mut buffer),
                    3 => b.try_recv_from(&mut buffer).map(with_peer),
                    4 => soon(poll_fn(|context| b.poll_recv(context, &mut buffer))).await,
                    _ => soon(poll_fn(|context| b.poll_recv_from(context, &mut buffer))).await.map(with_peer),
                };
                assert_eq!(count.unwrap(), 8);
                assert_eq!(&buffer[..9], b"datagram\0");
                assert!(peer.is_none_or(|peer| format!("{peer:?}") == sender));
                assert_nothing_comes(&b).await;
            }
        }
    });
}

#[test]
fn the_bounds_of_datagrams_are_kept_and_an_empty_one_is_one() {
    run(2, async {
        let (a, b) = pair().await;
        for size in [3, 0, 1, 0, 0, 9_000, 60_000, 2] {
            let sent: Vec<u8> = (0..size).map(|place| (place % 251) as u8).collect();
            assert_eq!(a.send(&sent).await.unwrap(), size);
            a.send(b"next").await.unwrap();
            assert_eq!(received(&b).await, sent);
            assert_eq!(received(&b).await, b"next");
        }
        assert_nothing_comes(&b).await;
    });
}

#[test]
fn an_empty_datagram_wakes_who_waits_for_one() {
    run(2, async {
        let (a, b) = pair().await;
        let mut buffer = [7; 4];
        let mut receive = Box::pin(b.recv(&mut buffer));
        assert!(poll_once(receive.as_mut()).await.is_pending());
        a.send(b"").await.unwrap();
        assert_eq!(soon(receive).await.unwrap(), 0);
        assert_eq!(buffer, [7; 4]);
    });
}

#[test]
fn an_empty_buffer_waits_for_a_datagram_and_takes_all_of_it() {
    run(2, async {
        let (a, b) = pair().await;
        {
            let mut receive = pin!(b.recv(&mut []));
            assert!(poll_once(receive.as_mut()).await.is_pending());
            assert_eq!(b.try_recv(&mut []).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            a.send(b"taken").await.unwrap();
            assert_eq!(soon(receive).await.unwrap(), 0);
        }
        a.send(b"looked at").await.unwrap();
        assert_eq!(soon(b.peek(&mut [])).await.unwrap(), 0);
        assert_eq!(received(&b).await, b"looked at");
        assert_nothing_comes(&b).await;
    });
}

#[test]
fn what_does_not_fit_is_cut_off_and_does_not_come_with_the_next() {
    run(2, async {
        let (a, b) = pair().await;
        a.send(b"too long").await.unwrap();
        a.send(b"next").await.unwrap();
        let mut buffer = [0; 3];
        assert_eq!(soon(b.peek(&mut buffer)).await.unwrap(), 3);
        assert_eq!(soon(b.recv(&mut buffer)).await.unwrap(), 3);
        assert_eq!(&buffer, b"too");
        assert_eq!(received(&b).await, b"next");
    });
}

#[test]
fn one_task_sends_while_another_receives_on_the_same_socket() {
    check(|| async {
        let (a, b) = pair().await;
        let (a, window) = (Arc::new(a), Arc::new(Semaphore::new(WINDOW)));
        let echo = mainspring::spawn(async move {
            for _ in 0..2_000 {
                let datagram = received(&b).await;
                b.send(&datagram).await.unwrap();
            }
        });
        let receiver = mainspring::spawn({
            let (a, window) = (Arc::clone(&a), Arc::clone(&window));
            async move {
                for number in 0..2_000_u32 {
                    assert_eq!(received(&a).await, number.to_le_bytes());
                    window.add_permits(1);
                }
            }
        });
        for number in 0..2_000_u32 {
            soon(window.acquire()).await.unwrap().forget();
            a.send(&number.to_le_bytes()).await.unwrap();
        }
        soon(echo).await.unwrap();
        soon(receiver).await.unwrap();
    });
}

#[test]
fn each_datagram_goes_to_one_of_several_receivers_and_none_is_lost() {
    check(|| async {
        let (a, b) = pair().await;
        let (b, window) = (Arc::new(b), Arc::new(Semaphore::new(WINDOW)));
        let receive = |b: Arc<Socket>, window: Arc<Semaphore>| async move {
            let mut got = Vec::new();
            loop {
                match received(&b).await[..] {
                    [] => return got,
                    ref bytes => got.push(u32::from_le_bytes(bytes.try_into().unwrap())),
                }
                window.add_permits(1);
            }
        };
        let receivers: Vec<_> =
            (0..4).map(|_| mainspring::spawn(receive(Arc::clone(&b), Arc::clone(&window)))).collect();
        for number in 0..2_000_u32 {
            soon(window.acquire()).await.unwrap().forget();
            a.send(&number.to_le_bytes()).await.unwrap();
        }
        for _ in 0..4 {
            a.send(b"").await.unwrap();
        }
        let mut all: Vec<u32> =
            soon(join_all(receivers)).await.into_iter().flat_map(Result::unwrap).collect();
        all.sort_unstable();
        assert!(all.iter().copied().eq(0..2_000), "{all:?}");
    });
}

#[test]
fn a_receiver_that_is_dropped_after_it_was_woken_leaves_the_datagram_to_the_next() {
    check(|| async {
        let (a, b) = pair().await;
        for round in 0..200_u32 {
            let (mut first, mut second) = ([0; 4], [0; 4]);
            let mut dropped = Box::pin(b.recv(&mut first));
            let mut waits = Box::pin(b.recv(&mut second));
            assert!(poll_once(dropped.as_mut()).await.is_pending());
            assert!(poll_once(waits.as_mut()).await.is_pending());
            a.send(&round.to_le_bytes()).await.unwrap();
            // Both are woken by the same edge; who is dropped may have been or not.
            if round % 2 == 0 {
                soon(b.readable()).await.unwrap();
            }
            drop(dropped);
            assert_eq!(soon(waits).await.unwrap(), 4);
            assert_eq!(second, round.to_le_bytes());
        }
    });
}

#[test]
fn what_is_not_ready_is_told_at_once_to_those_who_do_not_wait() {
    run(2, async {
        let (a, b) = pair().await;
        for _ in 0..3 {
            assert_eq!(b.try_recv(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            assert_eq!(b.try_recv_from(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            assert!(matches!(poll_once(pin!(b.writable())).await, Poll::Ready(Ok(()))));
            a.send(b"x").await.unwrap();
            // Whether the runtime has heard of it or not.
            until(|| b.try_recv(&mut [0]).is_ok()).await;
            // It may have heard of it only now; then it finds out that there is nothing any more.
            while poll_once(pin!(b.readable())).await.is_ready() {
                assert_eq!(b.try_recv(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            }
            let readable = b.readable();
            a.send(b"y").await.unwrap();
            soon(readable).await.unwrap();
            assert_eq!(received(&b).await, b"y");
        }
    });
}

#[test]
fn a_task_for_which_there_is_always_room_and_a_datagram_yields_all_the_same() {
    run(1, async {
        let (a, b) = pair().await;
        let mut sent = 0;
        let yields = |context: &mut Context<'_>| {
            let pending = (0..1_000).any(|_| {
                sent += 1;
                let pending = a.poll_send(context, b"x").is_pending();
                let _ = b.try_recv(&mut [0]);
                pending
            });
            Poll::Ready(pending)
        };
        assert!(poll_fn(yields).await);
        assert!(sent > 50, "{sent}");
        a.send(b"x").await.unwrap();
        let mut peeks = |context: &mut Context<'_>| {
            let pending = (0..1_000).any(|_| pin!(b.peek(&mut [0])).poll(context).is_pending());
            Poll::Ready(pending)
        };
        assert!(poll_fn(&mut peeks).await);
    });
}

// Deadlines.

#[test]
fn after_the_deadline_receiving_fails_although_there_is_a_datagram_which_stays() {
    run(2, async {
        let (a, b) = pair().await;
        a.send(b"kept").await.unwrap();
        soon(b.readable()).await.unwrap();
        b.set_read_deadline(Instant::now() - Duration::from_secs(1)).unwrap();
        let mut buffer = [0; 9];
        assert!(is_timeout(&b.recv(&mut buffer).await));
        assert!(is_timeout(&b.recv_from(&mut buffer).await));
        assert!(is_timeout(&b.peek(&mut buffer).await));
        assert!(is_timeout(&b.try_recv(&mut buffer)));
        assert!(is_timeout(&b.try_recv_from(&mut buffer)));
        assert!(is_timeout(&b.recv(&mut []).await));
        assert!(is_timeout(&b.readable().await));
        b.send(b"other side").await.unwrap();
        b.set_read_deadline(None).unwrap();
        assert_eq!(received(&b).await, b"kept");
        assert_eq!(received(&a).await, b"other side");
    });
}

#[test]
fn after_the_deadline_sending_fails_although_there_is_room() {
    run(2, async {
        let (a, b) = pair().await;
        a.set_write_deadline(Instant::now()).unwrap();
        assert!(is_timeout(&a.send(b"x").await));
        assert!(is_timeout(&a.try_send(b"x")));
        assert!(is_timeout(&poll_fn(|context| a.poll_send(context, b"x")).await));
        assert!(is_timeout(&a.writable().await));
        a.set_deadline(Instant::now() + Duration::from_secs(3_600)).unwrap();
        a.send(b"y").await.unwrap();
        assert_eq!(received(&b).await, b"y");
    });
}

#[test]
fn a_deadline_that_is_moved_by_another_thread_ends_the_wait_at_its_new_time() {
    let (_watchdog, runtime) = watched(2);
    runtime.block_on(async {
        let (_a, b) = pair().await;
        b.set_read_deadline(Instant::now() + Duration::from_secs(3_600)).unwrap();
        let deadlines = b.deadlines();
        let waits = mainspring::spawn(async move { (b.recv(&mut [0]).await, b) });
        yield_now().await;
        let at = Instant::now() + Duration::from_millis(20);
        std::thread::spawn(move || deadlines.set_read_deadline(at).unwrap()).join().unwrap();
        let (result, b) = soon(waits).await.unwrap();
        assert!(is_timeout(&result));
        assert!(Instant::now() >= at);
        b.set_deadline(None).unwrap();
        assert!(poll_once(pin!(b.recv(&mut [0]))).await.is_pending());
    });
}

// Ends and conversions.

#[test]
fn who_waits_is_told_when_the_runtime_ends() {
    let (_watchdog, first) = watched(1);
    let second = runtime(1);
    let (a, b) = first.block_on(pair());
    let waits = second.spawn(async move { (b.recv(&mut [0]).await, b) });
    std::thread::sleep(Duration::from_millis(5));
    drop(first);
    let (result, b) = second.block_on(soon(waits)).unwrap();
    assert!(result.is_err());
    assert!(second.block_on(a.send(b"x")).is_err());
    assert!(b.try_recv(&mut [0]).is_err());
    assert!(b.set_deadline(Instant::now()).is_err());
}

#[test]
fn a_socket_goes_to_std_and_back_with_its_unread_datagrams() {
    run(2, async {
        let (a, b) = pair().await;
        for datagram in [b"one", b"two", b"six"] {
            a.send(datagram).await.unwrap();
        }
        assert_eq!(received(&b).await, b"one");
        let b: Std = b.into_std();
        let mut buffer = [0; 9];
        assert_eq!(b.recv(&mut buffer).unwrap(), 3);
        assert_eq!(&buffer[..3], b"two");
        // It may be in blocking mode when it comes.
        b.set_nonblocking(false).unwrap();
        let b = Socket::try_from(b).unwrap();
        assert_eq!(received(&b).await, b"six");
        assert!(poll_once(pin!(b.recv(&mut buffer))).await.is_pending());
        sleep(Duration::from_millis(1)).await;
        a.send(b"new").await.unwrap();
        assert_eq!(received(&b).await, b"new");
    });
}
