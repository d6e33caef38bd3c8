//! The cookies of a room: how they are named, read, set, and kept from the upstream.

use std::time::Duration;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::base::exchange::{HeaderEdit, Request, Scheme};
use crate::base::name::Name;
use crate::queue::ticket::{Kind, Slip};

/// How long a browser keeps a ticket. Its place is given up long before, unless it is shown now and then.
const TICKET_COOKIE_LIFE: Duration = Duration::from_secs(24 * 3_600);

/// Most cookies of one name that are looked at. A browser sends several where a sub-domain has set one too.
const COOKIES_PER_NAME_MAX: usize = 4;

/// What the name of every ticket starts with, behind `__Host-` where there is TLS.
const TICKET_PREFIX: &str = "tidegate-ticket-";

/// What the name of every pass starts with, behind `__Host-` where there is TLS.
const PASS_PREFIX: &str = "tidegate-pass-";

/// What the name of every challenge starts with, behind `__Host-` where there is TLS.
const WORK_PREFIX: &str = "tidegate-work-";

/// What the name of every link's cookie starts with, behind `__Host-` where there is TLS.
const LINK_PREFIX: &str = "tidegate-link-";

/// What the names of all these start with, and the names of headers that speak for the gateway.
const OURS: &str = "tidegate-";

/// On TLS: a browser takes such a cookie from this very host only, with `Secure` and for all paths.
const HOST_PREFIX: &str = "__Host-";

/// The names of a room's cookies, written once.
#[derive(Debug)]
pub(super) struct CookieNames {
    ticket: [String; 2],
    pass: [String; 2],
    work: [String; 2],
    link: [String; 2],
}

impl CookieNames {
    pub(super) fn new(room: &Name) -> Self {
        let both = |prefix: &str| [format!("{prefix}{room}"), format!("{HOST_PREFIX}{prefix}{room}")];
        Self {
            ticket: both(TICKET_PREFIX),
            pass: both(PASS_PREFIX),
            work: both(WORK_PREFIX),
            link: both(LINK_PREFIX),
        }
    }

    fn of(&self, kind: Kind, scheme: Scheme) -> &str {
        let names = match kind {
            Kind::Ticket => &self.ticket,
            Kind::Pass => &self.pass,
            Kind::Link => &self.link,
        };
        on(scheme, names)
    }

    /// The values that the client sent under a name: more than one where somebody planted a second.
    pub(super) fn values<'r>(&self, kind: Kind, request: &Request<'r>) -> impl Iterator<Item = &'r str> {
        Self::sent(self.of(kind, request.scheme), request)
    }

    /// The challenges that the client sent.
    pub(super) fn works<'r>(&self, request: &Request<'r>) -> impl Iterator<Item = &'r str> {
        Self::sent(on(request.scheme, &self.work), request)
    }

    /// `Set-Cookie` for a challenge that lives so long.
    pub(super) fn work(&self, challenge: &str, life: Duration, scheme: Scheme) -> HeaderValue {
        set(on(scheme, &self.work), challenge, life, scheme)
    }

    fn sent<'r>(name: &str, request: &Request<'r>) -> impl Iterator<Item = &'r str> {
        let values = request
            .cookies()
            .filter(move |(key, _)| *key == name)
            .map(|(_, value)| value);
        values.take(COOKIES_PER_NAME_MAX)
    }

    /// The value in a `Set-Cookie` line of this name; none of any other.
    pub(super) fn value_set<'l>(&self, kind: Kind, scheme: Scheme, line: &'l HeaderValue) -> Option<&'l str> {
        let (name, rest) = line.to_str().ok()?.split_once('=')?;
        (name == self.of(kind, scheme)).then(|| rest.split(';').next().unwrap_or(rest))
    }

    /// `Set-Cookie` for a ticket.
    pub(super) fn ticket(&self, slip: &Slip, scheme: Scheme) -> HeaderValue {
        set(self.of(Kind::Ticket, scheme), slip.reveal(), TICKET_COOKIE_LIFE, scheme)
    }

    /// `Set-Cookie` for a pass that lives so long.
    pub(super) fn pass(&self, slip: &Slip, life: Duration, scheme: Scheme) -> HeaderValue {
        set(self.of(Kind::Pass, scheme), slip.reveal(), life, scheme)
    }

    /// `Set-Cookie` for a link that is good for so long.
    pub(super) fn link(&self, slip: &str, life: Duration, scheme: Scheme) -> HeaderValue {
        set(self.of(Kind::Link, scheme), slip, life, scheme)
    }

    /// `Set-Cookie` that makes the client forget it.
    pub(super) fn forget(&self, kind: Kind, scheme: Scheme) -> HeaderValue {
        set(self.of(kind, scheme), "", Duration::ZERO, scheme)
    }
}

fn on(scheme: Scheme, names: &[String; 2]) -> &str {
    match scheme {
        Scheme::Http => &names[0],
        Scheme::Https => &names[1],
    }
}

fn set(name: &str, value: &str, life: Duration, scheme: Scheme) -> HeaderValue {
    let secure = match scheme {
        Scheme::Http => "",
        Scheme::Https => "; Secure",
    };
    let life = life.as_secs();
    let text = format!("{name}={value}; Path=/; Max-Age={life}; HttpOnly; SameSite=Lax{secure}");
    let mut header = HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""));
    header.set_sensitive(true);
    header
}

/// The room that the name of a ticket's cookie speaks of, if it is how tickets are named where a client is connected so.
pub(super) fn room_of_ticket(cookie: &str, scheme: Scheme) -> Option<&str> {
    let name = match scheme {
        Scheme::Http => cookie,
        Scheme::Https => cookie.strip_prefix(HOST_PREFIX)?,
    };
    name.strip_prefix(TICKET_PREFIX)
}

/// Whether a header of this name speaks in the gateway's name, and is not for upstreams.
pub fn is_ours(header: &HeaderName) -> bool {
    header.as_str().starts_with(OURS)
}

/// The cookies without those that are not for upstreams: tickets, passes, links and challenges of any room. None where
/// there are no such, which costs one look at every byte and no memory.
pub fn stripped(headers: &HeaderMap) -> Option<HeaderEdit> {
    let crumbs = || {
        headers
            .get_all(COOKIE)
            .iter()
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
    };
    if !crumbs().any(is_our_crumb) {
        return None;
    }
    let rest: Vec<&[u8]> = crumbs()
        .filter(|crumb| !is_our_crumb(crumb))
        .map(<[u8]>::trim_ascii)
        .collect();
    let rest = HeaderValue::from_bytes(&rest.join(&b"; "[..]))
        .ok()
        .filter(|rest| !rest.is_empty());
    Some(rest.map_or(HeaderEdit::Remove(COOKIE), |rest| HeaderEdit::Set(COOKIE, rest)))
}

fn is_our_crumb(crumb: &[u8]) -> bool {
    let crumb = crumb.trim_ascii_start();
    let name = crumb.strip_prefix(HOST_PREFIX.as_bytes()).unwrap_or(crumb);
    let prefixes = [TICKET_PREFIX, PASS_PREFIX, LINK_PREFIX, WORK_PREFIX];
    name.starts_with(OURS.as_bytes()) && prefixes.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(cookies: &[&str]) -> Option<HeaderEdit> {
        let mut headers = HeaderMap::new();
        for line in cookies {
            headers.append(COOKIE, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        stripped(&headers)
    }

    #[test]
    fn tickets_and_passes_are_taken_out_and_everything_else_stays() {
        let kept = |text: &'static str| {
            Some(HeaderEdit::Set(
                COOKIE,
                HeaderValue::from_bytes(text.as_bytes()).unwrap(),
            ))
        };
        assert_eq!(after(&["a=1; tidegate-pass-concert=x; b=2"]), kept("a=1; b=2"));
        assert_eq!(
            after(&["__Host-tidegate-ticket-q=x;a=\u{e9}", "b=2"]),
            kept("a=\u{e9}; b=2")
        );
        assert_eq!(
            after(&["tidegate-pass-a=x", " tidegate-pass-b=y "]),
            Some(HeaderEdit::Remove(COOKIE))
        );
        assert_eq!(after(&["tidegate-work-a=x; a=1"]), kept("a=1"));
        assert_eq!(after(&["a=1; tidegate=2"]), None);
        assert_eq!(after(&[]), None);
    }

    #[test]
    fn headers_in_the_gateways_name_are_told_from_others() {
        let ours = |name| is_ours(&HeaderName::from_static(name));
        assert!(ours("tidegate-pass") && !ours("x-tidegate") && !ours("tidegate"));
    }

    #[test]
    fn on_tls_a_cookie_is_bound_to_the_host() {
        let names = CookieNames::new(&"concert".parse().unwrap());
        let text = names.forget(Kind::Pass, Scheme::Https);
        let text = text.to_str().unwrap();
        assert!(text.starts_with("__Host-tidegate-pass-concert=;"), "{text}");
        for attribute in ["Secure", "HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=0"] {
            assert!(text.contains(attribute), "{text}");
        }
        let plain = names.forget(Kind::Pass, Scheme::Http);
        assert!(!plain.to_str().unwrap().contains("Secure"));
        let (bare, bound) = ("tidegate-ticket-concert", "__Host-tidegate-ticket-concert");
        let read = |scheme| [bare, bound].map(|name| room_of_ticket(name, scheme));
        assert_eq!(read(Scheme::Https), [None, Some("concert")]);
        assert_eq!(read(Scheme::Http), [Some("concert"), None]);
        assert_eq!(room_of_ticket("tidegate-pass-concert", Scheme::Http), None);
    }
}
