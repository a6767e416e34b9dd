//! The queue in a real Redis: the one that `MAINSPRING_TEST_REDIS` names, or a private one, or none, and then the
//! tests say so and pass. Each test has keys of its own.

mod common;
mod services;

use common::{SOON, run};
use mainspring::net::TcpListener;
use mainspring::time::Instant;
use services::Server;

use super::*;

const VARIABLE: &str = "MAINSPRING_TEST_REDIS";

fn server() -> Option<ConnectionInfo> {
    Some(match services::server("redis", VARIABLE)? {
        Server::Named(url) => info(url).expect("MAINSPRING_TEST_REDIS is a URL"),
        Server::Private { port, .. } => info(&format!("redis://127.0.0.1:{port}/")).unwrap(),
    })
}

/// Runs a test with a server, a connection to it, and an empty queue.
fn check<F: Future<Output = ()>>(name: &str, test: impl FnOnce(ConnectionInfo, Redis, Queue) -> F) {
    let Some(server) = server() else { return };
    run(async {
        let redis = Redis::connect(&server).await.unwrap();
        let queue = Queue::new(&format!("mainspring-test-{name}"));
        clear(&redis, &queue).await;
        test(server.clone(), redis, queue.clone()).await;
        clear(&Redis::connect(&server).await.unwrap(), &queue).await;
    });
}

async fn clear(redis: &Redis, queue: &Queue) {
    let keys = [&queue.waiting, &queue.working, &queue.count];
    let _: usize = redis.connection.clone().del(&keys[..]).await.unwrap();
}

#[test]
fn the_tour_says_what_it_did() {
    check("tour", async |server, _redis, _queue| {
        let options = Options { server, prefix: "mainspring-test-tour".to_owned() };
        let lines = tour(&options).await.unwrap();
        let expected = [
            "3 jobs are queued",
            "done: one",
            "done: two",
            "done: three",
            "the worker has done 3 jobs, and then waited in vain",
            "3 jobs were ever done",
        ];
        assert_eq!(lines, expected);
    });
}

#[test]
fn answers_to_many_requests_at_once_belong_to_their_questions() {
    check("pipeline", async |_server, redis, queue| {
        let mut tasks = mainspring::task::JoinSet::new();
        for number in 0..50_usize {
            let mut connection = redis.connection.clone();
            let key = format!("{}:{number}", queue.count);
            tasks.spawn(async move {
                let mut steps = pipe();
                for step in 0..100_usize {
                    steps.set(&key, number * 1000 + step).ignore().get(&key);
                }
                steps.del(&key).ignore();
                let answers: Vec<usize> = steps.query_async(&mut connection).await.unwrap();
                assert!(answers.into_iter().eq((0..100).map(|step| number * 1000 + step)));
            });
        }
        tasks.join_all().await;
    });
}

#[test]
fn each_job_is_done_once_by_several_workers() {
    check("workers", async |server, redis, queue| {
        let jobs: Vec<String> = (0..300).map(|number| number.to_string()).collect();
        let jobs: Vec<&str> = jobs.iter().map(String::as_str).collect();
        let mut workers = mainspring::task::JoinSet::new();
        for _ in 0..4 {
            let (server, queue) = (server.clone(), queue.clone());
            workers.spawn(async move { queue.work(&server, Duration::from_millis(500)).await.unwrap() });
        }
        for part in jobs.chunks(7) {
            queue.put(&redis, part).await.unwrap();
        }
        assert_eq!(workers.join_all().await.iter().sum::<usize>(), 300);
        assert_eq!(queue.count(&redis).await.unwrap(), 300);
        let left: Vec<String> = redis.connection.clone().lrange(&queue.working, 0, -1).await.unwrap();
        assert!(left.is_empty(), "{left:?}");
    });
}

#[test]
fn a_job_that_was_taken_and_not_finished_is_not_lost() {
    check("taken", async |_server, redis, queue| {
        queue.put(&redis, &["one"]).await.unwrap();
        assert_eq!(queue.take(&redis, SOON).await.unwrap().as_deref(), Some("one"));
        let working: Vec<String> = redis.connection.clone().lrange(&queue.working, 0, -1).await.unwrap();
        assert_eq!(working, ["one"]);
        assert_eq!(queue.count(&redis).await.unwrap(), 0);
    });
}

#[test]
fn waiting_for_a_job_ends_with_the_job_or_with_the_time() {
    check("blocking", async |server, redis, queue| {
        let patience = Duration::from_millis(100);
        let start = Instant::now();
        assert_eq!(queue.take(&redis, patience).await.unwrap(), None);
        assert!(start.elapsed() >= patience);
        let waiting = Redis::connect(&server).await.unwrap();
        let taker = mainspring::spawn({
            let queue = queue.clone();
            async move { queue.take(&waiting, SOON).await.unwrap() }
        });
        assert!(timeout(patience, std::future::pending::<()>()).await.is_err());
        assert!(!taker.is_finished());
        queue.put(&redis, &["late"]).await.unwrap();
        assert_eq!(taker.await.unwrap().as_deref(), Some("late"));
    });
}

#[test]
fn messages_arrive_in_order_beside_answers() {
    check("messages", async |server, mut redis, queue| {
        redis.connection.subscribe(&queue.done).await.unwrap();
        let other = Redis::connect(&server).await.unwrap();
        let publisher = mainspring::spawn({
            let channel = queue.done.clone();
            async move {
                for number in 0..500 {
                    let heard: usize = other.connection.clone().publish(&channel, number).await.unwrap();
                    assert_eq!(heard, 1);
                }
            }
        });
        for number in 0..500 {
            let message = redis.messages.recv().await.unwrap();
            assert_eq!(message.get_payload::<usize>().unwrap(), number);
            if number % 50 == 0 {
                assert_eq!(queue.count(&redis).await.unwrap(), 0);
            }
        }
        publisher.await.unwrap();
    });
}

#[test]
fn a_connection_that_the_server_ends_fails_what_is_asked_and_hangs_nobody() {
    check("ended", async |server, redis, queue| {
        let victim = Redis::connect(&server).await.unwrap();
        let id: usize =
            redis::cmd("CLIENT").arg("ID").query_async(&mut victim.connection.clone()).await.unwrap();
        let waiting = mainspring::spawn({
            let queue = queue.clone();
            async move { queue.take(&victim, SOON).await }
        });
        let mut kill = redis::cmd("CLIENT");
        kill.arg("KILL").arg("ID").arg(id);
        let killed: usize = kill.query_async(&mut redis.connection.clone()).await.unwrap();
        assert_eq!(killed, 1);
        assert!(waiting.await.unwrap().unwrap_err().is_connection_dropped());
    });
}

#[test]
fn dropping_a_connection_closes_it_although_something_blocks_in_the_server() {
    check("dropped", async |server, redis, queue| {
        let blocked = Redis::connect(&server).await.unwrap();
        let id: usize =
            redis::cmd("CLIENT").arg("ID").query_async(&mut blocked.connection.clone()).await.unwrap();
        assert!(timeout(Duration::from_millis(50), queue.take(&blocked, SOON * 2)).await.is_err());
        drop(blocked);
        let start = Instant::now();
        loop {
            let mut list = redis::cmd("CLIENT");
            list.arg("LIST").arg("ID").arg(id);
            let line: String = list.query_async(&mut redis.connection.clone()).await.unwrap();
            if line.is_empty() {
                return;
            }
            assert!(start.elapsed() < SOON, "{line}");
        }
    });
}

#[test]
fn a_unix_socket_leads_to_the_same_server() {
    check("unix", async |_server, redis, queue| {
        let Some(Server::Private { directory, .. }) = services::server("redis", VARIABLE) else { return };
        let url = format!("unix://{}", directory.join("redis.sock").display());
        let other = Redis::connect(&info(&url).unwrap()).await.unwrap();
        queue.put(&other, &["one"]).await.unwrap();
        assert_eq!(queue.take(&redis, SOON).await.unwrap().as_deref(), Some("one"));
    });
}

#[test]
fn a_server_that_is_not_there_is_an_error() {
    run(async {
        let refusing = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let server = info(&format!("redis://{refusing}/")).unwrap();
        let error = Redis::connect(&server).await.err().unwrap();
        assert!(error.is_connection_refusal(), "{error}");
    });
}
