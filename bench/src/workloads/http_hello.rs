//! HTTP/1.1 by hyper, with one short answer to everything; 64 connections kept alive by `wrk`. `http_axum` has the same
//! answer from an app of axum's behind the server that the peer's users give it to: `axum::serve` on tokio,
//! `mainspring::serve` here, each as it comes.
//!
//! The rate is that of the whole machine, wrk included, which is the same for all; the cost is the server's alone.

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};

use super::Plan;
use crate::measure::{Figure, Measurement, Meter, Outcome};
use crate::peers::Peer;

const HELLO: &str = "Hello, World!";
/// A server that does not answer for so long never will.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run<P: Peer>(peer: &P, plan: Plan) -> io::Result<Outcome> {
    load(plan, || peer.run(serve::<P>()).map(Some))
}

pub(super) fn run_axum<P: Peer>(peer: &P, plan: Plan) -> io::Result<Outcome> {
    load(plan, || peer.run(serve_axum::<P>()))
}

/// Starts the server, unless there is none, and measures it.
fn load(plan: Plan, start: impl FnOnce() -> io::Result<Option<SocketAddr>>) -> io::Result<Outcome> {
    // wrk says its version on the way out, and fails; that it starts is enough.
    match Command::new("wrk").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Outcome::Skipped("wrk is not installed (Debian's package wrk)".to_owned()));
        }
        started => started.map(drop)?,
    }
    let Some(address) = start()? else {
        return Ok(Outcome::Skipped("it has no server for an app of axum's".to_owned()));
    };
    check_answer(address)?;
    // wrk counts in whole seconds.
    let seconds = plan.time.as_secs_f64().ceil() as u64;
    let mut wrk = Command::new("wrk");
    wrk.stdin(Stdio::null()).stderr(Stdio::inherit());
    wrk.args(["-t2", "-c64", "--latency", &format!("-d{seconds}s"), &format!("http://{address}/")]);
    let meter = Meter::start();
    let output = wrk.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(io::Error::other(format!("wrk failed: {}\n{text}", output.status)));
    }
    report(meter, &text).map(Outcome::Measured)
}

/// wrk looks at the status alone.
fn check_answer(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&format!("\r\n\r\n{HELLO}")) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("the server answered {answer:?}")))
}

fn report(meter: Meter, text: &str) -> io::Result<Measurement> {
    let result = Wrk::read(text).ok_or_else(|| io::Error::other(format!("wrk said:\n{text}")))?;
    if result.failures {
        return Err(io::Error::other(format!("wrk saw requests fail:\n{text}")));
    }
    let mut measurement = meter.stop(result.requests);
    // wrk's own time has its start and its end left out.
    measurement.figures[0].value = result.rate;
    measurement.figures.push(Figure::nanoseconds("p50", result.p50_ns));
    measurement.figures.push(Figure::nanoseconds("p99", result.p99_ns));
    Ok(measurement)
}

async fn serve<P: Peer>() -> io::Result<SocketAddr> {
    let (listener, address) = P::bind().await?;
    drop(P::spawn(async move {
        while let Ok(stream) = P::accept(&listener).await {
            let connection = http1::Builder::new().serve_connection(P::http(stream), service_fn(hello));
            drop(P::spawn(async move {
                // A client that goes away in the middle of something is an error here; wrk's
                // connections all do.
                let _ = connection.await;
            }));
        }
    }));
    Ok(address)
}

async fn serve_axum<P: Peer>() -> io::Result<Option<SocketAddr>> {
    let (listener, address) = P::bind().await?;
    let app = axum::Router::new().route("/", axum::routing::get(async || HELLO));
    Ok(P::serve(listener, app).map(|serve| {
        drop(P::spawn(serve));
        address
    }))
}

async fn hello(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(Bytes::from_static(HELLO.as_bytes()))))
}

/// What wrk prints, as far as we care.
#[derive(Debug, PartialEq)]
struct Wrk {
    requests: u64,
    rate: f64,
    p50_ns: f64,
    p99_ns: f64,
    failures: bool,
}

impl Wrk {
    fn read(text: &str) -> Option<Wrk> {
        let after = |start: &str| text.lines().find_map(|line| Some(line.trim().strip_prefix(start)?.trim()));
        let requests =
            text.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok())?;
        Some(Wrk {
            requests,
            rate: after("Requests/sec:")?.parse().ok()?,
            p50_ns: nanoseconds(after("50%")?)?,
            p99_ns: nanoseconds(after("99%")?)?,
            failures: text.contains("Socket errors:") || text.contains("Non-2xx"),
        })
    }
}

fn nanoseconds(text: &str) -> Option<f64> {
    let number = text.trim_end_matches(char::is_alphabetic);
    let scale = match &text[number.len()..] {
        "us" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "Running 2s test @ http://127.0.0.1:8080/
  2 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   673.12us  433.21us  10.50ms   88.11%
    Req/Sec    47.53k     3.63k   53.90k    60.00%
  Latency Distribution
     50%  598.00us
     75%  801.00us
     90%    1.05ms
     99%    2.31ms
  189283 requests in 2.00s, 23.47MB read
Requests/sec:  94584.06
Transfer/sec:     11.73MB
";

    #[test]
    fn the_output_of_wrk_is_understood() {
        let expected =
            Wrk { requests: 189_283, rate: 94_584.06, p50_ns: 598e3, p99_ns: 2.31e6, failures: false };
        assert_eq!(Wrk::read(OUTPUT), Some(expected));
        assert_eq!(Wrk::read("unable to connect"), None);
    }

    #[test]
    fn a_failed_request_is_noticed() {
        let text = format!("{OUTPUT}  Socket errors: connect 0, read 3, write 0, timeout 0\n");
        assert!(Wrk::read(&text).unwrap().failures);
        let text = format!("{OUTPUT}  Non-2xx or 3xx responses: 5\n");
        assert!(Wrk::read(&text).unwrap().failures);
    }
}
