//! Redis through the crate `redis` on mainspring's sockets, without tokio's runtime: a queue of jobs, counters and
//! events.
//! `cargo run --release --example redis -- redis://127.0.0.1/`
//!
//! The crate's multiplexed connection takes any stream and gives the future that drives it, which becomes a task
//! here. [`Redis::connect`] does that. Its own timeouts, which are tokio's timers, are off: mainspring's
//! [`timeout`] stands around what must not take too long. Messages of channels come through the same connection, by
//! the protocol RESP3.
//!
//! It knows nothing of clusters, sentinels and TLS. Invariants: a job that was taken is in the list of those being
//! worked on until it is done, so none is lost with its worker; what blocks in the server has a connection of its
//! own, because everything behind it waits.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use mainspring::net::{TcpStream, UnixStream};
use mainspring::time::timeout;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncCommands, AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, Direction, IntoConnectionInfo, Msg,
    ProtocolVersion, RedisResult, pipe,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// How long the server may take to accept a connection, and to answer what it can answer at once.
const ANSWER: Duration = Duration::from_secs(5);

/// Works through a queue of jobs in Redis, and counts and announces what is done
#[derive(Parser, Debug)]
struct Options {
    /// Where Redis is
    #[arg(value_parser = info)]
    server: ConnectionInfo,

    /// What the names of keys and channels begin with
    #[arg(long, default_value = "mainspring-example")]
    prefix: String,
}

/// Reads a URL, and asks for the protocol that can send what was not asked for.
fn info(url: &str) -> RedisResult<ConnectionInfo> {
    let info = url.into_connection_info()?;
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    Ok(info.set_redis_settings(settings))
}

#[mainspring::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    match tour(&options).await {
        Ok(lines) => {
            lines.iter().for_each(|line| drop(writeln!(io::stdout(), "{line}")));
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "redis: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Has some jobs done; returns what there is to be said about it.
async fn tour(options: &Options) -> RedisResult<Vec<String>> {
    let mut redis = Redis::connect(&options.server).await?;
    let queue = Queue::new(&options.prefix);
    answer(redis.connection.subscribe(&queue.done)).await?;
    let mut lines = vec![format!("{} jobs are queued", queue.put(&redis, &["one", "two", "three"]).await?)];
    let worker = {
        let (server, queue) = (options.server.clone(), queue.clone());
        mainspring::spawn(async move { queue.work(&server, Duration::from_millis(100)).await })
    };
    for _ in 0..3 {
        if let Some(message) = redis.messages.recv().await {
            lines.push(format!("done: {}", message.get_payload::<String>()?));
        }
    }
    let worked = worker.await.map_err(io::Error::from)??;
    lines.push(format!("the worker has done {worked} jobs, and then waited in vain"));
    lines.push(format!("{} jobs were ever done", queue.count(&redis).await?));
    Ok(lines)
}

/// Waits for what the server can answer at once, but not for longer than a server that is well takes.
async fn answer<T>(asked: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    timeout(ANSWER, asked).await.map_err(io::Error::from)?
}

/// A connection, which a task drives.
struct Redis {
    connection: MultiplexedConnection,
    /// What is said on the channels that were subscribed to.
    messages: mpsc::UnboundedReceiver<Msg>,
}

impl Redis {
    /// Connects and says hello.
    async fn connect(info: &ConnectionInfo) -> RedisResult<Redis> {
        match info.addr() {
            ConnectionAddr::Tcp(host, port) => {
                let stream = TcpStream::connect_timeout((host.as_str(), *port), ANSWER).await?;
                stream.set_nodelay(true)?;
                Redis::over(info, stream).await
            }
            ConnectionAddr::Unix(path) => {
                Redis::over(info, UnixStream::connect_timeout(path, ANSWER).await?).await
            }
            _ => Err(io::Error::new(io::ErrorKind::Unsupported, "TLS is not part of this example").into()),
        }
    }

    /// Says hello on a stream, whatever that is, and spawns the task that drives it.
    async fn over<S>(info: &ConnectionInfo, stream: S) -> RedisResult<Redis>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, messages) = mpsc::unbounded_channel();
        let pass_on = move |push| match Msg::from_push_info(push) {
            Some(message) => sender.send(message).map_err(drop),
            // Confirmations, which the answers to the commands are as well.
            None => Ok(()),
        };
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_push_sender(pass_on);
        let hello = MultiplexedConnection::new_with_config(info.redis_settings(), stream, config);
        let (connection, driver) = answer(hello).await?;
        // It ends with the last clone of the connection, and closes the stream.
        mainspring::spawn(driver);
        Ok(Redis { connection, messages })
    }
}

/// The keys and the channel of one queue.
#[derive(Clone, Debug)]
struct Queue {
    waiting: String,
    working: String,
    count: String,
    done: String,
}

impl Queue {
    fn new(prefix: &str) -> Queue {
        let name = |part| format!("{prefix}:{part}");
        Queue { waiting: name("waiting"), working: name("working"), count: name("count"), done: name("done") }
    }

    /// Appends jobs; how many are waiting now.
    async fn put(&self, redis: &Redis, jobs: &[&str]) -> RedisResult<usize> {
        answer(redis.connection.clone().rpush(&self.waiting, jobs)).await
    }

    /// Waits so long for a job, in the server, and marks it as being worked on in the same step.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, a job may have been marked.
    async fn take(&self, redis: &Redis, patience: Duration) -> RedisResult<Option<String>> {
        let mut connection = redis.connection.clone();
        let (left, right) = (Direction::Left, Direction::Right);
        let taken = connection.blmove(&self.waiting, &self.working, left, right, patience.as_secs_f64());
        // The server is to say that there is none; this is for one that says nothing at all.
        timeout(patience + ANSWER, taken).await.map_err(io::Error::from)?
    }

    /// Takes the mark off a job, counts it and announces it: all three or nothing, in one round trip.
    async fn finish(&self, redis: &Redis, job: &str) -> RedisResult<()> {
        let mut connection = redis.connection.clone();
        let mut steps = pipe();
        steps.atomic().lrem(&self.working, 1, job).ignore();
        steps.incr(&self.count, 1).ignore().publish(&self.done, job).ignore();
        answer(async { steps.query_async(&mut connection).await }).await
    }

    async fn count(&self, redis: &Redis) -> RedisResult<u64> {
        let count: Option<u64> = answer(redis.connection.clone().get(&self.count)).await?;
        Ok(count.unwrap_or_default())
    }

    /// Does jobs until none has come for so long; how many it were.
    async fn work(&self, server: &ConnectionInfo, patience: Duration) -> RedisResult<usize> {
        let waiting = Redis::connect(server).await?;
        let finishing = Redis::connect(server).await?;
        let mut done = 0;
        while let Some(job) = self.take(&waiting, patience).await? {
            self.finish(&finishing, &job).await?;
            done += 1;
        }
        Ok(done)
    }
}

#[cfg(test)]
#[path = "tests/redis.rs"]
mod tests;
