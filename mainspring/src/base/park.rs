//! A thread's place to sleep: one token, given by anybody, taken by the owner.
//!
//! Not `std::thread::park`: user code shares that token, so a task that parks its thread could take
//! a wake-up that was ours.
//!
//! ```text
//!            unpark                     unpark (notifies)
//!  EMPTY ─────────────▶ NOTIFIED ◀───────────────────────── PARKED
//!    ▲                     │                                  ▲
//!    └──── park returns ───┘           EMPTY ── park sleeps ──┘
//! ```
//!
//! Invariant: a token given before or while the owner sleeps ends exactly one `park`; what was
//! written before `unpark` is seen after the `park` that took its token.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::primitive::Condvar;
use super::primitive::atomic::{AtomicU8, Ordering};
use super::rank::{Rank, RankedMutex};

const EMPTY: u8 = 0;
const PARKED: u8 = 1;
const NOTIFIED: u8 = 2;

#[derive(Debug)]
pub(crate) struct Parker {
    /// One of the three states. PARKED and back is written under the lock, NOTIFIED by anybody.
    state: AtomicU8,
    lock: RankedMutex<()>,
    condvar: Condvar,
}

impl Parker {
    pub(crate) fn new() -> Parker {
        Parker {
            state: AtomicU8::new(EMPTY),
            lock: RankedMutex::new(Rank::Parker, ()),
            condvar: Condvar::new(),
        }
    }

    /// Sleeps until there is a token, and takes it. Only the owner calls this.
    pub(crate) fn park(&self) {
        let taken = self.sleep(None);
        debug_assert!(taken);
    }

    /// Sleeps until there is a token or `timeout` is over; true if a token was taken.
    pub(crate) fn park_timeout(&self, timeout: Duration) -> bool {
        // A time that std cannot represent is as good as none.
        self.sleep(Instant::now().checked_add(timeout))
    }

    fn take_token(&self) -> bool {
        // ordering: Acquire, pairs with the Release swap in `unpark`.
        self.state.compare_exchange(NOTIFIED, EMPTY, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn sleep(&self, until: Option<Instant>) -> bool {
        if self.take_token() {
            return true;
        }
        let mut guard = self.lock.lock();
        // ordering: the failure load is Acquire, pairs with `unpark`.
        if self.state.compare_exchange(EMPTY, PARKED, Ordering::Relaxed, Ordering::Acquire).is_err() {
            drop(guard);
            return self.take_token();
        }
        loop {
            let mut timed_out = false;
            guard = guard.wait_with(|guard| match until {
                None => self.condvar.wait(guard).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    timed_out = left.is_zero();
                    let (guard, _) =
                        self.condvar.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner);
                    guard
                }
            });
            if self.take_token() {
                return true;
            }
            if timed_out {
                // ordering: Acquire, pairs with `unpark`: a token that came now counts.
                return self.state.swap(EMPTY, Ordering::Acquire) == NOTIFIED;
            }
        }
    }

    /// Gives the token; the owner is woken if it sleeps. Tokens do not add up.
    pub(crate) fn unpark(&self) {
        // ordering: Release, pairs with the Acquires in `sleep`.
        if self.state.swap(NOTIFIED, Ordering::Release) == PARKED {
            // The owner is between its PARKED and its wait, or waiting. Taking the lock makes sure
            // that it waits.
            drop(self.lock.lock());
            self.condvar.notify_one();
        }
    }
}

#[cfg(all(test, not(mainspring_loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn a_token_given_before_park_ends_it_at_once() {
        let parker = Parker::new();
        parker.unpark();
        parker.unpark();
        parker.park();
        assert!(!parker.park_timeout(Duration::ZERO), "two tokens are one");
    }

    #[test]
    fn a_timeout_passes_without_a_token_and_leaves_none() {
        let parker = Parker::new();
        assert!(!parker.park_timeout(Duration::from_millis(1)));
        parker.unpark();
        assert!(parker.park_timeout(Duration::MAX));
    }

    #[test]
    fn every_message_of_a_ping_pong_arrives() {
        let (a, b) = (Arc::new(Parker::new()), Arc::new(Parker::new()));
        let count = Arc::new(AtomicUsize::new(0));
        let other = std::thread::spawn({
            let (a, b, count) = (Arc::clone(&a), Arc::clone(&b), Arc::clone(&count));
            move || {
                for _ in 0..1_000 {
                    b.park();
                    count.fetch_add(1, Ordering::Relaxed);
                    a.unpark();
                }
            }
        });
        for n in 0..1_000 {
            assert_eq!(count.load(Ordering::Relaxed), n);
            b.unpark();
            a.park();
        }
        other.join().unwrap();
    }
}

#[cfg(all(test, mainspring_loom))]
mod loom_tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn loom_a_token_is_never_lost_and_carries_what_was_written() {
        loom::model(|| {
            let parker = Arc::new(Parker::new());
            let flag = Arc::new(loom::cell::UnsafeCell::new(false));
            let other = loom::thread::spawn({
                let (parker, flag) = (Arc::clone(&parker), Arc::clone(&flag));
                move || {
                    flag.with_mut(|flag| {
                        // SAFETY: the owner reads only after it has taken the token given below.
                        #[allow(unsafe_code)]
                        unsafe {
                            *flag = true;
                        }
                    });
                    parker.unpark();
                }
            });
            parker.park();
            // SAFETY: the writer wrote before it gave the token that was taken.
            #[allow(unsafe_code)]
            let seen = flag.with(|flag| unsafe { *flag });
            assert!(seen);
            other.join().unwrap();
        });
    }
}
