//! `methods`: which methods a route takes.
//!
//! Any other gets 405 with `Allow`. A route's `match.methods` is another thing: a request it does not name is not the
//! route's at all, and another route may take it.

use http::header::ALLOW;
use http::{HeaderValue, Method, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Env, Plugin, Verdict};
use crate::base::exchange::{Effects, Reply, Request};
use crate::base::misfit::Misfit;
use crate::base::one_or_many::OneOrMany;

/// Refuses methods that are not named: `{ allow: [GET, POST] }`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The methods that pass, in capitals. GET stands for HEAD too.
    allow: OneOrMany<String>,
    /// Whether GET stands for HEAD too.
    #[serde(default = "yes")]
    head_with_get: bool,
}

const fn yes() -> bool {
    true
}

/// The methods, and the answer for all others.
#[derive(Debug)]
pub struct Methods {
    allow: Vec<Method>,
    refusal: Reply,
}

impl Config {
    pub(super) fn build(self, _: &Env<'_>) -> Result<Methods, Vec<Misfit>> {
        let Self { allow, head_with_get } = self;
        let mut methods: Vec<Method> = Vec::new();
        let mut misfits = Vec::new();
        for (index, text) in allow.0.iter().enumerate() {
            match parse_method(text) {
                Ok(method) if methods.contains(&method) => {}
                Ok(method) => methods.push(method),
                Err(why) => misfits.push(Misfit::new(why).under(index).under("allow")),
            }
        }
        if allow.0.is_empty() {
            misfits.push(Misfit::new("name at least one method, as in `[GET, POST]`").under("allow"));
        }
        if head_with_get && methods.contains(&Method::GET) && !methods.contains(&Method::HEAD) {
            methods.push(Method::HEAD);
        }
        if !misfits.is_empty() {
            return Err(misfits);
        }
        let refusal = refusal(&methods).map_err(|why| vec![Misfit::new(why).under("allow")])?;
        let allow = methods;
        Ok(Methods { allow, refusal })
    }
}

impl Plugin for Methods {
    fn request<'a>(&'a self, request: &'a Request<'a>, _: &'a mut Effects) -> Verdict<'a> {
        if self.allow.contains(request.method) {
            Verdict::Continue
        } else {
            Verdict::Reply(Box::new(self.refusal.clone()))
        }
    }
}

/// Methods are case-sensitive, so `get` would be a method that no client ever sends.
fn parse_method(text: &str) -> Result<Method, String> {
    let method = Method::from_bytes(text.as_bytes()).map_err(|_| format!("`{text}` is not a method"))?;
    if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return Err(format!(
            "methods are written in capitals: `{}`",
            text.to_ascii_uppercase()
        ));
    }
    Ok(method)
}

fn refusal(methods: &[Method]) -> Result<Reply, String> {
    let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    let allow = HeaderValue::try_from(names.join(", ")).map_err(|fault| fault.to_string())?;
    let detail = "This resource does not take the request's method; see the Allow header.";
    Ok(Reply::problem(StatusCode::METHOD_NOT_ALLOWED, "methods", detail).header(ALLOW, allow))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exchange::sample::{Sample, steps};

    fn compile(json: serde_json::Value) -> Result<Methods, Vec<Misfit>> {
        serde_json::from_value::<Config>(json).unwrap().build(&Env::sample())
    }

    fn refusal_of(methods: &Methods, method: &str) -> Option<Reply> {
        let sample = Sample {
            method: method.parse().unwrap(),
            ..Sample::new()
        };
        match methods.request(&sample.request(), &mut Effects::default()) {
            Verdict::Reply(reply) => Some(*reply),
            Verdict::Continue | Verdict::Hold(_) => None,
        }
    }

    #[test]
    fn a_method_that_is_not_named_gets_405_with_allow() {
        let methods = compile(serde_json::json!({ "allow": ["GET", "POST", "GET"] })).unwrap();
        for method in ["GET", "POST", "HEAD"] {
            assert_eq!(refusal_of(&methods, method), None, "{method}");
        }
        for method in ["DELETE", "OPTIONS", "get", "PURGE"] {
            let reply = refusal_of(&methods, method).unwrap();
            assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED);
            let allow = HeaderValue::from_static("GET, POST, HEAD");
            assert!(reply.headers.contains(&(ALLOW, allow)), "{reply:?}");
        }
    }

    #[test]
    fn head_is_refused_where_the_operator_says_so() {
        let methods = compile(serde_json::json!({ "allow": ["GET"], "head_with_get": false })).unwrap();
        assert!(refusal_of(&methods, "HEAD").is_some());
        let methods = compile(serde_json::json!({ "allow": ["POST"] })).unwrap();
        assert!(refusal_of(&methods, "HEAD").is_some());
    }

    #[test]
    fn what_is_no_method_is_refused_with_its_place() {
        let misfits = compile(serde_json::json!({ "allow": ["GET", "post", "A B"] })).unwrap_err();
        assert_eq!(misfits[0].path, ["allow".into(), 1.into()]);
        assert!(misfits[0].message.contains("`POST`"), "{}", misfits[0]);
        assert_eq!(misfits[1].path, ["allow".into(), 2.into()]);
        assert!(compile(serde_json::json!({ "allow": [] })).is_err());
    }

    #[test]
    fn the_example_compiles() {
        for step in steps::<Config>("methods", include_str!("../../conf/examples/methods.yaml")) {
            step.build(&Env::sample()).unwrap();
        }
    }
}
