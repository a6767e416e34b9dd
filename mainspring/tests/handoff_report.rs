//! What is told of a hand-off: which task, spawned where, has blocked its thread, why that was noticed and for how
//! long; once when the processor is taken, and once more when the poll has returned.

mod common;
#[path = "common/gates.rs"]
mod gates;

use std::panic::Location;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use common::ending::{LONG, Tally};
use common::eventually;
use common::watchdog::Watchdog;
use gates::{ASLEEP, Crew, KINDS, Way, step};
use mainspring::runtime::{Builder, Handle, Handoff, HandoffCause, HandoffReport, Runtime};
use mainspring::task::{Id, JoinHandle, JoinSet, yield_now};
use mainspring::time::{after_func, sleep};

const MILLI: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// What the hook was told so far.
#[derive(Clone, Default)]
struct Reports(Arc<Mutex<Vec<HandoffReport>>>);

impl Reports {
    fn hook(&self) -> impl Fn(&HandoffReport) + Send + Sync + 'static {
        let reports = Arc::clone(&self.0);
        move |report| reports.lock().unwrap().push(report.clone())
    }

    fn all(&self) -> Vec<HandoffReport> {
        self.0.lock().unwrap().clone()
    }

    fn of(&self, task: Option<Id>) -> Vec<HandoffReport> {
        self.all().into_iter().filter(|report| report.task == task).collect()
    }

    /// Waits until there are so many of a task, and no more.
    #[track_caller]
    fn wait_for(&self, task: Option<Id>, count: usize) -> Vec<HandoffReport> {
        eventually("it is reported", || self.of(task).len() >= count);
        let reports = self.of(task);
        assert_eq!(reports.len(), count, "{reports:#?}");
        reports
    }
}

fn reporting(watchdog: &Watchdog, processors: usize, what: &str) -> (Runtime, Reports) {
    let reports = Reports::default();
    let builder = Builder::new().processors(processors).handoff_hook(reports.hook());
    let runtime = step(watchdog, builder, what);
    // A poll that computes is left alone while nobody could want its processor.
    runtime.spawn(sleep(Duration::from_secs(3600)));
    (runtime, reports)
}

fn cause(way: Way) -> HandoffCause {
    match way {
        Way::Declared => HandoffCause::Declared,
        Way::Spin => HandoffCause::OnCpu,
        _ => HandoffCause::Asleep,
    }
}

#[track_caller]
fn here() -> &'static Location<'static> {
    Location::caller()
}

/// Lets go from a task that needs a processor, some time after all are held.
fn let_go_after(runtime: &Runtime, crew: Crew, delay: Duration) -> JoinHandle<()> {
    runtime.spawn(async move {
        crew.until_all_held().await;
        sleep(delay).await;
        crew.let_go();
    })
}

#[test]
fn a_task_that_blocks_is_told_of_twice() {
    const HELD: Duration = Duration::from_millis(100);
    let watchdog = Watchdog::here();
    for way in ASLEEP.into_iter().chain([Way::Declared, Way::Spin]) {
        // What naps is held by many naps, and on a busy machine it may be seen between two of them.
        let causes: &[_] =
            if way == Way::Nap { &[HandoffCause::Asleep, HandoffCause::OnCpu] } else { &[cause(way)] };
        let (runtime, reports) = reporting(&watchdog, 1, &format!("{way:?}"));
        let (crew, hold) = Crew::one(way);
        let start = Instant::now();
        let future = async move {
            hold();
            start.elapsed()
        };
        let (place, task) = (here(), runtime.spawn(future));
        let id = task.id();
        let first = reports.wait_for(Some(id), 1).remove(0);
        assert!(!first.returned && !task.is_finished(), "{first:?}");
        let_go_after(&runtime, crew, HELD);
        let held = runtime.block_on(task).unwrap();
        let both = reports.wait_for(Some(id), 2);
        let took = start.elapsed();
        assert!(!both[0].returned && both[1].returned, "{both:?}");
        for report in &both {
            assert_eq!((report.task, &report.name), (Some(id), &None));
            let spawned_at = report.spawned_at.unwrap();
            assert_eq!((spawned_at.file(), spawned_at.line()), (file!(), place.line()));
            assert!(causes.contains(&report.cause), "{report:?}");
        }
        assert!(held >= HELD);
        assert!(both[0].lasted <= both[1].lasted, "{both:?}");
        // The monitor may have seen the poll for the first time some time after it began.
        assert!(both[1].lasted >= HELD / 2 && both[1].lasted <= took, "{both:?}, {held:?}, {took:?}");
        assert!(reports.all().len() as u64 <= 2 * runtime.metrics().handoffs, "something is told twice");
    }
}

#[test]
fn the_place_is_where_the_caller_spawned_it() {
    let watchdog = Watchdog::here();
    type Spawn = fn(&Runtime, gates::Hold) -> (u32, Id);
    let spawns: [(&str, Spawn); 5] = [
        ("Runtime::spawn", |runtime, hold| {
            let future = async { hold() };
            (line!(), runtime.spawn(future).id())
        }),
        ("Handle::spawn", |runtime, hold| {
            let (future, handle) = (async { hold() }, runtime.handle());
            (line!(), handle.spawn(future).id())
        }),
        ("spawn", |runtime, hold| {
            let spawning = async {
                let future = async { hold() };
                (line!(), mainspring::spawn(future).id())
            };
            runtime.block_on(spawning)
        }),
        ("JoinSet::spawn", |runtime, hold| {
            runtime.block_on(async {
                let (mut set, future) = (JoinSet::new(), async { hold() });
                let spawned = (line!(), set.spawn(future).id());
                set.detach_all();
                spawned
            })
        }),
        ("JoinSet::spawn_on", |runtime, hold| {
            let (mut set, future, handle) = (JoinSet::new(), async { hold() }, runtime.handle());
            let spawned = (line!(), set.spawn_on(future, &handle).id());
            set.detach_all();
            spawned
        }),
    ];
    for (name, spawn) in spawns {
        let (runtime, reports) = reporting(&watchdog, 1, name);
        let (crew, hold) = Crew::one(Way::Channel);
        let (line, id) = spawn(&runtime, hold);
        let_go_after(&runtime, crew, MILLI);
        for report in reports.wait_for(Some(id), 2) {
            let place = report.spawned_at.unwrap();
            assert_eq!((place.file(), place.line()), (file!(), line), "{name}");
        }
    }
}

#[test]
fn a_task_that_never_returns_is_told_of_once() {
    let watchdog = Watchdog::here();
    for way in KINDS {
        let (runtime, reports) = reporting(&watchdog, 1, &format!("{way:?}"));
        let (crew, hold) = Crew::one(way);
        let id = runtime.spawn(async { hold() }).id();
        reports.wait_for(Some(id), 1);
        runtime.block_on(runtime.spawn(sleep(50 * MILLI))).unwrap();
        let report = reports.wait_for(Some(id), 1).remove(0);
        assert_eq!((report.returned, report.cause), (false, cause(way)));
        crew.let_go();
        assert!(reports.wait_for(Some(id), 2)[1].returned);
    }
}

#[test]
fn a_task_that_has_a_name_is_told_of_by_it() {
    let watchdog = Watchdog::here();
    let (runtime, reports) = reporting(&watchdog, 1, "named");
    let (crew, hold) = Crew::one(Way::Channel);
    let named = mainspring::task::Builder::new().name("import");
    let task = named.spawn_on(async move { hold() }, &runtime.handle());
    let report = reports.wait_for(Some(task.id()), 1).remove(0);
    assert_eq!(report.name.as_deref(), Some("import"));
    assert!(report.to_string().contains("(import)"), "{report}");
    crew.let_go();
    runtime.block_on(task).unwrap();
}

/// Whichever of the threads it is that tells them.
#[test]
fn of_each_poll_that_blocks_the_beginning_is_told_before_the_end() {
    let watchdog = Watchdog::here();
    for processors in [1, 2] {
        let (runtime, reports) = reporting(&watchdog, processors, "many that block for a moment");
        let tasks: Vec<_> = (0..50_u64)
            .map(|n| {
                runtime.spawn(async move {
                    for round in 0..20 {
                        let nap = Duration::from_micros((n * 37 + round * 101) % 2000);
                        if n % 2 == 0 {
                            std::thread::sleep(nap);
                        } else {
                            mainspring::blocking(|| std::thread::sleep(nap));
                        }
                        yield_now().await;
                    }
                })
            })
            .collect();
        let ids: Vec<_> = tasks.iter().map(|task| Some(task.id())).collect();
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
        eventually("all is told", || {
            let all = reports.all();
            all.iter().filter(|report| report.returned).count() * 2 == all.len()
        });
        // What is not told of are reports that were held up themselves, by the hook's mutex.
        assert!(!reports.all().is_empty() && reports.all().len() as u64 <= 2 * runtime.metrics().handoffs);
        for id in ids {
            let reports = reports.of(id);
            assert!(
                reports
                    .chunks(2)
                    .all(|pair| !pair[0].returned && pair[1].returned && pair[0].cause == pair[1].cause),
                "{reports:#?}"
            );
        }
    }
}

#[test]
fn of_a_timer_function_there_is_no_task() {
    let watchdog = Watchdog::here();
    for way in KINDS {
        let (runtime, reports) = reporting(&watchdog, 1, &format!("{way:?}"));
        let (crew, hold) = Crew::one(way);
        runtime.block_on(async { after_func(Duration::ZERO, hold) });
        let_go_after(&runtime, crew, MILLI);
        for (report, returned) in reports.wait_for(None, 2).iter().zip([false, true]) {
            assert_eq!((report.cause, report.returned), (cause(way), returned));
            assert!(report.spawned_at.is_none() && report.name.is_none());
            assert!(report.to_string().starts_with("a timer function"), "{report}");
        }
    }
}

#[test]
fn a_report_reads_as_a_sentence() {
    let watchdog = Watchdog::here();
    let (runtime, reports) = reporting(&watchdog, 1, "a sentence");
    let (crew, hold) = Crew::one(Way::Channel);
    let (line, id) = (line!(), runtime.spawn(async { hold() }).id());
    let_go_after(&runtime, crew, MILLI);
    let told: Vec<_> = reports.wait_for(Some(id), 2).iter().map(ToString::to_string).collect();
    let start = format!("task {id}, spawned at {}:{line}:", file!());
    for (text, verb) in told.iter().zip([" has blocked its thread for ", " blocked its thread for "]) {
        assert!(text.starts_with(&start) && text.contains(verb), "{text}");
        assert!(text.ends_with("asleep in the kernel"), "{text}");
    }
}

// What is not told.

#[test]
fn without_hand_offs_nothing_is_told() {
    let watchdog = Watchdog::here();
    for way in KINDS {
        let reports = Reports::default();
        let builder = Builder::new().processors(1).handoff(Handoff::off()).handoff_hook(reports.hook());
        let runtime = step(&watchdog, builder, &format!("{way:?}"));
        let (crew, hold) = Crew::one(way);
        let task = runtime.spawn(async { hold() });
        eventually("it is held", || crew.all_held());
        std::thread::sleep(50 * MILLI);
        crew.let_go();
        runtime.block_on(task).unwrap();
        assert_eq!(reports.all().len(), 0, "{:#?}", reports.all());
    }
}

#[test]
fn what_blocks_elsewhere_is_not_told() {
    let watchdog = Watchdog::here();
    let (runtime, reports) = reporting(&watchdog, 1, "elsewhere");
    let job = runtime.spawn_blocking(|| std::thread::sleep(50 * MILLI));
    runtime.block_on(async { mainspring::blocking(|| std::thread::sleep(50 * MILLI)) });
    runtime.block_on(job).unwrap();
    assert_eq!(reports.all().len(), 0, "{:#?}", reports.all());
}

// What a hook may do.

/// Blocks tasks one after the other on a runtime with this hook, and checks that all goes on.
fn with_hook(watchdog: &Watchdog, what: &str, hook: impl Fn(&HandoffReport) + Send + Sync + 'static) {
    // Who computes on a busy machine is left out: these are counted.
    let handoff = Handoff::default().on_cpu_after(HOUR);
    let builder = Builder::new().processors(1).handoff(handoff).handoff_hook(hook);
    let runtime = step(watchdog, builder, what);
    for way in [Way::Channel, Way::Declared, Way::Pipe] {
        let (crew, holds) = Crew::new(way, 5);
        let tasks: Vec<_> = holds.into_iter().map(|hold| runtime.spawn(async { hold() })).collect();
        let_go_after(&runtime, crew, MILLI);
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
    }
    assert!(runtime.metrics().handoffs >= 15);
}

#[test]
fn a_hook_that_panics_does_no_harm() {
    let watchdog = Watchdog::here();
    with_hook(&watchdog, "it panics each time", |_| panic!("expected: a hook that panics"));
}

#[test]
fn a_hook_that_sleeps_does_no_harm() {
    let watchdog = Watchdog::here();
    with_hook(&watchdog, "it sleeps each time", |_| std::thread::sleep(5 * MILLI));
}

/// A runtime whose hook blocks once, when it is told the one or the other.
fn with_a_hook_that_blocks(watchdog: &Watchdog, returned: bool) -> (Runtime, Crew) {
    let (crew, hold) = Crew::one(Way::Channel);
    let hold = Mutex::new(Some(hold));
    let hook = move |report: &HandoffReport| {
        if report.returned == returned {
            let hold = hold.lock().unwrap().take();
            if let Some(hold) = hold {
                hold();
            }
        }
    };
    let builder = Builder::new().processors(1).handoff_hook(hook);
    (step(watchdog, builder, "a hook that blocks"), crew)
}

/// It waits for a task of the same runtime, and for nothing else.
#[test]
fn a_hook_that_blocks_delays_nobody() {
    let watchdog = Watchdog::here();
    for returned in [false, true] {
        let (runtime, in_hook) = with_a_hook_that_blocks(&watchdog, returned);
        let (in_task, hold) = Crew::one(Way::Channel);
        let task = runtime.spawn(async { hold() });
        let others = [in_task, in_hook].map(|crew| let_go_after(&runtime, crew, MILLI));
        for task in others.into_iter().chain([task]) {
            runtime.block_on(task).unwrap();
        }
    }
}

/// What a thread has in its hands when it comes back is queued before the hook is told of that.
#[test]
fn a_hook_that_blocks_does_not_delay_the_task_that_it_is_told_of() {
    let watchdog = Watchdog::here();
    let (runtime, in_hook) = with_a_hook_that_blocks(&watchdog, true);
    let (in_task, hold) = Crew::one(Way::Channel);
    let task = runtime.spawn(async {
        hold();
        mainspring::task::yield_now().await;
    });
    runtime.block_on(let_go_after(&runtime, in_task, MILLI)).unwrap();
    runtime.block_on(task).unwrap();
    eventually("the hook is called", || in_hook.all_held());
    in_hook.let_go();
}

#[test]
fn the_end_is_told_only_after_the_beginning_has_been_however_long_that_takes() {
    let watchdog = Watchdog::here();
    let (in_hook, hold) = Crew::one(Way::Channel);
    let (hold, order) = (Mutex::new(Some(hold)), Arc::new(Mutex::new(Vec::new())));
    let told = Arc::clone(&order);
    let hook = move |report: &HandoffReport| {
        let hold = hold.lock().unwrap().take();
        if let Some(hold) = hold {
            hold();
        }
        told.lock().unwrap().push(report.returned);
    };
    let runtime = step(&watchdog, Builder::new().processors(1).handoff_hook(hook), "a slow beginning");
    let (in_task, hold) = Crew::one(Way::Channel);
    let task = runtime.spawn(async { hold() });
    eventually("the hook is called", || in_hook.all_held());
    in_task.let_go();
    runtime.block_on(task).unwrap();
    std::thread::sleep(20 * MILLI);
    assert!(order.lock().unwrap().is_empty());
    in_hook.let_go();
    eventually("both are told", || order.lock().unwrap().len() == 2);
    assert_eq!(*order.lock().unwrap(), [false, true]);
}

#[test]
fn a_hook_that_blocks_does_not_hold_up_the_end_of_its_runtime() {
    let watchdog = Watchdog::here();
    for returned in [false, true] {
        let (runtime, in_hook) = with_a_hook_that_blocks(&watchdog, returned);
        let (in_task, hold) = Crew::one(Way::Channel);
        let task = runtime.spawn(async { hold() });
        runtime.block_on(let_go_after(&runtime, in_task, MILLI)).unwrap();
        runtime.block_on(task).unwrap();
        eventually("the hook is called", || in_hook.all_held());
        let start = Instant::now();
        drop(runtime);
        assert!(start.elapsed() < LONG, "{:?}", start.elapsed());
        in_hook.let_go();
    }
}

#[test]
fn a_hook_may_use_the_runtime() {
    let watchdog = Watchdog::here();
    let (tell, told) = mpsc::channel();
    let hook = move |report: &HandoffReport| {
        let (tell, returned) = (tell.clone(), report.returned);
        // The one whose hook it is. (A handle in the hook would keep the runtime for ever, as that keeps the hook.)
        let handoffs = Handle::current().metrics().handoffs;
        mainspring::spawn(async move {
            sleep(Duration::from_micros(100)).await;
            tell.send((returned, handoffs)).unwrap();
        });
        after_func(HOUR, || ()).stop();
    };
    let runtime = step(&watchdog, Builder::new().processors(1).handoff_hook(hook), "it spawns");
    let (crew, hold) = Crew::one(Way::Channel);
    let task = runtime.spawn(async { hold() });
    let_go_after(&runtime, crew, 20 * MILLI);
    runtime.block_on(task).unwrap();
    let both = [told.recv().unwrap(), told.recv().unwrap()];
    assert!(!both[0].0 && both[1].0 && both.iter().all(|(_, handoffs)| *handoffs > 0), "{both:?}");
}

#[test]
fn a_hook_is_dropped_with_its_runtime() {
    let watchdog = Watchdog::here();
    let tally = Tally::default();
    let token = tally.token();
    let builder = Builder::new().processors(1).handoff_hook(move |_| token.hold());
    let runtime = step(&watchdog, builder, "dropped");
    let (crew, hold) = Crew::one(Way::Channel);
    let task = runtime.spawn(async { hold() });
    let_go_after(&runtime, crew, MILLI);
    runtime.block_on(task).unwrap();
    assert_eq!(tally.alive(), 1);
    drop(runtime);
    // The watchdog has a handle, too.
    watchdog.step("dropped");
    tally.assert_all_dropped();
}
