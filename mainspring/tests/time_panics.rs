//! What panics in `time` is a mistake of the caller's, and the message names the caller's line. Alone in its program
//! for the sake of the panic hook.

use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::Mutex;

use mainspring::time::{Duration, Instant, every, interval, interval_at};

/// Where the last panic happened, by its hook.
static PLACE: Mutex<Option<(String, u32)>> = Mutex::new(None);

/// Checks that this panics at the line on which it is called.
#[track_caller]
fn panics_here(mistake: impl FnOnce()) {
    catch_unwind(AssertUnwindSafe(mistake)).expect_err("a mistake that is not noticed");
    let here = (Location::caller().file().to_owned(), Location::caller().line());
    assert_eq!(PLACE.lock().unwrap().take(), Some(here));
}

#[test]
fn a_period_of_nothing_is_refused_where_it_is_given() {
    std::panic::set_hook(Box::new(|info| {
        if let Some(at) = info.location() {
            *PLACE.lock().unwrap() = Some((at.file().to_owned(), at.line()));
        }
    }));
    panics_here(|| drop(interval(Duration::ZERO)));
    panics_here(|| drop(interval_at(Instant::now() - Duration::from_secs(1), Duration::ZERO)));
    panics_here(|| drop(every(Duration::ZERO, || {})));
    let timer = every(Duration::from_secs(3600), || {});
    panics_here(|| _ = timer.reset(Duration::ZERO));
    // And nothing has changed by that, nor is any lock held.
    let pending = timer.reset(Duration::from_secs(3600)) && timer.stop();
    let _ = std::panic::take_hook();
    assert!(pending);
}
