//! Child processes: std's `Command`, with waiting, and reading and writing the child's standard streams, that
//! blocks nobody.
//!
//! * here: [`Command`], which is std's and starts the child;
//! * `child`: the child, and what becomes of one that nobody waits for;
//! * `exit`: noticing the end of a process, by a pidfd, or by a job of the blocking pool where there is none;
//! * `pipes`: the child's standard streams.
//!
//! Knows nothing of signals: no SIGCHLD is listened for, and children that others in this process started are theirs.
//!
//! # No zombies
//!
//! A process that has ended stays in the system's table until its parent asks for its status. [`Child::wait`],
//! [`Child::try_wait`] and [`Child::wait_with_output`] do. A [`Child`] that is dropped before lives on, like
//! std's, unless [`Command::kill_on_drop`] says otherwise; but here the runtime waits for it, in the background,
//! and asks. If that runtime ends first, the ambient one takes over.
//!
//! # Examples
//!
//! ```
//! use mainspring::process::Command;
//!
//! # mainspring::block_on(async {
//! let output = Command::new("echo").arg("hello").output().await?;
//! assert!(output.status.success());
//! assert_eq!(output.stdout, b"hello\n");
//! # std::io::Result::Ok(()) }).unwrap();
//! ```

mod child;
mod exit;
mod pipes;

use std::ffi::OsStr;
use std::future::Future;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ExitStatus, Output, Stdio};

pub use self::child::Child;
pub use self::pipes::{ChildStderr, ChildStdin, ChildStdout};

/// A process to be started: [`std::process::Command`], with the same defaults.
///
/// What has no method here, `pre_exec` for example, is set on [`as_std_mut`](Command::as_std_mut).
///
/// # Examples
///
/// ```
/// use std::process::Stdio;
///
/// use mainspring::process::Command;
///
/// # mainspring::block_on(async {
/// let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
/// child.stdin.take().unwrap().write_all(b"through a cat").await?;
/// let output = child.wait_with_output().await?;
/// assert_eq!(output.stdout, b"through a cat");
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct Command {
    std: std::process::Command,
    kill_on_drop: bool,
    /// Whether nobody has said what the child reads, so that `output` may give it nothing, as std's does.
    stdin_is_open: bool,
}

impl Command {
    /// A command that runs `program`, which is looked for in PATH, without arguments.
    pub fn new(program: impl AsRef<OsStr>) -> Command {
        Command { stdin_is_open: true, ..Command::from(std::process::Command::new(program)) }
    }

    /// std's command.
    pub fn as_std(&self) -> &std::process::Command {
        &self.std
    }

    /// std's command, for what has no method here.
    pub fn as_std_mut(&mut self) -> &mut std::process::Command {
        self.stdin_is_open = false;
        &mut self.std
    }

    /// std's command.
    pub fn into_std(self) -> std::process::Command {
        self.std
    }

    /// Adds an argument.
    pub fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Command {
        self.std.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args(&mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> &mut Command {
        self.std.args(args);
        self
    }

    /// Sets the name that the program finds as its own, its argument 0.
    pub fn arg0(&mut self, arg: impl AsRef<OsStr>) -> &mut Command {
        self.std.arg0(arg);
        self
    }

    /// Sets a variable in the child's environment.
    pub fn env(&mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Command {
        self.std.env(key, value);
        self
    }

    /// Sets variables in the child's environment.
    pub fn envs(
        &mut self,
        vars: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>,
    ) -> &mut Command {
        self.std.envs(vars);
        self
    }

    /// Takes a variable out of the child's environment.
    pub fn env_remove(&mut self, key: impl AsRef<OsStr>) -> &mut Command {
        self.std.env_remove(key);
        self
    }

    /// Empties the child's environment.
    pub fn env_clear(&mut self) -> &mut Command {
        self.std.env_clear();
        self
    }

    /// Sets the folder in which the child starts.
    pub fn current_dir(&mut self, dir: impl AsRef<Path>) -> &mut Command {
        self.std.current_dir(dir);
        self
    }

    /// Sets the child's standard input: inherited by default, and empty for [`output`](Command::output).
    pub fn stdin(&mut self, stdin: impl Into<Stdio>) -> &mut Command {
        self.stdin_is_open = false;
        self.std.stdin(stdin);
        self
    }

    /// Sets the child's standard output: inherited by default.
    pub fn stdout(&mut self, stdout: impl Into<Stdio>) -> &mut Command {
        self.std.stdout(stdout);
        self
    }

    /// Sets the child's standard error: inherited by default.
    pub fn stderr(&mut self, stderr: impl Into<Stdio>) -> &mut Command {
        self.std.stderr(stderr);
        self
    }

    /// Whether the child is killed (SIGKILL) when its [`Child`] is dropped, or the future of
    /// [`output`](Command::output) or [`status`](Command::status), before it has been waited for; not by
    /// default. The runtime waits for the dead one.
    pub fn kill_on_drop(&mut self, kill_on_drop: bool) -> &mut Command {
        self.kill_on_drop = kill_on_drop;
        self
    }

    /// What [`kill_on_drop`](Command::kill_on_drop) was told.
    pub fn get_kill_on_drop(&self) -> bool {
        self.kill_on_drop
    }

    /// Sets the child's user.
    pub fn uid(&mut self, id: u32) -> &mut Command {
        self.std.uid(id);
        self
    }

    /// Sets the child's group of users.
    pub fn gid(&mut self, id: u32) -> &mut Command {
        self.std.gid(id);
        self
    }

    /// Sets the child's process group; 0 is a new one of its own, so that a terminal's Ctrl-C is not for the
    /// child too.
    pub fn process_group(&mut self, group: i32) -> &mut Command {
        self.std.process_group(group);
        self
    }

    /// Starts the child. This blocks until the system has loaded the program, commonly a millisecond, inside of
    /// [`mainspring::blocking`](crate::blocking).
    ///
    /// # Errors
    ///
    /// `NotFound` and `PermissionDenied` for what is no program; otherwise the system's. Nothing runs then.
    pub fn spawn(&mut self) -> io::Result<Child> {
        let child = crate::blocking(|| self.std.spawn())?;
        Child::new(child, self.kill_on_drop)
    }

    /// Starts the child, closes this side of the pipes that it may have, and waits for its end.
    ///
    /// The child is started by this call, the future only waits.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Command::spawn) and [`Child::wait`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the child goes on, unless [`kill_on_drop`](Command::kill_on_drop) says otherwise.
    pub fn status(&mut self) -> impl Future<Output = io::Result<ExitStatus>> + Send + 'static + use<> {
        let child = self.spawn();
        async move {
            let mut child = child?;
            drop((child.stdin.take(), child.stdout.take(), child.stderr.take()));
            child.wait().await
        }
    }

    /// Starts the child with its standard output and error in pipes, whatever was set for them, and waits for its
    /// end and for all that it writes. Its standard input is empty unless something was set for it; a command that
    /// was made [from std's](Command#impl-From<Command>-for-Command) or reached through
    /// [`as_std_mut`](Command::as_std_mut) counts as set, and inherits it by default.
    ///
    /// The child is started by this call, the future only waits.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Command::spawn) and [`Child::wait_with_output`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, what the child has written is lost, and it goes on, unless
    /// [`kill_on_drop`](Command::kill_on_drop) says otherwise.
    pub fn output(&mut self) -> impl Future<Output = io::Result<Output>> + Send + 'static + use<> {
        if self.stdin_is_open {
            self.stdin(Stdio::null());
        }
        let child = self.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        async move { child?.wait_with_output().await }
    }
}

impl From<std::process::Command> for Command {
    fn from(std: std::process::Command) -> Command {
        Command { std, kill_on_drop: false, stdin_is_open: false }
    }
}
