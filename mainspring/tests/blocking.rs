//! Blocking: functions on the pool of threads, and `block_on` in tasks and elsewhere.

mod common;

use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::drops::Count;
use common::watchdog::Watchdog;
use common::{check, eventually, runtime, watched, work};
use mainspring::runtime::{Builder, Handle};
use mainspring::time::after_func;
use mainspring::{spawn, spawn_blocking};

#[test]
fn spawn_blocking_runs_beside_the_workers_and_gives_results_and_panics() {
    check(|| async {
        let (sender, receiver) = channel();
        let blocked = spawn_blocking(move || receiver.recv().unwrap());
        spawn(async move { sender.send(7).unwrap() }).await.unwrap();
        assert_eq!(blocked.await.unwrap(), 7);
        assert!(spawn_blocking(|| panic!("expected: on purpose")).await.unwrap_err().is_panic());
    });
}

#[test]
fn the_blocking_pool_is_bounded_and_what_waits_for_it_can_be_aborted() {
    let _watchdog = Watchdog::here();
    const BOUND: usize = 3;
    let runtime = Builder::new().processors(1).max_threads(BOUND + 1).build().unwrap();
    let (running, most, dropped) = (Count::new(), Count::new(), Count::new());
    let (release, released) = sync_channel::<()>(0);
    let released = Arc::new(Mutex::new(released));
    let holders: Vec<_> = (0..BOUND)
        .map(|_| {
            let (running, released) = (running.clone(), Arc::clone(&released));
            runtime.spawn_blocking(move || {
                running.add();
                let _ = released.lock().unwrap().recv();
                running.subtract();
            })
        })
        .collect();
    eventually("all threads are taken", || running.get() == BOUND);
    let counted = dropped.on_drop();
    let aborted = runtime.spawn_blocking(move || {
        drop(counted);
        unreachable!("it was aborted before there was a thread for it");
    });
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let (running, most) = (running.clone(), most.clone());
            runtime.spawn_blocking(move || {
                if running.add() > BOUND {
                    most.add();
                }
                std::thread::yield_now();
                running.subtract();
            })
        })
        .collect();
    assert_eq!(runtime.metrics().blocking_threads, BOUND);
    aborted.abort();
    drop(release);
    runtime.block_on(async {
        assert!(aborted.await.unwrap_err().is_cancelled());
        for task in holders.into_iter().chain(waiting) {
            task.await.unwrap();
        }
    });
    assert_eq!((most.get(), dropped.get()), (0, 1));
}

#[test]
fn aborting_a_blocking_function_that_runs_does_nothing() {
    check(|| async {
        let (sender, receiver) = channel();
        let (running, runs) = channel();
        let task = spawn_blocking(move || {
            running.send(()).unwrap();
            receiver.recv().unwrap()
        });
        spawn_blocking(move || runs.recv().unwrap()).await.unwrap();
        task.abort();
        sender.send(7).unwrap();
        assert_eq!(task.await.unwrap(), 7);
    });
}

#[test]
fn block_on_inside_tasks_works_with_one_processor() {
    let (_watchdog, runtime) = watched(1);
    let handle = runtime.handle();
    let task = runtime.spawn(async move {
        let inner = handle.clone();
        handle.block_on(async move {
            let deeper = inner.clone();
            spawn(async move { deeper.block_on(work()) }).await.unwrap()
        }) + spawn(work()).await.unwrap()
    });
    assert_eq!(runtime.block_on(task).unwrap(), 14);
}

#[test]
fn many_tasks_that_block_on_at_once_all_end() {
    for processors in [1, 2] {
        let (_watchdog, runtime) = watched(processors);
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let handle = runtime.handle();
                runtime.spawn(async move { handle.block_on(work()) })
            })
            .collect();
        for task in tasks {
            assert_eq!(runtime.block_on(task).unwrap(), 7);
        }
    }
}

#[test]
fn block_on_works_in_the_blocking_pool_in_a_timer_function_and_across_runtimes() {
    let _watchdog = Watchdog::here();
    let (one, other) = (runtime(1), runtime(1));
    let handle = one.handle();
    assert_eq!(one.block_on(one.spawn_blocking(move || handle.block_on(work()))).unwrap(), 7);

    let (sender, receiver) = channel();
    let handle = one.handle();
    one.block_on(async {
        after_func(Duration::ZERO, move || sender.send(handle.block_on(work())).unwrap());
    });
    assert_eq!(receiver.recv(), Ok(7));

    let handle = other.handle();
    let task = one.spawn(async move {
        handle.block_on(async move {
            let elsewhere = spawn(async { std::thread::current().id() }).await.unwrap();
            assert_ne!(elsewhere, std::thread::current().id());
            work().await
        }) + work().await
    });
    assert_eq!(one.block_on(task).unwrap(), 14);
}

#[test]
fn a_panic_leaves_block_on_and_the_runtime_goes_on() {
    check(|| async {
        let handle = Handle::current();
        let task = spawn(async move { handle.block_on(async { panic!("expected: on purpose") }) });
        assert!(task.await.unwrap_err().is_panic());
        assert_eq!(work().await, 7);
    });
}

fn nested(depth: usize) -> usize {
    if depth == 0 {
        return 0;
    }
    let handle = Handle::current();
    1 + handle.block_on(handle.spawn(async move { nested(depth - 1) })).unwrap()
}

#[test]
fn a_task_blocks_on_a_task_that_blocks_on_a_task_on_one_processor() {
    let (_watchdog, runtime) = watched(1);
    for _ in 0..20 {
        assert_eq!(runtime.block_on(runtime.spawn(async { nested(20) })).unwrap(), 20);
    }
}

#[test]
fn the_processor_goes_on_while_a_task_that_has_blocked_keeps_its_thread() {
    let (_watchdog, runtime) = watched(1);
    let handle = runtime.handle();
    let (sender, receiver) = std::sync::mpsc::channel();
    let first = runtime.spawn(async move {
        let inner = handle.clone();
        handle.block_on(handle.spawn(async {})).unwrap();
        // From here on the thread holds no processor. What follows takes another two threads.
        let second = inner.clone();
        inner.spawn(async move {
            second.block_on(second.spawn(async {})).unwrap();
            second.spawn(async move { sender.send(()).unwrap() });
            std::thread::sleep(Duration::from_millis(50));
        });
        receiver.recv_timeout(Duration::from_secs(20)).unwrap();
    });
    runtime.block_on(first).unwrap();
}
