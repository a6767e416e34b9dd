//! Tasks by their behaviour: how they start, how they end, what becomes of what they own.

mod support;

use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mainspring::runtime::{Builder, Handle};
use mainspring::task::{AbortHandle, JoinError, JoinHandle, JoinSet, yield_now};
use mainspring::time::{Instant, after_func, sleep};
use mainspring::{spawn, spawn_blocking};
use support::{Count, check, eventually, foreign_block_on, on_drop, runtime, watchdog};

/// Silences std's hook for panics that a test causes on purpose, whose messages begin with "on purpose".
fn quiet() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let text = info.payload_as_str().unwrap_or("on purpose");
            if !text.starts_with("on purpose") {
                hook(info);
            }
        }));
    });
}

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
    let _watchdog = watchdog();
    let runtime = runtime(1);
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
    let _watchdog = watchdog();
    let runtime = runtime(1);
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
    let _watchdog = watchdog();
    let dropped = Count::new();
    let runtime = runtime(2);
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
    quiet();
    check(|| async {
        let handle = spawn(async { std::panic::panic_any(7_u32) });
        let error = handle.await.unwrap_err();
        assert!(error.is_panic() && !error.is_cancelled());
        assert!(
            io::Error::from(spawn(async { panic!("on purpose") }).await.unwrap_err()).get_ref().is_some()
        );
        assert_eq!(*error.into_panic().downcast::<u32>().unwrap(), 7);
        assert_eq!(spawn(async { 1 }).await.unwrap(), 1);
        assert_eq!(Handle::current().metrics().panics, 2);
    });
}

#[test]
fn the_panic_hook_is_told_of_tasks_and_timer_functions_and_may_panic() {
    quiet();
    let _watchdog = watchdog();
    let told = Count::new();
    let count = told.clone();
    let runtime = Builder::new()
        .processors(1)
        .panic_hook(move |payload| {
            assert!(payload.downcast_ref::<&str>().is_some_and(|text| text.starts_with("on purpose")));
            count.add();
            panic!("on purpose, in the hook");
        })
        .build()
        .unwrap();
    runtime.block_on(async {
        assert!(spawn(async { panic!("on purpose") }).await.unwrap_err().is_panic());
        after_func(Duration::ZERO, || panic!("on purpose"));
        while told.get() < 2 {
            sleep(Duration::from_micros(100)).await;
        }
    });
}

#[test]
fn a_future_whose_destructor_panics_ends_as_panicked() {
    quiet();
    check(|| async {
        let bomb = on_drop(|| panic!("on purpose"));
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
    quiet();
    check(|| async {
        let error = spawn(PanicsTwice("on purpose, first", "on purpose, second")).await.unwrap_err();
        assert_eq!(*error.into_panic().downcast::<&str>().unwrap(), "on purpose, first");
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
    quiet();
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
    let _watchdog = watchdog();
    let (futures, outputs) = (Count::new(), Count::new());
    const COUNT: usize = 400;
    let runtime = runtime(2);
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
    let _watchdog = watchdog();
    let runtime = runtime(1);
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
    let _watchdog = watchdog();
    let runtime = runtime(1);
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
    let _watchdog = watchdog();
    let handle = std::thread::spawn(|| {
        assert!(Handle::try_current().is_err());
        spawn(async { Handle::try_current().is_ok() })
    });
    assert!(foreign_block_on(handle.join().unwrap()).unwrap());
}

#[test]
fn yielding_lets_every_other_ready_task_run() {
    let _watchdog = watchdog();
    let runtime = runtime(1);
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
    let _watchdog = watchdog();
    let runtime = runtime(1);
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
fn spawn_blocking_runs_beside_the_workers_and_gives_results_and_panics() {
    quiet();
    check(|| async {
        let (sender, receiver) = channel();
        let blocked = spawn_blocking(move || receiver.recv().unwrap());
        spawn(async move { sender.send(7).unwrap() }).await.unwrap();
        assert_eq!(blocked.await.unwrap(), 7);
        assert!(spawn_blocking(|| panic!("on purpose")).await.unwrap_err().is_panic());
    });
}

#[test]
fn the_blocking_pool_is_bounded_and_what_waits_for_it_can_be_aborted() {
    let _watchdog = watchdog();
    const BOUND: usize = 3;
    let runtime = Builder::new().processors(1).max_threads(BOUND).build().unwrap();
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

/// Needs a worker, a timer and another task.
async fn work() -> u32 {
    sleep(Duration::from_micros(100)).await;
    spawn(async {
        yield_now().await;
        7
    })
    .await
    .unwrap()
}

#[test]
fn block_on_inside_tasks_works_with_one_processor() {
    let _watchdog = watchdog();
    let runtime = runtime(1);
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
    let _watchdog = watchdog();
    for processors in [1, 2] {
        let runtime = runtime(processors);
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
    let _watchdog = watchdog();
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
    quiet();
    check(|| async {
        let handle = Handle::current();
        let task = spawn(async move { handle.block_on(async { panic!("on purpose") }) });
        assert!(task.await.unwrap_err().is_panic());
        assert_eq!(work().await, 7);
    });
}

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
    quiet();
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
    quiet();
    check(|| async {
        let dropped = Count::new();
        let counted = dropped.on_drop();
        let task = spawn(async move {
            let mut set = JoinSet::new();
            set.spawn(async move {
                let _counted = counted;
                pending::<()>().await;
            });
            set.spawn(async { panic!("on purpose") });
            set.join_all().await;
        });
        let payload = task.await.unwrap_err().into_panic();
        assert_eq!(*payload.downcast::<&str>().unwrap(), "on purpose");
        let start = Instant::now();
        while dropped.get() == 0 {
            assert!(start.elapsed() < support::LONG);
            sleep(Duration::from_micros(100)).await;
        }
    });
}
