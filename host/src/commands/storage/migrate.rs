//! `modhost storage migrate`: moves the data directory of a stopped host into a PostgreSQL database.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, ValueEnum};

use crate::commands::diagnostics::error_with_help;
use crate::commands::{SettingsFile, output};
use modhost_core::secret::Secret;
use modhost_core::sync::lock;
use modhost_storage::migrate::{Progress, sqlite_to_postgres};
use modhost_storage::postgres::Database;

/// The time between two lines about the same table.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Arguments of `modhost storage migrate`.
#[derive(Args)]
pub struct MigrateArgs {
    /// The storage to move from: `sqlite`, the files in the data directory
    #[arg(long, value_name = "STORAGE", value_enum)]
    from: Origin,
    /// The database to move to, as in `[storage]` of modules.toml: `env:NAME`, `file:PATH`, or a URL without a password
    #[arg(long, value_name = "URL")]
    to: String,
    /// Directory of the data to move [default: `data_dir` in modules.toml, .modhost]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingsFile,
}

/// A storage to move from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Origin {
    /// The files in the data directory
    Sqlite,
}

/// Runs the command.
pub(super) async fn run(args: MigrateArgs) -> anyhow::Result<ExitCode> {
    let Origin::Sqlite = args.from;
    let directory = args.data_dir.unwrap_or_else(|| args.settings.data_dir());
    if !directory.is_dir() {
        let message = format!("there is no data directory {}", directory.display());
        return Err(error_with_help(message, "name the directory of the stopped host with --data-dir"));
    }
    let database = Database::new(&url(&args.to)?)?;
    output::eprintln!("moving {} to {database}", directory.display());
    let last = Mutex::new(None);
    let moved = sqlite_to_postgres(&directory, &database, &|progress| report(&last, progress)).await?;
    for (table, rows) in &moved.tables {
        output::println!("{rows:>12}  {table}");
    }
    for hash in &moved.damaged_components {
        output::eprintln!("not moved: the component of version {hash}, whose file is damaged");
    }
    modhost_server::host::note_database(&directory).with_context(|| {
        format!("everything was moved, but {} can't be marked as that of a host with a database", directory.display())
    })?;
    let files = moved.files.map(|files| format!("; the files are in {}", files.display())).unwrap_or_default();
    output::println!("moved and compared, row by row{files}");
    Ok(ExitCode::SUCCESS)
}

/// Returns the URL that an argument refers to.
fn url(argument: &str) -> anyhow::Result<Secret> {
    if let Some(name) = argument.strip_prefix("env:") {
        let value = std::env::var(name).with_context(|| format!("cannot read the environment variable {name}"))?;
        return Ok(Secret::new(value));
    }
    if let Some(path) = argument.strip_prefix("file:") {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        return Ok(Secret::new(text.trim()));
    }
    Ok(Secret::new(argument))
}

/// Prints the progress, at most every few seconds for each step.
fn report(last: &Mutex<Option<(Progress, Instant)>>, progress: Progress) {
    let mut last = lock(last);
    let is_soon = last.as_ref().is_some_and(|(before, at)| {
        (before.table, before.is_verifying) == (progress.table, progress.is_verifying) && at.elapsed() < REPORT_EVERY
    });
    if is_soon {
        return;
    }
    let Progress { table, is_verifying, rows } = progress;
    let step = if is_verifying { "comparing" } else { "copying" };
    output::eprintln!("{step} {table}: {rows} rows");
    *last = Some((progress, Instant::now()));
}
