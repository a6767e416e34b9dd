//! Tasks by their behaviour: how they start, how they end, what becomes of what they own.

mod common;

use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use common::drops::{Count, on_drop};
use common::foreign::foreign_block_on;
use common::watchdog::Watchdog;
use common::{check, eventually, watched};
use mainspring::runtime::{Builder, Handle};
use mainspring::task::{AbortHandle, Builder as TaskBuilder, JoinError, JoinHandle, yield_now};
use mainspring::time::{after_func, sleep};
use mainspring::{spawn, spawn_blocking};

fn is_ready<F: Future + Unpin>(future: &mut F) -> bool {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

fn must_be_send<T: Send + Sync + 'static>(_: &T) {}

#[test]
fn a_join_handle_gives_the_output() {
    check(|| async {
        assert_eq!(spawn(async { 7 }).await.unwrap(), 7);
        let text = String::from("moved in, and out again");
        assert_eq!(spawn(async move { text }).await.unwrap(), "moved in, and out again");
    });
}

#[test]
fn an_output_need_not_be_sync() {
    check(|| async {
        let handle = spawn(async { std::cell::Cell::new(7) });
        must_be_send(&handle);
        assert_eq!(handle.await.unwrap().get(), 7);
    });
}

#[test]
fn a_task_that_was_joined_has_ended_and_is_not_counted_any_more() {
    check(|| async {
        for _ in 0..500 {
            let handle = spawn(yield_now());
            let abort = handle.abort_handle();
            handle.await.unwrap();
            assert!(abort.is_finished());
            assert_eq!(Handle::current().metrics().tasks_alive, 0);
        }
    });
}

#[test]
fn a_handle_that_says_finished_is_ready() {
    check(|| async {
        for _ in 0..200 {
            let mut handle = spawn(async {});
            while !handle.is_finished() {
                yield_now().await;
            }
            assert!(is_ready(&mut handle));
        }
    });
}

#[test]
fn a_handle_can_be_polled_given_up_and_polled_from_elsewhere() {
    check(|| async {
        let (sender, receiver) = channel();
        let mut handle = spawn(async move {
            while receiver.try_recv().is_err() {
                yield_now().await;
            }
            7
        });
        assert!(!is_ready(&mut handle));
        let other = spawn(async move { handle.await.unwrap() });
        sender.send(()).unwrap();
        assert_eq!(other.await.unwrap(), 7);
    });
}

#[test]
fn a_handle_works_on_another_executor() {
    let (_watchdog, runtime) = watched(1);
    assert_eq!(foreign_block_on(runtime.spawn(async { 7 })).unwrap(), 7);
}

#[test]
fn ids_are_unique_and_the_same_on_every_handle() {
    check(|| async {
        let one = spawn(async {});
        let other = spawn(pending::<()>());
        assert_ne!(one.id(), other.id());
        assert_eq!(other.id(), other.abort_handle().id());
        other.abort();
        let id = other.id();
        assert_eq!(other.await.unwrap_err().id(), id);
    });
}

#[test]
fn dropping_the_handle_detaches_the_task() {
    check(|| async {
        let (sender, receiver) = channel();
        drop(spawn(async move {
            yield_now().await;
            sender.send(7).unwrap();
        }));
        assert_eq!(spawn_blocking(move || receiver.recv()).await.unwrap(), Ok(7));
    });
}

#[test]
fn an_abort_before_the_first_poll_drops_the_future_unpolled() {
    let (_watchdog, runtime) = watched(1);
    let dropped = Count::new();
    let counted = dropped.on_drop();
    let task = runtime.spawn(async move {
        // On the only processor, so the task below cannot have started.
        let handle = spawn(async move {
            let _counted = counted;
            unreachable!("it was aborted before");
        });
        handle.abort();
        assert!(handle.await.unwrap_err().is_cancelled());
    });
    runtime.block_on(task).unwrap();
    assert_eq!(dropped.get(), 1);
}

#[test]
fn an_abort_while_it_waits_drops_the_future_and_tells_who_joins() {
    check(|| async {
        let dropped = Count::new();
        let (counted, polled) = (dropped.on_drop(), Count::new());
        let poll = polled.clone();
        let handle = spawn(async move {
            let _counted = counted;
            poll.add();
            pending::<()>().await;
        });
        while polled.get() == 0 {
            yield_now().await;
        }
        handle.abort();
        handle.abort();
        let error = handle.await.unwrap_err();
        assert!(error.is_cancelled() && !error.is_panic());
        assert_eq!(dropped.get(), 1);
        assert!(error.to_string().ends_with("was cancelled"), "{error}");
        assert!(error.try_into_panic().is_err());
    });
}

/// Aborts a task of which `rest` is what it does after the abort has come, within one poll.
async fn aborted_while_running<T, F>(rest: F) -> Result<T, JoinError>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let (running, runs) = channel();
    let (go, went) = channel::<()>();
    let handle = spawn(async move {
        running.send(()).unwrap();
        went.recv().unwrap();
        rest.await
    });
    let abort = handle.abort_handle();
    let aborter = std::thread::spawn(move || {
        runs.recv().unwrap();
        abort.abort();
        assert!(!abort.is_finished());
        go.send(()).unwrap();
    });
    let result = handle.await;
    aborter.join().unwrap();
    result
}

#[test]
fn an_abort_while_it_runs_takes_effect_when_the_poll_is_pending() {
    check(|| async {
        assert!(aborted_while_running(pending::<()>()).await.unwrap_err().is_cancelled());
    });
}

#[test]
fn an_abort_while_it_runs_comes_too_late_for_a_poll_that_is_ready() {
    check(|| async {
        assert_eq!(aborted_while_running(async { 7 }).await.unwrap(), 7);
    });
}

#[test]
fn an_abort_after_the_end_changes_nothing() {
    check(|| async {
        let handle = spawn(async { 7 });
        while !handle.is_finished() {
            yield_now().await;
        }
        handle.abort();
        assert_eq!(handle.await.unwrap(), 7);
    });
}

#[test]
fn a_task_may_abort_itself() {
    check(|| async {
        let slot = Arc::new(Mutex::new(None::<AbortHandle>));
        let own = Arc::clone(&slot);
        let handle = spawn(async move {
            while own.lock().unwrap().is_none() {
                yield_now().await;
            }
            let abort = own.lock().unwrap().clone().unwrap();
            let _again = on_drop(move || abort.abort());
            own.lock().unwrap().as_ref().unwrap().abort();
            yield_now().await;
            unreachable!("it was aborted");
        });
        *slot.lock().unwrap() = Some(handle.abort_handle());
        assert!(handle.await.unwrap_err().is_cancelled());
    });
}

#[test]
fn a_task_that_waits_for_itself_goes_with_its_runtime() {
    let dropped = Count::new();
    let (_watchdog, runtime) = watched(2);
    let (sender, receiver) = channel::<JoinHandle<()>>();
    let (counted, polled) = (dropped.on_drop(), Count::new());
    let poll = polled.clone();
    let handle = runtime.spawn(async move {
        let _counted = counted;
        let own = receiver.recv().unwrap();
        poll.add();
        own.await.unwrap();
    });
    sender.send(handle).unwrap();
    eventually("its poll", || polled.get() == 1);
    drop(runtime);
    assert_eq!(dropped.get(), 1);
}

#[test]
fn a_destructor_may_wake_spawn_and_join_its_task() {
    check(|| async {
        let (sender, receiver) = channel();
        let ready = Count::new();
        let waits = ready.clone();
        let handle = spawn(async move {
            let waker = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
            let _cleanup = on_drop(move || {
                waker.wake_by_ref();
                let sender = sender.clone();
                drop(spawn(async move { sender.send(7).unwrap() }));
            });
            waits.add();
            pending::<()>().await;
        });
        while ready.get() == 0 {
            sleep(Duration::from_micros(100)).await;
        }
        handle.abort();
        assert!(handle.await.unwrap_err().is_cancelled());
        assert_eq!(spawn_blocking(move || receiver.recv()).await.unwrap(), Ok(7));
    });
}

#[test]
fn a_panic_ends_its_task_alone_and_is_given_to_who_joins() {
    check(|| async {
        let handle = spawn(async { std::panic::panic_any(7_u32) });
        let error = handle.await.unwrap_err();
        assert!(error.is_panic() && !error.is_cancelled());
        assert!(
            io::Error::from(spawn(async { panic!("expected: on purpose") }).await.unwrap_err())
                .get_ref()
                .is_some()
        );
        assert_eq!(*error.into_panic().downcast::<u32>().unwrap(), 7);
        assert_eq!(spawn(async { 1 }).await.unwrap(), 1);
        assert_eq!(Handle::current().metrics().panics, 2);
    });
}

#[test]
fn the_panic_hook_is_told_of_tasks_and_timer_functions_and_may_panic() {
    let _watchdog = Watchdog::here();
    let told = Count::new();
    let count = told.clone();
    let runtime = Builder::new()
        .processors(1)
        .panic_hook(move |payload| {
            assert!(
                payload.downcast_ref::<&str>().is_some_and(|text| text.starts_with("expected: on purpose"))
            );
            count.add();
            panic!("expected: on purpose, in the hook");
        })
        .build()
        .unwrap();
    runtime.block_on(async {
        assert!(spawn(async { panic!("expected: on purpose") }).await.unwrap_err().is_panic());
        after_func(Duration::ZERO, || panic!("expected: on purpose"));
        while told.get() < 2 {
            sleep(Duration::from_micros(100)).await;
        }
    });
}

#[test]
fn a_future_whose_destructor_panics_ends_as_panicked() {
    check(|| async {
        let bomb = on_drop(|| panic!("expected: on purpose"));
        let handle = spawn(async move {
            let _bomb = bomb;
            pending::<()>().await;
        });
        handle.abort();
        assert!(handle.await.unwrap_err().is_panic());
    });
}

/// Panics with `.0` when it is polled, and with `.1` when it is dropped.
struct PanicsTwice(&'static str, &'static str);

impl Future for PanicsTwice {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        std::panic::panic_any(self.0)
    }
}

impl Drop for PanicsTwice {
    fn drop(&mut self) {
        std::panic::panic_any(self.1);
    }
}

#[test]
fn of_a_panic_in_the_poll_and_one_in_the_destructor_the_first_is_given() {
    check(|| async {
        let error = spawn(PanicsTwice("expected: on purpose, first", "expected: on purpose, second"))
            .await
            .unwrap_err();
        assert_eq!(*error.into_panic().downcast::<&str>().unwrap(), "expected: on purpose, first");
    });
}

/// A panic payload, or any value, whose destructor panics with another one of its kind.
struct Bomb(u32);

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.0 > 0 {
            std::panic::panic_any(Bomb(self.0 - 1));
        }
    }
}

#[test]
fn payloads_outputs_and_timer_functions_whose_destructors_panic_leave_the_workers_alive() {
    check(|| async {
        // The output of a task that nobody wants, and the payload of what its destructor panics with.
        drop(spawn(async { Bomb(3) }));
        drop(spawn(async { std::panic::panic_any(Bomb(3)) }));
        drop(spawn_blocking(|| Bomb(3)));
        drop(spawn_blocking(|| std::panic::panic_any(Bomb(3))));
        drop(after_func(Duration::ZERO, || std::panic::panic_any(Bomb(3))));
        // The timer stops itself and goes away, so its function is dropped after this run.
        let bomb = Bomb(3);
        let (sender, receiver) = channel::<mainspring::time::Timer>();
        let ran = Count::new();
        let run = ran.clone();
        let timer = mainspring::time::every(Duration::from_micros(1), move || {
            let _bomb = &bomb;
            if let Ok(own) = receiver.recv() {
                own.stop();
                run.add();
            }
        });
        sender.send(timer).unwrap();
        while ran.get() == 0 || Handle::current().metrics().tasks_alive > 0 {
            sleep(Duration::from_micros(100)).await;
        }
        for _ in 0..10 {
            sleep(Duration::from_micros(100)).await;
            spawn(async {}).await.unwrap();
            spawn_blocking(|| {}).await.unwrap();
        }
    });
}

#[test]
fn everything_is_dropped_exactly_once() {
    let (futures, outputs) = (Count::new(), Count::new());
    const COUNT: usize = 400;
    let (_watchdog, runtime) = watched(2);
    let mut handles = Vec::new();
    for n in 0..COUNT {
        let (future, output) = (futures.on_drop(), outputs.on_drop());
        let handle = runtime.spawn(async move {
            let _future = future;
            if n % 2 == 0 {
                yield_now().await;
            }
            if n % 16 == 1 {
                pending::<()>().await;
            }
            output
        });
        if n % 5 == 0 {
            handle.abort();
        }
        if n % 3 != 0 {
            handles.push(handle);
        }
    }
    runtime.block_on(async {
        for handle in handles.into_iter().filter(JoinHandle::is_finished) {
            drop(handle.await);
        }
    });
    drop(runtime);
    assert_eq!((futures.get(), outputs.get()), (COUNT, COUNT));
}

#[test]
fn a_task_spawned_after_its_runtime_has_gone_is_cancelled_at_once() {
    let (_watchdog, runtime) = watched(1);
    let handle = runtime.handle();
    drop(runtime);
    let dropped = Count::new();
    let (one, other) = (dropped.on_drop(), dropped.on_drop());
    let task = handle.spawn(async move { drop(one) });
    let blocking = handle.spawn_blocking(move || drop(other));
    assert!(task.is_finished() && blocking.is_finished());
    assert_eq!(dropped.get(), 2);
    assert!(foreign_block_on(task).unwrap_err().is_cancelled());
    assert!(foreign_block_on(blocking).unwrap_err().is_cancelled());
}

#[test]
fn who_waits_for_a_task_is_told_when_the_runtime_goes() {
    let (_watchdog, runtime) = watched(1);
    let task = runtime.spawn(pending::<()>());
    let waiter = std::thread::spawn(move || foreign_block_on(task));
    drop(runtime);
    assert!(waiter.join().unwrap().unwrap_err().is_cancelled());
}

#[test]
fn tasks_spawn_tasks_to_any_depth() {
    fn tree(depth: u32) -> Pin<Box<dyn Future<Output = u32> + Send>> {
        Box::pin(async move {
            if depth == 0 {
                return 1;
            }
            let (left, right) = (spawn(tree(depth - 1)), spawn(tree(depth - 1)));
            left.await.unwrap() + right.await.unwrap()
        })
    }
    check(|| async { assert_eq!(tree(10).await, 1024) });
}

#[test]
fn a_plain_thread_spawns_on_the_ambient_runtime() {
    let _watchdog = Watchdog::here();
    let handle = std::thread::spawn(|| {
        assert!(Handle::try_current().is_err());
        spawn(async { Handle::try_current().is_ok() })
    });
    assert!(foreign_block_on(handle.join().unwrap()).unwrap());
}

#[test]
fn yielding_lets_every_other_ready_task_run() {
    let (_watchdog, runtime) = watched(1);
    let rounds = runtime.block_on(runtime.spawn(async {
        let turns = Arc::new(Mutex::new(Vec::new()));
        let tasks: Vec<_> = (0..4)
            .map(|n| {
                let turns = Arc::clone(&turns);
                spawn(async move {
                    for _ in 0..50 {
                        turns.lock().unwrap().push(n);
                        yield_now().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        Arc::into_inner(turns).unwrap().into_inner().unwrap()
    }));
    // Between two turns of one task every other one has had its turn, once all have begun.
    let turns = rounds.unwrap();
    assert_eq!(turns.len(), 200);
    for round in turns[20..180].windows(8) {
        let mut seen = [0; 4];
        round.iter().for_each(|n| seen[*n as usize] += 1);
        assert_eq!(seen, [2; 4], "{turns:?}");
    }
}

#[test]
fn two_tasks_that_wake_each_other_do_not_keep_a_third_waiting() {
    let (_watchdog, runtime) = watched(1);
    let stop = Arc::new(AtomicBool::new(false));
    runtime
        .block_on(runtime.spawn(async move {
            let wakers: [Arc<Mutex<Option<Waker>>>; 2] = Default::default();
            let players: Vec<_> = (0..2)
                .map(|n| {
                    let (own, other, stop) =
                        (Arc::clone(&wakers[n]), Arc::clone(&wakers[1 - n]), Arc::clone(&stop));
                    spawn(poll_fn(move |context| {
                        *own.lock().unwrap() = Some(context.waker().clone());
                        if let Some(other) = other.lock().unwrap().take() {
                            other.wake();
                        }
                        if stop.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
                    }))
                })
                .collect();
            for _ in 0..10 {
                yield_now().await;
            }
            stop.store(true, Ordering::SeqCst);
            // Whoever waits at this moment would wait for ever.
            for waker in &wakers {
                if let Some(waker) = waker.lock().unwrap().take() {
                    waker.wake();
                }
            }
            for player in players {
                player.await.unwrap();
            }
        }))
        .unwrap();
}

#[test]
fn a_name_and_the_place_of_spawning_are_in_the_debug_form_of_the_handles() {
    check(|| async {
        let handle = Handle::current();
        let named = || TaskBuilder::new().name("sweeper");
        let (line, handles) = (
            line!() + 1,
            [
                named().spawn(async {}),
                named().spawn_on(async {}, &handle),
                named().spawn_blocking(|| {}),
                named().spawn_blocking_on(|| {}, &handle),
            ],
        );
        for (n, task) in (2..).zip(handles) {
            let place = format!("spawned_at: {}:{}:", file!(), line + n - 1);
            for form in [format!("{task:?}"), format!("{:?}", task.abort_handle())] {
                assert!(form.contains(r#"name: "sweeper""#) && form.contains(&place), "{form}, {place}");
            }
            task.await.unwrap();
        }
    });
}

#[test]
fn a_task_without_a_name_shows_none() {
    check(|| async {
        for task in [spawn(async {}), TaskBuilder::new().spawn(async {})] {
            let form = format!("{task:?}");
            assert!(!form.contains("name") && form.contains("spawned_at"), "{form}");
            task.await.unwrap();
        }
    });
}

#[test]
fn a_task_with_a_name_ends_as_any_other() {
    check(|| async {
        let task =
            TaskBuilder::new().name(String::from("panics")).spawn(async { panic!("expected: on purpose") });
        assert!(task.await.unwrap_err().is_panic());
        let task = TaskBuilder::new().name(Arc::from("waits")).spawn(pending::<()>());
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(Handle::current().metrics().tasks_alive, 0);
    });
}
