//! Noticing the end of a process.
//!
//! A pidfd, a descriptor that becomes readable when the process has ended, waits in the poller (Linux 5.3). Where
//! there is none to be had, because the kernel is too old, a filter of system calls forbids it, or no descriptor
//! is left, a job of the blocking pool waits instead, one thread for each child that is waited for.
//!
//! Invariant: the process is reaped in one place only, [`Running::try_wait`]; everybody else looks and leaves it.
//! Until then its number belongs to it, and after that nothing is sent to that number.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus};

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process, pidfd_open, pidfd_send_signal, waitid,
};

use crate::net::Async;
use crate::task::JoinHandle;

/// A child process, whose standard streams have been taken out.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    /// Its status once it was reaped, or, against all custom, somebody else has it: then the error that says so.
    end: Option<Result<ExitStatus, Errno>>,
    watch: Watch,
}

/// How its end is noticed.
#[derive(Debug)]
enum Watch {
    Pidfd(Async<OwnedFd>),
    /// The job that waits, from the first wait on.
    Job(Option<JoinHandle<io::Result<()>>>),
}

impl Running {
    pub(super) fn new(child: Child) -> Running {
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
        let watch =
            pidfd.map_err(io::Error::from).and_then(Async::new).map_or(Watch::Job(None), Watch::Pidfd);
        Running { child, end: None, watch }
    }

    pub(super) fn id(&self) -> Option<u32> {
        self.end.is_none().then(|| self.child.id())
    }

    /// Asks for the status, and with that reaps the process if it has ended.
    pub(super) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        if let Some(end) = self.end {
            // Not asked again: its number may be another child's by now.
            return Ok(Some(end?));
        }
        let result = self.child.try_wait();
        self.end = match &result {
            Ok(status) => status.map(Ok),
            Err(error) => {
                (error.raw_os_error() == Some(Errno::CHILD.raw_os_error())).then_some(Err(Errno::CHILD))
            }
        };
        result
    }

    /// Waits for the end; no harm if it is dropped and called again.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            match &mut self.watch {
                Watch::Pidfd(pidfd) => {
                    pidfd.readable().await?;
                    if let Some(status) = self.try_wait()? {
                        return Ok(status);
                    }
                    // It has ended, but a debugger has yet to let go of it.
                    crate::blocking(|| look(Pid::from_child(&self.child)))?;
                }
                Watch::Job(job) => {
                    let pid = Pid::from_child(&self.child);
                    let ended = job.get_or_insert_with(|| crate::spawn_blocking(move || look(pid))).await;
                    *job = None;
                    ended??;
                }
            }
        }
    }

    /// Sends a signal, unless the process has been reaped.
    pub(super) fn signal(&mut self, signal: Signal) -> io::Result<()> {
        if self.end.is_some() {
            return Ok(());
        }
        let result = match &self.watch {
            // Never another process: it is this one or none.
            Watch::Pidfd(pidfd) => pidfd_send_signal(pidfd, signal),
            Watch::Job(_) => match self.try_wait() {
                // Not reaped yet, so that the number is its own.
                Ok(None) => kill_process(Pid::from_child(&self.child), signal),
                // There is nobody any more; waiting says why.
                _ => Ok(()),
            },
        };
        // Reaped by somebody else.
        if result == Err(Errno::SRCH) { Ok(()) } else { Ok(result?) }
    }

    /// Has the runtime at hand watch, instead of the one before, which may have ended.
    pub(super) fn watch_here(&mut self) {
        self.watch = match std::mem::replace(&mut self.watch, Watch::Job(None)) {
            Watch::Pidfd(pidfd) => Async::new(pidfd.into_inner()).map_or(Watch::Job(None), Watch::Pidfd),
            // What has been cancelled has finished, too.
            Watch::Job(job) => Watch::Job(job.filter(|job| !job.is_finished())),
        };
    }
}

/// Waits until the process has ended, and leaves it as it is.
fn look(pid: Pid) -> io::Result<()> {
    loop {
        match waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            Err(Errno::INTR) => {}
            // Reaped meanwhile; whoever waits asks next, and learns the same.
            Err(Errno::CHILD) => return Ok(()),
            result => return result.map(drop).map_err(io::Error::from),
        }
    }
}

#[cfg(all(test, not(mainspring_loom)))]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;
    use crate::time::timeout;

    /// A shell without a pidfd, which ends with its standard input.
    fn without_pidfd() -> (Running, Option<std::process::ChildStdin>) {
        let mut command = Command::new("sh");
        let mut child = command.args(["-c", "read line; exit 7"]).stdin(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        (Running { child, end: None, watch: Watch::Job(None) }, stdin)
    }

    #[test]
    fn without_a_pidfd_a_job_waits_and_may_be_left_and_asked_again() {
        crate::block_on(async {
            let (mut running, stdin) = without_pidfd();
            assert_eq!(running.try_wait().unwrap(), None);
            for _ in 0..3 {
                assert!(timeout(Duration::from_millis(1), running.wait()).await.is_err());
                assert!(matches!(running.watch, Watch::Job(Some(_))), "one job waits, not several");
            }
            drop(stdin);
            assert_eq!(running.wait().await.unwrap().code(), Some(7));
            assert_eq!(running.wait().await.unwrap().code(), Some(7));
            assert_eq!(running.id(), None);
            running.signal(Signal::KILL).unwrap();
        });
    }

    #[test]
    fn without_a_pidfd_it_is_killed_all_the_same() {
        crate::block_on(async {
            let (mut running, _stdin) = without_pidfd();
            running.signal(Signal::KILL).unwrap();
            assert_eq!(running.wait().await.unwrap().signal(), Some(libc::SIGKILL));
        });
    }

    #[test]
    fn without_a_pidfd_what_somebody_else_reaped_is_an_error_and_is_not_killed() {
        crate::block_on(async {
            for wait_before in [false, true] {
                let (mut running, stdin) = without_pidfd();
                if wait_before {
                    assert!(timeout(Duration::from_millis(1), running.wait()).await.is_err());
                }
                drop(stdin);
                let pid = Pid::from_child(&running.child);
                rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap();
                // It is asked for before it is sent to.
                running.signal(Signal::KILL).unwrap();
                assert_eq!(running.end, Some(Err(Errno::CHILD)));
                assert_eq!(running.wait().await.unwrap_err().raw_os_error(), Some(libc::ECHILD));
            }
        });
    }

    #[test]
    fn a_number_that_was_given_up_is_not_asked_about_again() {
        let (mut running, stdin) = without_pidfd();
        let pid = Pid::from_child(&running.child);
        drop(stdin);
        look(pid).unwrap();
        // As if another child had the number of one that somebody else has reaped.
        running.end = Some(Err(Errno::CHILD));
        assert_eq!(running.try_wait().unwrap_err().raw_os_error(), Some(libc::ECHILD));
        assert_eq!(running.id(), None);
        assert!(running.child.wait().unwrap().code() == Some(7), "it was left for others");
    }

    #[test]
    fn without_a_pidfd_the_end_of_the_runtime_hides_nothing_from_the_next_one() {
        for queued in [false, true] {
            let builder = crate::runtime::Builder::new().processors(1).max_threads(2);
            let runtime = builder.build().unwrap();
            let (open, gate) = std::sync::mpsc::channel::<()>();
            if queued {
                // In the only thread for jobs.
                drop(runtime.spawn_blocking(move || gate.recv()));
            }
            let (mut running, stdin) = without_pidfd();
            runtime.block_on(async {
                assert!(timeout(Duration::from_millis(1), running.wait()).await.is_err());
            });
            drop(runtime);
            drop((open, stdin));
            crate::block_on(async {
                running.watch_here();
                assert_eq!(running.wait().await.unwrap().code(), Some(7));
            });
        }
    }

    #[test]
    fn a_pidfd_is_used_where_there_is_one() {
        crate::block_on(async {
            let child = Command::new("true").spawn().unwrap();
            let mut running = Running::new(child);
            assert!(matches!(running.watch, Watch::Pidfd(_)));
            running.watch_here();
            assert!(matches!(running.watch, Watch::Pidfd(_)));
            assert!(running.wait().await.unwrap().success());
        });
    }
}
