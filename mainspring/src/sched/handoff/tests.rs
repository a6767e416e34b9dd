//! Tasks of all kinds while processors are taken at every moment that there is, by a thread that does nothing else.

use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use super::*;
use crate::base::alarm::Alarm;
use crate::base::clock::Clock;
use crate::base::park::Parker;
use crate::base::rng::Rng;
use crate::poll::poller::Poller;
use crate::sched::Parts;
use crate::sched::task::JoinHandle;
use crate::sched::threads::OsThreads;

/// How many tasks; fewer where each takes ten times as long.
const TASKS: u64 = if cfg!(mainspring_tsan) { 100_000 } else { 1_000_000 };

/// How many there are at a time.
const BATCH: u64 = 500;

/// Longer than a machine under load takes for a batch.
const LONG: Duration = Duration::from_secs(60);

fn scheduler(processors: usize) -> Arc<Scheduler> {
    let scheduler = Scheduler::new(Parts {
        processors,
        threads_max: 64,
        thread_name: "taken".to_owned(),
        panic_hook: None,
        handoff: Handoff::default(),
        handoff_hook: None,
        clock: Clock::Real,
        seed: 1,
        spawner: Box::new(OsThreads),
        poller: Poller::new().unwrap(),
        alarm: Alarm::new().unwrap(),
    });
    scheduler.start().unwrap();
    scheduler
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Takes every processor whose worker is in user code.
fn take_all(scheduler: &Arc<Scheduler>) {
    for processor in 0..scheduler.processors.len() {
        let owner = scheduler.processors[processor].lock().owner;
        let Some(seat) = owner.and_then(|owner| scheduler.threads.seat(owner)) else { continue };
        let piece = seat.piece();
        if piece % 2 == 1 {
            let since = scheduler.now();
            let cause = HandoffCause::Asleep;
            scheduler.hand_off(&seat, &Stuck { processor, worker: seat.id, piece, since, cause });
        }
    }
}

/// A future that notices if it is polled by two threads at once.
struct Alone<F> {
    future: Pin<Box<F>>,
    polled: AtomicBool,
}

impl<F: Future> Future for Alone<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        assert!(!self.polled.swap(true, Ordering::AcqRel), "a task is polled twice at once");
        let polled = self.future.as_mut().poll(context);
        self.polled.store(false, Ordering::Release);
        polled
    }
}

fn spawn<F>(scheduler: &Arc<Scheduler>, future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let future = Alone { future: Box::pin(future), polled: AtomicBool::new(false) };
    JoinHandle::new(scheduler.spawn(future, Location::caller()))
}

async fn yield_once() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Does something that a task may do, and gives a number that is known.
async fn act(scheduler: Arc<Scheduler>, number: u64) -> u64 {
    let mut rng = Rng::new(number);
    match rng.below(16) {
        0..4 => {}
        4..7 => {
            for _ in 0..rng.below(4) {
                yield_once().await;
            }
        }
        7..9 => {
            for _ in 0..rng.below(2_000) {
                std::hint::spin_loop();
            }
        }
        9 => std::thread::yield_now(),
        10 => std::thread::sleep(Duration::from_micros(rng.below(50) as u64)),
        11 => {
            let _declared = declare_blocking();
            std::thread::yield_now();
        }
        12 => return spawn(&scheduler, async move { number }).await.unwrap(),
        13 => {
            let inner = spawn(&scheduler, async move {
                yield_once().await;
                number
            });
            yield_once().await;
            return inner.await.unwrap();
        }
        14 => {
            let inner = spawn(&scheduler, std::future::pending::<()>());
            yield_once().await;
            inner.abort();
            assert!(inner.await.unwrap_err().is_cancelled());
        }
        _ => release_processor(),
    }
    number
}

/// Waits on a plain thread.
fn wait_for<F: Future>(future: F) -> F::Output {
    struct Unpark(Parker);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let unpark = Arc::new(Unpark(Parker::new()));
    let waker = Waker::from(Arc::clone(&unpark));
    let mut future = std::pin::pin!(future);
    let start = Instant::now();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        if !unpark.0.park_timeout(LONG) {
            panic!("nothing has moved for {:?}", start.elapsed());
        }
    }
}

#[test]
fn a_million_tasks_whose_processors_are_taken_all_the_time_run_once_each() {
    for processors in [1, 2, 3] {
        let scheduler = scheduler(processors);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    take_all(&scheduler);
                    std::thread::yield_now();
                }
            });
            // Also if this thread panics: else the other one would go on for ever.
            let _over = SetOnDrop(&over);
            let mut first = 0;
            while first < TASKS / 3 {
                let root = {
                    let scheduler = Arc::clone(&scheduler);
                    async move {
                        let numbers = first..first + BATCH;
                        let children: Vec<_> = numbers
                            .map(|number| spawn(&scheduler, act(Arc::clone(&scheduler), number)))
                            .collect();
                        let mut sum = 0;
                        for child in children {
                            sum += child.await.unwrap();
                        }
                        sum
                    }
                };
                let batch = wait_for(spawn(&scheduler, root)).unwrap();
                assert_eq!(batch, (first..first + BATCH).sum::<u64>());
                first += BATCH;
            }
        });
        let metrics = scheduler.metrics();
        assert_eq!(metrics.tasks_alive, 0);
        assert!(metrics.handoffs_asleep > 100, "hardly any processor was taken");
        assert_eq!(scheduler.shut_down(LONG), 0);
        assert_eq!(scheduler.idle.processors(), processors, "a processor was lost");
        assert_eq!(scheduler.idle.searching(), 0);
    }
}
