//! Models of the monitor's rest, M0 to M3 against W1 to W3.
//!
//! With the real workers, a rest that nobody ends shows as a deadlock. The canaries are the steps of both sides, one of
//! them left out; instead of waiting the monitor looks whether its alarm is set once the worker is through. What
//! the monitor does between its rests is not modelled, but for its polls (`sched/loom_tests.rs`).

use std::sync::Arc;

use loom::thread;

use super::*;
use crate::sched::idle::{Leave, Left};
use crate::sched::loom_tests::{
    Tally, check, check_with_preemptions, finish, scheduler, start_workers, tell,
};
use crate::sched::task::{Identity, Runnable, TaskRef};

/// A task that runs until it is told to end.
struct Lasts {
    until: Arc<Tally>,
    ended: Arc<Tally>,
}

impl Runnable for Lasts {
    fn run(self: Arc<Self>) -> Option<TaskRef> {
        self.until.wait_for(1);
        tell(&self.ended);
        None
    }

    fn cancel(self: Arc<Self>) {
        unreachable!("the runtime ends after this task");
    }

    fn identity(&self) -> Identity {
        Identity::NONE
    }
}

/// The monitor rests while a task is published that runs until the rest has ended, by a worker, or, without workers, by
/// nobody.
fn rests_while_a_task_is_published(workers: usize) {
    let (scheduler, _) = scheduler(1);
    let (until, ended) = (Tally::new(), Tally::new());
    let mut threads = start_workers(&scheduler, workers);
    threads.push(thread::spawn({
        let (scheduler, until) = (Arc::clone(&scheduler), Arc::clone(&until));
        move || {
            scheduler.rest_monitor(Rest::UntilCalled);
            tell(&until);
        }
    }));
    scheduler.schedule_global(Arc::new(Lasts { until, ended: Arc::clone(&ended) }));
    if workers > 0 {
        ended.wait_for(1);
        finish(&scheduler, threads);
    } else {
        let mut turn = scheduler.poller.try_turn().expect("nobody else polls");
        let attended = turn.announce(Tick::NEVER);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        attended.withdraw();
    }
}

#[test]
fn loom_a_worker_that_takes_a_processor_ends_the_monitors_rest() {
    check("the monitor rests while a worker takes a processor", || rests_while_a_task_is_published(1));
}

#[test]
fn loom_a_task_that_no_worker_can_be_had_for_ends_the_monitors_rest() {
    check("the monitor rests while a task is published for nobody", || rests_while_a_task_is_published(0));
}

#[test]
fn loom_the_end_of_the_runtime_ends_the_monitors_rest() {
    check("the monitor rests while the runtime ends", || {
        let (scheduler, _) = scheduler(1);
        let monitor = thread::spawn({
            let scheduler = Arc::clone(&scheduler);
            move || scheduler.rest_monitor(Rest::UntilCalled)
        });
        finish(&scheduler, vec![monitor]);
    });
}

/// What the monitor or the worker of the following model leaves out or does too late.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    Nothing,
    /// The alarm is set, that is taken back, at last: M0 after M3.
    AlarmAtLast,
    /// M2.
    MonitorsBarrier,
    /// The second look, M3.
    Look,
    /// W2.
    WorkersBarrier,
    /// W3.
    Call,
}

fn bare(fault: Fault) {
    check_with_preemptions(4, &format!("bare rest: {fault:?}"), move || {
        let (scheduler, _) = scheduler(1);
        let worker = thread::spawn({
            let scheduler = Arc::clone(&scheduler);
            move || {
                let seat = scheduler.threads.new_seat(usize::MAX).unwrap();
                scheduler.idle.enter(None, &seat, false);
                assert_eq!(scheduler.idle.leave(&seat, Leave::Awake), Left::With(0)); // W1
                let monitor = &scheduler.monitor;
                match fault {
                    Fault::Call => {}
                    Fault::WorkersBarrier => {
                        if monitor.resting.load(Ordering::Relaxed)
                            && monitor.resting.swap(false, Ordering::AcqRel)
                        {
                            monitor.alarm.set(Some(BUSY));
                        }
                    }
                    _ => monitor.wake_if_resting(),
                }
            }
        });
        // Somebody sits in the poller: without that there is no rest.
        let mut turn = scheduler.poller.try_turn().expect("nobody else polls");
        let attended = turn.announce(Tick::NEVER);
        let monitor = &scheduler.monitor;
        let all_idle = scheduler.idle.all_idle();
        let set = || monitor.alarm.set(if all_idle { None } else { Some(PERIOD) });
        if fault != Fault::AlarmAtLast {
            set(); // M0
        }
        monitor.resting.store(true, Ordering::Relaxed); // M1
        if fault != Fault::MonitorsBarrier {
            full_barrier(); // M2
        }
        let nothing_to_do = scheduler.all_is_attended() && (!all_idle || scheduler.idle.all_idle()); // M3
        if !nothing_to_do && fault != Fault::Look && monitor.resting.swap(false, Ordering::AcqRel) {
            monitor.alarm.set(Some(BUSY));
        }
        if fault == Fault::AlarmAtLast && nothing_to_do {
            set();
        }
        worker.join().unwrap();
        assert!(monitor.alarm.is_off(), "the monitor rests beside a worker");
        attended.withdraw();
    });
}

#[test]
fn loom_the_bare_rest_ends() {
    bare(Fault::Nothing);
}

#[test]
#[should_panic(expected = "the monitor rests beside a worker")]
fn loom_canary_an_alarm_taken_back_at_last_takes_a_call_along() {
    bare(Fault::AlarmAtLast);
}

#[test]
#[should_panic(expected = "the monitor rests beside a worker")]
fn loom_canary_without_the_monitors_barrier_it_rests_on() {
    bare(Fault::MonitorsBarrier);
}

#[test]
#[should_panic(expected = "the monitor rests beside a worker")]
fn loom_canary_without_the_monitors_second_look_it_rests_on() {
    bare(Fault::Look);
}

#[test]
#[should_panic(expected = "the monitor rests beside a worker")]
fn loom_canary_without_the_workers_barrier_the_monitor_rests_on() {
    bare(Fault::WorkersBarrier);
}

#[test]
#[should_panic(expected = "the monitor rests beside a worker")]
fn loom_canary_without_the_workers_call_the_monitor_rests_on() {
    bare(Fault::Call);
}
