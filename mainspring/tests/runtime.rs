//! Building runtimes, and what they say of themselves.

use std::io::ErrorKind;
use std::time::Duration;

use mainspring::runtime::{Builder, Handle};

#[test]
fn sizes_that_make_no_sense_are_refused_with_a_clear_error() {
    for (builder, says) in [
        (Builder::new().processors(0), "at least one processor"),
        (Builder::new().processors(1 << 20), "more than 4096 processors"),
        (Builder::new().max_threads(0), "at least one thread"),
        (Builder::new().thread_name("a\0b"), "zero byte"),
    ] {
        let error = builder.build().expect_err(says);
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn a_runtime_starts_with_one_worker_and_starts_others_for_work() {
    let runtime = Builder::new().processors(2).build().unwrap();
    assert_eq!(runtime.metrics().threads, 1);
    // Each waits for the other, on its thread: both run at once, or never end.
    let barrier = std::sync::Arc::new(std::sync::Barrier::new(2));
    let tasks = [(); 2].map(|()| {
        let barrier = std::sync::Arc::clone(&barrier);
        runtime.spawn(async move { barrier.wait().is_leader() })
    });
    let leaders = tasks.map(|task| u32::from(runtime.block_on(task).unwrap()));
    assert_eq!(leaders.iter().sum::<u32>(), 1);
    assert_eq!(runtime.metrics().threads, 2);
}

#[test]
fn the_debug_form_names_each_processor_and_what_waits() {
    let runtime = Builder::new().processors(2).build().unwrap();
    let timer = runtime
        .block_on(async { mainspring::time::after_func(Duration::from_secs(3600), || unreachable!()) });
    let text = format!("{runtime:#?}");
    assert_eq!(text.matches("earliest_timer").count(), 2, "{text}");
    assert_eq!(text.matches("timers_pending: 1").count(), 1, "{text}");
    assert!(text.contains("earliest_timer: in 3599."), "{text}");
    assert!(timer.stop());
    let handle = runtime.handle();
    drop(runtime);
    let text = format!("{handle:#?}");
    assert!(text.contains("\"swept\""), "{text}");
    assert!(text.contains("workers: []"), "{text}");
}

#[test]
fn a_plain_thread_works_for_no_runtime_and_still_has_the_ambient_one() {
    assert!(Handle::try_current().is_err());
    let here = Handle::current();
    let there = here.block_on(async { format!("{:?}", Handle::try_current().is_ok()) });
    assert_eq!(there, "true");
}
