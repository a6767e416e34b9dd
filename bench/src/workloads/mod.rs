//! The workloads, each in a file of its own and the same for every peer.

mod beside_blockers;
mod blockers;
mod blocking_empty;
mod bursts;
mod chained_spawn;
mod deadline_set;
mod echo;
mod echo_blockers;
mod echo_server;
mod general_load;
mod http_hello;
mod idle_conns;
mod idle_ticker;
mod inline_blocking;
mod operations;
mod parallel_sort;
mod ping_pong;
mod read_deadline;
mod sleep_50us;
mod sleepers;
mod spawn_many;
mod timer_burst;
mod timer_churn;
mod timer_churn_10m;
mod timer_fire;
mod timer_lateness;
mod timer_reset;
mod timer_reset_160k;
mod timer_restart;
mod us_handlers;
mod work;
mod yield_many;

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::{Serialize, Serializer};

use self::blockers::Blockers;
use self::deadline_set::StandIn;
pub(crate) use self::operations::{OperationName, ping};
use crate::measure::{Measurement, Meter, Outcome};
use crate::peers::{Job, Peer};

/// What the command line says about a measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) time: Duration,
}

/// The workloads, in the order in which they are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
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
    /// The same in a hundred tasks
    #[value(name = "timer_churn_100")]
    TimerChurn100,
    /// The same in two tasks while 10 million other sleeps are pending, and the memory of those
    #[value(name = "timer_churn_10m")]
    TimerChurn10m,
    /// Stop a function's timer of 30 s and start it again, in two tasks
    TimerRestart,
    /// Move a pending sleep later, to a given time, in two tasks
    TimerReset,
    /// The same, but the clock is read for each move
    TimerResetNow,
    /// Move 160,000 pending sleeps in a random order, later and then earlier, in two tasks
    #[value(name = "timer_reset_160k")]
    TimerReset160k,
    /// 100,000 tasks whose sleeps end spread over a second
    TimerFire,
    /// The same with a million tasks
    #[value(name = "timer_fire_1m")]
    TimerFire1m,
    /// 1000 tasks that sleep 0.1 to 5 ms, over and over
    #[value(name = "timer_lateness_1000")]
    TimerLateness1000,
    /// The same with ten tasks
    #[value(name = "timer_lateness_10")]
    TimerLateness10,
    /// The sleeps of 100,000 tasks end at once beside a task that yields in a loop
    TimerBurst,
    /// Sleeps of 50 us, one after the other, with nothing else to do
    #[value(name = "sleep_50us")]
    Sleep50us,
    /// 200 tasks that sleep 0.1 to 5 ms, over and over, beside one that blocks its thread asleep, often
    #[value(name = "blockers_sleep_1")]
    BlockersSleep1,
    /// The same beside two that do so at the same time, as many as there are processors
    #[value(name = "blockers_sleep_2")]
    BlockersSleep2,
    /// The same beside one that computes for long, often
    #[value(name = "blockers_spin_1")]
    BlockersSpin1,
    /// The same beside two that do so at the same time
    #[value(name = "blockers_spin_2")]
    BlockersSpin2,
    /// The same beside two that sleep, for a second out of two
    Bursts,
    /// 1,000 tasks that block their thread for 1 ms each, and a ticker beside them
    InlineBlocking,
    /// The same in the way that the peer's documentation tells users to block
    InlineBlockingDeclared,
    /// The same, declared to the runtime but on the task's own thread
    InlineBlockingInPlace,
    /// 64 tasks that compute for 1 to 200 ms each, spawned at once
    GeneralLoad,
    /// Merge sort of 4 million numbers, a task for each half
    ParallelSort,
    /// Tasks that sleep 500 us, spawn a few that are done in a microsecond, and await those, over and over
    UsHandlers,
    /// Declare that a function blocks which does nothing
    BlockingEmpty,
    /// A ticker of 1 s in a process that is otherwise idle, for 10 s at the least
    IdleTicker,
    /// Read the clock and set a fresh deadline for what is ready at once, in two tasks
    DeadlineSet,
    /// The same for what is pending at first
    DeadlineWait,
    /// 8,000 connections that wait to read for an hour at most: memory, and what the server does meanwhile
    IdleConns,
    /// The same without a deadline
    IdleConnsPlain,
    /// TCP echo of 64 bytes on 64 connections, load from another process
    Echo,
    /// The same with a fresh deadline before each read, and without, in turn
    ReadDeadline,
    /// The same, with a task beside it that blocks its thread asleep, often, and without, in turn
    #[value(name = "echo_blockers_sleep_1")]
    EchoBlockersSleep1,
    /// The same with two that do so at the same time
    #[value(name = "echo_blockers_sleep_2")]
    EchoBlockersSleep2,
    /// The same with one that computes for long, often
    #[value(name = "echo_blockers_spin_1")]
    EchoBlockersSpin1,
    /// The same with two that do so at the same time
    #[value(name = "echo_blockers_spin_2")]
    EchoBlockersSpin2,
    /// The same with none in either turn: what noise there is in the comparison
    #[value(name = "echo_blockers_0")]
    EchoBlockers0,
    /// HTTP/1.1 by hyper, 64 connections, load from wrk
    HttpHello,
    /// The same by an app of axum's, behind the server that the peer's users give it to
    HttpAxum,
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("no workload is hidden");
        f.write_str(value.get_name())
    }
}

impl Serialize for WorkloadName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A workload, to be measured as planned.
#[derive(Debug)]
pub(crate) struct Measure(pub(crate) WorkloadName, pub(crate) Plan);

impl Job for Measure {
    type Output = Outcome;

    fn on<P: Peer>(self, peer: &P) -> io::Result<Outcome> {
        let Measure(name, plan) = self;
        run(peer, name, plan)
    }
}

/// An operation, to be done so many times, with a deadline or without; nothing is measured.
#[derive(Debug)]
pub(crate) struct Operate {
    pub(crate) operation: OperationName,
    pub(crate) deadline: bool,
    pub(crate) times: u64,
}

impl Job for Operate {
    type Output = ();

    fn on<P: Peer>(self, peer: &P) -> io::Result<()> {
        operations::operate(peer, self.operation, self.deadline, self.times)
    }
}

fn run<P: Peer>(peer: &P, name: WorkloadName, plan: Plan) -> io::Result<Outcome> {
    let measurement = match name {
        WorkloadName::SpawnMany => spawn_many::run(peer, plan),
        WorkloadName::ChainedSpawn => chained_spawn::run(peer, plan),
        WorkloadName::YieldMany => yield_many::run(peer, plan),
        WorkloadName::PingPong => ping_pong::run(peer, plan),
        WorkloadName::TimerChurn => timer_churn::run(peer, plan, 2),
        WorkloadName::TimerChurn100 => timer_churn::run(peer, plan, 100),
        WorkloadName::TimerChurn10m => timer_churn_10m::run(peer, plan),
        WorkloadName::TimerRestart => return Ok(timer_restart::run(peer, plan)),
        WorkloadName::TimerReset => timer_reset::run(peer, plan),
        WorkloadName::TimerResetNow => timer_reset::run_now(peer, plan),
        WorkloadName::TimerReset160k => timer_reset_160k::run(peer, plan),
        WorkloadName::TimerFire => timer_fire::run(peer, 100_000, Duration::from_secs(2)),
        WorkloadName::TimerFire1m => timer_fire::run(peer, 1_000_000, Duration::from_secs(6)),
        WorkloadName::TimerLateness1000 => timer_lateness::run(peer, plan, 1000),
        WorkloadName::TimerLateness10 => timer_lateness::run(peer, plan, 10),
        WorkloadName::TimerBurst => timer_burst::run(peer),
        WorkloadName::Sleep50us => sleep_50us::run(peer, plan),
        WorkloadName::BlockersSleep1 => beside_blockers::run(peer, plan, Blockers::asleep(1)),
        WorkloadName::BlockersSleep2 => beside_blockers::run(peer, plan, Blockers::asleep(2)),
        WorkloadName::BlockersSpin1 => beside_blockers::run(peer, plan, Blockers::on_cpu(1)),
        WorkloadName::BlockersSpin2 => beside_blockers::run(peer, plan, Blockers::on_cpu(2)),
        WorkloadName::Bursts => bursts::run(peer, plan),
        WorkloadName::InlineBlocking => inline_blocking::run(peer, plan),
        WorkloadName::InlineBlockingDeclared => return Ok(inline_blocking::run_declared(peer, plan)),
        WorkloadName::InlineBlockingInPlace => return Ok(inline_blocking::run_in_place(peer, plan)),
        WorkloadName::GeneralLoad => general_load::run(peer, plan),
        WorkloadName::ParallelSort => parallel_sort::run(peer, plan),
        WorkloadName::UsHandlers => us_handlers::run(peer, plan),
        WorkloadName::BlockingEmpty => return Ok(blocking_empty::run(peer, plan)),
        WorkloadName::IdleTicker => idle_ticker::run(peer, plan),
        WorkloadName::DeadlineSet => deadline_set::run(peer, plan, StandIn { pending: 0 })?,
        WorkloadName::DeadlineWait => deadline_set::run(peer, plan, StandIn { pending: 1 })?,
        WorkloadName::IdleConns => idle_conns::run(peer, plan, Some(idle_conns::TIMEOUT))?,
        WorkloadName::IdleConnsPlain => idle_conns::run(peer, plan, None)?,
        WorkloadName::Echo => echo::run(peer, plan)?,
        WorkloadName::ReadDeadline => read_deadline::run(peer, plan)?,
        WorkloadName::EchoBlockersSleep1 => echo_blockers::run(peer, plan, Blockers::asleep(1))?,
        WorkloadName::EchoBlockersSleep2 => echo_blockers::run(peer, plan, Blockers::asleep(2))?,
        WorkloadName::EchoBlockersSpin1 => echo_blockers::run(peer, plan, Blockers::on_cpu(1))?,
        WorkloadName::EchoBlockersSpin2 => echo_blockers::run(peer, plan, Blockers::on_cpu(2))?,
        WorkloadName::EchoBlockers0 => echo_blockers::run(peer, plan, Blockers::asleep(0))?,
        WorkloadName::HttpHello => return http_hello::run(peer, plan),
        WorkloadName::HttpAxum => return http_hello::run_axum(peer, plan),
    };
    Ok(Outcome::Measured(measurement))
}

/// Operations on timers before a task yields. A task that never does runs out of tokio's budget, and its
/// sleeps then return without arming anything.
const BURST: usize = 64;

/// Polls a sleep once.
async fn arm<S: Future>(mut sleep: Pin<&mut S>) {
    let pending = poll_fn(|context| Poll::Ready(sleep.as_mut().poll(context).is_pending())).await;
    assert!(pending, "a long sleep ended at once");
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
async fn count_in_tasks<P: Peer, F>(
    plan: Plan,
    tasks: usize,
    mut until: impl FnMut(Instant) -> F,
) -> Measurement
where
    F: Future<Output = u64> + Send + 'static,
{
    let mut phase = async |time: Duration| {
        let end = Instant::now() + time;
        in_tasks::<P, _>((0..tasks).map(|_| until(end))).await.iter().sum()
    };
    let _: u64 = phase(plan.time / 10).await;
    let meter = Meter::start();
    let operations = phase(plan.time).await;
    meter.stop(operations)
}

/// Runs each future in a task of its own, all at a time; what they came to.
async fn in_tasks<P: Peer, F>(futures: impl Iterator<Item = F>) -> Vec<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let tasks: Vec<_> = futures.map(P::spawn).collect();
    let mut outputs = Vec::with_capacity(tasks.len());
    for task in tasks {
        outputs.push(task.await.expect("a task of the workload"));
    }
    outputs
}
