//! Threads: how they are made, which workers there are, and waiting for them to end.
//!
//! Making a thread is handed in ([`SpawnThread`]), so tests can refuse one. Knows nothing of what the
//! threads do.
//!
//! Invariant: a thread is listed from before it starts until after its last step. Those that hold a processor or
//! will soon look for one are no more than the processors when one is added for a processor, and all together
//! are never more than `max`. (The monitor is not one of them.)

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::processor::WorkerId;
use super::seat::Seat;
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
    /// Bound on the threads.
    max: usize,
    state: RankedMutex<State>,
    /// Signalled when a thread has ended.
    ended: Condvar,
}

struct State {
    seats: Vec<Arc<Seat>>,
    next: u64,
}

impl Threads {
    pub(crate) fn new(spawner: Box<dyn SpawnThread>, name: String, max: usize) -> Threads {
        let state = State { seats: Vec::new(), next: 0 };
        Threads { spawner, name, max, state: RankedMutex::new(Rank::Threads, state), ended: Condvar::new() }
    }

    /// Starts a thread; `role` becomes part of its name.
    pub(crate) fn spawn(&self, role: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let body = move || {
            let _guard = AbortOnPanic;
            body();
        };
        self.spawner.spawn(format!("{}-{role}", self.name), Box::new(body))
    }

    /// Lists a new thread for a processor, if there is room for one and those that could hold one are fewer than
    /// `processors`.
    pub(crate) fn new_seat(&self, processors: usize) -> Option<Arc<Seat>> {
        let mut state = self.state.lock();
        if state.available() >= processors { None } else { state.add(self.max) }
    }

    /// Lists a new thread for jobs of the blocking pool, if there is room for one.
    pub(crate) fn new_seat_for_jobs(&self) -> Option<Arc<Seat>> {
        let mut state = self.state.lock();
        let seat = state.add(self.max)?;
        // Under the lock, or it would count as one that will look for a processor.
        seat.set_in_jobs(true);
        Some(seat)
    }

    /// How many hold a processor, sleep, or will soon look for one.
    pub(crate) fn available(&self) -> usize {
        self.state.lock().available()
    }

    /// How many are blocked without a processor, or run jobs.
    pub(crate) fn unavailable(&self) -> usize {
        let state = self.state.lock();
        state.seats.len() - state.available()
    }

    /// Whether one more may be started.
    pub(crate) fn has_room(&self) -> bool {
        self.count() < self.max
    }

    /// A thread has ended, or it could not be started.
    pub(crate) fn remove_seat(&self, seat: &Seat) {
        self.state.lock().seats.retain(|other| other.id != seat.id);
        self.ended.notify_all();
    }

    /// A thread has ended; false, and nothing done, if it is the last one.
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

    /// The seats of all threads that are alive.
    pub(crate) fn seats(&self) -> Vec<Arc<Seat>> {
        self.state.lock().seats.clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.state.lock().seats.len()
    }

    /// Waits until every thread but `own` has ended or `timeout` is over; how many are left. With `patience`, jobs of
    /// the blocking pool are not waited for, and the wait also ends when each of the others has been in one and the
    /// same piece of user code for that long.
    pub(crate) fn wait_for_end(
        &self,
        timeout: Duration,
        patience: Option<Duration>,
        own: Option<WorkerId>,
    ) -> usize {
        /// How often pieces are compared; threads that end are noticed at once.
        const LOOK: Duration = Duration::from_millis(10);
        let until = Instant::now().checked_add(timeout);
        let is_awaited =
            |seat: &&Arc<Seat>| Some(seat.id) != own && (patience.is_none() || !seat.is_in_jobs());
        let mut stuck: Vec<(WorkerId, u64, Instant)> = Vec::new();
        let mut state = self.state.lock();
        loop {
            let now = Instant::now();
            stuck = state
                .seats
                .iter()
                .filter(is_awaited)
                .map(|seat| (seat.id, seat.piece()))
                .map(|(id, piece)| {
                    let before = stuck.iter().find(|(other, same, _)| (*other, *same) == (id, piece));
                    (id, piece, before.map_or(now, |(_, _, since)| *since))
                })
                .collect();
            if stuck.is_empty() || until.is_some_and(|until| now >= until) {
                break;
            }
            let in_user_code_for_long =
                |patience| stuck.iter().all(|(_, piece, since)| piece % 2 == 1 && now - *since >= patience);
            if patience.is_some_and(in_user_code_for_long) {
                break;
            }
            let left = until.map_or(LOOK, |until| LOOK.min(until - now));
            state = state.wait_with(|state| {
                self.ended.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
            });
        }
        stuck.len()
    }
}

impl State {
    fn available(&self) -> usize {
        self.seats.iter().filter(|seat| seat.is_available()).count()
    }

    fn add(&mut self, max: usize) -> Option<Arc<Seat>> {
        if self.seats.len() >= max {
            return None;
        }
        let seat = Arc::new(Seat::new(WorkerId(self.next)));
        self.next += 1;
        self.seats.push(Arc::clone(&seat));
        Some(seat)
    }
}
