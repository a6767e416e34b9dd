//! An alarm: one thread sleeps for good, and any other can tell it to wake up *later*.
//!
//! To wake the thread now, so that it sleeps once more with a limit, would be a wake-up and two switches for each
//! new time, and most times never come, since a later call sets them anew. Here setting the time is one system call,
//! and nobody wakes up before it has come. It is a timerfd that the one thread reads. The kernel's timer for it is
//! exact: the slack of neither thread is added.
//!
//! Knows nothing of who waits and what for. There is no clock in it that could be moved by hand.
//!
//! ```text
//!                  set(Some)           the time comes           wait reads
//!     DISARMED ────────────────▶ ARMED ────────────────▶ OFF ────────────────▶ DISARMED
//!        ▲                        │ ▲                    │ │
//!        │                        │ └───── set(Some) ────┘ │
//!        └────── set(None) ───────┴─────── set(None) ──────┘
//! ```
//!
//! * What was set before `wait` is kept for it.
//! * Once off, it ends one `wait`, and no second one before it is set again.
//! * Each `set` replaces all that was before. That includes an alarm that has gone off and has not been read, even if
//!   the thread in `wait` is being woken by it: it goes back to sleep until the new time, or for good. So whoever
//!   sets a later time, or none, must have made sure that nothing is left to do before then.
//!
//! No memory is published by it: what the thread is to see after `wait` needs a protocol of its own.

#[cfg(not(mainspring_loom))]
mod real {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use rustix::io::{read, retry_on_intr};
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };

    /// Longer durations are taken for this one, 68 years: it is what a kernel with seconds of 32 bits takes, and
    /// far inside of what the others can add to their clock.
    pub(super) const LONGEST: Duration = Duration::from_secs(i32::MAX as u64);

    /// How long a `wait` that cannot wait takes instead.
    const PAUSE: Duration = Duration::from_millis(1);

    #[derive(Debug)]
    pub(crate) struct Alarm {
        pub(super) timer: OwnedFd,
    }

    impl Alarm {
        /// An alarm that is not set.
        ///
        /// # Errors
        ///
        /// If there is no descriptor left, or something (a filter of system calls) forbids timerfds.
        pub(crate) fn new() -> io::Result<Alarm> {
            let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
            let alarm = Alarm { timer };
            // It changes nothing. If setting is forbidden, this is where it is said.
            alarm.try_set(None)?;
            Ok(alarm)
        }

        /// Makes it go off once, `after` from now; at once for zero, never for `None`. Replaces what was set, and
        /// takes back an alarm that has gone off and has not been waited for.
        pub(crate) fn set(&self, after: Option<Duration>) {
            let result = self.try_set(after);
            // Its errors are for wrong descriptors, addresses, numbers and flags.
            debug_assert!(result.is_ok(), "{result:?}");
        }

        fn try_set(&self, after: Option<Duration>) -> io::Result<()> {
            // For the kernel, zero is never.
            let value = after.map_or(Duration::ZERO, |after| after.clamp(Duration::from_nanos(1), LONGEST));
            let times = Itimerspec {
                it_interval: timespec(Duration::ZERO),
                // It cannot fail: no longer than LONGEST.
                it_value: timespec(value),
            };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &times)?;
            Ok(())
        }

        /// Sleeps until it goes off. For one thread at a time: of several, one would return.
        ///
        /// It returns early, after a millisecond, if the kernel does not let the timer be read. That is not known to
        /// happen, but the caller must look whether there is something to do, and not take the time for over.
        pub(crate) fn wait(&self) {
            let mut count = [0; size_of::<u64>()];
            if retry_on_intr(|| read(&self.timer, &mut count)).is_err() {
                // Whoever waits in a loop must not spin.
                std::thread::sleep(PAUSE);
            }
        }
    }

    fn timespec(duration: Duration) -> Timespec {
        Timespec {
            tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: duration.subsec_nanos().into(),
        }
    }
}

#[cfg(mainspring_loom)]
mod real {
    use std::io;
    use std::sync::PoisonError;
    use std::time::Duration;

    use crate::base::primitive::{Condvar, Mutex};

    /// The alarm of the models, which have no time: any time that is set has come at once.
    #[derive(Debug)]
    pub(crate) struct Alarm {
        /// A plain lock: it stands for one inside of the kernel, and is no part of the order of ours.
        off: Mutex<bool>,
        changed: Condvar,
    }

    impl Alarm {
        pub(crate) fn new() -> io::Result<Alarm> {
            Ok(Alarm { off: Mutex::new(false), changed: Condvar::new() })
        }

        pub(crate) fn set(&self, after: Option<Duration>) {
            *self.off.lock().unwrap_or_else(PoisonError::into_inner) = after.is_some();
            if after.is_some() {
                self.changed.notify_one();
            }
        }

        pub(crate) fn wait(&self) {
            let mut off = self.off.lock().unwrap_or_else(PoisonError::into_inner);
            while !*off {
                off = self.changed.wait(off).unwrap_or_else(PoisonError::into_inner);
            }
            *off = false;
        }

        /// Whether a `wait` would end at once.
        #[cfg(test)]
        pub(crate) fn is_off(&self) -> bool {
            *self.off.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

pub(crate) use real::Alarm;

#[cfg(all(test, not(mainspring_loom)))]
mod tests {
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::time::timerfd_gettime;

    use super::real::LONGEST;
    use super::*;
    use crate::base::thread_probe::{Probe, ThreadId};

    const HOUR: Duration = Duration::from_secs(3_600);

    /// Whether it is off now, or is within `limit`. Does not consume it.
    fn is_off(alarm: &Alarm, limit: Duration) -> bool {
        let limit = Timespec::try_from(limit).unwrap();
        let mut descriptors = [PollFd::new(&alarm.timer, PollFlags::IN)];
        poll(&mut descriptors, Some(&limit)).unwrap() == 1
    }

    /// The time that is left, zero if it is disarmed or off.
    fn left(alarm: &Alarm) -> Duration {
        timerfd_gettime(&alarm.timer).unwrap().it_value.try_into().unwrap()
    }

    #[test]
    fn it_goes_off_not_before_its_time() {
        let alarm = Alarm::new().unwrap();
        for after in [0, 1, 1_000, 1_000_000, 5_000_000].map(Duration::from_nanos) {
            let start = Instant::now();
            alarm.set(Some(after));
            alarm.wait();
            assert!(start.elapsed() >= after, "{after:?}");
        }
    }

    #[test]
    fn what_was_set_before_is_kept_and_ends_one_wait() {
        let alarm = Alarm::new().unwrap();
        assert!(!is_off(&alarm, Duration::ZERO), "a new one is not set");
        alarm.set(Some(Duration::ZERO));
        assert!(is_off(&alarm, HOUR));
        alarm.wait();
        assert!(!is_off(&alarm, Duration::ZERO), "it has been read");
        assert_eq!(left(&alarm), Duration::ZERO, "and does not go off again");
    }

    #[test]
    fn an_earlier_time_set_by_another_thread_wakes_the_one_that_waits() {
        let alarm = Alarm::new().unwrap();
        alarm.set(Some(HOUR));
        let (sender, receiver) = mpsc::channel();
        let start = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                sender.send(ThreadId::current()).unwrap();
                alarm.wait();
            });
            let mut probe = Probe::new(receiver.recv().unwrap());
            // So that it waits in the kernel, as far as that can be told here.
            while probe.asleep() == Some(false) {
                std::thread::yield_now();
            }
            alarm.set(Some(Duration::from_micros(1)));
        });
        assert!(start.elapsed() < HOUR);
    }

    #[test]
    fn setting_none_takes_back_what_was_set_and_what_has_gone_off() {
        let alarm = Alarm::new().unwrap();
        alarm.set(Some(HOUR));
        assert!(left(&alarm) > HOUR / 2);
        alarm.set(None);
        assert_eq!(left(&alarm), Duration::ZERO);
        assert!(!is_off(&alarm, Duration::ZERO));

        alarm.set(Some(Duration::ZERO));
        assert!(is_off(&alarm, HOUR));
        alarm.set(None);
        assert!(!is_off(&alarm, Duration::ZERO));

        // And it can be set again after that.
        alarm.set(Some(Duration::from_nanos(1)));
        alarm.wait();
    }

    #[test]
    fn a_later_time_takes_back_an_alarm_that_has_gone_off() {
        let alarm = Alarm::new().unwrap();
        alarm.set(Some(Duration::ZERO));
        assert!(is_off(&alarm, HOUR));
        alarm.set(Some(HOUR));
        assert!(!is_off(&alarm, Duration::ZERO));
        assert!(left(&alarm) > HOUR / 2);
    }

    #[test]
    fn a_time_that_is_too_long_for_the_kernel_is_as_good_as_never() {
        let alarm = Alarm::new().unwrap();
        for after in [LONGEST, LONGEST + Duration::from_nanos(1), Duration::from_secs(1 << 62), Duration::MAX]
        {
            alarm.set(Some(after));
            assert!(!is_off(&alarm, Duration::ZERO), "{after:?}");
            assert!((LONGEST - HOUR..=LONGEST).contains(&left(&alarm)), "{after:?}");
        }
    }
}

#[cfg(all(test, mainspring_loom))]
mod loom_tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn loom_an_alarm_that_is_set_ends_one_wait_before_or_during_it() {
        loom::model(|| {
            let alarm = Arc::new(Alarm::new().unwrap());
            let other = loom::thread::spawn({
                let alarm = Arc::clone(&alarm);
                move || {
                    alarm.set(None);
                    alarm.set(Some(Duration::from_secs(1)));
                }
            });
            alarm.wait();
            other.join().unwrap();
        });
    }

    #[test]
    #[should_panic = "deadlock"]
    fn loom_an_alarm_that_is_taken_back_ends_none() {
        loom::model(|| {
            let alarm = Alarm::new().unwrap();
            alarm.set(Some(Duration::ZERO));
            alarm.set(None);
            alarm.wait();
        });
    }
}
