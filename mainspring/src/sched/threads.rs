//! Threads: how they are made, which workers there are, and waiting for them to end.
//!
//! Making a thread is handed in ([`SpawnThread`]), so tests can refuse one. Knows nothing of what the
//! threads do.
//!
//! Invariant: a worker is listed from before its thread starts until after its last step. Workers
//! that are not blocked in user code are no more than the processors when one is added.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::idle::Seat;
use super::processor::WorkerId;
use crate::base::primitive::Condvar;
use crate::base::rank::{Rank, RankedMutex};

/// Makes threads.
pub(crate) trait SpawnThread: Send + Sync {
    /// Starts a thread of this name that runs `body`.
    fn spawn(&self, name: String, body: Box<dyn FnOnce() + Send>) -> io::Result<()>;
}

/// The operating system's threads.
pub(crate) struct OsThreads;

impl SpawnThread for OsThreads {
    fn spawn(&self, name: String, body: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        std::thread::Builder::new().name(name).spawn(body).map(drop)
    }
}

/// Ends the process when a panic leaves one of our threads. Those of user code are caught where it is
/// called, so such a panic is a bug of the runtime's, and to go on without the thread would be a hang.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("mainspring: a thread of the runtime panicked, which is a bug in mainspring");
            std::process::abort();
        }
    }
}

pub(crate) struct Threads {
    spawner: Box<dyn SpawnThread>,
    name: String,
    /// Bound on the workers.
    workers_max: usize,
    state: RankedMutex<State>,
    /// Signalled when a worker has ended.
    ended: Condvar,
}

struct State {
    seats: Vec<Arc<Seat>>,
    next: u64,
}

impl Threads {
    pub(crate) fn new(spawner: Box<dyn SpawnThread>, name: String, workers_max: usize) -> Threads {
        let state = State { seats: Vec::new(), next: 0 };
        Threads {
            spawner,
            name,
            workers_max,
            state: RankedMutex::new(Rank::Threads, state),
            ended: Condvar::new(),
        }
    }

    /// Starts a thread that is no worker; `role` becomes part of its name.
    pub(crate) fn spawn(&self, role: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let body = move || {
            let _guard = AbortOnPanic;
            body();
        };
        self.spawner.spawn(format!("{}-{role}", self.name), Box::new(body))
    }

    /// Lists a new worker, if there is room for one that is not blocked beside `processors` of them.
    pub(crate) fn new_seat(&self, processors: usize) -> Option<Arc<Seat>> {
        let mut state = self.state.lock();
        let released = state.seats.iter().filter(|seat| seat.is_released()).count();
        if state.seats.len() - released >= processors || state.seats.len() >= self.workers_max {
            return None;
        }
        let seat = Arc::new(Seat::new(WorkerId(state.next)));
        state.next += 1;
        state.seats.push(Arc::clone(&seat));
        Some(seat)
    }

    /// A worker has ended, or its thread could not be started.
    pub(crate) fn remove_seat(&self, seat: &Seat) {
        self.state.lock().seats.retain(|other| other.id != seat.id);
        self.ended.notify_all();
    }

    /// A worker has ended; false, and nothing done, if it is the last one.
    pub(crate) fn remove_seat_unless_last(&self, seat: &Seat) -> bool {
        let mut state = self.state.lock();
        if state.seats.len() == 1 {
            return false;
        }
        state.seats.retain(|other| other.id != seat.id);
        drop(state);
        self.ended.notify_all();
        true
    }

    /// The seat of a worker that is alive.
    pub(crate) fn seat(&self, id: WorkerId) -> Option<Arc<Seat>> {
        self.state.lock().seats.iter().find(|seat| seat.id == id).cloned()
    }

    /// The seats of all workers that are alive.
    pub(crate) fn seats(&self) -> Vec<Arc<Seat>> {
        self.state.lock().seats.clone()
    }

    pub(crate) fn workers(&self) -> usize {
        self.state.lock().seats.len()
    }

    /// Waits until every worker has ended or `timeout` is over; how many are left. With `patience`, the
    /// wait also ends when each of those that are left has been in one and the same piece of user code
    /// for that long.
    pub(crate) fn wait_for_workers(&self, timeout: Duration, patience: Option<Duration>) -> usize {
        /// How often activities are compared; workers that end are noticed at once.
        const LOOK: Duration = Duration::from_millis(10);
        let until = Instant::now().checked_add(timeout);
        let mut stuck: Vec<(WorkerId, u64, Instant)> = Vec::new();
        let mut state = self.state.lock();
        while !state.seats.is_empty() {
            let now = Instant::now();
            if until.is_some_and(|until| now >= until) {
                break;
            }
            stuck = state
                .seats
                .iter()
                .map(|seat| (seat.id, seat.activity()))
                .map(|(id, activity)| {
                    let before = stuck.iter().find(|(other, same, _)| (*other, *same) == (id, activity));
                    (id, activity, before.map_or(now, |(_, _, since)| *since))
                })
                .collect();
            let in_user_code_for_long = |patience| {
                stuck.iter().all(|(_, activity, since)| activity % 2 == 1 && now - *since >= patience)
            };
            if patience.is_some_and(in_user_code_for_long) {
                break;
            }
            let left = until.map_or(LOOK, |until| LOOK.min(until - now));
            state = state.wait_with(|state| {
                self.ended.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
            });
        }
        state.seats.len()
    }
}
