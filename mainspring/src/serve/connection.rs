//! One connection: its handshake, HTTP on it, and its end; and how hyper calls a tower service.
//!
//! Invariant: while a connection is served, it is counted. Before it is handed on by an upgrade, the server's deadline is
//! cleared for good, so that whoever gets it may set one.

use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::server::conn::auto;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::connections::{Entry, Phase};
use super::listener::Handshake;
use super::turns::{AnswerBody, RequestBody, Turn, Turns};
use super::{App, PeerAddr};
use crate::compat::hyper::Executor;

/// A connection that was accepted.
pub(super) struct Accepted<S, A> {
    pub(super) stream: S,
    pub(super) addr: Option<A>,
    pub(super) entry: Entry,
    pub(super) turns: Option<Arc<Turns>>,
}

/// Serves it to its end. When the server has to stop, requests that have begun to arrive are finished first.
///
/// An error says that the peer has gone, broke the protocol or missed a deadline: its own loss.
pub(super) async fn connection<Stream, A, H, S>(
    accepted: Accepted<Stream, A>,
    handshake: H,
    http: Arc<auto::Builder<Executor>>,
    service: S,
) where
    A: Clone + Send + Sync + 'static,
    H: Handshake<Stream>,
    S: App,
{
    let Accepted { stream, addr, mut entry, turns } = accepted;
    let mut handshake = pin!(handshake.handshake(stream));
    let io = poll_fn(|context| match handshake.as_mut().poll(context) {
        // Nothing was asked for yet.
        Poll::Pending if entry.poll_phase(context) != Phase::Serve => Poll::Ready(None),
        poll => poll.map(Result::ok),
    });
    let Some(io) = io.await else { return };
    let service = Requests { service, turns, peer: addr.map(PeerAddr) };
    let mut serving = pin!(http.serve_connection_with_upgrades(io, service));
    let mut polls_to_finish = 0;
    poll_fn(|context| {
        let phase = entry.poll_phase(context);
        if phase == Phase::CutOff {
            return Poll::Ready(());
        }
        let mut poll = serving.as_mut().poll(context);
        if poll.is_pending() && phase == Phase::Finish && polls_to_finish < 2 {
            polls_to_finish += 1;
            if polls_to_finish == 1 {
                // hyper closes what it takes for idle without a look at what has arrived. So it has to look first, and
                // this poll may have had no budget left for that.
                context.waker().wake_by_ref();
            } else {
                serving.as_mut().graceful_shutdown();
                poll = serving.as_mut().poll(context);
            }
        }
        poll.map(drop)
    })
    .await;
}

/// A tower service as hyper calls it: each request has a clone of it, which is asked whether it is ready.
struct Requests<S, A> {
    service: S,
    turns: Option<Arc<Turns>>,
    peer: Option<PeerAddr<A>>,
}

impl<S, A, B> hyper::service::Service<Request<Incoming>> for Requests<S, A>
where
    A: Clone + Send + Sync + 'static,
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone,
    B: Body,
{
    type Response = Response<AnswerBody<B>>;
    type Error = S::Error;
    type Future = Answer<S, B>;

    /// hyper calls this as soon as the head is there, and polls what is returned later.
    fn call(&self, request: Request<Incoming>) -> Answer<S, B> {
        let (answering, receiving) = self.turns.as_ref().map(Turns::request).unwrap_or_default();
        let is_connect = request.method() == Method::CONNECT;
        let mut request = request.map(|inner| RequestBody::new(inner, receiving));
        if let Some(peer) = &self.peer {
            request.extensions_mut().insert(peer.clone());
        }
        let state = State::Unready { service: self.service.clone(), request: Some(request) };
        Answer { state, answering, is_connect, body: PhantomData }
    }
}

pin_project! {
    /// Waits for the service to be ready, and for its answer.
    struct Answer<S: Service<Request<RequestBody>>, B> {
        #[pin]
        state: State<S, S::Future>,
        answering: Option<Turn>,
        is_connect: bool,
        body: PhantomData<fn() -> B>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, F> {
        Unready { service: S, request: Option<Request<RequestBody>> },
        Called { #[pin] future: F },
    }
}

impl<S, B> Future for Answer<S, B>
where
    S: Service<Request<RequestBody>, Response = Response<B>>,
    B: Body,
{
    type Output = Result<Response<AnswerBody<B>>, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProjection::Unready { service, request } => {
                    ready!(service.poll_ready(context))?;
                    let request = request.take().expect("it is polled no more after an error");
                    let future = service.call(request);
                    this.state.set(State::Called { future });
                }
                StateProjection::Called { future } => {
                    let answer = ready!(future.poll(context))?;
                    let answering = this.answering.take();
                    let status = answer.status();
                    // What goes through a tunnel is not seen here, nor what follows an upgrade.
                    if status == StatusCode::SWITCHING_PROTOCOLS || *this.is_connect && status.is_success() {
                        answering.iter().for_each(Turn::release);
                    }
                    return Poll::Ready(Ok(answer.map(|inner| AnswerBody::new(inner, answering))));
                }
            }
        }
    }
}
