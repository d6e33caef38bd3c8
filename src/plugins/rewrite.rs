//! `rewrite`: asks the server for another path than the client asked for.
//!
//! A beginning of whole segments is replaced by another; the rest of the path and the query stay as they came. Routes,
//! keys of limits and the access log know the client's path. What a server says of its own paths, in `Location`, in
//! cookies or in pages, goes back as it said it; so it is told in `X-Forwarded-Prefix` what was taken away.
//!
//! A path that does not begin so goes on as it is.

use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Env, Plugin, Verdict};
use crate::base::exchange::{Effects, HeaderEdit, Request};
use crate::base::misfit::Misfit;
use crate::base::parameters::without_parameters;
use crate::routing::path::normalise;

/// Tells a server which beginning of the client's path it does not see.
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// Asks the server for another path: `{ prefix: /api, to: /v2 }` makes `/api/users?page=2` into `/v2/users?page=2`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is replaced: whole segments from the beginning, as in `/api`. A path that does not begin so goes on as it is.
    /// Default: `/`, before which `to` is put.
    #[serde(default = "root")]
    prefix: String,
    /// What takes its place: `/v2`, or `/` for nothing. Default: `/`.
    #[serde(default = "root")]
    to: String,
}

fn root() -> String {
    "/".to_owned()
}

/// What is replaced by what, both without a slash at the end; so the root is nothing.
#[derive(Debug)]
pub struct Rewrite {
    prefix: Box<str>,
    to: Box<str>,
    taken_away: Option<HeaderValue>,
}

impl Config {
    pub(super) fn build(self, _: &Env<'_>) -> Result<Rewrite, Vec<Misfit>> {
        let prefix = beginning(&self.prefix).map_err(|why| Misfit::new(why).under("prefix"));
        let to = beginning(&self.to).map_err(|why| Misfit::new(why).under("to"));
        match (prefix, to) {
            (Ok(prefix), Ok(to)) if prefix == to => Err(vec![Misfit::new(format!(
                "`prefix` and `to` are both `{}`, which changes nothing: give one of them",
                self.to
            ))]),
            (Ok(prefix), Ok(to)) => Ok(Rewrite {
                taken_away: HeaderValue::try_from(&*prefix).ok().filter(|prefix| !prefix.is_empty()),
                prefix,
                to,
            }),
            (prefix, to) => Err(prefix.err().into_iter().chain(to.err()).collect()),
        }
    }
}

/// A beginning of a path in its one spelling, without the slash at its end.
fn beginning(text: &str) -> Result<Box<str>, String> {
    let path = normalise(text).map_err(|why| format!("`{text}` is no path: {why}"))?;
    if *without_parameters(&path) != *path {
        return Err(format!(
            "`{text}` has parameters, which are not compared: leave them out"
        ));
    }
    Ok(path.strip_suffix('/').unwrap_or(&path).into())
}

impl Plugin for Rewrite {
    fn request<'a>(&'a self, request: &'a Request<'a>, effects: &'a mut Effects) -> Verdict<'a> {
        let path = effects.path.as_deref().unwrap_or(request.path);
        if let Some(rest) = self.rest(path) {
            let joined = [&*self.to, rest].concat();
            effects.path = Some(if joined.is_empty() { "/".into() } else { joined.into() });
            if let Some(prefix) = &self.taken_away {
                let told = HeaderEdit::Set(X_FORWARDED_PREFIX, prefix.clone());
                effects.to_upstream.push(told);
            }
        }
        Verdict::Continue
    }
}

impl Rewrite {
    /// What follows the beginning, from its slash on; none where the path begins otherwise. Parameters of segments are
    /// passed over, as routes do.
    fn rest<'p>(&self, path: &'p str) -> Option<&'p str> {
        let mut segments = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        let end = segments.nth(self.prefix.matches('/').count())?;
        let (begins, rest) = path.split_at(end);
        (*without_parameters(begins) == *self.prefix).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exchange::sample::{Sample, steps};
    use proptest::prelude::*;

    fn compiled(yaml: &str) -> Rewrite {
        serde_yaml::from_str::<Config>(yaml)
            .unwrap()
            .build(&Env::sample())
            .unwrap()
    }

    /// The path that the server is asked for, if it is another.
    fn rewritten(steps: &[&str], path: &str) -> Option<String> {
        let mut effects = Effects::default();
        for step in steps {
            let sample = Sample::new();
            let request = Request {
                path,
                ..sample.request()
            };
            assert!(matches!(
                compiled(step).request(&request, &mut effects),
                Verdict::Continue
            ));
        }
        effects.path.map(String::from)
    }

    #[test]
    fn whole_segments_are_replaced_and_nothing_else() {
        for (step, path, asked) in [
            ("{ prefix: /api, to: /v2 }", "/api/users", Some("/v2/users")),
            ("{ prefix: /api, to: /v2 }", "/api", Some("/v2")),
            ("{ prefix: /api, to: /v2 }", "/api/", Some("/v2/")),
            ("{ prefix: /api, to: /v2 }", "/apis/users", None),
            ("{ prefix: /api, to: /v2 }", "/", None),
            ("{ prefix: /api/ }", "/api/users/7", Some("/users/7")),
            ("{ prefix: /api }", "/api", Some("/")),
            ("{ prefix: /a/b, to: /c/d/e }", "/a/b/f", Some("/c/d/e/f")),
            ("{ prefix: /a/b }", "/a", None),
            ("{ to: /shop }", "/", Some("/shop/")),
            ("{ to: /shop }", "/cart", Some("/shop/cart")),
            ("{ prefix: /api }", "/api;v=1/users;x=2", Some("/users;x=2")),
            ("{ prefix: /caf%C3%A9 }", "/caf%C3%A9/menu", Some("/menu")),
        ] {
            assert_eq!(rewritten(&[step], path).as_deref(), asked, "{step} {path}");
        }
    }

    #[test]
    fn steps_follow_one_another_and_the_server_is_told_what_is_gone() {
        let steps = ["{ prefix: /api }", "{ prefix: /old, to: /new }"];
        assert_eq!(rewritten(&steps, "/api/old/x").as_deref(), Some("/new/x"));
        let mut effects = Effects::default();
        let sample = Sample::new();
        let request = Request {
            path: "/api/x",
            ..sample.request()
        };
        let plugin = compiled("{ prefix: /api }");
        assert!(matches!(plugin.request(&request, &mut effects), Verdict::Continue));
        let told = HeaderEdit::Set(X_FORWARDED_PREFIX, HeaderValue::from_static("/api"));
        assert_eq!(effects.to_upstream, [told]);
    }

    #[test]
    fn what_is_no_path_or_changes_nothing_is_a_misfit() {
        for (yaml, place) in [
            ("{ prefix: api }", Some("prefix")),
            ("{ prefix: /a, to: 'v2?x=1' }", Some("to")),
            ("{ prefix: /a;b }", Some("prefix")),
            ("{ to: / }", None),
        ] {
            let misfits = serde_yaml::from_str::<Config>(yaml)
                .unwrap()
                .build(&Env::sample())
                .unwrap_err();
            let places: Vec<_> = place.map(Into::into).into_iter().collect();
            assert_eq!(misfits[0].path, places, "{yaml}: {misfits:?}");
        }
    }

    #[test]
    fn the_example_compiles() {
        let steps = steps::<Config>("rewrite", include_str!("../../conf/examples/rewrite.yaml"));
        assert!(!steps.is_empty());
        for step in steps {
            step.build(&Env::sample()).unwrap();
        }
    }

    proptest! {
        /// Whatever a client asks for, the server gets a path in its one spelling.
        #[test]
        fn what_was_in_its_one_spelling_is_so_afterwards(path in "(/[a-z;%2F.]{0,4}){1,5}") {
            let Ok(path) = normalise(&path) else { return Ok(()) };
            if let Some(asked) = rewritten(&["{ prefix: /a, to: /b/c }"], &path) {
                prop_assert!(normalise(&asked).is_ok_and(|again| again == asked), "{path} {asked}");
            }
        }
    }
}
