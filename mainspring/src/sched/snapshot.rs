//! What a scheduler looks like from outside at this moment, as text: for `{:#?}` of a runtime, and
//! so for a watchdog that has to say why nothing moves.
//!
//! Everything is collected first, one lock after the other and never two at once, and formatted with
//! nothing held. The parts are therefore of slightly different moments.

use std::fmt;
use std::sync::Arc;

use super::Scheduler;
use super::blocking::BlockingState;
use super::idle::IdleState;
use super::seat::{Assigned, Seat};
use crate::base::clock::Tick;

/// Read by the derived `Debug` alone, which the compiler does not count as a use.
#[allow(dead_code)]
#[derive(Debug)]
struct Snapshot {
    phase: &'static str,
    tasks_alive: usize,
    global_queue: usize,
    idle: IdleState,
    processors: Vec<ProcessorState>,
    workers: Vec<WorkerState>,
    blocking_pool: BlockingState,
    poller: PollerState,
    monitor_rests: bool,
    rescues: u64,
}

/// As [`Snapshot`].
#[allow(dead_code)]
#[derive(Debug)]
struct ProcessorState {
    index: usize,
    owner: Option<u64>,
    queue: usize,
    next_slot_taken: bool,
    earliest_timer: When,
    timers_pending: usize,
    polls: u64,
}

/// As [`Snapshot`].
#[allow(dead_code)]
#[derive(Debug)]
struct WorkerState {
    id: u64,
    in_user_code: bool,
    /// The number of the piece of user code; even between two.
    piece: u64,
    /// What the worker was given and has not taken yet.
    assigned: Option<Assigned>,
    declared_to_block: bool,
    processor_was_taken: bool,
    runs_jobs: bool,
}

/// As [`Snapshot`].
#[allow(dead_code)]
#[derive(Debug)]
struct PollerState {
    sits_until: When,
    turn_taken: bool,
    descriptors: usize,
    polls: u64,
}

/// A time as seen from now.
enum When {
    Never,
    Nobody,
    Interrupted,
    At { at: Tick, now: Tick },
}

impl fmt::Debug for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            When::Never => f.write_str("never"),
            When::Nobody => f.write_str("nobody sits there"),
            When::Interrupted => f.write_str("being interrupted"),
            When::At { at, now } if at >= now => write!(f, "in {:?}", at.saturating_since(now)),
            When::At { at, now } => write!(f, "{:?} ago", now.saturating_since(at)),
        }
    }
}

fn when(at: Tick, now: Tick) -> When {
    if at == Tick::NEVER { When::Never } else { When::At { at, now } }
}

impl Scheduler {
    fn snapshot(&self) -> Snapshot {
        let now = self.now();
        let poller = self.poller.counters();
        Snapshot {
            phase: self.phase_name(),
            tasks_alive: self.registry.len(),
            global_queue: self.global.len(),
            idle: self.idle.state(),
            processors: (0..self.processors.len()).map(|index| self.processor_state(index, now)).collect(),
            workers: self.threads.seats().iter().map(worker_state).collect(),
            blocking_pool: self.blocking.state(),
            poller: PollerState {
                sits_until: match self.poller.sits_until() {
                    None => When::Nobody,
                    Some(until) if until == Tick::from_nanos(0) => When::Interrupted,
                    Some(until) => when(until, now),
                },
                turn_taken: self.poller.turn_is_taken(),
                descriptors: self.poller.len(),
                polls: poller.polls,
            },
            monitor_rests: self.monitor.is_resting(),
            rescues: self.counters.rescues.get(),
        }
    }

    fn processor_state(&self, index: usize, now: Tick) -> ProcessorState {
        let processor = &self.processors[index];
        let core = processor.lock();
        ProcessorState {
            index,
            owner: core.owner.map(|owner| owner.0),
            queue: processor.queue_len(),
            next_slot_taken: core.next.is_some(),
            earliest_timer: when(processor.next_timer(), now),
            timers_pending: core.timers.len(),
            polls: processor.polls(),
        }
    }
}

fn worker_state(seat: &Arc<Seat>) -> WorkerState {
    let piece = seat.piece();
    WorkerState {
        id: seat.id.0,
        in_user_code: piece % 2 == 1,
        piece,
        assigned: seat.assigned(),
        declared_to_block: seat.is_declared(),
        processor_was_taken: seat.is_released(),
        runs_jobs: seat.is_in_jobs(),
    }
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.snapshot().fmt(f)
    }
}
