//! PostgreSQL through tokio-postgres on mainspring's sockets, without tokio's runtime: a small ledger.
//! `cargo run --release --example postgres -- 'host=127.0.0.1 user=test dbname=postgres'`
//!
//! tokio-postgres opens no socket itself if it is given one: [`Database::connect`] does that, and spawns the task
//! that drives the connection. The rest is what a service does with a database: import by COPY, queries that share
//! a round trip, a transaction that is undone by being dropped, notifications, and a query that has its time and no
//! more.
//!
//! It knows nothing of pools and of TLS; for the latter give `connect_raw` a connector instead of `NoTls`.
//! Invariant: a query whose time is over is cancelled in the server as well, and the connection can be used on.

use std::error::Error;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use futures_util::future::try_join_all;
use futures_util::{SinkExt, TryStreamExt};
use mainspring::net::{TcpStream, UnixStream};
use mainspring::task::JoinHandle;
use mainspring::time::timeout;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::mpsc;
use tokio_postgres::config::Host;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Notification, Row};

/// How long one address of the server may take to answer.
const CONNECT: Duration = Duration::from_secs(5);

/// The channel of the ledger's notifications.
const CHANNEL: &str = "ledger";

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Runs a small ledger in a PostgreSQL database, in tables that end with the connection
#[derive(Parser, Debug)]
struct Options {
    /// Where the database is, in libpq's form or as a URL
    database: Config,

    /// How long the slow query may take
    #[arg(long, value_name = "SECONDS", default_value = "0.5")]
    patience: f64,
}

#[mainspring::main]
async fn main() -> ExitCode {
    match tour(&Options::parse()).await {
        Ok(lines) => {
            lines.iter().for_each(|line| drop(writeln!(io::stdout(), "{line}")));
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "postgres: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Does one thing of each kind; returns what there is to be said about it.
async fn tour(options: &Options) -> Result<Vec<String>> {
    let mut database = Database::connect(&options.database).await?;
    database.client.batch_execute("SET search_path = pg_temp").await?;
    let mut lines = Vec::new();
    let imported = create(&database.client, &[("ann", 100), ("bob", 50), ("eve", 0)]).await?;
    lines.push(format!("imported {imported} accounts by COPY"));
    database.client.batch_execute(&format!("LISTEN {CHANNEL}")).await?;
    transfer(&mut database.client, "ann", "eve", 30).await?;
    if let Some(notification) = database.notifications.recv().await {
        lines.push(format!("notified: {}", notification.payload()));
    }
    if let Err(error) = transfer(&mut database.client, "bob", "eve", 51).await {
        lines.push(format!("bob has not that much: {}", describe(&*error)));
    }
    let names = ["ann", "bob", "eve"];
    let balances = balances(&database.client, &names).await?;
    lines.push(format!("balances, in one round trip: {names:?} {balances:?}"));
    lines.extend(export(&database.client).await?.lines().map(|line| format!("exported: {line}")));
    let patience = Duration::try_from_secs_f64(options.patience)?;
    match within(&options.database, &database.client, patience, "SELECT pg_sleep(3600)").await? {
        Some(_) => lines.push("an hour has passed".to_owned()),
        None => lines.push(format!("the slow query was cancelled after {patience:?}")),
    }
    database.close().await?;
    Ok(lines)
}

/// An error with what is below it: tokio-postgres says "db error", and the server's words are the source.
fn describe(error: &(dyn Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| (*error).source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// A connection, and the task that drives it.
struct Database {
    client: Client,
    notifications: mpsc::UnboundedReceiver<Notification>,
    driver: JoinHandle<Result<(), tokio_postgres::Error>>,
}

impl Database {
    /// Connects to the first of the configured servers that answers.
    async fn connect(config: &Config) -> Result<Database> {
        Database::over(config, dial(config).await?).await
    }

    /// Says hello on a stream, whatever that is, and spawns the task that drives it.
    async fn over<S>(config: &Config, stream: S) -> Result<Database>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (client, connection) = config.connect_raw(stream, NoTls).await?;
        let (sender, notifications) = mpsc::unbounded_channel();
        Ok(Database { client, notifications, driver: mainspring::spawn(drive(connection, sender)) })
    }

    /// Ends the connection, and says how it went.
    async fn close(self) -> Result<()> {
        // The driver ends when no client is left and all that was asked has been answered.
        drop(self.client);
        Ok(self.driver.await??)
    }
}

/// Writes what clients ask, reads the answers, and passes notifications on; ends with the connection.
async fn drive<S, T>(
    mut connection: Connection<S, T>,
    notifications: mpsc::UnboundedSender<Notification>,
) -> Result<(), tokio_postgres::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = std::future::poll_fn(|context| connection.poll_message(context)).await {
        if let AsyncMessage::Notification(notification) = message? {
            // It fails if nobody is interested.
            let _ = notifications.send(notification);
        }
    }
    Ok(())
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl Stream for TcpStream {}
impl Stream for UnixStream {}

/// A stream to the first of the configured servers that answers.
async fn dial(config: &Config) -> Result<Box<dyn Stream>> {
    let mut last: Box<dyn Error + Send + Sync> = "the configuration names no host".into();
    for (index, host) in config.get_hosts().iter().enumerate() {
        // One port for each host, or one for all.
        let ports = config.get_ports();
        let port = *ports.get(index).or(ports.first()).unwrap_or(&5432);
        match dial_one(host, port).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = format!("{host:?}, port {port}: {error}").into(),
        }
    }
    Err(last)
}

async fn dial_one(host: &Host, port: u16) -> io::Result<Box<dyn Stream>> {
    match host {
        Host::Tcp(name) => {
            let stream = TcpStream::connect_timeout((name.as_str(), port), CONNECT).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream))
        }
        Host::Unix(directory) => {
            let path = directory.join(format!(".s.PGSQL.{port}"));
            Ok(Box::new(UnixStream::connect_timeout(path, CONNECT).await?))
        }
    }
}

/// Makes the table of accounts and fills it by COPY.
async fn create(client: &Client, accounts: &[(&str, i64)]) -> Result<u64> {
    client
        .batch_execute(
            "CREATE TABLE accounts (name text PRIMARY KEY, balance bigint NOT NULL CHECK (balance >= 0))",
        )
        .await?;
    let sink = client.copy_in::<_, io::Cursor<String>>("COPY accounts FROM STDIN").await?;
    let mut sink = std::pin::pin!(sink);
    for (name, balance) in accounts {
        sink.feed(io::Cursor::new(format!("{name}\t{balance}\n"))).await?;
    }
    Ok(sink.finish().await?)
}

/// All accounts, by COPY.
async fn export(client: &Client) -> Result<String> {
    let stream = client.copy_out("COPY (SELECT * FROM accounts ORDER BY name) TO STDOUT").await?;
    let parts: Vec<_> = stream.map_ok(|part| part.to_vec()).try_collect().await?;
    Ok(String::from_utf8(parts.concat())?)
}

/// Moves an amount in a transaction, and notifies those who listen. Whatever goes wrong, and also if the future is
/// dropped, nothing has been moved: the transaction is rolled back when it is dropped.
async fn transfer(client: &mut Client, from: &str, to: &str, amount: i64) -> Result<()> {
    let transaction = client.transaction().await?;
    let add = transaction.prepare("UPDATE accounts SET balance = balance + $2 WHERE name = $1").await?;
    for (name, change) in [(to, amount), (from, -amount)] {
        if transaction.execute(&add, &[&name, &change]).await? == 0 {
            return Err(format!("there is no account {name}").into());
        }
    }
    let payload = format!("{amount} from {from} to {to}");
    transaction.execute("SELECT pg_notify($1, $2)", &[&CHANNEL, &payload]).await?;
    Ok(transaction.commit().await?)
}

/// Several balances. Queries that are polled together are sent together, without waiting for one another's answers.
async fn balances(client: &Client, names: &[&str]) -> Result<Vec<i64>> {
    let query = client.prepare("SELECT balance FROM accounts WHERE name = $1").await?;
    let rows = names.iter().map(|name| {
        let query = &query;
        async move { client.query_one(query, &[name]).await }
    });
    Ok(try_join_all(rows).await?.iter().map(|row| row.get(0)).collect())
}

/// Runs a query that may take so long. `None` means that it took longer: then it is cancelled in the server,
/// through a connection of its own as PostgreSQL wants it, and its end is waited for, so that the next query meets
/// an idle connection.
async fn within(
    config: &Config,
    client: &Client,
    duration: Duration,
    query: &str,
) -> Result<Option<Vec<Row>>> {
    let mut running = std::pin::pin!(client.query(query, &[]));
    if let Ok(result) = timeout(duration, running.as_mut()).await {
        return Ok(Some(result?));
    }
    let mut stream = dial(config).await?;
    client.cancel_token().cancel_query_raw(&mut stream, NoTls).await?;
    // The server closes when it has passed that on. Whoever went on before could have the next query cancelled.
    while let Ok(1..) = stream.read(&mut [0]).await {}
    match running.await {
        // It was just in time.
        Ok(rows) => Ok(Some(rows)),
        Err(error) if error.code() == Some(&tokio_postgres::error::SqlState::QUERY_CANCELED) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
#[path = "tests/postgres.rs"]
mod tests;
