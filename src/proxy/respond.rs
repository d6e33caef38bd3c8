//! The fifth verb: what the client gets. The one place where refusals and failures become answers, and the only
//! one that writes them. A body says what the client can do about it and nothing about the inside.

pub(super) mod events;
mod refusal;

use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, EXPECT, HeaderName, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version};
use pingora::http::ResponseHeader;
use pingora::{Error, ErrorType};
use pingora_proxy::{FailToProxy, Session};

pub use self::refusal::Refusal;
use super::fields::{Fields, OwnName};
use super::{Ctx, Gateway, dispatch, fields};
use crate::base::exchange::Reply;

/// A request body up to this many bytes is gathered before a server is asked, and read to its end behind an early
/// answer, so that the connection can be kept. A longer one is cheaper to lose together with its connection. Pingora
/// keeps as many bytes for a server, and no more.
const SMALL_BODY_BYTES: u64 = 64 * 1024;

/// Longest wait behind an early answer for the rest of such a body.
pub(super) const DRAIN_WITHIN: Duration = Duration::from_secs(5);

/// The header that tells a client the id of its request.
const X_REQUEST_ID: OwnName = OwnName::new("x-request-id");

/// Headers that an answer gets besides the reply's own and the chain's: its length, the id, and Pingora's two.
const FIELDS_ADDED: usize = 4;

/// Writes an answer of the gateway's own, at once: what is left of the request is read behind it ([`part`]). Who is
/// answered here has no place in flight any more.
/// (Pingora's own error answers always close, which costs the client a new handshake in the worst moment.)
pub(super) async fn write(
    gateway: &Gateway,
    session: &mut Session,
    ctx: &mut Ctx,
    reply: Box<Reply>,
) -> pingora::Result<()> {
    ctx.permit = None;
    ctx.reason = Some(reply.reason);
    if reply.status.as_u16() >= 400 {
        ctx.meter(gateway).reject(reply.reason);
    }
    // Without this Pingora closes the connection behind every answer that comes before the end of the body.
    let closes = !ends_soon(session);
    session
        .as_downstream_mut()
        .set_close_on_response_before_downstream_finish(closes);
    let Reply {
        status,
        headers,
        body,
        reason: _,
        place,
        keep,
    } = *reply;
    ctx.effects.place = place.or(ctx.effects.place.take());
    if let Some(keep) = keep {
        keep_for(session, ctx, keep);
    }
    let bodiless = matches!(status.as_u16(), 204 | 304);
    let length = (!bodiless).then_some(body.len());
    let mut head = head(status, own(headers, length, ctx)?);
    prepare(gateway, session, &mut head);
    let silent = bodiless || body.is_empty() || session.req_header().method == Method::HEAD;
    let head = session.write_response_header(Box::new(head), silent);
    head.await.map_err(Error::into_down)?;
    if !silent {
        let body = session.write_response_body(Some(body), true);
        body.await.map_err(Error::into_down)?;
    }
    ctx.answered = true;
    Ok(())
}

/// The connection is kept for so long behind this answer, where that is less than others are. One of HTTP/2 has other
/// requests too; it ends when it has rested for so long.
fn keep_for(session: &mut Session, ctx: &Ctx, keep: Duration) {
    if let Some(connection) = &ctx.connection {
        connection.keep(keep);
    }
    if keep.is_zero() {
        session.as_downstream_mut().set_keepalive(None);
    }
}

/// The header fields of an answer of the gateway's own. They go straight into the map: through Pingora's head each
/// would be parsed, and kept twice for a spelling that nobody has chosen.
fn own(headers: Vec<(HeaderName, HeaderValue)>, length: Option<usize>, ctx: &mut Ctx) -> pingora::Result<HeaderMap> {
    let edits = std::mem::take(&mut ctx.effects.to_client);
    let mut fields = HeaderMap::with_capacity(headers.len() + edits.len() + FIELDS_ADDED);
    for (name, value) in headers {
        fields.append(name, value);
    }
    if let Some(length) = length {
        fields.insert(CONTENT_LENGTH, length.into());
    }
    if let Ok(id) = HeaderValue::from_str(ctx.id.as_str()) {
        fields.put(X_REQUEST_ID, id)?;
    }
    edits.into_iter().try_for_each(|edit| fields.edit(edit))?;
    Ok(fields)
}

fn head(status: StatusCode, fields: HeaderMap) -> ResponseHeader {
    let mut parts = Response::new(()).into_parts().0;
    parts.status = status;
    parts.headers = fields;
    parts.into()
}

/// Whether more of the request's body is to come, and so little that it is waited for: before a server is asked, and to
/// keep the connection behind an answer that comes before. A client that waits for `100 Continue` sends no body, and must
/// not be waited for.
pub(super) fn ends_soon(session: &mut Session) -> bool {
    if session.as_downstream_mut().is_body_done() {
        return false;
    }
    let head = session.req_header();
    let declared = dispatch::declared_length(&head.headers);
    declared.is_some_and(|bytes| bytes <= SMALL_BODY_BYTES) && !head.headers.contains_key(EXPECT)
}

/// Reads what is left of a request behind an answer of the gateway's own, within the bound that [`DRAIN_WITHIN`] sets.
/// A connection on which more may come cannot be kept.
pub(super) async fn part(session: &mut Session) {
    let ends_soon = ends_soon(session);
    let downstream = session.as_downstream_mut();
    if ends_soon {
        drop(downstream.drain_request_body().await);
    }
    if !downstream.is_body_done() {
        downstream.set_keepalive(None);
    }
}

/// Makes an answer one that its client can read. HTTP/1.0 knows no chunks: the end of the connection is the end of the
/// body. And once the process stops, the client is told that this answer is the connection's last.
pub(super) fn prepare(gateway: &Gateway, session: &mut Session, head: &mut ResponseHeader) {
    if session.req_header().version == Version::HTTP_10 {
        head.remove_header(&TRANSFER_ENCODING);
    }
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        // A tunnel is idle when nothing goes either way, and that is for the upstream's deadline alone to say.
        session.as_downstream_mut().set_read_timeout(None);
    }
    if gateway.stopping.load(Ordering::Relaxed) {
        session.as_downstream_mut().set_keepalive(None);
    }
}

/// What a server's answer gets: the request's id and what the chain wants changed.
pub(super) fn edit(session: &Session, head: &mut ResponseHeader, ctx: &mut Ctx) -> pingora::Result<()> {
    let edits = if head.status.is_informational() {
        ctx.effects.to_client.clone()
    } else {
        // Nothing else answers this request any more.
        std::mem::take(&mut ctx.effects.to_client)
    };
    let any_spelling = session.as_downstream().is_http2();
    fields::of_answer(head, FIELDS_ADDED + edits.len(), any_spelling, |fields| {
        if let Ok(id) = HeaderValue::from_str(ctx.id.as_str()) {
            fields.put(X_REQUEST_ID, id)?;
        }
        edits.into_iter().try_for_each(|edit| fields.edit(edit))
    })
}

/// The status of the answer, once it has begun. What a server says in between (100, 103) begins none; a change of the
/// protocol does, and nothing of our own may be written behind it.
pub(super) fn begun(session: &Session) -> Option<StatusCode> {
    let status = session.response_written()?.status;
    (!status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS).then_some(status)
}

/// Answers a request that could not be proxied. An answer that has begun is not mixed with another: its
/// connection ends.
pub(super) async fn failure(gateway: &Gateway, session: &mut Session, error: &Error, ctx: &mut Ctx) -> FailToProxy {
    let refusal = match Refusal::of(error) {
        // As long as the client is not done, it is the one that is waited for.
        Some(Refusal::UpstreamTimeout)
            if *error.etype() == ErrorType::ReadTimedout && !session.as_downstream_mut().is_body_done() =>
        {
            Some(Refusal::RequestTimeout)
        }
        refusal => refusal,
    };
    let begun = begun(session);
    let Some(refusal) = refusal.filter(|_| begun.is_none()) else {
        ctx.reason = Some(match refusal {
            None => "client_gone",
            Some(Refusal::UpstreamTimeout | Refusal::RequestTimeout)
                if begun == Some(StatusCode::SWITCHING_PROTOCOLS) =>
            {
                "tunnel_idle"
            }
            Some(_) => "answer_cut",
        });
        return FailToProxy {
            error_code: 0,
            can_reuse_downstream: false,
        };
    };
    let reply = refusal.reply();
    let error_code = reply.status.as_u16();
    if refusal == Refusal::Internal {
        log::error!("request {} failed: {error}", ctx.id.as_str());
    }
    // Pingora closes the connection behind this answer, whatever is said here; the client should know.
    session.as_downstream_mut().set_keepalive(None);
    // The client may be gone by now, and then there is nobody to answer.
    let _gone = write(gateway, session, ctx, Box::new(reply)).await;
    FailToProxy {
        error_code,
        can_reuse_downstream: false,
    }
}

/// Whether a failure is of the kind that clients and servers cause every day.
pub(super) fn is_routine(error: &Error) -> bool {
    Refusal::of(error) != Some(Refusal::Internal)
}
