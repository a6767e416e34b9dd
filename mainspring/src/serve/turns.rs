//! By when the peer of a connection must have done something.
//!
//! The deadline runs while it is the peer's turn: it is to send a head, or the next part of a body that is being waited
//! for, or to take what it was sent. It does not run while only the service has something to do. It is set for
//! reading and for writing at once, because HTTP/2 waits for a peer that does not read by reading: for permission to
//! send more. What cannot be seen from here is how fast the peer reads the last part of an answer, which is in hyper's
//! buffer when the answer counts as finished; so hyper gets no large parts (`parts.rs`).
//!
//! Invariant: the deadline is the one of the present state: both change under one lock, and what setting a deadline leaves to
//! do, wakers above all, is done after that. So when the connection is released, nobody of ours sets one any more.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use pin_project_lite::pin_project;

use super::parts::{Piece, Rest};
use crate::base::rank::{Rank, RankedMutex};
use crate::net::Deadlines;
use crate::time::Instant;

/// One connection's.
pub(super) struct Turns {
    deadlines: Deadlines,
    /// How long the peer's turn may be; `None` if only its first one is limited.
    idle_timeout: Option<Duration>,
    state: RankedMutex<State>,
}

#[derive(Default)]
struct State {
    /// Requests whose answer is not finished; several at a time in HTTP/2.
    requests: usize,
    /// Bodies of which the next part is the peer's to send or to take.
    waits: usize,
    /// There is no deadline of ours any more: only the first head was limited, or the connection gets into other hands.
    released: bool,
}

impl Turns {
    /// The peer has to send the head of its first request until `first`.
    pub(super) fn new(
        deadlines: Deadlines,
        first: Option<Instant>,
        idle_timeout: Option<Duration>,
    ) -> Arc<Turns> {
        // It fails only if the connection has been closed, and then no deadline matters.
        let _ = deadlines.set_deadline(first);
        Arc::new(Turns { deadlines, idle_timeout, state: RankedMutex::new(Rank::Turns, State::default()) })
    }

    /// A head has come: the turns of its request, and of the request's body.
    pub(super) fn request(self: &Arc<Self>) -> (Option<Turn>, Option<Turn>) {
        if self.idle_timeout.is_none() {
            self.release();
            return (None, None);
        }
        self.update(|state| state.requests += 1);
        let answering = Turn { turns: Arc::clone(self), request: true, waits: false };
        let receiving = Turn { turns: Arc::clone(self), request: false, waits: false };
        (Some(answering), Some(receiving))
    }

    fn release(&self) {
        self.update(|state| state.released = true);
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        if state.released {
            return;
        }
        change(&mut state);
        let peers_turn = !state.released && (state.requests == 0 || state.waits > 0);
        let deadline = self.idle_timeout.filter(|_| peers_turn).map(|timeout| Instant::now() + timeout);
        let unfinished = self.deadlines.set_deadline_locked(deadline);
        drop(state);
        unfinished.finish();
    }
}

/// What one body, or one request with the body of its answer, adds to the state while it lives.
pub(super) struct Turn {
    turns: Arc<Turns>,
    request: bool,
    waits: bool,
}

impl Turn {
    /// The connection is no more for the server to end: it becomes a websocket, say.
    pub(super) fn release(&self) {
        self.turns.release();
    }

    /// A part was sent or taken, or is waited for from now on.
    fn set(&mut self, waits: bool) {
        let before = usize::from(std::mem::replace(&mut self.waits, waits));
        self.turns.update(|state| state.waits = state.waits - before + usize::from(waits));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.request || self.waits {
            self.turns.update(|state| {
                state.requests -= usize::from(self.request);
                state.waits -= usize::from(self.waits);
            });
        }
    }
}

/// The body of a request as a served app gets it: hyper's, which the idle timeout looks at.
///
/// axum takes any body. A service that asks for hyper's own gets it by
/// [`into_incoming`](RequestBody::into_incoming), with tower's `ServiceExt::map_request` for example.
pub struct RequestBody {
    inner: Incoming,
    turn: Option<Turn>,
}

impl RequestBody {
    pub(super) fn new(inner: Incoming, turn: Option<Turn>) -> RequestBody {
        RequestBody { inner, turn }
    }

    /// hyper's body. That the peer does not send its next part is not noticed from now on.
    pub fn into_incoming(self) -> Incoming {
        self.inner
    }
}

impl std::fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

/// It is the peer's turn from when somebody asks for the next part until it is here.
impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let poll = Pin::new(&mut self.inner).poll_frame(context);
        if let Some(turn) = &mut self.turn
            // Asking twice makes nobody's time longer.
            && poll.is_pending() != turn.waits
        {
            turn.set(poll.is_pending());
        }
        poll
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

pin_project! {
    /// The body of an answer. It is the peer's turn from when a part was given to hyper until hyper, which has room for
    /// a part at a time, asks for the next one.
    pub(super) struct AnswerBody<B: Body> {
        #[pin]
        inner: B,
        rest: Rest<B::Data>,
        turn: Option<Turn>,
    }
}

impl<B: Body> AnswerBody<B> {
    pub(super) fn new(inner: B, mut turn: Option<Turn>) -> AnswerBody<B> {
        if let Some(turn) = &mut turn
            && !inner.is_end_stream()
        {
            turn.set(true);
        }
        AnswerBody { inner, rest: Rest::default(), turn }
    }
}

impl<B: Body> Body for AnswerBody<B> {
    type Data = Piece<B::Data>;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, B::Error>>> {
        let this = self.project();
        let Some(turn) = this.turn else {
            return this.inner.poll_frame(context).map_ok(|frame| frame.map_data(Piece::Whole));
        };
        let poll = match this.rest.next_piece() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            None => {
                let poll = this.inner.poll_frame(context);
                poll.map_ok(|frame| frame.map_data(|part| this.rest.first_piece(part)))
            }
        };
        if poll.is_ready() || turn.waits {
            turn.set(poll.is_ready());
        }
        poll
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.inner.size_hint(), self.rest.len() as u64);
        if rest > 0 {
            if let Some(upper) = hint.upper() {
                hint.set_upper(upper.saturating_add(rest));
            }
            hint.set_lower(hint.lower().saturating_add(rest));
        }
        hint
    }
}

#[cfg(all(test, not(mainspring_loom)))]
mod tests {
    use std::sync::Barrier;

    use super::*;
    use crate::net::UnixStream;
    use crate::time::timeout;

    #[test]
    fn once_a_connection_is_released_nobody_changes_its_deadline() {
        const HOUR: Duration = Duration::from_secs(3_600);
        let (stream, _peer) = UnixStream::pair().unwrap();
        let deadlines = stream.deadlines();
        for _ in 0..3_000 {
            let turns = Turns::new(deadlines.clone(), None, Some(HOUR));
            let (answering, receiving) = turns.request();
            let start = Barrier::new(2);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut receiving = receiving;
                    start.wait();
                    for waits in [true, false, true, false] {
                        receiving.as_mut().unwrap().set(waits);
                    }
                });
                start.wait();
                answering.as_ref().unwrap().release();
                // Whoever has the connection now says that its time is over.
                stream.set_deadline(Instant::now()).unwrap();
            });
            let read =
                crate::block_on(timeout(Duration::from_secs(10), async { stream.read(&mut [0]).await }));
            let error = read.expect("the deadline is lost").unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        }
    }
}
