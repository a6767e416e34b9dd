//! The routes and the end of `http.rs`. `.ci/http` has real clients, loads, and peers that stall.

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use mainspring::compat::hyper::{Connector, Executor};
use mainspring::spawn;
use mainspring::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(30);

async fn ask(client: &Client<Connector, Full<Bytes>>, uri: String, body: &str) -> (StatusCode, String) {
    let request = Request::post(&uri).body(Full::new(body.to_owned().into()));
    let answer = match body {
        "" => client.get(uri.parse().unwrap()).await,
        _ => client.request(request.unwrap()).await,
    };
    let answer = answer.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[mainspring::test]
async fn every_route_answers_and_the_end_says_how_many_did() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = spawn(async move {
        let options = Options::parse_from(["http"]);
        let stopped = async {
            let _ = stopped.await;
        };
        serve(listener, &options, stopped).await
    });
    let client = Client::builder(Executor::new()).build(Connector::new());
    let expected = [
        ("/", "", StatusCode::OK, "<h1>mainspring</h1>"),
        ("/sleep/5", "", StatusCode::OK, "slept 5 ms"),
        ("/block/5", "", StatusCode::OK, "blocked a thread for 5 ms"),
        ("/sleep/60001", "", StatusCode::BAD_REQUEST, "at most 60000"),
        ("/block/x", "", StatusCode::BAD_REQUEST, "at most 10000"),
        ("/echo", "hello", StatusCode::OK, "hello"),
        ("/nothing", "", StatusCode::NOT_FOUND, ""),
        ("/metrics", "", StatusCode::OK, "\nhttp_requests_total 7\n"),
    ];
    for (path, body, status, pattern) in expected {
        let (got, text) = ask(&client, format!("http://{address}{path}"), body).await;
        assert_eq!(got, status, "{path}");
        assert!(text.contains(pattern), "{path}: {text}");
    }
    stop.send(()).unwrap();
    let summary = timeout(SOON, server).await.unwrap().unwrap().unwrap();
    assert_eq!(summary, "served 8 requests");
}

#[test]
fn flags_that_make_no_sense_are_refused() {
    for flags in [["--listen", "nowhere"], ["--processors", "0"], ["--idle-timeout", "soon"]] {
        assert!(Options::try_parse_from(["http"].into_iter().chain(flags)).is_err(), "{flags:?}");
    }
}
