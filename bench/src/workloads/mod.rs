//! The workloads, each in a file of its own and the same for every peer.

mod chained_spawn;
mod echo;
mod http_hello;
mod ping_pong;
mod sleep_50us;
mod spawn_many;
mod timer_churn;
mod timer_fire;
mod timer_reset;
mod yield_many;

use std::fmt;
use std::future::Future;
use std::io;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::measure::{Measurement, Meter, Outcome};
use crate::peers::Peer;

/// What the command line says about a measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) time: Duration,
}

/// The workloads, in the order in which they are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[value(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub(crate) enum WorkloadName {
    /// A task spawns a million tasks that do nothing, and joins them
    SpawnMany,
    /// Each task spawns the next one, a million in a row
    ChainedSpawn,
    /// 200 tasks yield 5,000 times each
    YieldMany,
    /// Spawn a partner, and exchange a message with it by two oneshot channels
    PingPong,
    /// Arm a sleep of 30 s and drop it, in two tasks
    TimerChurn,
    /// Move a pending sleep later, in two tasks
    TimerReset,
    /// 100,000 tasks whose sleeps end spread over a second
    TimerFire,
    /// Sleeps of 50 us, one after the other, with nothing else to do
    #[value(name = "sleep_50us")]
    #[serde(rename = "sleep_50us")]
    Sleep50us,
    /// TCP echo of 64 bytes on 64 connections, load from another process
    Echo,
    /// HTTP/1.1 by hyper, 64 connections, load from wrk
    HttpHello,
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("no workload is hidden");
        f.write_str(value.get_name())
    }
}

pub(crate) fn run<P: Peer>(peer: &P, name: WorkloadName, plan: Plan) -> io::Result<Outcome> {
    let measurement = match name {
        WorkloadName::SpawnMany => spawn_many::run(peer, plan),
        WorkloadName::ChainedSpawn => chained_spawn::run(peer, plan),
        WorkloadName::YieldMany => yield_many::run(peer, plan),
        WorkloadName::PingPong => ping_pong::run(peer, plan),
        WorkloadName::TimerChurn => timer_churn::run(peer, plan),
        WorkloadName::TimerReset => timer_reset::run(peer, plan),
        WorkloadName::TimerFire => timer_fire::run(peer),
        WorkloadName::Sleep50us => sleep_50us::run(peer, plan),
        WorkloadName::Echo => return echo::run(peer, plan).map(Outcome::Measured),
        WorkloadName::HttpHello => return http_hello::run(peer, plan),
    };
    Ok(Outcome::Measured(measurement))
}

/// Repeats a batch of `operations` until the time is over, and measures it, after one batch that does
/// not count: it brings threads to life and memory into the allocator.
async fn in_batches<B>(plan: Plan, operations: u64, mut batch: impl FnMut() -> B) -> Measurement
where
    B: Future<Output = ()>,
{
    batch().await;
    let meter = Meter::start();
    let start = Instant::now();
    let mut done = 0;
    while start.elapsed() < plan.time {
        batch().await;
        done += operations;
    }
    meter.stop(done)
}

/// Runs `tasks` tasks that count their operations until the time is over, and measures them, after a
/// tenth of the time that does not count.
async fn in_tasks<P: Peer, T>(plan: Plan, tasks: usize, mut until: impl FnMut(Instant) -> T) -> Measurement
where
    T: Future<Output = u64> + Send + 'static,
{
    let mut phase = async |time: Duration| {
        let end = Instant::now() + time;
        let tasks: Vec<_> = (0..tasks).map(|_| P::spawn(until(end))).collect();
        let mut operations = 0;
        for task in tasks {
            operations += task.await.expect("a task that counts");
        }
        operations
    };
    phase(plan.time / 10).await;
    let meter = Meter::start();
    let operations = phase(plan.time).await;
    meter.stop(operations)
}
