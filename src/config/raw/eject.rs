//! When a server is passed over: `off`, or by which failures and for how long.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::{Deserializer, Visitor};

use crate::base::unit::Span;
use crate::upstream::health::Terms;

/// By which failures a server is passed over, and for how long. The other servers get its requests; where all are out,
/// all are in. An answer brings a server back.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct InFull {
    /// Whether any is. Default: on.
    mode: Mode,
    /// So many requests in a row got no connection, or one that broke off without an answer; 1 to 1,000. Default: 3.
    #[schemars(range(min = 1, max = 1_000))]
    after: u32,
    /// The longest time between the first of them and the last, 1ms to 1 day. Default: 10s.
    within: Span,
    /// How long until one request tries the server again, 1ms to 1 day. Default: 10s.
    r#for: Span,
}

/// Whether servers are passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Those that fail are.
    #[default]
    On,
    /// None ever is.
    Off,
}

/// When a server is passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eject {
    /// Whether any is.
    pub mode: Mode,
    /// By so many failures in a row, 1 to 1,000.
    pub after: u32,
    /// Between the first of them and the last, 1ms to 1 day.
    pub within: Span,
    /// For how long, 1ms to 1 day.
    pub lasting: Span,
}

impl Default for Eject {
    fn default() -> Self {
        let Terms { after, within, lasting } = Terms::default();
        Self {
            mode: Mode::On,
            after,
            within: Span(within),
            lasting: Span(lasting),
        }
    }
}

impl Default for InFull {
    fn default() -> Self {
        let Eject {
            mode,
            after,
            within,
            lasting,
        } = Eject::default();
        Self {
            mode,
            after,
            within,
            r#for: lasting,
        }
    }
}

impl Eject {
    /// The terms, where any server is passed over.
    pub fn terms(&self) -> Option<Terms> {
        (self.mode == Mode::On).then_some(Terms {
            after: self.after,
            within: self.within.0,
            lasting: self.lasting.0,
        })
    }
}

impl<'de> Deserialize<'de> for Eject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrMap;

        impl<'de> Visitor<'de> for TextOrMap {
            type Value = Eject;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`off`, or a map of `after`, `within` and `for`")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Eject, D::Error> {
                let InFull {
                    mode,
                    after,
                    within,
                    r#for: lasting,
                } = InFull::deserialize(inner)?;
                Ok(Eject {
                    mode,
                    after,
                    within,
                    lasting,
                })
            }
        }

        deserializer.deserialize_newtype_struct("$tidegate::Shorthand:mode", TextOrMap)
    }
}

impl JsonSchema for Eject {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Eject".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (mode, in_full) = (generator.subschema_for::<Mode>(), generator.subschema_for::<InFull>());
        schemars::json_schema!({ "description": "When a server is passed over.", "anyOf": [mode, in_full] })
    }
}
