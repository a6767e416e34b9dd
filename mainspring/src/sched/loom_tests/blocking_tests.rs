//! Models of the blocking pool where no thread can be had: a job against the workers that go to sleep.
//!
//! The workers are the real ones, on the models' poller. A job that is left behind shows as a deadlock, as does a worker
//! that sleeps outside of the lists: shutdown does not find it. What is not modelled is the limit of the tickets, and
//! threads that are started for jobs.

use super::*;

/// Runs what `publish` publishes, `count` tasks and jobs.
fn jobs_are_run(workers: usize, processors: usize, count: usize, publish: fn(&Arc<Scheduler>, &Arc<Tally>)) {
    let (scheduler, _) = scheduler(processors);
    let tally = Tally::new();
    let threads = start_workers(&scheduler, workers);
    publish(&scheduler, &tally);
    tally.wait_for(count);
    finish(&scheduler, threads);
    assert_eq!(tally.count.load(Ordering::Acquire), count, "a job was run twice");
    assert_eq!(scheduler.blocking.threads(), 0, "a ticket was not given back");
    assert!(!scheduler.blocking.wants_thread());
}

fn job(tally: &Arc<Tally>) -> TaskRef {
    Arc::new(Job(Arc::clone(tally)))
}

#[test]
fn loom_a_job_for_which_nobody_parks_is_run_by_a_worker() {
    check("one worker, one job", || {
        jobs_are_run(1, 1, 1, |scheduler, tally| scheduler.schedule_blocking(job(tally)));
    });
}

#[test]
fn loom_a_job_is_run_beside_a_worker_that_is_about_to_park() {
    check("two workers, one job", || {
        jobs_are_run(2, 1, 1, |scheduler, tally| scheduler.schedule_blocking(job(tally)));
    });
}

#[test]
fn loom_of_two_jobs_for_one_parked_worker_none_is_left_behind() {
    check_with_preemptions(1, "two workers, two jobs", || {
        jobs_are_run(2, 1, 2, |scheduler, tally| {
            scheduler.schedule_blocking(job(tally));
            scheduler.schedule_blocking(job(tally));
        });
    });
}

/// A worker that is about to park is claimed for a job in the moment in which it sees a task. Its processor is somebody
/// else's, who takes his time, and the poller is attended.
#[test]
fn loom_a_worker_claimed_for_a_job_as_it_sees_a_task_sleeps_in_the_lists_again() {
    check_with_preemptions(3, "a worker about to park, a task and a job", || {
        let (scheduler, _) = scheduler(1);
        let tally = Tally::new();
        let driver = Driver::new(&scheduler);
        let turn = scheduler.poller.try_turn().expect("nobody else polls");
        let threads = start_workers(&scheduler, 1);
        scheduler.schedule_global(job(&tally));
        scheduler.schedule_blocking(job(&tally));
        driver.run();
        tally.wait_for(2);
        drop(turn);
        scheduler.idle.release(driver.processor);
        finish(&scheduler, threads);
        assert_eq!(scheduler.blocking.threads(), 0, "a ticket was not given back");
    });
}

/// A worker puts its processor among the idle ones, and is claimed for a job before it has looked once more for what was
/// published just before. The job lasts: nobody comes back to look after it. By the steps of `Worker::sleep` and with
/// `looks`, what the real worker does before its first job; another worker sits in the poller.
fn is_claimed_for_a_job_before_it_looks(looks: bool) {
    check_with_preemptions(4, &format!("bare, claimed for a job, looks: {looks}"), move || {
        let (scheduler, _) = scheduler(1);
        let driver = Driver::new(&scheduler);
        let sitter = scheduler.threads.new_seat(usize::MAX).unwrap();
        let mut turn = scheduler.poller.try_turn().expect("nobody else polls");
        scheduler.idle.enter(None, &sitter, true);
        let announced = turn.announce(Tick::NEVER);
        let publisher = thread::spawn({
            let scheduler = Arc::clone(&scheduler);
            move || scheduler.schedule_global(job(&Tally::new()))
        });
        let claimer = thread::spawn({
            let scheduler = Arc::clone(&scheduler);
            move || drop(scheduler.idle.claim_for_jobs())
        });
        let seat = &driver.seat;
        let worker = Worker::new(&scheduler, Arc::clone(seat));
        scheduler.idle.enter(Some(driver.processor), seat, false); // S2
        full_barrier(); // S3
        let sees = scheduler.work_is_visible(); // S4
        let left = if sees { Some(scheduler.idle.leave(seat, Leave::IfUseful)) } else { None };
        claimer.join().unwrap();
        let assigned = seat.take_assigned();
        if looks && assigned == Some(Assigned::Jobs) {
            worker.look_before_jobs();
        }
        publisher.join().unwrap();
        let has_processor = matches!(left, Some(Left::With(_)))
            || matches!(assigned.or(seat.assigned()), Some(Assigned::Processor(_)));
        assert!(has_processor || sitter.assigned().is_some(), "a task is left behind");
        announced.withdraw();
    });
}

#[test]
fn loom_a_worker_claimed_for_a_job_leaves_what_it_was_to_look_for_to_somebody_else() {
    is_claimed_for_a_job_before_it_looks(true);
}

#[test]
#[should_panic(expected = "a task is left behind")]
fn loom_canary_a_worker_that_runs_a_job_before_it_has_looked_leaves_a_task_behind() {
    is_claimed_for_a_job_before_it_looks(false);
}
