//! The way back: what becomes of a task, and of what it does in the rest of its poll, after its thread has lost the
//! processor. Each test holds a thread until another task of the same runtime lets it go; on one processor
//! the hand-off has taken place then for certain.

mod common;
#[path = "common/gates.rs"]
mod gates;

use std::future::{Future, pending, poll_fn};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use common::drops::Count;
use common::ending::{Tally, wait_until};
use common::sockets::{pair, read_one};
use common::{SOON, until, work};
use gates::{Crew, Hold, KINDS, for_each_way};
use mainspring::runtime::{Handle, Runtime};
use mainspring::task::{JoinError, JoinHandle, JoinSet, yield_now};
use mainspring::time::{Instant, after_func, interval, sleep, timeout};
use mainspring::{block_on, spawn, spawn_blocking};
use tokio::sync::{mpsc, oneshot};

const MILLI: Duration = Duration::from_millis(1);

/// Runs a task that is given what holds its thread. When it is held, another task does `meanwhile` with its handle,
/// and lets it go.
fn handed_off<T, F>(
    runtime: &Runtime,
    way: gates::Way,
    task: impl FnOnce(Hold) -> F,
    meanwhile: impl FnOnce(&JoinHandle<T>) + Send + 'static,
) -> Result<T, JoinError>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let (crew, mut holds) = Crew::new(way, 1);
    let (give, given) = oneshot::channel();
    #[allow(clippy::async_yields_async, reason = "the handle is given back")]
    let other = runtime.spawn(async move {
        let task = given.await.unwrap();
        crew.until_all_held().await;
        meanwhile(&task);
        crew.let_go();
        task
    });
    assert!(give.send(runtime.spawn(task(holds.pop().unwrap()))).is_ok());
    let result = runtime.block_on(async { other.await.unwrap().await });
    if runtime.metrics().processors == 1 {
        assert!(runtime.metrics().handoffs > 0);
    }
    everything_goes_on(runtime);
    result
}

/// Nothing of what happened is left behind.
fn everything_goes_on(runtime: &Runtime) {
    let tasks: Vec<_> = (0..10).map(|_| runtime.spawn(work())).collect();
    for task in tasks {
        assert_eq!(runtime.block_on(task).unwrap(), 7);
    }
}

// How the poll ends.

#[test]
fn a_task_that_ends_in_the_same_poll_gives_its_result() {
    for_each_way(&KINDS, |runtime, way| {
        let task = |hold: Hold| async move {
            hold();
            "done".to_owned()
        };
        assert_eq!(handed_off(runtime, way, task, |_| ()).unwrap(), "done");
    });
}

#[test]
fn a_task_that_is_pending_afterwards_is_woken_later() {
    for_each_way(&KINDS, |runtime, way| {
        let (wake, woken) = oneshot::channel();
        let task = |hold: Hold| async move {
            hold();
            woken.await.unwrap()
        };
        let result = handed_off(runtime, way, task, move |task| {
            // After the poll has ended, most likely.
            assert!(!task.is_finished());
            after_func(20 * MILLI, || wake.send(7).unwrap());
        });
        assert_eq!(result.unwrap(), 7);
    });
}

#[test]
fn a_task_that_was_woken_meanwhile_by_itself_is_polled_again() {
    for_each_way(&KINDS, |runtime, way| {
        let task = |hold: Hold| {
            let (mut hold, mut polls) = (Some(hold), 0);
            poll_fn(move |context| {
                context.waker().wake_by_ref();
                if let Some(hold) = hold.take() {
                    hold();
                }
                polls += 1;
                if polls < 3 { Poll::Pending } else { Poll::Ready(polls) }
            })
        };
        assert_eq!(handed_off(runtime, way, task, |_| ()).unwrap(), 3);
    });
}

#[test]
fn a_task_that_was_woken_meanwhile_by_others_is_polled_again() {
    for_each_way(&KINDS, |runtime, way| {
        let shared: Arc<Mutex<Option<Waker>>> = Arc::default();
        let waker = Arc::clone(&shared);
        let task = move |hold: Hold| {
            let mut hold = Some(hold);
            poll_fn(move |context| match hold.take() {
                Some(hold) => {
                    *waker.lock().unwrap() = Some(context.waker().clone());
                    hold();
                    Poll::Pending
                }
                None => Poll::Ready(7),
            })
        };
        let result = handed_off(runtime, way, task, move |_| {
            let waker = shared.lock().unwrap().take().unwrap();
            for _ in 0..3 {
                waker.wake_by_ref();
            }
        });
        assert_eq!(result.unwrap(), 7);
    });
}

#[test]
fn a_task_that_was_aborted_meanwhile_is_dropped_when_it_is_pending() {
    for_each_way(&KINDS, |runtime, way| {
        let tally = Tally::default();
        let token = tally.token();
        let task = |hold: Hold| async move {
            hold();
            pending::<()>().await;
            token.hold();
        };
        let alive = tally.clone();
        let error = handed_off(runtime, way, task, move |task| {
            task.abort();
            assert_eq!(alive.alive(), 1);
        });
        assert!(error.unwrap_err().is_cancelled());
        assert_eq!(tally.alive(), 0);
    });
}

#[test]
fn a_task_that_was_aborted_meanwhile_gives_its_result_when_it_is_ready() {
    for_each_way(&KINDS, |runtime, way| {
        let task = |hold: Hold| async move {
            hold();
            7
        };
        assert_eq!(handed_off(runtime, way, task, JoinHandle::abort).unwrap(), 7);
    });
}

#[test]
fn a_task_that_panics_afterwards_tells_who_joins() {
    for_each_way(&KINDS, |runtime, way| {
        let tally = Tally::default();
        let token = tally.token();
        let task = |hold: Hold| async move {
            hold();
            token.hold();
            panic!("expected: on purpose");
        };
        let error = handed_off::<(), _>(runtime, way, task, |_| ()).unwrap_err();
        assert_eq!(*error.into_panic().downcast_ref::<&str>().unwrap(), "expected: on purpose");
        assert_eq!(tally.alive(), 0);
        assert_eq!(runtime.metrics().panics, 1);
    });
}

#[test]
fn the_output_of_a_task_whose_handle_was_dropped_meanwhile_is_dropped() {
    for_each_way(&KINDS, |runtime, way| {
        let tally = Tally::default();
        let token = tally.token();
        let (crew, hold) = Crew::one(way);
        let task = runtime.spawn(async move {
            hold();
            token
        });
        let other = runtime.spawn(async move {
            crew.until_all_held().await;
            drop(task);
            crew.let_go();
        });
        runtime.block_on(other).unwrap();
        tally.assert_all_dropped();
        wait_until(|| runtime.metrics().tasks_alive == 0, || "the task did not end".to_owned());
        everything_goes_on(runtime);
    });
}

#[test]
fn a_task_may_be_held_again_in_each_of_its_polls_and_twice_in_one() {
    for_each_way(&KINDS, |runtime, way| {
        let crews: Vec<_> = (0..6).map(|_| Crew::new(way, 1)).collect();
        let (crews, mut holds): (Vec<_>, Vec<_>) = crews.into_iter().unzip();
        let task = runtime.spawn(async move {
            let mut count = 0;
            while let Some(mut next) = holds.pop() {
                next.pop().unwrap()();
                count += 1;
                if count % 2 == 0 {
                    yield_now().await;
                }
            }
            count
        });
        let other = runtime.spawn(async move {
            for crew in crews.into_iter().rev() {
                crew.until_all_held().await;
                crew.let_go();
            }
        });
        assert_eq!(runtime.block_on(task).unwrap(), 6);
        runtime.block_on(other).unwrap();
        everything_goes_on(runtime);
    });
}

// What it does in the rest of its poll.

/// Runs a task that goes on with `rest` in the poll in which its thread lost the processor.
#[track_caller]
fn goes_on<T, F>(rest: impl Fn() -> F)
where
    T: PartialEq + std::fmt::Debug + From<u8> + Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    for_each_way(&KINDS, |runtime, way| {
        let rest = rest();
        let task = |hold: Hold| async move {
            hold();
            rest.await
        };
        assert_eq!(handed_off(runtime, way, task, |_| ()).unwrap(), T::from(7));
    });
}

#[test]
fn the_rest_of_the_poll_may_spawn() {
    goes_on(|| async {
        let mut set = JoinSet::new();
        for _ in 0..20 {
            set.spawn(work());
        }
        while let Some(result) = set.join_next().await {
            assert_eq!(result.unwrap(), 7);
        }
        spawn_blocking(|| 7_u32).await.unwrap()
    });
}

#[test]
fn the_rest_of_the_poll_may_wake() {
    goes_on(|| async {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let (reply, mut replies) = mpsc::unbounded_channel();
        let echo = spawn(async move {
            while let Some(n) = receiver.recv().await {
                reply.send(n).unwrap();
            }
        });
        for n in 0..20_u32 {
            sender.send(n).unwrap();
            assert_eq!(replies.recv().await, Some(n));
        }
        drop(sender);
        echo.await.unwrap();
        7_u32
    });
}

/// Wakes who sleeps already, from the thread that has no processor, and never comes back itself.
#[test]
fn the_rest_of_the_poll_may_wake_and_hold_its_thread_again() {
    for_each_way(&KINDS, |runtime, way| {
        let (wake, woken) = oneshot::channel();
        let (again, hold_again) = Crew::one(way);
        let sleeper = runtime.spawn(async move {
            woken.await.unwrap();
            again.until_all_held().await;
            again.let_go();
        });
        let task = |hold: Hold| async move {
            hold();
            wake.send(()).unwrap();
            spawn(async {});
            hold_again();
        };
        handed_off(runtime, way, task, |_| ()).unwrap();
        runtime.block_on(sleeper).unwrap();
    });
}

#[test]
fn the_rest_of_the_poll_may_arm_timers() {
    goes_on(|| async {
        let start = Instant::now();
        sleep(2 * MILLI).await;
        assert!(start.elapsed() >= 2 * MILLI);
        7_u8
    });
    goes_on(|| async {
        timeout(MILLI, pending::<()>()).await.unwrap_err();
        7_u8
    });
    goes_on(|| async {
        let mut ticks = interval(MILLI);
        for _ in 0..5 {
            ticks.tick().await;
        }
        7_u8
    });
}

#[test]
fn the_rest_of_the_poll_may_have_functions_run_later() {
    goes_on(|| async {
        let (sender, receiver) = oneshot::channel();
        after_func(MILLI, || sender.send(7_u8).unwrap());
        let stopped = after_func(SOON, || unreachable!());
        assert!(stopped.stop());
        receiver.await.unwrap()
    });
}

#[test]
fn a_timer_that_was_armed_before_can_be_moved_and_stopped_afterwards() {
    for_each_way(&KINDS, |runtime, way| {
        let (runs, moved, stopped) = (Count::new(), Count::new(), Count::new());
        let counts = [moved.clone(), stopped.clone(), runs.clone()];
        let task = |hold: Hold| async move {
            let to_move = after_func(SOON, moved.adder());
            let to_stop = after_func(SOON, stopped.adder());
            after_func(MILLI, runs.adder());
            let mut nap = sleep(SOON);
            std::future::poll_fn(|context| {
                assert!(std::pin::Pin::new(&mut nap).poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
            hold();
            assert!(to_move.reset(Duration::ZERO) && to_stop.stop());
            nap.reset(Instant::now() + MILLI);
            nap.await;
            until(|| moved.get() == 1 && runs.get() == 1).await;
        };
        handed_off(runtime, way, task, |_| ()).unwrap();
        assert_eq!(counts.map(|count| count.get()), [1, 0, 1]);
    });
}

#[test]
fn the_rest_of_the_poll_may_use_sockets() {
    goes_on(|| async {
        let (a, b) = pair().await;
        let reader = spawn(async move {
            let byte = read_one(&a).await.unwrap();
            a.write_all(&[byte]).await.unwrap();
            a.set_read_deadline(Instant::now() + MILLI).unwrap();
            read_one(&a).await.unwrap_err().kind()
        });
        b.write_all(&[7]).await.unwrap();
        let byte = read_one(&b).await.unwrap();
        assert_eq!(reader.await.unwrap(), std::io::ErrorKind::TimedOut);
        byte
    });
}

/// A socket that another worker's poller watches.
#[test]
fn a_socket_from_before_is_read_afterwards() {
    for_each_way(&KINDS, |runtime, way| {
        let (a, b) = runtime.block_on(pair());
        let task = |hold: Hold| async move {
            hold();
            read_one(&a).await.unwrap()
        };
        let result = handed_off(runtime, way, task, move |_| {
            spawn(async move {
                sleep(5 * MILLI).await;
                b.write_all(&[7]).await.unwrap();
            });
        });
        assert_eq!(result.unwrap(), 7);
    });
}

#[test]
fn the_rest_of_the_poll_may_block_on() {
    goes_on(|| async { Handle::current().block_on(work()) });
    goes_on(|| async { block_on(async { Handle::current().block_on(work()) }) });
    goes_on(|| async {
        let before = block_on(spawn(work())).unwrap();
        yield_now().await;
        assert_eq!(before, block_on(work()));
        work().await
    });
}

#[test]
fn the_rest_of_the_poll_may_say_that_it_blocks() {
    goes_on(|| async {
        let (sender, receiver) = std::sync::mpsc::channel();
        spawn(async move {
            sleep(MILLI).await;
            sender.send(7_u32).unwrap();
        });
        mainspring::blocking(|| receiver.recv().unwrap())
    });
}

#[test]
fn the_rest_of_the_poll_still_belongs_to_its_runtime() {
    for_each_way(&KINDS, |runtime, way| {
        let task = |hold: Hold| async move {
            hold();
            for _ in 0..5 {
                spawn(async {}).await.unwrap();
            }
        };
        let before = runtime.metrics().tasks_spawned;
        handed_off(runtime, way, task, |_| ()).unwrap();
        // The two of `handed_off`, the five above, and the twenty that come after.
        assert_eq!(runtime.metrics().tasks_spawned - before, 2 + 5 + 20);
    });
}
