//! Measures the path of an event: from the webhook to the response, and a delivery through the engine.
//!
//! `cargo bench --bench end_to_end` measures both; `-- http`, `-- modules` or `-- engine` only one of the tables. Each
//! measurement alternates with a baseline: on a shared machine, only the ratio of adjacent measurements is meaningful.

mod bare;
mod extism;
mod figures;
mod guests;
mod load;
mod over_http;
mod per_delivery;
mod platform;
mod servers;
mod signed;

use anyhow::bail;

fn main() -> anyhow::Result<()> {
    // Cargo passes `--bench` to every benchmark.
    let chosen: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let chosen: Vec<&str> = chosen.iter().map(String::as_str).collect();
    let tables = match chosen[..] {
        [servers::BARE_SERVER] => return servers::serve_bare(),
        [] => vec!["http", "modules", "engine"],
        [table @ ("http" | "modules" | "engine")] => vec![table],
        _ => bail!("`http`, `modules` or `engine` measures one of the tables; without it, all are measured"),
    };
    // Logging takes time, and so do the checks of the level of lines that aren't logged.
    modhost_server::telemetry::start(&Default::default(), Default::default())?;
    modhost_core::metrics::start();
    let guests = guests::build()?;
    for table in tables {
        match table {
            "http" => over_http::over_connections(&guests)?,
            "modules" => over_http::over_modules(&guests)?,
            _ => per_delivery::run(&guests)?,
        }
    }
    Ok(())
}
