//! Measures the overhead of the engine: a delivery compared to the same component on Wasmtime alone.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use modhost_core::event::{DeliveryId, Event, Name};
use modhost_core::limits::Limits;
use modhost_core::metrics;
use modhost_platform::Platform;
use modhost_runtime::call_log::CallLog;
use modhost_runtime::capabilities::{AttemptContext, Delivery, Grants};
use modhost_runtime::engine::{Engine, GuestOutcome, Spec, SwapPolicy, Version};
use modhost_storage::keyvalue;
use tokio::runtime::Runtime;

use crate::bare::{self, Bare};
use crate::extism::{self, Extism};
use crate::figures::{median, microseconds};
use crate::platform::Nothing;
use crate::signed;

/// The time of each measurement before the next side is measured.
const ROUND: Duration = Duration::from_millis(150);

/// The number of measurements of each side.
const ROUNDS: usize = 9;

/// The number of deliveries between two readings of the clock.
const BATCH: u32 = 16;

/// The size of the pool, the host's default.
const INSTANCES: usize = 256;

/// A row of the table: a component, and an event.
struct Row {
    what: &'static str,
    /// Whether it completes the event's reply.
    replies: bool,
    component: &'static str,
    event: Event,
    /// Whether there is an equivalent Extism plug-in.
    has_extism: bool,
}

/// The two sides of a row.
struct Sides {
    version: Arc<Version>,
    bare: Arc<Bare>,
    event: Arc<Event>,
    guest_event: Arc<bare::Event>,
    module: Name,
    platform: Arc<dyn Platform>,
}

/// Measures every row with one thread and with two, and prints the table.
pub fn run(guests: &Path) -> anyhow::Result<()> {
    println!("A delivery through the engine, beside the same component on Wasmtime alone");
    println!("(fresh instance, platform that does nothing; {ROUNDS} rounds of {ROUND:?} a side, medians)\n");
    let library = extism::library();
    if library.is_none() {
        println!("(Extism is left out: BENCH_VENV names no environment with host/benches/extism/requirements.txt)\n");
    }
    let extism = library.map(|library| extism::build(&library)).transpose()?;
    println!("module               threads   engine/s  engine µs  wasmtime µs   ratio  more µs  extism µs  of engine");
    for row in rows()? {
        for threads in [1, 2] {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
            let sides = Arc::new(runtime.block_on(Sides::new(&row, guests))?);
            let extism = extism.as_ref().filter(|_| row.has_extism && threads == 1);
            let extism = extism.map(|built| Extism::start(built, row.event.raw())).transpose()?;
            measure(&row, threads, &runtime, &sides, extism)?;
        }
    }
    println!();
    Ok(())
}

fn rows() -> anyhow::Result<[Row; 3]> {
    let event = |body: String| signed::event(body.into()).context("the benchmark's own event");
    Ok([
        Row {
            what: "no call",
            replies: false,
            component: "bench_guest",
            event: event(signed::created("evt_1"))?,
            has_extism: true,
        },
        Row {
            what: "four calls",
            replies: true,
            component: "bench_guest",
            event: event(signed::chosen("evt_1", "Bench"))?,
            has_extism: true,
        },
        Row {
            what: "assistant, 7 calls",
            replies: true,
            component: "assistant",
            event: event(signed::chosen("evt_1", "Bench"))?,
            has_extism: false,
        },
    ])
}

fn measure(
    row: &Row,
    threads: usize,
    runtime: &Runtime,
    sides: &Arc<Sides>,
    mut extism: Option<Extism>,
) -> anyhow::Result<()> {
    let (mut rounds, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let engine = round(runtime, threads, {
            let sides = sides.clone();
            move || {
                let sides = sides.clone();
                async move { sides.through_engine().await }
            }
        })?;
        let wasmtime = round(runtime, threads, {
            let sides = sides.clone();
            move || {
                let sides = sides.clone();
                async move { sides.on_wasmtime().await }
            }
        })?;
        rounds.push((microseconds(engine), microseconds(wasmtime)));
        if let Some(extism) = &mut extism {
            let extism = microseconds(extism.round(ROUND)?);
            beside.push((extism, extism / microseconds(engine)));
        }
        // As a host does periodically; otherwise the recorded metrics would only grow.
        metrics::upkeep();
    }
    let engine = median(rounds.iter().map(|(engine, _)| *engine));
    let wasmtime = median(rounds.iter().map(|(_, wasmtime)| *wasmtime));
    let ratio = median(rounds.iter().map(|(engine, wasmtime)| engine / wasmtime));
    let more = median(rounds.iter().map(|(engine, wasmtime)| engine - wasmtime));
    let per_second = threads as f64 * 1e6 / engine;
    let what = row.what;
    print!("{what:<20} {threads:>7} {per_second:>10.0} {engine:>10.1} {wasmtime:>12.1} {ratio:>7.2} {more:>8.1}");
    if !beside.is_empty() {
        let extism = median(beside.iter().map(|(extism, _)| *extism));
        let ratio = median(beside.iter().map(|(_, ratio)| *ratio));
        print!("{extism:>11.1}{ratio:>11.1}");
    }
    println!();
    Ok(())
}

/// Repeats something in this many threads concurrently; returns the time of one repetition in a thread.
fn round<F, T>(runtime: &Runtime, threads: usize, once: F) -> anyhow::Result<Duration>
where
    F: Fn() -> T + Clone + Send + 'static,
    T: Future<Output = anyhow::Result<()>> + Send,
{
    let repeat = |once: F| async move {
        let (started, mut done) = (Instant::now(), 0);
        while started.elapsed() < ROUND {
            for _ in 0..BATCH {
                once().await?;
            }
            done += BATCH;
        }
        anyhow::Ok(started.elapsed() / done)
    };
    let tasks: Vec<_> = (0..threads).map(|_| runtime.spawn(repeat(once.clone()))).collect();
    let mut sum = Duration::ZERO;
    for task in tasks {
        sum += runtime.block_on(task)??;
    }
    Ok(sum / u32::try_from(threads)?)
}

impl Sides {
    async fn new(row: &Row, guests: &Path) -> anyhow::Result<Self> {
        let component = guests.join(row.component).with_extension("wasm");
        let module = Name::from("Bench");
        let spec = Spec {
            name: module.clone(),
            tenants: Vec::new(),
            component: component.clone(),
            limits: Limits::default(),
            grants: Grants::default(),
            swap: SwapPolicy::default(),
        };
        let version = Engine::new(INSTANCES).map_err(to_anyhow)?.load(std::fs::read(&component)?, &spec).await?;
        let sides = Self {
            version: Arc::new(version),
            bare: Arc::new(Bare::new(&component, INSTANCES).map_err(to_anyhow)?),
            guest_event: Arc::new(bare::guest_event(&row.event)),
            event: Arc::new(row.event.clone()),
            module,
            platform: Arc::new(Nothing),
        };
        sides.check(row).await?;
        Ok(sides)
    }

    /// Checks that the measured work is the intended one.
    async fn check(&self, row: &Row) -> anyhow::Result<()> {
        let delivery = self.delivery();
        ensure!(self.version.run(&delivery).await == GuestOutcome::Answered, "{} doesn't answer", row.what);
        let completed = delivery.progress().reply.completed;
        ensure!(completed == row.replies, "{}: reply complete is {completed}", row.what);
        self.on_wasmtime().await
    }

    fn delivery(&self) -> Arc<Delivery> {
        let (event, module, platform) = (self.event.clone(), self.module.clone(), self.platform.clone());
        let call_log = CallLog::disabled(DeliveryId::new(&event, &module));
        Arc::new(Delivery::new(AttemptContext {
            event,
            module,
            attempt: 1,
            platform,
            keyvalue: Arc::new(keyvalue::DryRunStore),
            call_log,
            limits: Limits::default(),
            tenant_memory: None,
            tenant_log: None,
            salt: [0; 32],
        }))
    }

    async fn through_engine(&self) -> anyhow::Result<()> {
        let ended = self.version.run(&self.delivery()).await;
        ensure!(ended == GuestOutcome::Answered, "unexpected end of a delivery: {ended:?}");
        Ok(())
    }

    async fn on_wasmtime(&self) -> anyhow::Result<()> {
        let answer = self.bare.run(&self.guest_event).await.map_err(to_anyhow)?;
        ensure!(answer.is_ok(), "unexpected result of a bare call: {answer:?}");
        Ok(())
    }
}

/// Wasmtime's errors don't implement the standard trait.
fn to_anyhow(error: wasmtime::Error) -> anyhow::Error {
    anyhow!("{error:?}")
}
