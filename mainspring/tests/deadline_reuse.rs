//! Descriptors that are closed and whose numbers are used again at once, while edges, deadlines and wake-ups of
//! the old ones are still on their way: none of them may reach the new ones (Go's issue 59545, and what its numbered
//! settings of deadlines are for).
//!
//! That an event for an old key is thrown away is tested in `poll/poller/tests.rs`, and modelled beside it.

mod common;

use std::os::fd::{AsFd, AsRawFd};
use std::pin::pin;
use std::task::Poll;
use std::thread;

use common::kinds::{Handles, Side, Socket, on_every_kind};
use common::sockets::{is_timeout, pair, poll_once, read_one};
use common::stress::Rng;
use common::{SOON, run, watched};
use mainspring::net::TcpStream;
use mainspring::time::{Duration, Instant, sleep, timeout};

const HOUR: Duration = Duration::from_secs(3600);

on_every_kind!([a_new_socket_hears_nothing_of_an_old_one_whose_descriptor_it_has], []);

/// Leaves a socket with as much on its way as there can be: a byte that has just come, a task that waits, deadlines
/// of some microseconds, one of them being set by another thread.
async fn close_in_the_midst<S: Socket>(rng: &mut Rng) -> (S, thread::JoinHandle<()>) {
    let (a, b) = S::pair().await;
    let handles = a.handles();
    handles.set_both(Instant::now() + rng.micros(60)).unwrap();
    let setter = set_until_closed(handles, rng.split());
    let mut read = Box::pin(read_one(&a));
    for _ in 0..rng.below(4) {
        if poll_once(read.as_mut()).await.is_ready() {
            read = Box::pin(read_one(&a));
        }
        mainspring::task::yield_now().await;
    }
    b.write(b"!").await.unwrap();
    drop(read);
    drop(a);
    (b, setter)
}

fn set_until_closed(handles: Handles, mut rng: Rng) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        while handles.set(Side::Read, Instant::now() + rng.micros(60)).is_ok() {
            thread::yield_now();
        }
    })
}

/// Opens a pair right afterwards and checks that nothing comes to it that is not its own.
async fn open_and_check<S: Socket>() {
    let (a, b) = S::pair().await;
    let mut read = pin!(read_one(&a));
    // A deadline or an edge of the old one would end this, or an end of file.
    match poll_once(read.as_mut()).await {
        Poll::Pending => {}
        Poll::Ready(result) => panic!("a new socket has something: {result:?}"),
    }
    for _ in 0..3 {
        sleep(Duration::from_micros(50)).await;
        if let Poll::Ready(result) = poll_once(read.as_mut()).await {
            panic!("a new socket has something: {result:?}");
        }
    }
    b.write(b"x").await.unwrap();
    assert_eq!(timeout(SOON, read).await.expect("its own edge is lost").unwrap(), b'x');
    let at = Instant::now() + Duration::from_micros(100);
    a.set_read_deadline(at).unwrap();
    assert!(is_timeout(&timeout(SOON, read_one(&a)).await.expect("its own deadline is lost")));
    assert!(Instant::now() >= at, "early");
}

fn a_new_socket_hears_nothing_of_an_old_one_whose_descriptor_it_has<S: Socket>() {
    let (_watchdog, runtime) = watched(2);
    runtime.block_on(async {
        let tasks: Vec<_> = (0..4)
            .map(|seed| {
                mainspring::spawn(async move {
                    let mut rng = Rng(seed);
                    for _ in 0..60 {
                        let (peer, setter) = close_in_the_midst::<S>(&mut rng).await;
                        open_and_check::<S>().await;
                        drop(peer);
                        setter.join().unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(runtime.metrics().timers_pending, 0);
    assert_eq!(runtime.metrics().descriptors, 0);
}

/// Surely the same number, and even the same open socket: it is taken out of the runtime and put in again,
/// with what came in between, and the deadlines of its former life in flight.
#[test]
fn a_descriptor_taken_out_and_registered_again_has_its_bytes_and_no_deadline_of_before() {
    run(2, async {
        let (mut a, b) = pair().await;
        let number = a.as_fd().as_raw_fd();
        let mut rng = Rng(3);
        for round in 0..300_u32 {
            let deadlines = a.handles();
            deadlines.set_both(Instant::now() + rng.micros(30)).unwrap();
            let setter = set_until_closed(deadlines.clone(), rng.split());
            if let Poll::Ready(result) = poll_once(pin!(read_one(&a))).await {
                assert!(is_timeout(&result), "{result:?}");
            }
            b.write_all(&[round as u8]).await.unwrap();
            a = TcpStream::try_from(a.into_std()).unwrap();
            assert_eq!(a.as_fd().as_raw_fd(), number);
            setter.join().unwrap();
            deadlines.set_both(Instant::now() - HOUR).unwrap_err();
            let byte = timeout(SOON, read_one(&a)).await.expect("the byte is lost");
            assert_eq!(byte.unwrap(), round as u8);
            assert!(poll_once(pin!(read_one(&a))).await.is_pending());
        }
    });
}

/// The numbers are really used again, or the first test here would show nothing.
#[test]
fn the_system_gives_the_number_of_a_closed_socket_to_the_next_one() {
    run(1, async {
        let mut again = 0;
        for _ in 0..20 {
            let numbers = |(a, b): &(TcpStream, TcpStream)| [a, b].map(|end| end.as_fd().as_raw_fd());
            let old = numbers(&pair().await);
            let new = numbers(&pair().await);
            again += new.iter().filter(|number| old.contains(number)).count();
        }
        assert!(again > 0);
    });
}
