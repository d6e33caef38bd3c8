//! `respond`: answers in the upstream's place, always the same.
//!
//! For a maintenance page, a `robots.txt`, a path that is closed for good. The answer is made once, at load.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Env, Plugin, Verdict};
use crate::base::exchange::{Effects, Reply, Request};
use crate::base::header_rules::{parse_name, parse_value};
use crate::base::misfit::Misfit;

/// The media type of a body whose type is not given.
const CONTENT_TYPE_DEFAULT: &str = "text/plain; charset=utf-8";

/// Answers in the upstream's place: `{ status: 503, body: "Back at six.", headers: { retry-after: "600" } }`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The status code, 200 to 599.
    #[schemars(range(min = 200, max = 599))]
    status: u16,
    /// The body; none by default.
    body: Option<String>,
    /// The media type of the body; `text/plain; charset=utf-8` by default.
    content_type: Option<String>,
    /// Further headers.
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

/// The answer.
#[derive(Debug)]
pub struct Respond(Reply);

impl Config {
    pub(super) fn build(self, _: &Env<'_>) -> Result<Respond, Vec<Misfit>> {
        let mut misfits = Vec::new();
        let status = parse_status(self.status, self.body.is_some()).unwrap_or_else(|misfit| {
            misfits.push(misfit);
            StatusCode::OK
        });
        let mut reply = Reply::empty(status, "respond");
        match (&self.body, &self.content_type) {
            (None, Some(_)) => {
                misfits.push(Misfit::new("there is no `body` that could be of this type").under("content_type"));
            }
            (None, None) => {}
            (Some(_), content_type) => match parse_value(content_type.as_deref().unwrap_or(CONTENT_TYPE_DEFAULT)) {
                Ok(value) => reply.headers.push((CONTENT_TYPE, value)),
                Err(why) => misfits.push(Misfit::new(why).under("content_type")),
            },
        }
        for (name, value) in self.headers {
            match parse_header(&name, &value) {
                Ok(header) => reply.headers.push(header),
                Err(why) => misfits.push(Misfit::new(why).under(name.as_str()).under("headers")),
            }
        }
        reply.body = self.body.map(Bytes::from).unwrap_or_default();
        if misfits.is_empty() {
            Ok(Respond(reply))
        } else {
            Err(misfits)
        }
    }
}

impl Plugin for Respond {
    fn request<'a>(&'a self, _: &'a Request<'a>, _: &'a mut Effects) -> Verdict<'a> {
        Verdict::Reply(Box::new(self.0.clone()))
    }
}

fn parse_status(status: u16, has_body: bool) -> Result<StatusCode, Misfit> {
    let status = StatusCode::from_u16(status)
        .ok()
        .filter(|status| (200..=599).contains(&status.as_u16()));
    match status {
        None => Err(Misfit::new("the status must be between 200 and 599").under("status")),
        Some(StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED) if has_body => {
            Err(Misfit::new("an answer with this status has no body: leave `body` out").under("status"))
        }
        Some(status) => Ok(status),
    }
}

fn parse_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let name = parse_name(name)?;
    if name == CONTENT_TYPE {
        return Err("write it as `content_type`, beside `body`".to_owned());
    }
    Ok((name, parse_value(value)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exchange::sample::{Sample, steps};

    fn compile(yaml: &str) -> Result<Respond, Vec<Misfit>> {
        serde_yaml::from_str::<Config>(yaml).unwrap().build(&Env::sample())
    }

    fn reply(yaml: &str) -> Reply {
        let respond = compile(yaml).unwrap();
        match respond.request(&Sample::new().request(), &mut Effects::default()) {
            Verdict::Reply(reply) => *reply,
            Verdict::Continue | Verdict::Hold(_) => panic!("it always answers"),
        }
    }

    #[test]
    fn it_always_gives_the_written_answer() {
        let reply = reply("{ status: 503, body: Back at six., headers: { Retry-After: '600' } }");
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(reply.body, "Back at six.");
        let header = |name, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
        assert_eq!(
            reply.headers,
            [
                header("content-type", CONTENT_TYPE_DEFAULT),
                header("retry-after", "600")
            ]
        );
    }

    #[test]
    fn without_a_body_there_is_no_type() {
        let reply = reply("{ status: 204 }");
        assert!(reply.headers.is_empty() && reply.body.is_empty());
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let misfits = compile(
            "{ status: 204, body: x, content_type: \"a\\nb\", headers: { content-length: '1', content-type: x, x-a: \"\\r\" } }",
        )
        .unwrap_err();
        assert_eq!(misfits.len(), 5, "{misfits:#?}");
        for status in [0, 99, 101, 199, 600, 999] {
            let misfits = compile(&format!("{{ status: {status} }}")).unwrap_err();
            assert_eq!(misfits[0].path, ["status".into()], "{status}");
        }
        assert!(compile("{ status: 200, content_type: text/html }").is_err());
    }

    #[test]
    fn the_example_compiles() {
        for step in steps::<Config>("respond", include_str!("../../conf/examples/respond.yaml")) {
            step.build(&Env::sample()).unwrap();
        }
    }
}
