//! Which rule files the demo runs on: those that were asked for, those of the working directory, or copies.

use std::fs;
use std::path::{Path, PathBuf};

use super::DemoError;
use super::scratch::Scratch;

/// The port of the shop that stands in the rules as they are kept.
pub(super) const SHOP_PORT: u16 = 9000;

/// Where the demo's rules are, seen from the root of the repository.
const HOME: &str = "conf/demo";

/// The demo's rule files, for a program that is started elsewhere.
const BUILT_IN: &[(&str, &str)] = &[("shop.yaml", include_str!("../../../conf/demo/shop.yaml"))];

/// The rule files in force.
#[derive(Debug)]
pub(super) struct RulesInForce {
    /// Where they are; an absolute path.
    pub(super) directory: PathBuf,
    /// Why they are copies which end with the demo, if they are.
    pub(super) copied: Option<&'static str>,
}

impl RulesInForce {
    /// `asked`, as it is, or else the demo's own with the shop's real port.
    pub(super) fn choose(asked: Option<&Path>, scratch: &Scratch, shop_port: u16) -> Result<Self, DemoError> {
        let home = Path::new(HOME);
        if let Some(directory) = asked {
            return Self::in_place(directory);
        }
        match (home.is_dir(), shop_port == SHOP_PORT) {
            (true, true) => Self::in_place(home),
            (true, false) => {
                let files = read(home)?;
                Self::copy(&files, scratch, shop_port, "copies, with the shop's other port")
            }
            (false, _) => {
                let files = BUILT_IN
                    .iter()
                    .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
                let files: Vec<_> = files.collect();
                Self::copy(&files, scratch, shop_port, "copies, as there is no conf/demo here")
            }
        }
    }

    fn in_place(directory: &Path) -> Result<Self, DemoError> {
        let directory = fs::canonicalize(directory).map_err(|error| DemoError::File(directory.to_owned(), error))?;
        Ok(Self {
            directory,
            copied: None,
        })
    }

    fn copy(
        files: &[(String, String)],
        scratch: &Scratch,
        shop_port: u16,
        why: &'static str,
    ) -> Result<Self, DemoError> {
        let (written, real) = (format!("127.0.0.1:{SHOP_PORT}"), format!("127.0.0.1:{shop_port}"));
        for (name, text) in files {
            scratch.write(&format!("rules/{name}"), &text.replace(&written, &real))?;
        }
        Ok(Self {
            directory: scratch.path("rules"),
            copied: Some(why),
        })
    }
}

/// The rule files of a directory, by name.
fn read(directory: &Path) -> Result<Vec<(String, String)>, DemoError> {
    let fault = |path: &Path| {
        let path = path.to_owned();
        move |error| DemoError::File(path, error)
    };
    let entries = fs::read_dir(directory).map_err(fault(directory))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let paths = paths.filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).map_err(fault(&path))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((name, text))
    };
    paths.map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let scratch = Scratch::create().unwrap();
        let asked = Path::new("conf/nowhere");
        let error = RulesInForce::choose(Some(asked), &scratch, SHOP_PORT).unwrap_err();
        assert!(error.to_string().starts_with("conf/nowhere: "), "{error}");
    }

    #[test]
    fn rules_that_were_asked_for_are_not_copied_whatever_the_port() {
        let scratch = Scratch::create().unwrap();
        let asked = Path::new(env!("CARGO_MANIFEST_DIR")).join(HOME);
        let rules = RulesInForce::choose(Some(&asked), &scratch, 1).unwrap();
        assert_eq!(
            (rules.directory, rules.copied),
            (fs::canonicalize(asked).unwrap(), None)
        );
    }

    #[test]
    fn the_built_in_rules_are_those_of_the_repository_and_name_the_port_once() {
        let home = Path::new(env!("CARGO_MANIFEST_DIR")).join(HOME);
        let built_in: Vec<_> = BUILT_IN
            .iter()
            .map(|(n, t)| ((*n).to_owned(), (*t).to_owned()))
            .collect();
        assert_eq!(
            read(&home).unwrap(),
            built_in,
            "a file of conf/demo is missing in BUILT_IN"
        );
        assert_eq!(built_in[0].1.matches("127.0.0.1:9000").count(), 1);
    }
}
