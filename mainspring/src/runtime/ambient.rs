//! The ambient runtime: the process-wide one that starts when something needs a runtime and there is
//! none, so that nothing ever fails for want of one.

use std::sync::{Arc, OnceLock};

use super::{Builder, Runtime};
use crate::sched::current::Token;
use crate::sched::{Scheduler, current};

/// The number of processors of the ambient runtime.
const PROCESSORS_VARIABLE: &str = "MAINSPRING_PROCESSORS";

fn ambient() -> &'static Runtime {
    static AMBIENT: OnceLock<Runtime> = OnceLock::new();
    AMBIENT.get_or_init(|| {
        let mut builder = Builder::new();
        if let Ok(text) = std::env::var(PROCESSORS_VARIABLE) {
            match text.trim().parse() {
                Ok(count) if count > 0 => builder = builder.processors(count),
                _ => eprintln!(
                    "mainspring: {PROCESSORS_VARIABLE}={text:?} is no positive number, it is ignored"
                ),
            }
        }
        match builder.build() {
            Ok(runtime) => runtime,
            Err(error) => panic!("the ambient runtime cannot start: {error}"),
        }
    })
}

/// The runtime that the thread works for, or else the ambient one.
pub(crate) fn current_or_ambient() -> Arc<Scheduler> {
    current::scheduler().unwrap_or_else(|| Arc::clone(ambient().handle.scheduler()))
}

/// As [`current_or_ambient`], lent, with this thread as a worker of it; see [`current::with`].
pub(crate) fn with_current_or_ambient<R>(f: impl FnOnce(&Arc<Scheduler>, Option<Token>) -> R) -> R {
    let mut f = Some(f);
    let mut call = |scheduler: &Arc<Scheduler>, token| {
        let f = f.take().expect("it is called once");
        f(scheduler, token)
    };
    match current::with(|scheduler, token| scheduler.map(|scheduler| call(scheduler, token))) {
        Some(result) => result,
        // Outside of the loan: a runtime that cannot start is ended at once, and that enters it.
        None => call(ambient().handle.scheduler(), None),
    }
}

/// A runtime to go on with when the thread's has shut down.
pub(crate) fn other_than_closing() -> Arc<Scheduler> {
    let current = current_or_ambient();
    if current.is_closing() {
        // The ambient runtime never ends.
        Arc::clone(ambient().handle.scheduler())
    } else {
        current
    }
}
