//! Tasks: starting them, waiting for them, ending them.

mod join_set;
mod yield_now;

pub use self::join_set::JoinSet;
pub use self::yield_now::{YieldNow, yield_now};
pub use crate::sched::task::{AbortHandle, Id, JoinError, JoinHandle};
