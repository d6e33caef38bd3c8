//! JSON Schemas of both kinds of files, for editors; and which keys are required, for complaints.

use std::collections::HashMap;

use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema, generate::SchemaSettings};
use serde_json::Value;

use super::decode::RequiredKeys;
use super::raw::{Process, Rules};

/// The schema of the process file.
pub fn process_schema() -> Value {
    schema_of::<Process>()
}

/// The schema of a rule file.
pub fn rules_schema() -> Value {
    schema_of::<Rules>()
}

fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with_transform(RecursiveTransform(refuse_null));
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// An optional key may be left out; its value may not be nothing. (A derived schema says that both may be.)
fn refuse_null(schema: &mut Schema) {
    if let Some(types) = schema.get_mut("type").and_then(Value::as_array_mut) {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(choices) = schema.get_mut("anyOf").and_then(Value::as_array_mut) {
        choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
    }
}

/// The required keys of every struct in the schema of `T`, by all its keys. Structs with the same keys and
/// different requirements count as requiring what all of them do.
pub(super) fn required_keys<T: JsonSchema>() -> RequiredKeys {
    let mut required = HashMap::new();
    collect(&schema_of::<T>(), &mut required);
    required
}

fn collect(schema: &Value, required: &mut RequiredKeys) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Object(properties)) = object.get("properties") {
                let mut keys: Vec<_> = properties.keys().cloned().collect();
                keys.sort();
                let list = object.get("required").and_then(Value::as_array);
                let names: Vec<_> = list
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect();
                let known = required.entry(keys).or_insert_with(|| names.clone());
                known.retain(|key| names.contains(key));
            }
            object.values().for_each(|value| collect(value, required));
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, required)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn required_keys_come_from_the_types() {
        let required = required_keys::<Process>();
        let keys = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(required[&keys(&["cert", "key"])], keys(&["cert", "key"]));
        assert_eq!(
            required[&keys(&["bind", "http2", "proxy_protocol", "tls"])],
            keys(&["bind"])
        );
    }

    #[test]
    fn schemas_refuse_unknown_keys_and_nothing() {
        let schema = jsonschema::validator_for(&process_schema()).unwrap();
        let listeners = serde_json::json!([{ "bind": "127.0.0.1:8080" }]);
        let process = serde_json::json!({ "listeners": listeners, "rules": "rules/*.yaml", "store": "memory" });
        assert!(schema.is_valid(&process));
        for wrong in [
            serde_json::json!({ "listeners": listeners, "rules": "x", "stroe": "memory" }),
            serde_json::json!({ "listeners": listeners, "rules": "x", "threads": null }),
            serde_json::json!({ "listeners": [{ "bind": "127.0.0.1:8080", "tls": null }], "rules": "x" }),
            serde_json::json!({ "listeners": listeners, "rules": "x", "timeouts": { "idle": "75" } }),
            serde_json::json!({ "listeners": listeners }),
        ] {
            assert!(!schema.is_valid(&wrong), "{wrong}");
        }
        let rules = jsonschema::validator_for(&rules_schema()).unwrap();
        let upstreams =
            serde_json::json!({ "shop": { "servers": ["127.0.0.1:9000", { "address": "h:1", "weight": 2 }] } });
        assert!(rules.is_valid(&serde_json::json!({ "upstreams": upstreams })));
        assert!(!rules.is_valid(&serde_json::json!({ "upstream": upstreams })));
    }

    #[test]
    fn every_key_is_described() {
        fn walk(schema: &Value, path: &str, bare: &mut Vec<String>) {
            if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
                let bare_keys = properties
                    .iter()
                    .filter(|(_, value)| value.get("description").is_none());
                bare.extend(bare_keys.map(|(key, _)| format!("{path}/{key}")));
            }
            if let Some(definitions) = schema.get("$defs").and_then(Value::as_object) {
                for (name, definition) in definitions {
                    let own = !name.starts_with("Config") && !matches!(name.as_str(), "ChainStep" | "KeyPart");
                    if own && definition.get("oneOf").is_none() {
                        walk(definition, name, bare);
                    }
                }
            }
        }
        let mut bare = Vec::new();
        walk(&process_schema(), "process", &mut bare);
        walk(&rules_schema(), "rules", &mut bare);
        assert_eq!(bare, Vec::<String>::new());
    }
}
