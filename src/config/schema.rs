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
