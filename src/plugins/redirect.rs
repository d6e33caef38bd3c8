//! `redirect`: sends the client to another URL.
//!
//! The URL may hold `{scheme}`, `{host}`, `{path}` and `{query}`. They are the normalised values, and what could end
//! a header or a host is percent-encoded. The start of the URL is checked at load, so that a client's path can never
//! become the host: `/{path}` or `https:{path}` would send to `//evil.example` what asks for `/evil.example`.
//!
//! A request that is already where it would be sent goes on. So `https://{host}{path}{query}` may stand on a route
//! that serves plain text and TLS: it takes the first to the second and leaves the second alone. What goes on, here or by
//! `only`, goes to the route's upstream; on a route without one it gets 404, which is right where nothing else comes.

use http::header::LOCATION;
use http::{HeaderValue, StatusCode, Uri};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Env, Plugin, Verdict};
use crate::base::exchange::{Effects, Reply, Request, Scheme};
use crate::base::misfit::Misfit;
use crate::base::template::{Part, Placeholder, Template, push_value};

const PLACEHOLDERS: &[Placeholder] = &[
    Placeholder::Scheme,
    Placeholder::Host,
    Placeholder::Path,
    Placeholder::Query,
];

/// Sends the client elsewhere: `{ to: "https://{host}{path}{query}", status: 308 }`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to: a URL, or a path on the same host. May hold `{scheme}`, `{host}` (without port), `{path}` and
    /// `{query}` (with its `?`).
    to: String,
    /// 308 (for good) and 307 (for now) keep the method; 301 and 302 let clients turn POST into GET; 303 makes them.
    #[serde(default = "permanent")]
    #[schemars(extend("enum" = [301, 302, 303, 307, 308]))]
    status: u16,
    /// Only requests that came by this scheme are sent elsewhere; the others go on.
    #[serde(default)]
    only: Option<FromScheme>,
}

/// How a client is connected.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FromScheme {
    /// Plain text.
    Http,
    /// TLS.
    Https,
}

const fn permanent() -> u16 {
    308
}

/// Where to, and how.
#[derive(Debug)]
pub struct Redirect {
    to: Template,
    is_absolute: bool,
    status: StatusCode,
    only: Option<Scheme>,
}

impl Config {
    pub(super) fn build(self, _: &Env<'_>) -> Result<Redirect, Vec<Misfit>> {
        let Self { to, status, only } = self;
        let to = parse_target(&to).map_err(|why| Misfit::new(why).under("to"));
        let status = match status {
            301 | 302 | 303 | 307 | 308 => StatusCode::from_u16(status).ok(),
            _ => None,
        };
        let status =
            status.ok_or_else(|| Misfit::new("the status of a redirect is 301, 302, 303, 307 or 308").under("status"));
        let only = only.map(|scheme| match scheme {
            FromScheme::Http => Scheme::Http,
            FromScheme::Https => Scheme::Https,
        });
        match (to, status) {
            (Ok(to), Ok(status)) => Ok(Redirect {
                is_absolute: is_absolute(&to),
                to,
                status,
                only,
            }),
            (to, status) => Err(to.err().into_iter().chain(status.err()).collect()),
        }
    }
}

impl Plugin for Redirect {
    fn request<'a>(&'a self, request: &'a Request<'a>, _: &'a mut Effects) -> Verdict<'a> {
        if self.only.is_some_and(|scheme| scheme != request.scheme) {
            return Verdict::Continue;
        }
        let location = self.location(request);
        if location == self.here(request) {
            return Verdict::Continue;
        }
        let reply = Reply::empty(self.status, "redirect");
        match HeaderValue::try_from(location) {
            Ok(location) => Verdict::Reply(Box::new(reply.header(LOCATION, location))),
            // All that a header cannot hold has been encoded.
            Err(_) => Verdict::Continue,
        }
    }
}

impl Redirect {
    fn location(&self, request: &Request<'_>) -> String {
        let mut location = String::with_capacity(128);
        for part in self.to.parts() {
            match part {
                Part::Text(text) => location.push_str(text),
                Part::Placeholder(placeholder) => push_escaped(&mut location, *placeholder, request),
            }
        }
        location
    }

    /// The request's own URL, in the form that the target has.
    fn here(&self, request: &Request<'_>) -> String {
        let mut here = String::with_capacity(128);
        if self.is_absolute {
            push_escaped(&mut here, Placeholder::Scheme, request);
            here.push_str("://");
            push_escaped(&mut here, Placeholder::Host, request);
        }
        push_escaped(&mut here, Placeholder::Path, request);
        push_escaped(&mut here, Placeholder::Query, request);
        here
    }
}

/// Reads a target and checks that its start decides the host, whatever a client sends.
fn parse_target(text: &str) -> Result<Template, String> {
    let template = Template::parse(text, PLACEHOLDERS)?;
    if !starts_safely(&template) {
        return Err(format!(
            "`{text}` does not say where to: start with `https://` (or `http://`, `{{scheme}}://`) and a host, with `{{path}}`, \
             or with one `/` and more than `{{path}}`"
        ));
    }
    let example = text.replace("{scheme}", "https").replace("{host}", "shop.example.com");
    let example = example.replace("{path}", "/p").replace("{query}", "?q");
    match example.parse::<Uri>() {
        Ok(_) if text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') => Ok(template),
        _ => Err(format!("`{text}` is not a URL: percent-encode what a URL cannot hold")),
    }
}

fn starts_safely(to: &Template) -> bool {
    match to.parts() {
        [Part::Placeholder(Placeholder::Path), ..] => true,
        [Part::Text(text), rest @ ..] if text.starts_with('/') => match text[1..].bytes().next() {
            Some(byte) => byte != b'/' && byte != b'\\',
            None => !matches!(rest.first(), Some(Part::Placeholder(Placeholder::Path))),
        },
        [Part::Placeholder(Placeholder::Scheme), Part::Text(text), rest @ ..] => text
            .strip_prefix("://")
            .is_some_and(|host| starts_with_host(host, rest)),
        [Part::Text(text), rest @ ..] => {
            let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
            host.is_some_and(|host| starts_with_host(host, rest))
        }
        _ => false,
    }
}

fn starts_with_host(text: &str, rest: &[Part]) -> bool {
    match text.bytes().next() {
        Some(first) => first.is_ascii_alphanumeric() || first == b'[',
        None => matches!(rest.first(), Some(Part::Placeholder(Placeholder::Host))),
    }
}

fn is_absolute(to: &Template) -> bool {
    match to.parts().first() {
        Some(Part::Text(text)) => !text.starts_with('/'),
        Some(Part::Placeholder(placeholder)) => *placeholder != Placeholder::Path,
        None => false,
    }
}

/// Appends a value with everything encoded that a URL cannot hold; a path starts with exactly one slash.
fn push_escaped(location: &mut String, placeholder: Placeholder, request: &Request<'_>) {
    let start = location.len();
    if placeholder == Placeholder::Path {
        location.push('/');
        location.push_str(request.path.trim_start_matches('/'));
    } else {
        push_value(location, placeholder, request);
    }
    if location[start..].bytes().all(fits) {
        return;
    }
    let raw = location.split_off(start);
    for byte in raw.bytes() {
        if fits(byte) {
            location.push(char::from(byte));
        } else {
            location.push_str(&format!("%{byte:02X}"));
        }
    }
}

fn fits(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exchange::sample::{Sample, steps};

    fn compile(to: &str) -> Result<Redirect, Vec<Misfit>> {
        serde_json::from_value::<Config>(serde_json::json!({ "to": to }))
            .unwrap()
            .build(&Env::sample())
    }

    fn location(redirect: &Redirect, sample: &Sample) -> Option<String> {
        match redirect.request(&sample.request(), &mut Effects::default()) {
            Verdict::Reply(reply) => {
                assert_eq!(reply.headers.len(), 1);
                Some(reply.headers[0].1.to_str().unwrap().to_owned())
            }
            Verdict::Continue | Verdict::Hold(_) => None,
        }
    }

    fn plain() -> Sample {
        Sample {
            scheme: Scheme::Http,
            ..Sample::new()
        }
    }

    #[test]
    fn placeholders_are_filled_in() {
        for (to, expected) in [
            ("https://{host}{path}{query}", "https://shop.example.com/cart?item=7"),
            ("https://new.example.com{path}", "https://new.example.com/cart"),
            ("{scheme}://{host}/new{path}", "http://shop.example.com/new/cart"),
            ("{path}/", "/cart/"),
            ("/moved{query}", "/moved?item=7"),
            ("https://{host}:8443{path}", "https://shop.example.com:8443/cart"),
            ("https://example.com", "https://example.com"),
        ] {
            let redirect = compile(to).unwrap();
            assert_eq!(location(&redirect, &plain()).as_deref(), Some(expected), "{to}");
        }
    }

    #[test]
    fn who_is_already_there_goes_on() {
        let to_tls = compile("https://{host}{path}{query}").unwrap();
        assert_eq!(location(&to_tls, &Sample::new()), None);
        assert!(location(&to_tls, &plain()).is_some());
        let with_slash = compile("/cart?item=7").unwrap();
        assert_eq!(location(&with_slash, &Sample::new()), None);
    }

    #[test]
    fn only_the_named_scheme_is_sent_elsewhere() {
        let config = serde_json::json!({ "to": "https://{host}:8443{path}", "only": "http", "status": 302 });
        let redirect = serde_json::from_value::<Config>(config)
            .unwrap()
            .build(&Env::sample())
            .unwrap();
        assert_eq!(redirect.status, StatusCode::FOUND);
        assert_eq!(location(&redirect, &Sample::new()), None);
        assert!(location(&redirect, &plain()).is_some());
    }

    #[test]
    fn the_default_status_keeps_the_method_for_good() {
        assert_eq!(compile("/x").unwrap().status, StatusCode::PERMANENT_REDIRECT);
    }

    #[test]
    fn a_path_never_becomes_a_host() {
        for to in [
            "/{path}",
            "//{path}",
            "//{host}{path}",
            "/\\{path}",
            "https:{path}",
            "https:/{path}",
            "https://{path}",
            "{scheme}:{path}",
            "{scheme}://{path}",
            "{host}{path}",
            "{query}",
            "javascript:alert(1)",
            "evil.example{path}",
            "",
        ] {
            let misfits = compile(to).map(|_| ()).unwrap_err();
            assert!(
                misfits[0].message.contains("does not say where to"),
                "{to}: {misfits:?}"
            );
            assert_eq!(misfits[0].path, ["to".into()]);
        }
        let redirect = compile("{path}?x").unwrap();
        for path in ["//evil.example", "/\\evil.example", "///evil.example"] {
            let sample = Sample {
                path,
                query: None,
                ..Sample::new()
            };
            let location = location(&redirect, &sample).unwrap();
            assert!(
                matches!(&*location, "/evil.example?x" | "/%5Cevil.example?x"),
                "{location}"
            );
        }
    }

    #[test]
    fn a_query_cannot_split_the_header() {
        let sample = Sample {
            query: Some("a=\r\nset-cookie: x=1&b=\"<\u{e9}>"),
            ..plain()
        };
        let redirect = compile("https://{host}{path}{query}").unwrap();
        assert_eq!(
            location(&redirect, &sample).unwrap(),
            "https://shop.example.com/cart?a=%0D%0Aset-cookie:%20x=1&b=%22%3C%C3%A9%3E"
        );
    }

    #[test]
    fn a_wrong_target_or_status_is_refused() {
        for to in [
            "https://exa mple.com",
            "https://example.com/\u{e9}",
            "https://example.com/a\\b",
            "/a\r\nb",
        ] {
            assert!(
                compile(to).map(|_| ()).unwrap_err()[0].message.contains("not a URL"),
                "{to}"
            );
        }
        assert!(
            compile("https://{hsot}/").map(|_| ()).unwrap_err()[0]
                .message
                .contains("`{host}`")
        );
        for status in [200, 300, 304, 309] {
            let config = serde_json::json!({ "to": "/{client_ip}", "status": status });
            let misfits = serde_json::from_value::<Config>(config)
                .unwrap()
                .build(&Env::sample())
                .unwrap_err();
            assert_eq!(misfits.len(), 2, "{status}");
        }
    }

    #[test]
    fn the_example_compiles() {
        for step in steps::<Config>("redirect", include_str!("../../conf/examples/redirect.yaml")) {
            step.build(&Env::sample()).unwrap();
        }
    }
}
