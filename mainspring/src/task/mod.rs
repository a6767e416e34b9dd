//! Tasks: starting them, waiting for them, ending them.

mod builder;
mod join_set;
mod yield_now;

pub use self::builder::Builder;
pub use self::join_set::JoinSet;
pub use self::yield_now::{YieldNow, consume_budget, yield_now};
pub use crate::sched::task::{AbortHandle, Id, JoinError, JoinHandle};
// Where tokio has them as well.
#[doc(no_inline)]
pub use crate::{spawn, spawn_blocking};
