//! The configuration files of a fleet, as `tidegate check` sees them.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_yaml::Value;

use crate::kubernetes::manifest;
use crate::{at, entries, string, text};

/// The faults that `tidegate check` finds, a line each.
fn faults(process: &Path) -> Vec<String> {
    let mut gateway = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let said = gateway.arg("check").arg("--config").arg(process).output().unwrap();
    if said.status.success() {
        return Vec::new();
    }
    String::from_utf8(said.stderr)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Lays a process file and rule files out as they are mounted, and has them checked.
fn check(process: &str, rules: &[(String, String)]) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("rules")).unwrap();
    for (name, text) in rules {
        fs::write(folder.path().join("rules").join(name), text).unwrap();
    }
    let mut written: Value = serde_yaml::from_str(process).unwrap();
    written["rules"] = folder.path().join("rules/*.yaml").to_str().unwrap().into();
    let file = folder.path().join("tidegate.yaml");
    fs::write(&file, serde_yaml::to_string(&written).unwrap()).unwrap();
    let found = faults(&file);
    assert!(found.is_empty(), "{found:#?}");
    let schema = tidegate::config::schema::process_schema();
    let json: serde_json::Value = serde_yaml::from_str(process).unwrap();
    assert!(jsonschema::validator_for(&schema).unwrap().is_valid(&json), "{process}");
}

#[test]
fn the_fleet_of_compose_has_good_files() {
    let rules = text("deploy/conf/rules/shop.yaml");
    check(&text("deploy/conf/tidegate.yaml"), &[("shop.yaml".to_owned(), rules)]);
}

#[test]
fn the_maps_of_kubernetes_hold_good_files() {
    let process = manifest("ConfigMap", "tidegate-process");
    let rules = manifest("ConfigMap", "tidegate-rules");
    let rules = entries(at(&rules, "data"))
        .into_iter()
        .map(|(name, text)| (name.to_owned(), string(text).to_owned()));
    check(
        string(&at(&process, "data")["tidegate.yaml"]),
        &rules.collect::<Vec<_>>(),
    );
}

#[test]
#[should_panic(expected = "no_such_upstream")]
fn a_fault_in_them_would_be_seen() {
    let rules = text("deploy/conf/rules/shop.yaml").replace("upstream: shop", "upstream: no_such_upstream");
    check(&text("deploy/conf/tidegate.yaml"), &[("shop.yaml".to_owned(), rules)]);
}
