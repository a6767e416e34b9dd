//! Nothing hangs: many small programs, each different and made from a seed, that spawn, sleep, wake one
//! another across threads and end their runtime in the middle of it.
//!
//! The monitor would repair a lost wake-up after some ten milliseconds, and hide it: so its counter of such
//! rescues has to stay at zero. `MAINSPRING_SOAK=10` runs ten times as long.

mod common;

use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc as std_mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use common::stress::{Rng, assert_no_rescue, seeded, soak, spin};
use common::watchdog::{EXPECTED, Watchdog};
use mainspring::net::{TcpListener, TcpStream};
use mainspring::runtime::{Handle, Runtime};
use mainspring::task::{JoinSet, yield_now};
use mainspring::time::{Instant, after_func, every, sleep, sleep_until, timeout};
use tokio::sync::{Notify, mpsc, oneshot};

/// Small programs for each number of processors.
const RUNS: f64 = 1000.0;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_thousand_programs_on_one_processor() {
    programs(1);
}

#[test]
fn a_thousand_programs_on_two_processors() {
    programs(2);
}

#[test]
fn a_thousand_programs_on_eight_processors() {
    programs(8);
}

fn programs(processors: usize) {
    let watchdog = Watchdog::new("programs");
    let only = std::env::var("MAINSPRING_SEED").ok().map(|seed| seed.parse().expect("a seed is a number"));
    let count = (RUNS * soak()) as u64;
    let mut seeds = Rng(processors as u64);
    for _ in 0..count {
        let seed = only.unwrap_or_else(|| seeds.next());
        program(processors, seed, &watchdog);
    }
}

fn program(processors: usize, seed: u64, watchdog: &Watchdog) {
    let name = format!("MAINSPRING_SEED={seed} with {processors} processors");
    watchdog.step(&name);
    let mut rng = Rng(seed);
    let runtime = seeded(processors, seed);
    watchdog.watch(&runtime.handle());
    let ended = Arc::new(AtomicUsize::new(0));
    let actors: Vec<Actor> = (0..2 + rng.below(6)).map(|_| actor(rng.split())).collect();
    let count = actors.len();

    if rng.below(4) == 0 {
        leave_something_pending(&runtime, &mut rng);
    }
    let counted = |actor: Actor| {
        let ended = Arc::clone(&ended);
        async move {
            actor.await;
            ended.fetch_add(1, Ordering::Relaxed);
        }
    };
    if rng.below(2) == 0 {
        // From a plain thread, which waits as a plain thread does.
        let (sender, receiver) = std_mpsc::channel();
        for actor in actors {
            let (actor, sender) = (counted(actor), sender.clone());
            runtime.spawn(async move {
                actor.await;
                let _ = sender.send(());
            });
        }
        for _ in 0..count {
            receiver.recv().expect("an actor panicked");
        }
    } else {
        runtime.block_on(async {
            let mut set = JoinSet::new();
            for actor in actors {
                set.spawn(counted(actor));
            }
            set.join_all().await;
        });
    }
    assert_eq!(ended.load(Ordering::Relaxed), count, "{name}");
    assert_no_rescue(&runtime, &name);
    if rng.below(2) == 0 {
        leave_something_pending(&runtime, &mut rng);
    }
    end(runtime, &mut rng, &name);
}

/// Ends a runtime in one of the ways there are.
fn end(runtime: Runtime, rng: &mut Rng, name: &str) {
    match rng.below(5) {
        0 | 1 => drop(runtime),
        2 => runtime.shutdown(Duration::from_secs(30)).unwrap_or_else(|error| panic!("{name}: {error}")),
        3 => {
            let handle = runtime.handle();
            let (sender, receiver) = std_mpsc::channel();
            let delay = rng.micros(200);
            handle.spawn(async move {
                sleep(delay).await;
                drop(runtime);
                sender.send(()).unwrap();
            });
            receiver.recv().unwrap();
        }
        _ => {
            let other = seeded(1, rng.next());
            other.block_on(async move { drop(runtime) });
        }
    }
}

/// What a runtime that ends has to clear away.
fn leave_something_pending(runtime: &Runtime, rng: &mut Rng) {
    for _ in 0..rng.below(4) + 1 {
        match rng.below(7) {
            0 => drop(runtime.spawn(pending::<()>())),
            1 => drop(runtime.spawn(sleep(HOUR))),
            2 => drop(runtime.spawn(async {
                loop {
                    yield_now().await;
                }
            })),
            3 => drop(runtime.spawn(async {
                let listener = TcpListener::bind("127.0.0.1:0").await?;
                listener.set_deadline(Instant::now() + HOUR)?;
                listener.accept().await.map(drop)
            })),
            4 => drop(runtime.spawn(async {
                every(Duration::from_micros(100), || ());
                after_func(HOUR, || ());
            })),
            5 => drop(runtime.spawn_blocking(|| thread::sleep(Duration::from_micros(300)))),
            _ => {
                let inner = runtime.spawn(pending::<()>());
                runtime.spawn(async move { inner.await.unwrap_err() });
            }
        }
    }
}

type Actor = Pin<Box<dyn Future<Output = ()> + Send>>;

fn actor(mut rng: Rng) -> Actor {
    match rng.below(15) {
        0 => Box::pin(sleeps(rng)),
        1 => Box::pin(ping_pong(rng)),
        2 => Box::pin(woken_by_a_thread(rng)),
        3 => Box::pin(wakes_a_thread(rng)),
        4 => Box::pin(timer_functions(rng)),
        5 => Box::pin(blocking_pool(rng)),
        6 => Box::pin(join_set(rng)),
        7 => Box::pin(aborts(rng)),
        8 => Box::pin(async move { echo(rng).await.expect("echo") }),
        9 => Box::pin(nested_block_on(rng)),
        10 => Box::pin(spawned_by_threads(rng)),
        11 => Box::pin(notify(rng)),
        12 => Box::pin(timeouts(rng)),
        13 => Box::pin(panics(rng)),
        _ => Box::pin(tree(rng)),
    }
}

async fn sleeps(mut rng: Rng) {
    for _ in 0..rng.below(8) + 1 {
        let start = Instant::now();
        let duration = rng.micros(1000);
        let mut nap = sleep(duration);
        if rng.below(3) == 0 {
            // Polled once, then moved; in either direction.
            poll_fn(|context| {
                let _ = Pin::new(&mut nap).poll(context);
                Poll::Ready(())
            })
            .await;
            nap.reset(start + rng.micros(1000));
        }
        let until = nap.deadline();
        nap.await;
        assert!(Instant::now() >= until);
    }
}

async fn ping_pong(mut rng: Rng) {
    let (there, mut arrivals) = mpsc::channel(1);
    let (back, mut returns) = mpsc::channel(1);
    let (rounds, mut other) = (rng.below(10) + 1, rng.split());
    let echo = mainspring::spawn(async move {
        while let Some(n) = arrivals.recv().await {
            if other.below(2) == 0 {
                sleep(other.micros(50)).await;
            }
            back.send(n).await.unwrap();
        }
    });
    for n in 0..rounds {
        there.send(n).await.unwrap();
        if rng.below(2) == 0 {
            sleep(rng.micros(50)).await;
        }
        assert_eq!(returns.recv().await, Some(n));
    }
    drop(there);
    echo.await.unwrap();
}

async fn woken_by_a_thread(mut rng: Rng) {
    let (sender, receiver) = oneshot::channel();
    let delay = rng.micros(300);
    let waker = thread::spawn(move || {
        spin(delay);
        sender.send(7).unwrap();
    });
    assert_eq!(receiver.await, Ok(7));
    waker.join().unwrap();
}

async fn wakes_a_thread(mut rng: Rng) {
    let (sender, receiver) = oneshot::channel();
    let (answer, answered) = oneshot::channel();
    let handle = Handle::current();
    thread::spawn(move || {
        let value: u64 = handle.block_on(receiver).unwrap();
        answer.send(value + 1).unwrap();
    });
    sleep(rng.micros(200)).await;
    sender.send(1).unwrap();
    assert_eq!(answered.await, Ok(2));
}

async fn timer_functions(mut rng: Rng) {
    let (sender, receiver) = oneshot::channel();
    let once = after_func(rng.micros(1000), move || {
        let _ = sender.send(());
    });
    if rng.below(2) == 0 {
        once.reset(rng.micros(500));
    }
    receiver.await.unwrap();
    assert!(!once.stop());
    assert!(!once.reset(Duration::ZERO), "a function that has been called does not run again");

    let (sender, mut ticks) = mpsc::unbounded_channel();
    let many = every(Duration::from_micros(50 + rng.below(300)), move || {
        let _ = sender.send(());
    });
    for n in 0..rng.below(4) + 1 {
        ticks.recv().await.unwrap();
        if n == 1 {
            many.reset(Duration::from_micros(100));
        }
    }
    many.stop();
    let stopped = after_func(HOUR, || unreachable!());
    assert!(stopped.stop());
}

async fn blocking_pool(mut rng: Rng) {
    let mut jobs = Vec::new();
    for n in 0..rng.below(4) + 1 {
        let delay = rng.micros(300);
        jobs.push(mainspring::spawn_blocking(move || {
            spin(delay);
            let inner = mainspring::spawn(async move {
                sleep(delay).await;
                n
            });
            mainspring::block_on(inner).unwrap()
        }));
    }
    for (n, job) in jobs.into_iter().enumerate() {
        assert_eq!(job.await.unwrap(), n as u64);
    }
}

async fn join_set(mut rng: Rng) {
    let mut set = JoinSet::new();
    let (mut expected, mut aborted) = (0, 0);
    for n in 0..rng.below(20) {
        let delay = rng.micros(300);
        if rng.below(4) == 0 {
            set.spawn(pending()).abort();
            aborted += 1;
        } else {
            expected += n;
            set.spawn(async move {
                sleep(delay).await;
                n
            });
        }
    }
    let (mut sum, mut cancelled) = (0, 0);
    while let Some(result) = set.join_next().await {
        match result {
            Ok(n) => sum += n,
            Err(error) => cancelled += usize::from(error.is_cancelled()),
        }
    }
    assert_eq!((sum, cancelled), (expected, aborted));
}

async fn aborts(mut rng: Rng) {
    for _ in 0..rng.below(5) + 1 {
        // Not zero: a sleep that is over never yields, and a loop of them is no different from `loop {}`.
        let delay = rng.micros(100) + Duration::from_micros(1);
        let victim = mainspring::spawn(async move {
            loop {
                sleep(delay).await;
            }
        });
        let handle = victim.abort_handle();
        if rng.below(2) == 0 {
            sleep(rng.micros(300)).await;
        }
        if rng.below(2) == 0 {
            thread::spawn(move || handle.abort());
        } else {
            handle.abort();
        }
        assert!(victim.await.unwrap_err().is_cancelled());
    }
}

async fn echo(mut rng: Rng) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let server = mainspring::spawn(async move {
        let (stream, _) = listener.accept().await?;
        let mut buffer = [0; 8];
        loop {
            stream.set_read_deadline(Instant::now() + Duration::from_secs(30))?;
            match stream.read(&mut buffer).await? {
                0 => return io::Result::Ok(()),
                n => stream.write_all(&buffer[..n]).await?,
            }
        }
    });
    let stream = TcpStream::connect(addr).await?;
    for n in 0..rng.below(6) + 1 {
        let sent = [n as u8; 5];
        if rng.below(3) == 0 {
            stream.set_read_deadline(Instant::now() + rng.micros(300))?;
            let error = stream.read(&mut [0]).await.expect_err("nothing was sent");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            stream.set_read_deadline(None)?;
        }
        stream.write_all(&sent).await?;
        let mut got = [0; 5];
        stream.read_exact(&mut got).await?;
        assert_eq!(got, sent);
    }
    drop(stream);
    server.await.unwrap()
}

async fn nested_block_on(mut rng: Rng) {
    let delay = rng.micros(200);
    let inner = mainspring::spawn(async move {
        sleep(delay).await;
        5
    });
    // On this worker's own thread: the processor goes on elsewhere.
    assert_eq!(mainspring::block_on(inner).unwrap(), 5);
    yield_now().await;
    mainspring::block_on(sleep(rng.micros(100)));
    sleep(rng.micros(100)).await;
}

async fn spawned_by_threads(mut rng: Rng) {
    let (sender, mut results) = mpsc::unbounded_channel();
    let threads = rng.below(3) + 1;
    for _ in 0..threads {
        let (handle, sender, mut rng) = (Handle::current(), sender.clone(), rng.split());
        thread::spawn(move || {
            let tasks: Vec<_> = (0..5)
                .map(|n| {
                    let delay = rng.micros(100);
                    handle.spawn(async move {
                        if delay > Duration::from_micros(50) {
                            sleep(delay).await;
                        }
                        n
                    })
                })
                .collect();
            let sum = handle.block_on(async {
                let mut sum = 0;
                for task in tasks {
                    sum += task.await.unwrap();
                }
                sum
            });
            sender.send(sum).unwrap();
        });
    }
    for _ in 0..threads {
        assert_eq!(results.recv().await, Some(10));
    }
}

async fn notify(mut rng: Rng) {
    let notify = Arc::new(Notify::new());
    let mut set = JoinSet::new();
    let count = rng.below(10) + 1;
    for _ in 0..count {
        let notify = Arc::clone(&notify);
        set.spawn(async move { notify.notified().await });
    }
    for n in 0..count {
        match n % 3 {
            0 => yield_now().await,
            1 => sleep(rng.micros(30)).await,
            _ => {}
        }
        notify.notify_one();
        // A second permit is not kept, so each task has to have taken its own.
        set.join_next().await.unwrap().unwrap();
    }
}

async fn timeouts(mut rng: Rng) {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let mut other = rng.split();
    let source = mainspring::spawn(async move {
        for n in 0..5 {
            sleep_until(Instant::now() + other.micros(200)).await;
            sender.send(n).unwrap();
        }
    });
    let mut received = 0;
    while received < 5 {
        if let Ok(n) = timeout(rng.micros(200), receiver.recv()).await {
            assert_eq!(n, Some(received));
            received += 1;
        }
    }
    source.await.unwrap();
}

async fn panics(mut rng: Rng) {
    let delay = rng.micros(100);
    let task = mainspring::spawn(async move {
        sleep(delay).await;
        panic!("{EXPECTED} in a task");
    });
    assert!(task.await.unwrap_err().is_panic());
    let (sender, receiver) = oneshot::channel::<()>();
    after_func(delay, move || {
        let _dropped_by_the_panic = sender;
        panic!("{EXPECTED} in a timer function");
    });
    receiver.await.unwrap_err();
}

/// Tasks that spawn tasks, all of them awaited.
async fn tree(mut rng: Rng) {
    fn node(depth: u32, mut rng: Rng) -> Pin<Box<dyn Future<Output = u64> + Send>> {
        Box::pin(async move {
            if rng.below(3) == 0 {
                yield_now().await;
            }
            if depth == 0 {
                spin(rng.micros(20));
                return 1;
            }
            let children: Vec<_> = (0..3).map(|_| mainspring::spawn(node(depth - 1, rng.split()))).collect();
            let mut sum = 0;
            for child in children {
                sum += child.await.unwrap();
            }
            sum
        })
    }
    assert_eq!(node(3, rng.split()).await, 27);
}
