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
