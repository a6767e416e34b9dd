//! A task that keeps its thread delays nobody: not in a lock, not in a system call, not on the CPU. Nothing here is
//! measured in time: threads are held, as many as there are processors, until somebody lets them go who needs a
//! processor for that. Without the hand-off of processors these tests hang.

mod common;
#[path = "common/gates.rs"]
mod gates;

use std::future::{Future, pending, poll_fn};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use common::drops::{Count, on_drop};
use common::foreign::foreign_block_on;
use common::sockets::{pair, read_one};
use common::stress::spin;
use common::watchdog::Watchdog;
use common::{eventually, watched};
use gates::{ASLEEP, Crew, Hold, Way, for_each_way, step};
use mainspring::runtime::{Builder, Handoff, Runtime};
use mainspring::task::{JoinHandle, consume_budget, yield_now};
use mainspring::time::{after_func, every, sleep};
use tokio::sync::oneshot;

const MILLI: Duration = Duration::from_millis(1);

/// Everything that waits in the kernel, declared or not.
fn waits() -> Vec<Way> {
    ASLEEP.into_iter().chain([Way::Declared]).collect()
}

/// Keeps the threads of all processors, once with one task for each and once with three, until `release` lets them
/// go, which is called before and has a way for it when all are held.
#[track_caller]
fn released(ways: &[Way], release: impl Fn(&Runtime, Crew)) {
    let watchdog = Watchdog::here();
    for processors in [1, 2] {
        for &way in ways {
            // As many threads as there are processors may compute beside them.
            let sizes = if way == Way::Spin { vec![processors] } else { vec![processors, 3 * processors] };
            for size in sizes {
                let builder = Builder::new().processors(processors);
                let runtime = step(&watchdog, builder, &format!("{way:?}, {size} tasks"));
                let (crew, holds) = Crew::new(way, size);
                release(&runtime, crew);
                let tasks: Vec<_> = holds
                    .into_iter()
                    .enumerate()
                    .map(|(index, hold)| {
                        runtime.spawn(async move {
                            hold();
                            index
                        })
                    })
                    .collect();
                for (index, task) in tasks.into_iter().enumerate() {
                    assert_eq!(runtime.block_on(task).unwrap(), index);
                }
                assert!(runtime.metrics().handoffs > 0);
            }
        }
    }
}

fn by_a_task_that_is_always_ready(runtime: &Runtime, crew: Crew) {
    runtime.spawn(async move {
        crew.until_all_held().await;
        crew.let_go();
    });
}

fn by_a_sleep_that_ends(runtime: &Runtime, crew: Crew) {
    runtime.spawn(async move {
        while !crew.let_go_if_all_held() {
            sleep(MILLI).await;
        }
    });
}

fn by_a_timer_function(runtime: &Runtime, crew: Crew) {
    fn later(crew: Crew) {
        after_func(MILLI, || {
            if !crew.let_go_if_all_held() {
                later(crew);
            }
        });
    }
    // Armed on a processor that will be taken.
    runtime.block_on(runtime.spawn(async { later(crew) })).unwrap();
}

fn by_a_periodic_function(runtime: &Runtime, crew: Crew) {
    runtime.block_on(async {
        every(MILLI, move || {
            crew.let_go_if_all_held();
        });
    });
}

fn by_a_socket_that_becomes_readable(runtime: &Runtime, crew: Crew) {
    let (reader, writer) = runtime.block_on(pair());
    let held = crew.clone();
    std::thread::spawn(move || {
        eventually("all are held", || held.all_held());
        foreign_block_on(writer.write_all(b"x")).unwrap();
    });
    runtime.spawn(async move {
        assert_eq!(read_one(&reader).await.unwrap(), b'x');
        crew.let_go();
    });
}

fn by_a_connection_that_comes(runtime: &Runtime, crew: Crew) {
    let listener = runtime.block_on(mainspring::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let held = crew.clone();
    std::thread::spawn(move || {
        eventually("all are held", || held.all_held());
        std::net::TcpStream::connect(address).unwrap();
    });
    runtime.spawn(async move {
        listener.accept().await.unwrap();
        crew.let_go();
    });
}

fn by_a_task_that_a_thread_spawns(runtime: &Runtime, crew: Crew) {
    let handle = runtime.handle();
    std::thread::spawn(move || {
        eventually("all are held", || crew.all_held());
        handle.spawn(async move { crew.let_go() });
    });
}

fn by_a_task_that_a_thread_wakes(runtime: &Runtime, crew: Crew) {
    let (wake, woken) = oneshot::channel();
    let held = crew.clone();
    runtime.spawn(async move {
        woken.await.unwrap();
        crew.let_go();
    });
    std::thread::spawn(move || {
        eventually("all are held", || held.all_held());
        wake.send(()).unwrap();
    });
}

fn by_a_task_that_waits_for_the_blocking_pool(runtime: &Runtime, crew: Crew) {
    let held = crew.clone();
    let job = runtime.spawn_blocking(move || eventually("all are held", || held.all_held()));
    runtime.spawn(async move {
        job.await.unwrap();
        crew.let_go();
    });
}

#[test]
fn held_threads_are_released_by_a_task_that_is_always_ready() {
    released(&waits(), by_a_task_that_is_always_ready);
}

#[test]
fn held_threads_are_released_by_a_sleep_that_ends() {
    released(&waits(), by_a_sleep_that_ends);
}

#[test]
fn held_threads_are_released_by_a_timer_function() {
    released(&waits(), by_a_timer_function);
    released(&[Way::Channel], by_a_periodic_function);
}

#[test]
fn held_threads_are_released_by_a_socket_that_becomes_readable() {
    released(&waits(), by_a_socket_that_becomes_readable);
    released(&[Way::Channel], by_a_connection_that_comes);
}

#[test]
fn held_threads_are_released_by_a_task_that_a_thread_spawns_or_wakes() {
    released(&waits(), by_a_task_that_a_thread_spawns);
    released(&waits(), by_a_task_that_a_thread_wakes);
    released(&[Way::Channel], by_a_task_that_waits_for_the_blocking_pool);
}

#[test]
fn threads_that_compute_are_released_by_whatever_there_is() {
    for release in [
        by_a_task_that_is_always_ready,
        by_a_sleep_that_ends,
        by_a_timer_function,
        by_a_socket_that_becomes_readable,
        by_a_task_that_a_thread_spawns,
        by_a_task_that_a_thread_wakes,
    ] {
        released(&[Way::Spin], release);
    }
}

/// As [`released`], but each task that holds its thread has done something for its release in the same poll.
#[track_caller]
fn each_releases_itself(prepare: impl Fn(&Runtime, Crew) -> Hold) {
    let watchdog = Watchdog::here();
    for processors in [1, 2] {
        for way in waits().into_iter().chain([Way::Spin]) {
            let runtime = step(&watchdog, Builder::new().processors(processors), &format!("{way:?}"));
            let (crew, holds) = Crew::new(way, processors);
            let tasks: Vec<_> = holds
                .into_iter()
                .map(|hold| {
                    let prepare = prepare(&runtime, crew.clone());
                    runtime.spawn(async move {
                        prepare();
                        hold();
                    })
                })
                .collect();
            for task in tasks {
                runtime.block_on(task).unwrap();
            }
            assert!(runtime.metrics().handoffs > 0);
        }
    }
}

#[test]
fn a_task_that_the_blocker_has_just_spawned_runs() {
    each_releases_itself(|_, crew| {
        Box::new(move || {
            mainspring::spawn(async move {
                crew.until_all_held().await;
                crew.let_go();
            });
        })
    });
}

#[test]
fn a_task_that_the_blocker_has_just_woken_runs() {
    each_releases_itself(|runtime, crew| {
        let (wake, woken) = oneshot::channel();
        let (ready, is_ready) = oneshot::channel();
        runtime.spawn(async move {
            ready.send(()).unwrap();
            woken.await.unwrap();
            // On one processor this is true at once.
            crew.until_all_held().await;
            crew.let_go();
        });
        runtime.block_on(is_ready).unwrap();
        Box::new(move || wake.send(()).unwrap())
    });
}

/// Nobody but the monitor sees a task that stands behind its waker alone. It does not rest for its period because a
/// processor is idle.
#[test]
fn a_task_that_the_blocker_has_just_woken_runs_soon_beside_an_idle_processor() {
    let watchdog = Watchdog::here();
    let runtime = step(&watchdog, Builder::new().processors(2), "just woken");
    let mut waits: Vec<Duration> = (0..20)
        .map(|_| {
            let (wake, woken) = oneshot::channel();
            let (ready, is_ready) = oneshot::channel();
            let other = runtime.spawn(async move {
                ready.send(()).unwrap();
                let since: Instant = woken.await.unwrap();
                since.elapsed()
            });
            runtime.block_on(is_ready).unwrap();
            // All are asleep, and the monitor is.
            std::thread::sleep(30 * MILLI);
            let blocker = runtime.spawn(async {
                wake.send(Instant::now()).unwrap();
                std::thread::sleep(50 * MILLI);
            });
            let waited = runtime.block_on(other).unwrap();
            runtime.block_on(blocker).unwrap();
            waited
        })
        .collect();
    waits.sort();
    assert!(waits[5] < 6 * MILLI, "{waits:?}");
}

#[test]
fn a_timer_that_the_blocker_has_just_armed_fires() {
    each_releases_itself(|_, crew| {
        Box::new(move || {
            every(MILLI, move || {
                crew.let_go_if_all_held();
            });
        })
    });
}

#[test]
fn a_timer_function_that_blocks_delays_nobody() {
    for_each_way(&waits(), |runtime, way| {
        let (crew, holds) = Crew::new(way, runtime.metrics().processors);
        let (done, all_done) = std::sync::mpsc::channel();
        runtime.block_on(async {
            for hold in holds {
                let done = done.clone();
                after_func(Duration::ZERO, move || {
                    hold();
                    done.send(()).unwrap();
                });
            }
        });
        by_a_sleep_that_ends(runtime, crew);
        drop(done);
        assert_eq!(all_done.iter().count(), runtime.metrics().processors);
        runtime.block_on(runtime.spawn(yield_now())).unwrap();
    });
}

#[test]
fn a_future_that_blocks_when_it_is_dropped_delays_nobody() {
    for_each_way(&waits(), |runtime, way| {
        let (crew, holds) = Crew::new(way, runtime.metrics().processors);
        let polled = Count::new();
        let tasks: Vec<_> = holds
            .into_iter()
            .map(|hold| {
                let (mut hold, polled) = (Some(hold), polled.clone());
                runtime.spawn(async move {
                    let _holds = on_drop(move || hold.take().unwrap()());
                    polled.add();
                    pending::<()>().await;
                })
            })
            .collect();
        eventually("all are polled", || polled.get() == tasks.len());
        tasks.iter().for_each(JoinHandle::abort);
        by_a_sleep_that_ends(runtime, crew);
        for task in tasks {
            assert!(runtime.block_on(task).unwrap_err().is_cancelled());
        }
    });
}

/// Somebody else's waker, which holds the thread that calls it.
struct Holds(Mutex<Option<Hold>>);

impl Wake for Holds {
    fn wake(self: Arc<Self>) {
        let hold = self.0.lock().unwrap().take().unwrap();
        hold();
    }
}

/// What the same thread has in its hands, the wakers of one batch, does wait: here there is nothing else.
#[test]
fn a_waker_that_blocks_delays_nobody() {
    let watchdog = Watchdog::here();
    for way in waits() {
        let runtime = step(&watchdog, Builder::new().processors(1), &format!("{way:?}"));
        let (crew, mut holds) = Crew::new(way, 1);
        let waker = Waker::from(Arc::new(Holds(Mutex::new(holds.pop()))));
        let mut nap = runtime.block_on(poll_fn(|_| Poll::Ready(Box::pin(sleep(MILLI)))));
        runtime.block_on(poll_fn(|_| {
            assert!(nap.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            Poll::Ready(())
        }));
        eventually("the waker is called", || crew.all_held());
        let task = runtime.spawn(async move {
            sleep(MILLI).await;
            crew.let_go();
        });
        runtime.block_on(task).unwrap();
    }
}

// How many threads, and when not.

/// As many tasks as that, which hold their threads until they are let go from outside.
fn hold_threads(runtime: &Runtime, way: Way, count: usize) -> (Crew, Vec<JoinHandle<()>>) {
    let (crew, holds) = Crew::new(way, count);
    let tasks = holds.into_iter().map(|hold| runtime.spawn(async move { hold() })).collect();
    (crew, tasks)
}

#[test]
fn hand_offs_stop_at_the_bound_of_threads_and_go_on_when_one_is_free() {
    const BOUND: usize = 3;
    for way in waits() {
        let watchdog = Watchdog::here();
        let runtime = step(&watchdog, Builder::new().processors(1).max_threads(BOUND), &format!("{way:?}"));
        let (crew, tasks) = hold_threads(&runtime, way, 3 * BOUND);
        eventually("there is a second thread", || crew.held() > 1);
        std::thread::sleep(50 * MILLI);
        assert!(crew.held() <= BOUND, "{} threads are held", crew.held());
        crew.let_go();
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
        assert!(runtime.metrics().threads <= BOUND);
        // And now again.
        let (crew, tasks) = hold_threads(&runtime, way, 2);
        by_a_sleep_that_ends(&runtime, crew);
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
    }
}

#[test]
fn no_more_threads_compute_than_allowed() {
    for (processors, beside) in [(1, 0), (1, 1), (2, 0), (2, 1), (2, 2)] {
        let watchdog = Watchdog::here();
        let handoff = Handoff::default().on_cpu_threads(beside);
        let builder = Builder::new().processors(processors).handoff(handoff);
        let runtime = step(&watchdog, builder, &format!("{beside} threads beside"));
        let (crew, tasks) = hold_threads(&runtime, Way::Spin, 5);
        eventually("all may compute that may", || crew.held() >= processors + beside);
        std::thread::sleep(100 * MILLI);
        assert_eq!(crew.held(), processors + beside);
        assert_eq!(runtime.metrics().handoffs_on_cpu, beside as u64);
        crew.let_go();
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
    }
}

/// It is asleep, for however long, and not one of those that compute.
#[test]
fn a_thread_that_has_computed_and_waits_now_does_not_count_as_one_that_computes() {
    let watchdog = Watchdog::here();
    let runtime = step(&watchdog, Builder::new().processors(1), "computes, then waits");
    let (computing, compute) = Crew::one(Way::Spin);
    let (waiting, wait) = Crew::one(Way::Channel);
    let first = runtime.spawn(async {
        compute();
        wait();
    });
    eventually("it computes", || computing.all_held());
    runtime.block_on(runtime.spawn(async {})).unwrap();
    computing.let_go();
    eventually("it waits", || waiting.all_held());
    let (crew, second) = Crew::one(Way::Spin);
    let second = runtime.spawn(async { second() });
    eventually("the other computes", || crew.all_held());
    runtime.block_on(runtime.spawn(async {})).unwrap();
    assert!(runtime.metrics().handoffs_on_cpu >= 2);
    waiting.let_go();
    crew.let_go();
    for task in [first, second] {
        runtime.block_on(task).unwrap();
    }
}

#[test]
fn without_hand_offs_nobody_else_runs() {
    let way_off = |way| (way, Handoff::off());
    let spin_stays = (Way::Spin, Handoff::default().on_cpu_threads(0));
    let patient =
        Handoff::default().asleep_after(Duration::from_secs(3600)).on_cpu_after(Duration::from_secs(3600));
    let patient_with_sleep = Handoff::default().asleep_after(Duration::from_secs(3600));
    let patient = [(Way::Channel, patient.clone()), (Way::Spin, patient), (Way::Channel, patient_with_sleep)];
    for (way, handoff) in
        waits().into_iter().map(way_off).chain([way_off(Way::Spin), spin_stays]).chain(patient)
    {
        for processors in [1, 2] {
            let watchdog = Watchdog::here();
            let what = format!("{way:?}, {handoff:?}");
            let runtime =
                step(&watchdog, Builder::new().processors(processors).handoff(handoff.clone()), &what);
            let (crew, tasks) = hold_threads(&runtime, way, processors);
            eventually("all are held", || crew.all_held());
            let other = runtime.spawn(async {});
            std::thread::sleep(100 * MILLI);
            assert!(!other.is_finished(), "{what}");
            crew.let_go();
            for task in tasks.into_iter().chain([other]) {
                runtime.block_on(task).unwrap();
            }
            assert_eq!(runtime.metrics().handoffs, 0, "{what}");
        }
    }
}

#[test]
fn the_counters_tell_the_causes_apart_and_add_up() {
    for_each_way(&[Way::Pipe, Way::Spin, Way::Declared], |runtime, way| {
        let (crew, tasks) = hold_threads(runtime, way, runtime.metrics().processors);
        by_a_sleep_that_ends(runtime, crew);
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
        let metrics = runtime.metrics();
        let of_this_cause = match way {
            Way::Declared => metrics.handoffs_declared,
            Way::Spin => metrics.handoffs_on_cpu,
            _ => metrics.handoffs_asleep,
        };
        assert!(of_this_cause > 0, "{metrics:#?}");
        let sum = metrics.handoffs_asleep + metrics.handoffs_on_cpu + metrics.handoffs_declared;
        assert_eq!(sum, metrics.handoffs);
    });
}

// Being asked to yield.

/// Computes in pieces of 10 ms until the flag is raised; how many it took.
async fn computes_until(raised: Arc<AtomicBool>) -> usize {
    let mut pieces = 0;
    while !raised.load(Ordering::SeqCst) {
        spin(10 * MILLI);
        pieces += 1;
        consume_budget().await;
    }
    pieces
}

#[test]
fn a_task_that_computes_for_long_is_asked_to_yield_before_its_budget_is_used_up() {
    let handoff = Handoff::default().on_cpu_threads(0);
    let watchdog = Watchdog::here();
    let runtime = step(&watchdog, Builder::new().processors(1).handoff(handoff), "asked to yield");
    let raised = Arc::new(AtomicBool::new(false));
    // The other one waits in the same queue.
    let own = Arc::clone(&raised);
    let task = runtime.spawn(async move {
        let flag = Arc::clone(&own);
        mainspring::spawn(async move { flag.store(true, Ordering::SeqCst) });
        computes_until(own).await
    });
    let pieces = runtime.block_on(task).unwrap();
    assert!(pieces < 100, "nobody asked it to yield, and the whole budget is 128: {pieces} pieces");
    // The other one comes from outside.
    raised.store(false, Ordering::SeqCst);
    let (started, is_started) = oneshot::channel();
    let own = Arc::clone(&raised);
    let task = runtime.spawn(async move {
        started.send(()).unwrap();
        computes_until(own).await
    });
    runtime.block_on(is_started).unwrap();
    runtime.spawn(async move { raised.store(true, Ordering::SeqCst) });
    runtime.block_on(task).unwrap();
    assert_eq!(runtime.metrics().handoffs_on_cpu, 0);
}

#[test]
fn consuming_budget_works_anywhere() {
    let consume = || async {
        for _ in 0..1000 {
            consume_budget().await;
        }
        7
    };
    let (_watchdog, runtime) = watched(1);
    assert_eq!(runtime.block_on(consume()), 7);
    assert_eq!(runtime.block_on(runtime.spawn(consume())).unwrap(), 7);
    assert_eq!(foreign_block_on(consume()), 7);
}
