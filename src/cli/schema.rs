//! `tidegate schema`: the JSON Schema of the configuration files, so that editors complete and check them.

use clap::{Args, ValueEnum};

use super::Outcome;
use crate::config::schema::{process_schema, rules_schema};

/// Which file's schema.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Which {
    /// The kind of file.
    #[arg(value_enum)]
    file: Kind,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// The process file, as `conf/tidegate.yaml`.
    Process,
    /// A rule file, as `conf/rules/shop.yaml`.
    Rules,
}

/// Prints it.
#[expect(clippy::print_stdout, reason = "the result of the subcommand")]
pub(super) fn print(which: Which) -> Outcome {
    let schema = match which.file {
        Kind::Process => process_schema(),
        Kind::Rules => rules_schema(),
    };
    println!("{schema:#}");
    Outcome::Done
}
