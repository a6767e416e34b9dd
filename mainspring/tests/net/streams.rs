//! Stream sockets by behaviour, deadlines aside: reading, writing, sharing, halves and ends, and that nothing is
//! lost and nobody waits for ever. Run for each kind of stream by the test program that includes it, which
//! has `Stream` and `pair`.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use futures_util::io::{AsyncReadExt, AsyncWriteExt};
use mainspring::task::yield_now;
use mainspring::time::{Duration, sleep, timeout};

use super::common::sockets::{byte_at, fill, poll_once};
use super::common::{SOON, run, watched};
use super::{Stream, pair};

/// Waits until the kernel has brought over what was sent: all of it can be looked at.
async fn arrived(stream: &Stream, count: usize) {
    let mut buffer = vec![0; count];
    while stream.peek(&mut buffer).await.unwrap() < count {
        sleep(Duration::from_micros(100)).await;
    }
}

async fn read_some(stream: &Stream, most: usize) -> Vec<u8> {
    let mut buffer = vec![0; most];
    let count = timeout(SOON, stream.read(&mut buffer)).await.expect("there is something").unwrap();
    buffer.truncate(count);
    buffer
}

// Reading and writing.

#[test]
fn every_way_of_reading_and_writing_moves_the_same_bytes() {
    run(2, async {
        let (a, b) = pair().await;
        assert_eq!(a.write(b"one ").await.unwrap(), 4);
        a.write_all(b"two ").await.unwrap();
        let buffers = [IoSlice::new(b"th"), IoSlice::new(b""), IoSlice::new(b"ree ")];
        assert_eq!(a.writev(&buffers).await.unwrap(), 6);
        arrived(&b, 14).await;
        let mut start = [0; 3];
        assert_eq!(b.peek(&mut start).await.unwrap(), 3);
        assert_eq!(&start, b"one");
        assert_eq!(read_some(&b, 3).await, b"one");
        let (mut x, mut y) = ([0; 2], [0; 3]);
        let buffers = &mut [IoSliceMut::new(&mut x), IoSliceMut::new(&mut []), IoSliceMut::new(&mut y)];
        assert_eq!(b.readv(buffers).await.unwrap(), 5);
        assert_eq!((&x, &y), (b" t", b"wo "));
        let mut rest = [0; 6];
        b.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"three ");
        drop(a);
        assert_eq!(b.read(&mut rest).await.unwrap(), 0);
        assert_eq!(b.peek(&mut rest).await.unwrap(), 0);
        assert_eq!(b.readv(&mut [IoSliceMut::new(&mut rest)]).await.unwrap(), 0);
    });
}

#[test]
fn read_exact_says_that_the_end_came_too_early() {
    run(2, async {
        let (a, b) = pair().await;
        a.write_all(b"abc").await.unwrap();
        drop(a);
        let mut buffer = [0; 4];
        let error = b.read_exact(&mut buffer).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(&buffer[..3], b"abc");
        b.read_exact(&mut []).await.unwrap();
    });
}

#[test]
fn what_moves_no_bytes_waits_for_none() {
    run(2, async {
        let (a, b) = pair().await;
        // Nothing to read, and no room to write: any other operation would wait.
        fill(&a).await;
        assert!(poll_once(pin!(a.read(&mut [0]))).await.is_pending());
        assert!(matches!(poll_once(pin!(a.read(&mut []))).await, Poll::Ready(Ok(0))));
        assert!(matches!(poll_once(pin!(a.peek(&mut []))).await, Poll::Ready(Ok(0))));
        assert!(matches!(poll_once(pin!(a.readv(&mut []))).await, Poll::Ready(Ok(0))));
        let empty = &mut [IoSliceMut::new(&mut [])];
        assert!(matches!(poll_once(pin!(a.readv(empty))).await, Poll::Ready(Ok(0))));
        assert!(matches!(poll_once(pin!(a.write(b""))).await, Poll::Ready(Ok(0))));
        assert!(matches!(poll_once(pin!(a.writev(&[]))).await, Poll::Ready(Ok(0))));
        let mut reader = &a;
        assert!(matches!(
            poll_once(pin!(AsyncReadExt::read(&mut reader, &mut []))).await,
            Poll::Ready(Ok(0))
        ));
        // With something to read too, and that stays there.
        b.write_all(b"x").await.unwrap();
        arrived(&a, 1).await;
        assert_eq!(a.read(&mut []).await.unwrap(), 0);
        assert_eq!(read_some(&a, 9).await, b"x");
    });
}

#[test]
fn more_buffers_than_the_system_takes_at_once_are_taken_in_part() {
    run(2, async {
        let (a, b) = pair().await;
        let bytes: Vec<u8> = (0..3_000).map(byte_at).collect();
        let mut sent = 0;
        while sent < bytes.len() {
            let buffers: Vec<_> = bytes[sent..].chunks(1).map(IoSlice::new).collect();
            sent += if sent == 0 {
                a.writev(&buffers).await.unwrap()
            } else {
                AsyncWriteExt::write_vectored(&mut &a, &buffers).await.unwrap()
            };
        }
        let mut received = vec![0; 3_000];
        let mut count = 0;
        while count < received.len() {
            let mut buffers: Vec<_> = received[count..].chunks_mut(1).map(IoSliceMut::new).collect();
            count += b.readv(&mut buffers).await.unwrap();
        }
        assert_eq!(received, bytes);
    });
}

#[test]
fn reading_in_pieces_of_any_size_finds_every_byte_of_bursts_of_any_size() {
    run(2, async {
        let (a, b) = pair().await;
        let total = 3_000_000;
        let writer = mainspring::spawn(async move {
            let mut sent = 0;
            let mut size = 1;
            while sent < total {
                size = size * 7 % 9_973;
                let chunk: Vec<u8> = (sent..(sent + size).min(total)).map(byte_at).collect();
                a.write_all(&chunk).await.unwrap();
                sent += chunk.len();
            }
        });
        let (mut received, mut size) = (0, 1);
        loop {
            size = size * 5 % 8_191;
            if size % 3 == 0 {
                // Only looked at: it must still be there.
                b.peek(&mut vec![0; size]).await.unwrap();
            }
            let piece = read_some(&b, size).await;
            if piece.is_empty() {
                break;
            }
            assert!(piece.iter().enumerate().all(|(place, byte)| *byte == byte_at(received + place)));
            received += piece.len();
        }
        assert_eq!(received, total);
        writer.await.unwrap();
    });
}

#[test]
fn an_end_that_came_together_with_the_last_bytes_is_read_after_them() {
    run(2, async {
        for _ in 0..200 {
            let (a, b) = pair().await;
            // The reader knows that there is nothing, and has not heard of what follows.
            assert!(poll_once(pin!(b.read(&mut [0]))).await.is_pending());
            a.write_all(b"last").await.unwrap();
            a.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_some(&b, 100).await, b"last");
            assert_eq!(read_some(&b, 100).await, b"");
            assert_eq!(read_some(&b, 100).await, b"");
        }
    });
}

#[test]
fn a_writer_goes_on_when_the_reader_makes_room() {
    run(2, async {
        let (a, b) = pair().await;
        let mut sent = fill(&a).await;
        let writer = mainspring::spawn(async move {
            let last = sent + 500_000;
            while sent < last {
                let chunk: Vec<u8> = (sent..last).map(byte_at).collect();
                sent += a.write(&chunk).await.unwrap();
            }
            sent
        });
        let mut received = 0;
        loop {
            let piece = read_some(&b, 10_000).await;
            if piece.is_empty() {
                break;
            }
            assert!(piece.iter().enumerate().all(|(place, byte)| *byte == byte_at(received + place)));
            received += piece.len();
        }
        assert_eq!(received, writer.await.unwrap());
    });
}

// Several at one socket.

#[test]
fn one_task_reads_while_another_writes_through_references() {
    run(2, async {
        let (a, b) = pair().await;
        let echo = mainspring::spawn(async move {
            let mut buffer = [0; 1000];
            loop {
                match b.read(&mut buffer).await.unwrap() {
                    0 => return,
                    count => b.write_all(&buffer[..count]).await.unwrap(),
                }
            }
        });
        let a = Arc::new(a);
        let writer = {
            let a = Arc::clone(&a);
            mainspring::spawn(async move {
                for start in (0..2_000_000).step_by(10_000) {
                    let chunk: Vec<u8> = (start..start + 10_000).map(byte_at).collect();
                    a.write_all(&chunk).await.unwrap();
                }
                a.shutdown(Shutdown::Write).unwrap();
            })
        };
        let mut received = 0;
        loop {
            let piece = read_some(&a, 4096).await;
            if piece.is_empty() {
                break;
            }
            assert!(piece.iter().enumerate().all(|(place, byte)| *byte == byte_at(received + place)));
            received += piece.len();
        }
        assert_eq!(received, 2_000_000);
        writer.await.unwrap();
        echo.await.unwrap();
    });
}

#[test]
fn of_several_readers_each_gets_something_and_all_get_the_end() {
    for processors in [1, 2, 8] {
        run(processors, async {
            let (a, b) = pair().await;
            let b = Arc::new(b);
            let count = Arc::new(AtomicUsize::new(0));
            let readers: Vec<_> = (0..16)
                .map(|_| {
                    let (b, count) = (Arc::clone(&b), Arc::clone(&count));
                    mainspring::spawn(async move {
                        while b.read(&mut [0]).await.unwrap() == 1 {
                            count.fetch_add(1, Ordering::Relaxed);
                            yield_now().await;
                        }
                    })
                })
                .collect();
            for sent in 1..=300 {
                a.write_all(b"x").await.unwrap();
                if sent % 10 == 0 {
                    while count.load(Ordering::Relaxed) < sent {
                        yield_now().await;
                    }
                }
            }
            drop(a);
            for reader in readers {
                reader.await.unwrap();
            }
            assert_eq!(count.load(Ordering::Relaxed), 300);
        });
    }
}

#[test]
fn a_reader_that_is_dropped_after_it_was_woken_takes_neither_bytes_nor_wake_ups_along() {
    run(2, async {
        let (a, b) = pair().await;
        for _ in 0..100 {
            let mut buffer = [0];
            let mut other_buffer = [0];
            let mut other = pin!(b.read(&mut other_buffer));
            {
                let mut first = pin!(b.read(&mut buffer));
                assert!(poll_once(first.as_mut()).await.is_pending());
                assert!(poll_once(other.as_mut()).await.is_pending());
                a.write_all(b"x").await.unwrap();
                sleep(Duration::from_micros(200)).await;
            }
            assert_eq!(timeout(SOON, other).await.expect("the byte is there").unwrap(), 1);
        }
    });
}

#[test]
fn an_aborted_reader_leaves_the_socket_to_the_others() {
    run(2, async {
        let (a, b) = pair().await;
        let b = Arc::new(b);
        for _ in 0..50 {
            let reader = {
                let b = Arc::clone(&b);
                mainspring::spawn(async move { b.read(&mut [0; 10]).await })
            };
            yield_now().await;
            reader.abort();
            if let Ok(read) = reader.await {
                panic!("nothing was sent: {read:?}");
            }
        }
        a.write_all(b"x").await.unwrap();
        assert_eq!(read_some(&b, 10).await, b"x");
    });
}

#[test]
fn a_task_that_polls_more_idle_sockets_than_its_budget_comes_to_each_and_does_not_spin() {
    const SOCKETS: usize = 300;
    let (_watchdog, runtime) = watched(1);
    runtime.block_on(async {
        let mut pairs = Vec::new();
        for _ in 0..SOCKETS {
            pairs.push(pair().await);
        }
        let (near, far): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let polls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&polls);
        let reader = mainspring::spawn(async move {
            let mut reads: Vec<Pin<Box<dyn Future<Output = io::Result<u8>> + Send>>> = Vec::new();
            for stream in near {
                reads.push(Box::pin(async move {
                    let mut buffer = [0];
                    stream.read(&mut buffer).await?;
                    Ok(buffer[0])
                }));
            }
            let mut got = vec![None; SOCKETS];
            std::future::poll_fn(|context| {
                counted.fetch_add(1, Ordering::Relaxed);
                for (read, got) in reads.iter_mut().zip(&mut got) {
                    if got.is_none()
                        && let Poll::Ready(byte) = read.as_mut().poll(context)
                    {
                        *got = Some(byte.unwrap());
                    }
                }
                if got.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            got
        });
        sleep(Duration::from_millis(50)).await;
        let idle = polls.load(Ordering::Relaxed);
        assert!(idle < 50, "polled {idle} times without a reason");
        for (place, stream) in far.iter().enumerate().rev() {
            stream.write_all(&[byte_at(place)]).await.unwrap();
        }
        let got = reader.await.unwrap();
        assert!(got.iter().enumerate().all(|(place, byte)| *byte == Some(byte_at(place))));
    });
}

#[test]
fn a_task_whose_socket_is_always_ready_lets_others_run() {
    run(1, async {
        let (a, b) = pair().await;
        let mut sent = 0;
        while sent < 50_000 {
            sent += a.write(&vec![0; 50_000 - sent]).await.unwrap();
        }
        arrived(&b, 50_000).await;
        let turns = Arc::new(AtomicUsize::new(0));
        let reader = {
            let turns = Arc::clone(&turns);
            mainspring::spawn(async move {
                let before = turns.load(Ordering::Relaxed);
                for _ in 0..50_000 {
                    b.read(&mut [0]).await.unwrap();
                }
                turns.load(Ordering::Relaxed) - before
            })
        };
        let other = mainspring::spawn(async move {
            loop {
                turns.fetch_add(1, Ordering::Relaxed);
                yield_now().await;
            }
        });
        let others_turns = reader.await.unwrap();
        other.abort();
        assert!(others_turns >= 100, "{others_turns} turns of the other task in 50,000 reads");
    });
}

// Halves and ends.

#[test]
fn the_halves_of_a_stream_work_in_different_tasks_and_can_be_put_together_again() {
    run(2, async {
        let (a, b) = pair().await;
        // By its full name: futures-io's extension trait has a `split` that takes the stream.
        let (mut read, mut write) = Stream::split(&a);
        AsyncWriteExt::write_all(&mut write, b"hello").await.unwrap();
        b.write_all(b"olleh").await.unwrap();
        let mut buffer = [0; 5];
        AsyncReadExt::read_exact(&mut read, &mut buffer).await.unwrap();
        assert_eq!(&buffer, b"olleh");

        let (read, write) = a.into_split();
        let (other_read, other_write) = b.into_split();
        let task = mainspring::spawn(async move {
            write.write_all(b"more").await.unwrap();
            write
        });
        other_read.as_ref().read_exact(&mut [0; 9]).await.unwrap();
        let write = task.await.unwrap();
        let error = read.reunite(other_write).unwrap_err();
        assert_eq!(error.to_string(), "the halves are of different streams");
        let (read, other_write) = (error.0, error.1);
        let a = read.reunite(write).unwrap();
        // Putting it together ended nothing; dropping a half for writing does.
        a.write_all(b"x").await.unwrap();
        assert_eq!(other_read.read(&mut [0; 9]).await.unwrap(), 1);
        drop(other_write);
        assert_eq!(a.read(&mut [0]).await.unwrap(), 0);
        a.write_all(b"y").await.unwrap();
        assert_eq!(other_read.read(&mut [0; 9]).await.unwrap(), 1);
    });
}

#[test]
fn a_half_closed_connection_still_works_in_the_other_direction() {
    run(2, async {
        let (a, b) = pair().await;
        a.shutdown(Shutdown::Write).unwrap();
        assert_eq!(a.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(b.read(&mut [0]).await.unwrap(), 0);
        for _ in 0..10 {
            b.write_all(b"still here").await.unwrap();
            assert_eq!(read_some(&a, 100).await, b"still here");
        }
    });
}

#[test]
fn dropping_a_stream_wakes_its_peer() {
    run(2, async {
        for _ in 0..50 {
            let (a, b) = pair().await;
            let reader = mainspring::spawn(async move { b.read(&mut [0]).await });
            yield_now().await;
            drop(a);
            assert_eq!(reader.await.unwrap().unwrap(), 0);
        }
    });
}

#[test]
fn ending_ones_own_side_wakes_who_waits_there() {
    run(2, async {
        let (a, _b) = pair().await;
        fill(&a).await;
        let a = Arc::new(a);
        let reader = {
            let a = Arc::clone(&a);
            mainspring::spawn(async move { a.read(&mut [0]).await })
        };
        let writer = {
            let a = Arc::clone(&a);
            mainspring::spawn(async move { a.write(b"x").await })
        };
        sleep(Duration::from_millis(5)).await;
        a.shutdown(Shutdown::Both).unwrap();
        assert_eq!(reader.await.unwrap().unwrap(), 0);
        assert_eq!(writer.await.unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    });
}

// futures-io's traits.

#[test]
fn the_traits_of_futures_io_read_write_and_close() {
    run(2, async {
        let (a, b) = pair().await;
        let writer = mainspring::spawn(async move {
            let mut a = a;
            let all: Vec<u8> = (0..300_000).map(byte_at).collect();
            AsyncWriteExt::write_all(&mut a, &all).await.unwrap();
            AsyncWriteExt::flush(&mut a).await.unwrap();
            AsyncWriteExt::close(&mut a).await.unwrap();
            AsyncWriteExt::close(&mut a).await.unwrap();
            let mut answer = Vec::new();
            AsyncReadExt::read_to_end(&mut a, &mut answer).await.unwrap();
            answer
        });
        // A reader and a writer of one stream, by reference.
        let copied = futures_util::io::copy(&b, &mut &b).await.unwrap();
        assert_eq!(copied, 300_000);
        drop(b);
        let answer = writer.await.unwrap();
        assert!(answer.iter().enumerate().all(|(place, byte)| *byte == byte_at(place)));
        assert_eq!(answer.len(), 300_000);
    });
}
