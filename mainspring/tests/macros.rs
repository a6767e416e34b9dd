//! The attributes on the real runtime. What they make of a function, and what they refuse, is tested
//! beside them in `mainspring-macros`.

mod common;

use std::io;
use std::time::Duration;

use common::watchdog::Watchdog;
use mainspring::runtime::Handle;
use mainspring::time::sleep;

/// A watchdog of the runtime that runs the test.
#[track_caller]
fn watchdog() -> Watchdog {
    let watchdog = Watchdog::here();
    watchdog.watch(&Handle::current());
    watchdog
}

#[mainspring::test]
async fn a_test_runs_on_a_runtime_with_two_processors() {
    let _watchdog = watchdog();
    assert_eq!(Handle::current().metrics().processors, 2);
}

#[mainspring::test(processors = 1, thread_name = "named-by-the-attribute")]
async fn options_reach_the_builder() {
    let _watchdog = watchdog();
    assert_eq!(Handle::current().metrics().processors, 1);
    let name = mainspring::spawn(async { std::thread::current().name().map(str::to_owned) }).await.unwrap();
    let name = name.expect("workers have names");
    assert!(name.starts_with("named-by-the-attribute"), "{name}");
}

#[mainspring::test]
async fn tasks_and_timers_work_and_errors_convert() -> io::Result<()> {
    let _watchdog = watchdog();
    let task = mainspring::spawn(async {
        sleep(Duration::from_millis(1)).await;
        7
    });
    assert_eq!(task.await.map_err(io::Error::other)?, 7);
    Ok(())
}

#[mainspring::test]
#[should_panic(expected = "from the test itself")]
async fn a_panic_fails_the_test() {
    let _watchdog = watchdog();
    panic!("from the test itself");
}

#[mainspring::main]
async fn on_the_ambient_runtime() -> Result<u32, std::num::ParseIntError> {
    let number = mainspring::spawn(async { "12".parse::<u32>() }).await.expect("no panic")?;
    Ok(number)
}

#[mainspring::main(processors = 1, crate = ::mainspring)]
async fn on_a_runtime_of_its_own() -> usize {
    Handle::current().metrics().processors
}

#[test]
fn main_runs_on_the_ambient_runtime_or_on_its_own() {
    let _watchdog = Watchdog::here();
    assert_eq!(on_the_ambient_runtime(), Ok(12));
    assert_eq!(on_a_runtime_of_its_own(), 1);
}
