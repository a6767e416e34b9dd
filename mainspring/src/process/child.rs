//! A child process that was started, and what becomes of one that nobody waits for.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::process::{ExitStatus, Output};

use futures_util::future::try_join3;
use rustix::process::Signal;

use super::exit::Running;
use super::pipes::{ChildStderr, ChildStdin, ChildStdout};
use crate::net::Async;
use crate::runtime::{Handle, other_than_closing};
use crate::sched::task::contain;
use crate::signal::SignalKind;

/// A child process. Dropping it neither ends the process, unless
/// [`kill_on_drop`](super::Command::kill_on_drop) was set, nor leaves a zombie; see [the module](super).
///
/// # Examples
///
/// See [`Command`](super::Command).
pub struct Child {
    /// What is written here the child reads, if that was asked for. Dropping it is how the child learns that no more
    /// comes.
    pub stdin: Option<ChildStdin>,
    /// What the child writes to its standard output, if that was asked for.
    pub stdout: Option<ChildStdout>,
    /// What the child writes to its standard error, if that was asked for.
    pub stderr: Option<ChildStderr>,
    process: Process,
}

impl Child {
    pub(super) fn new(mut child: std::process::Child, kill_on_drop: bool) -> io::Result<Child> {
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        // Before anything can fail, so that whatever happens the process is looked after. One that the caller learns
        // nothing of is killed.
        let mut process = Process { running: Some(Running::new(child)), kill_on_drop: true };
        let (stdin, stdout, stderr) = (
            stdin.map(ChildStdin::from_std).transpose()?,
            stdout.map(ChildStdout::from_std).transpose()?,
            stderr.map(ChildStderr::from_std).transpose()?,
        );
        process.kill_on_drop = kill_on_drop;
        Ok(Child { stdin, stdout, stderr, process })
    }

    /// The number of the process; `None` after it has been waited for, when the system may give it to another one.
    pub fn id(&self) -> Option<u32> {
        self.process.running().id()
    }

    /// Sends a signal to the process, and to no other: not to its children, nor to whoever may have its number
    /// after it. Does nothing if the process has been waited for. (Go's `Process.Signal`; tokio has only
    /// SIGKILL.)
    ///
    /// # Errors
    ///
    /// `InvalidInput` for what is no signal or one of the real-time signals; otherwise as
    /// [`start_kill`](Child::start_kill).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::os::unix::process::ExitStatusExt;
    ///
    /// use mainspring::process::Command;
    /// use mainspring::signal::SignalKind;
    ///
    /// # mainspring::block_on(async {
    /// let mut child = Command::new("sleep").arg("1000").spawn()?;
    /// child.send_signal(SignalKind::terminate())?;
    /// let status = child.wait().await?;
    /// assert_eq!(status.signal(), Some(SignalKind::terminate().as_raw_value()));
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub fn send_signal(&mut self, kind: SignalKind) -> io::Result<()> {
        let unknown = || io::Error::new(io::ErrorKind::InvalidInput, "no signal that can be sent");
        let signal = Signal::from_named_raw(kind.as_raw_value()).ok_or_else(unknown)?;
        self.process.running_mut().signal(signal)
    }

    /// Sends SIGKILL. Does nothing if the process has been waited for.
    ///
    /// # Errors
    ///
    /// The system's, `PermissionDenied` for a child that is another user's by now.
    pub fn start_kill(&mut self) -> io::Result<()> {
        self.process.running_mut().signal(Signal::KILL)
    }

    /// Sends SIGKILL and waits for the end.
    ///
    /// # Errors
    ///
    /// As [`start_kill`](Child::start_kill) and [`wait`](Child::wait).
    ///
    /// # Cancel safety
    ///
    /// As [`wait`](Child::wait).
    pub async fn kill(&mut self) -> io::Result<()> {
        self.start_kill()?;
        self.wait().await.map(drop)
    }

    /// Waits for the end of the process. Gives the same status each time.
    ///
    /// [`stdin`](Child::stdin) is dropped first, or a child that reads to the end and a parent that waits for it
    /// would wait for one another. A child whose [`stdout`](Child::stdout) is a pipe that nobody reads may wait for
    /// that: see [`wait_with_output`](Child::wait_with_output).
    ///
    /// # Errors
    ///
    /// The system's, such as that there is no such child: somebody else has waited for all children of the
    /// process, or it ignores SIGCHLD. Or if the runtime that the child was started on has shut down.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again; no status is lost.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        drop(self.stdin.take());
        self.process.running_mut().wait().await
    }

    /// The status of the process if it has ended, without waiting.
    ///
    /// # Errors
    ///
    /// As [`wait`](Child::wait).
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.process.running_mut().try_wait()
    }

    /// Waits for the end of the process and for the end of what it writes, both to standard output and error as
    /// far as these are pipes. Drops [`stdin`](Child::stdin) first, as [`wait`](Child::wait) does.
    ///
    /// The pipes end when all who hold them have gone: a grandchild in the background keeps this waiting.
    ///
    /// # Errors
    ///
    /// As [`wait`](Child::wait), and those of reading.
    ///
    /// # Cancel safety
    ///
    /// None: the child is dropped with the future, and what was read is lost.
    pub async fn wait_with_output(mut self) -> io::Result<Output> {
        let (stdout, stderr) = (self.stdout.take(), self.stderr.take());
        let stdout = read_all(stdout.as_ref().map(ChildStdout::as_async));
        let stderr = read_all(stderr.as_ref().map(ChildStderr::as_async));
        let (status, stdout, stderr) = try_join3(self.wait(), stdout, stderr).await?;
        Ok(Output { status, stdout, stderr })
    }
}

/// Reads up to the end.
async fn read_all<T: AsFd>(pipe: Option<&Async<T>>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let Some(pipe) = pipe else { return Ok(bytes) };
    let mut len = 0;
    loop {
        if len == bytes.len() {
            // A page, then twice as much as there is.
            bytes.resize(len + len.clamp(4096, 1 << 20), 0);
        }
        let count = pipe.read(&mut bytes[len..]).await?;
        if count == 0 {
            bytes.truncate(len);
            return Ok(bytes);
        }
        len += count;
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// A process that is looked after: when this is dropped before the process has ended, somebody else waits for it.
struct Process {
    /// There until it is dropped.
    running: Option<Running>,
    kill_on_drop: bool,
}

impl Process {
    fn running(&self) -> &Running {
        self.running.as_ref().expect("it is there until it is dropped")
    }

    fn running_mut(&mut self) -> &mut Running {
        self.running.as_mut().expect("it is there until it is dropped")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        if self.kill_on_drop {
            // There is nobody to tell.
            let _ = running.signal(Signal::KILL);
        }
        if let Ok(None) = running.try_wait() {
            let orphan = Process { running: Some(running), kill_on_drop: false };
            // If the runtime is the ambient one and cannot start, the zombie stays until the program's end.
            contain(|| drop(Handle::new(other_than_closing()).spawn(look_after(orphan))));
        }
    }
}

/// Waits for a process that nobody else waits for. If the runtime ends before, this is dropped, and with it the
/// orphan, which goes to another runtime.
async fn look_after(mut orphan: Process) {
    let running = orphan.running_mut();
    running.watch_here();
    if running.wait().await.is_err() {
        // Nothing that waiting once more would mend.
        drop(orphan.running.take());
    }
}
