//! What a request costs a limit: a fixed number, what a header of it says, or the bytes of its answer.

use std::fmt;
use std::ops::RangeInclusive;

use http::StatusCode;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use super::counting::Algorithm;
use crate::base::exchange::{Reply, Request};
use crate::base::key::FieldName;
use crate::base::misfit::Misfit;
use crate::base::rate::{Quota, Unit};

/// What one request may cost.
const COST: RangeInclusive<u64> = 1..=1_000_000;

/// What a request costs: `5`, `{ header: x-cost }`, or `response_bytes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cost {
    /// So much.
    Fixed(u64),
    /// What this request header says: digits, 1 to 1000000. What is missing or no number counts as 1, what lies
    /// outside counts as the nearest that does not.
    Header(FieldName),
    /// The bytes of its answer's body, charged when the answer is done. Until then it costs 1.
    ResponseBytes,
}

impl Default for Cost {
    fn default() -> Self {
        Self::Fixed(*COST.start())
    }
}

impl Cost {
    /// What to charge before the answer.
    pub(super) fn of(&self, request: &Request<'_>) -> u64 {
        match self {
            Self::Fixed(cost) => *cost,
            Self::Header(name) => request.headers.get(&name.0).map_or(1, |value| parse(value.as_bytes())),
            Self::ResponseBytes => 1,
        }
    }

    /// Why a limit of this cost cannot be this large. What fits into a bucket with a `burst` of its own is not said here.
    pub(super) fn check(&self, quota: Quota, burst: Option<u64>) -> Option<Misfit> {
        let Quota { rate, unit, month: _ } = quota;
        match (self, unit) {
            (Self::ResponseBytes, Unit::Requests) => Some(Misfit::new(format!(
                "with `cost: response_bytes` this limit counts bytes: write a size, as in `10MiB/s` (`{rate}` would be \
                 {} bytes)",
                rate.count
            )))
            .map(|misfit| misfit.under("limit")),
            (Self::Fixed(_) | Self::Header(_), Unit::Bytes) => Some(
                Misfit::new(
                    "this is a rate of bytes, and the limit counts requests: add `cost: response_bytes`, or write how \
                     many requests, as in `100/s`",
                )
                .under("limit"),
            ),
            (Self::Fixed(cost), Unit::Requests) if burst.is_none() && *cost > rate.count.get() => {
                let message =
                    format!("a request that costs {cost} never fits into `{rate}`; raise the limit or lower it");
                Some(Misfit::new(message).under("cost"))
            }
            _ => None,
        }
    }

    /// Why requests of this cost cannot be counted so.
    pub(super) fn check_bucket(&self, algorithm: Algorithm, burst: Option<u64>) -> Option<Misfit> {
        if algorithm == Algorithm::LeakyBucket && *self != Self::default() {
            let message = "a leaky bucket lets requests go one by one; leave `cost` out, or count by `token_bucket`";
            return Some(Misfit::new(message).under("cost"));
        }
        let (Self::Fixed(cost), Some(burst)) = (self, burst) else {
            return None;
        };
        let message = || format!("a request that costs {cost} never fits into a bucket of {burst}; raise `burst`");
        (*cost > burst).then(|| Misfit::new(message()).under("burst"))
    }
}

/// A header's value; nobody pays less for writing more digits.
fn parse(value: &[u8]) -> u64 {
    let digits = value.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return *COST.start();
    }
    let number = digits.iter().fold(0_u64, |number, digit| {
        number.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
    });
    number.clamp(*COST.start(), *COST.end())
}

/// 429 for a request that costs more than its limit ever has: there is no time at which to come back.
pub(super) fn never_fits() -> Reply {
    let detail = "This request costs more than its limit allows at all. It cannot be tried again as it is.";
    Reply::problem(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail)
}

impl<'de> Deserialize<'de> for Cost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Cost;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number, `{ header: NAME }` or `response_bytes`")
            }

            fn visit_u64<E: Error>(self, cost: u64) -> Result<Cost, E> {
                if COST.contains(&cost) {
                    return Ok(Cost::Fixed(cost));
                }
                let (least, most) = COST.into_inner();
                Err(E::custom(format!("`{cost}` must be between {least} and {most}")))
            }

            fn visit_i64<E: Error>(self, cost: i64) -> Result<Cost, E> {
                self.visit_u64(u64::try_from(cost).unwrap_or_default())
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Cost, E> {
                if word == "response_bytes" {
                    return Ok(Cost::ResponseBytes);
                }
                let message = "is no cost: write a whole number, `{ header: NAME }` or `response_bytes`";
                Err(E::custom(format!("`{word}` {message}")))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cost, A::Error> {
                let mut header = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key != "header" {
                        return Err(A::Error::custom(format!(
                            "there is no `{key}` here: write `{{ header: NAME }}`"
                        )));
                    }
                    header = Some(map.next_value()?);
                }
                header
                    .map(Cost::Header)
                    .ok_or_else(|| A::Error::custom("write the header's name: `{ header: NAME }`"))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

impl JsonSchema for Cost {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Cost".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let header = generator.subschema_for::<FieldName>();
        let (least, most) = COST.into_inner();
        schemars::json_schema!({
            "description": "What a request costs.",
            "anyOf": [
                { "type": "integer", "minimum": least, "maximum": most },
                { "const": "response_bytes" },
                {
                    "type": "object",
                    "properties": { "header": header },
                    "required": ["header"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use serde_json::{Value, json};

    use super::*;
    use crate::base::exchange::sample::Sample;

    fn cost(written: Value) -> Result<Cost, String> {
        serde_json::from_value(written).map_err(|error| error.to_string())
    }

    #[test]
    fn a_cost_is_a_number_a_header_or_the_answer() {
        assert_eq!(cost(json!(5)), Ok(Cost::Fixed(5)));
        assert_eq!(cost(json!("response_bytes")), Ok(Cost::ResponseBytes));
        let header = FieldName(HeaderName::from_static("x-cost"));
        assert_eq!(cost(json!({ "header": "X-Cost" })), Ok(Cost::Header(header)));
        for (wrong, part) in [
            (json!(0), "between 1 and 1000000"),
            (json!(-1), "between 1 and 1000000"),
            (json!(1_000_001), "between 1 and 1000000"),
            (json!("bytes"), "response_bytes"),
            (json!({ "heeder": "x" }), "heeder"),
            (json!({ "header": "x", "then": 5 }), "no `then` here"),
            (json!(true), "a whole number"),
        ] {
            let message = cost(wrong.clone()).unwrap_err();
            assert!(message.contains(part), "{wrong}: {message}");
        }
    }

    #[test]
    fn a_header_that_says_nothing_useful_counts_as_one_and_too_much_as_the_most() {
        for (value, expected) in [
            ("7", 7),
            (" 7 ", 7),
            ("", 1),
            ("0", 1),
            ("-5", 1),
            ("5.5", 1),
            ("five", 1),
            ("1000000", 1_000_000),
            ("1000001", 1_000_000),
            ("99999999999999999999999999", 1_000_000),
        ] {
            assert_eq!(parse(value.as_bytes()), expected, "{value:?}");
        }
        let by_header = Cost::Header(FieldName(HeaderName::from_static("x-cost")));
        let mut sample = Sample::new();
        assert_eq!(by_header.of(&sample.request()), 1);
        sample.headers.insert("x-cost", HeaderValue::from_static("12"));
        assert_eq!(by_header.of(&sample.request()), 12);
    }

    #[test]
    fn bytes_and_requests_are_not_mixed_up() {
        let fault = |cost: Cost, limit: &str| cost.check(limit.parse().unwrap(), None).map(|misfit| misfit.message);
        assert_eq!(fault(Cost::ResponseBytes, "10MiB/s"), None);
        assert_eq!(fault(Cost::Fixed(5), "5/s"), None);
        assert!(
            fault(Cost::ResponseBytes, "100/s")
                .unwrap()
                .contains("would be 100 bytes")
        );
        assert!(
            fault(Cost::default(), "1KiB/s")
                .unwrap()
                .contains("add `cost: response_bytes`")
        );
        assert!(fault(Cost::Fixed(6), "5/s").unwrap().contains("never fits"));
    }
}
