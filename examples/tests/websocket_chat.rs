//! The chat with real clients on mainspring's sockets: order, rooms, members who vanish, are slow or break the
//! rules, closing.

mod common;

use common::{SOON, run};
use mainspring::task::JoinHandle;
use mainspring::time::sleep;
use tokio::sync::oneshot;
use tokio_tungstenite::client_async;

use super::*;

type Client = WebSocketStream<TcpStream>;

/// A running chat.
struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(ping: Duration, patience: Duration) -> Running {
        let options = Options { listen: ([127, 0, 0, 1], 0).into(), ping, patience };
        let listener = TcpListener::bind(options.listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let stopped = async { stopped.await.unwrap_or(()) };
        Running { address, stop, task: mainspring::spawn(serve(listener, options, stopped)) }
    }

    async fn join(&self, path: &str) -> Client {
        self.try_join(path).await.unwrap()
    }

    async fn try_join(&self, path: &str) -> Result<Client, Error> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_deadline(Instant::now() + SOON).unwrap();
        client_async(format!("ws://{}/{path}", self.address), stream).await.map(|(client, _)| client)
    }

    async fn end(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }
}

async fn start() -> Running {
    Running::start(SOON, SOON).await
}

async fn say(client: &mut Client, text: &str) {
    client.send(Message::Text(text.into())).await.unwrap();
}

/// The next text. Pings are answered on the way, by tungstenite.
async fn hear(client: &mut Client) -> String {
    loop {
        match client.next().await.unwrap().unwrap() {
            Message::Text(text) => return text.as_str().to_owned(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The code with which the server closes, after whatever else comes.
async fn closed(client: &mut Client) -> CloseCode {
    loop {
        if let Message::Close(frame) = client.next().await.unwrap().unwrap() {
            let code = frame.unwrap().code;
            // The answer goes out, and the server ends the connection.
            assert!(client.next().await.is_none());
            return code;
        }
    }
}

#[test]
fn everybody_else_hears_each_message_in_the_same_order() {
    run(async {
        let chat = start().await;
        let mut listeners = Vec::new();
        for name in ["a", "b", "c"] {
            listeners.push(chat.join(&format!("kitchen?name={name}")).await);
        }
        let mut talkers = mainspring::task::JoinSet::new();
        let ann = chat.join("kitchen?name=ann").await;
        let bob = chat.join("kitchen?name=bob").await;
        for (name, mut client) in [("ann", ann), ("bob", bob)] {
            talkers.spawn(async move {
                for number in 0..50 {
                    say(&mut client, &format!("{number}")).await;
                }
                let mut heard = Vec::new();
                while heard.len() < 50 {
                    let line = hear(&mut client).await;
                    assert!(!line.starts_with(&format!("{name}:")), "{name} heard itself");
                    heard.extend((!line.starts_with('*')).then_some(line));
                }
                (client, heard)
            });
        }
        let mut heard = Vec::new();
        for client in &mut listeners {
            let mut lines = Vec::new();
            while lines.len() < 100 {
                let line = hear(client).await;
                lines.extend((!line.starts_with('*')).then_some(line));
            }
            heard.push(lines);
        }
        assert!(heard.iter().all(|lines| *lines == heard[0]));
        let of = |name: &str| -> Vec<String> {
            heard[0].iter().filter(|line| line.starts_with(name)).cloned().collect()
        };
        for name in ["ann", "bob"] {
            let expected: Vec<String> = (0..50).map(|number| format!("{name}: {number}")).collect();
            assert_eq!(of(name), expected);
        }
        let both: Vec<_> = talkers.join_all().await;
        let from_ann = both.iter().any(|(_, lines)| *lines == of("ann"));
        let from_bob = both.iter().any(|(_, lines)| *lines == of("bob"));
        assert!(from_ann && from_bob);
        drop((listeners, both));
        chat.end().await;
    });
}

#[test]
fn rooms_do_not_hear_each_other() {
    run(async {
        let chat = start().await;
        let mut ann = chat.join("kitchen?name=ann").await;
        let mut bob = chat.join("kitchen?name=bob").await;
        let mut eve = chat.join("cellar?name=eve").await;
        let mut guest = chat.join("cellar").await;
        say(&mut eve, "one").await;
        say(&mut ann, "two").await;
        assert_eq!(hear(&mut bob).await, "ann: two");
        assert_eq!(hear(&mut guest).await, "eve: one");
        assert_eq!(hear(&mut ann).await, "* bob joined");
        assert_eq!(hear(&mut eve).await, "* guest-3 joined");
        drop((ann, bob, eve, guest));
        chat.end().await;
    });
}

#[test]
fn a_request_for_no_room_is_refused() {
    run(async {
        let chat = start().await;
        for path in
            [String::new(), "?name=ann".to_owned(), "kitchen?name=".to_owned(), "x".repeat(NAME_MAX + 1)]
        {
            match chat.try_join(&path).await {
                Err(Error::Http(response)) => assert_eq!(response.status(), StatusCode::NOT_FOUND),
                other => panic!("{path}: {:?}", other.map(|_| ())),
            }
        }
        chat.end().await;
    });
}

#[test]
fn a_member_that_vanishes_disturbs_nobody_and_is_seen_to_leave() {
    run(async {
        let chat = start().await;
        let mut ann = chat.join("kitchen?name=ann").await;
        let mut bob = chat.join("kitchen?name=bob").await;
        let eve = chat.join("kitchen?name=eve").await;
        // A reset in the middle of everything, without a close frame.
        eve.get_ref().set_linger(Some(Duration::ZERO)).unwrap();
        drop(eve);
        say(&mut ann, "still here").await;
        let mut heard = Vec::new();
        for _ in 0..3 {
            heard.push(hear(&mut bob).await);
        }
        heard.sort();
        assert_eq!(heard, ["* eve joined", "* eve left", "ann: still here"]);
        drop((ann, bob));
        chat.end().await;
    });
}

#[test]
fn a_close_is_answered_with_its_code() {
    run(async {
        let chat = start().await;
        let mut ann = chat.join("kitchen?name=ann").await;
        let frame = CloseFrame { code: CloseCode::Library(4711), reason: "home".into() };
        ann.close(Some(frame)).await.unwrap();
        assert_eq!(closed(&mut ann).await, CloseCode::Library(4711));
        chat.end().await;
    });
}

#[test]
fn who_breaks_the_rules_is_told_by_the_code() {
    run(async {
        let chat = start().await;
        let too_long = Message::Text("x".repeat(MESSAGE_MAX + 1).into());
        let binary = Message::Binary(Bytes::from_static(b"\x00"));
        for (message, code) in [(too_long, CloseCode::Size), (binary, CloseCode::Unsupported)] {
            let mut ann = chat.join("kitchen?name=ann").await;
            ann.send(message).await.unwrap();
            assert_eq!(closed(&mut ann).await, code);
        }
        // A frame with a reserved opcode, past tungstenite.
        let mut ann = chat.join("kitchen?name=ann").await;
        ann.get_ref().write_all(&[0x83, 0x80, 0, 0, 0, 0]).await.unwrap();
        assert_eq!(closed(&mut ann).await, CloseCode::Protocol);
        drop(ann);
        // Longest message that is allowed.
        let mut ann = chat.join("kitchen?name=ann").await;
        let mut bob = chat.join("kitchen?name=bob").await;
        say(&mut ann, &"y".repeat(MESSAGE_MAX)).await;
        assert_eq!(hear(&mut bob).await.len(), MESSAGE_MAX + "ann: ".len());
        drop((ann, bob));
        chat.end().await;
    });
}

#[test]
fn everybody_is_told_when_the_chat_ends() {
    run(async {
        let chat = start().await;
        let mut ann = chat.join("kitchen?name=ann").await;
        let mut bob = chat.join("cellar?name=bob").await;
        chat.stop.send(()).unwrap();
        assert_eq!(closed(&mut ann).await, CloseCode::Away);
        assert_eq!(closed(&mut bob).await, CloseCode::Away);
        chat.task.await.unwrap();
    });
}

#[test]
fn who_answers_no_ping_is_cut_off_and_who_answers_stays() {
    run(async {
        let ping = Duration::from_millis(100);
        let chat = Running::start(ping, SOON).await;
        let mut ann = chat.join("kitchen?name=ann").await;
        let start = Instant::now();
        // It reads nothing, so it answers nothing.
        let silent = chat.join("kitchen?name=silent").await;
        assert_eq!(hear(&mut ann).await, "* silent joined");
        assert_eq!(hear(&mut ann).await, "* silent left");
        assert!(start.elapsed() >= ping * 3);
        drop((ann, silent));
        chat.end().await;
    });
}

#[test]
fn who_pings_is_answered_long_after_the_handshake() {
    run(async {
        let chat = Running::start(SOON, Duration::from_millis(50)).await;
        let mut ann = chat.join("kitchen?name=ann").await;
        sleep(Duration::from_millis(100)).await;
        let payload = Bytes::from_static(b"well?");
        ann.send(Message::Ping(payload.clone())).await.unwrap();
        loop {
            match ann.next().await.unwrap().unwrap() {
                Message::Ping(_) => {}
                other => {
                    assert_eq!(other, Message::Pong(payload));
                    break;
                }
            }
        }
        drop(ann);
        chat.end().await;
    });
}

#[test]
fn a_slow_member_is_told_what_it_has_missed_and_the_others_do_not_wait() {
    run(async {
        let chat = start().await;
        let mut slow = chat.join("kitchen?name=slow").await;
        let mut ann = chat.join("kitchen?name=ann").await;
        let mut bob = chat.join("kitchen?name=bob").await;
        // More than sockets and the room hold: 16 KiB each.
        let long = "z".repeat(MESSAGE_MAX);
        let total = 1500;
        for _ in 0..total {
            say(&mut ann, &long).await;
            assert_eq!(hear(&mut bob).await.len(), "ann: ".len() + long.len());
        }
        assert_eq!(hear(&mut slow).await, "* ann joined");
        assert_eq!(hear(&mut slow).await, "* bob joined");
        let (mut heard, mut missed) = (0, 0);
        while heard + missed < total {
            let line = hear(&mut slow).await;
            match line.strip_prefix("* ").and_then(|rest| rest.split(' ').next()) {
                Some(count) => missed += count.parse::<usize>().unwrap(),
                None => heard += 1,
            }
        }
        assert_eq!(heard + missed, total);
        assert!(missed > 0 && heard >= BACKLOG, "{heard} heard, {missed} missed");
        drop((slow, ann, bob));
        chat.end().await;
    });
}

#[test]
fn who_reads_nothing_is_cut_off_after_the_time_for_writing() {
    run(async {
        let chat = Running::start(SOON, Duration::from_millis(200)).await;
        let stuck = chat.join("kitchen?name=stuck").await;
        let mut ann = chat.join("kitchen?name=ann").await;
        let long = "z".repeat(MESSAGE_MAX);
        for _ in 0..1000 {
            say(&mut ann, &long).await;
        }
        assert_eq!(hear(&mut ann).await, "* stuck left");
        drop((stuck, ann));
        chat.end().await;
    });
}

#[test]
fn a_handshake_that_takes_too_long_ends() {
    run(async {
        let chat = Running::start(SOON, Duration::from_millis(100)).await;
        let stream = TcpStream::connect(chat.address).await.unwrap();
        stream.write_all(b"GET /kitchen HTTP/1.1\r\n").await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        chat.end().await;
    });
}

#[test]
fn a_room_ends_with_its_last_member() {
    run(async {
        let options = Options { listen: ([127, 0, 0, 1], 0).into(), ping: SOON, patience: SOON };
        let chat = Arc::new(Chat { options, rooms: Mutex::default(), members: AtomicU64::new(0) });
        let request = Request::builder().uri("/kitchen").body(()).unwrap();
        let (first, second) = (chat.enter(&request).unwrap(), chat.enter(&request).unwrap());
        drop(first);
        assert_eq!(chat.rooms().len(), 1);
        drop(second);
        assert!(chat.rooms().is_empty());
    });
}
