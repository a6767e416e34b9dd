//! 100,000 tasks whose sleeps end spread evenly over a second: CPU time for each, and how late they
//! are. The time of the command line does not apply.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::measure::{Figure, Measurement, Meter};
use crate::peers::Peer;
use crate::statistics::percentile;

const TIMERS: u64 = 100_000;
const SPREAD: Duration = Duration::from_secs(1);
/// Time to spawn the tasks before the first timer is due.
const LEAD: Duration = Duration::from_secs(2);

pub(super) fn run<P: Peer>(peer: &P) -> Measurement {
    peer.run(fire::<P>())
}

/// How many sleep still, and who waits for the last one.
struct Sleepers {
    left: AtomicU64,
    done: Mutex<Option<oneshot::Sender<()>>>,
}

async fn sleeper<P: Peer>(at: Instant, sleepers: Arc<Sleepers>) -> Duration {
    P::sleep_until(at).await;
    let late = at.elapsed();
    if sleepers.left.fetch_sub(1, Ordering::Relaxed) == 1 {
        let done = sleepers.done.lock().expect("nobody panics with it").take();
        done.expect("it is sent once").send(()).expect("the one who waits");
    }
    late
}

async fn fire<P: Peer>() -> Measurement {
    let (done, wait) = oneshot::channel();
    let sleepers = Arc::new(Sleepers { left: AtomicU64::new(TIMERS), done: Mutex::new(Some(done)) });
    let start = Instant::now() + LEAD;
    let at = |n| start + SPREAD.mul_f64(n as f64 / TIMERS as f64);
    let tasks: Vec<_> = (0..TIMERS).map(|n| P::spawn(sleeper::<P>(at(n), Arc::clone(&sleepers)))).collect();
    P::sleep_until(start - LEAD / 10).await;
    let on_time = Instant::now() < start;
    let meter = Meter::start();
    wait.await.expect("the last sleeper");
    assert!(on_time, "{TIMERS} tasks took more than {LEAD:?} to spawn: the machine is too slow for this");
    let mut measurement = meter.stop_with(TIMERS, Vec::new());
    let mut late = Vec::with_capacity(tasks.len());
    for task in tasks {
        late.push(task.await.expect("a sleeper").as_nanos() as f64);
    }
    measurement.figures = vec![
        Figure::nanoseconds("CPU", measurement.cost.cpu_ns),
        Figure::nanoseconds("late p50", percentile(&mut late, 0.5)),
        Figure::nanoseconds("late p99", percentile(&mut late, 0.99)),
    ];
    measurement
}
