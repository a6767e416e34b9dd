//! Where and when a runtime may end: in the odd places, when it has hardly begun, many times over.

mod common;

use std::future::pending;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::ending::{LONG, Tally, on_runtimes, settle, wait_until};
use common::runtime as build;
use common::watchdog::Watchdog;
use mainspring::runtime::{Builder, Handle, Runtime};
use mainspring::time::{after_func, sleep};

const HOUR: Duration = Duration::from_secs(3600);

/// Puts a runtime where `place` says, drops it there, and looks whether what it held is gone.
fn dropped_in(name: &str, place: impl Fn(Handle, Box<dyn FnOnce() + Send>)) {
    on_runtimes(name, |runtime| {
        let tally = Tally::default();
        let token = tally.token();
        runtime.spawn(async move {
            pending::<()>().await;
            token.hold();
        });
        let token = tally.token();
        runtime.block_on(async { after_func(HOUR, move || token.hold()) });
        settle(&runtime);
        let (sender, receiver) = mpsc::channel();
        let handle = runtime.handle();
        let end = Box::new(move || {
            let start = Instant::now();
            drop(runtime);
            sender.send(start.elapsed()).unwrap();
        });
        place(handle.clone(), end);
        let took = receiver.recv().expect("the runtime was not dropped by the place itself");
        assert!(took < LONG, "{took:?}");
        tally.assert_all_dropped();
        wait_until(|| handle.metrics().threads == 0, || format!("a worker stays: {handle:#?}"));
    });
}

#[test]
fn a_runtime_may_be_dropped_inside_of_one_of_its_tasks() {
    dropped_in("in a task", |handle, end| drop(handle.spawn(async move { end() })));
}

#[test]
fn a_runtime_may_be_dropped_inside_of_block_on() {
    dropped_in("in block_on", |handle, end| handle.block_on(async move { end() }));
}

#[test]
fn a_runtime_may_be_dropped_inside_of_block_on_inside_of_a_task() {
    dropped_in("in block_on in a task", |handle, end| {
        drop(handle.spawn(async move { mainspring::block_on(async move { end() }) }));
    });
}

#[test]
fn a_runtime_may_be_dropped_on_its_blocking_pool() {
    dropped_in("in the blocking pool", |handle, end| drop(handle.spawn_blocking(end)));
}

#[test]
fn a_runtime_may_be_dropped_in_a_timer_function() {
    dropped_in("in a timer function", |handle, end| {
        handle.block_on(async { after_func(Duration::from_micros(10), end) });
    });
}

#[test]
fn a_runtime_may_be_dropped_by_the_destructor_of_a_task_of_another_one() {
    struct OnDrop(Option<Box<dyn FnOnce() + Send>>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.take().unwrap()();
        }
    }
    dropped_in("in a destructor", |_, end| {
        let other = build(1);
        let value = OnDrop(Some(end));
        other.spawn(async move {
            pending::<()>().await;
            drop(value);
        });
        settle(&other);
        drop(other);
    });
}

/// The names of this process's threads that begin so.
fn threads_named(prefix: &str) -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|name| name.starts_with(prefix)).collect()
}

#[test]
fn no_thread_stays_behind() {
    let _watchdog = Watchdog::new("threads");
    let runtime = Builder::new().processors(4).thread_name("leaving").build().unwrap();
    let (sender, receiver) = mpsc::channel();
    for n in 0..8 {
        let sender = sender.clone();
        runtime.spawn(async move {
            sleep(Duration::from_millis(1)).await;
            mainspring::spawn_blocking(move || sender.send(n).unwrap()).await.unwrap();
        });
    }
    drop(sender);
    assert_eq!(receiver.iter().count(), 8);
    // A worker, the monitor and a thread of the pool at least.
    assert!(threads_named("leaving").len() >= 3, "{:?}", threads_named("leaving"));
    drop(runtime);
    wait_until(|| threads_named("leaving").is_empty(), || format!("{:?}", threads_named("leaving")));
}

#[test]
fn ending_a_runtime_that_has_hardly_begun_leaves_nothing() {
    let watchdog = Watchdog::new("hardly begun");
    for n in 0..300 {
        watchdog.step(format!("hardly begun, {n}"));
        let tally = Tally::default();
        let runtime = build(1 + n % 3);
        for _ in 0..n % 4 {
            let token = tally.token();
            runtime.spawn(async move {
                sleep(HOUR).await;
                token.hold();
            });
        }
        drop(runtime);
        assert_eq!(tally.alive(), 0);
    }
}

#[test]
fn a_runtime_may_end_in_its_own_task_in_its_pool_and_in_another_runtime() {
    let _watchdog = Watchdog::here();
    for processors in [1, 2] {
        let other = Builder::new().processors(processors).build().unwrap();
        let make = || Builder::new().processors(processors).build().unwrap();
        let own = make();
        let handle = own.handle();
        let task = handle.spawn(async move {
            mainspring::spawn(std::future::pending::<()>());
            drop(own);
        });
        // It ends with its runtime, in time or cancelled.
        let _ = other.block_on(task);
        let pooled = make();
        let handle = pooled.handle();
        handle.block_on(handle.spawn_blocking(move || drop(pooled))).unwrap_or(());
        let inside: Runtime = make();
        other
            .block_on(
                other.spawn(
                    async move { inside.block_on(async { mainspring::spawn(async {}).await.unwrap() }) },
                ),
            )
            .unwrap();
    }
}

#[test]
fn many_short_lives_leave_nothing_waiting() {
    let _watchdog = Watchdog::here();
    for round in 0..500 {
        let runtime = Builder::new().processors(1 + round % 3).build().unwrap();
        let tasks: Vec<_> = (0..8)
            .map(|n| {
                runtime.spawn(async move {
                    mainspring::time::sleep(Duration::from_micros(n * 20)).await;
                    mainspring::spawn(async move { n }).await.unwrap()
                })
            })
            .collect();
        for (n, task) in tasks.into_iter().enumerate() {
            assert_eq!(runtime.block_on(task).unwrap(), n as u64);
        }
        runtime.spawn(std::future::pending::<()>());
        runtime.shutdown(Duration::from_secs(20)).unwrap();
    }
}
