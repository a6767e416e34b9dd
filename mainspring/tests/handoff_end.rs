//! The end of a runtime whose threads are stuck in user code, with a processor or without: nobody waits for them
//! longer than asked, and when they come back, nothing is left of what they held.

mod common;
#[path = "common/gates.rs"]
mod gates;

use std::future::pending;
use std::time::{Duration, Instant};

use common::drops::on_drop;
use common::ending::Tally;
use common::foreign::foreign_block_on;
use common::watchdog::Watchdog;
use common::{SOON, eventually};
use gates::{Crew, Hold, KINDS, Way, step, threads_named};
use mainspring::net::TcpListener;
use mainspring::runtime::{Builder, Handle, Handoff, Runtime};
use mainspring::task::JoinHandle;
use mainspring::time::{after_func, sleep};
use mainspring::{block_on, spawn, spawn_blocking};

const MILLI: Duration = Duration::from_millis(1);

/// What no end takes on the busiest machine, and less than the time after which a thread goes by itself.
const LONG: Duration = Duration::from_secs(5);

/// Tasks that hold their threads, and never end by themselves.
fn stuck(runtime: &Runtime, tally: &Tally, holds: Vec<Hold>) -> Vec<JoinHandle<()>> {
    let stuck = |hold: Hold| {
        let token = tally.token();
        runtime.spawn(async move {
            hold();
            pending::<()>().await;
            token.hold();
        })
    };
    holds.into_iter().map(stuck).collect()
}

/// Shuts down within half a second, in time, with so many threads left.
#[track_caller]
fn shut_down_with(runtime: Runtime, threads: usize) {
    const TIMEOUT: Duration = Duration::from_millis(500);
    let start = Instant::now();
    let error = runtime.shutdown(TIMEOUT).unwrap_err();
    let took = start.elapsed();
    assert_eq!(error.threads, threads);
    assert!(error.to_string().contains(&threads.to_string()), "{error}");
    assert!(took >= TIMEOUT && took < TIMEOUT + LONG, "{took:?}");
}

#[track_caller]
fn assert_all_cancelled(tasks: Vec<JoinHandle<()>>) {
    for task in tasks {
        assert!(foreign_block_on(task).unwrap_err().is_cancelled());
    }
}

#[test]
fn shutdown_says_in_time_how_many_threads_are_stuck_in_tasks() {
    let watchdog = Watchdog::here();
    for processors in [1, 2] {
        for way in KINDS {
            // As many may compute beside the processors, and nobody is left for the rest.
            let size = if way == Way::Spin { 2 * processors } else { 3 * processors };
            let builder = Builder::new().processors(processors).thread_name("stuck");
            let runtime = step(&watchdog, builder, &format!("{way:?}"));
            let tally = Tally::default();
            let (crew, holds) = Crew::new(way, size);
            let tasks = stuck(&runtime, &tally, holds);
            eventually("all are held", || crew.all_held());
            shut_down_with(runtime, size);
            assert_eq!(tally.alive(), size, "their futures are in use");
            crew.let_go();
            tally.assert_all_dropped();
            assert_all_cancelled(tasks);
            eventually("the threads end", || threads_named("stuck") == 0);
        }
    }
}

/// In a task, in a timer function, in `block_on`, in a destructor, declared or not.
#[test]
fn shutdown_says_in_time_how_many_threads_are_stuck_anywhere() {
    let watchdog = Watchdog::here();
    for processors in [1, 2] {
        let runtime = step(&watchdog, Builder::new().processors(processors), "anywhere");
        let tally = Tally::default();
        let (in_tasks, holds) = Crew::new(Way::Channel, 2);
        let mut tasks = stuck(&runtime, &tally, holds);
        let (declared, holds) = Crew::new(Way::Declared, 2);
        tasks.extend(stuck(&runtime, &tally, holds));
        let (in_function, hold) = Crew::one(Way::Pipe);
        let token = tally.token();
        runtime.block_on(async {
            after_func(Duration::ZERO, move || {
                hold();
                token.hold();
            })
        });
        let (in_block_on, hold) = Crew::one(Way::Channel);
        let token = tally.token();
        tasks.push(runtime.spawn(async move {
            block_on(async { hold() });
            pending::<()>().await;
            token.hold();
        }));
        let (in_destructor, hold) = Crew::one(Way::Condition);
        let (mut hold, token) = (Some(hold), tally.token());
        let holds = on_drop(move || {
            hold.take().unwrap()();
            token.hold();
        });
        let task = runtime.spawn(async move {
            sleep(MILLI).await;
            drop(holds);
            pending::<()>().await;
        });
        tasks.push(task);
        let crews = [in_tasks, declared, in_function, in_block_on, in_destructor];
        eventually("all are held", || crews.iter().all(Crew::all_held));
        shut_down_with(runtime, 7);
        crews.iter().for_each(Crew::let_go);
        tally.assert_all_dropped();
        assert_all_cancelled(tasks);
    }
}

#[test]
fn shutdown_waits_for_threads_without_a_processor_that_come_back_in_time() {
    for_each_runtime(|runtime, way, size| {
        let tally = Tally::default();
        let (crew, holds) = Crew::new(way, size);
        let tasks = stuck(&runtime, &tally, holds);
        eventually("all are held", || crew.all_held());
        std::thread::spawn(move || {
            std::thread::sleep(100 * MILLI);
            crew.let_go();
        });
        let start = Instant::now();
        assert_eq!(runtime.shutdown(SOON), Ok(()));
        assert!(start.elapsed() < LONG, "{:?}", start.elapsed());
        assert_eq!(tally.alive(), 0);
        assert_all_cancelled(tasks);
    });
}

#[test]
fn dropping_waits_for_no_thread_that_is_stuck() {
    for_each_runtime(|runtime, way, size| {
        let tally = Tally::default();
        let (crew, holds) = Crew::new(way, size);
        let tasks = stuck(&runtime, &tally, holds);
        let (queued, job) = (tally.token(), tally.token());
        runtime.spawn(async move {
            sleep(SOON).await;
            queued.hold();
        });
        runtime.block_on(async { after_func(SOON, move || job.hold()) });
        eventually("all are held", || crew.all_held());
        let start = Instant::now();
        drop(runtime);
        assert!(start.elapsed() < LONG, "{:?}", start.elapsed());
        eventually("what is not stuck is dropped", || tally.alive() == size);
        crew.let_go();
        tally.assert_all_dropped();
        assert_all_cancelled(tasks);
    });
}

/// On a few runtimes, how many tasks are to be held in each way.
#[track_caller]
fn for_each_runtime(test: impl Fn(Runtime, Way, usize)) {
    let watchdog = Watchdog::here();
    for processors in [1, 2] {
        for way in KINDS {
            let builder = Builder::new().processors(processors);
            test(step(&watchdog, builder, &format!("{way:?}")), way, 2 * processors);
        }
    }
}

#[test]
fn who_comes_back_after_the_end_can_still_do_whatever_it_likes() {
    for_each_runtime(|runtime, way, size| {
        let tally = Tally::default();
        let (crew, holds) = Crew::new(way, size);
        for hold in holds {
            let (token, in_task, in_job, in_function) =
                (tally.token(), tally.token(), tally.token(), tally.token());
            runtime.spawn(async move {
                hold();
                let handle = Handle::current();
                let task = spawn(async move { in_task.hold() });
                let job = spawn_blocking(move || in_job.hold());
                after_func(Duration::ZERO, move || in_function.hold());
                mainspring::blocking(|| std::thread::sleep(MILLI));
                assert!(handle.block_on(task).unwrap_err().is_cancelled());
                assert!(handle.block_on(job).unwrap_err().is_cancelled());
                let _ = handle.block_on(TcpListener::bind("127.0.0.1:0"));
                assert!(handle.metrics().tasks_spawned > 0);
                // It goes on where there is a runtime: on the one that `block_on` finds outside, if any.
                sleep(MILLI).await;
                token.hold();
                unreachable!("its runtime has ended, and nobody polls it again");
            });
        }
        eventually("all are held", || crew.all_held());
        drop(runtime);
        crew.let_go();
        tally.assert_all_dropped();
    });
}

/// The end comes in the middle of hand-offs.
#[test]
fn a_runtime_may_end_at_any_moment() {
    let watchdog = Watchdog::here();
    for round in 0..100_u64 {
        let processors = 1 + (round % 3) as usize;
        let handoff = Handoff::default().asleep_after(Duration::ZERO);
        let builder = Builder::new().processors(processors).handoff(handoff).thread_name("moment");
        let runtime = step(&watchdog, builder, &format!("round {round}"));
        let tally = Tally::default();
        let tasks: Vec<_> = (0..20)
            .map(|n| {
                let token = tally.token();
                runtime.spawn(async move {
                    for nap in 0.. {
                        let nap = Duration::from_micros((nap * 137 + n * 29) % 700);
                        match (n + round) % 3 {
                            0 => std::thread::sleep(nap),
                            1 => mainspring::blocking(|| std::thread::sleep(nap)),
                            // Cancelled, perhaps.
                            _ => drop(spawn_blocking(move || std::thread::sleep(nap)).await),
                        }
                        sleep(nap / 4).await;
                    }
                    token.hold();
                })
            })
            .collect();
        std::thread::sleep(Duration::from_micros(round * 211 % 10_000));
        let start = Instant::now();
        assert_eq!(runtime.shutdown(SOON), Ok(()));
        assert!(start.elapsed() < LONG, "{:?}", start.elapsed());
        assert_eq!(tally.alive(), 0);
        for task in tasks {
            assert!(foreign_block_on(task).unwrap_err().is_cancelled());
        }
    }
    eventually("no thread is left", || threads_named("moment") == 0);
}
