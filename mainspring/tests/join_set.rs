//! Sets of tasks: in which order they give results, and what ends with them.

mod common;

use std::future::pending;
use std::sync::mpsc::channel;
use std::time::Duration;

use common::drops::Count;
use common::{SOON, check};
use mainspring::spawn;
use mainspring::task::{JoinSet, yield_now};
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
