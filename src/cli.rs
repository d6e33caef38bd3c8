//! Floor 9: the subcommands, one file each.

mod admin;
mod check;
mod demo;
mod limits;
mod room;
mod run;
mod schema;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// An edge gateway: rules in YAML, throttling that holds its bound, and a waiting room.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway.
    Run(ConfigFile),
    /// Read the configuration and list every fault in it: 0 good, 1 faults, 2 cannot be read.
    Check(ConfigFile),
    /// Print the JSON Schema of a configuration file, for editors.
    Schema(schema::Which),
    /// Show what a running gateway knows of its limits.
    Limits(admin::Listener),
    /// Show the waiting rooms of a running gateway, and steer them: 0 done, 1 refused, 3 nobody could be asked.
    Room(room::Options),
    /// Run a small ticket shop behind the gateway, to try it out.
    Demo(demo::Options),
}

#[derive(Debug, Clone, Args)]
struct ConfigFile {
    /// The process file.
    #[arg(long, short, default_value = "conf/tidegate.yaml")]
    config: PathBuf,
}

/// How a subcommand ended; the codes are documented in the README.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done = 0,
    /// What was given is wrong: a configuration has faults, or there is no such room. It has been said.
    Faulty = 1,
    /// A file cannot be read.
    Unreadable = 2,
    /// The gateway could not start, or could not go on; or none could be asked.
    Failed = 3,
}

impl Cli {
    /// Does what the command line says.
    pub fn run(self) -> ExitCode {
        let outcome = match self.command {
            Command::Run(ConfigFile { config }) => run::run(&config),
            Command::Check(ConfigFile { config }) => check::check(&config),
            Command::Schema(which) => schema::print(which),
            Command::Limits(options) => limits::print(options),
            Command::Room(options) => room::carry_out(&options),
            Command::Demo(options) => demo::demo(options),
        };
        ExitCode::from(outcome as u8)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_fits_together() {
        Cli::command().debug_assert();
    }
}
