//! Standard input and output, in child processes that are this very program: through pipes, sockets, files, a terminal.

mod common;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::task::Poll;
use std::time::Duration;

use common::sockets::{byte_at, is_timeout, poll_once};
use common::watchdog::Watchdog;
use futures_util::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use mainspring::io::{stderr, stdin, stdout};
use mainspring::time::{Instant, sleep};
use rustix::fs::{OFlags, fcntl_getfl};

/// Says what a child process does. What it has to tell goes to standard error, because the test harness writes to
/// standard output.
const WHAT: &str = "MAINSPRING_TEST_STDIO";

/// More than any pipe or terminal holds.
const LONG: usize = 300_000;

#[test]
fn child() {
    let Ok(what) = std::env::var(WHAT) else { return };
    let _watchdog = Watchdog::here();
    mainspring::block_on(async {
        match what.as_str() {
            "copy" => copy().await,
            "tick" => tick().await,
            "long" => long().await,
            "lines" => lines().await,
            "deadline" => deadline().await,
            _ => panic!("{what}?"),
        }
    });
    // What belongs to others as well is as it was.
    for fd in [io::stdin().as_fd(), io::stdout().as_fd(), io::stderr().as_fd()] {
        assert!(!fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK));
    }
}

/// Copies standard input to standard error until it ends.
async fn copy() {
    let (input, output) = (stdin().unwrap(), stderr().unwrap());
    let mut buffer = [0; 1000];
    loop {
        match input.read(&mut buffer).await.unwrap() {
            0 => return,
            count => output.write_all(&buffer[..count]).await.unwrap(),
        }
    }
}

/// Says that time goes by in the very task that waits for input.
async fn tick() {
    let (input, output) = (stdin().unwrap(), stderr().unwrap());
    // Given up, and takes nothing along.
    assert!(poll_once(pin!(stdin().unwrap().read(&mut [0; 16]))).await.is_pending());
    let mut buffer = [0; 16];
    let count = {
        let mut read = pin!(input.read(&mut buffer));
        for _ in 0..5 {
            assert!(poll_once(read.as_mut()).await.is_pending());
            sleep(Duration::from_millis(1)).await;
            output.write_all(b"tick\n").await.unwrap();
        }
        read.await.unwrap()
    };
    output.write_all(&buffer[..count]).await.unwrap();
}

/// Writes more to standard output than it takes, while time goes by, and says what became of it.
async fn long() {
    let (output, report) = (stdout().unwrap(), stderr().unwrap());
    let writer = async {
        let bytes: Vec<u8> = (0..LONG).map(byte_at).collect();
        output.write_all(&bytes).await
    };
    let mut writer = pin!(writer);
    let result = match poll_once(writer.as_mut()).await {
        Poll::Ready(result) => result,
        Poll::Pending => {
            report.write_all(b"full\n").await.unwrap();
            writer.await
        }
    };
    let result = match result {
        Ok(()) => "written\n".to_owned(),
        Err(error) => format!("{:?}\n", error.kind()),
    };
    report.write_all(result.as_bytes()).await.unwrap();
}

/// Uses the I/O traits.
async fn lines() {
    let mut lines = futures_util::io::BufReader::new(stdin().unwrap()).lines();
    let mut output = stderr().unwrap();
    while let Some(line) = futures_util::StreamExt::next(&mut lines).await {
        let text = format!("[{}]\n", line.unwrap());
        AsyncWriteExt::write_all(&mut output, text.as_bytes()).await.unwrap();
    }
    let mut rest = Vec::new();
    stdin().unwrap().read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"");
}

async fn deadline() {
    let input = stdin().unwrap();
    input.set_deadline(Instant::now() + Duration::from_millis(2)).unwrap();
    let timed_out = is_timeout(&input.read(&mut [0; 8]).await);
    stderr().unwrap().write_all(format!("{timed_out}\n").as_bytes()).await.unwrap();
    input.deadlines().set_deadline(None).unwrap();
    assert_eq!(input.read(&mut [0; 8]).await.unwrap(), 3);
}

fn start(what: &str, stdin: impl Into<Stdio>, stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(WHAT, what)
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .unwrap()
}

/// Starts a child that is given `stdin`, and gives what it tells.
fn told(what: &str, stdin: impl Into<Stdio>) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut child = start(what, stdin, Stdio::null(), Stdio::piped());
    let told = BufReader::new(child.stderr.take().unwrap());
    (child, told)
}

#[track_caller]
fn expect(told: &mut impl BufRead, expected: &str) {
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    assert_eq!(line.trim_end(), expected);
}

#[track_caller]
fn assert_rest(mut child: Child, mut told: impl Read, expected: &[u8]) {
    let mut rest = Vec::new();
    told.read_to_end(&mut rest).unwrap();
    assert!(
        rest == expected,
        "{} bytes: {}",
        rest.len(),
        String::from_utf8_lossy(&rest[..rest.len().min(300)])
    );
    assert!(child.wait().unwrap().success());
}

fn long_bytes() -> Vec<u8> {
    (0..LONG).map(byte_at).collect()
}

#[test]
fn what_comes_through_a_pipe_or_a_socket_is_read_to_its_end() {
    let _watchdog = Watchdog::here();
    let (mut child, told_by) = told("copy", Stdio::piped());
    let mut pipe = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || pipe.write_all(&long_bytes()).unwrap());
    assert_rest(child, told_by, &long_bytes());
    writer.join().unwrap();

    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let (child, told_by) = told("copy", OwnedFd::from(theirs));
    let writer = std::thread::spawn(move || ours.write_all(&long_bytes()).unwrap());
    assert_rest(child, told_by, &long_bytes());
    writer.join().unwrap();
}

#[test]
fn a_file_or_nothing_is_read_to_its_end() {
    let _watchdog = Watchdog::here();
    // It has lost its name when anything can fail, and is gone when nobody has it open.
    let path = std::env::temp_dir().join(format!("mainspring-stdio-{}", std::process::id()));
    std::fs::write(&path, long_bytes()).unwrap();
    let [input, mut result] = [(); 2].map(|()| File::open(&path).unwrap());
    let output = File::options().append(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    let (child, told_by) = told("copy", input);
    assert_rest(child, told_by, &long_bytes());
    let (child, told_by) = told("copy", Stdio::null());
    assert_rest(child, told_by, b"");

    // And written, behind what is there: the descriptor's own position counts.
    let mut child = start("copy", File::open("/etc/passwd").unwrap(), Stdio::null(), output);
    assert!(child.wait().unwrap().success());
    let expected = [long_bytes(), std::fs::read("/etc/passwd").unwrap()].concat();
    let mut written = Vec::new();
    result.read_to_end(&mut written).unwrap();
    assert!(written == expected);
}

#[test]
fn waiting_for_input_stops_nothing_else_in_the_same_task() {
    let _watchdog = Watchdog::here();
    let (terminal, theirs) = terminal();
    let mut terminal = File::from(terminal);
    let (mut child, mut told_by) = told("tick", Stdio::piped());
    let (second, mut told_by_second) = told("tick", theirs);
    for _ in 0..5 {
        expect(&mut told_by, "tick");
        expect(&mut told_by_second, "tick");
    }
    child.stdin.as_mut().unwrap().write_all(b"input\n").unwrap();
    terminal.write_all(b"input\n").unwrap();
    assert_rest(child, told_by, b"input\n");
    assert_rest(second, told_by_second, b"input\n");
    drop(terminal);
}

#[test]
fn output_that_is_full_is_waited_for() {
    let _watchdog = Watchdog::here();
    let mut child = start("long", Stdio::null(), Stdio::piped(), Stdio::piped());
    let mut told_by = BufReader::new(child.stderr.take().unwrap());
    expect(&mut told_by, "full");
    let mut output = Vec::new();
    let mut pipe = child.stdout.take().unwrap();
    while output.len() < LONG {
        let mut some = [0; 10_000];
        let count = pipe.read(&mut some).unwrap();
        assert_ne!(count, 0);
        output.extend_from_slice(&some[..count]);
    }
    expect(&mut told_by, "written");
    pipe.read_to_end(&mut output).unwrap();
    assert_rest(child, told_by, b"");
    // The harness says something before and after.
    let expected = long_bytes();
    assert!(output.windows(LONG).any(|window| window == expected));
}

#[test]
fn output_that_nobody_reads_is_an_error_and_not_the_end() {
    let _watchdog = Watchdog::here();
    let mut child = start("long", Stdio::null(), Stdio::piped(), Stdio::piped());
    let mut told_by = BufReader::new(child.stderr.take().unwrap());
    expect(&mut told_by, "full");
    drop(child.stdout.take());
    expect(&mut told_by, "BrokenPipe");
    // What the harness makes of its output's end is its affair, but no signal has ended it.
    assert!(child.wait().unwrap().code().is_some());
}

#[test]
fn lines_come_one_by_one_from_a_terminal_and_output_goes_there() {
    let _watchdog = Watchdog::here();
    let (terminal, theirs) = terminal();
    let mut terminal = File::from(terminal);
    let (child, mut told_by) = told("lines", theirs.try_clone().unwrap());
    // Both are there at the first read, which gives the first alone.
    terminal.write_all(b"one\ntwo\n").unwrap();
    expect(&mut told_by, "[one]");
    expect(&mut told_by, "[two]");
    terminal.write_all(b"three\n").unwrap();
    expect(&mut told_by, "[three]");
    // Ctrl-D ends it, for both readers.
    terminal.write_all(&[4, 4]).unwrap();
    assert_rest(child, told_by, b"");

    let mut child = start("long", Stdio::null(), theirs, Stdio::piped());
    let mut told_by = BufReader::new(child.stderr.take().unwrap());
    // Its task goes on while the terminal takes no more.
    expect(&mut told_by, "full");
    let reader = std::thread::spawn(move || {
        // A terminal turns line ends into two characters, which are not counted.
        let mut sum = 0;
        let mut some = [0; 4096];
        while let Ok(count @ 1..) = terminal.read(&mut some) {
            sum += some[..count].iter().filter(|byte| **byte != b'\r').count();
        }
        sum
    });
    let mut told = String::new();
    told_by.read_to_string(&mut told).unwrap();
    assert!(told.ends_with("written\n"), "{told}");
    assert!(child.wait().unwrap().success());
    drop(child);
    let expected = long_bytes().iter().filter(|byte| **byte != b'\r').count();
    assert!(reader.join().unwrap() >= expected);
}

#[test]
fn input_has_a_deadline() {
    let _watchdog = Watchdog::here();
    let (mut child, mut told_by) = told("deadline", Stdio::piped());
    expect(&mut told_by, "true");
    child.stdin.as_mut().unwrap().write_all(b"abc").unwrap();
    assert_rest(child, told_by, b"");
}

/// A new terminal: the end of whoever sits there, and that for programs.
fn terminal() -> (OwnedFd, OwnedFd) {
    // SAFETY: posix_openpt(int) has no further conditions.
    let fd = unsafe { libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) };
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the descriptor is new and nobody else's.
    let ours = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: unlockpt(int) takes any descriptor.
    assert_eq!(unsafe { libc::unlockpt(ours.as_raw_fd()) }, 0);
    let mut name = [0; 64];
    // SAFETY: ptsname_r(int, char *, size_t) writes at most so many bytes, with a zero at the end.
    assert_eq!(unsafe { libc::ptsname_r(ours.as_raw_fd(), name.as_mut_ptr(), name.len()) }, 0);
    let name: Vec<u8> = name.iter().take_while(|byte| **byte != 0).map(|byte| byte.cast_unsigned()).collect();
    let name = String::from_utf8(name).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let theirs = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
    (ours, theirs)
}
