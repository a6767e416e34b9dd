//! Time: sleeping, timeouts, intervals, and functions that run later.
//!
//! All of it has the resolution of the machine's monotonic clock, nanoseconds, and nothing ever
//! happens early. Times saturate: [`Duration::MAX`] means never, and no duration panics.

mod function;
mod instant;
mod interval;
mod sleep;
mod timeout;

pub use std::time::Duration;

pub use self::function::{StopAndWait, Timer, WaitsForItself, after_func, every};
pub use self::instant::Instant;
pub use self::interval::{Interval, MissedTickBehavior, interval, interval_at};
pub use self::sleep::{Sleep, sleep, sleep_until};
pub use self::timeout::{Elapsed, Timeout, timeout, timeout_at};
