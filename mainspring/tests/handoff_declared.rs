//! `mainspring::blocking`: wherever it is called it calls its function, here and now; in a task, others go on
//! meanwhile.

mod common;
#[path = "common/gates.rs"]
mod gates;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, ThreadId};
use std::time::Duration;

use common::drops::{Count, on_drop};
use common::foreign::foreign_block_on;
use common::watchdog::Watchdog;
use common::{check, eventually, runtime, watched, work};
use gates::{Crew, Hold, Way, step};
use mainspring::runtime::{Builder, Handoff, Runtime};
use mainspring::task::{JoinHandle, JoinSet, yield_now};
use mainspring::time::{after_func, sleep};
use mainspring::{block_on, blocking, spawn, spawn_blocking};

const MILLI: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// The thread on which a function is called that was declared to block.
fn thread_of_blocking() -> ThreadId {
    blocking(|| thread::current().id())
}

/// On runtimes of one and of two processors as many tasks as there are processors are held by what `task` makes of
/// what holds a thread, until a task that needs one of the processors lets them go. An undeclared block would not be
/// taken for one: it may last an hour.
#[track_caller]
fn others_go_on<F: Future<Output = u32> + Send + 'static>(task: impl Fn(Hold) -> F) {
    let watchdog = Watchdog::here();
    for processors in [1, 2] {
        let handoff = Handoff::default().asleep_after(HOUR).on_cpu_after(HOUR);
        let builder = Builder::new().processors(processors).handoff(handoff);
        let runtime = step(&watchdog, builder, "others go on");
        let (crew, holds) = Crew::new(Way::Channel, processors);
        let tasks: Vec<_> = holds.into_iter().map(|hold| runtime.spawn(task(hold))).collect();
        let_go_when_all_are_held(&runtime, crew);
        for task in tasks {
            assert_eq!(runtime.block_on(task).unwrap(), 7);
        }
        assert_eq!(runtime.block_on(runtime.spawn(work())).unwrap(), 7);
        assert!(runtime.metrics().handoffs_declared > 0);
    }
}

fn let_go_when_all_are_held(runtime: &Runtime, crew: Crew) -> JoinHandle<()> {
    runtime.spawn(async move {
        while !crew.let_go_if_all_held() {
            sleep(MILLI).await;
        }
    })
}

// Where it may be called.

#[test]
fn it_calls_its_function_here_and_now_wherever_that_is() {
    let here = || thread::current().id();
    assert_eq!(thread_of_blocking(), here());
    assert_eq!(foreign_block_on(async { thread_of_blocking() }), here());
    assert_eq!(block_on(async { thread_of_blocking() }), here());
    check(|| async move {
        assert_eq!(thread_of_blocking(), here());
        let same = spawn(async move { thread_of_blocking() == here() });
        assert!(same.await.unwrap());
        assert!(spawn_blocking(move || thread_of_blocking() == here()).await.unwrap());
        let in_block_on = spawn(async move { block_on(async { thread_of_blocking() }) == here() });
        assert!(in_block_on.await.unwrap());
        let (sender, receiver) = tokio::sync::oneshot::channel();
        after_func(Duration::ZERO, move || sender.send(thread_of_blocking() == here()).unwrap());
        assert!(receiver.await.unwrap());
    });
}

#[test]
fn it_returns_what_the_function_returns_and_lets_it_borrow() {
    check(|| async {
        let task = spawn(async {
            let mut numbers = vec![3, 1, 2];
            let first = blocking(|| {
                numbers.sort_unstable();
                &numbers[0]
            });
            assert_eq!(*first, 1);
            blocking(|| ());
            // What is neither `Send` nor `'static`.
            let local = std::rc::Rc::new(numbers);
            blocking(|| std::rc::Rc::clone(&local)).len()
        });
        assert_eq!(task.await.unwrap(), 3);
    });
}

#[test]
fn in_the_blocking_pool_and_in_block_on_nothing_is_handed_off() {
    let (_watchdog, runtime) = watched(1);
    let jobs: Vec<_> =
        (0..20).map(|_| runtime.spawn_blocking(|| blocking(|| thread::sleep(10 * MILLI)))).collect();
    runtime.block_on(async {
        blocking(|| thread::sleep(10 * MILLI));
        for job in jobs {
            job.await.unwrap();
        }
    });
    assert_eq!(runtime.metrics().handoffs_declared, 0);
}

// Who goes on meanwhile.

#[test]
fn in_a_task_others_go_on() {
    others_go_on(|hold| async {
        blocking(hold);
        7
    });
}

#[test]
fn others_go_on_also_if_the_function_computes() {
    let watchdog = Watchdog::here();
    for processors in [1, 2] {
        let runtime = step(&watchdog, Builder::new().processors(processors), "it computes");
        let (crew, holds) = Crew::new(Way::Spin, processors);
        let tasks: Vec<_> = holds.into_iter().map(|hold| runtime.spawn(async { blocking(hold) })).collect();
        let_go_when_all_are_held(&runtime, crew);
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
    }
}

#[test]
fn nested_in_itself_others_go_on_until_the_outermost_ends() {
    others_go_on(|hold| async {
        blocking(|| blocking(|| blocking(hold)));
        7
    });
    others_go_on(|hold| async {
        blocking(|| {
            blocking(|| blocking(|| ()));
            catch_unwind(|| blocking(|| panic!("expected: on purpose"))).unwrap_err();
            hold();
            7
        })
    });
}

#[test]
fn in_block_on_in_a_task_and_around_it_others_go_on() {
    others_go_on(|hold| async {
        block_on(async {
            blocking(hold);
            work().await
        })
    });
    others_go_on(|hold| async {
        blocking(|| {
            block_on(async {
                hold();
                work().await
            })
        })
    });
    others_go_on(|hold| async {
        blocking(|| block_on(async { blocking(|| block_on(async { blocking(hold) })) }));
        work().await
    });
}

#[test]
fn in_block_on_on_another_runtime_and_on_a_foreign_executor_in_a_task_others_go_on() {
    let _watchdog = Watchdog::here();
    let other = runtime(1);
    let handle = other.handle();
    others_go_on(move |hold| {
        let handle = handle.clone();
        async move {
            handle.block_on(async {
                blocking(hold);
                work().await
            })
        }
    });
    others_go_on(|hold| async {
        foreign_block_on(async { blocking(hold) });
        work().await
    });
}

#[test]
fn after_it_the_task_may_say_so_again() {
    others_go_on(|hold| async {
        for _ in 0..10 {
            blocking(|| thread::sleep(MILLI));
            yield_now().await;
            blocking(|| thread::sleep(MILLI));
        }
        blocking(hold);
        work().await
    });
}

#[test]
fn in_a_timer_function_and_in_a_destructor_others_go_on() {
    others_go_on(|hold| async {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        after_func(Duration::ZERO, || {
            blocking(hold);
            sender.send(7).unwrap();
        });
        receiver.await.unwrap()
    });
    others_go_on(|hold| async {
        let mut hold = Some(hold);
        let holds = on_drop(move || blocking(hold.take().unwrap()));
        let task = spawn(async move {
            let _holds = holds;
            std::future::pending::<()>().await;
        });
        yield_now().await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        7
    });
}

#[test]
fn many_tasks_that_block_for_a_moment_all_end() {
    for processors in [1, 2] {
        let (_watchdog, runtime) = watched(processors);
        let (mut set, inside) = (JoinSet::new(), Count::new());
        for n in 0..200_u64 {
            let inside = inside.clone();
            let task = async move {
                for round in 0..5 {
                    let same = blocking(|| {
                        inside.add();
                        thread::sleep(Duration::from_micros((n * 7 + round * 31) % 300));
                        thread::current().id()
                    });
                    assert_eq!(same, thread::current().id());
                    if n % 2 == 0 {
                        yield_now().await;
                    }
                }
                n
            };
            set.spawn_on(task, &runtime.handle());
        }
        let mut results = Vec::new();
        while let Some(result) = runtime.block_on(set.join_next()) {
            results.push(result.unwrap());
        }
        results.sort_unstable();
        assert!(results.into_iter().eq(0..200));
        assert_eq!(inside.get(), 1000);
    }
}

// How it ends.

#[test]
fn a_panic_passes_through() {
    let message = |payload: Box<dyn std::any::Any + Send>| *payload.downcast::<&str>().unwrap();
    let _watchdog = Watchdog::here();
    let payload = catch_unwind(|| blocking(|| panic!("expected: in a plain thread"))).unwrap_err();
    assert_eq!(message(payload), "expected: in a plain thread");
    check(|| async move {
        let task = spawn(async { blocking(|| blocking(|| panic!("expected: in a task"))) });
        assert_eq!(message(task.await.unwrap_err().into_panic()), "expected: in a task");
        let job = spawn_blocking(|| blocking(|| panic!("expected: in the pool")));
        assert_eq!(message(job.await.unwrap_err().into_panic()), "expected: in the pool");
        assert_eq!(spawn(work()).await.unwrap(), 7);
    });
    others_go_on(move |hold| async move {
        let task = spawn(async {
            blocking(|| {
                hold();
                panic!("expected: after the hand-off")
            })
        });
        let error = task.await.unwrap_err();
        assert_eq!(message(error.into_panic()), "expected: after the hand-off");
        7
    });
    others_go_on(move |hold| async move {
        let result = catch_unwind(AssertUnwindSafe(|| {
            blocking(|| {
                hold();
                panic!("expected: and caught")
            })
        }));
        assert_eq!(message(result.unwrap_err()), "expected: and caught");
        work().await
    });
}

/// What comes before the block that is not declared.
type Before = fn();

#[test]
fn what_comes_after_it_is_not_declared() {
    let befores: [Before; 4] = [
        || (),
        || blocking(|| ()),
        || blocking(|| blocking(|| ())),
        || drop(catch_unwind(|| blocking(|| blocking(|| panic!("expected: on purpose")))).unwrap_err()),
    ];
    let watchdog = Watchdog::here();
    for before in befores {
        let handoff = Handoff::default().asleep_after(HOUR).on_cpu_after(HOUR);
        let runtime = step(&watchdog, Builder::new().processors(1).handoff(handoff), "not declared");
        let (crew, hold) = Crew::one(Way::Channel);
        let task = runtime.spawn(async move {
            before();
            hold();
        });
        eventually("it is held", || crew.all_held());
        // `before` itself may have been taken at its word, if the machine stopped the thread right there.
        if runtime.metrics().handoffs == 0 {
            let other = runtime.spawn(async {});
            thread::sleep(50 * MILLI);
            assert!(!other.is_finished());
            crew.let_go();
            runtime.block_on(other).unwrap();
        }
        crew.let_go();
        runtime.block_on(task).unwrap();
    }
}
