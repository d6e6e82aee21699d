//! What the way of an event costs: from the webhook to the answer, and a delivery through the engine.
//!
//! `cargo bench --bench end_to_end` measures both; `-- http` or `-- engine` only one of them. Everything is
//! measured beside what it is built on, in turns: on a machine that others use as well, only the ratio of neighbours
//! means something.

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
    // Cargo says `--bench` to every benchmark.
    let chosen: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let chosen: Vec<&str> = chosen.iter().map(String::as_str).collect();
    let (http, engine) = match chosen[..] {
        [servers::BARE_SERVER] => return servers::serve_bare(),
        [] => (true, true),
        ["http"] => (true, false),
        ["engine"] => (false, true),
        _ => bail!("`http` or `engine` measures one of the two; nothing measures both"),
    };
    // What the host logs costs time, and what it doesn't log depends on the level.
    modhost_server::telemetry::start(&Default::default(), Default::default())?;
    modhost_core::metrics::start();
    let guests = guests::build()?;
    if http {
        over_http::run(&guests)?;
    }
    if engine {
        per_delivery::run(&guests)?;
    }
    Ok(())
}
