//! The fourth verb: a server of the upstream gets the request, with headers that say who asked.

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};
use pingora_proxy::Session;

use super::accept::ToldPeer;
use super::fields::{Fields, OwnName};
use super::{Ctx, Gateway, accept, fields};
use crate::upstream::Release;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

const FORWARDED: OwnName = OwnName::new("forwarded");
const X_FORWARDED_FOR: OwnName = OwnName::new("x-forwarded-for");
const X_FORWARDED_HOST: OwnName = OwnName::new("x-forwarded-host");
const X_FORWARDED_PROTO: OwnName = OwnName::new("x-forwarded-proto");
const X_REAL_IP: OwnName = OwnName::new("x-real-ip");
const X_REQUEST_ID: OwnName = OwnName::new("x-request-id");

/// Most fields that [`identity`] adds.
const IDENTITY_FIELDS: usize = 6;

/// No server of the upstream can be reached by its name.
const NO_SERVER: ErrorType = ErrorType::new("NoServer");

/// Chooses a server for this attempt and sets every deadline towards it.
pub(super) fn peer(gateway: &Gateway, ctx: &mut Ctx) -> pingora::Result<Box<HttpPeer>> {
    let upstream = ctx.route.as_ref().and_then(|route| route.upstream.as_ref());
    let upstream = upstream.ok_or_else(|| Error::explain(ErrorType::InternalError, "the route has no upstream"))?;
    let chosen = upstream
        .choose(&ctx.tried)
        .ok_or_else(|| Error::explain(NO_SERVER, "no server can be resolved"))?;
    let mut peer = Box::new(HttpPeer::new(chosen.address, false, String::new()));
    let timeouts = &upstream.rule().timeouts;
    peer.options.connection_timeout = Some(timeouts.connect);
    peer.options.total_connection_timeout = Some(timeouts.connect);
    peer.options.read_timeout = Some(timeouts.read);
    peer.options.write_timeout = Some(timeouts.write);
    peer.options.idle_timeout = Some(timeouts.idle);
    ctx.tried.push(chosen.server);
    ctx.chosen_at = Some(gateway.clock.now());
    Ok(peer)
}

/// Nothing has been sent yet, so another server may be tried, as often as the rule and the budget allow.
pub(super) fn not_connected(ctx: &mut Ctx, mut error: Box<Error>) -> Box<Error> {
    if let Some(upstream) = ctx.route.as_ref().and_then(|route| route.upstream.as_ref()) {
        if let Some(server) = ctx.tried.last() {
            upstream.note_connect(*server, false);
        }
        error.set_retry(upstream.may_retry(ctx.tried.len()));
    }
    error
}

/// The head of the answer is there.
pub(super) fn answered(gateway: &Gateway, head: &mut ResponseHeader, ctx: &mut Ctx) {
    of_this_hop(head);
    let upstream = ctx.route.as_ref().and_then(|route| route.upstream.as_ref());
    if let (Some(upstream), Some(chosen_at)) = (upstream, ctx.chosen_at) {
        let took = gateway.clock.now().since(chosen_at);
        upstream.observe(took);
        ctx.upstream_took = Some(took);
        if let Some(server) = ctx.tried.last() {
            upstream.note_connect(*server, true);
        }
    }
}

/// Takes out of an answer what holds for the server's connection alone (RFC 9110, section 7.6.1). What says where a
/// message ends stays, whatever a server calls it.
fn of_this_hop(head: &mut ResponseHeader) {
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    let lines = head.headers.get_all(CONNECTION).iter();
    // `keep-alive`, which most servers name, goes anyway, and needs no parsing.
    let lines = lines.filter(|line| !line.as_bytes().eq_ignore_ascii_case(b"keep-alive"));
    let names = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .filter_map(|name| name.trim().parse().ok());
    let named: Vec<HeaderName> = names
        .filter(|name| *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING)
        .collect();
    for name in named.iter().chain([&KEEP_ALIVE, &PROXY_CONNECTION]) {
        head.remove_header(name);
    }
}

/// Frees the place in flight with the last piece of the answer, where the rule counts by the upstream.
pub(super) fn passed_on(end: bool, ctx: &mut Ctx) {
    let release = ctx
        .route
        .as_ref()
        .and_then(|route| route.upstream.as_ref())
        .map(|upstream| upstream.rule().release);
    if end && release == Some(Release::Upstream) {
        ctx.permit = None;
    }
}

/// The head of the request as the server gets it: the canonical path, who asked, and what the chain changed.
pub(super) fn head(session: &Session, head: &mut RequestHeader, ctx: &Ctx) -> pingora::Result<()> {
    target(head, ctx)?;
    let edits = &ctx.effects.to_upstream;
    fields::of_request(head, IDENTITY_FIELDS + edits.len(), |fields| {
        identity(session, fields, ctx)?;
        edits.iter().try_for_each(|edit| fields.edit(edit.clone()))
    })
}

/// Sends the spelling that the rules were applied to, in origin form: a server must not read another path out of
/// the request than the one that was allowed.
fn target(head: &mut RequestHeader, ctx: &Ctx) -> pingora::Result<()> {
    if ctx.path.is_none() && head.raw_path().first() == Some(&b'/') || head.uri.path() == "*" {
        return Ok(());
    }
    let path = ctx.path(head);
    let target = head
        .uri
        .query()
        .map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    head.set_raw_path(target.as_bytes())
}

/// Who asked. What a stranger claims is replaced; what a trusted proxy says is carried on.
fn identity(session: &Session, fields: &mut dyn Fields, ctx: &Ctx) -> pingora::Result<()> {
    let Some(connection) = &ctx.connection else {
        return Ok(());
    };
    let written = &session.req_header().headers;
    let told = &connection.told;
    let host = ctx.host(session.req_header());
    let hop = forwarded(told, host);
    if ctx.trusted_peer {
        fields.put(
            X_FORWARDED_FOR,
            value(joined(written, X_FORWARDED_FOR.text(), &told.address))?,
        )?;
        fields.put(FORWARDED, value(joined(written, FORWARDED.text(), &hop))?)?;
    } else {
        fields.put(X_FORWARDED_FOR, told.value.clone())?;
        fields.put(FORWARDED, value(hop)?)?;
    }
    let believed = |name: OwnName| ctx.trusted_peer && name.is_in(written);
    if !believed(X_FORWARDED_PROTO) {
        fields.put(X_FORWARDED_PROTO, HeaderValue::from_static(connection.scheme.as_str()))?;
    }
    if !believed(X_FORWARDED_HOST) {
        fields.put(X_FORWARDED_HOST, value(host.to_owned())?)?;
    }
    if !ctx.trusted_peer && X_REAL_IP.is_in(written) {
        fields.put(X_REAL_IP, value(ctx.client_ip.to_string())?)?;
    }
    fields.put(X_REQUEST_ID, value(ctx.id.as_str().to_owned())?)
}

fn value(text: String) -> pingora::Result<HeaderValue> {
    HeaderValue::try_from(text)
        .map_err(|_| Error::explain(ErrorType::InvalidHTTPHeader, "a value that no header holds"))
}

/// One hop of `Forwarded` (RFC 7239). The host is canonical: it cannot hold a quote.
fn forwarded(peer: &ToldPeer, host: &str) -> String {
    [&peer.hop, host, "\""].concat()
}

fn joined(headers: &HeaderMap, name: &'static str, last: &str) -> String {
    let mut line = String::with_capacity(64);
    for value in accept::values(headers, name) {
        line.push_str(value);
        line.push_str(", ");
    }
    line + last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exchange::Scheme;

    #[test]
    fn an_ipv6_hop_is_quoted_as_the_standard_asks() {
        let peer = ToldPeer::new("2001:db8::1".parse().unwrap(), Scheme::Https);
        let hop = forwarded(&peer, "shop.example.com");
        assert_eq!(hop, "for=\"[2001:db8::1]\";proto=https;host=\"shop.example.com\"");
    }

    #[test]
    fn a_hop_is_added_behind_those_before_it() {
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", HeaderValue::from_static("192.0.2.1"));
        headers.append("x-forwarded-for", HeaderValue::from_static("192.0.2.2"));
        assert_eq!(
            joined(&headers, "x-forwarded-for", "10.0.0.1"),
            "192.0.2.1, 192.0.2.2, 10.0.0.1"
        );
    }
}
