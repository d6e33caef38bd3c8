//! `request_headers`: changes the headers of the request on its way to the upstream.
//!
//! Names, values and placeholders are checked at load; a request pays for a clone of each, and for filling in
//! those that hold placeholders.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Env;
use crate::base::header_rules::{Direction, HeaderChanges, HeaderRules};
use crate::base::misfit::Misfit;

/// Changes the headers of the request on its way to the upstream:
/// `{ set: { x-edge: tidegate }, add: { via: 1.1 edge }, remove: [x-debug] }`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Config(HeaderRules);

impl Config {
    pub(super) fn build(self, _: &Env<'_>) -> Result<HeaderChanges, Vec<Misfit>> {
        self.0.compile(Direction::ToUpstream)
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
    fn the_upstream_sees_the_changed_headers_and_the_client_does_not() {
        let plugin = config("{ set: { X-Client: '{client_ip}' }, remove: [x-debug] }")
            .build(&Env::sample())
            .unwrap();
        let mut effects = Effects::default();
        assert!(matches!(
            plugin.request(&Sample::new().request(), &mut effects),
            Verdict::Continue
        ));
        let client = HeaderName::from_static("x-client");
        assert_eq!(
            effects.to_upstream,
            [
                HeaderEdit::Remove(HeaderName::from_static("x-debug")),
                HeaderEdit::Set(client, HeaderValue::from_static("192.0.2.7")),
            ]
        );
        assert!(effects.to_client.is_empty());
    }

    #[test]
    fn the_host_can_be_set_but_the_framing_cannot() {
        assert!(
            config("{ set: { host: origin.internal } }")
                .build(&Env::sample())
                .is_ok()
        );
        let misfits = config("{ set: { transfer-encoding: chunked } }")
            .build(&Env::sample())
            .unwrap_err();
        assert_eq!(misfits[0].path, ["set".into(), "transfer-encoding".into()]);
        assert!(serde_yaml::from_str::<Config>("{ sets: { x-a: b } }").is_err());
    }

    #[test]
    fn the_example_compiles() {
        for step in steps::<Config>(
            "request_headers",
            include_str!("../../conf/examples/request_headers.yaml"),
        ) {
            step.build(&Env::sample()).unwrap();
        }
    }
}
