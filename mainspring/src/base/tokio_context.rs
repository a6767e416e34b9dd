//! A tokio context for threads of ours: what code that insists on tokio's reactor finds there.
//!
//! One runtime of tokio's for the process, of the kind that runs on one thread, driven by a thread of its own,
//! which starts with the first runtime of ours and never ends: it sleeps in its own epoll while nobody uses it. Threads
//! enter it once, for their life or for that of a `block_on`, so it costs a poll nothing. A thread that is in
//! some other context of tokio's stays there. Knows nothing of tasks and runtimes of ours.
//!
//! Without the feature `tokio-compat`, and in models, all of this is nothing.

#[cfg(all(feature = "tokio-compat", not(mainspring_loom)))]
mod real {
    use std::future::pending;
    use std::io;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::OnceLock;

    use tokio::runtime::{Builder, EnterGuard, Handle};

    use crate::base::rank::{Rank, RankedMutex};

    static HANDLE: OnceLock<Handle> = OnceLock::new();

    /// Starts tokio's side if it has not been started. After an error the next call tries again.
    pub(crate) fn start() -> io::Result<()> {
        static STARTING: OnceLock<RankedMutex<()>> = OnceLock::new();
        if HANDLE.get().is_some() {
            return Ok(());
        }
        let _starting = STARTING.get_or_init(|| RankedMutex::new(Rank::Context, ())).lock();
        if HANDLE.get().is_some() {
            return Ok(());
        }
        let explain = |error: io::Error| {
            io::Error::new(error.kind(), format!("tokio's side (feature `tokio-compat`): {error}"))
        };
        let runtime = Builder::new_current_thread()
            .enable_all()
            .thread_name("mainspring-tokio-blocking")
            .build()
            .map_err(explain)?;
        let handle = runtime.handle().clone();
        let drive = move || {
            // The tasks' own panics are caught by tokio.
            let result = catch_unwind(AssertUnwindSafe(|| runtime.block_on(pending::<()>())));
            if result.is_err() {
                // To go on without it would be a hang.
                eprintln!("mainspring: a waker panicked in tokio's reactor, which does not survive that");
                std::process::abort();
            }
        };
        std::thread::Builder::new().name("mainspring-tokio".to_owned()).spawn(drive).map_err(explain)?;
        HANDLE.get_or_init(|| handle);
        Ok(())
    }

    /// Puts the thread into tokio's context until the guard is dropped, unless it is in one, or is ending.
    pub(crate) fn enter() -> Option<EnterGuard<'static>> {
        match Handle::try_current() {
            Err(error) if error.is_missing_context() => HANDLE.get().map(Handle::enter),
            _ => None,
        }
    }
}

#[cfg(not(all(feature = "tokio-compat", not(mainspring_loom))))]
mod real {
    use std::io;

    /// Stands for a guard.
    pub(crate) struct Nothing;

    pub(crate) fn start() -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn enter() -> Nothing {
        Nothing
    }
}

pub(crate) use real::{enter, start};
