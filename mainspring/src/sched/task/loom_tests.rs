//! Models of what meets at a task: wakes, runs, aborts, its end, and who waits for it or goes away.
//!
//! The scheduler is a queue behind a mutex, and any thread may run what is in it. Two canaries are the
//! same models with one step left out, and have to fail. What the futures read and write is relaxed, so
//! that only the slot's own ordering can make it visible.

use std::any::Any;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Wake;

use loom::thread;

use super::slot::{Slot, Suspended};
use super::*;
use crate::base::park::Parker;
use crate::base::primitive::Mutex;
use crate::base::primitive::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Any thread's way to run what was queued.
#[derive(Clone)]
struct Queue {
    tasks: Arc<Mutex<VecDeque<TaskRef>>>,
    finished: Arc<AtomicUsize>,
}

impl Schedule for Queue {
    fn schedule(&self, task: TaskRef) {
        assert_unlocked("queue a task");
        self.tasks.lock().unwrap().push_back(task);
    }

    fn finished(&self, _: Id, _: Registration) {
        self.finished.fetch_add(1, Ordering::Relaxed);
    }

    /// No future of these models panics: this is one of loom's own findings, made while it was polled
    /// or dropped.
    fn panicked(&self, payload: &(dyn Any + Send)) {
        let message = payload.downcast_ref::<String>().map_or("no message", String::as_str);
        panic!("in a future: {message}");
    }
}

impl Queue {
    fn new() -> Queue {
        Queue { tasks: Arc::new(Mutex::new(VecDeque::new())), finished: Arc::new(AtomicUsize::new(0)) }
    }

    /// Runs one entry, if there is one.
    fn run_one(&self) -> bool {
        let task = self.tasks.lock().unwrap().pop_front();
        let Some(task) = task else { return false };
        if let Some(again) = task.run() {
            self.schedule(again);
        }
        true
    }

    fn run_all(&self) {
        while self.run_one() {}
    }

    fn spawn<F>(&self, future: F) -> Arc<Cell<F, Queue>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let task = Cell::new(future, self.clone(), std::panic::Location::caller());
        task.enqueue();
        task
    }
}

/// Counts how often it, or what it is in, is dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn count() -> Arc<AtomicUsize> {
    Arc::new(AtomicUsize::new(0))
}

fn get(count: &AtomicUsize) -> usize {
    count.load(Ordering::Relaxed)
}

struct Unpark(Parker);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        assert_unlocked("call a waker");
        self.0.unpark();
    }
}

/// Joins a task as `block_on` would, with a new waker for every poll.
fn join<T>(mut handle: JoinHandle<T>) -> Result<T, JoinError> {
    loop {
        let unpark = Arc::new(Unpark(Parker::new()));
        let waker = Waker::from(Arc::clone(&unpark));
        let mut context = Context::from_waker(&waker);
        if let Poll::Ready(result) = Pin::new(&mut handle).poll(&mut context) {
            assert!(handle.is_finished(), "it gave a result and has not ended");
            return result;
        }
        unpark.0.park();
    }
}

/// Ready when every flag is set.
fn all_set(flags: Arc<[AtomicBool; 2]>) -> impl Future<Output = ()> + Send {
    poll_fn(move |_| {
        if flags.iter().all(|flag| flag.load(Ordering::Relaxed)) { Poll::Ready(()) } else { Poll::Pending }
    })
}

/// Two threads set a flag each and wake; one of them also runs what is queued, as does the main thread.
fn wake_run_wake(requeue: bool) {
    loom::model(move || {
        let queue = Queue::new();
        let flags = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
        let task = queue.spawn(all_set(Arc::clone(&flags)));
        let wakers: Vec<_> = (0..2)
            .map(|n| {
                let (queue, flags, waker) =
                    (queue.clone(), Arc::clone(&flags), Waker::from(Arc::clone(&task)));
                thread::spawn(move || {
                    flags[n].store(true, Ordering::Relaxed);
                    waker.wake();
                    if n == 0 {
                        queue.run_one();
                    }
                })
            })
            .collect();
        let entry = queue.tasks.lock().unwrap().pop_front();
        if let Some(again) = entry.and_then(|task| task.run())
            && requeue
        {
            queue.schedule(again);
        }
        wakers.into_iter().for_each(|waker| waker.join().unwrap());
        queue.run_all();
        assert!(task.is_finished(), "a wake was lost");
        assert_eq!(get(&queue.finished), 1);
    });
}

#[test]
fn loom_wakes_while_it_runs_are_neither_lost_nor_doubled() {
    wake_run_wake(true);
}

#[test]
#[should_panic(expected = "a wake was lost")]
fn loom_canary_a_task_woken_while_it_ran_is_not_queued_again() {
    wake_run_wake(false);
}

/// One run, and a wake at the same time whose caller queues and runs the task if it is told to.
fn wake_while_running(wake: fn(&Slot<Pending>) -> bool) {
    loom::model(move || {
        // SAFETY: the slot lives in an Arc and is never moved out of it.
        #[allow(unsafe_code)]
        let slot = Arc::new(unsafe { Slot::new(std::future::pending()) });
        let waker = thread::spawn({
            let slot = Arc::clone(&slot);
            move || {
                if wake(&slot) {
                    poll_once(&slot);
                }
            }
        });
        if poll_once(&slot) == Suspended::Woken {
            poll_once(&slot);
        }
        waker.join().unwrap();
    });
}

type Pending = std::future::Pending<()>;

fn poll_once(slot: &Slot<Pending>) -> Suspended {
    let mut run = slot.start();
    assert!(run.poll(&mut Context::from_waker(Waker::noop())).is_pending());
    run.suspend()
}

#[test]
fn loom_a_wake_while_it_runs_leaves_the_queueing_to_the_run() {
    wake_while_running(Slot::wake);
}

#[test]
#[should_panic(expected = "without a queue entry")]
fn loom_canary_a_wake_that_does_not_look_for_a_run() {
    wake_while_running(Slot::wake_as_if_not_running);
}

#[test]
fn loom_an_abort_beside_a_run_and_a_wake_ends_the_task_once() {
    loom::model(|| {
        let queue = Queue::new();
        let dropped = count();
        let flags = Arc::new([AtomicBool::new(true), AtomicBool::new(false)]);
        let future = {
            let (ready, counted) = (all_set(Arc::clone(&flags)), Counted(Arc::clone(&dropped)));
            async move {
                let _counted = counted;
                ready.await;
            }
        };
        let task = queue.spawn(future);
        let handle = JoinHandle::new(Arc::clone(&task) as _);
        let aborter = thread::spawn({
            let abort = handle.abort_handle();
            move || abort.abort()
        });
        let waker = thread::spawn({
            let waker = Waker::from(Arc::clone(&task));
            move || {
                flags[1].store(true, Ordering::Relaxed);
                waker.wake();
            }
        });
        queue.run_one();
        aborter.join().unwrap();
        waker.join().unwrap();
        queue.run_all();
        assert!(handle.is_finished());
        assert_eq!((get(&dropped), get(&queue.finished)), (1, 1));
        let result = join(handle);
        assert!(result.is_ok() || result.unwrap_err().is_cancelled());
    });
}

#[test]
fn loom_who_joins_gets_the_output_once_and_is_woken() {
    loom::model(|| {
        let queue = Queue::new();
        let dropped = count();
        let counted = Counted(Arc::clone(&dropped));
        let handle = JoinHandle::<Counted>::new(queue.spawn(async move { counted }));
        let runner = thread::spawn(move || queue.run_all());
        let output: Counted = join(handle).unwrap();
        assert_eq!(get(&output.0), 0, "the output was dropped before it was given");
        drop(output);
        runner.join().unwrap();
        assert_eq!(get(&dropped), 1);
    });
}

#[test]
fn loom_who_joins_an_aborted_task_is_woken_whatever_wins() {
    loom::model(|| {
        let queue = Queue::new();
        let dropped = count();
        let counted = Counted(Arc::clone(&dropped));
        let handle = JoinHandle::<Counted>::new(queue.spawn(async move { counted }));
        let abort = handle.abort_handle();
        let runner = thread::spawn(move || queue.run_all());
        let aborter = thread::spawn(move || abort.abort());
        let result = join(handle);
        assert!(result.as_ref().map_or_else(JoinError::is_cancelled, |_| true));
        drop(result);
        runner.join().unwrap();
        aborter.join().unwrap();
        assert_eq!(get(&dropped), 1);
    });
}

#[test]
fn loom_a_handle_that_goes_away_at_the_end_leaves_the_output_to_one() {
    loom::model(|| {
        let queue = Queue::new();
        let dropped = count();
        let counted = Counted(Arc::clone(&dropped));
        let mut handle = JoinHandle::<Counted>::new(queue.spawn(async move { counted }));
        let runner = thread::spawn(move || queue.run_all());
        // Polled once, so that there may be a waker that nobody wants any more.
        let polled = Pin::new(&mut handle).poll(&mut Context::from_waker(Waker::noop()));
        drop(handle);
        drop(polled);
        runner.join().unwrap();
        assert_eq!(get(&dropped), 1);
    });
}
