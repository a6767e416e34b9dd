//! Nothing hangs: the sharpest patterns of going to sleep at the very moment at which work comes. The
//! counter of the monitor's rescues has to stay at zero, as in `hang.rs`, and `MAINSPRING_SOAK=10` runs
//! ten times as long here too.

mod common;

use std::io;
use std::sync::mpsc as std_mpsc;
use std::thread;
use std::time::Duration;

use common::stress::{Rng, assert_no_rescue, seeded, soak, spin};
use common::watchdog::Watchdog;
use mainspring::net::TcpListener;
use mainspring::runtime::Runtime;
use mainspring::time::{after_func, sleep};
use tokio::sync::mpsc;

/// Rounds of each pattern for each number of processors, spread over fresh runtimes.
const ROUNDS: f64 = 3000.0;
const ROUNDS_PER_RUNTIME: u64 = 100;

const HOUR: Duration = Duration::from_secs(3600);

/// Runs `rounds` of a pattern on fresh runtimes with 1, 2 and 8 processors.
fn pattern(name: &str, rounds: impl Fn(&Runtime, &mut Rng, u64)) {
    let watchdog = Watchdog::new(name);
    let mut seeds = Rng(99);
    for processors in [1, 2, 8] {
        for _ in 0..(ROUNDS * soak()) as u64 / ROUNDS_PER_RUNTIME {
            let seed = seeds.next();
            let step = format!("{name}, seed {seed}, {processors} processors");
            watchdog.step(&step);
            let runtime = seeded(processors, seed);
            watchdog.watch(&runtime.handle());
            rounds(&runtime, &mut Rng(seed), ROUNDS_PER_RUNTIME);
            assert_no_rescue(&runtime, &step);
        }
    }
}

#[test]
fn two_tasks_that_wake_each_other_between_short_sleeps() {
    pattern("ping-pong", |runtime, rng, rounds| {
        let (there, mut arrivals) = mpsc::channel::<u64>(1);
        let (back, mut returns) = mpsc::channel(1);
        let (mut here, mut other) = (rng.split(), rng.split());
        let echo = runtime.spawn(async move {
            while let Some(n) = arrivals.recv().await {
                sleep(other.micros(21)).await;
                back.send(n).await.unwrap();
            }
        });
        let ping = runtime.spawn(async move {
            for n in 0..rounds {
                there.send(n).await.unwrap();
                assert_eq!(returns.recv().await, Some(n));
                sleep(here.micros(21)).await;
            }
        });
        runtime.block_on(async {
            ping.await.unwrap();
            echo.await.unwrap();
        });
    });
}

#[test]
fn a_thread_that_wakes_the_only_task() {
    pattern("thread wakes task", |runtime, rng, rounds| {
        let (sender, mut receiver) = mpsc::unbounded_channel::<u64>();
        let (answer, answers) = std_mpsc::channel();
        let task = runtime.spawn(async move {
            while let Some(n) = receiver.recv().await {
                answer.send(n).unwrap();
            }
        });
        for n in 0..rounds {
            spin(rng.micros(40));
            sender.send(n).unwrap();
            assert_eq!(answers.recv(), Ok(n));
        }
        drop(sender);
        runtime.block_on(task).unwrap();
    });
}

#[test]
fn timers_armed_by_threads_while_all_workers_sleep() {
    pattern("timers from threads", |runtime, rng, rounds| {
        let _far = runtime.block_on(async { after_func(HOUR, || ()) });
        thread::scope(|scope| {
            for _ in 0..2 {
                let mut rng = rng.split();
                scope.spawn(move || {
                    for n in 0..rounds / 2 {
                        spin(rng.micros(40));
                        let duration = rng.micros(60);
                        if n % 2 == 0 {
                            runtime.block_on(sleep(duration));
                        } else {
                            let (sender, receiver) = std_mpsc::channel();
                            runtime.block_on(async {
                                after_func(duration, move || sender.send(()).unwrap());
                            });
                            receiver.recv().unwrap();
                        }
                    }
                });
            }
        });
    });
}

#[test]
fn short_tasks_spawned_by_threads_one_after_the_other() {
    pattern("spawns from threads", |runtime, rng, rounds| {
        thread::scope(|scope| {
            for _ in 0..2 {
                let mut rng = rng.split();
                scope.spawn(move || {
                    for n in 0..rounds / 2 {
                        spin(rng.micros(20));
                        let work = rng.micros(20);
                        let task = runtime.spawn(async move {
                            spin(work);
                            n
                        });
                        assert_eq!(runtime.block_on(task).unwrap(), n);
                    }
                });
            }
        });
    });
}

#[test]
fn bytes_that_come_while_all_workers_go_to_sleep() {
    use std::io::{Read, Write};
    pattern("bytes from a thread", |runtime, rng, rounds| {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nodelay(true).unwrap();
        let task = runtime.spawn(async move {
            let (stream, _) = listener.accept().await?;
            let mut byte = [0];
            while stream.read(&mut byte).await? > 0 {
                stream.write_all(&byte).await?;
            }
            io::Result::Ok(())
        });
        for n in 0..rounds {
            spin(rng.micros(40));
            client.write_all(&[n as u8]).unwrap();
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            assert_eq!(byte, [n as u8]);
        }
        drop(client);
        runtime.block_on(task).unwrap().unwrap();
    });
}
