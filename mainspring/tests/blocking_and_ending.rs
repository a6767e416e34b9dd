//! Blocking in tasks, runtimes that end in odd places, and many short lives.

use std::time::Duration;

use mainspring::runtime::{Builder, Handle, Runtime};

fn nested(depth: usize) -> usize {
    if depth == 0 {
        return 0;
    }
    let handle = Handle::current();
    1 + handle.block_on(handle.spawn(async move { nested(depth - 1) })).unwrap()
}

#[test]
fn a_task_blocks_on_a_task_that_blocks_on_a_task_on_one_processor() {
    let runtime = Builder::new().processors(1).build().unwrap();
    for _ in 0..20 {
        assert_eq!(runtime.block_on(runtime.spawn(async { nested(20) })).unwrap(), 20);
    }
}

#[test]
fn the_processor_goes_on_while_a_task_that_has_blocked_keeps_its_thread() {
    let runtime = Builder::new().processors(1).build().unwrap();
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

#[test]
fn a_runtime_may_end_in_its_own_task_in_its_pool_and_in_another_runtime() {
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
