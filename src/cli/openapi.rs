//! `tidegate openapi`: the queue API as an OpenAPI document, under the prefix that the process file gives it.

use std::path::Path;

use super::{Outcome, run};
use crate::config::load;
use crate::room::openapi;

/// Prints it.
#[expect(clippy::print_stdout, reason = "the result of the subcommand")]
pub(super) fn print(process_file: &Path) -> Outcome {
    match load::load(process_file) {
        Ok(loaded) => {
            println!("{:#}", openapi::document(&loaded.process.process.queue.prefix));
            Outcome::Done
        }
        Err(error) => run::refused(&error),
    }
}
