//! TCP streams by behaviour, deadlines aside: what all kinds of streams have in common, and what is TCP's own.

mod common;
#[path = "net/streams.rs"]
mod streams;

use std::io;
use std::pin::pin;
use std::sync::Arc;

use common::run;
use common::sockets::{fill, pair, poll_once};
use futures_util::io::AsyncWriteExt;
use mainspring::net::TcpStream as Stream;
use mainspring::time::{Duration, sleep};

#[test]
fn what_lies_behind_urgent_data_is_read_without_another_edge() {
    run(2, async {
        for _ in 0..20 {
            let (a, b) = pair().await;
            assert!(poll_once(pin!(b.read(&mut [0]))).await.is_pending());
            a.write_all(b"before").await.unwrap();
            rustix::net::send(&a, b"!", rustix::net::SendFlags::OOB).unwrap();
            a.write_all(b"behind").await.unwrap();
            sleep(Duration::from_millis(2)).await;
            let mut all: Vec<u8> = Vec::new();
            while all.len() < 12 {
                // Each read stops at the mark, short of what it was asked for.
                let mut buffer = [0; 100];
                let count = b.read(&mut buffer).await.unwrap();
                all.extend(&buffer[..count]);
            }
            assert_eq!(all, b"beforebehind");
        }
    });
}

#[test]
fn a_reset_wakes_readers_and_writers_with_errors() {
    run(2, async {
        let (a, b) = pair().await;
        fill(&b).await;
        let b = Arc::new(b);
        let writer = {
            let b = Arc::clone(&b);
            mainspring::spawn(async move { b.write(b"x").await })
        };
        let reader = {
            let b = Arc::clone(&b);
            mainspring::spawn(async move { b.read(&mut [0]).await })
        };
        sleep(Duration::from_millis(5)).await;
        a.set_linger(Some(Duration::ZERO)).unwrap();
        drop(a);
        // The first to look gets the reset itself; what the other gets is the kernel's choice.
        let written = writer.await.unwrap();
        let read = reader.await.unwrap();
        let reset = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionReset;
        assert!(
            written.as_ref().is_err_and(reset) || read.as_ref().is_err_and(reset),
            "{written:?} {read:?}"
        );
        written.unwrap_err();
    });
}

#[test]
fn options_are_set_and_told() {
    run(1, async {
        let (a, b) = pair().await;
        assert_eq!(a.peer_addr().unwrap(), b.local_addr().unwrap());
        a.set_nodelay(true).unwrap();
        assert!(a.nodelay().unwrap());
        assert!(!b.nodelay().unwrap());
        a.set_linger(Some(Duration::from_secs(3))).unwrap();
        assert_eq!(a.linger().unwrap(), Some(Duration::from_secs(3)));
        a.set_linger(None).unwrap();
        assert_eq!(a.linger().unwrap(), None);
    });
}

#[test]
fn closing_a_connection_that_its_peer_has_reset_is_no_error() {
    run(2, async {
        let (mut a, b) = pair().await;
        b.set_linger(Some(Duration::ZERO)).unwrap();
        drop(b);
        assert_eq!(a.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        AsyncWriteExt::close(&mut a).await.unwrap();
        let (_read, write) = a.into_split();
        drop(write);
    });
}
