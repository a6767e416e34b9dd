//! Descriptors of any kind: what can be waited for, readiness that is asked for and not consumed, deadlines, and
//! what is refused.

mod common;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use common::sockets::{byte_at, is_timeout, poll_once};
use common::{check, run};
use mainspring::net::Async;
use mainspring::time::{Instant, sleep, timeout};
use mainspring::{spawn, spawn_blocking};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{OFlags, fcntl_getfl, inotify};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

/// The two ends of a pipe, for reading and for writing.
fn pipe() -> (Async<OwnedFd>, Async<OwnedFd>) {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    (Async::new(read).unwrap(), Async::new(write).unwrap())
}

fn is_nonblocking(fd: impl AsFd) -> bool {
    fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK)
}

#[test]
fn a_megabyte_goes_through_a_pipe_in_order_and_ends() {
    const LEN: usize = 1 << 20;
    check(|| async {
        let (read, write) = pipe();
        let writer = spawn(async move {
            let bytes: Vec<u8> = (0..LEN).map(byte_at).collect();
            write.write_all(&bytes).await.unwrap();
        });
        let mut bytes = vec![0; LEN];
        read.read_exact(&mut bytes).await.unwrap();
        assert!(bytes.iter().enumerate().all(|(place, &byte)| byte == byte_at(place)));
        writer.await.unwrap();
        assert_eq!(read.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(read.read_exact(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    });
}

#[test]
fn a_short_read_does_not_mean_that_nothing_is_left() {
    check(|| async {
        // Each read gives one packet, whatever the buffer has room for.
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::DIRECT).unwrap();
        let (read, write) = (Async::new(read).unwrap(), Async::new(write).unwrap());
        for packet in [&b"one"[..], b"two", b"three"] {
            assert_eq!(write.write(packet).await.unwrap(), packet.len());
        }
        let mut buffer = [0; 64];
        for packet in [&b"one"[..], b"two", b"three"] {
            let count = timeout(common::SOON, read.read(&mut buffer)).await.unwrap().unwrap();
            assert_eq!(&buffer[..count], packet);
        }
    });
}

#[test]
fn an_eventfd_wakes_its_reader_each_time() {
    check(|| async {
        let event = Arc::new(Async::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap()).unwrap());
        for number in 1..100_u64 {
            let reader = spawn({
                let event = Arc::clone(&event);
                async move {
                    let mut count = [0; 8];
                    assert_eq!(event.read(&mut count).await.unwrap(), 8);
                    u64::from_ne_bytes(count)
                }
            });
            event.write(&number.to_ne_bytes()).await.unwrap();
            assert_eq!(reader.await.unwrap(), number);
        }
    });
}

#[test]
fn a_timerfd_expires() {
    check(|| async {
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC).unwrap();
        let timer = Async::new(timer).unwrap();
        let period = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
        let times = Itimerspec { it_interval: period, it_value: period };
        let start = Instant::now();
        rustix::time::timerfd_settime(timer.get_ref(), TimerfdTimerFlags::empty(), &times).unwrap();
        let mut expired = 0;
        while expired < 5 {
            let mut count = [0; 8];
            timer.read_exact(&mut count).await.unwrap();
            expired += u64::from_ne_bytes(count);
        }
        assert!(start.elapsed() >= Duration::from_millis(10));
    });
}

#[test]
fn inotify_tells_of_each_new_file() {
    check(|| async {
        let folder = std::env::temp_dir().join(format!("mainspring-inotify-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
        inotify::add_watch(&watch, &folder, inotify::WatchFlags::CREATE).unwrap();
        let watch = Async::new(watch).unwrap();
        for name in ["one", "two", "three"] {
            let mut buffer = [0; 4096];
            let count = {
                let mut read = pin!(watch.read(&mut buffer));
                assert!(poll_once(read.as_mut()).await.is_pending());
                File::create(folder.join(name)).unwrap();
                read.await.unwrap()
            };
            // The event is 16 bytes, then the name, padded with zeros.
            assert!(buffer[16..count].starts_with(name.as_bytes()));
        }
        std::fs::remove_dir_all(&folder).unwrap();
    });
}

#[test]
fn a_regular_file_is_refused_and_keeps_its_mode() {
    check(|| async {
        let file = File::open("/proc/self/exe").unwrap();
        let error = Async::new(&file).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("mainspring::blocking"), "{error}");
        assert!(!is_nonblocking(&file));
    });
}

#[test]
fn the_same_descriptor_cannot_be_registered_twice_at_a_time() {
    run(1, async {
        let (a, _b) = UnixStream::pair().unwrap();
        let first = Async::new(&a).unwrap();
        assert_eq!(Async::new(&a).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        drop(first);
        let again = Async::new(&a).unwrap();
        assert!(poll_once(pin!(again.readable())).await.is_pending());
    });
}

#[test]
fn what_is_taken_out_is_the_same_descriptor_and_does_not_block() {
    run(1, async {
        let (a, mut b) = UnixStream::pair().unwrap();
        let a = Async::new(a).unwrap();
        b.write_all(b"x").unwrap();
        a.readable().await.unwrap();
        let mut a = a.into_inner();
        assert!(is_nonblocking(&a));
        assert_eq!(a.read(&mut [0; 8]).unwrap(), 1);
        assert_eq!(a.read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    });
}

#[test]
fn being_readable_is_asked_for_and_not_consumed() {
    check(|| async {
        let (a, mut b) = UnixStream::pair().unwrap();
        let a = Async::new(a).unwrap();
        // A new descriptor counts as ready until it is asked.
        assert!(poll_once(pin!(a.readable())).await.is_pending());
        b.write_all(b"xy").unwrap();
        for _ in 0..3 {
            timeout(common::SOON, a.readable()).await.unwrap().unwrap();
        }
        // Past the runtime, which does not learn of it.
        assert_eq!(a.get_ref().read(&mut [0]).unwrap(), 1);
        timeout(common::SOON, a.readable()).await.unwrap().unwrap();
        assert_eq!(a.get_ref().read(&mut [0; 8]).unwrap(), 1);
        assert!(poll_once(pin!(a.readable())).await.is_pending());
        let writer = spawn_blocking(move || b.write_all(b"z"));
        timeout(common::SOON, a.readable()).await.unwrap().unwrap();
        writer.await.unwrap().unwrap();
        // The writer's end is gone.
        assert_eq!(a.read(&mut [0; 8]).await.unwrap(), 1);
        timeout(common::SOON, a.readable()).await.unwrap().unwrap();
        assert_eq!(a.read(&mut [0; 8]).await.unwrap(), 0);
    });
}

#[test]
fn being_writable_is_waited_for() {
    check(|| async {
        let (read, write) = pipe();
        timeout(common::SOON, write.writable()).await.unwrap().unwrap();
        while rustix::io::write(write.get_ref(), &[0; 4096]).is_ok() {}
        let mut writable = pin!(write.writable());
        assert!(poll_once(writable.as_mut()).await.is_pending());
        assert_eq!(read.read(&mut [0; 65_536]).await.unwrap(), 65_536);
        timeout(common::SOON, writable).await.unwrap().unwrap();
        // A reader that has gone is as good, and writing tells.
        drop(read);
        timeout(common::SOON, write.writable()).await.unwrap().unwrap();
        assert_eq!(write.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_users_call_is_made_when_it_can_be_and_its_errors_are_handed_on() {
    check(|| async {
        let (a, b) = UnixDatagram::pair().unwrap();
        let (a, b) = (Async::new(a).unwrap(), Async::new(b).unwrap());
        let reader = spawn(async move {
            let mut buffer = [0; 16];
            let mut calls = 0;
            let count = b
                .read_with(|socket| {
                    calls += 1;
                    socket.recv(&mut buffer)
                })
                .await
                .unwrap();
            let refused: io::Result<()> = b.read_with(|_| Err(io::ErrorKind::InvalidData.into())).await;
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidData);
            (buffer[..count].to_vec(), calls)
        });
        mainspring::task::yield_now().await;
        assert_eq!(a.write_with(|socket| socket.send(b"datagram")).await.unwrap(), 8);
        let (bytes, calls) = reader.await.unwrap();
        assert_eq!(bytes, b"datagram");
        // Woken by readiness, and not asking all the time.
        assert!(calls <= 3, "{calls} calls");
    });
}

#[test]
fn poll_functions_wake_the_task_that_called_them_last() {
    check(|| async {
        let (a, mut b) = UnixStream::pair().unwrap();
        let a = Arc::new(Async::new(a).unwrap());
        assert!(std::future::poll_fn(|cx| Poll::Ready(a.poll_readable(cx))).await.is_pending());
        let reader = spawn({
            let a = Arc::clone(&a);
            async move {
                std::future::poll_fn(|cx| a.poll_readable(cx)).await.unwrap();
                std::future::poll_fn(|cx| a.poll_read_with(cx, |mut io| io.read(&mut [0; 8]))).await.unwrap()
            }
        });
        std::future::poll_fn(|cx| a.poll_writable(cx)).await.unwrap();
        let sent = std::future::poll_fn(|cx| a.poll_write_with(cx, |mut io| io.write(b"ab"))).await;
        assert_eq!(sent.unwrap(), 2);
        b.write_all(b"abc").unwrap();
        assert_eq!(reader.await.unwrap(), 3);
    });
}

#[test]
fn one_task_reads_while_another_writes_the_same_descriptor() {
    const ROUNDS: usize = 2_000;
    check(|| async {
        let (a, b) = UnixStream::pair().unwrap();
        let (a, b) = (Arc::new(Async::new(a).unwrap()), Arc::new(Async::new(b).unwrap()));
        let ends = [Arc::clone(&a), b].map(|end| {
            let reading = Arc::clone(&end);
            let reader = spawn(async move {
                for place in 0..ROUNDS {
                    let mut byte = [0];
                    reading.read_exact(&mut byte).await.unwrap();
                    assert_eq!(byte[0], byte_at(place));
                }
            });
            let writer = spawn(async move {
                for place in 0..ROUNDS {
                    end.write_all(&[byte_at(place)]).await.unwrap();
                }
            });
            [reader, writer]
        });
        for task in ends.into_iter().flatten() {
            task.await.unwrap();
        }
    });
}

#[test]
fn two_tasks_that_read_one_descriptor_share_what_comes() {
    check(|| async {
        let (read, write) = pipe();
        let read = Arc::new(read);
        let readers = [(); 2].map(|()| {
            let read = Arc::clone(&read);
            spawn(async move {
                let mut sum = 0;
                loop {
                    let mut buffer = [0; 7];
                    match read.read(&mut buffer).await.unwrap() {
                        0 => return sum,
                        count => sum += count,
                    }
                }
            })
        });
        for _ in 0..1_000 {
            write.write_all(&[1; 13]).await.unwrap();
        }
        drop(write);
        let mut sum = 0;
        for reader in readers {
            sum += reader.await.unwrap();
        }
        assert_eq!(sum, 13_000);
    });
}

#[test]
fn deadlines_end_waiting_and_no_byte_is_lost() {
    check(|| async {
        let (read, write) = pipe();
        read.set_read_deadline(Instant::now() + Duration::from_millis(2)).unwrap();
        assert!(is_timeout(&read.read(&mut [0]).await));
        write.write_all(b"x").await.unwrap();
        assert!(is_timeout(&read.read(&mut [0]).await), "data does not undo what has passed");
        assert!(is_timeout(&read.readable().await));
        assert!(is_timeout(&read.read_with(|_| Ok(())).await));
        read.set_read_deadline(None).unwrap();
        assert_eq!(read.read(&mut [0; 8]).await.unwrap(), 1);

        let deadlines = write.deadlines();
        let writer = spawn(async move {
            let result = loop {
                if let Err(error) = write.write(&[0; 4096]).await {
                    break Err::<(), _>(error);
                }
            };
            (result, write)
        });
        sleep(Duration::from_millis(2)).await;
        deadlines.set_write_deadline(Instant::now()).unwrap();
        let (result, write) = writer.await.unwrap();
        assert!(is_timeout(&result));
        assert!(is_timeout(&write.writable().await));
        write.set_deadline(None).unwrap();
        assert!(poll_once(pin!(write.writable())).await.is_pending());
    });
}

#[test]
fn a_wait_that_is_dropped_takes_nobodys_wake_up_along() {
    check(|| async {
        let (read, write) = pipe();
        for _ in 0..100 {
            let mut buffer = [0; 4];
            {
                let mut dropped = pin!(read.read(&mut buffer));
                assert!(poll_once(dropped.as_mut()).await.is_pending());
            }
            let mut other = [0; 4];
            let mut kept = pin!(read.read(&mut other));
            assert!(poll_once(kept.as_mut()).await.is_pending());
            write.write_all(b"x").await.unwrap();
            assert_eq!(timeout(common::SOON, kept).await.unwrap().unwrap(), 1);
        }
    });
}

#[test]
fn the_end_of_the_runtime_ends_what_waits() {
    let (_watchdog, runtime) = common::watched(2);
    let (read, _write) = runtime.block_on(async { pipe() });
    let (waiting, started) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        mainspring::block_on(async {
            let mut buffer = [0];
            let mut read = pin!(read.read(&mut buffer));
            assert!(poll_once(read.as_mut()).await.is_pending());
            waiting.send(()).unwrap();
            read.await.map(drop)
        })
    });
    started.recv().unwrap();
    drop(runtime);
    assert!(reader.join().unwrap().is_err());
}

#[test]
fn a_descriptor_is_used_outside_of_any_runtime() {
    let (read, write) = pipe();
    let writer = std::thread::spawn(move || mainspring::block_on(write.write_all(b"hello")));
    let mut buffer = [0; 5];
    mainspring::block_on(read.read_exact(&mut buffer)).unwrap();
    assert_eq!(&buffer, b"hello");
    writer.join().unwrap().unwrap();
}

#[test]
fn reading_and_writing_nothing_does_not_wait() {
    run(1, async {
        let (read, write) = pipe();
        assert!(poll_once(pin!(read.readable())).await.is_pending());
        assert_eq!(read.read(&mut []).await.unwrap(), 0);
        assert_eq!(write.write(&[]).await.unwrap(), 0);
    });
}

#[test]
fn the_traits_of_futures_io_read_and_write_also_by_reference() {
    use futures_util::{AsyncReadExt, AsyncWriteExt};

    check(|| async {
        let (read, write) = pipe();
        let writer = spawn(async move {
            let bytes: Vec<u8> = (0..300_000).map(byte_at).collect();
            AsyncWriteExt::write_all(&mut &write, &bytes[..1]).await.unwrap();
            let mut write = write;
            AsyncWriteExt::write_all(&mut write, &bytes[1..]).await.unwrap();
            AsyncWriteExt::close(&mut write).await.unwrap();
        });
        let mut bytes = Vec::new();
        (&read).read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes.len(), 300_000);
        assert!(bytes.iter().enumerate().all(|(place, &byte)| byte == byte_at(place)));
        writer.await.unwrap();
    });
}

#[cfg(feature = "tokio-io")]
#[test]
fn the_traits_of_tokio_read_and_write() {
    use std::process::Stdio;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    check(|| async {
        let mut child = mainspring::process::Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        AsyncWriteExt::write_all(&mut stdin, b"through tokio's traits").await.unwrap();
        AsyncWriteExt::shutdown(&mut stdin).await.unwrap();
        drop(stdin);
        let mut text = String::new();
        AsyncReadExt::read_to_string(&mut stdout, &mut text).await.unwrap();
        assert_eq!(text, "through tokio's traits");
        assert!(child.wait().await.unwrap().success());
    });
}
