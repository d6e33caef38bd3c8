//! The third verb: the route's chain decides. Every step is asked in the order written, until one answers.

mod pace;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use pingora::http::ResponseHeader;
use pingora::{Error, ErrorType};
use pingora_proxy::Session;
use tokio::time::{interval, timeout};

pub(super) use self::pace::Pace;
use super::respond::Refusal;
use super::{Ctx, Gateway, dispatch, fields, respond};
use crate::base::exchange::{Effects, Reply, Request};
use crate::plan::Route;
use crate::plugins::{Plugin, Verdict};
use crate::room::guard::TIDEGATE_PASS;

/// How often it is looked whether the client of a request that is held is still there.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Room for what most chains change in an answer, so that another change does not move those before it.
const EDITS_USUAL: usize = 8;

/// States of a TCP connection whose client has closed its side, as Linux numbers them: CLOSE, CLOSE_WAIT, LAST_ACK,
/// CLOSING.
const CLOSED_BY_CLIENT: [u8; 4] = [7, 8, 9, 11];

/// Runs the chain, and waits for what is left of a small request; the answer, if a step, a bound or a deadline gave one.
pub(super) async fn run(gateway: &Gateway, session: &mut Session, ctx: &mut Ctx) -> Option<Box<Reply>> {
    let mut effects = Effects::default();
    if ctx.route.as_ref().is_some_and(|route| !route.chain.is_empty()) {
        effects.to_client.reserve(EDITS_USUAL);
    }
    let answer = chain(gateway, session, ctx, &mut effects).await;
    ctx.effects = effects;
    if answer.is_some() {
        return answer;
    }
    let admitted = match within(gateway, session, ctx) {
        Ok(()) => gather(gateway, session).await.and_then(|()| admit(ctx)),
        refused => refused,
    };
    admitted.err().map(|refusal| Box::new(refusal.reply()))
}

async fn chain(gateway: &Gateway, session: &mut Session, ctx: &Ctx, effects: &mut Effects) -> Option<Box<Reply>> {
    let route = ctx.route.as_ref().filter(|route| !route.chain.is_empty())?;
    // A step that holds a request looks at its head all the while, and its client must be listened to.
    let head = fields::taken(session.req_header_mut());
    let answer = steps(gateway, session, (route, dispatch::view(&head, ctx)), effects).await;
    *session.req_header_mut() = head;
    answer
}

async fn steps(
    gateway: &Gateway,
    session: &mut Session,
    (route, mut request): (&Route, Request<'_>),
    effects: &mut Effects,
) -> Option<Box<Reply>> {
    for step in &route.chain {
        match ask(step.as_ref(), session, &request, effects).await {
            Ok(Asked::AtOnce) => {}
            // What comes behind is not to be decided by what the time was.
            Ok(Asked::Held) => request.now = gateway.clock.now(),
            Err(answer) => return Some(answer),
        }
    }
    None
}

/// How a step let a request through.
enum Asked {
    AtOnce,
    Held,
}

async fn ask(
    step: &dyn Plugin,
    session: &mut Session,
    request: &Request<'_>,
    effects: &mut Effects,
) -> Result<Asked, Box<Reply>> {
    let mut verdict = step.request(request, effects);
    let mut asked = Asked::AtOnce;
    loop {
        verdict = match verdict {
            Verdict::Continue => return Ok(asked),
            Verdict::Reply(reply) => return Err(reply),
            Verdict::Hold(decision) => while_there(session, decision)
                .await
                .ok_or_else(|| Box::new(Refusal::ClientGone.reply()))?,
        };
        asked = Asked::Held;
    }
}

/// Waits for a decision as long as somebody waits for the answer. Who is gone spends nothing, and is not in others' way:
/// a stream of HTTP/2 tells when it is over. What HTTP/1.1 sends may be a body or the next request, and Pingora does not
/// listen for the end of a connection alone, so that is looked at: before the decision goes on, and now and then.
async fn while_there<'a>(
    session: &mut Session,
    mut decision: Pin<Box<dyn Future<Output = Verdict<'a>> + Send + 'a>>,
) -> Option<Verdict<'a>> {
    if session.as_downstream().is_http2() {
        return tokio::select! {
            biased;
            _ = session.as_downstream_mut().read_body_or_idle(true) => None,
            verdict = decision => Some(verdict),
        };
    }
    let mut looks = interval(LOOK_EVERY);
    let mut waiting = false;
    poll_fn(|cx| {
        if waiting && has_gone(session) {
            return Poll::Ready(None);
        }
        waiting = true;
        let decided = decision.as_mut().poll(cx);
        if decided.is_pending() {
            while looks.poll_tick(cx).is_ready() {}
        }
        decided.map(Some)
    })
    .await
}

fn has_gone(session: &Session) -> bool {
    let digest = session.as_downstream().digest();
    let socket = digest.and_then(|digest| digest.socket_digest.as_ref());
    let state = socket.and_then(|socket| socket.tcp_info()).map(|info| info.tcpi_state);
    state.is_some_and(|state| CLOSED_BY_CLIENT.contains(&state))
}

/// A body that is declared to be too large is not even begun.
fn within(gateway: &Gateway, session: &Session, ctx: &Ctx) -> Result<(), Refusal> {
    let declared = dispatch::declared_length(&session.req_header().headers);
    if declared.is_some_and(|bytes| bytes > ctx.max_body(gateway)) {
        return Err(Refusal::BodyTooLarge);
    }
    Ok(())
}

/// Waits for a small body before an upstream is asked: who sends it slowly takes no place in flight, and a server is
/// waited for only when it has all of the request. Pingora keeps what is read for the server.
async fn gather(gateway: &Gateway, session: &mut Session) -> Result<(), Refusal> {
    if !respond::ends_soon(session) {
        return Ok(());
    }
    let downstream = session.as_downstream_mut();
    downstream.enable_retry_buffering();
    let mut pace = Pace::default();
    while !downstream.is_body_done() {
        // Pingora has such a deadline for HTTP/1.1 alone.
        let piece = timeout(gateway.bounds.request_body, downstream.read_request_body());
        match piece.await {
            Ok(Ok(Some(piece))) => {
                if !gateway.keeps_up(&mut pace, piece.len()) && !downstream.is_body_done() {
                    return Err(Refusal::RequestTimeout);
                }
            }
            Ok(Ok(None)) => break,
            Ok(Err(error)) if *error.etype() != ErrorType::ReadTimedout => return Err(Refusal::ClientGone),
            Ok(Err(_)) | Err(_) => return Err(Refusal::RequestTimeout),
        }
    }
    Ok(())
}

/// The last check before an upstream is asked: a place in flight.
fn admit(ctx: &mut Ctx) -> Result<(), Refusal> {
    let upstream = ctx.upstream().ok_or(Refusal::NoRoute)?;
    let permit = upstream.admit().ok_or(Refusal::UpstreamFull)?;
    upstream.note_request();
    ctx.permit = Some(permit);
    Ok(())
}

/// Shows the head of the upstream's answer to the chain, the last step first. What it says to rooms goes no further.
pub(super) fn answered(session: &Session, head: &mut ResponseHeader, ctx: &mut Ctx) {
    if let Some(route) = ctx.route.as_ref().filter(|route| !route.chain.is_empty()) {
        let mut effects = std::mem::take(&mut ctx.effects);
        let request = dispatch::view(session.req_header(), ctx);
        let steps = route.chain.iter().rev();
        steps.for_each(|step| step.answer(&request, &head.headers, &mut effects));
        ctx.effects = effects;
    }
    head.remove_header(&TIDEGATE_PASS);
}

/// Counts a piece of the request's body against its bound, for bodies that did not declare their length, and looks
/// whether it comes fast enough. What goes through a tunnel is no body.
pub(super) fn body(
    gateway: &Gateway,
    session: &Session,
    (piece, is_last): (Option<&Bytes>, bool),
    ctx: &mut Ctx,
) -> pingora::Result<()> {
    let Some(piece) = piece.filter(|_| !session.was_upgraded()) else {
        return Ok(());
    };
    ctx.body_bytes += piece.len() as u64;
    if ctx.body_bytes > ctx.max_body(gateway) {
        return Error::e_explain(ErrorType::HTTPStatus(413), "the request body is too large");
    }
    if !gateway.keeps_up(&mut ctx.pace, piece.len()) && !is_last {
        return Err(Error::explain(ErrorType::ReadTimedout, "the request body comes too slowly").into_down());
    }
    Ok(())
}

impl Gateway {
    fn keeps_up(&self, pace: &mut Pace, bytes: usize) -> bool {
        let bounds = &self.bounds;
        pace.keeps_up(bytes, self.clock.now(), (bounds.body_per_second, bounds.request_body))
    }
}
