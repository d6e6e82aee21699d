//! The command line: one file of `modhost::commands` a command.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use modhost::commands::{Command, run};

/// A host for modules: WebAssembly components that answer a platform's events.
///
/// Begin with `modhost new NAME`, which makes a module and all it needs. `modhost dev` runs the modules of modules.toml on
/// this machine, with a local platform to chat with them; `modhost serve` runs the same host against the real platform.
#[derive(Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    run(Arguments::parse().command)
}
