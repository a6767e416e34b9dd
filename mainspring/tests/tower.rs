//! The layers for tower's services, on this clock and in no context of tokio's.
#![cfg(feature = "tower")]

mod common;

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use common::sockets::poll_once;
use common::watchdog::Watchdog;
use common::{SOON, run};
use mainspring::compat::tower::{BufferLayer, RateLimit, RateLimitLayer, Timeout, TimeoutLayer, buffer};
use mainspring::spawn;
use mainspring::time::{Duration, Elapsed, Instant, sleep, timeout};
use tokio::sync::Semaphore;
use tower_layer::Layer;
use tower_service::Service;

const SHORT: Duration = Duration::from_millis(30);

type Answer = Pin<Box<dyn Future<Output = Result<u32, io::Error>> + Send>>;

/// Answers a number with itself, after so many milliseconds, and notes when it was called.
#[derive(Clone, Default)]
struct After {
    calls: Arc<Mutex<Vec<Instant>>>,
}

impl Service<u32> for After {
    type Response = u32;
    type Error = io::Error;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, ms: u32) -> Answer {
        self.calls.lock().unwrap().push(Instant::now());
        Box::pin(async move {
            sleep(Duration::from_millis(ms.into())).await;
            if ms == 13 { Err(io::Error::other("thirteen")) } else { Ok(ms) }
        })
    }
}

async fn until_ready<S: Service<u32>>(service: &mut S) -> Result<(), S::Error> {
    poll_fn(|context| service.poll_ready(context)).await
}

async fn ask<S>(service: &mut S, ms: u32) -> Result<u32, S::Error>
where
    S: Service<u32, Response = u32>,
{
    until_ready(service).await?;
    service.call(ms).await
}

/// As [`ask`], for a task: as an async function the compiler does not see that it is `Send`.
fn ask_owned<S>(mut service: S, ms: u32) -> impl Future<Output = Result<u32, S::Error>>
where
    S: Service<u32, Response = u32, Future: Unpin>,
{
    let mut answer = None;
    poll_fn(move |context| {
        if answer.is_none() {
            ready!(service.poll_ready(context))?;
            answer = Some(service.call(ms));
        }
        Pin::new(answer.as_mut().expect("it was called")).poll(context)
    })
}

async fn is_ready<S: Service<u32>>(service: &mut S) -> bool {
    poll_once(std::pin::pin!(until_ready(service))).await.is_ready()
}

// Timeout.

#[test]
fn an_answer_that_takes_too_long_is_an_error_that_says_so() {
    run(2, async {
        let mut service = TimeoutLayer::new(SHORT).layer(After::default());
        let start = Instant::now();
        let error = ask(&mut service, 3_600_000).await.unwrap_err();
        assert!(error.is::<Elapsed>(), "{error}");
        assert!(start.elapsed() >= SHORT);
        assert_eq!(ask(&mut service, 1).await.unwrap(), 1);
        let mut service = Timeout::new(After::default(), SOON).clone();
        assert_eq!(ask(&mut service, 13).await.unwrap_err().to_string(), "thirteen");
    });
}

// Rate limit.

#[test]
fn no_interval_has_more_calls_than_allowed_wherever_it_begins() {
    const COUNT: usize = 5;
    run(2, async {
        let after = After::default();
        let service = RateLimitLayer::new(COUNT as u64, SHORT).layer(after.clone());
        let start = Instant::now();
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let mut service = service.clone();
                spawn(async move {
                    for _ in 0..5 {
                        ask(&mut service, 0).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(after.calls.lock().unwrap().len(), 20);
        check_windows(&after, COUNT);
        // And no fewer than allowed: three periods, and not one for each call.
        assert!(start.elapsed() >= 3 * SHORT);
        assert!(start.elapsed() < 19 * SHORT, "{:?}", start.elapsed());
    });
}

/// No interval as long as the period has more than `count` calls.
fn check_windows(after: &After, count: usize) {
    let mut calls = after.calls.lock().unwrap().clone();
    calls.sort();
    for window in calls.windows(count + 1) {
        // The limit notes the time a moment before the service does.
        let apart = window[count] - window[0] + Duration::from_millis(1);
        assert!(apart >= SHORT, "{apart:?}");
    }
}

#[test]
fn calls_in_the_middle_of_a_period_count_in_the_next_one() {
    run(2, async {
        let after = After::default();
        let mut service = RateLimit::new(after.clone(), 5, SHORT);
        for number in 0..20 {
            if number == 3 {
                sleep(SHORT * 2 / 3).await;
            }
            ask(&mut service, 0).await.unwrap();
        }
        check_windows(&after, 5);
    });
}

#[test]
fn a_permit_that_is_given_back_wakes_the_next_in_line() {
    run(2, async {
        let mut first = RateLimit::new(After::default(), 1, Duration::MAX);
        assert!(is_ready(&mut first).await);
        let mut second = first.clone();
        let mut third = first.clone();
        assert!(!is_ready(&mut second).await);
        assert!(!is_ready(&mut third).await);
        let polls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&polls);
        let waits = spawn(async move {
            let ready = poll_fn(|context| {
                let poll = third.poll_ready(context);
                count.fetch_add(1, Ordering::Relaxed);
                poll
            });
            ready.await.unwrap();
            third
        });
        common::until(|| polls.load(Ordering::Relaxed) == 1).await;
        // The permit first, which is now for `second`, and then its place in the queue.
        drop(first);
        drop(second);
        let mut third = timeout(SOON, waits).await.unwrap().unwrap();
        // Ready stays ready, and uses up no more.
        assert!(is_ready(&mut third).await);
        assert_eq!(third.call(0).await.unwrap(), 0);
        // `Duration::MAX`: never again.
        assert!(!is_ready(&mut third).await);
    });
}

#[test]
fn those_that_wait_go_in_the_order_in_which_they_came() {
    run(2, async {
        let service = RateLimit::new(After::default(), 1, Duration::from_millis(2));
        let mut first = service.clone();
        ask(&mut first, 0).await.unwrap();
        let mut waiting: VecDeque<_> = (0..5)
            .map(|_| {
                let mut clone = service.clone();
                Box::pin(async move { ask(&mut clone, 0).await })
            })
            .collect();
        for clone in &mut waiting {
            assert!(poll_once(clone.as_mut()).await.is_pending());
        }
        sleep(SHORT).await;
        // There is a permit, but it is another one's turn.
        let mut last = service.clone();
        assert!(!is_ready(&mut last).await);
        assert!(poll_once(waiting[1].as_mut()).await.is_pending());
        while let Some(clone) = waiting.pop_front() {
            timeout(SOON, clone).await.unwrap().unwrap();
        }
        timeout(SOON, ask(&mut last, 0)).await.unwrap().unwrap();
    });
}

#[test]
#[should_panic(expected = "`poll_ready` comes before `call`")]
fn a_call_without_a_permit_is_a_mistake() {
    let _watchdog = Watchdog::here();
    drop(RateLimit::new(After::default(), 1, SHORT).call(0));
}

// Buffer.

/// Answers when it is allowed to; how many requests came to it.
struct Gate {
    permits: Arc<Semaphore>,
    calls: Arc<AtomicUsize>,
}

impl Service<u32> for Gate {
    type Response = u32;
    type Error = io::Error;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(if self.permits.is_closed() { Err(io::Error::other("closed")) } else { Ok(()) })
    }

    fn call(&mut self, number: u32) -> Answer {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let permits = Arc::clone(&self.permits);
        Box::pin(async move {
            permits.acquire().await.map_err(io::Error::other)?.forget();
            Ok(number)
        })
    }
}

#[test]
fn clones_of_a_buffer_reach_one_service_and_hear_of_its_end() {
    run(2, async {
        let (permits, calls) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let gate = Gate { permits: Arc::clone(&permits), calls: Arc::clone(&calls) };
        let service = BufferLayer::new(8).layer(gate);
        let asking: Vec<_> = (0..8).map(|number| spawn(ask_owned(service.clone(), number))).collect();
        common::until(|| calls.load(Ordering::Relaxed) == 8).await;
        permits.add_permits(8);
        for (number, task) in asking.into_iter().enumerate() {
            assert_eq!(task.await.unwrap().unwrap() as usize, number);
        }
        permits.close();
        let mut service = service;
        let mut failed = ask(&mut service, 0).await;
        // The worker takes a request before it finds that the service fails.
        if failed.is_ok() {
            failed = ask(&mut service, 0).await;
        }
        assert!(failed.unwrap_err().to_string().contains("closed"));
    });
}

#[test]
fn a_full_buffer_is_not_ready_until_there_is_room() {
    run(2, async {
        // Ready once a period: what comes faster fills the queue.
        let slow = RateLimit::new(After::default(), 1, SHORT);
        let service = buffer(slow, 1);
        let start = Instant::now();
        let tasks: Vec<_> = (0..4).map(|_| spawn(ask_owned(service.clone(), 0))).collect();
        let mut late = service.clone();
        let mut refused = false;
        while !refused && start.elapsed() < SOON {
            refused = !is_ready(&mut late).await;
            late = service.clone();
            mainspring::task::yield_now().await;
        }
        assert!(refused);
        for task in tasks {
            timeout(SOON, task).await.unwrap().unwrap().unwrap();
        }
        assert!(start.elapsed() >= 3 * SHORT);
    });
}

#[cfg(not(feature = "tokio-compat"))]
#[test]
fn none_of_it_needs_a_context_of_tokio() {
    // There is none to be in: tokio's runtime is not even linked. On the ambient runtime, and in its tasks.
    mainspring::block_on(async {
        let service = TimeoutLayer::new(SOON).layer(After::default());
        let service = RateLimitLayer::new(1, Duration::from_millis(1)).layer(service);
        let mut service = buffer(service, 1);
        assert_eq!(ask(&mut service, 1).await.unwrap(), 1);
        assert_eq!(ask(&mut service, 2).await.unwrap(), 2);
    });
}
