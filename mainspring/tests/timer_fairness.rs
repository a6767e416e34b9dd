//! Timers beside what never rests, and other work beside timers that never rest: on one processor, where
//! whoever runs keeps all the others waiting.

mod common;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::drops::Count;
use common::sockets::{pair, read_one};
use common::{SOON, eventually, watched};
use mainspring::net::TcpStream;
use mainspring::runtime::Runtime;
use mainspring::task::{JoinHandle, yield_now};
use mainspring::time::{Duration, Instant, Timer, after_func, every, interval, sleep, sleep_until, timeout};
use tokio::sync::oneshot;

const MILLI: Duration = Duration::from_millis(1);

/// Whether what never rests is to go on.
#[derive(Clone)]
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn new() -> Busy {
        Busy(Arc::new(AtomicBool::new(true)))
    }

    fn goes_on(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    fn end(&self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// Starts something that keeps a runtime of one processor busy, and checks that everything else goes on beside it.
#[track_caller]
fn starves_nothing(start: impl Fn(&Runtime, Busy) -> Vec<JoinHandle<()>>) {
    let (_watchdog, runtime) = watched(1);
    let busy = Busy::new();
    let tasks = start(&runtime, busy.clone());
    let rest = runtime.spawn(async {
        for _ in 0..3 {
            everything_goes_on().await;
        }
    });
    runtime.block_on(async { timeout(SOON, rest).await.expect("the rest is starved").unwrap() });
    busy.end();
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
}

/// Waits for each kind of thing that others could keep waiting.
async fn everything_goes_on() {
    // Timers: a long one, a short one, functions, a timeout.
    let start = Instant::now();
    sleep(20 * MILLI).await;
    assert!(start.elapsed() >= 20 * MILLI);
    sleep(Duration::from_micros(1)).await;
    for delay in [Duration::ZERO, Duration::from_micros(1), MILLI] {
        let (sender, receiver) = oneshot::channel();
        after_func(delay, || sender.send(()).unwrap());
        receiver.await.unwrap();
    }
    timeout(MILLI, std::future::pending::<()>()).await.unwrap_err();
    let mut interval = interval(Duration::from_micros(100));
    for _ in 0..3 {
        interval.tick().await;
    }
    // Tasks, yielding and threads.
    mainspring::spawn(yield_now()).await.unwrap();
    mainspring::spawn_blocking(|| ()).await.unwrap();
    // Sockets, and their deadlines.
    let (a, b) = pair().await;
    b.write_all(b"x").await.unwrap();
    assert_eq!(read_one(&a).await.unwrap(), b'x');
    a.set_read_deadline(Instant::now() + MILLI).unwrap();
    read_one(&a).await.unwrap_err();
}

#[test]
fn beside_a_task_that_yields_for_ever() {
    starves_nothing(|runtime, busy| {
        vec![runtime.spawn(async move {
            while busy.goes_on() {
                yield_now().await;
            }
        })]
    });
}

#[test]
fn beside_two_tasks_that_wake_each_other_for_ever() {
    starves_nothing(|runtime, busy| {
        let (ping, pinged) = tokio::sync::mpsc::channel(1);
        let (pong, ponged) = tokio::sync::mpsc::channel(1);
        ping.try_send(()).unwrap();
        [(pinged, pong), (ponged, ping)]
            .into_iter()
            .map(|(mut from, to)| {
                let busy = busy.clone();
                runtime.spawn(async move {
                    // The one that ends first takes the other one along.
                    while busy.goes_on() && from.recv().await.is_some() {
                        if to.send(()).await.is_err() {
                            break;
                        }
                    }
                })
            })
            .collect()
    });
}

/// Go's issue 65178.
#[test]
fn two_tasks_that_wake_each_other_do_not_starve_a_function_that_is_due_in_a_microsecond() {
    let (_watchdog, runtime) = watched(1);
    for _ in 0..100 {
        let end = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&end);
        let task = runtime.spawn(async move {
            let (ping, mut pinged) = tokio::sync::mpsc::channel(1);
            let (pong, mut ponged) = tokio::sync::mpsc::channel(1);
            let other = mainspring::spawn(async move {
                while pinged.recv().await.is_some() {
                    let _ = pong.send(()).await;
                }
            });
            after_func(Duration::from_micros(1), move || ends.store(true, Ordering::SeqCst));
            while !end.load(Ordering::SeqCst) {
                ping.send(()).await.unwrap();
                ponged.recv().await.unwrap();
            }
            drop(ping);
            other.await.unwrap();
        });
        runtime.block_on(task).unwrap();
    }
}

#[test]
fn beside_a_function_that_arms_another_with_no_delay_for_ever() {
    fn again(busy: Busy) {
        if busy.goes_on() {
            after_func(Duration::ZERO, move || again(busy));
        }
    }
    starves_nothing(|runtime, busy| {
        runtime.block_on(async {
            // Made by whoever has no processor, and by a task.
            again(busy.clone());
            mainspring::spawn(async { again(busy) }).await.unwrap();
        });
        Vec::new()
    });
}

#[test]
fn beside_a_function_that_moves_its_own_timer_to_now_for_ever() {
    starves_nothing(|runtime, busy| {
        vec![runtime.spawn(async move {
            let (sender, own) = std::sync::mpsc::channel::<Timer>();
            let (end, ended) = oneshot::channel();
            let (mut timer, mut end) = (None, Some(end));
            let first = every(Duration::from_nanos(1), move || {
                if end.is_none() {
                    return;
                }
                // It waits for its own timer, if need be, while the task goes on to send it.
                let own = timer.get_or_insert_with(|| own.recv().unwrap());
                if busy.goes_on() {
                    own.reset(Duration::from_nanos(1));
                } else {
                    // What it owns keeps it as long as it keeps that.
                    timer.take().unwrap().stop();
                    end.take().unwrap().send(()).unwrap();
                }
            });
            sender.send(first.clone()).unwrap();
            ended.await.unwrap();
        })]
    });
}

#[test]
fn beside_periodic_functions_that_are_always_due() {
    starves_nothing(|runtime, busy| {
        vec![runtime.spawn(async move {
            let runs = Count::new();
            let timers: Vec<_> = (0..10).map(|_| every(Duration::from_nanos(1), runs.adder())).collect();
            while busy.goes_on() {
                sleep(MILLI).await;
            }
            assert!(timers.iter().all(Timer::stop) && runs.get() > 10);
        })]
    });
}

#[test]
fn beside_ticks_that_are_always_due() {
    starves_nothing(|runtime, busy| {
        vec![runtime.spawn(async move {
            let mut interval = interval(Duration::from_nanos(1));
            while busy.goes_on() {
                interval.tick().await;
            }
        })]
    });
}

/// Two ends that are always ready: one is written to and the other read from without end.
fn flood(runtime: &Runtime, busy: &Busy) -> (JoinHandle<()>, TcpStream) {
    let (a, b) = runtime.block_on(pair());
    let busy = busy.clone();
    let writer = runtime.spawn(async move {
        let chunk = vec![7; 100_000];
        while busy.goes_on() {
            // Until the reader has gone, at the latest.
            if a.write(&chunk).await.is_err() {
                break;
            }
        }
    });
    (writer, b)
}

#[test]
fn beside_a_task_whose_socket_always_has_data() {
    starves_nothing(|runtime, busy| {
        let (writer, stream) = flood(runtime, &busy);
        let reader = runtime.spawn(async move {
            let mut buffer = [0];
            while busy.goes_on() {
                assert_eq!(stream.read(&mut buffer).await.unwrap(), 1);
                // And what never waits at all.
                assert_eq!(stream.read(&mut []).await.unwrap(), 0);
            }
        });
        vec![writer, reader]
    });
}

#[test]
fn a_task_whose_socket_always_has_data_sees_its_own_timer() {
    let (_watchdog, runtime) = watched(1);
    let busy = Busy::new();
    let (writer, stream) = flood(&runtime, &busy);
    let reader = runtime.spawn(async move {
        let mut nap = pin!(sleep(20 * MILLI));
        let mut buffer = [0];
        let mut reads = 0_u64;
        loop {
            let read = pin!(stream.read(&mut buffer));
            // The socket first: as long as that is ready, nobody looks at the timer but by its wake-up.
            match futures_util::future::select(read, nap.as_mut()).await {
                futures_util::future::Either::Left((count, _)) => assert_eq!(count.unwrap(), 1),
                futures_util::future::Either::Right(((), _)) => return reads,
            }
            reads += 1;
        }
    });
    let reads = runtime.block_on(async { timeout(SOON, reader).await.expect("starved").unwrap() });
    assert!(reads > 0);
    busy.end();
    runtime.block_on(writer).unwrap();
}

#[test]
fn a_task_that_wakes_itself_at_every_poll_sees_its_own_timer() {
    for processors in [1, 2] {
        let (_watchdog, runtime) = watched(processors);
        let starving = || async {
            let deadline = Instant::now() + 10 * MILLI;
            let mut nap = sleep_until(deadline);
            poll_fn(|context| {
                context.waker().wake_by_ref();
                Pin::new(&mut nap).poll(context)
            })
            .await;
            assert!(Instant::now() >= deadline && deadline.elapsed() < SOON);
        };
        runtime.block_on(starving());
        runtime.block_on(runtime.spawn(starving())).unwrap();
    }
}

/// Runs a task that awaits what is ready at once, over and over, beside one that sleeps.
#[track_caller]
fn lets_others_run<F: Future<Output = ()> + Send + 'static>(restless: fn() -> F) {
    let (_watchdog, runtime) = watched(1);
    let busy = Busy::new();
    let task = runtime.spawn({
        let busy = busy.clone();
        async move {
            while busy.goes_on() {
                restless().await;
            }
        }
    });
    let other = runtime.spawn(async move {
        sleep(MILLI).await;
        busy.end();
    });
    runtime.block_on(other).unwrap();
    runtime.block_on(task).unwrap();
}

#[test]
fn a_task_that_sleeps_for_no_time_again_and_again_lets_others_run() {
    lets_others_run(|| async { sleep(Duration::ZERO).await });
}

#[test]
fn a_task_that_sleeps_until_long_ago_again_and_again_lets_others_run() {
    lets_others_run(|| async { sleep_until(Instant::now() - MILLI).await });
}

#[test]
fn a_task_that_times_out_at_once_again_and_again_lets_others_run() {
    lets_others_run(|| async {
        timeout(Duration::ZERO, std::future::pending::<()>()).await.unwrap_err();
    });
}

#[test]
fn a_hundred_thousand_functions_due_at_once_do_not_keep_a_task_waiting_until_the_last() {
    let (_watchdog, runtime) = watched(1);
    const COUNT: usize = 100_000;
    let runs = Count::new();
    let task = runtime.spawn({
        let runs = runs.clone();
        async move {
            (0..COUNT).for_each(|_| drop(after_func(Duration::ZERO, runs.adder())));
            yield_now().await;
            runs.get()
        }
    });
    let before = runtime.block_on(task).unwrap();
    assert!(before < COUNT, "all of them ran before the task came to its turn");
    eventually("all of them run", || runs.get() == COUNT);
}
