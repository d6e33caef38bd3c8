//! The `tidegate` program: read the command line, do what it says, end with a code that says how it went.

use std::process::ExitCode;

use clap::Parser;
use tidegate::cli::Cli;

/// The system's allocator keeps most of what a rush of connections took; this one is also a tenth faster here.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    Cli::parse().run()
}
