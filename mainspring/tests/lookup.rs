//! Looking up hosts: what is an address, what is a name, and how long it may take.

mod common;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use common::{check, run};
use mainspring::net::{TcpListener, TcpStream, lookup_host, lookup_host_until};
use mainspring::time::Instant;

#[test]
fn an_address_is_what_it_is_and_needs_no_thread() {
    check(|| async {
        for text in ["127.0.0.1:80", "[::1]:443", "8.8.8.8:53"] {
            let addrs: Vec<SocketAddr> = lookup_host(text).await.unwrap().collect();
            assert_eq!(addrs, [text.parse().unwrap()]);
        }
        let addrs: Vec<SocketAddr> = lookup_host(("::1", 7)).await.unwrap().collect();
        assert_eq!(addrs, ["[::1]:7".parse().unwrap()]);
        let metrics = mainspring::runtime::Handle::current().metrics();
        assert_eq!((metrics.blocking_threads, metrics.handoffs_declared), (0, 0));
    });
}

#[test]
fn localhost_is_found_by_many_at_once() {
    check(|| async {
        let lookups: Vec<_> = (1..=200_u16)
            .map(|port| mainspring::spawn(async move { (port, lookup_host(("localhost", port)).await) }))
            .collect();
        for lookup in lookups {
            let (port, addrs) = lookup.await.unwrap();
            let addrs: Vec<SocketAddr> = addrs.unwrap().collect();
            assert!(!addrs.is_empty());
            assert!(addrs.iter().all(|addr| addr.ip().is_loopback() && addr.port() == port));
        }
    });
}

#[test]
fn what_is_no_host_is_an_error_that_says_so() {
    check(|| async {
        assert_eq!(lookup_host("localhost").await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let none: &[SocketAddr] = &[];
        assert_eq!(lookup_host(none).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        // Reserved never to exist; the error is the resolver's, as std gives it.
        let ours = lookup_host("no-such-host.invalid:80").await.unwrap_err();
        let stds =
            mainspring::blocking(|| std::net::ToSocketAddrs::to_socket_addrs("no-such-host.invalid:80"));
        let stds = stds.unwrap_err();
        assert_eq!((ours.kind(), ours.to_string()), (stds.kind(), stds.to_string()));
    });
}

#[test]
fn a_deadline_that_has_passed_is_told_at_once_and_one_to_come_is_none() {
    check(|| async {
        for host in ["127.0.0.1:80", "localhost:80"] {
            let error = lookup_host_until(host, Instant::now()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            let never = Instant::now() + Duration::MAX;
            assert!(lookup_host_until(host, never).await.unwrap().all(|addr| addr.ip().is_loopback()));
        }
    });
}

#[test]
fn a_name_is_connected_to() {
    run(2, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = TcpStream::connect(("localhost", port)).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap().ip(), "127.0.0.1".parse::<IpAddr>().unwrap());
    });
}
