//! Sets of tasks: in which order they give results, and what ends with them.

mod common;

use std::future::pending;
use std::sync::mpsc::channel;
use std::time::Duration;

use common::drops::Count;
use common::{SOON, check, runtime, watched};
use mainspring::spawn;
use mainspring::task::{AbortHandle, JoinSet, yield_now};
use mainspring::time::{Instant, sleep};

#[test]
fn a_set_gives_results_in_the_order_in_which_its_tasks_end() {
    check(|| async {
        let mut set = JoinSet::new();
        assert!(set.join_next().await.is_none());
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..3).map(|_| channel::<()>()).unzip();
        for (n, receiver) in receivers.into_iter().enumerate() {
            set.spawn_blocking(move || {
                receiver.recv().unwrap();
                n
            });
        }
        assert_eq!(set.len(), 3);
        for n in [1, 0, 2] {
            senders[n].send(()).unwrap();
            assert_eq!(set.join_next().await.unwrap().unwrap(), n);
        }
        assert!(set.is_empty());
    });
}

#[test]
fn a_set_aborts_its_tasks_when_told_to_and_when_dropped() {
    check(|| async {
        let dropped = Count::new();
        let mut set = JoinSet::new();
        let fill = |set: &mut JoinSet<()>| {
            for _ in 0..5 {
                let counted = dropped.on_drop();
                set.spawn(async move {
                    let _counted = counted;
                    pending::<()>().await;
                });
            }
        };
        fill(&mut set);
        set.abort_all();
        for _ in 0..5 {
            assert!(set.join_next().await.unwrap().unwrap_err().is_cancelled());
        }
        assert_eq!(dropped.get(), 5);

        fill(&mut set);
        set.shutdown().await;
        assert!(set.is_empty());
        assert_eq!(dropped.get(), 10);

        fill(&mut set);
        drop(set);
        while dropped.get() < 15 {
            sleep(Duration::from_micros(100)).await;
        }
    });
}

#[test]
fn a_set_can_be_joined_as_a_whole_or_let_go() {
    check(|| async {
        let mut set = JoinSet::new();
        for n in 0..10 {
            set.spawn(async move { n });
        }
        let mut results = set.join_all().await;
        results.sort_unstable();
        assert_eq!(results, (0..10).collect::<Vec<_>>());

        let mut set = JoinSet::new();
        let ended = Count::new();
        for _ in 0..5 {
            let ended = ended.clone();
            set.spawn(async move {
                yield_now().await;
                ended.add();
            });
        }
        set.detach_all();
        assert!(set.is_empty());
        drop(set);
        while ended.get() < 5 {
            sleep(Duration::from_micros(100)).await;
        }
    });
}

#[test]
fn joining_a_whole_set_passes_a_panic_on_and_aborts_the_others() {
    check(|| async {
        let dropped = Count::new();
        let counted = dropped.on_drop();
        let task = spawn(async move {
            let mut set = JoinSet::new();
            set.spawn(async move {
                let _counted = counted;
                pending::<()>().await;
            });
            set.spawn(async { panic!("expected: on purpose") });
            set.join_all().await;
        });
        let payload = task.await.unwrap_err().into_panic();
        assert_eq!(*payload.downcast::<&str>().unwrap(), "expected: on purpose");
        let start = Instant::now();
        while dropped.get() == 0 {
            assert!(start.elapsed() < SOON);
            sleep(Duration::from_micros(100)).await;
        }
    });
}

#[test]
fn a_set_says_which_task_it_was_that_ended() {
    check(|| async {
        let mut set = JoinSet::new();
        assert!(set.join_next_with_id().await.is_none());
        let value = set.spawn(async { 7 }).id();
        assert_eq!(set.join_next_with_id().await.unwrap().unwrap(), (value, 7));
        let aborted = set.spawn(pending::<i32>());
        let other = set.spawn(async { 8 }).id();
        assert_eq!(set.join_next_with_id().await.unwrap().unwrap(), (other, 8));
        aborted.abort();
        let error = set.join_next_with_id().await.unwrap().unwrap_err();
        assert!(error.is_cancelled());
        assert_eq!(error.id(), aborted.id());
        assert!(set.join_next_with_id().await.is_none());
    });
}

#[test]
fn what_has_ended_is_taken_without_waiting_and_what_runs_is_waited_for_afterwards() {
    check(|| async {
        let mut set = JoinSet::new();
        assert!(set.try_join_next().is_none());
        let (sender, receiver) = channel::<i32>();
        set.spawn_blocking(move || receiver.recv().unwrap());
        let ended: Vec<_> = (0..3).map(|n| set.spawn(async move { n })).collect();
        while !ended.iter().all(AbortHandle::is_finished) {
            yield_now().await;
        }
        let mut results: Vec<_> = std::iter::from_fn(|| set.try_join_next()).map(Result::unwrap).collect();
        results.sort_unstable();
        assert_eq!(results, [0, 1, 2]);
        assert_eq!(set.len(), 1);

        // Whoever asked without waiting has left no waker behind in the place of the one who waits.
        let waits = spawn(async move { set.join_next().await });
        sleep(Duration::from_millis(1)).await;
        sender.send(3).unwrap();
        assert_eq!(waits.await.unwrap().unwrap().unwrap(), 3);
    });
}

#[test]
fn a_task_that_has_ended_is_found_without_waiting_by_one_that_should_yield() {
    let other = runtime(1);
    let mut set = JoinSet::new();
    let ended = set.spawn_on(async {}, &other.handle());
    let (_watchdog, runtime) = watched(1);
    let handle = runtime.handle();
    let found = runtime.block_on(runtime.spawn(async move {
        // It waits for the processor, which is therefore taken from this task, and this task is asked to yield.
        handle.spawn(async {});
        let start = Instant::now();
        while handle.metrics().handoffs == 0 || !ended.is_finished() {
            assert!(start.elapsed() < SOON);
        }
        set.try_join_next()
    }));
    found.unwrap().expect("it has ended").unwrap();
}
