//! What is told of a hand-off: its beginning when the processor is taken, and its end when the piece of user code has
//! returned.
//!
//! The beginning is a task like any other, for a worker to run: what is told is user code, and may block. The end is told by
//! the worker that has come back, which has no processor then that anybody could wait for.
//!
//! Invariant: of one hand-off, the beginning is told before the end and has returned by then. Whoever comes back before
//! the beginning has been told tells it; while it is being told, he leaves the end to who tells it.

use std::fmt;
use std::sync::Arc;

use super::{HandoffReport, Stuck, tell};
use crate::base::clock::Tick;
use crate::base::rank::{Rank, RankedMutex, assert_unlocked};
use crate::sched::Scheduler;
use crate::sched::seat::Seat;
use crate::sched::task::{Identity, Runnable, TaskRef, contain};

/// A hand-off of which is told.
pub(crate) struct Telling {
    scheduler: Arc<Scheduler>,
    beginning: HandoffReport,
    since: Tick,
    state: RankedMutex<State>,
}

#[derive(Default)]
struct State {
    /// Whether the beginning has been told, or is being told.
    begun: bool,
    /// Whether somebody tells something at the moment.
    telling: bool,
    /// An end that whoever tells is to tell next.
    end: Option<HandoffReport>,
}

impl fmt::Debug for Telling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telling").field("beginning", &self.beginning).finish_non_exhaustive()
    }
}

impl Telling {
    fn tell_beginning(&self) {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.begun, true) {
            return;
        }
        state.telling = true;
        drop(state);
        self.scheduler.tell(&self.beginning);
        let mut state = self.state.lock();
        if let Some(end) = state.end.take() {
            drop(state);
            self.scheduler.tell(&end);
            state = self.state.lock();
        }
        state.telling = false;
    }

    fn tell_end(&self) {
        self.tell_beginning();
        let lasted = self.scheduler.now().saturating_since(self.since);
        let end = HandoffReport { lasted, returned: true, ..self.beginning.clone() };
        let mut state = self.state.lock();
        if state.telling {
            state.end = Some(end);
            return;
        }
        drop(state);
        self.scheduler.tell(&end);
    }
}

impl Runnable for Telling {
    fn run(self: Arc<Self>) -> Option<TaskRef> {
        self.tell_beginning();
        None
    }

    fn cancel(self: Arc<Self>) {}

    fn identity(&self) -> Identity {
        Identity::REPORT
    }
}

impl Scheduler {
    /// Whether it is to be known which task runs on which thread. (Whether somebody hears of it is asked then.)
    pub(crate) fn reports_are_wanted(&self) -> bool {
        self.handoff_hook.is_some() || cfg!(feature = "tracing")
    }

    /// What is to be told of a hand-off, if anybody wants to hear it, and unless the piece is itself a report.
    pub(super) fn prepare_report(self: &Arc<Self>, seat: &Seat, stuck: &Stuck) -> Option<Arc<Telling>> {
        let identity = seat.identity();
        if identity == Identity::REPORT || self.handoff_hook.is_none() && !tell::is_heard() {
            return None;
        }
        let task = self.registry.ask(identity, |task| (task.id(), task.name(), task.spawned_at()));
        let (id, name, spawned_at) =
            task.map_or((None, None, None), |(id, name, place)| (Some(id), name, Some(place)));
        let beginning = HandoffReport {
            task: id,
            name,
            spawned_at,
            cause: stuck.cause,
            lasted: self.now().saturating_since(stuck.since),
            returned: false,
        };
        let state = RankedMutex::new(Rank::Seat, State::default());
        Some(Arc::new(Telling { scheduler: Arc::clone(self), beginning, since: stuck.since, state }))
    }

    /// A worker has come back from a piece during which its processor was taken.
    pub(crate) fn report_return(&self, seat: &Seat) {
        if let Some(telling) = seat.take_telling() {
            seat.set_identity(Identity::REPORT);
            seat.begin_piece();
            telling.tell_end();
            seat.end_piece();
        }
    }

    fn tell(&self, report: &HandoffReport) {
        assert_unlocked("report a hand-off");
        tell::tell(report);
        if let Some(hook) = &self.handoff_hook {
            contain(|| hook(report));
        }
    }
}
