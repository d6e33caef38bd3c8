//! stub

use clap::Args;

use super::Outcome;

/// Demo.
#[derive(Debug, Args)]
pub(super) struct Options {}

pub(super) fn demo(_: Options) -> Outcome {
    Outcome::Done
}
