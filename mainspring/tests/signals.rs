//! Signals as streams. Each test has signals of its own, since all tests of this file are one process.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::pin::pin;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::sockets::poll_once;
use common::{SOON, run};
use mainspring::signal::{Signal, SignalKind, ctrl_c, signal};
use mainspring::spawn;
use mainspring::time::timeout;
use signal_hook::low_level::raise;

/// Set in the child processes of this file's tests, which are this very program.
const CHILD: &str = "MAINSPRING_TEST_SIGNALS_CHILD";

/// On the raising thread the handler has run when this returns.
fn send(kind: SignalKind) {
    raise(kind.as_raw_value()).unwrap();
}

async fn received(signal: &mut Signal) {
    assert_eq!(timeout(SOON, signal.recv()).await.expect("it was sent"), Some(()));
}

async fn assert_none(signal: &mut Signal) {
    assert!(poll_once(pin!(signal.recv())).await.is_pending());
}

#[test]
fn each_stream_hears_each_signal_of_its_kind_and_no_other() {
    run(2, async {
        let kind = SignalKind::user_defined1();
        let mut streams: Vec<_> = (0..100).map(|_| signal(kind).unwrap()).collect();
        let mut other = signal(SignalKind::window_change()).unwrap();
        for _ in 0..3 {
            send(kind);
            for stream in &mut streams {
                received(stream).await;
                assert_none(stream).await;
            }
        }
        assert_none(&mut other).await;
        // Others go on when one is dropped.
        streams.truncate(50);
        send(kind);
        for stream in &mut streams {
            received(stream).await;
        }
    });
}

#[test]
fn signals_before_a_look_are_one() {
    run(2, async {
        let kind = SignalKind::user_defined2();
        let mut stream = signal(kind).unwrap();
        // More than the pipe holds.
        for count in [2, 5_000, 70_000] {
            (0..count).for_each(|_| send(kind));
            received(&mut stream).await;
            assert_none(&mut stream).await;
        }
        send(kind);
        received(&mut stream).await;
    });
}

#[test]
fn a_task_that_waits_is_woken_and_a_wait_that_is_dropped_loses_nothing() {
    run(2, async {
        let kind = SignalKind::alarm();
        let mut stream = signal(kind).unwrap();
        for _ in 0..100 {
            let dropped = timeout(Duration::ZERO, stream.recv()).await;
            assert!(dropped.is_err());
            let waiter = spawn(async move {
                received(&mut stream).await;
                stream
            });
            send(kind);
            stream = waiter.await.unwrap();
        }
    });
}

#[test]
fn a_stream_works_outside_of_any_runtime() {
    let kind = SignalKind::io();
    let mut stream = signal(kind).unwrap();
    send(kind);
    mainspring::block_on(received(&mut stream));
}

#[test]
fn the_end_of_its_runtime_ends_a_stream() {
    let (_watchdog, runtime) = common::watched(2);
    let kind = SignalKind::quit();
    let mut stream = runtime.block_on(async { signal(kind).unwrap() });
    drop(runtime);
    // And the process is deaf to it all the same.
    send(kind);
    assert_eq!(mainspring::block_on(stream.recv()), None);
}

#[test]
fn ctrl_c_is_heard() {
    run(2, async {
        let mut pressed = pin!(ctrl_c());
        assert!(poll_once(pressed.as_mut()).await.is_pending());
        send(SignalKind::interrupt());
        timeout(SOON, pressed).await.unwrap().unwrap();
    });
}

#[test]
fn what_cannot_be_listened_for_is_an_error() {
    for number in [9, 19, 11, 4, 8, 0, -1, 1_000] {
        let error = signal(SignalKind::from_raw(number)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{number}: {error}");
    }
}

#[test]
fn names_are_those_of_the_system() {
    let kinds = [SignalKind::hangup(), SignalKind::interrupt(), SignalKind::terminate()];
    assert_eq!(kinds.map(i32::from), [1, 2, 15]);
    assert_eq!(SignalKind::from(15), mainspring::signal::unix::SignalKind::terminate());
}

/// What the child processes do: they say when they are ready, what they have heard, and end at SIGTERM.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    mainspring::block_on(async {
        let mut hangup = signal(SignalKind::hangup()).unwrap();
        let mut terminate = signal(SignalKind::terminate()).unwrap();
        let hangups = spawn(async move {
            while hangup.recv().await.is_some() {
                eprintln!("hangup");
            }
        });
        eprintln!("ready");
        terminate.recv().await;
        hangups.abort();
        eprintln!("terminate");
    });
}

#[test]
fn a_process_hears_others_and_makes_no_wake_up_before() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut expect = |expected: &str| {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), expected);
    };
    let send = |name: &str| {
        assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
    };
    expect("ready");
    let before = settled(pid);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(switches(pid), before, "it slept for good");
    for _ in 0..3 {
        send("-HUP");
        expect("hangup");
    }
    send("-TERM");
    expect("terminate");
    assert!(child.wait().unwrap().success());
    lines.read_to_end(&mut Vec::new()).unwrap();
}

/// How often the runtime's threads of a process were given a CPU. A sanitizer has one of its own, which has no rest.
fn switches(pid: u32) -> u64 {
    let of_task = |path: std::path::PathBuf| {
        let status = std::fs::read_to_string(path.join("status")).unwrap_or_default();
        let is_ours = status.starts_with("Name:\tmainspring");
        let lines = status.lines().filter(|line| is_ours && line.contains("voluntary_ctxt_switches"));
        lines.filter_map(|line| line.rsplit('\t').next()?.parse::<u64>().ok()).sum::<u64>()
    };
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let sum = tasks.map(|entry| of_task(entry.unwrap().path())).sum();
    assert!(sum > 0, "the runtime has threads");
    sum
}

/// Waits until a process has come to rest: idle threads look around for a while before they sleep for good.
fn settled(pid: u32) -> u64 {
    let mut last = switches(pid);
    common::eventually("the process comes to rest", || {
        std::thread::sleep(Duration::from_millis(200));
        let now = switches(pid);
        std::mem::replace(&mut last, now) == now
    });
    last
}
