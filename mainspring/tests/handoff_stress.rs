//! Many tasks that block their threads in every way, at random, beside all else that tasks do: no result is wrong, no
//! task is polled by two threads at once or is lost, and every counter adds up. `MAINSPRING_SOAK=10` runs ten
//! times as long.

mod common;
#[path = "common/gates.rs"]
mod gates;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread;

use common::drops::Count;
use common::ending::{Tally, Token};
use common::sockets::read_one;
use common::stress::{Rng, soak, spin};
use common::watchdog::Watchdog;
use common::{SOON, eventually};
use gates::{Crew, Way, step, threads_named};
use mainspring::net::{TcpListener, TcpStream};
use mainspring::runtime::{Builder, Handoff, Runtime};
use mainspring::task::{JoinHandle, consume_budget, yield_now};
use mainspring::time::{Duration, Instant, after_func, sleep, timeout};
use mainspring::{block_on, blocking, spawn, spawn_blocking};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

const MILLI: Duration = Duration::from_millis(1);

/// What no end takes on the busiest machine.
const LONG: Duration = Duration::from_secs(5);

/// Tasks of a run, and what each does before it ends.
const TASKS: usize = 40;
const DEEDS: f64 = 120.0;

/// A task's future, which notes that it is in use: by one thread at a time.
struct Alone<F> {
    future: Pin<Box<F>>,
    in_use: AtomicBool,
    _token: Token,
}

/// Takes the note back, also when the poll panics.
struct InUse<'a>(&'a AtomicBool);

impl<'a> InUse<'a> {
    fn new(in_use: &'a AtomicBool) -> InUse<'a> {
        assert!(!in_use.swap(true, Ordering::SeqCst), "two threads use one future");
        InUse(in_use)
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl<F: Future> Future for Alone<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        let _in_use = InUse::new(&this.in_use);
        this.future.as_mut().poll(context)
    }
}

impl<F> Drop for Alone<F> {
    fn drop(&mut self) {
        drop(InUse::new(&self.in_use));
    }
}

/// What is counted, beside what the runtime counts itself.
#[derive(Clone, Default)]
struct Counts {
    futures: Tally,
    spawned: Count,
    ended: Count,
    cancelled: Count,
    panicked: Count,
    functions_armed: Count,
    functions_run: Count,
    sent: Count,
    received: Count,
    locked: Count,
}

impl Counts {
    /// Starts a task whose future is watched.
    fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.spawned.add();
        let in_use = AtomicBool::new(false);
        spawn(Alone { future: Box::pin(future), in_use, _token: self.futures.token() })
    }

    /// Awaits a task that does not panic unless that is planned; its result, unless it was cancelled.
    async fn join<T>(&self, task: JoinHandle<T>) -> Option<T> {
        match task.await {
            Ok(result) => {
                self.ended.add();
                Some(result)
            }
            Err(error) if error.is_cancelled() => {
                self.cancelled.add();
                None
            }
            Err(error) => {
                assert_eq!(*error.into_panic().downcast::<&str>().unwrap(), PLANNED);
                self.panicked.add();
                None
            }
        }
    }
}

const PLANNED: &str = "expected: planned";

fn panics() -> ! {
    std::panic::panic_any(PLANNED)
}

/// What one of the tasks of a run has.
struct Member {
    rng: Rng,
    counts: Counts,
    peers: Arc<Vec<UnboundedSender<usize>>>,
    inbox: UnboundedReceiver<usize>,
    shared: Arc<Mutex<u64>>,
    echo: TcpStream,
    /// Whether it may block until other tasks have run. With few threads all of them could.
    waits_for_others: bool,
}

impl Member {
    async fn live(mut self, deeds: usize) -> UnboundedReceiver<usize> {
        for _ in 0..deeds {
            match self.rng.below(16) {
                0 => self.computes().await,
                1 => thread::sleep(self.nap()),
                2 => yield_now().await,
                3 => self.sleeps().await,
                4 => self.sends(),
                5 => self.receives().await,
                6 => self.declares(),
                7 => self.locks(),
                8 => self.blocks_on_a_child().await,
                9 => self.waits_for_a_message_of_a_child().await,
                10 => self.joins_a_child().await,
                11 => self.aborts_a_child().await,
                12 => self.has_a_child_that_panics().await,
                13 => self.has_a_function_run(),
                14 => self.uses_the_pool().await,
                _ => self.hears_an_echo().await,
            }
        }
        self.inbox
    }

    /// 10 to 300 us, and now and then ten times as long.
    fn nap(&mut self) -> Duration {
        let scale = if self.rng.below(20) == 0 { 10 } else { 1 };
        Duration::from_micros(scale * (10 + self.rng.below(291)))
    }

    async fn computes(&mut self) {
        // Long enough for a hand-off, now and then.
        let long = self.rng.below(40) == 0;
        spin(if long { 15 * MILLI } else { self.rng.micros(50) });
        consume_budget().await;
    }

    async fn sleeps(&mut self) {
        let (start, nap) = (Instant::now(), self.nap());
        sleep(nap).await;
        assert!(start.elapsed() >= nap, "too early");
    }

    fn sends(&mut self) {
        let peer = self.rng.below(self.peers.len() as u64) as usize;
        self.counts.sent.add();
        self.peers[peer].send(peer).unwrap();
    }

    async fn receives(&mut self) {
        if timeout(self.nap(), self.inbox.recv()).await.is_ok_and(|message| message.is_some()) {
            self.counts.received.add();
        }
    }

    fn declares(&mut self) {
        let (nap, n) = (self.nap(), self.rng.next());
        let nested = self.rng.below(2) == 0;
        let inner = move || {
            thread::sleep(nap);
            n
        };
        assert_eq!(blocking(|| if nested { blocking(inner) } else { inner() }), n);
    }

    /// A mutex of std that its owner keeps while it sleeps.
    fn locks(&mut self) {
        let nap = self.nap() / 4;
        let mut shared = self.shared.lock().unwrap();
        let before = *shared;
        thread::sleep(nap);
        *shared = before + 1;
        drop(shared);
        self.counts.locked.add();
    }

    /// A task that does some of the same, and gives the number back.
    fn child(&mut self, n: u64) -> impl Future<Output = u64> + Send + use<> {
        let (nap, way) = (self.nap(), self.rng.below(4));
        async move {
            match way {
                0 => sleep(nap).await,
                1 => thread::sleep(nap),
                2 => blocking(|| thread::sleep(nap)),
                _ => spin(nap / 4),
            }
            yield_now().await;
            n
        }
    }

    async fn blocks_on_a_child(&mut self) {
        let n = self.rng.next();
        let (child, counts) = (self.child(n), self.counts.clone());
        let join = async move { counts.join(counts.spawn(child)).await };
        let result = if self.waits_for_others { block_on(join) } else { join.await };
        assert_eq!(result, Some(n));
    }

    async fn waits_for_a_message_of_a_child(&mut self) {
        let (sender, receiver) = std::sync::mpsc::channel();
        let n = self.rng.next();
        let child = self.child(n);
        let task = self.counts.spawn(async move { sender.send(child.await).unwrap() });
        if self.waits_for_others {
            assert_eq!(receiver.recv(), Ok(n));
        }
        assert_eq!(self.counts.join(task).await, Some(()));
    }

    async fn joins_a_child(&mut self) {
        let n = self.rng.next();
        let child = self.child(n);
        let task = self.counts.spawn(child);
        assert_eq!(self.counts.join(task).await, Some(n));
    }

    /// At once, after its first poll perhaps, or while it blocks its thread.
    async fn aborts_a_child(&mut self) {
        let n = self.rng.next();
        let child = self.child(n);
        let again = self.child(n);
        let task = self.counts.spawn(async move { child.await.max(again.await) });
        match self.rng.below(3) {
            0 => {}
            1 => yield_now().await,
            _ => thread::sleep(self.nap()),
        }
        task.abort();
        assert!(self.counts.join(task).await.is_none_or(|result| result == n));
    }

    async fn has_a_child_that_panics(&mut self) {
        let (child, declared) = (self.child(0), self.rng.below(2) == 0);
        let task = self.counts.spawn(async move {
            child.await;
            if declared {
                blocking(|| panics());
            }
            panics()
        });
        assert!(self.counts.join::<()>(task).await.is_none());
    }

    fn has_a_function_run(&mut self) {
        let (nap, blocks) = (self.nap(), self.rng.below(2) == 0);
        let run = self.counts.functions_run.clone();
        self.counts.functions_armed.add();
        after_func(nap, move || {
            if blocks {
                thread::sleep(nap);
            }
            run.add();
        });
    }

    async fn uses_the_pool(&mut self) {
        let (nap, n) = (self.nap(), self.rng.next());
        let job = spawn_blocking(move || {
            thread::sleep(nap);
            n
        });
        self.counts.spawned.add();
        assert_eq!(self.counts.join(job).await, Some(n));
    }

    async fn hears_an_echo(&mut self) {
        let byte = self.rng.next() as u8;
        self.echo.write_all(&[byte]).await.unwrap();
        assert_eq!(read_one(&self.echo).await.unwrap(), byte);
    }
}

/// Sends back what each of `count` connections says.
async fn echoes(counts: Counts, listener: TcpListener, count: usize) {
    let mut connections = Vec::new();
    for _ in 0..count {
        let (stream, _) = listener.accept().await.unwrap();
        connections.push(counts.spawn(async move {
            let mut byte = [0];
            while stream.read(&mut byte).await.unwrap() > 0 {
                stream.write_all(&byte).await.unwrap();
            }
        }));
    }
    for connection in connections {
        counts.join(connection).await.unwrap();
    }
}

/// One run: many tasks that do what they like, the sum of it all, and the end.
fn mix(runtime: Runtime, seed: u64, waits_for_others: bool) {
    let deeds = (DEEDS * soak()) as usize;
    let (mut rng, counts, shared) = (Rng(seed), Counts::default(), Arc::new(Mutex::new(0)));
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = counts.spawn(echoes(counts.clone(), listener, TASKS));
        let (senders, inboxes): (Vec<_>, Vec<_>) = (0..TASKS).map(|_| unbounded_channel()).unzip();
        let peers = Arc::new(senders);
        let mut tasks = Vec::new();
        for inbox in inboxes {
            let member = Member {
                rng: rng.split(),
                counts: counts.clone(),
                peers: Arc::clone(&peers),
                inbox,
                shared: Arc::clone(&shared),
                echo: TcpStream::connect(address).await.unwrap(),
                waits_for_others,
            };
            tasks.push(counts.spawn(member.live(deeds)));
        }
        let mut left = Vec::new();
        for task in tasks {
            left.push(counts.join(task).await.unwrap());
        }
        counts.join(server).await.unwrap();
        for (index, mut inbox) in left.into_iter().enumerate() {
            while let Ok(message) = inbox.try_recv() {
                assert_eq!(message, index);
                counts.received.add();
            }
        }
    });
    assert_eq!(counts.received.get(), counts.sent.get());
    assert_eq!(*shared.lock().unwrap(), counts.locked.get() as u64);
    eventually("all functions have run", || counts.functions_run.get() == counts.functions_armed.get());
    let ends = counts.ended.get() + counts.cancelled.get() + counts.panicked.get();
    assert_eq!(ends, counts.spawned.get());
    counts.futures.assert_all_dropped();
    let metrics = runtime.metrics();
    assert_eq!((metrics.tasks_alive, metrics.panics), (0, counts.panicked.get() as u64));
    assert_eq!(metrics.tasks_spawned, counts.spawned.get() as u64);
    assert!(metrics.handoffs_asleep > 0);
    assert_eq!(
        metrics.handoffs,
        metrics.handoffs_asleep + metrics.handoffs_on_cpu + metrics.handoffs_declared
    );
    // A thread that was lost on the way would be missed here, or go after 10 s by itself.
    let start = Instant::now();
    assert_eq!(runtime.shutdown(SOON), Ok(()));
    assert!(start.elapsed() < LONG, "{:?}", start.elapsed());
}

#[test]
fn tasks_that_block_in_every_way_do_all_that_they_should() {
    let watchdog = Watchdog::here();
    for (processors, seed) in [(1, 1), (2, 2), (4, 3)] {
        let builder = Builder::new().processors(processors).seed(seed);
        mix(step(&watchdog, builder, &format!("seed {seed}")), seed, true);
    }
}

#[test]
fn with_few_threads_they_do_so_later() {
    let watchdog = Watchdog::here();
    for (processors, threads, seed) in [(1, 2, 4), (2, 3, 5), (2, 6, 6)] {
        let builder = Builder::new().processors(processors).max_threads(threads).seed(seed);
        mix(step(&watchdog, builder, &format!("{threads} threads, seed {seed}")), seed, false);
    }
}

/// Each poll is taken as soon as it can be, whatever it does.
#[test]
fn with_the_least_patience_they_do_the_same() {
    let watchdog = Watchdog::here();
    for (processors, seed) in [(1, 7), (2, 8)] {
        let handoff = Handoff::default().asleep_after(Duration::ZERO).on_cpu_after(Duration::from_micros(1));
        let builder = Builder::new().processors(processors).seed(seed).handoff(handoff.on_cpu_threads(100));
        mix(step(&watchdog, builder, &format!("seed {seed}")), seed, true);
    }
}

#[test]
fn the_threads_of_a_burst_end_when_they_have_had_nothing_to_do_for_a_while() {
    const BURST: usize = 50;
    let watchdog = Watchdog::here();
    let builder = Builder::new().processors(2).thread_name("burst");
    let runtime = step(&watchdog, builder, "burst");
    for way in [Way::Channel, Way::Declared] {
        let (crew, holds) = Crew::new(way, BURST);
        let tasks: Vec<_> = holds.into_iter().map(|hold| runtime.spawn(async { hold() })).collect();
        let other = runtime.spawn(async move {
            crew.until_all_held().await;
            assert!(threads_named("burst") >= BURST);
            crew.let_go();
        });
        for task in tasks.into_iter().chain([other]) {
            runtime.block_on(task).unwrap();
        }
    }
    let busy = Arc::new(AtomicBool::new(true));
    let goes_on = Arc::clone(&busy);
    // Beside a little work, which takes one of them each time.
    let task = runtime.spawn(async move {
        while goes_on.load(Ordering::SeqCst) {
            sleep(20 * MILLI).await;
        }
    });
    // Two that work, one each that is spare, and the monitor.
    let start = Instant::now();
    while threads_named("burst") > 5 {
        assert!(start.elapsed() < SOON, "{} threads are left", threads_named("burst"));
        thread::sleep(50 * MILLI);
    }
    busy.store(false, Ordering::SeqCst);
    runtime.block_on(task).unwrap();
    // And they come back.
    let (crew, holds) = Crew::new(Way::Channel, BURST);
    let tasks: Vec<_> = holds.into_iter().map(|hold| runtime.spawn(async { hold() })).collect();
    eventually("all are held", || crew.all_held());
    crew.let_go();
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
    assert_eq!(runtime.shutdown(SOON), Ok(()));
    eventually("no thread is left", || threads_named("burst") == 0);
}
