//! A chat over websockets: `ws://HOST/ROOM?name=NAME`, and each text that one member of a room sends reaches all
//! others, in the same order for everybody. `cargo run --release --example websocket_chat`, and from two other
//! terminals `websocat 'ws://127.0.0.1:7001/kitchen?name=ann'`.
//!
//! It shows tokio-tungstenite on mainspring's sockets. Deadlines on the socket underneath decide who is still
//! there: the one for reading is pushed back by whatever arrives, a pong at least, the one for writing is set
//! before each frame. Whoever reads too slowly is told how many messages were passed over; whoever does not read at
//! all is cut off.
//!
//! It keeps no history. Invariants: a member is in the room before the handshake is answered, so it misses nothing
//! that is sent after that; a room exists while somebody is in it.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::ops::ControlFlow;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clap::Parser;
use futures_util::future::select;
use futures_util::{SinkExt, StreamExt};
use mainspring::net::{Deadlines, TcpListener, TcpStream};
use mainspring::signal::unix::{SignalKind, signal};
use mainspring::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

/// How many messages a room keeps for members who are slower than others.
const BACKLOG: usize = 256;

/// Longest message, in bytes.
const MESSAGE_MAX: usize = 16 * 1024;

/// Longest name of a room or a member, in bytes.
const NAME_MAX: usize = 64;

/// A chat over websockets: ws://ADDRESS/ROOM?name=NAME
#[derive(Parser, Clone, Debug)]
struct Options {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7001")]
    listen: SocketAddr,

    /// How often members are asked whether they are still there; two answers may be missing
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = seconds)]
    ping: Duration,

    /// How long a handshake, a member that does not read, and the farewell may take
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    patience: Duration,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("not a time that can be waited for".to_owned()),
    }
}

#[mainspring::main]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "websocket_chat: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the chat until SIGINT or SIGTERM.
async fn run(options: Options) -> io::Result<()> {
    let listener = TcpListener::bind(options.listen).await?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stop = async {
        select(pin!(interrupt.recv()), pin!(terminate.recv())).await;
    };
    serve(listener, options, stop).await;
    Ok(())
}

/// Serves members until `stop` is ready, and takes leave of all of them.
async fn serve(listener: TcpListener, options: Options, stop: impl Future<Output = ()>) {
    let patience = options.patience;
    let chat = Arc::new(Chat { options, rooms: Mutex::default(), members: AtomicU64::new(0) });
    // Each member holds a receiver until it has gone.
    let (stopping, _) = watch::channel(());
    select(pin!(accept_all(listener, &chat, &stopping)), pin!(stop)).await;
    let _ = stopping.send(());
    // A member that is stuck in a write is cut off by its deadline before this, and takes leave in the same time
    // again.
    let _ = timeout(patience * 3, stopping.closed()).await;
}

async fn accept_all(listener: TcpListener, chat: &Arc<Chat>, stopping: &watch::Sender<()>) {
    loop {
        // After an error, when no descriptor is left for example, the next call makes a pause itself.
        if let Ok((stream, _)) = listener.accept().await {
            mainspring::spawn(connection(Arc::clone(chat), stream, stopping.subscribe()));
        }
    }
}

/// What all members share.
struct Chat {
    options: Options,
    rooms: Mutex<HashMap<String, Room>>,
    /// How many members there have been.
    members: AtomicU64,
}

struct Room {
    lines: broadcast::Sender<Line>,
    members: usize,
}

/// What is said in a room: by whom, and what the others get.
#[derive(Clone, Debug)]
struct Line {
    from: u64,
    text: Utf8Bytes,
}

impl Chat {
    fn rooms(&self) -> MutexGuard<'_, HashMap<String, Room>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters the room that a request asks for.
    fn enter(self: &Arc<Self>, request: &Request) -> Result<Member, StatusCode> {
        // ordering: Relaxed, all that matters is that numbers differ.
        let id = self.members.fetch_add(1, Ordering::Relaxed);
        let room = request.uri().path().trim_start_matches('/').to_owned();
        let query = request.uri().query().unwrap_or_default();
        let name = query.split('&').find_map(|pair| pair.strip_prefix("name="));
        let name = name.map_or_else(|| format!("guest-{id}"), str::to_owned);
        if room.is_empty() || room.len() > NAME_MAX || name.is_empty() || name.len() > NAME_MAX {
            return Err(StatusCode::NOT_FOUND);
        }
        let (sender, lines) = {
            let mut rooms = self.rooms();
            let entry = rooms
                .entry(room.clone())
                .or_insert_with(|| Room { lines: broadcast::channel(BACKLOG).0, members: 0 });
            entry.members += 1;
            (entry.lines.clone(), entry.lines.subscribe())
        };
        let member = Member { chat: Arc::clone(self), id, room, name, sender, lines };
        member.say(format_args!("* {} joined", member.name));
        Ok(member)
    }
}

/// Somebody's place in a room, which others see leave when it is dropped, whatever the reason.
struct Member {
    chat: Arc<Chat>,
    id: u64,
    room: String,
    name: String,
    sender: broadcast::Sender<Line>,
    lines: broadcast::Receiver<Line>,
}

impl Member {
    fn say(&self, text: std::fmt::Arguments<'_>) {
        // It fails if nobody is left who listens.
        let _ = self.sender.send(Line { from: self.id, text: text.to_string().into() });
    }

    /// The next thing that another member says, or how many things were passed over.
    async fn next_line(&mut self) -> Utf8Bytes {
        loop {
            match self.lines.recv().await {
                Ok(line) if line.from == self.id => {}
                Ok(line) => return line.text,
                Err(RecvError::Lagged(count)) => {
                    return format!("* {count} messages were passed over").into();
                }
                Err(RecvError::Closed) => unreachable!("a member has a sender itself"),
            }
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.say(format_args!("* {} left", self.name));
        let mut rooms = self.chat.rooms();
        if let Some(room) = rooms.get_mut(&self.room) {
            room.members -= 1;
            if room.members == 0 {
                rooms.remove(&self.room);
            }
        }
    }
}

/// One connection, from its handshake to its end.
async fn connection(chat: Arc<Chat>, stream: TcpStream, mut stop: watch::Receiver<()>) {
    let _ = stream.set_nodelay(true);
    let deadlines = stream.deadlines();
    let patience = chat.options.patience;
    let _ = deadlines.set_deadline(Instant::now() + patience);
    let mut member = None;
    #[expect(clippy::result_large_err, reason = "its type is tungstenite's")]
    let enter = |request: &Request, response: Response| match chat.enter(request) {
        Ok(entered) => {
            member = Some(entered);
            Ok(response)
        }
        Err(status) => {
            let mut refusal = ErrorResponse::new(Some("ask for /ROOM?name=NAME\n".to_owned()));
            *refusal.status_mut() = status;
            Err(refusal)
        }
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(MESSAGE_MAX)
        .write_buffer_size(0)
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(MESSAGE_MAX));
    let Ok(socket) = accept_hdr_async_with_config(stream, enter, Some(config)).await else {
        return;
    };
    let Some(member) = member else {
        return;
    };
    let mut talk = Talk { socket, deadlines, options: chat.options.clone(), member };
    let farewell = talk.until_the_end(&mut stop).await;
    if let Some(code) = farewell {
        talk.take_leave(code).await;
    }
}

/// A member and its socket.
struct Talk {
    socket: WebSocketStream<TcpStream>,
    deadlines: Deadlines,
    options: Options,
    member: Member,
}

impl Talk {
    /// Passes messages on in both directions; says with which code to close, if there is anybody to tell.
    async fn until_the_end(&mut self, stop: &mut watch::Receiver<()>) -> Option<CloseCode> {
        let mut ping = interval(self.options.ping);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.is_there();
        loop {
            // All four lose nothing when another one is first.
            let step = tokio::select! {
                message = self.socket.next() => self.received(message),
                line = self.member.next_line() => self.send(Message::Text(line)).await,
                _ = ping.tick() => self.send(Message::Ping(Bytes::new())).await,
                _ = stop.changed() => ControlFlow::Break(Some(CloseCode::Away)),
            };
            if let ControlFlow::Break(code) = step {
                return code;
            }
        }
    }

    /// Whoever sends something is there, and may be silent again for a while.
    fn is_there(&self) {
        let _ = self.deadlines.set_read_deadline(Instant::now() + self.options.ping * 3);
    }

    fn received(&self, message: Option<Result<Message, Error>>) -> ControlFlow<Option<CloseCode>> {
        self.is_there();
        match message {
            Some(Ok(Message::Text(text))) => {
                self.member.say(format_args!("{}: {text}", self.member.name));
                ControlFlow::Continue(())
            }
            Some(Ok(Message::Binary(_))) => ControlFlow::Break(Some(CloseCode::Unsupported)),
            // tungstenite answers pings and closes; after a close it gives `None`.
            Some(Ok(_)) => ControlFlow::Continue(()),
            Some(Err(Error::Capacity(_))) => ControlFlow::Break(Some(CloseCode::Size)),
            Some(Err(Error::Protocol(_))) => ControlFlow::Break(Some(CloseCode::Protocol)),
            Some(Err(Error::Utf8(_))) => ControlFlow::Break(Some(CloseCode::Invalid)),
            Some(Err(_)) | None => ControlFlow::Break(None),
        }
    }

    async fn send(&mut self, message: Message) -> ControlFlow<Option<CloseCode>> {
        let _ = self.deadlines.set_write_deadline(Instant::now() + self.options.patience);
        let sent = self.socket.send(message).await;
        // While it reads, tungstenite may write as well: an answer to a ping, at any time.
        let _ = self.deadlines.set_write_deadline(None);
        match sent {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(None),
        }
    }

    /// Closes with a code and waits until the other side has closed as well, but not for long.
    async fn take_leave(mut self, code: CloseCode) {
        let _ = self.deadlines.set_deadline(Instant::now() + self.options.patience);
        let frame = CloseFrame { code, reason: Utf8Bytes::default() };
        if self.socket.close(Some(frame)).await.is_err() {
            return;
        }
        if !matches!(code, CloseCode::Size | CloseCode::Protocol | CloseCode::Invalid) {
            while let Some(Ok(_)) = self.socket.next().await {}
            return;
        }
        // What comes is no messages any more. Closing with unread bytes would be a reset, and could cost the other
        // side the code.
        let stream = self.socket.get_ref();
        let _ = stream.shutdown(Shutdown::Write);
        let mut rest = [0; 1024];
        while let Ok(1..) = stream.read(&mut rest).await {}
    }
}

#[cfg(test)]
#[path = "tests/websocket_chat.rs"]
mod tests;
