//! The rule itself: *no lock of the runtime is held while user code runs*.
//!
//! Wakers, destructors, timer functions and panic hooks each call back into everything that is public.
//! Under a lock of the runtime's this would deadlock, and in builds with debug assertions the first pass
//! through a wrong path panics, which the watchdog's ear hears also where the runtime catches it. Every
//! place counts its calls, so that none is left out unseen.

mod common;

use std::any::Any;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use common::stress::soak;
use common::watchdog::{EXPECTED, Watchdog};
use mainspring::net::{TcpListener, TcpStream};
use mainspring::runtime::{Builder, Handle, Runtime};
use mainspring::task::{JoinSet, yield_now};
use mainspring::time::{Instant, Timer, after_func, every, interval, sleep, timeout};

const HOUR: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_micros(100);

/// What callbacks work on.
struct Everything {
    handle: Handle,
    stream: TcpStream,
    _peer: TcpStream,
    once: Timer,
    many: Timer,
    /// How often each place has called.
    calls: Mutex<BTreeMap<&'static str, usize>>,
}

thread_local! {
    /// Whether this thread is in `Everything::call`: what that drops and wakes calls back in its turn.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

impl Everything {
    fn new(handle: Handle) -> Arc<Everything> {
        handle.clone().block_on(async move {
            let (stream, peer) = connected().await;
            Arc::new(Everything {
                handle,
                stream,
                _peer: peer,
                once: after_func(HOUR, || ()),
                many: every(HOUR, || ()),
                calls: Mutex::default(),
            })
        })
    }

    /// Calls all that is public, in the name of `place`.
    fn call(&self, place: &'static str) {
        if INSIDE.replace(true) {
            return;
        }
        self.call_tasks();
        self.call_timers();
        self.call_deadlines();
        assert!(self.handle.metrics().processors > 0);
        assert!(format!("{:?} {:?}", self.handle, self.once).contains("processors"));
        let _ = (Handle::current(), Handle::try_current());
        self.handle.block_on(async {});
        mainspring::block_on(async {});
        *self.calls.lock().unwrap().entry(place).or_default() += 1;
        INSIDE.set(false);
    }

    fn call_tasks(&self) {
        drop(self.handle.spawn(yield_now()));
        drop(mainspring::spawn(async {}));
        let task = self.handle.spawn(pending::<()>());
        poll_once(pin!(async { task.await.map(drop) }));
        let task = self.handle.spawn(pending::<()>());
        let abort = task.abort_handle();
        task.abort();
        abort.abort();
        let _ = (task.is_finished(), task.id());
        drop(task);
        let mut set = JoinSet::new();
        set.spawn_on(pending::<()>(), &self.handle);
        poll_once(pin!(async { drop(set.join_next().await) }));
        drop(self.handle.spawn_blocking(|| ()));
    }

    fn call_timers(&self) {
        let mut nap = sleep(HOUR);
        poll_once(pin!(&mut nap));
        nap.reset(Instant::now() + 2 * HOUR);
        nap.reset(Instant::now() + HOUR / 2);
        poll_once(pin!(&mut nap));
        nap.reset(Instant::now());
        poll_once(pin!(&mut nap));
        poll_once(pin!(async { timeout(HOUR, pending::<()>()).await.is_ok() }));
        let mut ticks = interval(HOUR);
        poll_once(pin!(async { ticks.tick().await }));
        for timer in [&self.once, &self.many] {
            timer.reset(2 * HOUR);
            timer.stop();
            timer.stop();
            timer.reset(HOUR);
            poll_once(pin!(async { timer.stop_and_wait().await.is_ok() }));
            timer.reset(HOUR);
        }
        after_func(Duration::ZERO, || ());
        after_func(HOUR, || ()).stop();
        every(HOUR, || ()).stop();
    }

    fn call_deadlines(&self) {
        let now = Instant::now();
        // After the runtime's end they fail, which is an answer as well.
        let _ = self.stream.set_read_deadline(now + HOUR);
        let _ = self.stream.set_deadline(now - SOON);
        poll_once(pin!(async { drop(self.stream.read(&mut [0]).await) }));
        let _ = self.stream.deadlines().set_write_deadline(now + SOON);
        let _ = self.stream.set_deadline(None);
        poll_once(pin!(async { drop(self.stream.read(&mut [0]).await) }));
    }

    #[track_caller]
    fn wait_for(&self, places: &[&'static str]) {
        let start = std::time::Instant::now();
        for place in places {
            while !self.calls.lock().unwrap().contains_key(place) {
                assert!(start.elapsed() < Duration::from_secs(20), "{place} was never called");
                thread::sleep(Duration::from_micros(100));
            }
        }
    }
}

fn poll_once<F: Future>(future: Pin<&mut F>) {
    let _ = future.poll(&mut Context::from_waker(Waker::noop()));
}

async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

/// Calls back when it is woken, and when the last of its wakers is dropped.
struct Caller {
    everything: Arc<Everything>,
    woken: &'static str,
    dropped: &'static str,
}

impl Wake for Caller {
    fn wake(self: Arc<Self>) {
        self.everything.call(self.woken);
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.everything.call(self.dropped);
    }
}

/// Calls back when it is dropped.
struct OnDrop(Arc<Everything>, &'static str);

impl OnDrop {
    /// Uses it, so that a closure or a future owns it whole.
    fn hold(&self) {}
}

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.call(self.1);
    }
}

fn waker(everything: &Arc<Everything>, woken: &'static str, dropped: &'static str) -> Waker {
    Waker::from(Arc::new(Caller { everything: Arc::clone(everything), woken, dropped }))
}

/// Runs `test` on runtimes with one and with three processors, watched over.
fn on_runtimes(name: &str, test: impl Fn(Runtime, &Arc<Everything>)) {
    let watchdog = Watchdog::new(name);
    for processors in [1, 3] {
        watchdog.step(format!("{name}, {processors} processors"));
        let runtime = Builder::new().processors(processors).build().unwrap();
        watchdog.watch(&runtime.handle());
        let everything = Everything::new(runtime.handle());
        test(runtime, &everything);
        watchdog.step("the end of the test");
    }
}

/// Polls `future` with a waker that is replaced by a second one, which is then woken by `event`.
fn wake_through(
    runtime: &Runtime,
    everything: &Arc<Everything>,
    names: [&'static str; 3],
    mut future: Pin<&mut (impl Future + ?Sized)>,
    event: impl FnOnce(),
) {
    let [replaced, woken, dropped] = names;
    runtime.block_on(async {
        for waker in [waker(everything, "never", replaced), waker(everything, woken, dropped)] {
            assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
    });
    everything.wait_for(&[replaced]);
    event();
    everything.wait_for(&[woken]);
}

#[test]
fn wakers_of_sleeps_call_back() {
    on_runtimes("wakers of sleeps", |runtime, everything| {
        let names = ["sleep: replaced", "sleep: woken", "sleep: dropped"];
        // Long enough to be polled twice before it is over.
        let mut nap = sleep(Duration::from_millis(200));
        wake_through(&runtime, everything, names, pin!(&mut nap), || ());
        drop(nap);
        everything.wait_for(&["sleep: dropped"]);
    });
}

#[test]
fn wakers_of_join_handles_call_back() {
    on_runtimes("wakers of join handles", |runtime, everything| {
        let mut task = runtime.spawn(pending::<()>());
        let abort = task.abort_handle();
        let names = ["join: replaced", "join: woken", "join: dropped"];
        wake_through(&runtime, everything, names, pin!(&mut task), || abort.abort());
        everything.wait_for(&["join: dropped"]);
        let mut task = runtime.spawn(pending::<()>());
        let waker = waker(everything, "never", "join: detached");
        assert!(pin!(&mut task).poll(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        drop(task);
        everything.wait_for(&["join: detached"]);
    });
}

#[test]
fn wakers_of_sockets_call_back() {
    on_runtimes("wakers of sockets", |runtime, everything| {
        let (stream, peer) = runtime.block_on(connected());
        let mut byte = [0];
        let names = ["read: replaced", "read: woken by a byte", "read: dropped"];
        let event = || runtime.block_on(async { peer.write_all(&[1]).await.unwrap() });
        wake_through(&runtime, everything, names, pin!(stream.read(&mut byte)), event);
        everything.wait_for(&["read: dropped"]);

        runtime.block_on(async { stream.read(&mut [0]).await.unwrap() });
        let names = ["replaced", "read: woken by a deadline that comes", "dropped"];
        let event = || stream.set_read_deadline(Instant::now() + SOON).unwrap();
        wake_through(&runtime, everything, names, pin!(stream.read(&mut byte)), event);

        stream.set_read_deadline(None).unwrap();
        let names = ["replaced", "read: woken by a past deadline", "dropped"];
        let event = || stream.set_read_deadline(Instant::now() - SOON).unwrap();
        wake_through(&runtime, everything, names, pin!(stream.read(&mut byte)), event);

        stream.set_read_deadline(None).unwrap();
        let names = ["replaced", "read: woken by the end", "dropped"];
        let event = || peer.shutdown(Shutdown::Both).unwrap();
        wake_through(&runtime, everything, names, pin!(stream.read(&mut byte)), event);

        let (stream, _peer) = runtime.block_on(connected());
        let mut read = Box::pin(stream.read(&mut byte));
        let waker = waker(everything, "never", "read: given up");
        assert!(read.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        drop(read);
        everything.wait_for(&["read: given up"]);
    });
}

#[test]
fn wakers_of_who_waits_for_a_timer_function_call_back() {
    on_runtimes("wakers of stop_and_wait", |runtime, everything| {
        for periodic in [false, true] {
            let (begin, begun) = mpsc::channel();
            let (release, released) = mpsc::channel::<()>();
            let f = move || {
                begin.send(()).unwrap();
                let _ = released.recv();
            };
            let timer =
                runtime.block_on(async { if periodic { every(SOON, f) } else { after_func(SOON, f) } });
            begun.recv().unwrap();
            let mut given_up = Box::pin(timer.stop_and_wait());
            let waker = waker(everything, "never", "stop_and_wait: given up");
            assert!(given_up.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            drop(waker);
            drop(given_up);
            everything.wait_for(&["stop_and_wait: given up"]);
            let names = ["stop_and_wait: replaced", "stop_and_wait: woken", "stop_and_wait: dropped"];
            wake_through(&runtime, everything, names, pin!(timer.stop_and_wait()), || drop(release));
            everything.wait_for(&["stop_and_wait: dropped"]);
            everything.calls.lock().unwrap().clear();
        }
    });
}

#[test]
fn tasks_call_back_when_they_are_dropped() {
    on_runtimes("drops of tasks", |runtime, everything| {
        let on_drop = |place| OnDrop(Arc::clone(everything), place);
        let ready = on_drop("future: ready");
        runtime.spawn(async move { ready.hold() });
        let aborted = on_drop("future: aborted");
        let task = runtime.spawn(async move {
            pending::<()>().await;
            aborted.hold();
        });
        task.abort();
        let panicked = on_drop("future: panicked");
        runtime.spawn(async move {
            panicked.hold();
            yield_now().await;
            panic!("{EXPECTED} with a value at hand");
        });
        let output = on_drop("output: nobody wants it");
        drop(runtime.spawn(async move { output }));
        let output = on_drop("output: in the handle");
        let task = runtime.spawn(async move { output });
        while !task.is_finished() {
            thread::yield_now();
        }
        drop(task);
        let payload = on_drop("payload of a panic");
        runtime.spawn(async move { std::panic::resume_unwind(Box::new(payload)) });
        let job = on_drop("blocking job");
        runtime.spawn_blocking(move || job.hold());
        let set = on_drop("set: aborted");
        let mut tasks = JoinSet::new();
        tasks.spawn_on(
            async move {
                pending::<()>().await;
                set.hold();
            },
            &runtime.handle(),
        );
        drop(tasks);
        everything.wait_for(&[
            "future: ready",
            "future: aborted",
            "future: panicked",
            "output: nobody wants it",
            "output: in the handle",
            "payload of a panic",
            "blocking job",
            "set: aborted",
        ]);
    });
}

#[test]
fn timer_functions_call_back_and_stop_and_reset_themselves() {
    on_runtimes("timer functions", |runtime, everything| {
        runtime.block_on(async {
            let on_drop = |place| OnDrop(Arc::clone(everything), place);
            let (inside, captured) = (Arc::clone(everything), on_drop("once: captured"));
            after_func(SOON, move || {
                inside.call("once");
                captured.hold();
            });
            let own: Arc<OnceLock<Timer>> = Arc::default();
            let (inside, captured, mine) =
                (Arc::clone(everything), on_drop("many: captured"), Arc::clone(&own));
            let mut runs = 0;
            let timer = every(SOON, move || {
                captured.hold();
                runs += 1;
                if let Some(own) = mine.get() {
                    own.stop();
                    own.reset(SOON);
                }
                if runs == 3 {
                    inside.call("many");
                }
            });
            own.set(timer).unwrap();
            let captured = on_drop("panicked: captured");
            after_func(SOON, move || {
                captured.hold();
                panic!("{EXPECTED} in a timer function");
            });
            let captured = on_drop("stopped: captured");
            let stopped = after_func(HOUR, move || captured.hold());
            assert!(stopped.stop());
            drop(stopped);
        });
        everything.wait_for(&["once", "once: captured", "many", "panicked: captured", "stopped: captured"]);
        drop(runtime);
        everything.wait_for(&["many: captured"]);
    });
}

#[test]
fn panic_hooks_call_back() {
    let watchdog = Watchdog::new("panic hooks");
    static EVERYTHING: Mutex<Option<Arc<Everything>>> = Mutex::new(None);
    let everything = || EVERYTHING.lock().unwrap().clone();
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let asked = info.payload_as_str().is_some_and(|text| text.starts_with("expected: call back"));
        match everything().filter(|_| asked) {
            Some(everything) => everything.call("std's hook"),
            None => before(info),
        }
    }));
    for processors in [1, 3] {
        let hook = move |payload: &(dyn Any + Send)| {
            assert!(payload.downcast_ref::<&str>().is_some());
            if let Some(everything) = everything() {
                everything.call("the builder's hook");
            }
            panic!("{EXPECTED} in the hook itself");
        };
        let runtime = Builder::new().processors(processors).panic_hook(hook).build().unwrap();
        watchdog.watch(&runtime.handle());
        let everything = Everything::new(runtime.handle());
        EVERYTHING.lock().unwrap().replace(Arc::clone(&everything));
        for _ in 0..3 {
            let task = runtime.spawn(async { panic!("expected: call back from a task") });
            runtime.block_on(async { after_func(SOON, || panic!("expected: call back from a function")) });
            assert!(runtime.block_on(task).unwrap_err().is_panic());
        }
        while runtime.metrics().panics < 6 {
            thread::yield_now();
        }
        everything.wait_for(&["std's hook", "the builder's hook"]);
        EVERYTHING.lock().unwrap().take();
    }
}

#[test]
fn what_the_end_of_a_runtime_drops_and_wakes_calls_back() {
    on_runtimes("the end", |runtime, everything| {
        let on_drop = |place| OnDrop(Arc::clone(everything), place);
        for _ in 0..3 {
            let value = on_drop("end: a task's future");
            runtime.spawn(async move {
                pending::<()>().await;
                value.hold();
            });
        }
        let mut task = runtime.spawn(pending::<()>());
        let mut nap = sleep(HOUR);
        let (stream, _peer) = runtime.block_on(connected());
        let mut byte = [0];
        let mut read = Box::pin(stream.read(&mut byte));
        runtime.block_on(async {
            let poll = |future: Pin<&mut dyn Future<Output = ()>>, woken, dropped| {
                let waker = waker(everything, woken, dropped);
                assert!(future.poll(&mut Context::from_waker(&waker)).is_pending());
            };
            poll(pin!(async { drop((&mut task).await) }), "end: joining", "end: a join's waker");
            poll(pin!(async { drop(read.as_mut().await) }), "end: reading", "end: a read's waker");
            poll(pin!(&mut nap), "end: sleeping", "end: a sleep's waker");
            let value = on_drop("end: a function's captures");
            after_func(HOUR, move || value.hold());
            let value = on_drop("end: a periodic function's captures");
            every(HOUR, move || value.hold());
        });
        drop(runtime);
        everything.wait_for(&[
            "end: a task's future",
            "end: joining",
            "end: a join's waker",
            "end: reading",
            "end: a read's waker",
            "end: sleeping",
            "end: a function's captures",
            "end: a periodic function's captures",
        ]);
        drop(nap);
        everything.wait_for(&["end: a sleep's waker"]);
        // On the dead runtime too.
        everything.call("after the end");
    });
}

// Locks of the user's in both orders with the runtime's.

/// Takes the user's lock in each wake.
struct LocksWhenWoken {
    lock: Arc<Mutex<u64>>,
    woken: AtomicUsize,
}

impl Wake for LocksWhenWoken {
    fn wake(self: Arc<Self>) {
        *self.lock.lock().unwrap() += 1;
        self.woken.fetch_add(1, Ordering::SeqCst);
    }
}

/// Runtime first, then the user's lock: wakers and timer functions that take it. The user's lock first, then
/// the runtime: threads and tasks that arm, stop and spawn while they hold it.
#[test]
fn a_lock_of_the_users_may_be_taken_in_both_orders_with_the_runtimes() {
    let watchdog = Watchdog::new("locks of the user's");
    let rounds = (300.0 * soak()) as usize;
    for processors in [1, 2, 8] {
        let runtime = Builder::new().processors(processors).build().unwrap();
        watchdog.step(format!("locks of the user's, {processors} processors"));
        watchdog.watch(&runtime.handle());
        let lock: Arc<Mutex<u64>> = Arc::default();
        let (stream, _peer) = runtime.block_on(connected());
        let over = AtomicBool::new(false);
        let locked = || lock.lock().unwrap();
        thread::scope(|scope| {
            let deadlines = scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let guard = locked();
                    stream.set_read_deadline(None).unwrap();
                    stream.set_read_deadline(Instant::now() + SOON).unwrap();
                    drop(guard);
                    thread::yield_now();
                    // Not under the lock: a past deadline calls the reader's waker here and now, and that
                    // one takes the lock itself.
                    stream.set_read_deadline(Instant::now() - SOON).unwrap();
                }
            });
            scope.spawn(|| {
                for _ in 0..rounds {
                    let guard = locked();
                    let lock = Arc::clone(&lock);
                    let timer = runtime.block_on(async {
                        after_func(Duration::from_micros(20), move || *lock.lock().unwrap() += 1)
                    });
                    timer.reset(Duration::from_micros(10));
                    drop(runtime.spawn(yield_now()));
                    drop(guard);
                    thread::yield_now();
                    let _guard = locked();
                    timer.stop();
                }
            });
            let wake = Arc::new(LocksWhenWoken { lock: Arc::clone(&lock), woken: AtomicUsize::new(0) });
            for _ in 0..rounds {
                let waker = Waker::from(Arc::clone(&wake));
                let mut context = Context::from_waker(&waker);
                let mut byte = [0];
                let mut nap = sleep(Duration::from_micros(200));
                let mut task = runtime.spawn(sleep(SOON));
                let mut read = Box::pin(stream.read(&mut byte));
                runtime.block_on(async {
                    let _guard = locked();
                    let _ = Pin::new(&mut nap).poll(&mut context);
                    let _ = Pin::new(&mut task).poll(&mut context);
                    let _ = read.as_mut().poll(&mut context);
                });
                runtime.block_on(async { sleep(Duration::from_micros(300)).await });
                let _guard = locked();
                drop((nap, task, read));
            }
            // What was ready at once, or fell behind, wakes nobody; most wake somebody.
            assert!(wake.woken.load(Ordering::SeqCst) > rounds / 2, "{:?}", wake.woken);
            over.store(true, Ordering::Relaxed);
            deadlines.join().unwrap();
        });
        let _guard = locked();
        drop(runtime);
    }
}

#[test]
fn a_task_that_blocks_on_a_lock_whose_holder_needs_the_runtime_gets_it() {
    let watchdog = Watchdog::new("blocking on a lock");
    for processors in [1, 2] {
        let runtime = Builder::new().processors(processors).build().unwrap();
        watchdog.step(format!("blocking on a lock, {processors} processors"));
        watchdog.watch(&runtime.handle());
        let lock: Arc<Mutex<()>> = Arc::default();
        for _ in 0..50 {
            let guard = lock.lock().unwrap();
            let (sender, receiver) = mpsc::channel();
            let tasks: Vec<_> = (0..processors)
                .map(|_| {
                    let (lock, sender) = (Arc::clone(&lock), sender.clone());
                    runtime.spawn(async move {
                        sender.send(()).unwrap();
                        drop(lock.lock().unwrap());
                        sleep(SOON).await;
                    })
                })
                .collect();
            for _ in 0..processors {
                receiver.recv().unwrap();
            }
            // Every worker is on its way to the lock, and none has one of the runtime's in its hands.
            let timer = runtime.block_on(async { after_func(HOUR, || ()) });
            let late = runtime.spawn(async {});
            assert!(timer.reset(SOON));
            timer.stop();
            let _ = (runtime.metrics(), format!("{runtime:?}"));
            drop(guard);
            runtime.block_on(async {
                late.await.unwrap();
                for task in tasks {
                    task.await.unwrap();
                }
            });
        }
    }
}
