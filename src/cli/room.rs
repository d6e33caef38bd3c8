//! `tidegate room ...`: what concerns one waiting room, a file each.

mod link;

use clap::Subcommand;

use super::Outcome;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a link that goes around a room for some time, for whoever opens it.
    Link(link::Options),
}

pub(super) fn run(command: Command) -> Outcome {
    match command {
        Command::Link(options) => link::print(&options),
    }
}
