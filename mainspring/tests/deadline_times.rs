//! Deadlines of TCP sockets against the clock: for each length and each operation, never early and never lost,
//! while data flows and while it does not.
//!
//! Bounds from above are generous, as the machine may be busy; from below they are exact.

mod common;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::thread;

use common::sockets::{fill, is_timeout, pair, poll_once, read_one};
use common::{SOON, run, watched};
use mainspring::net::{Deadlines, TcpListener, TcpStream};
use mainspring::time::{Duration, Instant, sleep_until, timeout};

const HOUR: Duration = Duration::from_secs(3600);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn past() -> Instant {
    Instant::now() - HOUR
}

/// Ends an operation that would wait for ever by deadlines that double from a millisecond on, set before it
/// begins or while it waits.
async fn ends_at_its_deadline<T, F>(deadlines: &Deadlines, operation: impl Fn() -> F)
where
    F: Future<Output = std::io::Result<T>>,
{
    for after in (0..7).map(|power| ms(1 << power)) {
        for waits in [false, true] {
            deadlines.set_deadline(None).unwrap();
            let mut operation = pin!(operation());
            if waits {
                assert!(poll_once(operation.as_mut()).await.is_pending());
            }
            let start = Instant::now();
            deadlines.set_deadline(start + after).unwrap();
            let result = timeout(SOON, operation).await.expect("its deadline was lost");
            assert!(is_timeout(&result));
            assert!(start.elapsed() >= after, "{after:?}: early");
        }
    }
}

#[test]
fn a_read_ends_at_its_deadline_however_far_that_is() {
    run(2, async {
        let (a, _b) = pair().await;
        ends_at_its_deadline(&a.deadlines(), || read_one(&a)).await;
    });
}

#[test]
fn a_look_at_what_comes_next_ends_at_its_deadline_however_far_that_is() {
    run(1, async {
        let (a, _b) = pair().await;
        let deadlines = a.deadlines();
        ends_at_its_deadline(&deadlines, || async { a.peek(&mut [0]).await }).await;
    });
}

#[test]
fn a_write_ends_at_its_deadline_however_far_that_is() {
    run(2, async {
        let (a, _b) = pair().await;
        fill(&a).await;
        ends_at_its_deadline(&a.deadlines(), || a.write(b"x")).await;
    });
}

#[test]
fn an_accept_ends_at_its_deadline_however_far_that_is() {
    run(1, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        ends_at_its_deadline(&listener.deadlines(), || listener.accept()).await;
    });
}

/// In nanoseconds, up to half a second.
const VARIOUS: [u64; 17] = [
    1,
    2,
    5,
    50,
    100,
    200,
    500,
    750,
    1_000,
    5_000,
    25_000,
    250_000,
    500_000,
    1_000_000,
    5_000_000,
    100_000_000,
    500_000_000,
];

/// Reads from a peer that writes without end, until the time of each of various deadlines has come.
fn deadlines_under_load(processors: usize) {
    let (_watchdog, runtime) = watched(processors);
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let addr = listener.local_addr().unwrap();
    let server = runtime.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            mainspring::spawn(async move { while stream.write(&[0; 30_000]).await.is_ok() {} });
        }
    });
    let client = runtime.spawn(async move {
        let mut buffer = vec![0; 4_096];
        for after in VARIOUS.map(Duration::from_nanos) {
            // The long ones once, the short ones again and again.
            let rounds = if after < ms(1) { 10 } else { 1 };
            for _ in 0..rounds {
                let stream = TcpStream::connect(addr).await.unwrap();
                let start = Instant::now();
                stream.set_deadline(start + after).unwrap();
                let error = loop {
                    match stream.read(&mut buffer).await {
                        Ok(count) => assert!(count > 0 && start.elapsed() < SOON, "{after:?}"),
                        Err(error) => break error,
                    }
                };
                assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
                assert!(start.elapsed() >= after, "{after:?}: early");
                assert!(is_timeout(&stream.write(b"x").await), "{after:?}: the other side");
                // What has flowed meanwhile is still there.
                stream.set_deadline(None).unwrap();
                assert!(stream.read(&mut buffer).await.unwrap() > 0);
            }
        }
    });
    runtime.block_on(client).unwrap();
    server.abort();
}

#[test]
fn deadlines_of_every_length_pass_while_data_flows_on_one_processor() {
    deadlines_under_load(1);
}

#[test]
fn deadlines_of_every_length_pass_while_data_flows_on_four_processors() {
    deadlines_under_load(4);
}

#[test]
fn what_comes_before_the_deadline_is_read_and_then_every_read_fails() {
    run(2, async {
        let (a, b) = pair().await;
        b.write_all(b"READ TIMEOUT TEST").await.unwrap();
        a.peek(&mut [0]).await.unwrap();
        a.set_read_deadline(past()).unwrap();
        for _ in 0..2 {
            assert!(is_timeout(&read_one(&a).await));
        }
        let start = Instant::now();
        a.set_read_deadline(start + ms(50)).unwrap();
        let mut read = 0;
        let ended = loop {
            match read_one(&a).await {
                Ok(_) => read += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(ended.kind(), std::io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= ms(50));
        assert!(read == 17 || start.elapsed() > ms(50), "the rest was lost");
        for _ in 0..2 {
            assert!(is_timeout(&read_one(&a).await));
        }
    });
}

#[test]
fn a_deadline_set_while_an_operation_waits_without_one_ends_it() {
    run(2, async {
        let (a, _b) = pair().await;
        fill(&a).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for set_from_thread in [false, true] {
            let (mut read, mut write) = (pin!(read_one(&a)), pin!(a.write(b"x")));
            let mut accept = pin!(listener.accept());
            assert!(poll_once(read.as_mut()).await.is_pending());
            assert!(poll_once(write.as_mut()).await.is_pending());
            assert!(poll_once(accept.as_mut()).await.is_pending());
            let at = Instant::now() + ms(10);
            let both = [a.deadlines(), listener.deadlines()];
            let set = move || both.iter().for_each(|deadlines| deadlines.set_deadline(at).unwrap());
            if set_from_thread {
                thread::spawn(set).join().unwrap();
            } else {
                set();
            }
            assert!(is_timeout(&read.await) && is_timeout(&write.await) && is_timeout(&accept.await));
            assert!(Instant::now() >= at);
            a.set_deadline(None).unwrap();
            listener.set_deadline(None).unwrap();
        }
    });
}

#[test]
fn a_deadline_that_passed_and_was_cleared_lets_every_operation_wait() {
    run(2, async {
        let (a, _b) = pair().await;
        fill(&a).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        a.set_deadline(past()).unwrap();
        listener.set_deadline(past()).unwrap();
        assert!(is_timeout(&read_one(&a).await) && is_timeout(&a.write(b"x").await));
        assert!(is_timeout(&listener.accept().await));
        for deadlines in [a.deadlines(), listener.deadlines()] {
            deadlines.set_deadline(None).unwrap();
        }
        let at = Instant::now() + ms(30);
        timeout(ms(10), read_one(&a)).await.unwrap_err();
        timeout(ms(10), a.write(b"x")).await.unwrap_err();
        timeout(ms(10), listener.accept()).await.unwrap_err();
        assert!(Instant::now() >= at);
        // One side only: the other stays as it was.
        a.set_deadline(past()).unwrap();
        a.set_write_deadline(None).unwrap();
        timeout(ms(10), a.write(b"x")).await.unwrap_err();
        assert!(is_timeout(&read_one(&a).await));
    });
}

#[test]
fn a_deadline_cleared_again_and_again_just_before_its_time_ends_nothing() {
    run(2, async {
        let (a, b) = pair().await;
        let a = Arc::new(a);
        let reader = {
            let a = Arc::clone(&a);
            mainspring::spawn(async move { read_one(&a).await })
        };
        for _ in 0..50 {
            let at = Instant::now() + ms(2);
            a.set_read_deadline(at).unwrap();
            sleep_until(at - ms(1)).await;
            a.set_read_deadline(None).unwrap();
            if Instant::now() >= at {
                // The machine was busy. What has ended must have ended by the deadline.
                break;
            }
            sleep_until(at + Duration::from_micros(200)).await;
            assert!(!reader.is_finished(), "a deadline that was cleared in time has ended the read");
        }
        b.write_all(b"x").await.unwrap();
        let result = reader.await.unwrap();
        assert!(is_timeout(&result) || result.unwrap() == b'x');
    });
}
