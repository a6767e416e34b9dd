//! The thread that drives tokio's side: that it cannot be had, that there is one, and that it rests. Alone in its process, because
//! it looks at the whole process.
#![cfg(feature = "tokio-compat")]

mod common;

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use common::watchdog::Watchdog;
use mainspring::runtime::Builder;
use rustix::process::{Resource, Rlimit, setrlimit};

#[test]
fn the_driver_fails_clearly_starts_once_and_rests() {
    let _watchdog = Watchdog::here();
    assert_eq!(drivers().len(), 0);

    // Less address space than a thread's stack takes.
    let pages: u64 =
        fs::read_to_string("/proc/self/statm").unwrap().split(' ').next().unwrap().parse().unwrap();
    limit_address_space(Some(pages * 4096 + (1 << 20)));
    assert!(thread::Builder::new().spawn(|| ()).is_err(), "there are still threads");
    let failed = Builder::new().processors(1).build();
    limit_address_space(None);
    let message = failed.unwrap_err().to_string();
    assert!(message.contains("tokio"), "{message}");
    assert_eq!(drivers().len(), 0);

    // It tries again, and once it has begun, there is one for all runtimes.
    let runtimes: Vec<_> = (0..3).map(|_| Builder::new().processors(1).build().unwrap()).collect();
    for runtime in &runtimes {
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
    }
    let [driver] = &drivers()[..] else { panic!("{:?}", drivers()) };
    thread::sleep(Duration::from_millis(100));
    let before = switches(driver);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(switches(driver), before, "it woke up");
}

fn limit_address_space(limit: Option<u64>) {
    setrlimit(Resource::As, Rlimit { current: limit, maximum: None }).unwrap();
}

/// The threads of that name, of which Linux keeps the first 15 bytes.
fn drivers() -> Vec<PathBuf> {
    let threads = fs::read_dir("/proc/self/task").unwrap().map(|thread| thread.unwrap().path());
    let is_driver =
        |thread: &PathBuf| fs::read_to_string(thread.join("comm")).unwrap().trim() == "mainspring-toki";
    threads.filter(is_driver).collect()
}

/// How often a thread has gone to sleep.
fn switches(thread: &std::path::Path) -> u64 {
    let status = fs::read_to_string(thread.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}
