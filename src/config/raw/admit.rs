//! How many a room lets in over time: a rate, or two between which the health of the service decides.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::{Deserializer, Visitor};

use crate::base::name::Name;
use crate::base::one_or_many::OneOrMany;
use crate::base::rate::Rate;
use crate::queue::governor::Range;

/// `1000/s`, or `{ min: 50/s, max: 500/s, upstream: shop }`. Which of the two it is, and whether it is whole, is checked
/// later.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct InFull {
    /// A rate that stands, as in `1000/s`. Instead of all the others.
    rate: Option<Rate>,
    /// The lowest rate: what the service surely bears. The room begins with it.
    min: Option<Rate>,
    /// The highest rate.
    max: Option<Rate>,
    /// The upstream whose health decides.
    upstream: Option<Name>,
    /// What counts as health. Default: both.
    #[serde(default = "both")]
    by: OneOrMany<Signal>,
}

/// What counts as the health of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// How long its answers take, beside how long they usually do.
    Latency,
    /// How many requests fail: a 5xx, an answer too late or none, no place in flight.
    Errors,
}

fn both() -> OneOrMany<Signal> {
    OneOrMany(vec![Signal::Latency, Signal::Errors])
}

/// How many a room lets in over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admit {
    /// A rate that stands.
    pub rate: Option<Rate>,
    /// The lowest of a measured rate.
    pub min: Option<Rate>,
    /// The highest.
    pub max: Option<Rate>,
    /// Whose health decides.
    pub upstream: Option<Name>,
    /// By what.
    pub by: Vec<Signal>,
}

impl Admit {
    /// The rate to begin with.
    pub fn first(&self) -> Option<Rate> {
        self.rate.or(self.min)
    }

    /// Between which rates, by the health of whom; none for a rate that stands.
    pub fn measured(&self) -> Option<(Range, &Name)> {
        let (min, max, upstream) = (self.min?, self.max?, self.upstream.as_ref()?);
        let range = Range {
            min,
            max,
            by_latency: self.by.contains(&Signal::Latency),
            by_errors: self.by.contains(&Signal::Errors),
        };
        Some((range, upstream))
    }
}

impl<'de> Deserialize<'de> for Admit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrMap;

        impl<'de> Visitor<'de> for TextOrMap {
            type Value = Admit;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a rate, or a map of `min`, `max` and `upstream`")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Admit, D::Error> {
                let InFull {
                    rate,
                    min,
                    max,
                    upstream,
                    by: OneOrMany(by),
                } = InFull::deserialize(inner)?;
                Ok(Admit {
                    rate,
                    min,
                    max,
                    upstream,
                    by,
                })
            }
        }

        deserializer.deserialize_newtype_struct("$tidegate::Shorthand:rate", TextOrMap)
    }
}

impl JsonSchema for Admit {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Admit".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (rate, in_full) = (generator.subschema_for::<Rate>(), generator.subschema_for::<InFull>());
        schemars::json_schema!({ "description": "How many a room lets in over time.", "anyOf": [rate, in_full] })
    }
}
