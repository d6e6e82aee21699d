//! Measures several hosts on one PostgreSQL: how much more work three hosts do than one, recording compared to SQLite, the
//! lists of a million deliveries, and what a tenant with a long backlog costs the others.
//!
//! `cargo bench --bench scale` takes about four minutes. `-- hosts`, `-- recording`, `-- lists` or `-- backlog` measures only that.
//! `SCALE_BENCH_DELIVERIES` and `SCALE_BENCH_BACKLOG` set the sizes. PostgreSQL runs with `fsync` on the same machine and disk.

mod backlog;
mod database;
#[allow(dead_code, reason = "shared with the benchmark of components")]
#[path = "../components/figures.rs"]
mod figures;
#[path = "../end_to_end/guests.rs"]
mod guests;
#[allow(dead_code, reason = "shared with the benchmark of components")]
#[path = "../components/host.rs"]
mod host;
mod hosts;
mod lists;
#[allow(dead_code, reason = "shared with tests")]
#[path = "../../tests/support/postgres_server.rs"]
mod postgres_server;
#[path = "../components/process.rs"]
mod process;
mod recording;
mod work;

use anyhow::Context;

use postgres_server::PostgresServer;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` runs this too; only `cargo bench` passes `--bench`.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let selected: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let is_selected = |name: &str| selected.is_empty() || selected.iter().any(|selected| *selected == name);
    let server = PostgresServer::start_durable().context("PostgreSQL is not installed (Debian: postgresql)")?;
    let runtime = tokio::runtime::Runtime::new()?;
    if is_selected("recording") {
        runtime.block_on(recording::measure(&server))?;
    }
    if is_selected("lists") {
        runtime.block_on(lists::measure(&server))?;
    }
    if is_selected("hosts") {
        runtime.block_on(hosts::measure(&server))?;
    }
    if is_selected("backlog") {
        runtime.block_on(backlog::measure(&server))?;
    }
    Ok(())
}

/// Returns the number in an environment variable.
fn size(variable: &str, default: u64) -> anyhow::Result<u64> {
    match std::env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable} is not a number")),
        Err(_) => Ok(default),
    }
}
