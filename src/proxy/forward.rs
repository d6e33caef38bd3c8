//! The fourth verb: a server of the upstream gets the request, with headers that say who asked.

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, HeaderName, TRAILER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType};
use pingora_proxy::Session;

use super::fields::{Fields, OwnName};
use super::filter::Pace;
use super::{Ctx, Gateway, accept, dispatch, fields};
use crate::base::exchange::HeaderEdit;
use crate::room::cookie;
use crate::upstream::Release;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

const FORWARDED: OwnName = OwnName::new("forwarded");
const X_FORWARDED_FOR: OwnName = OwnName::new("x-forwarded-for");
const X_FORWARDED_HOST: OwnName = OwnName::new("x-forwarded-host");
const X_FORWARDED_PROTO: OwnName = OwnName::new("x-forwarded-proto");
const X_REAL_IP: OwnName = OwnName::new("x-real-ip");
const X_REQUEST_ID: OwnName = OwnName::new("x-request-id");

/// What the names begin with by which proxies tell of their clients.
const X_FORWARDED: &str = "x-forwarded-";

/// Most fields that [`identity`] adds.
const IDENTITY_FIELDS: usize = 6;

/// No server of the upstream can be reached by its name.
pub(super) const NO_SERVER: ErrorType = ErrorType::new("NoServer");

/// Chooses a server for this attempt and sets every deadline towards it.
///
/// Pingora waits for an answer from the first byte of the request on, and a server says nothing while the body is on its
/// way: so as long as more of that may come, the client's deadline for a pause counts, too.
pub(super) fn peer(gateway: &Gateway, session: &mut Session, ctx: &mut Ctx) -> pingora::Result<Box<HttpPeer>> {
    let upstream = ctx
        .upstream()
        .ok_or_else(|| Error::explain(ErrorType::InternalError, "the route has no upstream"))?;
    let chosen = upstream
        .choose(&ctx.tried, gateway.clock.now())
        .ok_or_else(|| Error::explain(NO_SERVER, "no server can be resolved"))?;
    let mut peer = Box::new(HttpPeer::new(chosen.address, false, String::new()));
    let timeouts = &upstream.rule().timeouts;
    peer.options.connection_timeout = Some(timeouts.connect);
    peer.options.total_connection_timeout = Some(timeouts.connect);
    peer.options.read_timeout = Some(if session.as_downstream_mut().is_body_done() {
        timeouts.read
    } else {
        timeouts.read.max(gateway.bounds.request_body)
    });
    peer.options.write_timeout = Some(timeouts.write);
    peer.options.idle_timeout = Some(timeouts.idle);
    ctx.tried.push(chosen);
    // An attempt that is made again begins with what was kept of the body.
    ctx.body_bytes = 0;
    ctx.pace = Pace::default();
    ctx.chosen_at = Some(gateway.clock.now());
    Ok(peer)
}

/// Nothing has been sent yet, so another server may be tried, as often as the rule and the budget allow.
pub(super) fn not_connected(gateway: &Gateway, ctx: &Ctx, mut error: Box<Error>) -> Box<Error> {
    if let (Some(upstream), Some(chosen)) = (ctx.upstream(), ctx.tried.last()) {
        let now = gateway.clock.now();
        upstream.note_failure(*chosen, now);
        error.set_retry(upstream.may_go_elsewhere(&ctx.tried, now));
    }
    error
}

/// The connection broke off, or the answer did. The server may have begun with the request, so it is sent again only if
/// the connection was an old one, which most likely was closed just then, and the request is one that may be repeated
/// and is still at hand; as often as the rule and the budget allow.
pub(super) fn broken_off(
    gateway: &Gateway,
    session: &mut Session,
    ctx: &Ctx,
    mut error: Box<Error>,
    was_kept: bool,
) -> Box<Error> {
    // Where more of the request was to come, its client may be why there is no answer.
    let is_whole = session.as_downstream_mut().is_body_done();
    let is_unanswered = is_whole && ctx.upstream_took.is_none() && *error.esource() == ErrorSource::Upstream;
    error.retry.decide_reuse(was_kept);
    if let (Some(upstream), Some(chosen)) = (ctx.upstream(), ctx.tried.last()) {
        let may_repeat = session.req_header().method.is_idempotent() && !session.as_ref().retry_buffer_truncated();
        let again = error.retry() && may_repeat && upstream.may_retry(ctx.tried.len());
        if is_unanswered && !was_kept {
            upstream.note_failure(*chosen, gateway.clock.now());
        }
        error.set_retry(again);
    }
    error
}

/// The head of the answer is there.
pub(super) fn answered(gateway: &Gateway, head: &mut ResponseHeader, ctx: &mut Ctx) {
    of_this_hop(head);
    if let (Some(upstream), Some(chosen_at)) = (ctx.upstream(), ctx.chosen_at) {
        let took = gateway.clock.now().since(chosen_at);
        upstream.observe(took);
        if let Some(chosen) = ctx.tried.last() {
            upstream.note_server(*chosen);
        }
        ctx.upstream_took = Some(took);
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            ctx.began_after = Some(gateway.clock.now().since(ctx.started));
        }
    }
}

/// Takes out of an answer what holds for the server's connection alone (RFC 9110, section 7.6.1), and what announces
/// trailers, which Pingora does not pass on. What says where a
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
    for name in named.iter().chain([&KEEP_ALIVE, &PROXY_CONNECTION, &TRAILER]) {
        head.remove_header(name);
    }
}

/// Says in one way only where an answer ends, and in that of HTTP/1.1 (RFC 9112, sections 6.1 to 6.3). Pingora has read
/// it so, and refused what cannot be: of several lengths none differs, and none stands beside a coding.
pub(super) fn ends_once(head: &mut ResponseHeader) -> pingora::Result<()> {
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(());
    }
    head.set_version(Version::HTTP_11);
    if head.status.is_informational() || head.status == StatusCode::NO_CONTENT {
        head.remove_header(&CONTENT_LENGTH);
        head.remove_header(&TRANSFER_ENCODING);
    }
    let mut lengths = head.headers.get_all(CONTENT_LENGTH).iter();
    let first = lengths.next().map_or(&b""[..], HeaderValue::as_bytes);
    if lengths.next().is_none() && !first.contains(&b',') {
        return Ok(());
    }
    let one = first.split(|byte| *byte == b',').next().unwrap_or_default();
    let one = value(one.trim_ascii())?;
    head.insert_header(CONTENT_LENGTH, one)
}

/// Frees the place in flight with the last piece of the answer, where the rule counts by the upstream.
pub(super) fn passed_on(end: bool, ctx: &mut Ctx) {
    let release = ctx.upstream().map(|upstream| upstream.rule().release);
    if end && release == Some(Release::Upstream) {
        ctx.permit = None;
    }
}

/// Makes the head of a request that goes on cheap to copy: Pingora copies it for every attempt.
pub(super) fn settle(session: &mut Session) {
    fields::forget_usual_spelling(session.req_header_mut());
}

/// The head of the request as the server gets it: the canonical path, who asked, and what the chain changed.
pub(super) fn head(session: &Session, head: &mut RequestHeader, ctx: &Ctx) -> pingora::Result<()> {
    target(head, ctx)?;
    let (plain, edits) = (plainer(&head.headers, ctx.trusted_peer), &ctx.effects.to_upstream);
    fields::of_request(head, IDENTITY_FIELDS + edits.len(), |fields| {
        identity(session, fields, ctx)?;
        let mut edits = plain.into_iter().chain(edits.iter().cloned());
        edits.try_for_each(|edit| fields.edit(edit))
    })
}

/// Takes out what is between the client and this gateway (tickets, passes, links, `Tidegate-*`), whatever the route, and
/// makes fields plain that a server could read otherwise than they are read here. All of it comes before what the chain
/// changes, so that a chain may set any field anew. A request that needs none of it costs no memory.
///
/// Cookies in several fields become one: clients of HTTP/2 send them apart (RFC 9113, section 8.2.3), and servers of
/// HTTP/1.1 may read the first alone. And where fields become variables (CGI, WSGI), an underscore is a hyphen, so that
/// `X_Forwarded_For` would speak beside the field that says who asked. Nor are trailers passed on, so none are announced.
fn plainer(fields: &HeaderMap, trusted_peer: bool) -> Vec<HeaderEdit> {
    let claimed = |name: &HeaderName| !trusted_peer && is_claim(name);
    let unwanted =
        |name: &&HeaderName| is_lookalike(name) || claimed(name) || cookie::is_ours(name) || **name == TRAILER;
    let unwanted = fields.keys().filter(unwanted);
    let mut edits: Vec<_> = unwanted.cloned().map(HeaderEdit::Remove).collect();
    edits.extend(cookie::stripped(fields).or_else(|| in_one_line(fields)));
    edits
}

fn in_one_line(fields: &HeaderMap) -> Option<HeaderEdit> {
    let cookies = fields.get_all(COOKIE);
    cookies.iter().nth(1)?;
    let cookies: Vec<_> = cookies.iter().map(HeaderValue::as_bytes).collect();
    // What several fields hold, one can hold.
    let line = HeaderValue::from_bytes(&cookies.join(&b"; "[..])).ok()?;
    Some(HeaderEdit::Set(COOKIE, line))
}

/// Whether a field says with underscores what only the gateway and trusted proxies may say.
fn is_lookalike(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.contains('_') && {
        let name = name.replace('_', "-");
        name.starts_with(X_FORWARDED) || [X_REAL_IP, X_REQUEST_ID].iter().any(|own| own.text() == name)
    }
}

/// Whether a field is of those by which proxies tell of their clients (`X-Forwarded-Port`, `X-Forwarded-Prefix`), and
/// none of those that the gateway writes itself.
fn is_claim(name: &HeaderName) -> bool {
    let own = [X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO];
    name.as_str().starts_with(X_FORWARDED) && !own.iter().any(|own| own.text() == name.as_str())
}

/// Sends the spelling that the rules were applied to, or what they made of it, in origin form: a server must not read
/// another path out of the request than the one that was allowed.
fn target(head: &mut RequestHeader, ctx: &Ctx) -> pingora::Result<()> {
    let rewritten = ctx.effects.path.as_deref();
    let is_plain = ctx.path.is_none() && head.raw_path().first() == Some(&b'/');
    if is_plain && rewritten.is_none() || head.uri.path() == "*" {
        return Ok(());
    }
    let path = rewritten.unwrap_or_else(|| ctx.path(head));
    let target = head
        .uri
        .query()
        .map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    head.set_raw_path(target.as_bytes())
}

/// Who asked. What a stranger claims is replaced; what a trusted proxy says is carried on.
fn identity(session: &Session, fields: &mut dyn Fields, ctx: &Ctx) -> pingora::Result<()> {
    let (Some(connection), Some(host)) = (&ctx.connection, &ctx.host) else {
        return Ok(());
    };
    let written = &session.req_header().headers;
    let told = &connection.told;
    if ctx.trusted_peer {
        let hop = host.hop.to_str().unwrap_or_default();
        fields.put(
            X_FORWARDED_FOR,
            value(joined(written, X_FORWARDED_FOR.text(), &told.address))?,
        )?;
        fields.put(FORWARDED, value(joined(written, FORWARDED.text(), hop))?)?;
    } else {
        fields.put(X_FORWARDED_FOR, told.value.clone())?;
        fields.put(FORWARDED, host.hop.clone())?;
    }
    let believed = |name: OwnName| ctx.trusted_peer && name.is_in(written);
    let scheme = dispatch::scheme(written, ctx);
    fields.put(X_FORWARDED_PROTO, HeaderValue::from_static(scheme.as_str()))?;
    if !believed(X_FORWARDED_HOST) {
        fields.put(X_FORWARDED_HOST, host.value.clone())?;
    }
    // Not every proxy that is trusted for its other fields sets this one, and then it is the client's own word.
    if X_REAL_IP.is_in(written) {
        fields.put(X_REAL_IP, value(ctx.client_ip.to_string())?)?;
    }
    fields.put(X_REQUEST_ID, value(ctx.id.as_str().to_owned())?)
}

fn value(text: impl Into<Vec<u8>>) -> pingora::Result<HeaderValue> {
    HeaderValue::try_from(text.into())
        .map_err(|_| Error::explain(ErrorType::InvalidHTTPHeader, "a value that no header holds"))
}

fn joined(headers: &HeaderMap, name: &'static str, last: &str) -> Vec<u8> {
    let mut line = Vec::with_capacity(64);
    for value in accept::values(headers, name) {
        line.extend_from_slice(value);
        line.extend_from_slice(b", ");
    }
    line.extend_from_slice(last.as_bytes());
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let fields = fields.iter();
        fields
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn a_request_with_nothing_of_ours_is_left_alone_and_costs_no_memory() {
        let fields = head(&[
            ("cookie", "a=1; tidegate=2; my-tidegate-pass-x=3"),
            ("x-tidegate", "1"),
            ("x_own", "1"),
            ("x-forwarded-for", "192.0.2.1"),
        ]);
        let edits = plainer(&fields, false);
        assert_eq!((edits.as_slice(), edits.capacity()), (&[][..], 0));
    }

    #[test]
    fn what_is_between_the_client_and_the_gateway_goes_no_further() {
        let set = |line| HeaderEdit::Set(COOKIE, HeaderValue::from_static(line));
        for (cookies, expected) in [
            (&["tidegate-pass-a=x; b=2;c=3"][..], set("b=2; c=3")),
            (&["a=1", "__Host-tidegate-ticket-a=x", "b=2"], set("a=1; b=2")),
            (&["tidegate-link-a=x", " tidegate-work-a=y"], HeaderEdit::Remove(COOKIE)),
            (&["a=1;b=2", "c=3"], set("a=1;b=2; c=3")),
        ] {
            let fields: Vec<_> = cookies.iter().map(|line| ("cookie", *line)).collect();
            assert_eq!(plainer(&head(&fields), false), [expected], "{cookies:?}");
        }
        let ours = HeaderName::from_static("tidegate-work");
        assert_eq!(
            plainer(&head(&[("tidegate-work", "1.2")]), true),
            [HeaderEdit::Remove(ours)]
        );
    }

    #[test]
    fn a_hop_is_added_behind_those_before_it() {
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", HeaderValue::from_static("192.0.2.1"));
        headers.append("x-forwarded-for", HeaderValue::from_static("192.0.2.2"));
        assert_eq!(
            joined(&headers, "x-forwarded-for", "10.0.0.1"),
            b"192.0.2.1, 192.0.2.2, 10.0.0.1"
        );
    }
}
