//! Measures the costs of components: the time from saving a file to serving it, the start with many modules, and
//! memory.
//!
//! `cargo bench --bench components` measures the real binary with distinct components of the benchmark's guest.
//! `BENCH_LARGE=FILE` adds rows for saving another component, e.g. one with an interpreter.

mod figures;
#[path = "../end_to_end/guests.rs"]
mod guests;
#[allow(dead_code, reason = "shared with the benchmark of tenants")]
mod host;
mod memory;
#[allow(dead_code, reason = "shared with the benchmark of tenants")]
mod process;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use figures::{Milliseconds, median};
use host::{Host, Mode};

/// The number of measurements for each way of saving.
const ROUNDS: u8 = 9;

/// The number of measurements with a large component; each takes seconds.
const LARGE_ROUNDS: u8 = 3;

fn main() -> anyhow::Result<()> {
    // `cargo test --all-targets` runs this too; only `cargo bench` passes `--bench`.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let guest = std::fs::read(guests::build()?.join("bench_guest.wasm"))?;
    saving(&guest)?;
    starting(&guest)?;
    memory::of_instances(&guest)?;
    match std::env::var_os("BENCH_LARGE") {
        Some(file) => saving_large(Path::new(&file)),
        None => Ok(()),
    }
}

/// Returns a component that differs only in a custom section.
fn variant(component: &[u8], number: u16) -> Vec<u8> {
    // Section 0 is custom: its length, the length of its name, its name, and its content.
    let [high, low] = number.to_be_bytes();
    [component, &[0, 10, 7], b"variant", &[high, low]].concat()
}

const SAVING: &str = "saved → serving                    compiled      cached      ratio  of cached, loading";

fn saving(guest: &[u8]) -> anyhow::Result<()> {
    println!("{SAVING}");
    let (compiled, cached) = swaps(Mode::Serve, guest, ROUNDS)?;
    row("the benchmark's guest, serve", &compiled, Some(&cached));
    Ok(())
}

/// Measures the time to serve a large component after it is saved, with `serve` and with `dev`.
fn saving_large(file: &Path) -> anyhow::Result<()> {
    let large = std::fs::read(file).with_context(|| file.display().to_string())?;
    println!("\n{SAVING}");
    let (compiled, cached) = swaps(Mode::Serve, &large, LARGE_ROUNDS)?;
    row("BENCH_LARGE, serve", &compiled, Some(&cached));
    let (quickly, _) = swaps(Mode::Dev, &large, LARGE_ROUNDS)?;
    row("BENCH_LARGE, dev", &quickly, None);
    let ratio = median(quickly.iter().map(Swap::total)) / median(compiled.iter().map(Swap::total));
    println!("dev takes {ratio:.2} of the time of serve: the code that is compiled quickly serves first");
    Ok(())
}

fn row(what: &str, compiled: &[Swap], cached: Option<&[Swap]>) {
    let total = |swaps: &[Swap]| median(swaps.iter().map(Swap::total));
    let first = total(compiled);
    match cached {
        Some(cached) => {
            let (then, loading) = (total(cached), median(cached.iter().map(|swap| swap.loading)));
            println!("{what:<32} {first:>8.0} ms {then:>8.0} ms {:>10.2} {loading:>12.1} ms", then / first);
        }
        None => println!("{what:<32} {first:>8.0} ms"),
    }
}

/// The time of a replacement.
struct Swap {
    whole: Duration,
    /// The part for reading, inspecting, compiling or mapping, and linking, in milliseconds.
    loading: f64,
}

impl Swap {
    fn total(&self) -> f64 {
        self.whole.milliseconds()
    }
}

/// Saves versions that were never compiled before, and then the same ones again.
fn swaps(mode: Mode, component: &[u8], rounds: u8) -> anyhow::Result<(Vec<Swap>, Vec<Swap>)> {
    let folder = tempfile::tempdir()?;
    host::write_modules(folder.path(), 1, |number| variant(component, number))?;
    let host = Host::start(mode, folder.path())?;
    // In `dev` the optimizing compile may still be running, which would slow down the next measurement.
    let settled =
        |host: &Host| if mode == Mode::Dev { host.wait_for("optimized code in use") } else { Ok(String::new()) };
    settled(&host)?;
    let save = |number: u8| {
        let bytes = variant(component, 1000 + u16::from(number));
        let whole = folder.path().join("saved.wasm");
        std::fs::write(&whole, bytes)?;
        let started = Instant::now();
        std::fs::rename(whole, host::component(folder.path(), 0))?;
        let line = host.wait_for("new version serves")?;
        let whole = started.elapsed();
        let loading = line.split("took=").nth(1).and_then(|rest| milliseconds(rest.split(' ').next()?));
        let swap = Swap { whole, loading: loading.context("the log says how long it took")? };
        anyhow::Ok(swap)
    };
    let mut compiled = Vec::new();
    for number in 0..rounds {
        compiled.push(save(number)?);
        settled(&host)?;
    }
    let cached = (0..rounds).map(save).collect::<anyhow::Result<_>>()?;
    Ok((compiled, cached))
}

/// Parses a duration as the log formats it, such as `1.25ms`, into milliseconds.
fn milliseconds(text: &str) -> Option<f64> {
    let (number, unit) = text.trim_end().split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.')?);
    let factor = match unit {
        "s" => 1e3,
        "ms" => 1.0,
        "µs" => 1e-3,
        "ns" => 1e-6,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

fn starting(guest: &[u8]) -> anyhow::Result<()> {
    println!("\nstart, as many tenants            cached   of 1 module    resident  a module");
    let mut one: Option<(Duration, u64)> = None;
    for modules in [1, 100, 1000] {
        let folder = tempfile::tempdir()?;
        host::write_modules(folder.path(), 1, |number| variant(guest, number))?;
        drop(Host::start(Mode::Serve, folder.path())?);
        host::write_modules(folder.path(), modules, |number| variant(guest, number))?;
        host::copy_cache_entry(folder.path(), modules)?;
        let host = Host::start(Mode::Serve, folder.path())?;
        let (cached, resident) = (host.started, host.resident()?);
        let (first, least) = *one.get_or_insert((cached, resident));
        let each = resident.saturating_sub(least) / u64::from(modules - 1).max(1);
        println!(
            "{:<28} {:>8.0} ms {:>13.1} {:>7} MiB {:>6} KiB",
            format!("{modules} modules"),
            cached.milliseconds(),
            cached.as_secs_f64() / first.as_secs_f64(),
            resident >> 20,
            each >> 10,
        );
        ensure!(host.compiled == 0, "{modules} modules: some were compiled, so this start did not use the cache");
    }
    Ok(())
}
