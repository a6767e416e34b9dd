//! reqwest, a client that insists on tokio's reactor, inside tasks of mainspring: the feature `tokio-compat` puts their threads
//! into a context of tokio's, and nothing else is to be done.
//!
//! `cargo run --release --example reqwest -- URL [COUNT]` asks COUNT times at once, 8 by default, and says how long that took.
//! (Plain http: TLS is reqwest's own matter and would work as well.)

use std::error::Error;
use std::time::{Duration, Instant};

use mainspring::task::JoinSet;

/// What came of one request.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Page {
    status: u16,
    length: usize,
}

/// Asks for `url` so many times at once, each in a task of its own.
async fn fetch(client: &reqwest::Client, url: &str, count: usize) -> Vec<Result<Page, reqwest::Error>> {
    let mut set = JoinSet::new();
    for _ in 0..count {
        let request = client.get(url);
        set.spawn(async move {
            let answer = request.send().await?;
            Ok(Page { status: answer.status().as_u16(), length: answer.bytes().await?.len() })
        });
    }
    let mut pages = Vec::with_capacity(count);
    while let Some(page) = set.join_next().await {
        pages.push(page.expect("fetching does not panic"));
    }
    pages
}

/// A client whose requests may take `limit`.
fn client(limit: Duration) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder().timeout(limit).build()
}

#[mainspring::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("usage: reqwest URL [COUNT]")?;
    let count = arguments.next().map_or(Ok(8), |count| count.parse())?;
    let start = Instant::now();
    for page in fetch(&client(Duration::from_secs(30))?, &url, count).await {
        match page {
            Ok(page) => println!("status {}, {} bytes", page.status, page.length),
            Err(error) => println!("{error}"),
        }
    }
    println!("{count} requests in {:?}", start.elapsed());
    Ok(())
}

#[cfg(test)]
#[path = "tests/reqwest.rs"]
mod tests;
