//! What runs a fleet, below `deploy/`, held against what it speaks of: the metrics of the binary, the files of the
//! repository, the bounds in the sources. A dashboard with a misspelt metric shows nothing, and an alert with one never
//! fires, and nobody would notice before it matters.
//!
//! Whether Prometheus takes the rules and systemd the unit is asked of them by `make deploy-checks`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test says what is wrong by panicking, and what it could not do by saying so"
)]

#[path = "deploy/compose.rs"]
mod compose;
#[path = "deploy/configuration.rs"]
mod configuration;
#[path = "deploy/exported.rs"]
mod exported;
#[path = "deploy/image.rs"]
mod image;
#[path = "deploy/kubernetes.rs"]
mod kubernetes;
#[path = "deploy/query.rs"]
mod query;
#[path = "deploy/stopping.rs"]
mod stopping;
#[path = "deploy/watching.rs"]
mod watching;

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_yaml::Value;

fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

fn text(relative: &str) -> String {
    fs::read_to_string(path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
}

/// Every document of a YAML file, with `<<` carried out.
fn documents(relative: &str) -> Vec<Value> {
    let text = text(relative);
    let read = |document| {
        let mut value = Value::deserialize(document).unwrap_or_else(|error| panic!("{relative}: {error}"));
        value.apply_merge().unwrap();
        value
    };
    serde_yaml::Deserializer::from_str(&text).map(read).collect()
}

fn document(relative: &str) -> Value {
    documents(relative).remove(0)
}

/// All files below a folder that end so.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![path(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            match entry.path() {
                inner if inner.is_dir() => folders.push(inner),
                file if file.to_str().is_some_and(|name| name.ends_with(ending)) => found.push(file),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// The value at a path of keys; a failure names the key that is missing.
fn at<'v>(value: &'v Value, keys: &str) -> &'v Value {
    keys.split('.').fold(value, |value, key| {
        let next = match key.parse::<usize>() {
            Ok(index) => value.get(index),
            Err(_) => value.get(key),
        };
        next.unwrap_or_else(|| panic!("there is no `{key}` of `{keys}` in {value:?}"))
    })
}

fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not text: {value:?}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_sequence().unwrap_or_else(|| panic!("not a list: {value:?}"))
}

fn entries(value: &Value) -> Vec<(&str, &Value)> {
    let map = value.as_mapping().unwrap_or_else(|| panic!("not a map: {value:?}"));
    map.iter().map(|(key, value)| (string(key), value)).collect()
}

/// Says that something could not be tried here, and why. Where nothing may be skipped, that is a failure.
fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
    let strict = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!strict, "CI=true, and a test could not run: {why}");
}
