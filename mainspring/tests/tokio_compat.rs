//! Code that insists on tokio's runtime, in every place where user code runs.
#![cfg(feature = "tokio-compat")]

mod common;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::sockets::byte_at;
use common::{SOON, run, runtime, watched};
use mainspring::spawn;
use mainspring::time::timeout;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SHORT: Duration = Duration::from_millis(20);

/// What needs tokio's timers, reactor, scheduler and blocking pool.
async fn use_tokio() {
    let start = Instant::now();
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(start.elapsed() >= Duration::from_millis(5));

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let echo = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await
    });
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let sent: Vec<u8> = (0..10_000).map(byte_at).collect();
    stream.write_all(&sent).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).await.unwrap();
    assert_eq!(back, sent);
    assert_eq!(echo.await.unwrap().unwrap(), 10_000);

    assert_eq!(tokio::task::spawn_blocking(|| 6 * 7).await.unwrap(), 42);
    assert_eq!(tokio::fs::read("/proc/sys/kernel/ostype").await.unwrap(), b"Linux\n");
    assert!(tokio::time::timeout(SHORT, std::future::pending::<()>()).await.is_err());
}

#[test]
fn tokio_works_in_tasks_in_block_on_and_in_jobs() {
    run(2, async {
        use_tokio().await;
        let tasks: Vec<_> = (0..8).map(|_| spawn(use_tokio())).collect();
        for task in tasks {
            timeout(SOON, task).await.unwrap().unwrap();
        }
        let job = mainspring::spawn_blocking(|| mainspring::block_on(use_tokio()));
        timeout(SOON, job).await.unwrap().unwrap();
        // Nested, on a worker.
        let nested = spawn(async { mainspring::block_on(async { mainspring::block_on(use_tokio()) }) });
        timeout(SOON, nested).await.unwrap().unwrap();
        let (done, is_done) = mpsc::channel();
        mainspring::time::after_func(Duration::ZERO, move || {
            let sleep = tokio::time::sleep(Duration::from_millis(1));
            done.send(sleep.is_elapsed()).unwrap();
        });
        assert!(!is_done.recv_timeout(SOON).unwrap());
    });
}

#[test]
fn a_runtime_of_ones_own_and_the_ambient_one_have_it() {
    mainspring::block_on(async { spawn(use_tokio()).await.unwrap() });
    let own = runtime(1);
    own.block_on(own.spawn(use_tokio())).unwrap();
    // Again after the end of one.
    drop(own);
    runtime(1).block_on(use_tokio());
}

#[test]
fn who_loses_the_processor_and_who_gets_it_have_a_context() {
    let (_watchdog, runtime) = watched(1);
    runtime.block_on(async {
        let go_on = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&go_on);
        // Blocks the only processor's thread: another thread is started.
        let blocked = spawn(async move {
            let start = Instant::now();
            while !over.load(Ordering::Relaxed) && start.elapsed() < SOON {
                thread::sleep(Duration::from_millis(1));
            }
            use_tokio().await;
        });
        let successor = spawn(use_tokio());
        timeout(SOON, successor).await.unwrap().unwrap();
        assert!(!blocked.is_finished());
        go_on.store(true, Ordering::Relaxed);
        timeout(SOON, blocked).await.unwrap().unwrap();
    });
    assert!(runtime.metrics().handoffs > 0);
}

#[test]
fn a_context_of_the_users_own_is_kept() {
    let runtime = runtime(1);
    let own = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (handle, id) = (own.handle().clone(), own.handle().id());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let driver = thread::spawn(move || own.block_on(stopped));
    let outside = runtime.block_on(async { tokio::runtime::Handle::current().id() });
    assert_ne!(outside, id);
    let entered = handle.enter();
    let inside = runtime.block_on(async {
        use_tokio().await;
        tokio::runtime::Handle::current().id()
    });
    assert_eq!(inside, id);
    assert_eq!(tokio::runtime::Handle::current().id(), id);
    drop(entered);
    stop.send(()).unwrap();
    driver.join().unwrap().unwrap();
}

#[test]
fn a_thread_is_in_a_context_only_while_it_is_in_block_on() {
    let runtime = runtime(1);
    runtime.block_on(use_tokio());
    assert!(tokio::runtime::Handle::try_current().is_err());
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async { panic!("expected: in block_on") });
    }));
    assert!(panicked.is_err());
    assert!(tokio::runtime::Handle::try_current().is_err());
}

#[test]
fn values_of_tokio_outlive_tasks_and_runtimes() {
    let (_watchdog, runtime) = watched(2);
    let listener = runtime.block_on(async { tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap() });
    let waits = runtime.spawn(async move {
        let sleep = tokio::time::sleep(Duration::from_secs(3_600));
        let accepted = listener.accept().await.map(drop);
        sleep.await;
        accepted
    });
    runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
    drop(runtime);
    assert!(mainspring::block_on(waits).unwrap_err().is_cancelled());
}

#[test]
fn blocking_by_tokios_functions_works_in_a_task_and_delays_no_other() {
    run(1, async {
        let blocks = spawn(async {
            tokio::runtime::Handle::current().block_on(use_tokio());
            let own = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            own.block_on(use_tokio());
        });
        let other = spawn(use_tokio());
        timeout(SOON, other).await.unwrap().unwrap();
        timeout(SOON, blocks).await.unwrap().unwrap();
    });
}

/// Says at the end of its thread whether there is a context of tokio's.
struct AtEnd(mpsc::Sender<bool>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        let _ = self.0.send(tokio::runtime::Handle::try_current().is_ok());
    }
}

thread_local! {
    static AT_END: RefCell<Option<AtEnd>> = const { RefCell::new(None) };
}

#[test]
fn thread_locals_are_dropped_outside_of_the_context() {
    let (ends, ended) = mpsc::channel();
    let (_watchdog, runtime) = watched(1);
    let plant = ends.clone();
    // After tokio's own thread-locals were made, and before.
    runtime.block_on(runtime.spawn(async { AT_END.set(Some(AtEnd(plant))) })).unwrap();
    drop(runtime);
    assert!(!ended.recv_timeout(SOON).unwrap());
    let before = thread::spawn(move || {
        AT_END.set(Some(AtEnd(ends)));
        mainspring::block_on(use_tokio());
    });
    before.join().unwrap();
    assert!(!ended.recv_timeout(SOON).unwrap());
}
