//! Measures a host with 1 to 1,000 tenants, each with a settings file, a source, a secret and a module of its own: start,
//! memory, the time to reload one file, and what an event costs.
//!
//! `cargo bench --bench tenants` takes about two minutes. The components differ, but are compiled once: a thousand compiles
//! would not be part of the start.

#[allow(dead_code, reason = "shared with the benchmark of components")]
#[path = "../components/figures.rs"]
mod figures;
#[path = "../end_to_end/guests.rs"]
mod guests;
#[allow(dead_code, reason = "shared with the benchmark of components")]
#[path = "../components/host.rs"]
mod host;
#[path = "../components/process.rs"]
mod process;

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, ensure};
use modhost_core::secret::Secret;
use modhost_ingress::sources::schemes::unique;

use figures::median;
use host::{Host, Mode};

const TENANTS: [u16; 4] = [1, 10, 100, 1_000];

/// The number of reloads and of events that are measured.
const RELOADS: u16 = 7;
const EVENTS: u16 = 2_000;

/// The number of events before the measured ones.
const WARM_UP: u16 = 200;

const SECRET: &str = "usig_benchmark";

fn main() -> anyhow::Result<()> {
    // `cargo test --all-targets` runs this too; only `cargo bench` passes `--bench`.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let guest = std::fs::read(guests::build()?.join("bench_guest.wasm"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    println!("| tenants | start ms | memory MiB | reload ms | ack p50 µs | CPU µs per event | of one tenant's |");
    println!("|--:|--:|--:|--:|--:|--:|--:|");
    let mut of_one = None;
    for tenants in TENANTS {
        let folder = tempfile::tempdir()?;
        write_settings(folder.path(), 1, &guest)?;
        drop(Host::start(Mode::Serve, folder.path())?); // compiles the first component
        write_settings(folder.path(), tenants, &guest)?;
        host::copy_cache_entry(folder.path(), tenants)?;
        let host = Host::start(Mode::Serve, folder.path())?;
        ensure!(host.compiled <= 1, "{} components were compiled again", host.compiled);
        let resident = host.resident()?;
        let reload = reload(&host, folder.path(), tenants)?;
        let events = runtime.block_on(events(&host, tenants))?;
        let cpu = events.cpu.as_secs_f64() * 1e6 / f64::from(EVENTS);
        let of_one = *of_one.get_or_insert(cpu);
        println!(
            "| {tenants} | {:.0} | {} | {reload:.0} | {:.0} | {cpu:.0} | {:.2} |",
            host.started.as_secs_f64() * 1000.0,
            resident >> 20,
            events.acknowledged.as_secs_f64() * 1e6,
            cpu / of_one,
        );
    }
    Ok(())
}

fn write_settings(folder: &Path, tenants: u16, guest: &[u8]) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder.join("tenants"))?;
    std::fs::write(folder.join("modules.toml"), "include = [\"tenants/*.toml\"]\n")?;
    let mut secrets = String::new();
    for number in 0..tenants {
        std::fs::write(host::component(folder, number), [guest, &variant(number)].concat())?;
        writeln!(secrets, "SECRET_{number}={SECRET}_{number}")?;
        std::fs::write(folder.join(format!("tenants/t{number}.toml")), settings(number, 32))?;
    }
    Ok(std::fs::write(folder.join(".env"), secrets)?)
}

/// A custom section: its length, the length of its name, its name, and its content.
fn variant(number: u16) -> Vec<u8> {
    let [high, low] = number.to_be_bytes();
    [&[0, 10, 7], &b"variant"[..], &[high, low]].concat()
}

fn settings(number: u16, concurrency: u16) -> String {
    format!(
        r#"[tenant]
name = "t{number}"
limits = {{ concurrency = {concurrency} }}

[tenant.platform]
kind = "none"

[[source]]
name = "chat"
path = "/t{number}"
scheme = "unique"
secrets = ["env:SECRET_{number}"]

[[module]]
name = "Assistant"
component = "../{number}.wasm"
events = ["unique.chat.user-message.created"]
"#
    )
}

/// Returns the median time from saving one tenant's file until its settings are in effect, in milliseconds. It includes the
/// time for which a file has to stay unchanged.
fn reload(host: &Host, folder: &Path, tenants: u16) -> anyhow::Result<f64> {
    let mut times = Vec::new();
    for round in 0..RELOADS {
        let number = round % tenants;
        let new = folder.join("new.toml");
        std::fs::write(&new, settings(number, 33 + round))?;
        let started = Instant::now();
        std::fs::rename(&new, folder.join(format!("tenants/t{number}.toml")))?;
        host.wait_for("included settings file loaded")?;
        times.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(median(times))
}

struct Events {
    /// The median time to the acknowledgement.
    acknowledged: Duration,
    /// The CPU time of the host for all events, with their deliveries.
    cpu: Duration,
}

/// Sends events to all tenants in turn, one at a time.
async fn events(host: &Host, tenants: u16) -> anyhow::Result<Events> {
    let client = modhost_platform::http_client()?;
    let mut times = Vec::new();
    let mut before = Duration::ZERO;
    for number in 0..WARM_UP + EVENTS {
        if number == WARM_UP {
            before = host.cpu_time()?;
        }
        let tenant = number % tenants;
        let body = format!(
            r#"{{"id":"evt_{number}","version":"1.0.0","event":"unique.chat.user-message.created","createdAt":"1700000000","userId":"user_1","companyId":"company_{tenant}","payload":{{"chatId":"chat_1","assistantId":"assistant_1","text":"May I fly business class to Singapore?"}}}}"#
        );
        let signature = unique::sign(&Secret::new(format!("{SECRET}_{tenant}")), body.as_bytes());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs().to_string();
        let request = client.post(format!("{}/t{tenant}", host.public)).header("x-unique-signature", signature);
        let started = Instant::now();
        let answer = request.header("x-unique-created-at", now).body(body).send().await?;
        ensure!(answer.status() == 200, "an event of tenant t{tenant} was answered {}", answer.status());
        if number >= WARM_UP {
            times.push(started.elapsed());
        }
    }
    // Until the last deliveries have ended.
    tokio::time::sleep(Duration::from_secs(1)).await;
    times.sort_unstable();
    let acknowledged = times.get(times.len() / 2).copied().context("no events")?;
    Ok(Events { acknowledged, cpu: host.cpu_time()?.saturating_sub(before) })
}
