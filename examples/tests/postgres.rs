//! The ledger in a real PostgreSQL: the one that `MAINSPRING_TEST_POSTGRES` names, or a private one, or none, and
//! then the tests say so and pass. Each test has a schema of its own.

mod common;
mod services;

use std::sync::Arc;

use common::run;
use mainspring::time::{Instant, sleep};
use services::Server;
use tokio::io::AsyncWriteExt;
use tokio_postgres::error::SqlState;

use super::*;

const VARIABLE: &str = "MAINSPRING_TEST_POSTGRES";

/// A configuration for a server that is there.
fn server() -> Option<Config> {
    Some(match services::server("postgres", VARIABLE)? {
        Server::Named(text) => text.parse().expect("MAINSPRING_TEST_POSTGRES is a connection string"),
        Server::Private { port, .. } => {
            let mut config = Config::new();
            config.host("127.0.0.1").port(*port).user("test").dbname("postgres");
            config
        }
    })
}

/// Runs a test with a configuration whose connections see an empty schema first.
fn check<F: Future<Output = ()>>(schema: &str, test: impl FnOnce(Config) -> F) {
    let Some(mut config) = server() else { return };
    run(async {
        let name = format!("mainspring_test_{schema}");
        let database = Database::connect(&config).await.unwrap();
        let sql = format!("DROP SCHEMA IF EXISTS {name} CASCADE; CREATE SCHEMA {name}");
        database.client.batch_execute(&sql).await.unwrap();
        config.options(format!("-csearch_path={name}"));
        test(config).await;
        database.client.batch_execute(&format!("DROP SCHEMA {name} CASCADE")).await.unwrap();
        database.close().await.unwrap();
    });
}

fn code<'a>(error: &'a (dyn Error + Send + Sync + 'static)) -> Option<&'a SqlState> {
    error.downcast_ref::<tokio_postgres::Error>()?.code()
}

#[test]
fn the_tour_says_what_it_did() {
    let Some(database) = server() else { return };
    run(async {
        let lines = tour(&Options { database, patience: 0.1 }).await.unwrap();
        let expected = [
            "imported 3 accounts by COPY",
            "notified: 30 from ann to eve",
            "bob has not that much: db error: ERROR: new row for relation \"accounts\" violates check constraint \
             \"accounts_balance_check\"",
            "balances, in one round trip: [\"ann\", \"bob\", \"eve\"] [70, 50, 30]",
            "exported: ann\t70",
            "exported: bob\t50",
            "exported: eve\t30",
            "the slow query was cancelled after 100ms",
        ];
        for (line, start) in lines.iter().zip(expected) {
            assert!(line.starts_with(start), "{line}");
        }
        assert_eq!(lines.len(), expected.len());
    });
}

#[test]
fn what_is_copied_in_comes_out_again() {
    check("copy", async |config| {
        let database = Database::connect(&config).await.unwrap();
        let names: Vec<String> = (0..20_000).map(|number| format!("account{number:05}")).collect();
        let accounts: Vec<_> = names.iter().map(String::as_str).zip(0..).collect();
        assert_eq!(create(&database.client, &accounts).await.unwrap(), 20_000);
        let expected: String =
            accounts.iter().map(|(name, balance)| format!("{name}\t{balance}\n")).collect();
        assert!(export(&database.client).await.unwrap() == expected);
        database.close().await.unwrap();
    });
}

#[test]
fn answers_to_many_queries_at_once_belong_to_their_questions() {
    check("pipeline", async |config| {
        let database = Database::connect(&config).await.unwrap();
        let names: Vec<String> = (0..1000).map(|number| format!("a{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let accounts: Vec<_> = names.iter().copied().zip(0..).collect();
        create(&database.client, &accounts).await.unwrap();
        let client = Arc::new(database.client);
        let mut tasks = mainspring::task::JoinSet::new();
        for _ in 0..8 {
            let client = Arc::clone(&client);
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            tasks.spawn(async move {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                balances(&client, &names).await.unwrap()
            });
        }
        for answers in tasks.join_all().await {
            assert!(answers.into_iter().eq(0..1000));
        }
    });
}

#[test]
fn queries_that_are_polled_together_share_the_round_trip() {
    check("together", async |config| {
        // Through a relay that answers late, so that a round trip for each query would show.
        let database = Database::connect(&config).await.unwrap();
        create(&database.client, &[("a", 1)]).await.unwrap();
        let late = Duration::from_millis(20);
        let slow = Database::over(&config, relay(&config, late).await).await.unwrap();
        let start = Instant::now();
        balances(&slow.client, &["a"; 100]).await.unwrap();
        let elapsed = start.elapsed();
        assert!(elapsed < late * 50, "{elapsed:?} for 100 queries, {late:?} away");
        slow.close().await.unwrap();
        database.close().await.unwrap();
    });
}

/// A stream to the server through a relay that holds back each answer for a while.
async fn relay(config: &Config, late: Duration) -> tokio::io::DuplexStream {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (mut from_server, mut to_server) = tokio::io::split(dial(config).await.unwrap());
    let (mut from_client, mut to_client) = tokio::io::split(far);
    mainspring::spawn(async move {
        tokio::io::copy(&mut from_client, &mut to_server).await.unwrap();
        to_server.shutdown().await.unwrap();
    });
    mainspring::spawn(async move {
        let mut buffer = vec![0; 1 << 16];
        loop {
            match from_server.read(&mut buffer).await.unwrap() {
                0 => return,
                length => {
                    sleep(late).await;
                    if to_client.write_all(&buffer[..length]).await.is_err() {
                        return;
                    }
                }
            }
        }
    });
    near
}

#[test]
fn a_unix_socket_leads_to_the_same_server() {
    let Some(Server::Private { port, directory }) = services::server("postgres", VARIABLE) else { return };
    run(async {
        let mut config = Config::new();
        config.host_path(directory).port(*port).user("test").dbname("postgres");
        let database = Database::connect(&config).await.unwrap();
        let row = database.client.query_one("SELECT inet_server_addr()::text", &[]).await.unwrap();
        assert_eq!(row.get::<_, Option<&str>>(0), None);
        let slow = within(&config, &database.client, Duration::from_millis(50), "SELECT pg_sleep(3600)");
        assert!(slow.await.unwrap().is_none());
        database.close().await.unwrap();
    });
}

#[test]
fn a_transfer_that_fails_moves_nothing() {
    check("transfer", async |config| {
        let mut database = Database::connect(&config).await.unwrap();
        create(&database.client, &[("ann", 10), ("bob", 0)]).await.unwrap();
        transfer(&mut database.client, "ann", "bob", 4).await.unwrap();
        let error = transfer(&mut database.client, "ann", "bob", 7).await.unwrap_err();
        assert_eq!(code(&*error), Some(&SqlState::CHECK_VIOLATION));
        let error = transfer(&mut database.client, "nobody", "bob", 1).await.unwrap_err();
        assert_eq!(error.to_string(), "there is no account nobody");
        assert_eq!(balances(&database.client, &["ann", "bob"]).await.unwrap(), [6, 4]);
        database.close().await.unwrap();
    });
}

#[test]
fn a_transfer_that_is_dropped_half_way_moves_nothing() {
    check("dropped", async |config| {
        let holder = Database::connect(&config).await.unwrap();
        create(&holder.client, &[("ann", 10), ("bob", 0)]).await.unwrap();
        // The transfer has changed bob's account and waits for ann's, which is locked.
        holder
            .client
            .batch_execute("BEGIN; UPDATE accounts SET balance = 10 WHERE name = 'ann'")
            .await
            .unwrap();
        let mut database = Database::connect(&config).await.unwrap();
        let waiting = transfer(&mut database.client, "ann", "bob", 4);
        assert!(timeout(Duration::from_millis(200), waiting).await.is_err());
        holder.client.batch_execute("COMMIT").await.unwrap();
        // On the same connection, after the rollback.
        assert_eq!(balances(&database.client, &["ann", "bob"]).await.unwrap(), [10, 0]);
        database.close().await.unwrap();
        holder.close().await.unwrap();
    });
}

#[test]
fn transfers_from_many_connections_lose_nothing() {
    check("many", async |config| {
        let database = Database::connect(&config).await.unwrap();
        create(&database.client, &[("a", 1000), ("b", 1000)]).await.unwrap();
        let mut tasks = mainspring::task::JoinSet::new();
        for _ in 0..8 {
            let config = config.clone();
            tasks.spawn(async move {
                let mut database = Database::connect(&config).await.unwrap();
                for _ in 0..25 {
                    transfer(&mut database.client, "a", "b", 1).await.unwrap();
                }
                database.close().await.unwrap();
            });
        }
        tasks.join_all().await;
        assert_eq!(balances(&database.client, &["a", "b"]).await.unwrap(), [800, 1200]);
        database.close().await.unwrap();
    });
}

#[test]
fn notifications_arrive_in_order_while_nothing_is_asked() {
    check("listen", async |config| {
        let mut listener = Database::connect(&config).await.unwrap();
        listener.client.batch_execute("LISTEN mainspring_test").await.unwrap();
        let database = Database::connect(&config).await.unwrap();
        for number in 0..100 {
            database.client.batch_execute(&format!("NOTIFY mainspring_test, '{number}'")).await.unwrap();
        }
        for number in 0..100 {
            assert_eq!(listener.notifications.recv().await.unwrap().payload(), number.to_string());
        }
        database.close().await.unwrap();
        listener.close().await.unwrap();
    });
}

#[test]
fn a_query_that_takes_too_long_is_cancelled_and_the_connection_goes_on() {
    check("within", async |config| {
        let database = Database::connect(&config).await.unwrap();
        let brief = Duration::from_millis(50);
        let start = Instant::now();
        let slow = within(&config, &database.client, brief, "SELECT pg_sleep(3600)").await.unwrap();
        assert!(slow.is_none() && start.elapsed() >= brief);
        let rows = within(&config, &database.client, common::SOON, "SELECT 1 + 1").await.unwrap().unwrap();
        assert_eq!(rows[0].get::<_, i32>(0), 2);
        let error = within(&config, &database.client, common::SOON, "SELECT 1 / 0").await.unwrap_err();
        assert_eq!(code(&*error), Some(&SqlState::DIVISION_BY_ZERO));
        database.close().await.unwrap();
    });
}

#[test]
fn a_server_that_ends_the_connection_fails_what_is_asked_and_hangs_nobody() {
    check("ended", async |config| {
        let database = Database::connect(&config).await.unwrap();
        let waiting =
            database.client.query("SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(3600)", &[]);
        assert!(waiting.await.is_err());
        assert!(database.client.query("SELECT 1", &[]).await.unwrap_err().is_closed());
        assert!(database.close().await.is_err());
    });
}

#[test]
fn hosts_that_do_not_answer_are_passed_over() {
    let Some(config) = server() else { return };
    let (Some(Host::Tcp(host)), Some(port)) = (config.get_hosts().first(), config.get_ports().first()) else {
        return;
    };
    run(async {
        let refusing = mainspring::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let mut both = Config::new();
        both.host("127.0.0.1").port(refusing.port());
        let error = dial(&both).await.err().unwrap().to_string();
        let start = format!("Tcp(\"127.0.0.1\"), port {}: ", refusing.port());
        assert!(error.starts_with(&start), "{error}");
        both.host(host).port(*port);
        dial(&both).await.unwrap();
        assert!(dial(&Config::new()).await.is_err());
    });
}
