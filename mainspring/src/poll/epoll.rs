//! The backend for Linux: one epoll instance, edge-triggered.
//!
//! Descriptors are added once, for both directions, and never changed. The thread in `wait` is
//! interrupted by an eventfd, also edge-triggered: each write to it is an edge of its own, so nobody
//! needs to read it, and an interrupt is one system call in all.
//!
//! This is the only file of `poll` with unsafe code: rustix decides between `epoll_wait`
//! (milliseconds) and `epoll_pwait2` (nanoseconds) when it is compiled, we have to do so at run time.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, epoll, eventfd};

use crate::base::primitive::atomic::{AtomicBool, Ordering};

use super::backend::{Backend, Edge, Event};

/// Events taken by one call; what does not fit comes with the next. Go's number.
const BATCH: usize = 128;

/// The eventfd's token. All 64 bits count: no key of the slab has an index of `u32::MAX`.
const INTERRUPT: u64 = u64::MAX;

/// Timeouts from here on are none: about 68 years, far inside of what the kernel can add to its clock.
const FOREVER: Duration = Duration::from_secs(1 << 31);

/// The kernel's `struct __kernel_timespec`, 64 bits also where libc's timespec has 32.
#[repr(C)]
struct KernelTimespec {
    seconds: i64,
    nanoseconds: i64,
}

#[derive(Debug)]
pub(crate) struct Epoll {
    epoll: OwnedFd,
    wake: OwnedFd,
    /// Set by the waiting thread when it has found out that there is no `epoll_pwait2` here, read by
    /// the same and by later ones. One for each instance: finding out costs one failed system call.
    coarse: AtomicBool,
    /// Instead of calling `epoll_pwait2`, fail with this.
    #[cfg(test)]
    refuse: Option<i32>,
}

impl Epoll {
    pub(crate) fn new() -> io::Result<Epoll> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let data = epoll::EventData::new_u64(INTERRUPT);
        epoll::add(&epoll, &wake, data, epoll::EventFlags::IN | epoll::EventFlags::ET)?;
        Ok(Epoll {
            epoll,
            wake,
            coarse: AtomicBool::new(false),
            #[cfg(test)]
            refuse: None,
        })
    }

    /// Waits with nanoseconds if the kernel can, with milliseconds if not.
    fn wait_for(&self, timeout: Duration, buffer: &mut Buffer) -> io::Result<usize> {
        // ordering: Relaxed; it guards nothing, and who misses it finds out again.
        if !self.coarse.load(Ordering::Relaxed) {
            match self.wait_fine(timeout, buffer) {
                Err(error) if error.raw_os_error().is_some_and(means_missing) => {
                    self.coarse.store(true, Ordering::Relaxed);
                }
                result => return result,
            }
        }
        self.wait_coarse(milliseconds(timeout), buffer)
    }

    fn wait_fine(&self, timeout: Duration, buffer: &mut Buffer) -> io::Result<usize> {
        #[cfg(test)]
        if let Some(error) = self.refuse {
            return Err(io::Error::from_raw_os_error(error));
        }
        let timeout = KernelTimespec {
            seconds: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: i64::from(timeout.subsec_nanos()),
        };
        // SAFETY: epoll_pwait2(int, struct epoll_event *, int, const struct __kernel_timespec *, const
        // sigset_t *, size_t). The descriptor is ours and open. The kernel writes at most BATCH entries
        // to `buffer`, which has as many, and reads one KernelTimespec; both outlive the call. A null
        // signal mask means that it stays as it is; its size is not looked at then.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                libc::c_long::from(self.epoll.as_raw_fd()),
                buffer.as_mut_ptr(),
                BATCH as libc::c_long,
                &raw const timeout,
                std::ptr::null::<libc::sigset_t>(),
                0 as libc::c_long,
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    /// `timeout` in milliseconds; -1 for no limit.
    fn wait_coarse(&self, timeout: libc::c_int, buffer: &mut Buffer) -> io::Result<usize> {
        // SAFETY: the descriptor is ours and open, and the kernel writes at most BATCH entries to
        // `buffer`, which has as many.
        let count = unsafe {
            libc::epoll_wait(self.epoll.as_raw_fd(), buffer.as_mut_ptr(), BATCH as libc::c_int, timeout)
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }
}

type Buffer = [libc::epoll_event; BATCH];

/// Whether an error of `epoll_pwait2` says that there is no such call: an old kernel (ENOSYS), an
/// emulation (ENOTSUP), or the system call filter of an old container runtime (EPERM).
fn means_missing(error: i32) -> bool {
    matches!(error, libc::ENOSYS | libc::ENOTSUP | libc::EPERM)
}

/// Rounded up, so that no wait ends before its time; at most what the kernel takes, 24 days.
fn milliseconds(timeout: Duration) -> libc::c_int {
    let rounded = timeout.as_nanos().div_ceil(1_000_000);
    libc::c_int::try_from(rounded).unwrap_or(libc::c_int::MAX)
}

fn event(raw: libc::epoll_event) -> Event {
    // Copied out first: the kernel's structure is packed.
    let (flags, token) = (raw.events, raw.u64);
    let any = |mask: libc::c_int| flags & mask.cast_unsigned() != 0;
    let edge = |ready: bool, last: bool| match (ready, last) {
        (_, true) => Some(Edge::Last),
        (true, false) => Some(Edge::Ready),
        (false, false) => None,
    };
    let both = libc::EPOLLHUP | libc::EPOLLERR;
    // Reading stops at the mark of urgent data, and no edge says that there is more behind it: for what
    // a short read means, that is as good as the last edge.
    let reading = libc::EPOLLRDHUP | libc::EPOLLPRI | both;
    Event { token, read: edge(any(libc::EPOLLIN), any(reading)), write: edge(any(libc::EPOLLOUT), any(both)) }
}

impl Backend for Epoll {
    fn add(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        debug_assert_ne!(token, INTERRUPT);
        use epoll::EventFlags as Flags;
        let flags = Flags::IN | Flags::OUT | Flags::RDHUP | Flags::PRI | Flags::ET;
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), flags)?;
        Ok(())
    }

    fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        epoll::delete(&self.epoll, fd)?;
        Ok(())
    }

    fn wait(&self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        events.clear();
        let mut buffer: Buffer = [libc::epoll_event { events: 0, u64: 0 }; BATCH];
        let result = match timeout {
            Some(Duration::ZERO) => self.wait_coarse(0, &mut buffer),
            Some(timeout) if timeout < FOREVER => self.wait_for(timeout, &mut buffer),
            _ => self.wait_coarse(-1, &mut buffer),
        };
        let count = match result {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        events.extend(buffer[..count].iter().map(|&raw| event(raw)).filter(|event| event.token != INTERRUPT));
        Ok(())
    }

    fn interrupt(&self) {
        loop {
            match rustix::io::write(&self.wake, &1_u64.to_ne_bytes()) {
                // A full counter, after 2^64 - 2 interrupts or one strange write: empty it.
                Err(rustix::io::Errno::AGAIN) => {
                    let mut count = [0; 8];
                    let _ = rustix::io::read(&self.wake, &mut count);
                }
                Err(rustix::io::Errno::INTR) => {}
                result => {
                    debug_assert!(result.is_ok(), "eventfd: {result:?}");
                    return;
                }
            }
        }
    }
}

#[cfg(all(test, not(mainspring_loom)))]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    use super::*;

    fn wait(epoll: &Epoll, timeout: Option<Duration>) -> Vec<Event> {
        let mut events = Vec::new();
        epoll.wait(timeout, &mut events).unwrap();
        events
    }

    fn now(epoll: &Epoll) -> Vec<Event> {
        wait(epoll, Some(Duration::ZERO))
    }

    fn pair() -> (UnixStream, UnixStream) {
        let (a, b) = UnixStream::pair().unwrap();
        a.set_nonblocking(true).unwrap();
        (a, b)
    }

    #[test]
    fn each_change_is_reported_once_and_what_is_ready_at_first_counts_as_one() {
        let epoll = Epoll::new().unwrap();
        let (mut a, mut b) = pair();
        epoll.add(a.as_fd(), 7).unwrap();
        assert_eq!(now(&epoll), [Event { token: 7, read: None, write: Some(Edge::Ready) }]);
        assert_eq!(now(&epoll), []);
        let readable = [Event { token: 7, read: Some(Edge::Ready), write: Some(Edge::Ready) }];
        b.write_all(b"x").unwrap();
        assert_eq!(now(&epoll), readable);
        assert_eq!(now(&epoll), [], "unread data is no new edge");
        b.write_all(b"y").unwrap();
        assert_eq!(now(&epoll), readable, "more data is one");
        assert_eq!(a.read(&mut [0; 8]).unwrap(), 2);
        assert_eq!(now(&epoll), []);
    }

    #[test]
    fn a_hang_up_is_the_last_edge_of_both_sides_and_a_half_close_of_one() {
        let epoll = Epoll::new().unwrap();
        let (a, b) = pair();
        epoll.add(a.as_fd(), 7).unwrap();
        b.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(now(&epoll), [Event { token: 7, read: Some(Edge::Last), write: Some(Edge::Ready) }]);
        drop(b);
        assert_eq!(now(&epoll), [Event { token: 7, read: Some(Edge::Last), write: Some(Edge::Last) }]);
    }

    #[test]
    fn urgent_data_is_as_good_as_the_last_edge_for_reading() {
        let epoll = Epoll::new().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let a = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (b, _) = listener.accept().unwrap();
        epoll.add(a.as_fd(), 7).unwrap();
        now(&epoll);
        rustix::net::send(&b, b"!", rustix::net::SendFlags::OOB).unwrap();
        let read: Vec<_> = wait(&epoll, None).iter().map(|event| event.read).collect();
        assert_eq!(read, [Some(Edge::Last)]);
    }

    #[test]
    fn a_removed_descriptor_is_silent_and_can_be_added_again() {
        let epoll = Epoll::new().unwrap();
        let (a, mut b) = pair();
        epoll.add(a.as_fd(), 7).unwrap();
        assert_eq!(epoll.add(a.as_fd(), 8).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        epoll.remove(a.as_fd()).unwrap();
        b.write_all(b"x").unwrap();
        assert_eq!(now(&epoll), []);
        epoll.add(a.as_fd(), 8).unwrap();
        assert_eq!(now(&epoll)[0].token, 8);
    }

    /// Waits a few times for each of some short times; none may end early, the fastest of each not
    /// later than `bound` after its time.
    fn check_timeouts(epoll: &Epoll, bound: Duration) {
        for timeout in [1, 50_000, 300_000, 1_200_000].map(Duration::from_nanos) {
            let late = (0..20).map(|_| {
                let start = Instant::now();
                assert_eq!(wait(epoll, Some(timeout)), []);
                let took = start.elapsed();
                assert!(took >= timeout, "{took:?} instead of {timeout:?}");
                took - timeout
            });
            let fastest = late.min().unwrap();
            assert!(fastest < bound, "{fastest:?} late after {timeout:?}");
        }
    }

    #[test]
    fn timeouts_are_exact_below_a_millisecond() {
        let epoll = Epoll::new().unwrap();
        check_timeouts(&epoll, Duration::from_millis(20));
        // With millisecond timeouts not one wait would be this short, on any machine.
        let short = || {
            let start = Instant::now();
            wait(&epoll, Some(Duration::from_micros(50)));
            start.elapsed() < Duration::from_micros(900)
        };
        assert!(epoll.coarse.load(Ordering::Relaxed) || (0..1_000).any(|_| short()));
    }

    #[test]
    fn without_epoll_pwait2_timeouts_are_rounded_up_to_milliseconds() {
        for error in [libc::ENOSYS, libc::ENOTSUP, libc::EPERM] {
            let mut epoll = Epoll::new().unwrap();
            epoll.refuse = Some(error);
            let start = Instant::now();
            wait(&epoll, Some(Duration::from_micros(1)));
            assert!(epoll.coarse.load(Ordering::Relaxed));
            assert!(start.elapsed() >= Duration::from_millis(1));
            check_timeouts(&epoll, Duration::from_millis(20));
        }
    }

    #[test]
    fn another_error_of_epoll_pwait2_is_reported_and_not_taken_for_a_missing_call() {
        let mut epoll = Epoll::new().unwrap();
        epoll.refuse = Some(libc::EBADF);
        let error = epoll.wait(Some(Duration::from_micros(1)), &mut Vec::new()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        epoll.refuse = Some(libc::EINTR);
        assert_eq!(wait(&epoll, Some(Duration::from_micros(1))), []);
        assert!(!epoll.coarse.load(Ordering::Relaxed));
    }

    #[test]
    fn milliseconds_are_rounded_up_and_saturate() {
        assert_eq!(milliseconds(Duration::from_nanos(1)), 1);
        assert_eq!(milliseconds(Duration::from_nanos(1_000_000)), 1);
        assert_eq!(milliseconds(Duration::from_nanos(1_000_001)), 2);
        assert_eq!(milliseconds(Duration::MAX), libc::c_int::MAX);
    }

    #[test]
    fn an_interrupt_ends_the_present_wait_or_the_next_whatever_its_timeout() {
        for timeout in [None, Some(Duration::MAX), Some(FOREVER - Duration::from_nanos(1))] {
            let epoll = Epoll::new().unwrap();
            epoll.interrupt();
            epoll.interrupt();
            assert_eq!(wait(&epoll, timeout), []);
            std::thread::scope(|scope| {
                scope.spawn(|| epoll.interrupt());
                assert_eq!(wait(&epoll, timeout), []);
            });
        }
    }

    #[test]
    fn a_full_counter_does_not_swallow_interrupts() {
        let epoll = Epoll::new().unwrap();
        rustix::io::write(&epoll.wake, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        now(&epoll);
        epoll.interrupt();
        assert_eq!(wait(&epoll, None), []);
    }
}
