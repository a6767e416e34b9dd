//! The bytes of writes that time out half way, on every kind of socket.
//!
//! * A `write` has either written something, and says how much, or has failed and written nothing. So whoever
//!   adds up what it said knows what the peer gets, through any number of timeouts.
//! * A `write_all` that fails has written some bytes from the front; how many is lost. The peer gets exactly
//!   these, and after them what is written next: none is missing, none comes twice, none out of order.
//! * A message is written whole or not at all.

mod common;

use std::ops::Range;
use std::pin::pin;
use std::sync::LazyLock;
use std::thread;

use common::kinds::{Side, Socket, on_every_kind};
use common::sockets::{byte_at, fill, is_timeout, poll_once};
use common::stress::Rng;
use common::{SOON, run};
use mainspring::task::JoinHandle;
use mainspring::time::{Duration, Instant, sleep, timeout};

const HOUR: Duration = Duration::from_secs(3600);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

on_every_kind!(
    [what_writes_have_said_through_many_timeouts_is_what_arrives],
    [
        a_write_of_much_takes_a_part_and_says_so_or_times_out_and_takes_nothing,
        a_write_all_that_times_out_has_written_a_part_from_the_front_and_nothing_else,
    ]
);

/// More than the buffers of any socket take.
const MUCH: usize = 24 << 20;

/// Bytes from a place of the long stream on, at most [`MUCH`].
fn stretch(places: Range<usize>) -> &'static [u8] {
    static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let period: Vec<u8> = (0..251).map(byte_at).collect();
        period.repeat(MUCH / 251 + 2)
    });
    &BYTES[places.start % 251..][..places.len()]
}

/// Reads until `length` bytes have come or the end of the stream; pauses now and then, if it is told to.
fn reader<S: Socket>(b: S, length: usize, pauses: bool) -> JoinHandle<Vec<u8>> {
    mainspring::spawn(async move {
        let (mut all, mut buffer) = (Vec::new(), vec![0; 30_000]);
        while all.len() < length {
            match b.read(&mut buffer).await.unwrap() {
                0 => break,
                count => all.extend_from_slice(&buffer[..count]),
            }
            if pauses {
                sleep(Duration::from_micros(300)).await;
            }
        }
        all
    })
}

#[track_caller]
fn assert_stretch(all: &[u8], length: usize) {
    assert_eq!(all.len(), length, "bytes are missing or come twice");
    for (index, chunk) in all.chunks(65_536).enumerate() {
        let from = index * 65_536;
        assert!(chunk == stretch(from..from + chunk.len()), "bytes are missing or come twice after {from}");
    }
}

/// Both ends are busy, with a deadline that passes again and again at all moments.
fn what_writes_have_said_through_many_timeouts_is_what_arrives<S: Socket>() {
    run(2, async {
        let (a, b) = S::pair().await;
        if !S::WAITING.contains(&Side::Write) {
            // Writes that never wait: a write fails whole or its message arrives whole.
            for round in 0..200 {
                let message = stretch(round..round + 100);
                a.set_write_deadline(Instant::now() + Duration::from_micros(round as u64 % 4)).unwrap();
                let result = a.write(message).await;
                assert!(is_timeout(&result) || *result.as_ref().unwrap() == 100, "{result:?}");
                a.set_write_deadline(None).unwrap();
                if is_timeout(&result) {
                    a.write(message).await.unwrap();
                }
                let mut buffer = [0; 200];
                let count = timeout(SOON, b.read(&mut buffer)).await.unwrap().unwrap();
                assert!(buffer[..count] == *message);
                assert!(poll_once(pin!(b.read(&mut buffer))).await.is_pending(), "it came twice");
            }
            return;
        }
        // From full buffers on, and faster than the reader, who comes only after some timeouts: however slow the machine
        // is, there is something to be shown.
        let mut written = fill(&a).await;
        let last = written + 600_000;
        let (mut b, mut reading) = (Some(b), None);
        let (mut rng, mut timeouts) = (Rng(7), 0);
        while written < last {
            if timeouts > 10
                && let Some(b) = b.take()
            {
                reading = Some(reader(b, last, true));
            }
            let most = if S::STREAM { 100_000 } else { 1_500 };
            let length = (1 + rng.below(most) as usize).min(last - written);
            a.set_write_deadline(Instant::now() + rng.micros(100)).unwrap();
            match a.write(stretch(written..written + length)).await {
                Ok(count) => {
                    assert!(count > 0 && (count == length || S::STREAM && count < length));
                    written += count;
                }
                result => {
                    assert!(is_timeout(&result), "{result:?}");
                    timeouts += 1;
                }
            }
        }
        assert_stretch(&reading.expect("there is no room for all of it").await.unwrap(), last);
    });
}

fn a_write_of_much_takes_a_part_and_says_so_or_times_out_and_takes_nothing<S: Socket>() {
    run(2, async {
        let (a, b) = S::pair().await;
        a.set_write_deadline(Instant::now() + HOUR).unwrap();
        let much = stretch(0..MUCH);
        let mut written = a.write(much).await.unwrap();
        assert!(
            0 < written && written < much.len(),
            "{written} bytes: the buffers are too large for the test"
        );
        written += fill_from(&a, written).await;
        for _ in 0..3 {
            // With no room at all it waits until the deadline.
            let at = Instant::now() + ms(5);
            a.set_write_deadline(at).unwrap();
            assert!(is_timeout(&a.write(stretch(written..written + 65_536)).await));
            assert!(Instant::now() >= at);
        }
        let reader = reader(b, usize::MAX, false);
        a.set_write_deadline(None).unwrap();
        let last = written + 100_000;
        while written < last {
            written += a.write(stretch(written..last)).await.unwrap();
        }
        drop(a);
        assert_stretch(&reader.await.unwrap(), last);
    });
}

/// Writes until there is no room, from this place on; how many bytes.
async fn fill_from<S: Socket>(a: &S, from: usize) -> usize {
    let mut written = 0;
    loop {
        let bytes = stretch(from + written..from + written + 4_096);
        match timeout(ms(20), a.write(bytes)).await {
            Ok(count) => written += count.unwrap(),
            Err(_) => return written,
        }
    }
}

/// What is still to be written is cut off by a deadline that was set before, or while it waits, or by a
/// thread at any moment. The peer reads nothing before, or reads all the time.
fn a_write_all_that_times_out_has_written_a_part_from_the_front_and_nothing_else<S: Socket>() {
    run(2, async {
        for round in 0..12 {
            let (a, b) = S::pair().await;
            let much = stretch(0..MUCH);
            let reads_meanwhile = round % 2 == 0;
            let (early, late) = if reads_meanwhile { (Some(b), None) } else { (None, Some(b)) };
            let early = early.map(|b| reader(b, usize::MAX, true));
            let at = Instant::now() + Duration::from_micros(500) * round;
            let handles = a.handles();
            let setter = match round % 3 {
                0 => {
                    a.set_write_deadline(at).unwrap();
                    None
                }
                1 => {
                    a.set_write_deadline(Instant::now() + HOUR).unwrap();
                    Some(thread::spawn(move || handles.set(Side::Write, at)))
                }
                _ => Some(thread::spawn(move || {
                    thread::sleep(ms(2));
                    handles.set(Side::Write, Instant::now() - HOUR)
                })),
            };
            assert!(is_timeout(&a.write_all(much).await));
            setter.into_iter().for_each(|setter| setter.join().unwrap().unwrap());
            // The mark comes behind that part, without a gap.
            a.set_write_deadline(None).unwrap();
            let reader = early.unwrap_or_else(|| reader(late.expect("one of the two"), usize::MAX, false));
            a.write_all(b"\xff\xfe\xfd").await.unwrap();
            drop(a);
            let all = reader.await.unwrap();
            let part = all.strip_suffix(b"\xff\xfe\xfd").expect("what is written after the timeout arrives");
            assert_stretch(part, part.len());
            assert!(part.len() < much.len());
        }
    });
}
