//! The end of a runtime: whatever it holds is freed, whoever waits is told, and no thread stays behind.
//!
//! What a runtime may hold is counted in and out with tokens. Under the address sanitizer
//! (`.ci/sanitize asan`) the same tests show that nothing leaks which no token is in.

mod common;

use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use common::ending::{LONG, Tally, Token, on_runtimes, settle, wait_until};
use common::runtime as build;
use common::watchdog::Watchdog;
use mainspring::net::{TcpListener, TcpStream};
use mainspring::runtime::{Builder, Handle};
use mainspring::task::{JoinHandle, JoinSet};
use mainspring::time::{Timer, after_func, every, sleep};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn futures_that_are_never_woken_are_dropped() {
    on_runtimes("never woken", |runtime| {
        let tally = Tally::default();
        for _ in 0..100 {
            let token = tally.token();
            runtime.spawn(async move {
                pending::<()>().await;
                token.hold();
            });
        }
        settle(&runtime);
        assert_eq!(tally.alive(), 100);
        drop(runtime);
        assert_eq!(tally.alive(), 0);
    });
}

#[test]
fn tasks_that_wait_for_one_another_are_cancelled() {
    on_runtimes("waiting for one another", |runtime| {
        let tally = Tally::default();
        let slot: Arc<Mutex<Option<JoinHandle<()>>>> = Arc::default();
        let first = runtime.spawn({
            let (token, slot) = (tally.token(), Arc::clone(&slot));
            async move {
                let other = poll_fn(|context| match slot.lock().unwrap().take() {
                    Some(other) => Poll::Ready(other),
                    None => {
                        context.waker().wake_by_ref();
                        Poll::Pending
                    }
                })
                .await;
                let _ = other.await;
                token.hold();
            }
        });
        let token = tally.token();
        let second = runtime.spawn(async move {
            let _ = first.await;
            token.hold();
        });
        *slot.lock().unwrap() = Some(second);
        settle(&runtime);
        drop(runtime);
        tally.assert_all_dropped();
    });
}

#[test]
fn sleeps_reads_accepts_and_intervals_are_dropped_with_their_tasks() {
    on_runtimes("sleeps and reads", |runtime| {
        let tally = Tally::default();
        let hold = |token: Token, future: Pin<Box<dyn Future<Output = ()> + Send>>| {
            runtime.spawn(async move {
                future.await;
                token.hold();
            })
        };
        hold(tally.token(), Box::pin(sleep(HOUR)));
        hold(tally.token(), Box::pin(sleep(Duration::MAX)));
        hold(
            tally.token(),
            Box::pin(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                listener.set_deadline(mainspring::time::Instant::now() + HOUR).unwrap();
                let _ = listener.accept().await;
            }),
        );
        hold(
            tally.token(),
            Box::pin(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                stream.set_deadline(mainspring::time::Instant::now() + HOUR).unwrap();
                let _ = stream.read(&mut [0]).await;
            }),
        );
        hold(
            tally.token(),
            Box::pin(async {
                let mut interval = mainspring::time::interval(Duration::from_micros(50));
                loop {
                    interval.tick().await;
                }
            }),
        );
        settle(&runtime);
        assert_eq!(tally.alive(), 5);
        drop(runtime);
        tally.assert_all_dropped();
    });
}

#[test]
fn what_timer_functions_have_captured_is_dropped() {
    on_runtimes("timer functions", |runtime| {
        let tally = Tally::default();
        let kept: Vec<Timer> = runtime.block_on(async {
            let (once, many, fast) = (tally.token(), tally.token(), tally.token());
            after_func(HOUR, {
                let token = tally.token();
                move || token.hold()
            });
            vec![
                after_func(HOUR, move || once.hold()),
                every(HOUR, move || many.hold()),
                every(Duration::from_micros(20), move || fast.hold()),
            ]
        });
        assert_eq!(tally.alive(), 4);
        drop(runtime);
        tally.assert_all_dropped();
        for timer in kept {
            assert!(!timer.stop());
            timer.reset(Duration::from_millis(1));
        }
    });
}

#[test]
fn a_timer_function_that_holds_its_own_timer_is_dropped_also_when_it_runs_at_the_end() {
    on_runtimes("own timer", |runtime| {
        let tally = Tally::default();
        let (started, is_started) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        runtime.block_on(async {
            let own: Arc<OnceLock<Timer>> = Arc::default();
            let (token, inside) = (tally.token(), Arc::clone(&own));
            let timer = every(Duration::from_millis(1), move || {
                token.hold();
                let _ = (inside.get(), started.send(()), may_go.recv());
            });
            own.set(timer).unwrap();
        });
        is_started.recv().unwrap();
        drop(runtime);
        assert_eq!(tally.alive(), 1, "it still runs");
        drop(go);
        tally.assert_all_dropped();
    });
}

#[test]
fn outputs_that_nobody_takes_are_dropped() {
    on_runtimes("outputs", |runtime| {
        let tally = Tally::default();
        let (detached, kept) = (tally.token(), tally.token());
        drop(runtime.spawn(async move { detached }));
        let handle = runtime.spawn(async move { kept });
        let mut set = JoinSet::new();
        for _ in 0..5 {
            let token = tally.token();
            set.spawn_on(async move { token }, &runtime.handle());
        }
        wait_until(|| runtime.metrics().tasks_alive == 0, || "the tasks did not end".to_owned());
        wait_until(|| tally.alive() == 6, || "the detached output was not dropped".to_owned());
        drop(runtime);
        assert_eq!(tally.alive(), 6, "the handles still have theirs");
        drop(set);
        drop(handle);
        assert_eq!(tally.alive(), 0);
    });
}

/// A waker that is counted while it lives.
struct CountedWaker(#[allow(dead_code, reason = "lives as long as the waker")] Token);

impl Wake for CountedWaker {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn wakers_that_the_runtime_keeps_are_dropped() {
    on_runtimes("wakers", |runtime| {
        let tally = Tally::default();
        let poll = |future: Pin<&mut dyn Future<Output = ()>>| {
            let waker = Waker::from(Arc::new(CountedWaker(tally.token())));
            assert!(future.poll(&mut Context::from_waker(&waker)).is_pending());
        };
        let (mut nap, mut task, listener) = runtime.block_on(async {
            let task = mainspring::spawn(pending::<()>());
            (sleep(HOUR), task, TcpListener::bind("127.0.0.1:0").await.unwrap())
        });
        let mut accept = Box::pin(listener.accept());
        runtime.block_on(async {
            poll(std::pin::pin!(&mut nap));
            poll(std::pin::pin!(async { (&mut task).await.unwrap() }));
            poll(std::pin::pin!(async { drop(accept.as_mut().await) }));
        });
        assert_eq!(tally.alive(), 3);
        drop(runtime);
        tally.assert_all_dropped();
        drop(nap);
    });
}

/// Spawns another of its kind, some generations deep, when it is dropped.
struct SpawnsWhenDropped {
    tally: Tally,
    handle: Handle,
    generations: u32,
    _token: Token,
}

impl SpawnsWhenDropped {
    fn new(tally: &Tally, handle: Handle, generations: u32) -> SpawnsWhenDropped {
        SpawnsWhenDropped { tally: tally.clone(), handle, generations, _token: tally.token() }
    }
}

impl Drop for SpawnsWhenDropped {
    fn drop(&mut self) {
        if self.generations > 0 {
            let child = SpawnsWhenDropped::new(&self.tally, self.handle.clone(), self.generations - 1);
            let task = self.handle.spawn(async move {
                pending::<()>().await;
                drop(child);
            });
            drop(self.handle.spawn_blocking(move || drop(task)));
        }
    }
}

#[test]
fn a_task_that_spawns_when_it_is_dropped_ends_all_the_same() {
    on_runtimes("spawns when dropped", |runtime| {
        let tally = Tally::default();
        for _ in 0..20 {
            let value = SpawnsWhenDropped::new(&tally, runtime.handle(), 5);
            runtime.spawn(async move {
                pending::<()>().await;
                drop(value);
            });
        }
        settle(&runtime);
        drop(runtime);
        tally.assert_all_dropped();
    });
}

#[test]
fn shutdown_says_in_time_how_many_workers_are_stuck() {
    let _watchdog = Watchdog::new("stuck workers");
    let tally = Tally::default();
    let runtime = build(3);
    let (started, is_started) = mpsc::channel();
    let gate: Arc<Mutex<()>> = Arc::default();
    let shut = gate.lock().unwrap();
    for _ in 0..2 {
        let (token, started, gate) = (tally.token(), started.clone(), Arc::clone(&gate));
        runtime.spawn(async move {
            started.send(()).unwrap();
            drop(gate.lock());
            pending::<()>().await;
            token.hold();
        });
        is_started.recv().unwrap();
    }
    let start = Instant::now();
    let error = runtime.shutdown(Duration::from_millis(200)).unwrap_err();
    let took = start.elapsed();
    assert_eq!(error.threads, 2);
    assert!(took >= Duration::from_millis(200) && took < LONG, "{took:?}");
    assert_eq!(tally.alive(), 2, "their futures are in use");
    drop(shut);
    tally.assert_all_dropped();
}

#[test]
fn shutdown_waits_for_a_worker_that_comes_back_in_time() {
    on_runtimes("comes back", |runtime| {
        let tally = Tally::default();
        let token = tally.token();
        let (started, is_started) = mpsc::channel();
        runtime.spawn(async move {
            started.send(()).unwrap();
            thread::sleep(Duration::from_millis(150));
            pending::<()>().await;
            token.hold();
        });
        is_started.recv().unwrap();
        assert_eq!(runtime.shutdown(Duration::from_secs(30)), Ok(()));
        assert_eq!(tally.alive(), 0);
    });
}

#[test]
fn dropping_does_not_wait_for_a_blocked_worker_for_long() {
    on_runtimes("blocked worker", |runtime| {
        let tally = Tally::default();
        let (started, is_started) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        let token = tally.token();
        let task = runtime.spawn(async move {
            started.send(()).unwrap();
            let _ = may_go.recv();
            pending::<()>().await;
            token.hold();
        });
        let queued = tally.token();
        runtime.spawn(async move {
            pending::<()>().await;
            queued.hold();
        });
        is_started.recv().unwrap();
        let start = Instant::now();
        drop(runtime);
        assert!(start.elapsed() < LONG, "{:?}", start.elapsed());
        wait_until(|| tally.alive() == 1, || "the task that is not stuck was not dropped".to_owned());
        drop(go);
        tally.assert_all_dropped();
        assert!(mainspring::block_on(task).unwrap_err().is_cancelled());
    });
}

#[test]
fn jobs_that_no_thread_has_taken_are_cancelled() {
    let _watchdog = Watchdog::new("queued jobs");
    let runtime = Builder::new().processors(1).max_threads(1).build().unwrap();
    let tally = Tally::default();
    let (started, is_started) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    let running = tally.token();
    let first = runtime.spawn_blocking(move || {
        started.send(()).unwrap();
        let _ = may_go.recv();
        running.hold();
        running
    });
    is_started.recv().unwrap();
    let queued: Vec<_> = (0..10)
        .map(|_| {
            let token = tally.token();
            runtime.spawn_blocking(move || token.hold())
        })
        .collect();
    drop(runtime);
    assert_eq!(tally.alive(), 1, "only the running one is left");
    for job in queued {
        assert!(mainspring::block_on(job).unwrap_err().is_cancelled());
    }
    drop(go);
    drop(mainspring::block_on(first).expect("a job that runs is not cancelled"));
    tally.assert_all_dropped();
}

#[test]
fn who_awaits_a_task_of_another_runtime_is_told() {
    on_runtimes("awaited elsewhere", |runtime| {
        let other = build(2);
        let tasks: Vec<_> = (0..10).map(|_| runtime.spawn(pending::<()>())).collect();
        let waiting: Vec<_> = tasks
            .into_iter()
            .map(|task| other.spawn(async move { task.await.unwrap_err().is_cancelled() }))
            .collect();
        settle(&other);
        drop(runtime);
        for task in waiting {
            assert!(other.block_on(task).unwrap());
        }
    });
}

#[test]
fn what_is_spawned_on_a_dead_runtime_is_cancelled() {
    on_runtimes("spawn after the end", |runtime| {
        let tally = Tally::default();
        let handle = runtime.handle();
        drop(runtime);
        let (task, job) = (tally.token(), tally.token());
        let task = handle.spawn(async move { task.hold() });
        let job = handle.spawn_blocking(move || job.hold());
        assert_eq!(tally.alive(), 0);
        assert!(handle.block_on(task).unwrap_err().is_cancelled());
        assert!(mainspring::block_on(job).unwrap_err().is_cancelled());
        let token = tally.token();
        let timer = handle.block_on(async move { after_func(Duration::ZERO, move || token.hold()) });
        assert!(!timer.stop(), "nothing is pending on a dead runtime");
        drop(timer);
        assert_eq!(tally.alive(), 0);
    });
}

#[test]
fn a_sleep_outlives_its_runtime_and_a_read_fails() {
    on_runtimes("outliving", |runtime| {
        let (nap, mut armed, stream, _peer) = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let peer = listener.accept().await.unwrap().0;
            (sleep(Duration::from_millis(1)), sleep(Duration::from_millis(300)), stream, peer)
        });
        runtime.block_on(poll_fn(|context| {
            assert!(Pin::new(&mut armed).poll(context).is_pending());
            Poll::Ready(())
        }));
        let other = build(1);
        let waiting = other.spawn(armed);
        let stream = Arc::new(stream);
        let reading = other.spawn({
            let stream = Arc::clone(&stream);
            async move { stream.read(&mut [0]).await }
        });
        settle(&other);
        let dead = runtime.handle();
        drop(runtime);
        other.block_on(waiting).unwrap();
        let pending_read: io::Error = other.block_on(reading).unwrap().unwrap_err();
        let late_read = other.block_on(stream.read(&mut [0])).unwrap_err();
        assert_eq!(pending_read.kind(), late_read.kind());
        stream.set_read_deadline(mainspring::time::Instant::now() + HOUR).unwrap_err();
        // On the dead runtime itself they work as well, with the help of another one.
        dead.block_on(nap);
        dead.block_on(sleep(Duration::from_millis(1)));
        dead.block_on(stream.read(&mut [0])).unwrap_err();
    });
}
