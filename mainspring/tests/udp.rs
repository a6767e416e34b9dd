//! UDP sockets by behaviour: what holds for all sockets of datagrams, and what is UDP's own.

mod common;
#[path = "common/datagrams.rs"]
mod datagrams;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::task::Poll;

use common::sockets::poll_once;
use common::{SOON, check, run, until};
use mainspring::net::UdpSocket;
use mainspring::time::{Duration, timeout};
use socket2::SockRef;

type Socket = UdpSocket;
type Std = std::net::UdpSocket;

async fn bound() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

async fn pair() -> (UdpSocket, UdpSocket) {
    let ((a, a_addr), (b, b_addr)) = (bound().await, bound().await);
    a.connect(b_addr).await.unwrap();
    b.connect(a_addr).await.unwrap();
    (a, b)
}

async fn received_from(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 1_500];
    let receive = timeout(SOON, socket.recv_from(&mut buffer)).await;
    let (count, peer) = receive.expect("it comes soon").unwrap();
    (buffer[..count].to_vec(), peer)
}

/// An address at which nobody is.
async fn nobody() -> SocketAddr {
    bound().await.1
}

#[test]
fn an_unconnected_socket_sends_to_anybody_and_is_told_who_sent_what() {
    check(|| async {
        let ((a, a_addr), (b, b_addr), (c, c_addr)) = (bound().await, bound().await, bound().await);
        assert_eq!(b.send_to(b"from b", a_addr).await.unwrap(), 6);
        assert_eq!(c.try_send_to(b"from c", a_addr).unwrap(), 6);
        std::future::poll_fn(|context| c.poll_send_to(context, b"", a_addr)).await.unwrap();
        let mut all = [received_from(&a).await, received_from(&a).await, received_from(&a).await];
        all.sort();
        assert_eq!(all, [(vec![], c_addr), (b"from b".to_vec(), b_addr), (b"from c".to_vec(), c_addr)]);
        for (_, peer) in all {
            a.send_to(b"answer", peer).await.unwrap();
        }
        assert_eq!(received_from(&b).await, (b"answer".to_vec(), a_addr));
        assert_eq!(received_from(&c).await, (b"answer".to_vec(), a_addr));
        assert_eq!(received_from(&c).await, (b"answer".to_vec(), a_addr));
    });
}

#[test]
fn a_connected_socket_receives_from_its_peer_alone_and_can_be_connected_to_another() {
    run(2, async {
        let ((a, a_addr), (b, b_addr), (c, c_addr)) = (bound().await, bound().await, bound().await);
        a.connect(b_addr).await.unwrap();
        assert_eq!(a.peer_addr().unwrap(), b_addr);
        assert_eq!(b.peer_addr().unwrap_err().kind(), io::ErrorKind::NotConnected);
        c.send_to(b"stranger", a_addr).await.unwrap();
        b.send_to(b"peer", a_addr).await.unwrap();
        assert_eq!(received_from(&a).await, (b"peer".to_vec(), b_addr));
        a.connect(c_addr).await.unwrap();
        a.send(b"hello").await.unwrap();
        assert_eq!(received_from(&c).await, (b"hello".to_vec(), a_addr));
        b.send_to(b"former peer", a_addr).await.unwrap();
        c.send_to(b"peer", a_addr).await.unwrap();
        assert_eq!(received_from(&a).await, (b"peer".to_vec(), c_addr));
    });
}

#[test]
fn a_refused_datagram_fails_one_operation_and_the_socket_goes_on() {
    check(|| async {
        let (a, _) = bound().await;
        let addr = nobody().await;
        a.connect(addr).await.unwrap();
        // Who waits to receive is told.
        {
            let mut buffer = [0; 9];
            let mut receive = pin!(a.recv(&mut buffer));
            assert!(poll_once(receive.as_mut()).await.is_pending());
            a.send(b"x").await.unwrap();
            let error = timeout(SOON, receive).await.unwrap().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        }
        // Who sends next is told.
        a.send(b"x").await.unwrap();
        until(|| match a.try_send(b"y") {
            Ok(_) => false,
            Err(error) => error.kind() == io::ErrorKind::ConnectionRefused,
        })
        .await;
        // It can be asked for, if nobody has been told.
        a.send(b"x").await.ok();
        until(
            || matches!(a.take_error(), Ok(Some(error)) if error.kind() == io::ErrorKind::ConnectionRefused),
        )
        .await;
        let b = UdpSocket::bind(addr).await.unwrap();
        while a.send(b"now").await.is_err() {}
        assert_eq!(received_from(&b).await, (b"now".to_vec(), a.local_addr().unwrap()));
        b.send_to(b"yes", a.local_addr().unwrap()).await.unwrap();
        let mut buffer = [0; 9];
        assert_eq!(timeout(SOON, a.recv(&mut buffer)).await.unwrap().unwrap(), 3);
    });
}

#[test]
fn nobody_there_is_not_reported_to_an_unconnected_socket() {
    run(2, async {
        let (a, _) = bound().await;
        let addr = nobody().await;
        for _ in 0..20 {
            a.send_to(b"x", addr).await.unwrap();
        }
        assert!(poll_once(pin!(a.recv(&mut [0]))).await.is_pending());
        assert!(a.take_error().unwrap().is_none());
    });
}

#[test]
fn a_datagram_that_is_too_long_is_refused_and_the_next_is_sent() {
    run(2, async {
        let (a, b) = pair().await;
        let error = a.send(&[0; 65_508]).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::MSGSIZE.raw_os_error()));
        a.send(&[7; 65_507]).await.unwrap();
        let mut buffer = vec![0; 65_536];
        assert_eq!(timeout(SOON, b.recv(&mut buffer)).await.unwrap().unwrap(), 65_507);
    });
}

#[test]
fn names_are_looked_up() {
    run(2, async {
        let a = UdpSocket::bind("localhost:0").await.unwrap();
        let addr = a.local_addr().unwrap();
        let b = UdpSocket::bind((addr.ip(), 0)).await.unwrap();
        b.connect(("localhost", addr.port())).await.unwrap();
        b.send(b"x").await.unwrap();
        assert_eq!(received_from(&a).await.0, b"x");
        a.send_to(b"y", format!("localhost:{}", b.local_addr().unwrap().port())).await.unwrap();
        assert_eq!(received_from(&b).await.0, b"y");
        assert_eq!(a.send_to(b"z", "no address").await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(UdpSocket::bind("no address").await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(UdpSocket::bind(addr).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let b_addr: &[SocketAddr] = &[addr, "127.0.0.1:0".parse().unwrap()];
        UdpSocket::bind(b_addr).await.expect("the second address is free");
    });
}

#[test]
fn ipv6_works_where_there_is_any() {
    run(2, async {
        let Ok(a) = UdpSocket::bind("[::1]:0").await else {
            eprintln!("skipped: this machine has no IPv6");
            return;
        };
        let b = UdpSocket::bind("[::1]:0").await.unwrap();
        b.send_to(b"six", a.local_addr().unwrap()).await.unwrap();
        assert_eq!(received_from(&a).await, (b"six".to_vec(), b.local_addr().unwrap()));
        let group = Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0, 0x1234);
        if a.join_multicast_v6(&group, 0).is_ok() {
            a.leave_multicast_v6(&group, 0).unwrap();
            assert!(a.leave_multicast_v6(&group, 0).is_err(), "it has left");
        }
        a.set_multicast_loop_v6(false).unwrap();
        assert!(!a.multicast_loop_v6().unwrap());
    });
}

#[test]
fn options_are_what_they_were_set_to_and_others_can_be_had_from_socket2() {
    run(1, async {
        let (a, _) = bound().await;
        assert!(!a.broadcast().unwrap());
        a.set_broadcast(true).unwrap();
        assert!(a.broadcast().unwrap());
        a.set_ttl(17).unwrap();
        assert_eq!(a.ttl().unwrap(), 17);
        assert_eq!((a.multicast_ttl_v4().unwrap(), a.multicast_loop_v4().unwrap()), (1, true));
        a.set_multicast_ttl_v4(3).unwrap();
        a.set_multicast_loop_v4(false).unwrap();
        assert_eq!((a.multicast_ttl_v4().unwrap(), a.multicast_loop_v4().unwrap()), (3, false));
        SockRef::from(&a).set_tos_v4(0x10).unwrap();
        assert_eq!(SockRef::from(&a).tos_v4().unwrap(), 0x10);
    });
}

#[test]
fn what_is_sent_to_a_multicast_group_comes_to_those_who_have_joined_it() {
    run(2, async {
        let group = Ipv4Addr::new(239, 255, 77, 3);
        let receiver = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        let to = SocketAddr::from((group, receiver.local_addr().unwrap().port()));
        let (sender, sender_addr) = bound().await;
        let lends_itself = receiver.join_multicast_v4(group, Ipv4Addr::LOCALHOST).is_ok()
            && SockRef::from(&sender).set_multicast_if_v4(&Ipv4Addr::LOCALHOST).is_ok()
            && sender.send_to(b"to all", to).await.is_ok();
        if !lends_itself {
            eprintln!("skipped: this machine's loopback interface does no multicast");
            return;
        }
        assert_eq!(received_from(&receiver).await, (b"to all".to_vec(), sender_addr));
        receiver.leave_multicast_v4(group, Ipv4Addr::LOCALHOST).unwrap();
        sender.send_to(b"to all others", to).await.unwrap();
        sender.send_to(b"to it", ("127.0.0.1", to.port())).await.unwrap();
        assert_eq!(received_from(&receiver).await.0, b"to it");
    });
}

#[test]
fn dropping_a_socket_frees_its_address_at_once() {
    run(2, async {
        let (a, addr) = bound().await;
        let waits = mainspring::spawn(async move {
            let _ = timeout(Duration::from_millis(1), a.recv(&mut [0])).await;
            drop(a);
        });
        waits.await.unwrap();
        let again = UdpSocket::bind(addr).await.unwrap();
        assert!(matches!(poll_once(pin!(again.writable())).await, Poll::Ready(Ok(()))));
    });
}
