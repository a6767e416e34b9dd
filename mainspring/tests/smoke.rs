//! The first things that must work.
use mainspring::time::{Instant, sleep};
use std::time::Duration;

#[test]
fn spawn_and_sleep() {
    let rt = mainspring::runtime::Builder::new().processors(2).build().unwrap();
    let n = rt.block_on(async {
        let handles: Vec<_> = (0..100u64)
            .map(|n| {
                mainspring::spawn(async move {
                    sleep(Duration::from_micros(n * 10)).await;
                    n
                })
            })
            .collect();
        let mut sum = 0;
        for h in handles {
            sum += h.await.unwrap();
        }
        sum
    });
    assert_eq!(n, 4950);
    let start = Instant::now();
    rt.block_on(async { mainspring::spawn(async { sleep(Duration::from_micros(50)).await }).await.unwrap() });
    eprintln!("{:?} {:?}", start.elapsed(), rt.metrics());
}

#[test]
fn the_debug_form_names_each_processor_and_what_waits() {
    let runtime = mainspring::runtime::Builder::new().processors(2).build().unwrap();
    let timer = runtime
        .block_on(async { mainspring::time::after_func(Duration::from_secs(3600), || unreachable!()) });
    let text = format!("{runtime:#?}");
    assert_eq!(text.matches("earliest_timer").count(), 2, "{text}");
    assert_eq!(text.matches("timers_pending: 1").count(), 1, "{text}");
    assert!(text.contains("earliest_timer: in 35"), "{text}");
    assert!(timer.stop());
    let handle = runtime.handle();
    drop(runtime);
    let text = format!("{handle:#?}");
    assert!(text.contains("\"swept\""), "{text}");
    assert!(text.contains("workers: []"), "{text}");
}
