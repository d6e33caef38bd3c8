//! `tidegate check`: everything that is wrong with a configuration, and nothing else.

use std::path::Path;

use super::{Outcome, run};
use crate::config::load::{self, LoadError};
use crate::server::build::{BuildError, build};

/// Reads and builds the whole configuration, as `run` would, without listening or logging.
#[expect(clippy::print_stdout, reason = "the result of the subcommand")]
pub(super) fn check(process_file: &Path) -> Outcome {
    let loaded = match load::load(process_file) {
        Ok(loaded) => loaded,
        Err(error) => return run::refused(&error),
    };
    for warning in &loaded.warnings {
        println!("warning: {warning}");
    }
    let (files, routes) = (
        loaded.rules.len(),
        loaded.rules.iter().map(|file| file.rules.routes.len()).sum::<usize>(),
    );
    match build(process_file, loaded) {
        Ok(_) => {
            println!(
                "{}: good, with {routes} routes in {files} rule files",
                process_file.display()
            );
            Outcome::Done
        }
        Err(BuildError::Faulty(faults)) => run::refused(&LoadError::Faulty(faults)),
        Err(error) => {
            run::failed(&error);
            Outcome::Faulty
        }
    }
}
