//! Configuration files: the samples of `conf/` are taken, and each file of `tests/config/invalid/` is refused with
//! exactly the faults in the `.expected` file beside it.
//!
//! A file whose name starts with `process_` is a process file; the others are rule files. Set `TIDEGATE_BLESS` to
//! write what is said now into the `.expected` files, and read the difference.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use tidegate::config::load::{LoadError, load};

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn yaml_files(path: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder(path)).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}

/// The faults of one file, with paths as seen from the folder of invalid files.
fn faults_of(file: &Path) -> String {
    let process = if file.file_name().unwrap().to_str().unwrap().starts_with("process_") {
        file.to_owned()
    } else {
        let process = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
        fs::write(
            process.path(),
            format!("listeners: [{{ bind: 127.0.0.1:8080 }}]\nrules: {}\n", file.display()),
        )
        .unwrap();
        return shown(load(process.path()));
    };
    shown(load(&process))
}

fn shown(loaded: Result<tidegate::config::load::Loaded, LoadError>) -> String {
    match loaded {
        Ok(_) => "taken".to_owned(),
        Err(error) => {
            let here = folder("tests/config/invalid").display().to_string();
            error.to_string().replace(&format!("{here}/"), "").replace(&here, ".")
        }
    }
}

#[test]
fn every_way_to_be_wrong_is_answered_with_the_faults_expected() {
    let files = yaml_files("tests/config/invalid");
    assert!(files.len() >= 20, "only {} files", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let (found, expected) = (faults_of(&file) + "\n", file.with_extension("expected"));
        if std::env::var_os("TIDEGATE_BLESS").is_some() {
            fs::write(&expected, &found).unwrap();
        }
        let expected = fs::read_to_string(&expected).unwrap_or_default();
        if found != expected {
            wrong.push(format!(
                "{}\n--- expected\n{expected}--- found\n{found}",
                file.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A gateway of a fleet.
const FLEET: &str = "conf/examples/fleet/tidegate.yaml";

/// The samples as JSON: `(file, schema, content)`.
fn samples() -> Vec<(PathBuf, &'static str, serde_json::Value)> {
    let processes = ["conf/tidegate.yaml", "conf/demo/tidegate.yaml", FLEET].map(folder);
    let processes = processes
        .into_iter()
        .filter(|file| file.exists())
        .map(|file| (file, "process"));
    let folders = ["conf/rules", "conf/examples", "conf/demo"];
    let rules = folders.into_iter().flat_map(yaml_files).map(|file| (file, "rules"));
    let read = |(file, schema): (PathBuf, &'static str)| {
        let content = serde_yaml::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        (file, schema, content)
    };
    processes.chain(rules).map(read).collect()
}

fn validator(schema: &str) -> jsonschema::Validator {
    let schema = match schema {
        "process" => tidegate::config::schema::process_schema(),
        _ => tidegate::config::schema::rules_schema(),
    };
    jsonschema::validator_for(&schema).unwrap()
}

#[test]
fn the_samples_run_and_fit_their_schemas() {
    for file in ["conf/tidegate.yaml", FLEET] {
        let loaded = load(&folder(file)).map_err(|error| error.to_string()).unwrap();
        assert_eq!(loaded.warnings, []);
    }
    for (file, schema, content) in samples() {
        let errors: Vec<_> = validator(schema)
            .iter_errors(&content)
            .map(|error| error.to_string())
            .collect();
        assert!(errors.is_empty(), "{}: {}", file.display(), errors.join("\n"));
    }
}

#[test]
fn a_slip_does_not_fit_the_schema() {
    for (file, schema, mut content) in samples() {
        content["lisseners"] = serde_json::json!([]);
        assert!(!validator(schema).is_valid(&content), "{}", file.display());
    }
}
