//! Sleeps of a process that is stopped and continued all the while: system calls that wait are interrupted by
//! that. Alone in its program, as it stops all threads of it.

mod common;

use std::process::Command;
use std::sync::mpsc::channel;

use common::check;
use mainspring::time::{Duration, Instant, after_func, sleep, timeout};

#[test]
fn nothing_is_early_or_lost_when_waiting_is_interrupted() {
    // For some two seconds at most, and no longer than this process lives.
    let script = format!(
        "n=0; while [ $n -lt 200 ] && kill -STOP {0} && kill -CONT {0}; do n=$((n+1)); sleep 0.01; done",
        std::process::id()
    );
    let mut interrupts = Command::new("sh").arg("-c").arg(script).spawn().unwrap();
    check(|| async {
        for n in 0..30 {
            let (duration, start) = (n * Duration::from_millis(1), Instant::now());
            let start_of_std = std::time::Instant::now();
            sleep(duration).await;
            assert!(start.elapsed() >= duration && start_of_std.elapsed() >= duration);

            let (sender, receiver) = channel();
            let start = Instant::now();
            after_func(duration, move || sender.send(Instant::now()).unwrap());
            let limited = timeout(duration, std::future::pending::<()>()).await;
            assert!(limited.is_err() && start.elapsed() >= duration);
            let at = mainspring::spawn_blocking(move || receiver.recv()).await.unwrap().unwrap();
            assert!(at >= start + duration);
        }
    });
    // Not by `kill`, which could come between its two.
    assert!(interrupts.wait().unwrap().success());
}
