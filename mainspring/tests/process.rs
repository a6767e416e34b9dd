//! Child processes: their ends, their pipes, being killed, and that none is left behind as a zombie.

mod common;

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use common::sockets::{byte_at, is_timeout, poll_once};
use common::{SOON, check, eventually, run, until};
use mainspring::net::{UdpSocket, UnixDatagram};
use mainspring::process::Command;
use mainspring::signal::SignalKind;
use mainspring::spawn;
use mainspring::time::{Instant, sleep, timeout};

/// The number of SIGKILL and of SIGTERM.
const KILL: i32 = 9;
const TERM: i32 = 15;

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// A child that lives until it is killed, or until its standard input is closed.
fn patient() -> Command {
    let mut command = Command::new("cat");
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    command
}

/// The state of a process as in /proc, `Z` for a zombie; `None` if there is none.
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it is in parentheses and may hold anything.
    stat.rsplit_once(") ")?.1.chars().next()
}

/// In whatever state, that of reading its program from the disk among them.
fn lives(pid: u32) -> bool {
    state(pid).is_some_and(|state| state != 'Z')
}

/// Waits until the process is gone from the system's table, without anybody's asking for it here.
fn assert_reaped(pid: u32) {
    eventually("the child is gone, not even a zombie", || !Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn the_status_tells_how_the_child_ended() {
    check(|| async {
        assert!(Command::new("true").status().await.unwrap().success());
        assert_eq!(shell("exit 42").status().await.unwrap().code(), Some(42));
        let status = shell("kill -TERM $$").status().await.unwrap();
        assert_eq!((status.code(), status.signal()), (None, Some(TERM)));
    });
}

#[test]
fn output_is_all_that_the_child_writes_and_its_input_is_empty() {
    check(|| async {
        let output = shell("echo out; echo err >&2; cat; exit 3").output().await.unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(output.stdout, b"out\n");
        assert_eq!(output.stderr, b"err\n");
    });
}

#[test]
fn the_builder_sets_what_it_says() {
    run(2, async {
        let mut command = shell("echo $0 $ONE $TWO $THREE-$(pwd)");
        command.arg("zero").env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.env("ONE", "1").envs([("TWO", "2"), ("THREE", "3")]).env_remove("THREE").current_dir("/");
        assert_eq!(command.output().await.unwrap().stdout, b"zero 1 2 -/\n");

        let mut child = patient().process_group(0).spawn().unwrap();
        let pid = child.id().unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let group = stat.rsplit_once(") ").unwrap().1.split(' ').nth(2).unwrap();
        assert_eq!(group, pid.to_string());
        child.kill().await.unwrap();

        let std = std::process::Command::new("true");
        assert!(Command::from(std).as_std_mut().status().unwrap().success());
    });
}

#[test]
fn a_program_that_is_not_there_is_an_error_and_leaves_nothing() {
    check(|| async {
        let error = Command::new("/there/is/no/such/program").spawn().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let error = Command::new("/").output().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    });
}

#[test]
fn megabytes_go_both_ways_through_a_child_at_once() {
    const LEN: usize = 4 << 20;
    check(|| async {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let writer = spawn(async move {
            let bytes: Vec<u8> = (0..LEN).map(byte_at).collect();
            stdin.write_all(&bytes).await.unwrap();
        });
        let output = child.wait_with_output().await.unwrap();
        writer.await.unwrap();
        assert_eq!(output.stdout.len(), LEN);
        assert!(output.stdout.iter().enumerate().all(|(place, &byte)| byte == byte_at(place)));
    });
}

#[test]
fn a_child_that_fills_both_of_its_pipes_in_turns_is_read_to_the_end() {
    check(|| async {
        let script = "for i in 1 2 3 4; do head -c 200000 /dev/zero; head -c 200000 /dev/zero >&2; done";
        let output = shell(script).output().await.unwrap();
        assert_eq!((output.stdout.len(), output.stderr.len()), (800_000, 800_000));
    });
}

#[test]
fn waiting_closes_the_childs_input_first() {
    check(|| async {
        let mut child = patient().spawn().unwrap();
        assert!(timeout(SOON, child.wait()).await.unwrap().unwrap().success());
        assert!(child.stdin.is_none());
    });
}

#[test]
fn the_end_is_told_again_each_time_and_the_number_is_given_up() {
    check(|| async {
        let mut child = shell("exit 5").spawn().unwrap();
        assert_eq!(child.wait().await.unwrap().code(), Some(5));
        assert_eq!(child.wait().await.unwrap().code(), Some(5));
        assert_eq!(child.try_wait().unwrap().unwrap().code(), Some(5));
        assert_eq!(child.id(), None);
        // Whoever has its number now is not meant.
        child.start_kill().unwrap();
        child.kill().await.unwrap();
    });
}

#[test]
fn a_wait_that_is_given_up_can_be_begun_again() {
    check(|| async {
        let mut child = shell("read line; exit 6").stdin(Stdio::piped()).spawn().unwrap();
        // Kept open beside the child, which drops its own.
        let stdin = child.stdin.take().unwrap();
        for _ in 0..10 {
            assert!(poll_once(pin!(child.wait())).await.is_pending());
            assert_eq!(child.try_wait().unwrap(), None);
        }
        drop(stdin);
        assert_eq!(child.wait().await.unwrap().code(), Some(6));
    });
}

#[test]
fn a_child_moves_between_tasks_and_runtimes_while_it_is_waited_for() {
    let (_watchdog, runtime) = common::watched(2);
    let mut child = runtime.block_on(async { patient().spawn().unwrap() });
    let stdin = child.stdin.take();
    let (mut child, pending) = runtime.block_on(async move {
        spawn(async move {
            let pending = poll_once(pin!(child.wait())).await.is_pending();
            (child, pending)
        })
        .await
        .unwrap()
    });
    assert!(pending);
    drop(stdin);
    // By a foreign executor, on a thread of its own.
    let waiter = std::thread::spawn(move || common::foreign::foreign_block_on(child.wait()));
    assert!(waiter.join().unwrap().unwrap().success());
}

#[test]
fn try_wait_does_not_wait() {
    check(|| async {
        let mut child = patient().spawn().unwrap();
        assert_eq!(child.try_wait().unwrap(), None);
        let pid = child.id().unwrap();
        child.stdin = None;
        until(|| state(pid) == Some('Z')).await;
        assert!(child.try_wait().unwrap().unwrap().success());
        assert_eq!(state(pid), None);
    });
}

#[test]
fn a_killed_child_is_dead_and_reaped() {
    check(|| async {
        let mut child = patient().spawn().unwrap();
        let pid = child.id().unwrap();
        child.kill().await.unwrap();
        assert_eq!(state(pid), None);
        assert_eq!(child.wait().await.unwrap().signal(), Some(KILL));

        let mut child = patient().spawn().unwrap();
        let stdin = child.stdin.take();
        assert!(poll_once(pin!(child.wait())).await.is_pending());
        child.start_kill().unwrap();
        drop(stdin);
        assert_eq!(child.wait().await.unwrap().signal(), Some(KILL));
    });
}

#[test]
fn a_signal_reaches_the_child_until_it_was_waited_for() {
    check(|| async {
        let mut child = shell("trap 'exit 9' USR1; echo ready; while :; do sleep 0.01; done")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdout.as_ref().unwrap().read_exact(&mut [0; 6]).await.unwrap();
        child.send_signal(SignalKind::user_defined1()).unwrap();
        assert_eq!(child.wait().await.unwrap().code(), Some(9));
        child.send_signal(SignalKind::user_defined1()).unwrap();
        let error = child.send_signal(SignalKind::from_raw(1_000)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    });
}

#[test]
fn a_child_that_is_dropped_lives_on_and_leaves_no_zombie() {
    check(|| async {
        let mut child = patient().spawn().unwrap();
        let (pid, stdin) = (child.id().unwrap(), child.stdin.take());
        drop(child);
        sleep(Duration::from_millis(5)).await;
        assert!(lives(pid));
        drop(stdin);
        assert_reaped(pid);
        // One that ended before it was dropped.
        let child = Command::new("true").spawn().unwrap();
        let pid = child.id().unwrap();
        until(|| state(pid) == Some('Z')).await;
        drop(child);
        assert_eq!(state(pid), None);
    });
}

#[test]
fn a_child_outlives_its_runtime_and_leaves_no_zombie() {
    for dropped_before in [true, false] {
        let (watchdog, runtime) = common::watched(2);
        let mut child = runtime.block_on(async { patient().spawn().unwrap() });
        let (pid, stdin) = (child.id().unwrap(), child.stdin.take().unwrap().into_owned_fd().unwrap());
        if dropped_before {
            drop(child);
            drop(runtime);
        } else {
            drop(runtime);
            assert!(mainspring::block_on(child.wait()).is_err(), "its runtime has ended");
            drop(child);
        }
        assert!(lives(pid));
        drop(stdin);
        assert_reaped(pid);
        drop(watchdog);
    }
}

#[test]
fn kill_on_drop_kills_and_reaps() {
    check(|| async {
        let mut command = patient();
        assert!(command.kill_on_drop(true).get_kill_on_drop());
        let mut child = command.spawn().unwrap();
        let (pid, _stdin) = (child.id().unwrap(), child.stdin.take());
        drop(child);
        assert_reaped(pid);

        // The futures of whole runs, too.
        let mut echo = shell("echo $$; exec cat").kill_on_drop(true).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = [0; 32];
        let count = echo.stdout.as_mut().unwrap().read(&mut line).await.unwrap();
        let pid: u32 = std::str::from_utf8(&line[..count]).unwrap().trim().parse().unwrap();
        assert_eq!(echo.id(), Some(pid));
        echo.stdin = None;
        drop(echo);
        assert_reaped(pid);
    });
}

#[test]
fn two_hundred_children_at_once_end_each_with_its_own_status() {
    check(|| async {
        let tasks: Vec<_> = (0..200)
            .map(|number| {
                let mut child = shell(&format!("read line; exit {}", number % 100))
                    .stdin(Stdio::piped())
                    .spawn()
                    .unwrap();
                let stdin = child.stdin.take();
                (stdin, spawn(async move { (child.wait().await.unwrap().code(), number % 100) }))
            })
            .collect();
        // They are all there at this point.
        let (pipes, tasks): (Vec<_>, Vec<_>) = tasks.into_iter().unzip();
        drop(pipes);
        for task in tasks {
            let (code, expected) = task.await.unwrap();
            assert_eq!(code, Some(expected));
        }
    });
}

#[test]
fn a_pipe_of_one_child_is_the_input_of_another() {
    check(|| async {
        let mut first = shell("echo one; echo two; echo three").stdout(Stdio::piped()).spawn().unwrap();
        let between: Stdio = first.stdout.take().unwrap().try_into().unwrap();
        let output = Command::new("wc").arg("-l").stdin(between).output().await.unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "3");
        assert!(first.wait().await.unwrap().success());
    });
}

#[test]
fn reading_and_writing_a_child_has_deadlines() {
    check(|| async {
        let mut child = shell("read line; echo $line; exec sleep 1000")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        stdout.set_deadline(Instant::now() + Duration::from_millis(2)).unwrap();
        assert!(is_timeout(&stdout.read(&mut [0; 8]).await));
        stdin.write_all(b"hello\n").await.unwrap();
        stdout.deadlines().set_read_deadline(None).unwrap();
        let mut line = [0; 6];
        stdout.read_exact(&mut line).await.unwrap();
        assert_eq!(&line, b"hello\n");

        // It reads no more.
        stdin.set_deadline(Instant::now() + Duration::from_millis(2)).unwrap();
        assert!(is_timeout(&stdin.write_all(&[0; 1 << 20]).await));
        child.kill().await.unwrap();
    });
}

#[test]
fn a_child_that_reads_no_more_breaks_the_pipe() {
    check(|| async {
        let mut child = shell("exec <&-; echo closed; exec sleep 1000")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdout.as_ref().unwrap().read_exact(&mut [0; 7]).await.unwrap();
        let error = child.stdin.as_ref().unwrap().write_all(b"x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        child.kill().await.unwrap();
    });
}

#[test]
fn others_run_while_a_child_is_waited_for() {
    run(1, async {
        let mut child = patient().spawn().unwrap();
        let stdin = child.stdin.take();
        let waiter = spawn(async move { child.wait().await.unwrap() });
        for _ in 0..100 {
            spawn(async {}).await.unwrap();
        }
        assert!(!waiter.is_finished());
        drop(stdin);
        assert!(waiter.await.unwrap().success());
    });
}

#[test]
fn a_child_inherits_no_descriptor_but_its_standard_streams() {
    // Those that this process was started with are beside the point.
    fn inherited() -> String {
        let output = std::process::Command::new("ls").args(["-1", "/proc/self/fd"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
    run(2, async {
        let before = inherited();
        let mut sibling = patient().spawn().unwrap();
        let (stdin, stdout) = (mainspring::io::stdin().unwrap(), mainspring::io::stdout().unwrap());
        let signals = mainspring::signal::signal(SignalKind::window_change()).unwrap();
        let (one, other) = common::sockets::pair().await;
        let (udp, unix) = (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UnixDatagram::unbound().unwrap());
        sleep(Duration::from_millis(1)).await;
        assert_eq!(inherited(), before);
        drop((stdin, stdout, signals, one, other, udp, unix));
        sibling.kill().await.unwrap();
    });
}
