//! Queries to a database, and journals in it.

use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, ensure};
use modhost_core::secret::Secret;
use modhost_storage::journal::Postgres;
use modhost_storage::postgres::Database;

/// Runs statements with `psql` and returns the rows, with columns separated by `|`.
pub fn query(url: &str, sql: &str) -> anyhow::Result<String> {
    let output =
        Command::new("psql").args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", sql]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs a query with one number.
pub fn number(url: &str, sql: &str) -> anyhow::Result<f64> {
    let text = query(url, sql)?;
    text.parse().with_context(|| format!("{text:?} is not a number"))
}

/// Opens the journal in a database.
pub async fn journal(url: &str) -> anyhow::Result<Arc<Postgres>> {
    Ok(Arc::new(Postgres::open(Database::new(&Secret::new(url))?).await?))
}
