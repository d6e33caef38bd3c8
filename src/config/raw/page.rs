//! A room's own waiting page, as it is written: a path, or a map with what else the page needs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::{Deserializer, Visitor};

/// A waiting page of the operator's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomPage {
    /// The file of its template.
    pub template: PathBuf,
    /// Values that the template sees as `vars.name`.
    pub vars: BTreeMap<String, String>,
}

/// A page in full.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PageInFull {
    /// The file of its template, from where this file stands: HTML in the syntax of Jinja.
    template: PathBuf,
    /// Values of your own, which the template sees as `vars.name`.
    #[serde(default)]
    vars: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for RoomPage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrMap;

        impl<'de> Visitor<'de> for TextOrMap {
            type Value = RoomPage;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the path of a template, or a map of `template` and `vars`")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<RoomPage, D::Error> {
                let PageInFull { template, vars } = PageInFull::deserialize(inner)?;
                Ok(RoomPage { template, vars })
            }
        }

        deserializer.deserialize_newtype_struct("$tidegate::Shorthand:template", TextOrMap)
    }
}

impl JsonSchema for RoomPage {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RoomPage".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (path, in_full) = (
            generator.subschema_for::<PathBuf>(),
            generator.subschema_for::<PageInFull>(),
        );
        schemars::json_schema!({ "description": "A waiting page of your own.", "anyOf": [path, in_full] })
    }
}
