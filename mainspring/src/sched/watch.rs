//! What the monitor remembers of the workers from one look to the next: since when each is in the same piece of user
//! code, and whether its thread sleeps or computes.
//!
//! Knows nothing of queues and of what is done about it; takes no lock and calls nobody.
//!
//! A thread is asleep for sure if its CPU clock stood still between two looks, in the same piece, and the system says at
//! the second one that it is neither running nor runnable: standing still alone is also what a thread does that
//! was preempted. (If it had run before the second look, its clock would have moved.) A thread computes for too long
//! if it has been in the same piece for a slice and its clock has moved for at least half of that: on a loaded machine,
//! or with a limited share of it, the rest of the time may not have been its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::handoff::{Handoff, HandoffCause, Stuck};
use super::processor::WorkerId;
use super::seat::Seat;
use crate::base::clock::Tick;
use crate::base::thread_probe::{Probe, ThreadId};

/// Where the system does not say whether a thread is runnable, one that does not run for so long counts as asleep.
/// Picked by feel: some slices of the system's scheduler.
const STILL_LONG: Duration = Duration::from_millis(5);

/// Most probes that are kept, each with a descriptor. Picked by feel.
const PROBES_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Watch {
    /// For each processor, what its worker was seen in.
    pieces: Vec<Option<Piece>>,
    probes: HashMap<WorkerId, Probe>,
    /// Pieces that compute on although their processor was taken.
    computing: Vec<Computing>,
}

/// What a worker was seen to do.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Seen {
    /// It is in the same piece as at the last look, for this time.
    pub(super) same: Option<Duration>,
    /// Its clock was read for the first time in this piece, and the thread does not run at the moment or has declared
    /// that it blocks.
    pub(super) naps: bool,
    /// Its clock has moved since the last look.
    pub(super) computes: bool,
    /// Others have taken tasks from the processor since the last look.
    pub(super) is_stolen_from: bool,
}

/// A piece whose processor was taken because it computed; it may have gone to sleep since.
#[derive(Debug)]
struct Computing {
    seat: Arc<Seat>,
    number: u64,
    cpu_time: Option<Duration>,
    /// Since when the CPU clock has been seen to stand still.
    still_since: Tick,
}

#[derive(Debug)]
struct Piece {
    seat: Arc<Seat>,
    number: u64,
    since: Tick,
    /// What the CPU clock showed at first, and what at last.
    first_cpu_time: Option<Duration>,
    cpu_time: Option<Duration>,
    /// Since when the CPU clock has been seen to stand still.
    still_since: Tick,
    /// How many tasks had been stolen from the processor at the last look.
    stolen: u64,
}

impl Piece {
    /// How much CPU time it took since its clock was first read; `None` if that cannot be read.
    fn computed(&self) -> Option<Duration> {
        Some(self.cpu_time?.saturating_sub(self.first_cpu_time?))
    }

    /// Reads the thread's CPU clock; whether that is the first time and the thread naps.
    fn read_clock(&mut self, now: Tick) -> bool {
        let read = || self.seat.thread().and_then(ThreadId::cpu_time);
        let cpu_time = read();
        if cpu_time.is_some() && cpu_time == self.cpu_time {
            return false;
        }
        let is_first = self.cpu_time.is_none();
        // The clock of a thread that runs moves from one reading to the next.
        let naps = is_first && (self.seat.is_declared() || cpu_time.is_some() && read() == cpu_time);
        self.first_cpu_time = self.first_cpu_time.or(cpu_time);
        self.cpu_time = cpu_time;
        self.still_since = now;
        naps
    }
}

impl Watch {
    pub(super) fn new(processors: usize) -> Watch {
        Watch { pieces: (0..processors).map(|_| None).collect(), ..Watch::default() }
    }

    /// Nobody holds the processor.
    pub(super) fn forget(&mut self, processor: usize) {
        self.pieces[processor] = None;
    }

    /// The seat that held the processor at the last look, if it is this worker's.
    pub(super) fn seat(&self, processor: usize, worker: WorkerId) -> Option<Arc<Seat>> {
        let piece = self.pieces[processor].as_ref()?;
        (piece.seat.id == worker).then(|| Arc::clone(&piece.seat))
    }

    /// Looks at the worker that holds a processor; at its CPU clock if `clock` says so or if it is in the same piece as
    /// at the last look.
    pub(super) fn see(
        &mut self,
        processor: usize,
        seat: Arc<Seat>,
        stolen: u64,
        now: Tick,
        clock: bool,
    ) -> Seen {
        let number = seat.piece();
        let slot = &mut self.pieces[processor];
        let is_same = slot.as_ref().is_some_and(|piece| piece.number == number && piece.seat.id == seat.id);
        if !is_same {
            // Between two pieces it is kept for the seat.
            *slot = Some(Piece {
                seat,
                number,
                since: now,
                first_cpu_time: None,
                cpu_time: None,
                still_since: now,
                stolen,
            });
        }
        let piece = slot.as_mut().expect("filled above");
        if number.is_multiple_of(2) {
            return Seen::default();
        }
        let naps = (clock || is_same) && piece.read_clock(now);
        let computes = piece.cpu_time.is_some() && piece.still_since == now && !naps;
        let is_stolen_from = std::mem::replace(&mut piece.stolen, stolen) != stolen;
        Seen { same: is_same.then(|| now.saturating_since(piece.since)), naps, computes, is_stolen_from }
    }

    /// Asks the worker, which is in the same piece for long, to yield.
    pub(super) fn ask_to_yield(&self, processor: usize) {
        if let Some(piece) = &self.pieces[processor] {
            piece.seat.ask_to_yield(piece.number);
        }
    }

    /// Whether the processor is to be taken from its worker, which was just seen in the same piece again.
    pub(super) fn judge(
        &mut self,
        processor: usize,
        config: &Handoff,
        now: Tick,
    ) -> Option<(Arc<Seat>, Stuck)> {
        let piece = self.pieces[processor].as_ref()?;
        let lasted = now.saturating_since(piece.since);
        let still = now.saturating_since(piece.still_since);
        let cause = if piece.seat.is_declared() {
            HandoffCause::Declared
        } else if !still.is_zero() {
            // The longer it sleeps the better that is known, so asking can wait for that.
            if still < config.asleep_after || !asleep(&mut self.probes, &piece.seat, still) {
                return None;
            }
            HandoffCause::Asleep
        } else if lasted < config.on_cpu_after {
            return None;
        } else if piece.computed().is_none_or(|time| time >= config.on_cpu_after / 2) {
            HandoffCause::OnCpu
        } else if lasted >= config.asleep_after && asleep(&mut self.probes, &piece.seat, Duration::ZERO) {
            // It sleeps again and again, not for long.
            HandoffCause::Asleep
        } else {
            // It waits for a CPU, as others would that took its place.
            return None;
        };
        if cause == HandoffCause::OnCpu {
            self.computing.retain(|other| other.seat.piece() == other.number);
            let most = config.on_cpu_threads.unwrap_or(self.pieces.len());
            let slice = config.on_cpu_after;
            if self.computing.len() >= most
                && compute_still(&mut self.computing, &mut self.probes, slice, now) >= most
            {
                return None;
            }
        }
        let stuck =
            Stuck { processor, worker: piece.seat.id, piece: piece.number, since: piece.since, cause };
        Some((Arc::clone(&piece.seat), stuck))
    }

    /// The processor was taken.
    pub(super) fn was_taken(&mut self, seat: Arc<Seat>, stuck: &Stuck) {
        self.pieces[stuck.processor] = None;
        if stuck.cause == HandoffCause::OnCpu {
            let (number, still_since) = (stuck.piece, stuck.since);
            self.computing.push(Computing { seat, number, cpu_time: None, still_since });
        }
    }
}

/// How many of those that computed do not sleep now, or not for so long as a slice. (A short nap is none: then one
/// more could be let in at each.)
fn compute_still(
    computing: &mut [Computing],
    probes: &mut HashMap<WorkerId, Probe>,
    slice: Duration,
    now: Tick,
) -> usize {
    let mut count = 0;
    for other in computing {
        let cpu_time = other.seat.thread().and_then(ThreadId::cpu_time);
        if cpu_time.is_none() || cpu_time != other.cpu_time {
            other.cpu_time = cpu_time;
            other.still_since = now;
        }
        let still = now.saturating_since(other.still_since);
        count += usize::from(still < slice || !asleep(probes, &other.seat, Duration::ZERO));
    }
    count
}

/// Whether a thread that has not run for a time is asleep.
fn asleep(probes: &mut HashMap<WorkerId, Probe>, seat: &Seat, still: Duration) -> bool {
    let Some(thread) = seat.thread() else { return false };
    if probes.len() >= PROBES_MAX && !probes.contains_key(&seat.id) {
        probes.clear();
    }
    let probe = probes.entry(seat.id).or_insert_with(|| Probe::new(thread));
    probe.asleep().unwrap_or(still >= STILL_LONG)
}
