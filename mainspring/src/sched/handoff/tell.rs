//! Tells tracing of a hand-off, if the feature `tracing` is on.
//!
//! A subscriber is user code: it is called with no lock held, and its panic goes no further.

use super::HandoffReport;

/// Whether anybody listens to such events.
pub(super) fn is_heard() -> bool {
    #[cfg(feature = "tracing")]
    {
        let mut heard = false;
        crate::base::rank::assert_unlocked("ask a tracing subscriber");
        crate::sched::task::contain(|| {
            heard = tracing::event_enabled!(target: "mainspring::handoff", tracing::Level::WARN);
        });
        heard
    }
    #[cfg(not(feature = "tracing"))]
    false
}

/// Emits the report as an event of level WARN with the target `mainspring::handoff`; nothing without the feature.
pub(super) fn tell(report: &HandoffReport) {
    #[cfg(feature = "tracing")]
    {
        crate::base::rank::assert_unlocked("call a tracing subscriber");
        crate::sched::task::contain(|| emit(report));
    }
    #[cfg(not(feature = "tracing"))]
    let _ = report;
}

#[cfg(feature = "tracing")]
fn emit(report: &HandoffReport) {
    tracing::event!(
        target: "mainspring::handoff",
        tracing::Level::WARN,
        task = report.task.map(crate::sched::task::Id::as_u64),
        name = report.name.as_deref(),
        spawned_at = report.spawned_at.map(tracing::field::display),
        cause = %report.cause,
        lasted_us = u64::try_from(report.lasted.as_micros()).unwrap_or(u64::MAX),
        returned = report.returned,
        "{report}"
    );
}

#[cfg(all(test, feature = "tracing", not(mainspring_loom)))]
mod tests {
    use std::fmt::Debug;
    use std::panic::Location;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    use super::*;
    use crate::sched::handoff::HandoffCause;
    use crate::sched::task;

    type Fields = Vec<(&'static str, String)>;

    /// Keeps the level, target and fields of each event, or panics.
    struct Keeps {
        events: Arc<Mutex<Vec<(String, Fields)>>>,
        panics: bool,
    }

    impl Subscriber for Keeps {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            assert!(!self.panics, "on purpose");
            let mut fields = Written::default();
            event.record(&mut fields);
            let metadata = event.metadata();
            let head = format!("{} {}", metadata.level(), metadata.target());
            self.events.lock().unwrap().push((head, fields.0));
        }
    }

    #[derive(Default)]
    struct Written(Fields);

    impl Visit for Written {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            self.0.push((field.name(), format!("{value:?}")));
        }
    }

    /// What a subscriber is told of a report.
    fn told(report: &HandoffReport, panics: bool) -> Vec<(String, Fields)> {
        let events = Arc::default();
        let keeps = Keeps { events: Arc::clone(&events), panics };
        tracing::subscriber::with_default(keeps, || tell(report));
        std::mem::take(&mut events.lock().unwrap())
    }

    fn report(task: Option<task::Id>) -> HandoffReport {
        HandoffReport {
            task,
            name: task.map(|_| "sweeper".into()),
            spawned_at: task.map(|_| Location::caller()),
            cause: HandoffCause::OnCpu,
            lasted: Duration::from_micros(12_345),
            returned: true,
        }
    }

    #[test]
    fn a_subscriber_is_told_each_field_of_a_report() {
        let report = report(Some(task::Id::next()));
        let expected = [
            ("message", report.to_string()),
            ("task", report.task.unwrap().to_string()),
            ("name", r#""sweeper""#.to_owned()),
            ("spawned_at", report.spawned_at.unwrap().to_string()),
            ("cause", "on the CPU".to_owned()),
            ("lasted_us", "12345".to_owned()),
            ("returned", "true".to_owned()),
        ];
        assert_eq!(told(&report, false), [("WARN mainspring::handoff".to_owned(), expected.to_vec())]);
    }

    #[test]
    fn what_is_no_task_has_no_fields_of_one() {
        let [(_, fields)] = &told(&report(None), false)[..] else { panic!("not one event") };
        let names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["message", "cause", "lasted_us", "returned"]);
    }

    #[test]
    fn a_subscriber_that_panics_takes_nothing_with_it() {
        assert_eq!(told(&report(None), true), []);
    }
}
