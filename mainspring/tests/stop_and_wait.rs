//! Stopping a timer function and waiting until it has returned.

mod common;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use common::drops::Count;
use common::foreign::foreign_block_on;
use common::stress::{Rng, soak, spin};
use common::{check, eventually, runtime, until, watched};
use mainspring::runtime::{Handle, Runtime};
use mainspring::time::{Duration, StopAndWait, Timer, WaitsForItself, after_func, every, sleep};

const MILLI: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// A function that is in its run until it is let go.
struct Blocked {
    timer: Timer,
    release: mpsc::Sender<()>,
    runs: Count,
}

impl Blocked {
    /// Starts one, and waits until its first run has begun.
    fn start(runtime: &Runtime, make: impl FnOnce(Box<dyn FnMut() + Send>) -> Timer) -> Blocked {
        let (release, released) = mpsc::channel();
        let (begin, begun) = mpsc::channel();
        let runs = Count::new();
        let inside = runs.clone();
        let timer = runtime.block_on(async {
            make(Box::new(move || {
                inside.add();
                let _ = begin.send(());
                let _ = released.recv();
            }))
        });
        begun.recv().unwrap();
        Blocked { timer, release, runs }
    }

    fn once(runtime: &Runtime) -> Blocked {
        Blocked::start(runtime, |f| after_func(Duration::ZERO, f))
    }

    fn periodic(runtime: &Runtime) -> Blocked {
        Blocked::start(runtime, |f| every(Duration::from_micros(50), f))
    }

    fn release(&self) {
        self.release.send(()).unwrap();
    }
}

/// Counts its wakes, and how many wakers of it there are.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Woken {
    fn poll(self: &Arc<Self>, future: &mut StopAndWait) -> Poll<Result<bool, WaitsForItself>> {
        Pin::new(future).poll(&mut Context::from_waker(&Waker::from(Arc::clone(self))))
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// How many wakers somebody keeps.
    fn kept(self: &Arc<Self>) -> usize {
        Arc::strong_count(self) - 1
    }
}

#[test]
fn what_is_pending_is_prevented_by_the_call_and_nothing_is_waited_for() {
    check(|| async {
        let runs = Count::new();
        for once in [true, false] {
            let run = runs.clone();
            let f = move || {
                run.add();
            };
            let timer = if once { after_func(HOUR, f) } else { every(HOUR, f) };
            // Dropping it keeps what the call has done.
            drop(timer.stop_and_wait());
            assert!(!timer.stop());
            assert!(!timer.reset(HOUR));
            assert_eq!(timer.stop_and_wait().await, Ok(true));
            assert_eq!(timer.stop_and_wait().await, Ok(false));
            assert!(!timer.reset(MILLI));
            let so_far = runs.get();
            until(|| runs.get() > so_far).await;
            // Once: it has run and is over. Periodic: the next is prevented.
            assert_eq!(timer.stop_and_wait().await, Ok(!once));
        }
    });
}

#[test]
fn a_run_that_goes_on_is_waited_for_and_the_next_one_prevented() {
    let (_watchdog, runtime) = watched(2);
    for (blocked, prevented) in [(Blocked::once(&runtime), false), (Blocked::periodic(&runtime), true)] {
        let woken = Arc::new(Woken::default());
        let mut waiting = blocked.timer.stop_and_wait();
        assert_eq!(woken.poll(&mut waiting), Poll::Pending);
        assert!(!blocked.timer.stop(), "the call itself prevents");
        // A second waiter, with nothing left to prevent.
        let mut second = blocked.timer.stop_and_wait();
        assert_eq!(woken.poll(&mut second), Poll::Pending);
        thread::sleep(MILLI);
        assert_eq!((woken.poll(&mut waiting), woken.count(), woken.kept()), (Poll::Pending, 0, 2));
        blocked.release();
        eventually("both are woken", || woken.count() == 2);
        assert_eq!(woken.poll(&mut waiting), Poll::Ready(Ok(prevented)));
        assert_eq!(woken.poll(&mut second), Poll::Ready(Ok(false)));
        // Once more is no mistake.
        assert_eq!(woken.poll(&mut waiting), Poll::Ready(Ok(prevented)));
        thread::sleep(MILLI);
        assert_eq!((blocked.runs.get(), woken.kept()), (1, 0));
    }
}

#[test]
fn a_waiter_that_is_dropped_or_moves_to_another_task_leaves_no_waker_behind() {
    let (_watchdog, runtime) = watched(2);
    let blocked = Blocked::periodic(&runtime);
    let [former, present] = [Arc::new(Woken::default()), Arc::new(Woken::default())];
    let mut waiting = blocked.timer.stop_and_wait();
    assert_eq!(former.poll(&mut waiting), Poll::Pending);
    assert_eq!(present.poll(&mut waiting), Poll::Pending);
    assert_eq!((former.kept(), present.kept()), (0, 1));
    let mut given_up = blocked.timer.stop_and_wait();
    assert_eq!(former.poll(&mut given_up), Poll::Pending);
    drop(given_up);
    assert_eq!(former.kept(), 0);
    blocked.release();
    eventually("the other is woken", || present.count() == 1);
    assert_eq!(former.count(), 0);
    // One that was woken, and is dropped while a later run goes on, takes none of that run's waiters along.
    assert!(!blocked.timer.reset(Duration::from_micros(50)));
    eventually("it runs again", || blocked.runs.get() == 2);
    let mut later = blocked.timer.stop_and_wait();
    assert_eq!(former.poll(&mut later), Poll::Pending);
    drop(waiting);
    assert_eq!((former.kept(), present.kept()), (1, 0));
    blocked.release();
    eventually("it is woken", || former.count() == 1);
}

#[test]
fn only_the_run_that_went_on_during_the_call_is_waited_for() {
    let (_watchdog, runtime) = watched(2);
    let blocked = Blocked::periodic(&runtime);
    let woken = Arc::new(Woken::default());
    let mut waiting = blocked.timer.stop_and_wait();
    assert_eq!(woken.poll(&mut waiting), Poll::Pending);
    assert!(!blocked.timer.reset(Duration::from_micros(50)));
    blocked.release();
    eventually("it runs again", || blocked.runs.get() == 2);
    assert_eq!((woken.count(), woken.poll(&mut waiting)), (1, Poll::Ready(Ok(true))));
    blocked.timer.stop();
    blocked.release();
}

#[test]
fn a_run_that_panics_has_returned() {
    check(|| async {
        for once in [true, false] {
            let begun = Arc::new(AtomicBool::new(false));
            let inside = Arc::clone(&begun);
            let f = move || {
                inside.store(true, Ordering::SeqCst);
                thread::sleep(2 * MILLI);
                panic!("expected: on purpose");
            };
            let timer = if once { after_func(Duration::ZERO, f) } else { every(MILLI, f) };
            until(|| begun.load(Ordering::SeqCst)).await;
            assert_eq!(timer.stop_and_wait().await, Ok(!once));
        }
    });
}

#[test]
fn a_function_that_waits_for_itself_is_told_so_and_has_prevented_its_next_run() {
    // How a function waits, each time on its own thread.
    type Wait = fn(Timer) -> Result<bool, WaitsForItself>;
    let polled: Wait = |own| match pin!(own.stop_and_wait()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("it waits for itself"),
    };
    let blocked: Wait = |own| mainspring::block_on(own.stop_and_wait());
    let entered: Wait = |own| Handle::current().block_on(async { own.stop_and_wait().await });
    let foreign: Wait = |own| foreign_block_on(own.stop_and_wait());
    let twice: Wait = |own| {
        mainspring::block_on(async {
            let mut waiting = own.stop_and_wait();
            let first = (&mut waiting).await;
            assert_eq!((&mut waiting).await, first);
            first
        })
    };
    check(|| async {
        for wait in [polled, blocked, entered, foreign, twice] {
            for once in [true, false] {
                let (own, receiver) = mpsc::channel::<Timer>();
                let (answer, answers) = mpsc::channel();
                let f = move || {
                    if let Ok(own) = receiver.recv() {
                        answer.send(wait(own)).unwrap();
                    }
                };
                let timer =
                    if once { after_func(Duration::ZERO, f) } else { every(Duration::from_micros(50), f) };
                own.send(timer.clone()).unwrap();
                let answer = mainspring::spawn_blocking(move || answers.recv().unwrap()).await.unwrap();
                let error = answer.unwrap_err();
                assert_eq!(error.prevented, !once);
                assert_eq!(error.to_string(), "a timer function cannot wait for itself to return");
                // From outside it is no error, and there is nothing left to prevent.
                drop(own);
                assert_eq!(timer.stop_and_wait().await, Ok(false));
            }
        }
    });
}

#[test]
fn what_a_function_began_to_wait_for_may_be_waited_for_elsewhere() {
    check(|| async {
        let (own, receiver) = mpsc::channel::<Timer>();
        let (future, futures) = mpsc::channel::<StopAndWait>();
        let inside = Arc::new(AtomicBool::new(true));
        let leaves = Arc::clone(&inside);
        let timer = every(Duration::from_micros(50), move || {
            future.send(receiver.recv().unwrap().stop_and_wait()).unwrap();
            thread::sleep(2 * MILLI);
            leaves.store(false, Ordering::SeqCst);
        });
        own.send(timer).unwrap();
        let future = mainspring::spawn_blocking(move || futures.recv().unwrap()).await.unwrap();
        assert_eq!(future.await, Ok(true));
        assert!(!inside.load(Ordering::SeqCst));
    });
}

#[test]
fn another_executor_or_runtime_may_wait_also_beyond_the_end_of_the_functions() {
    let (watchdog, runtime) = watched(1);
    let blocked = Blocked::periodic(&runtime);
    let waiters: Vec<_> = [false, true]
        .into_iter()
        .map(|foreign| {
            let timer = blocked.timer.clone();
            thread::spawn(move || {
                let wait = async move { timer.stop_and_wait().await };
                if foreign { foreign_block_on(wait) } else { common::run(1, wait) }.unwrap()
            })
        })
        .collect();
    thread::sleep(5 * MILLI);
    // Its worker is in the function, which the drop waits for only a little.
    drop(runtime);
    assert_eq!(Arc::new(Woken::default()).poll(&mut blocked.timer.stop_and_wait()), Poll::Pending);
    blocked.release();
    let prevented: Vec<_> = waiters.into_iter().map(|waiter| waiter.join().unwrap()).collect();
    assert_eq!(prevented.iter().filter(|prevented| **prevented).count(), 1);
    assert_eq!(foreign_block_on(blocked.timer.stop_and_wait()), Ok(false));
    drop(watchdog);
}

#[test]
fn after_the_end_of_the_runtime_nothing_is_pending_and_nothing_waited_for() {
    for round in 0..50_u64 {
        let runtime = runtime(2);
        let timers: Vec<_> = runtime.block_on(async {
            let soon = Duration::from_micros(round * 4);
            vec![
                after_func(soon, || ()),
                every(soon + Duration::from_nanos(1), || ()),
                after_func(HOUR, || ()),
            ]
        });
        let waiters = timers
            .iter()
            .map(Timer::stop_and_wait)
            .map(|waiting| thread::spawn(|| foreign_block_on(waiting)));
        let waiters: Vec<_> = if round % 2 == 0 { waiters.collect() } else { Vec::new() };
        drop(runtime);
        waiters.into_iter().for_each(|waiter| assert!(waiter.join().unwrap().is_ok()));
        for timer in timers {
            assert_eq!(foreign_block_on(timer.stop_and_wait()), Ok(false));
        }
    }
}

/// Whoever has waited finds the function outside, and is the last to have claimed anything.
#[test]
fn waiting_against_functions_that_are_just_starting_and_ending_finds_them_outside() {
    for processors in [1, 2] {
        let (_watchdog, runtime) = watched(processors);
        let mut rng = Rng(3);
        for round in 0..(1_000.0 * soak()) as u64 {
            let inside = Arc::new(Mutex::new(false));
            let runs = Count::new();
            let f = {
                let (inside, runs) = (Arc::clone(&inside), runs.clone());
                move || {
                    *inside.lock().unwrap() = true;
                    spin(Duration::from_micros(3));
                    runs.add();
                    *inside.lock().unwrap() = false;
                }
            };
            let soon = rng.micros(4) + Duration::from_nanos(1);
            let once = round % 2 == 0;
            let timer = runtime.block_on(async { if once { after_func(soon, f) } else { every(soon, f) } });
            spin(Duration::from_nanos(rng.below(12_000)));
            let second = round % 3 == 0;
            let second = second.then(|| runtime.spawn(timer.stop_and_wait()));
            let prevented = runtime.block_on(timer.stop_and_wait()).unwrap();
            assert!(!*inside.lock().unwrap(), "it is still inside");
            let so_far = runs.get();
            let by_second = second.is_some_and(|second| runtime.block_on(second).unwrap().unwrap());
            assert!(!(prevented && by_second), "two claimed one expiry");
            assert_eq!(so_far + usize::from(prevented || by_second), if once { 1 } else { so_far + 1 });
            assert!(!timer.stop());
            assert_eq!(runs.get(), so_far);
        }
    }
}

#[test]
fn the_future_may_be_sent_shared_and_moved() {
    fn is<T: Send + Sync + Unpin + 'static>(_: &T) {}
    check(|| async {
        let timer = every(HOUR, || ());
        let waiting = timer.stop_and_wait();
        is(&waiting);
        is(&timer);
        assert_eq!(format!("{waiting:?}"), "StopAndWait { prevented: true, .. }");
        sleep(Duration::ZERO).await;
        assert_eq!(waiting.await, Ok(true));
    });
}
