//! A fresh deadline for a read, without the read: the clock is read, and what is to come within a second from then is
//! guarded. Two tasks do so over and over, each on an idle TCP connection of its own. In place of the read stands a future
//! that is ready at its first poll (`deadline_set`), as a read is when data is there, or at its second (`deadline_wait`), as it is
//! when it has to wait.
//!
//! `CPU beyond clock` is the CPU time for one of these, less that for reading the clock and polling the same
//! future unguarded, which is measured in turn with it, in slices, and each goes first as often as the other:
//! the median of the pairs of slices. `clock` is that second part alone. The futures are polled by hand, so no scheduler is
//! in this. A second of timeout is short enough for lazily moved timers to go off while this is measured.
//!
//! mainspring and Go move a deadline of the connection, and do the same whether a read waits or not. The others wrap the
//! read: there is nothing to arm around one that is ready, and smol does not even read the clock.

use std::future::{Future, poll_fn};
use std::hint::black_box;
use std::io;
use std::net::TcpStream;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::{BURST, Plan, in_tasks};
use crate::measure::{Figure, Measurement, Meter};
use crate::peers::Peer;
use crate::statistics::percentile;

const TASKS: usize = 2;
const TIMEOUT: Duration = Duration::from_secs(1);
/// Even.
const PAIRS: u32 = 10;

/// What stands for a read: pending at so many polls, and ready then.
#[derive(Clone, Copy, Debug)]
pub(super) struct StandIn {
    pub(super) pending: u32,
}

impl Future for StandIn {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.pending == 0 {
            return Poll::Ready(Ok(()));
        }
        // Nobody is woken: it is polled by hand.
        self.pending -= 1;
        Poll::Pending
    }
}

/// An idle connection; the client's end is there so that it stays one.
pub(super) struct Idle<P: Peer> {
    stream: P::Stream,
    _client: TcpStream,
}

impl<P: Peer> Idle<P> {
    pub(super) async fn connect() -> io::Result<Idle<P>> {
        let (listener, address) = P::bind().await?;
        let client = TcpStream::connect(address)?;
        Ok(Idle { stream: P::accept(&listener).await?, _client: client })
    }

    /// Once what is measured, or the clock and the read alone.
    pub(super) async fn operate(&mut self, guarded: bool, read: StandIn) -> io::Result<()> {
        if guarded {
            drive(P::guard(&mut self.stream, TIMEOUT, read)).await
        } else {
            black_box(Instant::now());
            drive(black_box(read)).await
        }
    }
}

/// Polls by hand until it is ready.
async fn drive<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|context| {
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(output);
            }
        }
    })
    .await
}

pub(super) fn run<P: Peer>(peer: &P, plan: Plan, read: StandIn) -> io::Result<Measurement> {
    peer.run(async move {
        let mut connections = Vec::new();
        for _ in 0..TASKS {
            connections.push(Idle::<P>::connect().await?);
        }
        let slice = plan.time / (2 * PAIRS);
        for guarded in [false, true] {
            (connections, _) = repeat(connections, slice, guarded, read).await?;
        }
        let meter = Meter::start();
        let (mut beyond, mut whole, mut clock) = (Vec::new(), Vec::new(), Vec::new());
        let mut operations = 0;
        for n in 0..PAIRS {
            let mut cpu_ns = [0.0; 2];
            let first = n % 2 == 1;
            for guarded in [first, !first] {
                let meter = Meter::start();
                let count;
                (connections, count) = repeat(connections, slice, guarded, read).await?;
                cpu_ns[usize::from(guarded)] = meter.stop(count).cost.cpu_ns;
                operations += count;
            }
            beyond.push(cpu_ns[1] - cpu_ns[0]);
            whole.push(cpu_ns[1]);
            clock.push(cpu_ns[0]);
        }
        let figures = vec![
            Figure::nanoseconds_added("CPU beyond clock", percentile(&mut beyond, 0.5)),
            Figure::nanoseconds("CPU", percentile(&mut whole, 0.5)),
            Figure::nanoseconds("clock", percentile(&mut clock, 0.5)),
        ];
        Ok(meter.stop_with(operations, figures))
    })
}

/// In a task for each connection until the time is over; how often all of them did it.
async fn repeat<P: Peer>(
    connections: Vec<Idle<P>>,
    time: Duration,
    guarded: bool,
    read: StandIn,
) -> io::Result<(Vec<Idle<P>>, u64)> {
    let end = Instant::now() + time;
    let tasks = connections.into_iter().map(|mut connection| async move {
        let mut operations = 0;
        while Instant::now() < end {
            for _ in 0..BURST {
                connection.operate(guarded, read).await?;
            }
            operations += BURST as u64;
            P::yield_now().await;
        }
        Ok((connection, operations))
    });
    let done: Vec<io::Result<_>> = in_tasks::<P, _>(tasks).await;
    let mut connections = Vec::new();
    let mut sum = 0;
    for result in done {
        let (connection, operations) = result?;
        connections.push(connection);
        sum += operations;
    }
    Ok((connections, sum))
}
