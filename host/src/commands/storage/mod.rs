//! `modhost storage`: moves what a host keeps from one storage to another.

mod migrate;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::help::examples;

/// Arguments of `modhost storage`.
#[derive(Args)]
#[command(after_long_help = examples!(
    "modhost storage migrate --from sqlite --to env:DATABASE_URL"
    "modhost storage migrate --from sqlite --to env:DATABASE_URL --data-dir data"
))]
pub struct StorageArgs {
    #[command(subcommand)]
    command: StorageCommand,
}

#[derive(Subcommand)]
enum StorageCommand {
    /// Move the data directory of a stopped host into an empty PostgreSQL database
    ///
    /// Moves events, deliveries in every state with their attempts and calls, ids of events, stored values, and versions with
    /// their components. Everything is copied in one transaction, read again from both sides and compared row by row: the
    /// database has all of it or nothing. The files are moved into a folder of the data directory afterwards, where you can
    /// delete them.
    ///
    /// Refuses a running host and a database that is not empty. Exit code: 0 if everything was moved, 1 if nothing was.
    #[command(after_long_help = examples!("modhost storage migrate --from sqlite --to env:DATABASE_URL"))]
    Migrate(migrate::MigrateArgs),
}

/// Runs the command.
pub async fn run(args: StorageArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        StorageCommand::Migrate(args) => migrate::run(args).await,
    }
}
