//! When the operating system gives no thread, the threads that there are do the work, late rather than never; and
//! when it gives some again, what was stuck goes on.
//!
//! Each test runs itself in a child process, which allows itself no more address space than it has, and a little: not
//! enough for the stack of a thread, of which this asks for many megabytes.

mod common;
#[path = "common/gates.rs"]
mod gates;

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use common::drops::Count;
use common::ending::LONG;
use common::foreign::foreign_block_on;
use common::sockets::{pair, read_one};
use common::watchdog::Watchdog;
use common::{eventually, watched, work};
use gates::{Crew, Way};
use mainspring::runtime::{Builder, Runtime};
use mainspring::task::{JoinSet, yield_now};
use mainspring::time::{after_func, sleep};
use mainspring::{block_on, blocking, spawn, spawn_blocking};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const MILLI: Duration = Duration::from_millis(1);

/// Says that this is the child.
const CHILD: &str = "MAINSPRING_TEST_NO_THREADS";

/// The stack that std asks for, for each thread of the child.
const STACK: u64 = 512 << 20;

/// What the child may allocate beside.
const SLACK: u64 = 256 << 20;

/// Runs the calling test in a child process; true in the child.
fn in_child() -> bool {
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let test = std::thread::current().name().unwrap().to_owned();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &test, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .env("RUST_MIN_STACK", STACK.to_string())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    assert!(out.contains("1 passed"), "{out}");
    false
}

/// The operating system gives no thread as long as this lives.
struct NoThreads;

impl NoThreads {
    fn new() -> NoThreads {
        let limit = address_space() + SLACK;
        limit_address_space(Some(limit));
        assert!(std::thread::Builder::new().spawn(|| ()).is_err(), "there are still threads");
        NoThreads
    }
}

impl Drop for NoThreads {
    fn drop(&mut self) {
        limit_address_space(None);
        std::thread::spawn(|| ()).join().unwrap();
    }
}

/// The soft limit, which can be raised again; by none, to the hard one.
fn limit_address_space(limit: Option<u64>) {
    let maximum = getrlimit(Resource::As).maximum;
    setrlimit(Resource::As, Rlimit { current: limit.or(maximum), maximum }).unwrap();
}

/// In bytes.
fn address_space() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// The CPU time that this process has used, of the user's and of the kernel's.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks: u64 = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    // Linux counts a hundred of them in a second, on every machine.
    Duration::from_millis(ticks * 10)
}

/// Checks that nothing is left behind once there are threads again.
fn everything_goes_on(runtime: &Runtime) {
    let job = runtime.spawn_blocking(|| 7);
    assert_eq!(runtime.block_on(job).unwrap(), 7);
    for way in [Way::Channel, Way::Declared] {
        let (crew, holds) = Crew::new(way, 4);
        let tasks: Vec<_> = holds.into_iter().map(|hold| runtime.spawn(async { hold() })).collect();
        let other = runtime.spawn(async move {
            crew.until_all_held().await;
            crew.let_go();
        });
        for task in tasks.into_iter().chain([other]) {
            runtime.block_on(task).unwrap();
        }
    }
    let task = runtime.spawn(async { block_on(work()) });
    assert_eq!(runtime.block_on(task).unwrap(), 7);
}

#[test]
fn a_runtime_that_gets_no_thread_is_not_built() {
    if !in_child() {
        return;
    }
    let _watchdog = Watchdog::here();
    let none = NoThreads::new();
    for processors in [1, 4] {
        Builder::new().processors(processors).build().unwrap_err();
    }
    drop(none);
    let (_watchdog, runtime) = watched(2);
    everything_goes_on(&runtime);
}

#[test]
fn jobs_tasks_and_timers_all_end_with_the_threads_that_there_are() {
    if !in_child() {
        return;
    }
    let (_watchdog, runtime) = watched(2);
    let none = NoThreads::new();
    let ended = Count::new();
    const EACH: u64 = 50;
    let (mut jobs, timers) = (JoinSet::new(), Count::new());
    runtime.block_on(async {
        for n in 0..EACH {
            let (at_end, micros) = (ended.clone(), Duration::from_micros(n * 17 % 300));
            jobs.spawn_blocking(move || {
                std::thread::sleep(micros);
                n + u64::from(at_end.add() == 0)
            });
            let at_end = ended.clone();
            jobs.spawn(async move {
                std::thread::sleep(micros);
                yield_now().await;
                n + u64::from(at_end.add() == 0)
            });
            let at_end = ended.clone();
            jobs.spawn(async move {
                blocking(|| std::thread::sleep(micros));
                sleep(micros).await;
                n + u64::from(at_end.add() == 0)
            });
            let at_end = ended.clone();
            jobs.spawn(async move {
                let (a, b) = pair().await;
                b.write_all(b"x").await.unwrap();
                std::thread::sleep(micros);
                assert_eq!(read_one(&a).await.unwrap(), b'x');
                assert!(spawn_blocking(|| panic!("expected: on purpose")).await.unwrap_err().is_panic());
                n + u64::from(at_end.add() == 0)
            });
            let mut count = timers.adder();
            after_func(micros, move || {
                std::thread::sleep(micros);
                count();
            });
        }
    });
    let mut sum = 0;
    while let Some(result) = runtime.block_on(jobs.join_next()) {
        sum += result.unwrap();
    }
    assert_eq!((sum, ended.get()), (4 * (0..EACH).sum::<u64>(), 4 * EACH as usize));
    eventually("the functions run", || timers.get() == EACH as usize);
    assert!(runtime.metrics().thread_failures > 0);
    drop(none);
    everything_goes_on(&runtime);
}

/// Nobody spins while the operating system gives no thread.
fn assert_it_rests(runtime: &Runtime) {
    let refused = runtime.metrics().thread_failures;
    let (start, before) = (Instant::now(), cpu_time());
    std::thread::sleep(300 * MILLI);
    let (took, used) = (start.elapsed(), cpu_time() - before);
    // Once in a millisecond is often enough to ask again.
    let refused = u128::from(runtime.metrics().thread_failures - refused);
    assert!(refused <= took.as_millis(), "{refused} times a thread was asked for in {took:?}");
    assert!(used < took / 3, "{used:?} of CPU time in {took:?}");
}

/// Whoever waits for what the tasks behind him are to do waits until there is a thread for them.
fn helped_when_there_are_threads_again(way: Way) {
    let (_watchdog, runtime) = watched(2);
    let (crew, holds) = Crew::new(way, 2);
    let none = NoThreads::new();
    let tasks: Vec<_> = holds.into_iter().map(|hold| runtime.spawn(async { hold() })).collect();
    let other = runtime.spawn(async move {
        sleep(MILLI).await;
        crew.until_all_held().await;
        crew.let_go();
    });
    eventually("a thread is refused", || runtime.metrics().thread_failures > 0);
    assert_it_rests(&runtime);
    assert!(!other.is_finished());
    drop(none);
    for task in tasks.into_iter().chain([other]) {
        runtime.block_on(task).unwrap();
    }
    everything_goes_on(&runtime);
}

#[test]
fn who_blocks_for_good_is_helped_when_there_are_threads_again() {
    if in_child() {
        helped_when_there_are_threads_again(Way::Channel);
    }
}

#[test]
fn who_says_so_and_blocks_for_good_is_helped_when_there_are_threads_again() {
    if in_child() {
        helped_when_there_are_threads_again(Way::Declared);
    }
}

#[test]
fn a_task_that_blocks_on_another_is_helped_when_there_are_threads_again() {
    if !in_child() {
        return;
    }
    let (_watchdog, runtime) = watched(1);
    let none = NoThreads::new();
    let task = runtime.spawn(async { block_on(spawn(work())).unwrap() });
    eventually("a thread is refused", || runtime.metrics().thread_failures > 0);
    assert_it_rests(&runtime);
    drop(none);
    assert_eq!(runtime.block_on(task).unwrap(), 7);
    everything_goes_on(&runtime);
}

/// The one thread comes back from what blocked it, and goes on with all the rest.
#[test]
fn a_thread_that_was_blocked_takes_its_processor_back() {
    if !in_child() {
        return;
    }
    let (_watchdog, runtime) = watched(1);
    let none = NoThreads::new();
    for declared in [false, true] {
        let (sender, receiver) = mpsc::channel();
        let failures = runtime.metrics().thread_failures;
        let task = runtime.spawn(async move {
            if declared { blocking(|| receiver.recv().unwrap()) } else { receiver.recv().unwrap() }
        });
        let others: Vec<_> = (0..20).map(|_| runtime.spawn(work())).collect();
        eventually("a thread is refused", || runtime.metrics().thread_failures > failures);
        sender.send(7).unwrap();
        assert_eq!(runtime.block_on(task).unwrap(), 7);
        for task in others {
            assert_eq!(runtime.block_on(task).unwrap(), 7);
        }
    }
    drop(none);
    everything_goes_on(&runtime);
}

#[test]
fn a_task_that_computes_is_joined_by_the_rest_when_it_ends() {
    if !in_child() {
        return;
    }
    let (_watchdog, runtime) = watched(1);
    let none = NoThreads::new();
    let flag = Arc::new(AtomicBool::new(false));
    let is_set = Arc::clone(&flag);
    let task = runtime.spawn(async move {
        while !is_set.load(Ordering::SeqCst) {
            std::hint::spin_loop();
        }
        work().await
    });
    let others: Vec<_> = (0..20).map(|_| runtime.spawn(work())).collect();
    eventually("a thread is refused", || runtime.metrics().thread_failures > 0);
    flag.store(true, Ordering::SeqCst);
    for task in others.into_iter().chain([task]) {
        assert_eq!(runtime.block_on(task).unwrap(), 7);
    }
    drop(none);
    everything_goes_on(&runtime);
}

#[test]
fn a_runtime_without_threads_ends() {
    if !in_child() {
        return;
    }
    let (_watchdog, runtime) = watched(2);
    let none = NoThreads::new();
    let (crew, hold) = Crew::one(Way::Channel);
    let task = runtime.spawn(async move {
        hold();
        std::future::pending::<()>().await;
    });
    let others: Vec<_> = (0..20).map(|_| runtime.spawn(work())).collect();
    let job = runtime.spawn_blocking(|| ());
    eventually("a thread is refused", || runtime.metrics().thread_failures > 0);
    eventually("it is held", || crew.all_held());
    let start = Instant::now();
    drop(runtime);
    assert!(start.elapsed() < LONG, "{:?}", start.elapsed());
    crew.let_go();
    assert!(foreign_block_on(task).unwrap_err().is_cancelled());
    for task in others {
        // It may have been its turn before the end.
        let _ = foreign_block_on(task);
    }
    let _ = foreign_block_on(job);
    drop(none);
}
