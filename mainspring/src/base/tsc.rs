//! A cheap upper bound of the present, by the processor's time-stamp counter.
//!
//! Reading the system's clock costs 23 ns on the machine where this was measured, and arming and cancelling a
//! timer takes 48 in all; reading the counter costs 9. Most readings need not be exact. Whoever computes
//! the end of a duration may take a time that is a little too late, and whoever asks whether a time has
//! come learns from an upper bound that it has *not*. That it has is for the system's clock alone to say.
//!
//! A thread keeps an *anchor*: the counter, and the system's clock read right after that. For
//! [`WINDOW`] cycles, some 3 us, the present is at most the anchor's time and what the counter has advanced
//! since, at a rate that is taken by a quarter too fast: so far, at most, may two rates of a clock be apart that is
//! being set right (Linux allows a tenth in either direction). Then the clock is read again. The price is a bound that
//! is late by 0.8 us at the end of a window, a few hundredths of what waking up takes. A thread's next window begins with
//! that bound, so that what a thread is told never goes back: of two timers that it arms one after the other with the
//! same duration, the first one comes first.
//!
//! The counter is used only if the kernel, when it is first asked, takes its own time from it, which it does only after
//! it has found it synchronous on all processors. Elsewhere, and as long as the rate is not known, the answer is
//! the system's clock. When a thread renews an anchor that is not old, it compares the clock with the bound for the same
//! moment; a counter that does not fit is given up for good.
//!
//! What is left: the counter is not read in order with older loads. A processor that waits for another one's cache line
//! may run ahead and read it before a clock reading that it then learns of. The bound is [`AHEAD`] later than it would
//! have to be, which is what such a load commonly takes; a longer one makes a duration as much shorter as it was late.
//!
//! Not through a crate: those that read the counter (quanta, minstant) calibrate it once and give an estimate of the
//! time. This needs a bound that holds, and no more than one instruction.
//!
//! # How the rate becomes known
//!
//! ```text
//!                                           ┌── took too long ──────────────────┐
//!                                           ▼                                    │
//! UNKNOWN ── begin: one thread ──▶ STARTING ── a first pair is stored ──▶ ON_TRIAL ── 10 ms later ──▶ the rate
//!    │                                                                      │                          │
//!    └── the kernel does not trust the counter ──▶ UNUSABLE ◀── implausible ┴──────── does not fit ────┘
//! ```
//!
//! A *pair* is the counter and the clock, read so close to one another that nothing can have come between. Only the thread
//! that made STARTING stores a first one, and nobody reads it before ON_TRIAL. A trial that takes longer than
//! it should, by the clock or by the counter, may have seen the machine asleep, in which the one stands still and the other
//! may not: it begins anew.
//!
//! Invariant: a rate is a quarter faster than the counter was during its trial, to a few ten-thousandths. It takes no
//! part in any protocol, and one that was read a little earlier is as good.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::time::Duration;

use super::clock::{Tick, system_now};
use super::primitive::plain::{AtomicU64, Ordering};

/// How long an anchor holds, in cycles.
const WINDOW: u64 = 1 << 13;
/// By which part of itself the rate is too fast, as a power of two.
const MARGIN: u32 = 2;
/// The fraction of `RATE`, in bits.
const FRACTION: u32 = 32;
/// How long the counter is compared with the clock before the rate counts as known.
const TRIAL: Duration = Duration::from_millis(10);
/// And how long at most, by the clock; and by the counter, in cycles: some seconds.
const TRIAL_MAX: Duration = Duration::from_secs(1);
/// As above.
const TRIAL_CYCLES_MAX: u64 = 1 << 34;
/// How far a processor commonly runs ahead at most when it reads the counter, in nanoseconds: past a load that waits for what
/// another one has just written, at a time that this one has read before. The clock has a fence against it, which
/// would cost 14 ns at each reading here; a bound that is as much later as such a load takes costs nothing.
const AHEAD: u64 = 100;
/// Most cycles between two readings of the counter with one of the clock in between; else the thread was interrupted,
/// and they are no pair.
const TOGETHER: u64 = 1_000;

/// Nobody has looked whether the counter can be used.
const UNKNOWN: u64 = 0;
/// A thread looks, and takes the first pair.
const STARTING: u64 = 1;
/// The first pair is there.
const ON_TRIAL: u64 = 2;
/// It cannot be used.
const UNUSABLE: u64 = u64::MAX;

/// Nanoseconds a cycle in fixed point, or one of the marks.
static RATE: AtomicU64 = AtomicU64::new(UNKNOWN);
/// The pair with which the trial began: the counter. Written in STARTING, read from ON_TRIAL on.
static TRIAL_CYCLES: AtomicU64 = AtomicU64::new(0);
/// And the clock.
static TRIAL_NANOS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The last pair of this thread; a counter of 0 for none.
    static ANCHOR: Cell<Pair> = const { Cell::new(Pair::NONE) };
}

/// The counter, and then the clock.
#[derive(Clone, Copy)]
struct Pair {
    cycles: u64,
    nanos: u64,
    /// How many cycles after the first reading the second one was over.
    gap: u64,
    /// No bound may be before this: the thread may have been told it already.
    floor: u64,
}

impl Pair {
    const NONE: Pair = Pair { cycles: 0, nanos: 0, gap: 0, floor: 0 };

    /// The clock is read in any case; there is no pair if the thread was interrupted meanwhile.
    fn take() -> (Tick, Option<Pair>) {
        let cycles = counter();
        let now = system_now();
        let gap = counter().wrapping_sub(cycles);
        (now, (gap < TOGETHER).then_some(Pair { cycles, nanos: now.as_nanos(), gap, floor: 0 }))
    }

    /// The bound for a moment that is `passed` cycles after the first reading.
    fn bound(&self, passed: u64, rate: u64) -> u64 {
        // A window or few times 2^34: it fits.
        self.floor.max(self.nanos + AHEAD + ((passed * rate) >> FRACTION))
    }
}

/// A time not before the present, and seldom more than a microsecond after it.
#[inline]
pub(crate) fn now_or_later() -> Tick {
    // ordering: Relaxed, no part of any protocol.
    let rate = RATE.load(Ordering::Relaxed);
    if rate > ON_TRIAL && rate != UNUSABLE {
        let anchor = ANCHOR.try_with(Cell::get).unwrap_or(Pair::NONE);
        let passed = counter().wrapping_sub(anchor.cycles);
        if passed < WINDOW && anchor.cycles != 0 {
            return Tick::from_nanos(anchor.bound(passed, rate));
        }
    }
    now_without_anchor(rate)
}

/// Reads the clock, and does what there is to do with the counter at that.
#[cold]
fn now_without_anchor(rate: u64) -> Tick {
    match rate {
        UNKNOWN => begin(),
        STARTING | UNUSABLE => {}
        _ => return renew_anchor(rate),
    }
    system_now()
}

/// Reads the clock, makes it the thread's anchor, and sees whether the counter fits it.
fn renew_anchor(rate: u64) -> Tick {
    let (now, pair) = Pair::take();
    let former = ANCHOR.try_with(Cell::get).ok().filter(|former| former.cycles != 0);
    if rate == ON_TRIAL {
        if let Some(pair) = pair {
            end_trial(&pair);
            let _ = ANCHOR.try_with(|anchor| anchor.set(pair));
        }
        return now;
    }
    // The last bound of the former window, or one before the present.
    let floor = former.map_or(0, |former| former.bound(WINDOW - 1, rate));
    if let Some(pair) = pair {
        if let Some(former) = former {
            // Within few windows, so that all fits, and no process was stopped meanwhile.
            let passed = pair.cycles.wrapping_sub(former.cycles);
            if passed < 16 * WINDOW && !fits(&former, &pair, passed, rate) {
                // ordering: Relaxed, as in `now_or_later`.
                RATE.store(UNUSABLE, Ordering::Relaxed);
            }
        }
        let _ = ANCHOR.try_with(|anchor| anchor.set(Pair { floor, ..pair }));
    }
    now.max(Tick::from_nanos(floor))
}

/// Whether the clock, `passed` cycles after `former`, is where the counter says, up to the margin.
fn fits(former: &Pair, pair: &Pair, passed: u64, rate: u64) -> bool {
    // The clock was read after `passed` and at most `gap` cycles later.
    let latest = former.bound(passed + pair.gap, rate);
    // Five eighths of the rate are a fifth less than the counter was, and a bit; and without what lay between the
    // readings of the former pair.
    let slow = rate / 8 * 5;
    let earliest = former.nanos + ((passed.saturating_sub(former.gap) * slow) >> FRACTION);
    (earliest..=latest).contains(&pair.nanos)
}

/// Looks whether the counter can be used, and if so begins its trial, unless another thread does.
fn begin() {
    // ordering: Relaxed, it decides which thread stores the first pair, and that one publishes it.
    if RATE.compare_exchange(UNKNOWN, STARTING, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
        begin_trial(is_trusted().then(|| (0..100).find_map(|_| Pair::take().1)).flatten());
    }
}

/// Begins a trial, in STARTING. Without a pair the counter cannot be used.
fn begin_trial(pair: Option<Pair>) {
    if let Some(pair) = pair {
        // ordering: Relaxed, the store of `RATE` publishes both.
        TRIAL_CYCLES.store(pair.cycles, Ordering::Relaxed);
        TRIAL_NANOS.store(pair.nanos, Ordering::Relaxed);
    }
    // ordering: Release, pairs with `end_trial`.
    RATE.store(if pair.is_some() { ON_TRIAL } else { UNUSABLE }, Ordering::Release);
}

/// Computes the rate once the trial has been long enough.
fn end_trial(pair: &Pair) {
    // ordering: Acquire, pairs with `begin_trial`.
    if RATE.load(Ordering::Acquire) != ON_TRIAL {
        return;
    }
    // ordering: Relaxed, this and the next were published by `RATE`.
    let cycles = pair.cycles.wrapping_sub(TRIAL_CYCLES.load(Ordering::Relaxed));
    let took = Duration::from_nanos(pair.nanos.saturating_sub(TRIAL_NANOS.load(Ordering::Relaxed)));
    if took < TRIAL {
        return;
    }
    if took > TRIAL_MAX || cycles > TRIAL_CYCLES_MAX {
        // ordering: Relaxed, as in `begin`.
        if RATE.compare_exchange(ON_TRIAL, STARTING, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            begin_trial(Some(*pair));
        }
        return;
    }
    let rate = rate_of(cycles, took).unwrap_or(UNUSABLE);
    // ordering: Relaxed, as in `now_or_later`. Of several threads that are here at once, the first one's counts.
    let _ = RATE.compare_exchange(ON_TRIAL, rate, Ordering::Relaxed, Ordering::Relaxed);
}

/// The rate of a counter that has counted so many cycles, with the margin. `None` if it is no counter of cycles, or too
/// slow for the window.
fn rate_of(cycles: u64, took: Duration) -> Option<u64> {
    let exact = (took.as_nanos() << FRACTION) / u128::from(cycles.max(1));
    let rate = u64::try_from(exact + (exact >> MARGIN)).ok()?;
    // From half a gigahertz to a hundred.
    (1 << (FRACTION - 7)..=5 << (FRACTION - 1)).contains(&rate).then_some(rate)
}

/// Whether the kernel takes its own time from the counter.
fn is_trusted() -> bool {
    let source = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    cfg!(target_arch = "x86_64") && std::fs::read_to_string(source).is_ok_and(|source| source.trim() == "tsc")
}

#[cfg(target_arch = "x86_64")]
fn counter() -> u64 {
    // SAFETY: the instruction must exist: every processor of this architecture has it. It touches no memory. (A
    // program that asked the kernel to forbid it is ended by a signal.)
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
        let usable = try_out();
        let check = || {
            let mut together = 0;
            for n in 0..200_000_u32 {
                let before = system_now();
                let bound = now_or_later();
                assert!(before <= bound, "{before:?} was before, and {bound:?} is the bound");
                let after = system_now();
                // Unless the thread was interrupted in between.
                together += u32::from(bound <= after.saturating_add(Duration::from_micros(1)));
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
        assert_eq!(try_out(), usable, "it was given up meanwhile");
    }

    #[test]
    fn what_a_thread_is_told_never_goes_back() {
        try_out();
        let mut before = now_or_later();
        for n in 0..1_000_000 {
            let bound = now_or_later();
            assert!(before <= bound, "{before:?}, then {bound:?}, at the {n}th");
            before = bound;
        }
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

    #[test]
    fn a_clock_that_is_slewed_by_a_tenth_fits_and_one_that_jumps_does_not() {
        // Half a nanosecond a cycle.
        let rate = (1_u64 << 31) + (1 << (31 - MARGIN));
        let former = Pair { cycles: 1_000, nanos: 5_000, gap: 40, floor: 0 };
        let at = |nanos| Pair { cycles: 1_000 + WINDOW, nanos, gap: 40, floor: 0 };
        let window = WINDOW / 2;
        for nanos in [window, window * 12 / 10, window * 82 / 100] {
            assert!(fits(&former, &at(5_000 + nanos), WINDOW, rate), "{nanos}");
        }
        for nanos in [0, window * 7 / 10, window * 14 / 10, 2 * window] {
            assert!(!fits(&former, &at(5_000 + nanos), WINDOW, rate), "{nanos}");
        }
    }

    #[test]
    fn a_rate_is_a_quarter_too_fast_and_what_is_no_counter_of_cycles_has_none() {
        let took = Duration::from_millis(10);
        // A gigahertz.
        assert_eq!(rate_of(10_000_000, took), Some(5 << (FRACTION - 2)));
        assert!(rate_of(5_000_000, took).is_some());
        for cycles in [0, 1, 240_000, 4_900_000, 1 << 40] {
            assert_eq!(rate_of(cycles, took), None, "{cycles}");
        }
    }
}
