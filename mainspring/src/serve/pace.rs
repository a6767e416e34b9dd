//! How often accepting may fail. Knows nothing of listeners, and sleeps nowhere: it says until when to.
//!
//! A listener that fails because the system has nothing to give may fail again at once, so someone has to wait. Those of
//! this runtime do by themselves; one of the user's need not. So the server does not pause after an error, but sees to
//! it that errors keep a distance: where the listener has waited, that is part of it, and nobody waits twice.
//!
//! Invariant: between two errors with no connection in between there are at least 5 ms, and twice as long after each
//! further one, up to 1 s. (The numbers of Go's `net/http`, which pauses always.) The first one costs nothing.

use std::time::Duration;

use crate::time::Instant;

const SHORTEST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_secs(1);

/// One listener's errors.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When the next error may come, and the distance to the last one. `None` if that was before a connection.
    next: Option<(Instant, Duration)>,
}

impl Pace {
    /// A connection was accepted.
    pub(super) fn accepted(&mut self) {
        self.next = None;
    }

    /// Accepting has failed at `now`. If that was too early, accepting has to wait until the time that is returned.
    pub(super) fn failed(&mut self, now: Instant) -> Option<Instant> {
        let (from, distance) = match self.next {
            None => (now, SHORTEST),
            Some((due, distance)) => (due.max(now), (2 * distance).min(LONGEST)),
        };
        self.next = Some((from + distance, distance));
        (from > now).then_some(from)
    }
}

#[cfg(all(test, not(mainspring_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_listener_that_fails_at_once_fails_ever_less_often() {
        let (start, mut pace) = (Instant::now(), Pace::default());
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..11 {
            let next = pace.failed(now).unwrap_or(now);
            waits.push((next - now).as_millis());
            now = next;
        }
        assert_eq!(waits, [0, 5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        pace.accepted();
        assert_eq!(pace.failed(now), None);
        assert_eq!(pace.failed(now), Some(now + SHORTEST));
    }

    #[test]
    fn a_listener_that_pauses_by_itself_does_not_wait_twice() {
        let (mut now, mut pace) = (Instant::now(), Pace::default());
        let mut own = SHORTEST;
        for _ in 0..20 {
            assert_eq!(pace.failed(now), None);
            now += own;
            own = (2 * own).min(LONGEST);
        }
        // Where its pause is shorter than it should be, the rest is waited for.
        assert_eq!(pace.failed(now - Duration::from_millis(100)), Some(now));
    }
}
