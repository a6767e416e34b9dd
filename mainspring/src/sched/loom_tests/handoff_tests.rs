//! Models of the hand-off, of the protocol H against W of `handoff/mod.rs`: the main thread looks at a worker as the monitor
//! does and takes its processor, at any moment of what the worker does.
//!
//! The workers are the real ones; a task that is left behind shows as a deadlock, and who is the owner at the end shows
//! in the lists. The canaries are the protocol's steps alone, one of them left out. Not modelled are: how the monitor
//! finds out that somebody is stuck, threads that are started for a processor (the models have none to give), reports,
//! and what the asking to yield leads to, which is a hint.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::*;
use crate::base::primitive::atomic::AtomicBool;
use crate::sched::handoff::{HandoffCause, Stuck};
use crate::sched::task::{JoinError, JoinHandle};

/// What is taken from whom.
fn look(scheduler: &Scheduler, processor: usize) -> Option<(Arc<Seat>, Stuck)> {
    let owner = scheduler.processors[processor].lock().owner?;
    let seat = scheduler.threads.seat(owner)?;
    let (worker, piece) = (seat.id, seat.piece());
    let since = scheduler.now();
    Some((seat, Stuck { processor, worker, piece, since, cause: HandoffCause::OnCpu }))
}

/// Hands a processor off if its worker is in user code, as the monitor does; true if it was taken.
fn take(scheduler: &Arc<Scheduler>, processor: usize) -> bool {
    look(scheduler, processor)
        .filter(|(_, stuck)| stuck.piece % 2 == 1)
        .is_some_and(|(seat, stuck)| scheduler.hand_off(&seat, &stuck))
}

/// As `take`, whatever its worker does.
fn take_between_pieces(scheduler: &Arc<Scheduler>, processor: usize) -> bool {
    look(scheduler, processor).is_some_and(|(seat, stuck)| scheduler.hand_off(&seat, &stuck))
}

/// Counts the executions in which a processor was taken: a model in which that never happens shows nothing.
#[derive(Clone)]
struct Taken(Arc<plain::AtomicU64>);

impl Taken {
    fn new() -> Taken {
        Taken(Arc::new(plain::AtomicU64::new(0)))
    }

    fn count(&self, taken: bool) {
        self.0.fetch_add(u64::from(taken), plain::Ordering::Relaxed);
    }

    #[track_caller]
    fn check(&self) {
        let count = self.0.load(plain::Ordering::Relaxed);
        eprintln!("    handed off in {count} of them");
        assert!(count > 0, "no processor was ever taken");
    }
}

/// A task that queues others in its first run, and asks for a second one.
struct QueuesAndYields {
    scheduler: Arc<Scheduler>,
    others: usize,
    tally: Arc<Tally>,
    /// Told of each run.
    begun: Arc<Tally>,
    /// How many were made, itself among them.
    made: Arc<AtomicUsize>,
    has_yielded: AtomicBool,
    is_running: AtomicBool,
}

impl QueuesAndYields {
    fn new(scheduler: &Arc<Scheduler>, tally: &Arc<Tally>, others: usize) -> Arc<QueuesAndYields> {
        Arc::new(QueuesAndYields {
            scheduler: Arc::clone(scheduler),
            others,
            tally: Arc::clone(tally),
            begun: Tally::new(),
            made: Arc::new(AtomicUsize::new(1)),
            has_yielded: AtomicBool::new(false),
            is_running: AtomicBool::new(false),
        })
    }

    fn end(&self) {
        tell(&self.tally);
    }
}

impl Runnable for QueuesAndYields {
    fn run(self: Arc<Self>) -> Option<TaskRef> {
        assert!(!self.is_running.swap(true, Ordering::Relaxed), "it runs twice at once");
        tell(&self.begun);
        let is_first = !self.has_yielded.swap(true, Ordering::Relaxed);
        for _ in 0..if is_first { self.others } else { 0 } {
            self.made.fetch_add(1, Ordering::Relaxed);
            self.scheduler.schedule(Arc::new(Job(Arc::clone(&self.tally))));
        }
        self.is_running.store(false, Ordering::Relaxed);
        if is_first {
            return Some(self);
        }
        self.end();
        None
    }

    fn cancel(self: Arc<Self>) {
        self.end();
    }

    fn identity(&self) -> Identity {
        Identity::NONE
    }
}

/// A task yields and queues `others` beside the hand-off: all run, and every processor is idle in the end.
fn tasks_run_beside_a_hand_off(
    processors: usize,
    workers: usize,
    others: usize,
    take: fn(&Arc<Scheduler>, usize) -> bool,
    taken: &Taken,
) {
    let (scheduler, _) = scheduler(processors);
    let tally = Tally::new();
    let threads = start_workers(&scheduler, workers);
    let task = QueuesAndYields::new(&scheduler, &tally, others);
    let begun = Arc::clone(&task.begun);
    scheduler.schedule_global(task);
    begun.wait_for(1);
    taken.count(take(&scheduler, 0));
    tally.wait_for(others + 1);
    finish(&scheduler, threads);
    assert_eq!(tally.count.load(Ordering::Acquire), others + 1);
}

#[test]
fn loom_a_processor_taken_as_its_workers_poll_ends_has_one_owner_and_loses_no_task() {
    let taken = Taken::new();
    let count = taken.clone();
    check_with_preemptions(1, "two workers of a processor that is taken", move || {
        tasks_run_beside_a_hand_off(1, 2, 1, take, &count);
    });
    taken.check();
}

/// Smaller: the task yields only.
#[test]
fn loom_a_processor_taken_as_its_workers_poll_ends_has_one_owner_and_the_task_runs_again() {
    let taken = Taken::new();
    let count = taken.clone();
    check("two workers of a processor that is taken, one task", move || {
        tasks_run_beside_a_hand_off(1, 2, 0, take, &count);
    });
    taken.check();
}

#[test]
fn loom_a_worker_that_comes_back_to_a_processor_that_nobody_took_over_takes_it_again() {
    let taken = Taken::new();
    let count = taken.clone();
    check("one worker of a processor that is taken", move || {
        tasks_run_beside_a_hand_off(1, 1, 1, take, &count);
    });
    taken.check();
}

/// So the look at the piece (H1) is not what keeps the tasks. It is there so that no processor is taken from a worker that
/// has gone on, who is then asked to yield and reported for nothing.
#[test]
fn loom_a_processor_taken_between_two_pieces_of_user_code_loses_no_task_either() {
    let taken = Taken::new();
    let count = taken.clone();
    check("one worker of a processor that is taken between pieces", move || {
        tasks_run_beside_a_hand_off(1, 1, 1, take_between_pieces, &count);
    });
    taken.check();
}

#[test]
fn loom_a_processor_taken_while_another_worker_steals_from_it_loses_no_task() {
    let taken = Taken::new();
    let count = taken.clone();
    check_with_preemptions(1, "two processors, one of which is taken", move || {
        tasks_run_beside_a_hand_off(2, 2, 2, take, &count);
    });
    taken.check();
}

#[test]
fn loom_a_processor_taken_while_the_runtime_ends_is_not_lost_and_its_tasks_end() {
    let taken = Taken::new();
    let count = taken.clone();
    check_with_preemptions(2, "a processor taken while the runtime ends", move || {
        let (scheduler, _) = scheduler(1);
        let tally = Tally::new();
        let task = QueuesAndYields::new(&scheduler, &tally, 1);
        let made = Arc::clone(&task.made);
        scheduler.schedule_global(task);
        let mut threads = start_workers(&scheduler, 1);
        threads.push(thread::spawn({
            let scheduler = Arc::clone(&scheduler);
            move || {
                scheduler.close();
                scheduler.sweep();
            }
        }));
        count.count(take(&scheduler, 0));
        finish(&scheduler, threads);
        scheduler.sweep();
        assert_eq!(tally.count.load(Ordering::Acquire), made.load(Ordering::Acquire));
    });
    taken.check();
}

/// Joins a task as `block_on` would.
fn join<T>(mut handle: JoinHandle<T>) -> Result<T, JoinError> {
    let tally = Tally::new();
    let waker = Waker::from(Arc::new(Count(Arc::clone(&tally))));
    for polls in 1.. {
        if let Poll::Ready(result) = Pin::new(&mut handle).poll(&mut Context::from_waker(&waker)) {
            return result;
        }
        tally.wait_for(polls);
    }
    unreachable!("it is polled until it is ready");
}

/// What meets the hand-off at the running task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Meets {
    Wake,
    Abort,
    End,
}

/// Counts its drops.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A real task runs while its worker's processor is taken and it is woken, aborted or ends.
fn a_task_beside_a_hand_off(meets: Meets) {
    let taken = Taken::new();
    let count = taken.clone();
    check_with_preemptions(1, &format!("a processor taken beside {meets:?}"), move || {
        let (scheduler, _) = scheduler(1);
        let dropped = Arc::new(AtomicUsize::new(0));
        // Through it the task gives its waker away.
        let (place, given, begun) = (Arc::new(Mutex::new(None)), Tally::new(), Tally::new());
        let (is_polled, is_ready) = (AtomicBool::new(false), Arc::new(AtomicBool::new(meets == Meets::End)));
        let counted = Counted(Arc::clone(&dropped));
        let future = {
            let (place, given, is_ready) = (Arc::clone(&place), Arc::clone(&given), Arc::clone(&is_ready));
            let begun = Arc::clone(&begun);
            poll_fn(move |context| {
                assert!(!is_polled.swap(true, Ordering::Relaxed), "it is polled twice at once");
                tell(&begun);
                let result = if is_ready.load(Ordering::Relaxed) {
                    Poll::Ready(7)
                } else {
                    *place.lock().unwrap() = Some(context.waker().clone());
                    tell(&given);
                    Poll::Pending
                };
                is_polled.store(false, Ordering::Relaxed);
                result
            })
        };
        let future = async move {
            let _counted = counted;
            future.await
        };
        let mut threads = start_workers(&scheduler, 2);
        let handle = JoinHandle::new(scheduler.spawn(future, Location::caller()));
        match meets {
            Meets::Wake => threads.push(thread::spawn(move || {
                given.wait_for(1);
                let waker: Option<Waker> = place.lock().unwrap().take();
                is_ready.store(true, Ordering::Relaxed);
                waker.expect("it was given").wake();
            })),
            Meets::Abort => {
                let (abort, begun) = (handle.abort_handle(), Arc::clone(&given));
                threads.push(thread::spawn(move || {
                    begun.wait_for(1);
                    abort.abort();
                }));
            }
            Meets::End => {}
        }
        begun.wait_for(1);
        count.count(take(&scheduler, 0));
        match join(handle) {
            Ok(output) => assert_eq!(output, 7),
            Err(error) => assert!(error.is_cancelled() && meets == Meets::Abort, "{error}"),
        }
        finish(&scheduler, threads);
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
        assert_eq!(scheduler.registry.len(), 0, "the task has not ended");
    });
    taken.check();
}

#[test]
fn loom_a_task_woken_while_its_workers_processor_is_taken_runs_again_once() {
    a_task_beside_a_hand_off(Meets::Wake);
}

#[test]
fn loom_a_task_aborted_while_its_workers_processor_is_taken_ends_once() {
    a_task_beside_a_hand_off(Meets::Abort);
}

#[test]
fn loom_a_task_that_ends_while_its_workers_processor_is_taken_gives_its_output_once() {
    a_task_beside_a_hand_off(Meets::End);
}

/// What who takes a processor or its former worker leaves out in the following models.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Omission {
    Nothing,
    /// The `next` slot's task becomes one of the queue, H2.
    Demotion,
    /// Nobody owns the processor any more, H2.
    Disowning,
    /// The look whether somebody is wanted, where no task is queued, H3.
    Notice,
    /// The waking of the worker that gets the processor, H3.
    Delivery,
    /// The barrier before that, N5.
    Barrier,
    /// The look at the owner after the piece, W2.
    Owner,
}

/// The steps H of `Scheduler::hand_off`, but for the omission.
fn hand_off(scheduler: &Arc<Scheduler>, seat: &Seat, omission: Omission) -> bool {
    let processor = &scheduler.processors[0];
    let mut core = processor.lock();
    if core.owner != Some(seat.id) || seat.piece() != 1 {
        return false;
    }
    if omission != Omission::Disowning {
        core.owner = None;
    }
    if omission != Omission::Demotion {
        core.demote_next();
    }
    drop(core);
    if processor.queue_len() > 0 {
        let claim = scheduler.idle.hand_over(0);
        match claim {
            Claim::Worker(_) if omission == Omission::Delivery => {}
            Claim::Worker(Claimed::InPoller) if omission == Omission::Barrier => {
                scheduler.poller.interrupt_if_after(Tick::from_nanos(0));
            }
            claim => scheduler.staff(claim),
        }
    } else {
        scheduler.idle.release(0);
        full_barrier();
        if omission != Omission::Notice && scheduler.idle.wants_worker() {
            scheduler.wake_one();
        }
    }
    true
}

/// A seat that holds the processor and is in its first piece of user code.
fn stuck_seat(scheduler: &Arc<Scheduler>) -> Arc<Seat> {
    let driver = Driver::new(scheduler);
    scheduler.processors[0].lock().owner = Some(driver.seat.id);
    driver.seat.begin_piece();
    driver.seat
}

/// A piece ends while the processor is taken, and nobody else is there. The former worker goes on by the steps W and
/// S: it runs what it has the processor for (with `yields`, what ran asks to be queued again), and instead of sleeping
/// looks whether something is left.
fn comes_back(yields: bool, omission: Omission) {
    check_with_preemptions(4, &format!("bare return: {yields}, without {omission:?}"), move || {
        let (scheduler, _) = scheduler(1);
        let tally = Tally::new();
        let job = || Arc::new(Job(Arc::clone(&tally)));
        let seat = stuck_seat(&scheduler);
        let _ = scheduler.processors[0].lock().push(job(), Place::Next);
        let taker = thread::spawn({
            let (scheduler, seat) = (Arc::clone(&scheduler), Arc::clone(&seat));
            move || hand_off(&scheduler, &seat, omission)
        });
        seat.end_piece();
        let mut taker = Some(taker);
        let mut again: Option<TaskRef> = yields.then(|| job() as _);
        loop {
            let mut core = scheduler.processors[0].lock(); // W2
            let is_owner = core.owner == Some(seat.id) || omission == Omission::Owner;
            let mut tasks = Vec::new();
            if is_owner {
                if let Some(task) = again.take() {
                    core.push(task, Place::Back);
                }
                tasks.extend(core.pop());
                if tasks.is_empty() {
                    core.owner = None;
                }
            }
            drop(core);
            if let Some(task) = again.take() {
                scheduler.schedule_global(task); // W3
            }
            if is_owner && tasks.is_empty() {
                scheduler.global.pop(1, &mut tasks);
                if !tasks.is_empty() {
                    scheduler.processors[0].lock().owner = Some(seat.id);
                }
            }
            if !tasks.is_empty() {
                tasks.into_iter().for_each(|task| drop(task.run()));
                continue;
            }
            scheduler.idle.enter(is_owner.then_some(0), &seat, false); // S2
            full_barrier(); // S3
            let left = scheduler.work_is_visible().then(|| scheduler.idle.leave(&seat, Leave::IfUseful)); // S4
            let has_left = matches!(left, Some(Left::With(_)));
            if !has_left && let Some(taker) = taker.take() {
                taker.join().unwrap();
            }
            if !has_left && seat.take_assigned().is_none() {
                break;
            }
            scheduler.idle.end_search();
            let former = scheduler.processors[0].lock().owner.replace(seat.id);
            assert_eq!(former, None, "a processor has two owners");
        }
        assert_eq!(scheduler.idle.processors(), 1, "a processor has two owners");
        assert_eq!(tally.count.load(Ordering::Acquire), 1 + usize::from(yields), "a task is left behind");
        assert_eq!(scheduler.idle.searching(), 0);
    });
}

#[test]
fn loom_a_worker_that_comes_back_has_its_processor_or_somebody_else_has() {
    comes_back(true, Omission::Nothing);
    comes_back(false, Omission::Nothing);
}

#[test]
#[should_panic(expected = "a processor has two owners")]
fn loom_canary_a_worker_that_does_not_look_at_the_owner_gives_the_processor_up_twice() {
    comes_back(true, Omission::Owner);
}

#[test]
#[should_panic(expected = "a processor has two owners")]
fn loom_canary_a_taken_processor_that_still_names_its_owner_is_given_up_twice() {
    comes_back(true, Omission::Disowning);
}

#[test]
#[should_panic(expected = "a task is left behind")]
fn loom_canary_a_task_left_in_the_next_slot_of_a_taken_processor_is_not_seen() {
    comes_back(false, Omission::Demotion);
}

/// A worker without a processor goes to sleep in the poller while one is taken, with a task in its queue or beside a
/// task that waits globally. Instead of sleeping it waits for the taker, and looks whether it would have been woken.
fn sits_while_a_processor_is_taken(is_queued: bool, omission: Omission) {
    check_with_preemptions(4, &format!("bare sitter: {is_queued}, without {omission:?}"), move || {
        let (scheduler, readiness) = scheduler(1);
        let job = Arc::new(Job(Tally::new()));
        let stuck = stuck_seat(&scheduler);
        if is_queued {
            let _ = scheduler.processors[0].lock().push(job, Place::Next);
        } else {
            scheduler.schedule_global(job);
        }
        let taker = thread::spawn({
            let scheduler = Arc::clone(&scheduler);
            move || assert!(hand_off(&scheduler, &stuck, omission))
        });
        let seat = scheduler.threads.new_seat(usize::MAX).unwrap();
        let mut turn = scheduler.poller.try_turn().expect("nobody else polls");
        scheduler.idle.enter(None, &seat, true);
        let announced = turn.announce(Tick::NEVER);
        let is_assigned = seat.assigned().is_some();
        let leaves =
            || matches!(scheduler.idle.leave(&seat, Leave::IfUseful), Left::With(_) | Left::Assigned);
        let stays = !(is_assigned || scheduler.work_is_visible() && leaves());
        taker.join().unwrap();
        announced.withdraw();
        drop(turn);
        let woken = readiness.state.lock().unwrap().interrupted;
        assert!(!stays || woken, "a task is left behind");
    });
}

#[test]
fn loom_a_worker_that_goes_to_sleep_in_the_poller_gets_a_processor_that_is_taken() {
    sits_while_a_processor_is_taken(true, Omission::Nothing);
    sits_while_a_processor_is_taken(false, Omission::Nothing);
}

#[test]
#[should_panic(expected = "a task is left behind")]
fn loom_canary_a_worker_that_is_not_woken_oversleeps_the_processor_that_it_is_given() {
    sits_while_a_processor_is_taken(true, Omission::Delivery);
}

#[test]
#[should_panic(expected = "a task is left behind")]
fn loom_canary_a_worker_woken_without_a_barrier_oversleeps_the_processor_that_it_is_given() {
    sits_while_a_processor_is_taken(true, Omission::Barrier);
}

#[test]
#[should_panic(expected = "a task is left behind")]
fn loom_canary_a_processor_given_up_without_notice_leaves_the_task_that_waits_for_one() {
    sits_while_a_processor_is_taken(false, Omission::Notice);
}
