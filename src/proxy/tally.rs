//! The last verb: one line in the access log and one set of metrics for every request that was read.

use http::StatusCode;
use http::header::{REFERER, USER_AGENT};
use pingora::Error;
use pingora_proxy::Session;

use super::{Ctx, Gateway, client_closed};
use crate::base::exchange::Scheme;
use crate::telemetry::access_log::Record;

/// Counts and logs a request that is over, and marks its connection as idle.
pub(super) fn record(gateway: &Gateway, session: &Session, error: Option<&Error>, ctx: &mut Ctx) {
    let took = gateway.clock.now().since(ctx.started);
    let written = session.response_written().map(|head| head.status);
    let status = written
        .filter(|status| !status.is_informational())
        .unwrap_or_else(client_closed);
    if error.is_some() && ctx.reason.is_none() {
        ctx.reason = Some("failed");
    }
    let meter = ctx.route.as_ref().map_or(&gateway.unrouted, |route| &route.meter);
    meter.record(status, took);
    if gateway.access_log.is_on() {
        gateway.access_log.write(&line(session, ctx, status, took));
    }
    if let Some(connection) = &ctx.connection {
        connection.rest();
    }
}

fn line<'a>(session: &'a Session, ctx: &'a Ctx, status: StatusCode, took: std::time::Duration) -> Record<'a> {
    let head = session.req_header();
    let text = |name| session.get_header(name).and_then(|value| value.to_str().ok());
    let upstream = ctx.route.as_ref().and_then(|route| route.upstream.as_deref());
    Record {
        at: ctx.started,
        id: ctx.id.as_str(),
        client_ip: ctx.client_ip,
        method: head.method.as_str(),
        scheme: ctx
            .connection
            .as_ref()
            .map_or(Scheme::Http, |connection| connection.scheme)
            .as_str(),
        host: ctx.host(head),
        path: head.uri.path(),
        protocol: protocol(head.version),
        status: status.as_u16(),
        bytes_sent: session.as_downstream().body_bytes_sent() as u64,
        bytes_received: session.as_downstream().body_bytes_read() as u64,
        took,
        route: ctx.route.as_ref().map(|route| route.name.as_str()),
        reason: ctx.reason,
        upstream: upstream.map(|upstream| upstream.rule().name.as_str()),
        server: upstream
            .zip(ctx.tried.last())
            .map(|(upstream, server)| upstream.server_name(*server)),
        upstream_took: ctx.upstream_took,
        user_agent: text(USER_AGENT),
        referer: text(REFERER),
        tls: ctx.connection.as_ref().and_then(|connection| connection.tls_version),
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
