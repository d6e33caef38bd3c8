//! The last verb: one line in the access log and one set of metrics for every request that was read.

use std::time::Duration;

use http::StatusCode;
use http::header::{REFERER, USER_AGENT};
use pingora::Error;
use pingora_proxy::Session;

use super::accept::Connection;
use super::respond::Refusal;
use super::{Ctx, Gateway, client_closed, respond};
use crate::base::clock::{Clock, Timestamp};
use crate::base::exchange::Scheme;
use crate::telemetry::access_log::Record;
use crate::telemetry::metrics::METRICS;

/// Why something was refused that cannot be read as a request.
pub(super) const MALFORMED: &str = "malformed";

/// Counts and logs a request that is over, and frees its place in flight.
pub(super) fn record(gateway: &Gateway, session: &Session, error: Option<&Error>, ctx: &mut Ctx) {
    let took = gateway.clock.now().since(ctx.started);
    let status = respond::begun(session).unwrap_or_else(client_closed);
    if error.is_some() && ctx.reason.is_none() {
        ctx.reason = Some("failed");
    }
    let sent = session.as_downstream().body_bytes_sent() as u64;
    ctx.effects.at_end.drain(..).for_each(|act| act.run(sent));
    ctx.meter(gateway).record(status, ctx.began_after.unwrap_or(took));
    note_answer(status, ctx);
    if let Some(access_log) = &gateway.access_log {
        access_log.log(&line(session, ctx, gateway.wall.at(ctx.started), status, took));
    }
    ctx.permit = None;
}

/// Logs what came on a connection that is over and never became a request. What it was, nobody can say; from whom it was,
/// an operator wants to know.
pub(super) fn refused(gateway: &Gateway, connection: &Connection) {
    let (Some(status), Some(access_log)) = (connection.refused(), &gateway.access_log) else {
        return;
    };
    let id = gateway.ids.next();
    access_log.log(&Record {
        time: gateway.wall.now(),
        id: id.as_str(),
        client_ip: connection.peer.ip().to_canonical(),
        method: "-",
        scheme: connection.scheme,
        host: "",
        path: b"-",
        protocol: "-",
        status: status.as_u16(),
        bytes_sent: 0,
        request_bytes: 0,
        duration: Duration::ZERO,
        upstream: None,
        upstream_address: None,
        upstream_time: None,
        route: None,
        reason: Some(MALFORMED),
        place: None,
        limited: None,
        user_agent: None,
        referer: None,
        tls_version: connection.tls_version,
    });
}

/// Tells the upstream how the request went, if it had a part in it. A client that went away before the answer, or did
/// not send its request as it should, says nothing about the service.
fn note_answer(status: StatusCode, ctx: &Ctx) {
    let Some(upstream) = ctx.upstream() else {
        return;
    };
    let turned_away = ctx.tried.is_empty();
    let was_full = ctx.reason == Some(Refusal::UpstreamFull.reason());
    if turned_away && !was_full || ctx.upstream_took.is_none() && status.is_client_error() {
        return;
    }
    upstream.note_answer(ctx.upstream_took.filter(|_| !status.is_server_error()));
}

/// Counts an attempt that is made again.
pub(super) fn retried(ctx: &Ctx) {
    if let Some(upstream) = ctx.upstream() {
        let label = [upstream.rule().name.as_str()];
        METRICS.upstream_retries_total.with_label_values(&label).inc();
    }
}

/// The query is left out: what clients put into it (tokens, addresses) does not belong into a log.
fn line<'a>(session: &'a Session, ctx: &'a Ctx, time: Timestamp, status: StatusCode, took: Duration) -> Record<'a> {
    let head = session.req_header();
    let upstream = ctx.upstream();
    let asked = upstream.filter(|_| !ctx.tried.is_empty());
    Record {
        time,
        id: ctx.id.as_str(),
        client_ip: ctx.client_ip,
        method: head.method.as_str(),
        scheme: ctx
            .connection
            .as_ref()
            .map_or(Scheme::Http, |connection| connection.scheme),
        host: ctx.host(head),
        path: head.uri.path().as_bytes(),
        protocol: protocol(head.version),
        status: status.as_u16(),
        bytes_sent: session.as_downstream().body_bytes_sent() as u64,
        request_bytes: session.as_downstream().body_bytes_read() as u64,
        duration: took,
        upstream: asked.map(|upstream| upstream.rule().name.as_str()),
        upstream_address: asked
            .zip(ctx.tried.last())
            .map(|(upstream, chosen)| upstream.server_name(chosen.server)),
        upstream_time: ctx.upstream_took,
        route: ctx.route.as_ref().map(|route| route.name.as_str()),
        reason: ctx.reason,
        place: ctx
            .effects
            .place
            .as_ref()
            .map(|place| (place.room.as_str(), place.number)),
        limited: ctx.effects.limited.as_ref().map(|by| (by.limit.as_str(), by.key)),
        user_agent: session.get_header(USER_AGENT).map(|value| value.as_bytes()),
        referer: session.get_header(REFERER).map(|value| value.as_bytes()),
        tls_version: ctx.connection.as_ref().and_then(|connection| connection.tls_version),
    }
}

const fn protocol(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

/// A request in one phrase, for the log of events: its id and route, nothing that the client sent.
pub(super) fn summary(_: &Session, ctx: &Ctx) -> String {
    let route = ctx.route.as_ref().map_or("none", |route| route.name.as_str());
    format!("request {} on route {route}", ctx.id.as_str())
}
