//! A cheap upper bound of the present, by the processor's time-stamp counter.
//!
//! Reading the system's clock costs 23 ns on the machine where this was measured, which is a third of what
//! arming and cancelling a timer takes; reading the counter costs 9. Most readings need not be exact. Whoever computes
//! the end of a duration may take a time that is some nanoseconds too late, and whoever asks whether a time has
//! come learns from an upper bound that it has *not*. So nothing is early, and the system's clock still
//! decides what has come.
//!
//! A thread keeps an *anchor*: the counter, and the system's clock read right after that. For
//! [`WINDOW`] cycles, some 25 us, the present is at most the anchor's time and what the counter has advanced
//! since, at a rate that is taken [`MARGIN`] too fast. That is more than the system's clock may be slewed (500
//! parts in a million) and than the rate's own error; it comes to 25 ns at the end of the window. Then the clock is
//! read again. A counter that jumps leaves the window, and one that disagrees with the clock is given up for good.
//!
//! The counter is used only if the kernel itself takes its time from it, which it does only after it has
//! found it synchronous on all processors. Elsewhere the answer is the system's clock.
//!
//! Invariant: `RATE` is what it says or a mark; it is no part of any protocol, and a value that is a little
//! old is as good.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::time::Duration;

use super::clock::{Tick, system_now};
use super::primitive::plain::{AtomicU64, Ordering};

/// How long an anchor holds, in cycles.
const WINDOW: u64 = 1 << 16;
/// By which part of itself the rate is too fast, as a power of two: a thousandth.
const MARGIN: u32 = 10;
/// The fraction of `RATE`, in bits.
const FRACTION: u32 = 32;
/// How long the counter is compared with the clock before the rate counts as known, in nanoseconds. The two
/// readings at each end are less than half a microsecond apart, so it is off by 50 parts in a million at most.
const TRIAL: u64 = 10_000_000;
/// Most cycles between the two readings of an anchor; else the thread was interrupted between them.
const TOGETHER: u64 = 1_000;
/// The bound is not later than this, for counters faster than a gigahertz and with room for slower ones: the two
/// readings of an anchor are a microsecond apart at most, and a window's margin is less than a tenth of one.
pub(super) const LATER_MAX: Duration = Duration::from_micros(2);

/// Nobody has looked whether the counter can be used.
const UNKNOWN: u64 = 0;
/// It is being compared with the clock.
const ON_TRIAL: u64 = 1;
/// It cannot be used.
const UNUSABLE: u64 = u64::MAX;

/// Nanoseconds a cycle in fixed point, or one of the marks.
static RATE: AtomicU64 = AtomicU64::new(UNKNOWN);
/// The anchor with which the trial began. Written once, before `RATE` says so.
static TRIAL_CYCLES: AtomicU64 = AtomicU64::new(0);
/// As above.
static TRIAL_NANOS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The counter and the clock, in nanoseconds; a counter of 0 for none.
    static ANCHOR: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// A time not before the present, and seldom more than 50 ns after it.
#[inline]
pub(crate) fn now_or_later() -> Tick {
    // ordering: Relaxed, no part of any protocol.
    let rate = RATE.load(Ordering::Relaxed);
    if rate == UNUSABLE || rate == UNKNOWN && !begin_trial() {
        return system_now();
    }
    let (cycles, nanos) = ANCHOR.try_with(Cell::get).unwrap_or_default();
    let passed = counter().wrapping_sub(cycles);
    if passed < WINDOW && rate > ON_TRIAL {
        // At most 2^16 times 2^42: it fits for all counters faster than a megahertz.
        return Tick::from_nanos(nanos + 1 + ((passed * rate) >> FRACTION));
    }
    anchor(rate)
}

/// Reads the clock, and makes it the thread's anchor.
#[cold]
fn anchor(rate: u64) -> Tick {
    let (before, now) = (counter(), system_now());
    if counter().wrapping_sub(before) > TOGETHER {
        return now;
    }
    let nanos = now.as_nanos();
    let former = ANCHOR.try_with(|anchor| anchor.replace((before, nanos))).unwrap_or_default();
    if rate > ON_TRIAL {
        let passed = before.wrapping_sub(former.0);
        // Not much longer than a window, so that the product fits.
        if passed < 16 * WINDOW && former.1 + ((passed * rate) >> FRACTION) + TOGETHER < nanos {
            // ordering: Relaxed, as in `now_or_later`.
            RATE.store(UNUSABLE, Ordering::Relaxed);
        }
    } else {
        end_trial(before, nanos);
    }
    now
}

/// Looks whether the counter can be used, and notes where the trial begins; false if it cannot.
#[cold]
fn begin_trial() -> bool {
    let mut mark = UNUSABLE;
    if is_trusted() {
        mark = ON_TRIAL;
        // ordering: Relaxed, the store of `RATE` publishes both.
        TRIAL_CYCLES.store(counter(), Ordering::Relaxed);
        TRIAL_NANOS.store(system_now().as_nanos(), Ordering::Relaxed);
    }
    // ordering: Release, pairs with `end_trial`. Several threads may begin at once. Whichever readings hold, the
    // clock was read after the counter, and a rate that is spoilt is found out by `anchor`.
    RATE.store(mark, Ordering::Release);
    mark == ON_TRIAL
}

/// Computes the rate once the trial has been long enough.
fn end_trial(cycles: u64, nanos: u64) {
    // ordering: Acquire, pairs with `begin_trial`.
    if RATE.load(Ordering::Acquire) != ON_TRIAL {
        return;
    }
    // ordering: Relaxed, this and the next were published by `RATE`.
    let cycles = cycles.wrapping_sub(TRIAL_CYCLES.load(Ordering::Relaxed));
    let nanos = nanos.saturating_sub(TRIAL_NANOS.load(Ordering::Relaxed));
    if nanos < TRIAL {
        return;
    }
    let exact = (u128::from(nanos) << FRACTION) / u128::from(cycles.max(1));
    let rate = exact + (exact >> MARGIN);
    // From a hundred kilohertz to a hundred gigahertz; anything else is no counter of cycles.
    let rate =
        u64::try_from(rate).ok().filter(|rate| (1 << (FRACTION - 7)..1 << (FRACTION + 10)).contains(rate));
    // ordering: Relaxed, as in `now_or_later`.
    RATE.store(rate.unwrap_or(UNUSABLE), Ordering::Relaxed);
}

/// Whether the kernel takes its own time from the counter.
fn is_trusted() -> bool {
    let source = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    cfg!(target_arch = "x86_64") && std::fs::read_to_string(source).is_ok_and(|source| source.trim() == "tsc")
}

#[cfg(target_arch = "x86_64")]
fn counter() -> u64 {
    // SAFETY: the instruction must exist and be allowed. Every processor of this architecture has it, and a
    // kernel that takes its time from it (`is_trusted` has asked) reads it in the program itself, so that a
    // program to which it is forbidden could not read the clock either.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
fn counter() -> u64 {
    0
}

#[cfg(all(test, not(mainspring_loom)))]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Asks until the trial is over; false if the counter cannot be used here.
    fn try_out() -> bool {
        let start = Instant::now();
        while RATE.load(Ordering::Relaxed) <= ON_TRIAL {
            now_or_later();
            assert!(start.elapsed() < Duration::from_secs(10), "the trial has no end");
        }
        RATE.load(Ordering::Relaxed) != UNUSABLE
    }

    #[test]
    fn the_bound_is_never_before_the_clock_on_any_thread() {
        try_out();
        let check = || {
            let mut together = 0;
            for n in 0..200_000_u32 {
                let before = system_now();
                let bound = now_or_later();
                assert!(before <= bound, "{before:?} was before, and {bound:?} is the bound");
                let after = system_now();
                // Unless the thread was interrupted in between.
                together += u32::from(bound <= after.saturating_add(Duration::from_nanos(100)));
                if n % 1_000 == 0 {
                    std::thread::yield_now();
                }
            }
            assert!(together > 100_000, "the bound is not close");
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(check);
            }
        });
        // Nor was the counter given up meanwhile.
        assert_eq!(try_out(), is_trusted());
    }

    #[test]
    fn a_thread_that_slept_longer_than_the_window_reads_the_clock() {
        try_out();
        for _ in 0..20 {
            now_or_later();
            std::thread::sleep(Duration::from_millis(1));
            let before = system_now();
            assert!(before <= now_or_later());
        }
    }
}
