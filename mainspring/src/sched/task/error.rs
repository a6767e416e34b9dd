//! Why a task gave no result.

use std::any::Any;
use std::fmt;
use std::io;

use super::Id;
use crate::base::primitive::Mutex;

/// A task ended without a result: it was cancelled, or it panicked.
///
/// # Examples
///
/// ```
/// # mainspring::block_on(async {
/// let task = mainspring::spawn(std::future::pending::<()>());
/// task.abort();
/// assert!(task.await.unwrap_err().is_cancelled());
///
/// let task = mainspring::spawn(async { panic!("on purpose") });
/// let error = task.await.unwrap_err();
/// assert_eq!(*error.into_panic().downcast_ref::<&str>().unwrap(), "on purpose");
/// # });
/// ```
pub struct JoinError {
    id: Id,
    cause: Cause,
}

enum Cause {
    Cancelled,
    /// The mutex is never locked: it makes the payload `Sync`, which errors are expected to be. The box keeps every task
    /// small, which has room for this.
    Panic(Box<Mutex<Box<dyn Any + Send>>>),
}

impl JoinError {
    pub(crate) fn cancelled(id: Id) -> JoinError {
        JoinError { id, cause: Cause::Cancelled }
    }

    pub(crate) fn panic(id: Id, payload: Box<dyn Any + Send>) -> JoinError {
        JoinError { id, cause: Cause::Panic(Box::new(Mutex::new(payload))) }
    }

    /// Whether the task was aborted, or its runtime was dropped or shut down.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.cause, Cause::Cancelled)
    }

    /// Whether the task panicked.
    pub fn is_panic(&self) -> bool {
        matches!(self.cause, Cause::Panic(_))
    }

    /// What the task panicked with, for [`std::panic::resume_unwind`] or a downcast.
    ///
    /// # Panics
    ///
    /// If the task was cancelled.
    #[track_caller]
    pub fn into_panic(self) -> Box<dyn Any + Send> {
        match self.try_into_panic() {
            Ok(payload) => payload,
            Err(error) => panic!("{error}, it did not panic"),
        }
    }

    /// What the task panicked with.
    ///
    /// # Errors
    ///
    /// The error itself, if the task was cancelled.
    pub fn try_into_panic(self) -> Result<Box<dyn Any + Send>, JoinError> {
        match self.cause {
            Cause::Panic(payload) => {
                Ok(payload.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
            }
            Cause::Cancelled => Err(self),
        }
    }

    /// The task that ended so.
    pub fn id(&self) -> Id {
        self.id
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            Cause::Cancelled => write!(f, "task {} was cancelled", self.id),
            Cause::Panic(_) => write!(f, "task {} panicked", self.id),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = if self.is_cancelled() { "Cancelled" } else { "Panic" };
        write!(f, "JoinError::{cause}({})", self.id)
    }
}

impl std::error::Error for JoinError {}

impl From<JoinError> for io::Error {
    fn from(error: JoinError) -> io::Error {
        io::Error::other(error)
    }
}
