//! Where a hand-off cannot help or gets in the way: a runtime whose threads are all blocked, a report or a waker that
//! blocks.

mod common;

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::task::{Context, Wake};
use std::time::{Duration, Instant};
use std::{future::Future, thread};

use common::watchdog::Watchdog;
use mainspring::net::TcpListener;
use mainspring::runtime::{Builder, Handoff};
use mainspring::task::yield_now;
use mainspring::time::sleep;

const MILLI: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(10);

#[test]
fn timers_fire_although_every_thread_blocks_on_one() {
    let watchdog = Watchdog::here();
    let runtime = Builder::new().processors(1).max_threads(2).build().unwrap();
    watchdog.watch(&runtime.handle());
    let (sender, receiver) = mpsc::channel();
    for _ in 0..3 {
        let (handle, sender) = (runtime.handle(), sender.clone());
        runtime.spawn(async move {
            handle.block_on(sleep(50 * MILLI));
            sender.send(()).unwrap();
        });
    }
    for _ in 0..3 {
        receiver.recv().unwrap();
    }
}

#[test]
fn a_report_that_blocks_keeps_no_thread_from_being_started() {
    let _watchdog = Watchdog::here();
    let open = Arc::new((Mutex::new(false), Condvar::new()));
    let entered = Arc::new(AtomicBool::new(false));
    let (gate, inside) = (Arc::clone(&open), Arc::clone(&entered));
    let runtime = Builder::new()
        .processors(1)
        .handoff_hook(move |report| {
            if report.returned && !inside.swap(true, SeqCst) {
                let guard = gate.0.lock().unwrap();
                drop(gate.1.wait_timeout_while(guard, LONG, |open| !*open).unwrap());
            }
        })
        .build()
        .unwrap();
    let first = runtime.spawn(async {
        thread::sleep(50 * MILLI);
    });
    runtime.block_on(async { runtime.spawn(async {}).await.unwrap() });
    runtime.block_on(first).unwrap();
    common::eventually("the end is being told", || entered.load(SeqCst));
    let start = Instant::now();
    let (started, is_started) = mpsc::channel();
    let (release, held) = mpsc::channel::<()>();
    let blocked = runtime.spawn(async move {
        started.send(()).unwrap();
        let _ = held.recv_timeout(LONG);
    });
    is_started.recv().unwrap();
    runtime.block_on(runtime.spawn(async {})).unwrap();
    let took = start.elapsed();
    *open.0.lock().unwrap() = true;
    open.1.notify_all();
    drop(release);
    runtime.block_on(blocked).unwrap();
    assert!(took < LONG / 4, "{took:?}");
}

#[test]
fn a_waker_that_blocks_keeps_no_task_that_has_yielded() {
    struct Blocks {
        turns: Arc<AtomicU64>,
        took: mpsc::Sender<Duration>,
    }
    impl Wake for Blocks {
        fn wake(self: Arc<Self>) {
            let (start, turns) = (Instant::now(), self.turns.load(SeqCst));
            while self.turns.load(SeqCst) < turns + 2 && start.elapsed() < LONG {
                thread::sleep(MILLI);
            }
            self.took.send(start.elapsed()).unwrap();
        }
    }
    let _watchdog = Watchdog::here();
    let runtime = Builder::new().processors(1).build().unwrap();
    let turns = Arc::new(AtomicU64::new(0));
    let counts = Arc::clone(&turns);
    let task = runtime.spawn(async move {
        loop {
            counts.fetch_add(1, SeqCst);
            yield_now().await;
        }
    });
    common::eventually("it takes its turns", || turns.load(SeqCst) > 10);
    let (took, receiver) = mpsc::channel();
    let waker = Arc::new(Blocks { turns, took }).into();
    let mut sleep = pin!(sleep(20 * MILLI));
    runtime.block_on(std::future::poll_fn(|_| {
        assert!(sleep.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        std::task::Poll::Ready(())
    }));
    let took = receiver.recv().unwrap();
    task.abort();
    assert!(took < LONG / 4, "{took:?}");
}

/// The monitor has nobody to leave it to: the only worker waits for just this.
#[test]
fn who_waits_in_block_on_is_woken_though_every_processor_is_stuck_for_good() {
    let watchdog = Watchdog::here();
    for waits_for_a_socket in [false, true] {
        let runtime = Builder::new().processors(1).handoff(Handoff::off()).build().unwrap();
        watchdog.watch(&runtime.handle());
        let (release, held) = mpsc::channel::<()>();
        let (begins, begun) = mpsc::channel();
        let stuck = runtime.spawn(async move {
            begins.send(()).unwrap();
            held.recv().unwrap();
        });
        begun.recv().unwrap();
        runtime.block_on(async {
            if waits_for_a_socket {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                let client = thread::spawn(move || {
                    thread::sleep(20 * MILLI);
                    std::net::TcpStream::connect(address).unwrap()
                });
                listener.accept().await.unwrap();
                drop(client.join().unwrap());
            } else {
                sleep(20 * MILLI).await;
            }
        });
        release.send(()).unwrap();
        runtime.block_on(stuck).unwrap();
    }
}
