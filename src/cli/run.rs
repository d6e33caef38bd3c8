//! `tidegate run`: the gateway.

use std::path::Path;

use super::Outcome;
use crate::config::load::{self, LoadError, Loaded};
use crate::server::build::{BuildError, build};
use crate::telemetry::event_log;

/// Runs until it is told to stop.
pub(super) fn run(process_file: &Path) -> Outcome {
    event_log::install();
    match load::load(process_file) {
        Ok(loaded) => serve(process_file, loaded),
        Err(error) => refused(&error),
    }
}

fn serve(process_file: &Path, loaded: Loaded) -> Outcome {
    for warning in &loaded.warnings {
        log::warn!("{warning}");
    }
    let process = match build(process_file, loaded) {
        Ok(process) => process,
        Err(BuildError::Faulty(faults)) => return refused(&LoadError::Faulty(faults)),
        Err(error) => return failed(&error),
    };
    match process.run(|_| {}) {
        Ok(()) => Outcome::Done,
        Err(error) => failed(&error),
    }
}

/// Says why a configuration was not taken.
pub(super) fn refused(error: &LoadError) -> Outcome {
    eprint_lines(error);
    match error {
        LoadError::Unreadable { .. } => Outcome::Unreadable,
        LoadError::Faulty(_) => Outcome::Faulty,
    }
}

/// Says why the gateway could not start.
pub(super) fn failed(error: &dyn std::error::Error) -> Outcome {
    eprint_lines(error);
    Outcome::Failed
}

#[expect(clippy::print_stderr, reason = "the command line is where a subcommand's errors go")]
fn eprint_lines(error: &dyn std::error::Error) {
    eprintln!("{error}");
}
