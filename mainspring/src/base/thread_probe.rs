//! What another thread of this process is doing, as far as the kernel knows: how long it has run, and whether it
//! sleeps.
//!
//! Knows nothing of workers or tasks, and never stops or delays the thread that is looked at. All answers are about a
//! moment that is over when they arrive: they are grounds for a guess, and never for a proof that the thread does or
//! does not do something. `None` is always a possible answer, and means that nothing is known.
//!
//! A thread is named by its kernel id, which is given to another thread some time after this one has ended (Linux
//! goes once through all numbers first). It is the caller's part to ask about threads that live.

#![allow(unsafe_code)]

use std::fs::File;
use std::num::NonZeroU32;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

/// A thread's id in the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct ThreadId(NonZeroU32);

impl ThreadId {
    /// The calling thread's. A system call.
    pub(crate) fn current() -> ThreadId {
        let id = rustix::thread::gettid().as_raw_nonzero();
        // Ids are positive.
        ThreadId(id.cast_unsigned())
    }

    /// A number to keep in an atomic. Never zero, so that zero can stand for none.
    pub(crate) fn to_raw(self) -> u32 {
        self.0.get()
    }

    /// From what [`ThreadId::to_raw`] has given; `None` from zero.
    pub(crate) fn from_raw(raw: u32) -> Option<ThreadId> {
        NonZeroU32::new(raw).map(ThreadId)
    }

    /// How long the thread has run on processors until now, by the scheduler's books, to the nanosecond; while it
    /// runs, that includes the present moment. Two readings that are equal say that it has not run in between.
    ///
    /// `None` if there is no such thread in this process. The kernel gives a thread's clock only to threads of the
    /// same process (`same_thread_group` in its `lookup_task`), so an id that belongs to somebody else's thread by
    /// now is refused as well.
    pub(crate) fn cpu_time(self) -> Option<Duration> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: clock_gettime(clockid_t, struct timespec *). The kernel writes one timespec to `time`, which is
        // ours and outlives the call. Any number may be asked for: one that is no clock is an error.
        let result = unsafe { libc::clock_gettime(self.clock(), &raw mut time) };
        if result != 0 {
            return None;
        }
        Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
    }

    /// The number of the thread's CPU clock: the id's complement above three bits, of which one says that it is a
    /// thread's and not a process's, and two that the scheduler's count is meant. It is Linux's interface to programs
    /// (`MAKE_THREAD_CPUCLOCK`), and what `pthread_getcpuclockid` gives; that one takes a `pthread_t`, which must not
    /// be used after its thread has ended.
    fn clock(self) -> libc::clockid_t {
        const PER_THREAD: u32 = 4;
        const SCHED: u32 = 2;
        ((!self.to_raw() << 3) | PER_THREAD | SCHED).cast_signed()
    }
}

/// Looks whether a thread sleeps. Keeps a descriptor from the first look on, which makes the later ones one system
/// call each.
#[derive(Debug)]
pub(crate) struct Probe {
    thread: ThreadId,
    /// The thread's `stat`. Once it is open, it stands for the thread and not for the number: it gives nothing about a
    /// later thread that has the same id.
    stat: Option<File>,
}

impl Probe {
    pub(crate) fn new(thread: ThreadId) -> Probe {
        Probe { thread, stat: None }
    }

    /// Whether the thread sleeps in the kernel: neither runs, nor would if a processor were free. A thread that is
    /// stopped, by a debugger for instance, is not asleep.
    ///
    /// A thread that is just about to sleep counts as asleep, and may yet find that it need not.
    ///
    /// `None` if it cannot be told: the thread has ended, there is no `/proc` or it belongs to another namespace of
    /// process ids, or no descriptor is left. If opening the file was what failed, the next look tries again.
    pub(crate) fn asleep(&mut self) -> Option<bool> {
        // Id, name and state stand in front: ten digits, twice the 15 bytes of a name, since some are written
        // escaped, or a thread of the kernel's with 64. The rest is left in the file.
        let mut text = [0; 128];
        if self.stat.is_none() {
            self.stat = open(self.thread);
        }
        // From offset 0, the kernel writes the file anew each time.
        let length = self.stat.as_ref()?.read_at(&mut text, 0).ok()?;
        is_asleep(state(&text[..length])?)
    }
}

fn open(thread: ThreadId) -> Option<File> {
    // In a `/proc` of another namespace, our ids would be those of other threads.
    let process = std::fs::read_link("/proc/self").ok()?;
    if process != Path::new(&std::process::id().to_string()) {
        return None;
    }
    File::open(format!("/proc/self/task/{}/stat", thread.to_raw())).ok()
}

/// The letter of the state in the beginning of a `stat`: `id (name) state ..`. The name may have any bytes in it, and
/// what follows it has no parentheses.
fn state(text: &[u8]) -> Option<u8> {
    let end = text.iter().rposition(|byte| *byte == b')')?;
    match text[end + 1..] {
        [b' ', state, b' ', ..] => Some(state),
        _ => None,
    }
}

/// What the letter means; `None` if the thread has ended, or the letter is not known.
fn is_asleep(state: u8) -> Option<bool> {
    match state {
        // Until a signal or an event comes; until an event comes; idle, which is the latter for the kernel's threads.
        b'S' | b'D' | b'I' => Some(true),
        // Running or waiting for a processor; stopped by a signal; by a debugger.
        b'R' | b'T' | b't' => Some(false),
        _ => None,
    }
}

#[cfg(all(test, not(mainspring_loom)))]
mod tests {
    use std::process::{Command, Stdio};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Instant;

    use rustix::time::{ClockId, clock_gettime};

    use super::*;

    /// Tries until it is so; the limit is there only for a test that fails to end.
    #[track_caller]
    fn eventually(what: &str, mut is: impl FnMut() -> bool) {
        let start = Instant::now();
        while !is() {
            assert!(start.elapsed() < Duration::from_secs(60), "never: {what}");
            thread::yield_now();
        }
    }

    /// Gives `f` the id of a thread with this name that runs until `f` is over.
    fn with_spinning<R>(name: &str, f: impl FnOnce(ThreadId) -> R) -> R {
        struct End<'a>(&'a AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let end = AtomicBool::new(false);
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            // Also if `f` panics.
            let _end = End(&end);
            let spin = || {
                sender.send(ThreadId::current()).unwrap();
                while !end.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            };
            thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, spin).unwrap();
            f(receiver.recv().unwrap())
        })
    }

    #[test]
    fn the_time_of_a_thread_that_runs_grows_and_it_is_not_asleep() {
        with_spinning("spins", |thread| {
            let before = thread.cpu_time().unwrap();
            eventually("it runs", || thread.cpu_time().unwrap() > before + Duration::from_micros(100));
            let mut probe = Probe::new(thread);
            eventually("it is awake", || !probe.asleep().unwrap());
        });
    }

    #[test]
    fn a_thread_that_waits_is_asleep_and_its_time_stands_still() {
        let (sender, receiver) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let other = thread::spawn(move || {
            sender.send(ThreadId::current()).unwrap();
            ended.recv().unwrap_err();
        });
        let thread = receiver.recv().unwrap();
        let mut probe = Probe::new(thread);
        eventually("it is asleep", || probe.asleep().unwrap());
        eventually("its time stands still", || {
            let before = thread.cpu_time().unwrap();
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(1) {
                std::hint::spin_loop();
            }
            before == thread.cpu_time().unwrap()
        });
        assert_eq!(probe.asleep(), Some(true));
        drop(end);
        other.join().unwrap();
    }

    #[test]
    fn of_a_thread_that_has_ended_nothing_is_known() {
        let (mut open, mut closed) = with_spinning("ends", |thread| {
            let mut open = Probe::new(thread);
            assert!(open.asleep().is_some());
            (open, Probe::new(thread))
        });
        // `join` does not wait until the kernel has put it away.
        eventually("it has no time", || open.thread.cpu_time().is_none());
        eventually("an open file says nothing", || open.asleep().is_none());
        assert!(open.stat.is_some());
        eventually("there is none to open", || closed.asleep().is_none() && closed.stat.is_none());
    }

    #[test]
    fn of_a_thread_of_another_process_nothing_is_known() {
        // It lives until its input is closed.
        let mut child =
            Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("there is a cat");
        let thread = ThreadId::from_raw(child.id()).unwrap();
        assert_eq!(thread.cpu_time(), None);
        assert_eq!(Probe::new(thread).asleep(), None);
        assert!(child.try_wait().unwrap().is_none(), "it lives");
        child.wait().unwrap();
    }

    #[test]
    fn the_caller_has_a_time_and_is_not_asleep() {
        let thread = ThreadId::current();
        let mut probe = Probe::new(thread);
        assert_eq!(probe.asleep(), Some(false));
        assert_eq!(probe.asleep(), Some(false), "the second look reads the file anew");
        // The same count as the clock that a thread has for itself.
        let own = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
        for _ in 0..100 {
            let (before, time, after) = (own(), thread.cpu_time().unwrap(), own());
            assert!(before <= time && time <= after, "{before:?}, {time:?}, {after:?}");
        }
    }

    #[test]
    fn a_name_that_looks_like_a_state_is_no_state() {
        let longest = [b"4194304 (".as_slice(), &[b')'; 64], b") S 1 2 3"].concat();
        for (text, expected) in [
            (b"7 (a) S (b) R 1 0 -1".as_slice(), Some(b'R')),
            (b"7 (a \xff) D ", Some(b'D')),
            (b"7 () S 1", Some(b'S')),
            (&longest, Some(b'S')),
            (b"7 (a) S", None),
            (b"7 (a)", None),
            (b"7 (a", None),
            (b"7 (a) Sleeping 1", None),
            (b"", None),
        ] {
            assert_eq!(state(text), expected, "{}", text.escape_ascii());
        }
        with_spinning("a) S (b", |thread| {
            let mut probe = Probe::new(thread);
            eventually("it is awake", || !probe.asleep().unwrap());
        });
    }

    #[test]
    fn only_known_states_mean_something() {
        let of = |states: &[u8]| -> Vec<Option<bool>> { states.iter().copied().map(is_asleep).collect() };
        assert_eq!(of(b"SDI"), [Some(true); 3]);
        assert_eq!(of(b"RTt"), [Some(false); 3]);
        assert_eq!(of(b"ZXx?"), [None; 4]);
    }

    #[test]
    fn an_id_goes_through_its_number_and_zero_is_none() {
        let thread = ThreadId::current();
        assert_eq!(ThreadId::from_raw(thread.to_raw()), Some(thread));
        assert_eq!(ThreadId::from_raw(0), None);
        with_spinning("other", |other| assert_ne!(thread, other));
    }
}
