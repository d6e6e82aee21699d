//! Measures the cost of each language: the module that `modhost new` creates, in every language.
//!
//! `cargo bench --bench languages` creates, builds and measures the modules, prints a table, and writes it to
//! `docs/choosing-a-language.md`, unless the tools of a language are missing. Tools are looked for in `PATH`, then in
//! `target/toolchains/venv/bin`.

#[allow(dead_code, reason = "shared with benchmarks that use all of it")]
#[path = "../end_to_end/bare.rs"]
mod bare;
#[allow(dead_code, reason = "shared with benchmarks that use all of it")]
#[path = "../end_to_end/figures.rs"]
mod figures;
#[allow(dead_code, reason = "shared with benchmarks that use all of it")]
#[path = "../components/memory.rs"]
mod memory;
mod modules;
#[path = "../end_to_end/platform.rs"]
mod platform;
#[allow(dead_code, reason = "shared with the benchmark of tenants")]
#[path = "../components/process.rs"]
mod process;
mod saved;
#[allow(dead_code, reason = "shared with benchmarks that use all of it")]
#[path = "../end_to_end/signed.rs"]
mod signed;
mod table;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use clap::ValueEnum;
use modhost_authoring::template::Language;
use modhost_core::event::{DeliveryId, Event, Name};
use modhost_core::limits::Limits;
use modhost_runtime::call_log::CallLog;
use modhost_runtime::capabilities::{AttemptContext, Delivery, Grants};
use modhost_runtime::engine::{Engine, GuestOutcome, Spec, SwapPolicy};
use modhost_storage::keyvalue;

use bare::Bare;
use figures::median;
use platform::Nothing;
use table::Row;

/// The time of a measurement, and the number of measurements.
const ROUND: Duration = Duration::from_millis(400);
const ROUNDS: usize = 7;
/// The number of compiles of each component.
const COMPILED: usize = 3;
/// The number of concurrent instances for the memory measurement, and the size of the pool elsewhere.
const TOGETHER: usize = 50;
const INSTANCES: usize = 64;

fn main() -> anyhow::Result<()> {
    // `cargo test --all-targets` runs this too; only `cargo bench` passes `--bench`.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (mut rows, mut missing) = (Vec::new(), Vec::new());
    for language in Language::value_variants() {
        eprintln!("{} …", language.folder());
        match modules::make(folder.path(), *language) {
            Ok(made) => rows.push(runtime.block_on(measure(made)).context(language.folder())?),
            Err(error) => {
                eprintln!("{}: {error:#}", language.folder());
                missing.push(language.folder());
            }
        }
    }
    let text = table::text(&rows);
    println!("{text}");
    if missing.is_empty() {
        table::put_into_the_page(&text)
    } else {
        println!("docs/choosing-a-language.md is left as it is: {} couldn't be built", missing.join(", "));
        Ok(())
    }
}

async fn measure(made: modules::Made) -> anyhow::Result<Row> {
    let bytes = std::fs::read(&made.component)?;
    Ok(Row {
        language: made.language,
        tools: made.tools,
        size: bytes.len() as u64,
        compiled: compiled(&bytes).await?,
        instance: instance(&made.component).await?,
        delivery: delivery(&bytes).await?,
        saved: saved::saved(modules::modhost(), &made.settings, &made.folder)?,
        memory: memory::measure(&bytes, TOGETHER).await?[0].each,
    })
}

/// Measures the time of a compile, in seconds.
async fn compiled(bytes: &[u8]) -> anyhow::Result<f64> {
    let mut took = Vec::new();
    for _ in 0..COMPILED {
        let engine = Engine::new(1).map_err(to_anyhow)?;
        took.push(engine.try_compile(bytes.to_vec()).await?.took.as_secs_f64());
    }
    Ok(median(took))
}

/// Measures the time to create and drop an instance, in seconds, on Wasmtime alone.
async fn instance(component: &Path) -> anyhow::Result<f64> {
    let bare = Bare::new(component, INSTANCES).map_err(to_anyhow)?;
    repeated(async || bare.instance().await.map(drop).map_err(to_anyhow)).await
}

/// Measures the time of a delivery through the engine, in seconds, with a platform that answers at once.
async fn delivery(bytes: &[u8]) -> anyhow::Result<f64> {
    let name = Name::from("Bench");
    let spec = Spec {
        name: name.clone(),
        tenants: Vec::new(),
        component: "".into(),
        limits: Limits::default(),
        grants: Grants::default(),
        swap: SwapPolicy::default(),
    };
    let version = Engine::new(INSTANCES).map_err(to_anyhow)?.load(bytes.to_vec(), &spec).await?;
    let event = Arc::new(signed::event(signed::chosen("evt_1", "Bench").into())?);
    let once = async || {
        let delivery = new_delivery(&event, &name);
        let ended = version.run(&delivery).await;
        ensure!(ended == GuestOutcome::Answered, "unexpected end of a delivery: {ended:?}");
        ensure!(delivery.progress().reply.completed, "the delivery wrote no reply");
        Ok(())
    };
    repeated(once).await
}

fn new_delivery(event: &Arc<Event>, module: &Name) -> Arc<Delivery> {
    Arc::new(Delivery::new(AttemptContext {
        event: event.clone(),
        module: module.clone(),
        attempt: 1,
        platform: Arc::new(Nothing),
        keyvalue: Arc::new(keyvalue::DryRunStore),
        call_log: CallLog::disabled(DeliveryId::new(event, module)),
        limits: Limits::default(),
        tenant_memory: None,
        tenant_log: None,
        salt: [0; 32],
    }))
}

/// Returns the median time of a repeated operation, in seconds.
async fn repeated(once: impl AsyncFn() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    // The first time is slower and doesn't count.
    once().await?;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let (started, mut done) = (Instant::now(), 0_u32);
        while started.elapsed() < ROUND {
            once().await?;
            done += 1;
        }
        rounds.push(started.elapsed().as_secs_f64() / f64::from(done));
    }
    Ok(median(rounds))
}

/// Wasmtime's errors don't implement the standard trait.
fn to_anyhow(error: wasmtime::Error) -> anyhow::Error {
    anyhow!("{error:?}")
}
