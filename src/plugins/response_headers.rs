//! `response_headers`: changes the headers of the answer on its way to the client, the upstream's answer or a plugin's own.
//!
//! Names, values and placeholders are checked at load; a request pays for a clone of each, and for filling in
//! those that hold placeholders.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Env;
use crate::base::header_rules::{Direction, HeaderChanges, HeaderRules};
use crate::base::misfit::Misfit;

/// Changes the headers of the answer on its way to the client, the upstream's answer or a plugin's own:
/// `{ set: { x-edge: tidegate }, add: { via: 1.1 edge }, remove: [x-debug] }`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Config(HeaderRules);

impl Config {
    pub(super) fn build(self, _: &Env<'_>) -> Result<HeaderChanges, Vec<Misfit>> {
        self.0.compile(Direction::ToClient)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::base::exchange::sample::{Sample, steps};
    use crate::base::exchange::{Effects, HeaderEdit};
    use crate::plugins::{Plugin, Verdict};

    fn config(yaml: &str) -> Config {
        serde_yaml::from_str(yaml).unwrap()
    }

    #[test]
    fn the_client_sees_the_changed_headers_and_the_upstream_does_not() {
        let plugin = config("{ add: { x-request-id: '{request_id}' } }")
            .build(&Env::sample())
            .unwrap();
        let mut effects = Effects::default();
        assert!(matches!(
            plugin.request(&Sample::new().request(), &mut effects),
            Verdict::Continue
        ));
        let id = HeaderName::from_static("x-request-id");
        assert_eq!(
            effects.to_client,
            [HeaderEdit::Add(id, HeaderValue::from_static("req-1"))]
        );
        assert!(effects.to_upstream.is_empty());
    }

    #[test]
    fn framing_cannot_be_changed() {
        let misfits = config("{ remove: [content-length] }")
            .build(&Env::sample())
            .unwrap_err();
        assert_eq!(misfits[0].path, ["remove".into(), 0.into()]);
    }

    #[test]
    fn the_example_compiles() {
        for step in steps::<Config>(
            "response_headers",
            include_str!("../../conf/examples/response_headers.yaml"),
        ) {
            step.build(&Env::sample()).unwrap();
        }
    }
}
