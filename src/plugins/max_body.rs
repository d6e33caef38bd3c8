//! `max_body`: how large a request's body may be.
//!
//! A declared length beyond it is refused at once with 413, before an upstream is chosen. A body of undeclared length
//! is counted as it passes. The size takes the place of the process's own `max_body` for the route, larger or smaller.

use http::StatusCode;
use http::header::CONTENT_LENGTH;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Env, Plugin, Verdict};
use crate::base::exchange::{Effects, Reply, Request};
use crate::base::misfit::Misfit;
use crate::base::unit::Size;

/// The largest body of a request, as in `max_body: 1MiB`. `0B` allows none.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Config(Size);

/// The largest body of a request, in bytes.
#[derive(Debug)]
pub struct MaxBody(u64);

impl Config {
    pub(super) fn build(self, _: &Env<'_>) -> Result<MaxBody, Vec<Misfit>> {
        Ok(MaxBody(self.0.0))
    }
}

impl Plugin for MaxBody {
    fn request<'a>(&'a self, request: &'a Request<'a>, effects: &'a mut Effects) -> Verdict<'a> {
        // Of two such steps the stricter holds, whatever their order.
        effects.max_body = Some(effects.max_body.map_or(self.0, |other| other.min(self.0)));
        if !self.is_exceeded_by(request) {
            return Verdict::Continue;
        }
        let detail = "The request's body is larger than this resource takes.";
        Verdict::Reply(Box::new(Reply::problem(
            StatusCode::PAYLOAD_TOO_LARGE,
            "max_body",
            detail,
        )))
    }
}

impl MaxBody {
    /// Whether a declared length is too large. A length beyond any number is; one that is no number at all has been
    /// refused before.
    fn is_exceeded_by(&self, request: &Request<'_>) -> bool {
        request.headers.get_all(CONTENT_LENGTH).iter().any(|value| {
            let digits = value.as_bytes();
            let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
            let length = value.to_str().ok().and_then(|text| text.parse::<u64>().ok());
            is_number && length.is_none_or(|length| length > self.0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exchange::sample::{Sample, steps};

    fn max_body(size: &str) -> MaxBody {
        let config = serde_json::from_value::<Config>(size.into()).unwrap();
        config.build(&Env::sample()).unwrap()
    }

    fn is_refused(size: &str, length: &'static str) -> bool {
        let sample = Sample::new().header("content-length", length);
        let max_body = max_body(size);
        match max_body.request(&sample.request(), &mut Effects::default()) {
            Verdict::Reply(reply) => {
                assert_eq!(reply.status, StatusCode::PAYLOAD_TOO_LARGE);
                true
            }
            Verdict::Continue | Verdict::Hold(_) => false,
        }
    }

    #[test]
    fn a_declared_length_beyond_the_size_is_refused_at_once() {
        assert!(!is_refused("1KiB", "0"));
        assert!(!is_refused("1KiB", "1024"));
        assert!(is_refused("1KiB", "1025"));
        assert!(is_refused("1KiB", "99999999999999999999999999"));
        assert!(is_refused("0B", "1"));
        assert!(!is_refused("1KiB", "chunked"));
    }

    #[test]
    fn a_body_of_unknown_length_is_bounded_by_the_stricter_step() {
        let sample = Sample::new();
        let request = sample.request();
        let mut effects = Effects::default();
        for size in ["2KiB", "1KiB", "3KiB"] {
            let max_body = max_body(size);
            assert!(matches!(max_body.request(&request, &mut effects), Verdict::Continue));
        }
        assert_eq!(effects.max_body, Some(1024));
    }

    #[test]
    fn it_is_written_as_a_plain_size() {
        assert!(serde_yaml::from_str::<Config>("1MiB").is_ok());
        assert!(serde_yaml::from_str::<Config>("1048576").is_err());
    }

    #[test]
    fn the_example_compiles() {
        let steps = steps::<Config>("max_body", include_str!("../../conf/examples/max_body.yaml"));
        let sizes = steps.into_iter().map(|step| step.build(&Env::sample()).unwrap().0);
        assert_eq!(sizes.collect::<Vec<_>>(), [64 << 10, 2 << 30, 0]);
    }
}
