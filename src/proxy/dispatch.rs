//! The second verb: where does it belong? Refuses what has no canonical spelling, answers the queue API, and
//! finds the route. What is compared from here on is the canonical spelling, so that no other slips past a rule.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, Method};
use pingora::http::RequestHeader;
use pingora_proxy::Session;

use super::accept::values;
use super::respond::Refusal;
use super::{Bounds, Ctx, Gateway};
use crate::base::exchange::{Reply, Request, Scheme};
use crate::room::events::Events;
use crate::routing::path::normalise;

/// How a proxy says by which scheme its client is connected.
const X_FORWARDED_PROTO: &str = "x-forwarded-proto";

/// What a request is answered with that goes no further.
pub(super) enum Answer {
    /// One that is complete.
    Reply(Box<Reply>),
    /// One that goes on for as long as there is something to tell.
    Events(Box<Events>),
}

/// Finds the request's route; an answer when it has none, or when it asks the queue API.
pub(super) async fn route(gateway: &Gateway, session: &Session, ctx: &mut Ctx) -> Option<Answer> {
    match find(gateway, session, ctx) {
        Ok(Found::Route) => None,
        Ok(Found::QueueApi) => Some(ask(gateway, &view(session.req_header(), ctx)).await),
        Err(refusal) => Some(Answer::Reply(Box::new(refusal.reply()))),
    }
}

async fn ask(gateway: &Gateway, request: &Request<'_>) -> Answer {
    match gateway.queue_api.subscribe(request).await {
        Some(Ok(events)) => Answer::Events(Box::new(events)),
        Some(Err(reply)) => Answer::Reply(Box::new(reply)),
        None => Answer::Reply(Box::new(gateway.queue_api.answer(request).await)),
    }
}

enum Found {
    Route,
    QueueApi,
}

fn find(gateway: &Gateway, session: &Session, ctx: &mut Ctx) -> Result<Found, Refusal> {
    let head = session.req_header();
    within(&gateway.bounds, head)?;
    framed(session)?;
    canonical(head, ctx)?;
    let path = ctx.path(head);
    if gateway.queue_api.covers(path) {
        return Ok(Found::QueueApi);
    }
    // It would send back what a browser keeps from scripts, and what proxies have added.
    if head.method == Method::TRACE {
        return Err(Refusal::BadMethod);
    }
    let route = ctx
        .plan
        .routes
        .find(ctx.host(head), path, &head.method, &head.headers)
        .ok_or(Refusal::NoRoute)?;
    ctx.route = Some(Arc::clone(route));
    Ok(Found::Route)
}

/// Pingora parses heads of up to a mebibyte and 256 fields, far more than any service behind wants to see.
fn within(bounds: &Bounds, head: &RequestHeader) -> Result<(), Refusal> {
    if head.raw_path().len() > bounds.request_line {
        return Err(Refusal::TargetTooLong);
    }
    let bytes: usize = head
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    if head.headers.len() > bounds.headers || bytes > bounds.header_bytes {
        return Err(Refusal::HeadTooLarge);
    }
    Ok(())
}

/// Where the body ends must be said once and in the plainest way. Pingora takes a length that is said twice, and codings
/// before `chunked`; a server gets both as they are, or without the coding that its body has. A length beside a coding it
/// lets go of, though a proxy in front may have gone by it.
fn framed(session: &Session) -> Result<(), Refusal> {
    let fields = &session.req_header().headers;
    let mut lengths = fields.get_all(CONTENT_LENGTH).iter();
    let plain = lengths
        .next()
        .is_none_or(|length| length.as_bytes().iter().all(u8::is_ascii_digit));
    if !plain || lengths.next().is_some() {
        return Err(Refusal::BadFraming);
    }
    let codings = || values(fields, "transfer-encoding").flat_map(|line| line.split(|byte| *byte == b','));
    if codings().any(|coding| !coding.trim_ascii().eq_ignore_ascii_case(b"chunked")) {
        return Err(Refusal::UnknownCoding);
    }
    match codings().nth(1) {
        None if codings().next().is_none() || !names_length(&session.as_downstream().to_h1_raw()) => Ok(()),
        _ => Err(Refusal::BadFraming),
    }
}

/// Whether a head names a length, as it was sent.
fn names_length(head: &[u8]) -> bool {
    let lines = head.split(|byte| *byte == b'\n');
    let mut names = lines.filter_map(|line| line.split(|byte| *byte == b':').next());
    names.any(|name| {
        name.trim_ascii()
            .eq_ignore_ascii_case(CONTENT_LENGTH.as_str().as_bytes())
    })
}

/// How many bytes of a body the client has declared; none too where no number holds as many.
pub(super) fn declared_length(fields: &HeaderMap) -> Option<u64> {
    fields.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn canonical(head: &RequestHeader, ctx: &mut Ctx) -> Result<(), Refusal> {
    let written = written_host(head).ok_or(Refusal::BadHost)?;
    let connection = ctx.connection.as_ref().ok_or(Refusal::BadHost)?;
    ctx.host = Some(connection.host(written).map_err(|_| Refusal::BadHost)?);
    if !is_target(head.raw_path()) {
        return Err(Refusal::BadPath);
    }
    // `OPTIONS *` is the one request whose target is no path.
    let path = head.uri.path();
    if path == "*" && head.method != Method::OPTIONS {
        return Err(Refusal::BadPath);
    }
    if let Cow::Owned(path) = normalise(if path == "*" { "/" } else { path }).map_err(|_| Refusal::BadPath)? {
        ctx.path = Some(path.into());
    }
    Ok(())
}

/// Whether the target is a path, a URL, or the asterisk of `OPTIONS *`. Of anything else (`GET admin`) Pingora makes
/// a path that nobody asked for.
fn is_target(target: &[u8]) -> bool {
    let is_url = || {
        let (scheme, rest) = target.split_at(target.iter().position(|byte| *byte == b':').unwrap_or(0));
        !scheme.is_empty() && scheme.iter().all(u8::is_ascii_alphanumeric) && rest.starts_with(b"://")
    };
    target.first() == Some(&b'/') || target == b"*" || is_url()
}

/// The host as the client wrote it: of the target, if it has one, else of the `Host` header, which must be there
/// exactly once. (Pingora has refused requests in which the two differ.)
pub(super) fn written_host(head: &RequestHeader) -> Option<&str> {
    if let Some(authority) = head.uri.authority() {
        return Some(authority.as_str());
    }
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = hosts.next()?.to_str().ok()?;
    hosts.next().is_none().then_some(host)
}

/// The request as plugins and the queue API see it.
pub(super) fn view<'a>(head: &'a RequestHeader, ctx: &'a Ctx) -> Request<'a> {
    Request {
        came: ctx.started,
        now: ctx.started,
        id: ctx.id.as_str(),
        route: ctx.route.as_ref().map(|route| &route.name),
        method: &head.method,
        scheme: scheme(&head.headers, ctx),
        host: ctx.host(head),
        path: ctx.path(head),
        query: head.uri.query(),
        headers: &head.headers,
        client_ip: ctx.client_ip,
    }
}

/// How the client is connected: as a trusted proxy says, which may end TLS for it; else as this gateway sees it. Of
/// several proxies the first is the one that the client is connected to.
pub(super) fn scheme(headers: &HeaderMap, ctx: &Ctx) -> Scheme {
    let said = values(headers, X_FORWARDED_PROTO).next().filter(|_| ctx.trusted_peer);
    let first = said.and_then(|said| said.split(|byte| *byte == b',').next());
    match first.map(|first| first.trim_ascii().to_ascii_lowercase()).as_deref() {
        Some(b"https") => Scheme::Https,
        Some(b"http") => Scheme::Http,
        _ => ctx
            .connection
            .as_ref()
            .map_or(Scheme::Http, |connection| connection.scheme),
    }
}
