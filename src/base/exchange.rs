//! A request as the parts see it, and the answers they give. No part but `proxy/` touches the wire.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::clock::Timestamp;
use super::key::Key;
use super::name::Name;

/// Whether the client's own connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Plain text.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// As it stands in a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// What a plugin may know of a request. Everything is normalised: what is compared here is what is routed.
#[derive(Debug, Clone, Copy)]
pub struct Request<'r> {
    /// When the request's head had been read.
    pub came: Timestamp,
    /// The moment that decides: the same, or, behind a step that held the request, when it was let go.
    pub now: Timestamp,
    /// The id under which the request is logged.
    pub id: &'r str,
    /// The route that took the request; none for the queue API.
    pub route: Option<&'r Name>,
    /// The method.
    pub method: &'r Method,
    /// How the client is connected.
    pub scheme: Scheme,
    /// The host asked for: lower case, without port or trailing dot.
    pub host: &'r str,
    /// The normalised path.
    pub path: &'r str,
    /// The query as sent, without its `?`.
    pub query: Option<&'r str>,
    /// The headers as sent.
    pub headers: &'r HeaderMap,
    /// Who asks, behind trusted proxies.
    pub client_ip: IpAddr,
}

impl<'r> Request<'r> {
    /// The first value of a header, if it is text.
    pub fn header(&self, name: impl http::header::AsHeaderName) -> Option<&'r str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The value of a cookie; of the first, should there be several of the name.
    pub fn cookie(&self, name: &str) -> Option<&'r str> {
        self.cookies().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// All cookies, as `(name, value)`, in the order sent. One that is no text is passed over, and hides no other: many
    /// sites have cookies with bytes beyond ASCII.
    pub fn cookies(&self) -> impl Iterator<Item = (&'r str, &'r str)> {
        let lines = self.headers.get_all(COOKIE).iter();
        lines
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
            .filter_map(|pair| std::str::from_utf8(pair.trim_ascii()).ok()?.split_once('='))
    }

    /// The value of a query parameter, as sent (still percent-encoded); of the first of the name.
    pub fn query_value(&self, name: &str) -> Option<&'r str> {
        self.query?
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }
}

/// One change to a set of headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderEdit {
    /// Replaces all values of the name.
    Set(HeaderName, HeaderValue),
    /// Adds a value beside those there.
    Add(HeaderName, HeaderValue),
    /// Removes all values of the name.
    Remove(HeaderName),
}

/// Whose place in a room a request is about. An order number says nothing of a person, and lets an operator name one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomPlace {
    /// The room.
    pub room: Name,
    /// The order number.
    pub number: u64,
}

/// Which limit refused a request, and as whom it counted it. The key is a keyed hash, so it says nothing of a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitedBy {
    /// The limit.
    pub limit: Name,
    /// The key.
    pub key: Key,
}

/// What the plugins of a chain want done besides their verdicts. Applied by `proxy/`, in order.
#[derive(Debug, Default)]
pub struct Effects {
    /// Changes to the request on its way to the upstream.
    pub to_upstream: Vec<HeaderEdit>,
    /// The path that the upstream is asked for, in its one spelling, where it is not the client's.
    pub path: Option<Box<str>>,
    /// Changes to whatever answer the client gets, the upstream's or a plugin's own.
    pub to_client: Vec<HeaderEdit>,
    /// The largest request body in bytes that this route takes, where it differs from the process's.
    pub max_body: Option<u64>,
    /// What is done once the answer is over, however it ended.
    pub at_end: Vec<AtEnd>,
    /// The place in a room that the request is about, for the access log.
    pub place: Option<RoomPlace>,
    /// The last limit that refused the request, or would have if it did more than look on, for the access log.
    pub limited: Option<LimitedBy>,
}

/// What a step does when the answer is over: it is told how many bytes of a body were sent. It must not wait.
pub struct AtEnd(Box<dyn FnOnce(u64) + Send + Sync>);

impl AtEnd {
    /// Does this.
    pub fn new(act: impl FnOnce(u64) + Send + Sync + 'static) -> Self {
        Self(Box::new(act))
    }

    /// Is done.
    pub fn run(self, body_bytes_sent: u64) {
        (self.0)(body_bytes_sent);
    }
}

impl fmt::Debug for AtEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AtEnd")
    }
}

/// Room for the headers of most answers that are written here, so that adding one does not move those before it.
const HEADERS_USUAL: usize = 6;

/// A complete answer that needs no upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// Headers besides `content-length`, which the body gives.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body; left out for HEAD.
    pub body: Bytes,
    /// Why the request ended here, for the access log, and as a metric label where the status is 400 or more: one of a
    /// fixed set, never a client's value.
    pub reason: &'static str,
    /// The place in a room that the answer is about, for the access log.
    pub place: Option<RoomPlace>,
    /// How long the connection is kept for the client's next request where that differs from others; zero closes it.
    pub keep: Option<Duration>,
}

impl Reply {
    /// An answer without body or headers.
    pub fn empty(status: StatusCode, reason: &'static str) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
            reason,
            place: None,
            keep: None,
        }
    }

    /// An answer with a body of a fixed type.
    pub fn with_body(
        status: StatusCode,
        reason: &'static str,
        content_type: &'static str,
        body: impl Into<Bytes>,
    ) -> Self {
        let mut headers = Vec::with_capacity(HEADERS_USUAL);
        headers.extend([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        Self {
            status,
            headers,
            body: body.into(),
            reason,
            place: None,
            keep: None,
        }
    }

    /// A JSON answer that no cache keeps.
    pub fn json(status: StatusCode, reason: &'static str, body: impl Into<Bytes>) -> Self {
        Self::with_body(status, reason, "application/json", body)
            .header(CACHE_CONTROL, HeaderValue::from_static("no-store"))
    }

    /// A problem document (RFC 9457). `detail` is a public sentence; it is never built from a client's value.
    pub fn problem(status: StatusCode, reason: &'static str, detail: &str) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        let body =
            serde_json::json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
        Self::with_body(status, reason, "application/problem+json", body.to_string())
            .header(CACHE_CONTROL, HeaderValue::from_static("no-store"))
    }

    /// The same answer with one more header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The same answer, behind which the connection is kept for so long; none: as long as any.
    #[must_use]
    pub fn keep(mut self, keep: Option<Duration>) -> Self {
        self.keep = keep;
        self
    }
}

#[cfg(test)]
pub(crate) mod sample;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::sample::Sample;
    use super::*;

    #[test]
    fn a_cookie_that_is_no_text_hides_no_other() {
        let mut sample = Sample::new();
        for line in [
            &b"town=\xec\x84\x9c\xec\x9a\xb8; account=7"[..],
            b"broken=\xff; session=9 ;last=1",
        ] {
            sample.headers.append(COOKIE, HeaderValue::from_bytes(line).unwrap());
        }
        let request = sample.request();
        let cookies = ["town", "account", "broken", "session", "last"].map(|name| request.cookie(name));
        assert_eq!(
            cookies,
            [Some("\u{c11c}\u{c6b8}"), Some("7"), None, Some("9"), Some("1")]
        );
    }
}
