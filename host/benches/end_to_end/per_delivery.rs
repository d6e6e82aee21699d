//! Measures the overhead of the engine: a delivery compared to the same component on Wasmtime alone.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use futures::future::try_join_all;
use modhost_core::event::{DeliveryId, Event, Name};
use modhost_core::limits::Limits;
use modhost_core::metrics;
use modhost_core::tenant_meter::{self, TenantMeter};
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

/// The number of deliveries between two readings of the clock. Through the engine they are in flight together, as under
/// load: its threads go from one to the next without waiting.
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
    /// The counters of the event's tenant.
    meter: Arc<TenantMeter>,
    platform: Arc<dyn Platform>,
}

/// Measures every row with one thread and with two, and prints the table.
pub fn run(guests: &Path) -> anyhow::Result<()> {
    println!("A delivery through the engine, beside the same component on Wasmtime alone");
    println!(
        "(fresh instance, platform that does nothing; CPU time per delivery; {ROUNDS} rounds of {ROUND:?} a side, medians)\n"
    );
    let library = extism::library();
    if library.is_none() {
        println!("(Extism is left out: BENCH_VENV names no environment with host/benches/extism/requirements.txt)\n");
    }
    let extism = library.map(|library| extism::build(&library)).transpose()?;
    println!(
        "| | threads | engine µs | Wasmtime µs | ratio | overhead µs | with hand-over µs | alone µs | Extism µs | \
         Extism ÷ engine |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
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

/// The figures of a round, in microseconds.
struct Round {
    engine: Cost,
    wasmtime: Cost,
    /// The time of one delivery that is alone in the engine.
    alone: f64,
    extism: Option<f64>,
}

/// The cost of a delivery, in microseconds.
#[derive(Clone, Copy)]
struct Cost {
    /// The time from the start to the end, in each thread.
    elapsed: f64,
    /// The CPU time of all threads of the process.
    cpu: f64,
    /// The CPU time of the engine's threads while they run instances; zero for Wasmtime alone.
    guest_cpu: f64,
}

fn measure(
    row: &Row,
    threads: usize,
    runtime: &Runtime,
    sides: &Arc<Sides>,
    mut extism: Option<Extism>,
) -> anyhow::Result<()> {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let engine = round(runtime, threads, sides, |sides| async move { sides.through_engine().await })?;
        let alone = round(runtime, threads, sides, |sides| async move { sides.through_engine_alone().await })?.elapsed;
        let wasmtime = round(runtime, threads, sides, |sides| async move { sides.on_wasmtime().await })?;
        let extism = extism.as_mut().map(|extism| extism.round(ROUND)).transpose()?.map(microseconds);
        rounds.push(Round { engine, wasmtime, alone, extism });
        // As a host does periodically; otherwise the recorded metrics would only grow.
        metrics::upkeep();
    }
    let of = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure));
    let [guest, wasmtime] = [of(|round| round.engine.guest_cpu), of(|round| round.wasmtime.cpu)];
    let ratio = of(|round| round.engine.guest_cpu / round.wasmtime.cpu);
    let more = of(|round| round.engine.guest_cpu - round.wasmtime.cpu);
    let [engine, alone] = [of(|round| round.engine.cpu), of(|round| round.alone)];
    let what = row.what;
    print!("| {what} | {threads} | {guest:.1} | {wasmtime:.1} | {ratio:.2} | {more:.1} | {engine:.1} | {alone:.1} |");
    let beside = rounds.iter().filter_map(|round| Some((round.extism?, round.alone)));
    if extism.is_some() {
        let time = median(beside.clone().map(|(extism, _)| extism));
        let ratio = median(beside.map(|(extism, alone)| extism / alone));
        println!(" {time:.0} | {ratio:.1} |");
    } else {
        println!(" | |");
    }
    Ok(())
}

/// Repeats batches of deliveries in this many threads concurrently; returns the cost of one delivery.
fn round<F, T>(runtime: &Runtime, threads: usize, sides: &Arc<Sides>, batch: F) -> anyhow::Result<Cost>
where
    F: Fn(Arc<Sides>) -> T + Copy + Send + 'static,
    T: Future<Output = anyhow::Result<()>> + Send,
{
    let repeat = |sides: Arc<Sides>| async move {
        let (started, mut done) = (Instant::now(), 0);
        while started.elapsed() < ROUND {
            batch(sides.clone()).await?;
            done += BATCH;
        }
        anyhow::Ok((started.elapsed() / done, done))
    };
    let guest_cpu_time = || sides.meter.totals().cpu();
    let (before, guests_before) = (cpu_time(), guest_cpu_time());
    let tasks: Vec<_> = (0..threads).map(|_| runtime.spawn(repeat(sides.clone()))).collect();
    let (mut elapsed, mut deliveries) = (Duration::ZERO, 0);
    for task in tasks {
        let (one, done) = runtime.block_on(task)??;
        elapsed += one;
        deliveries += done;
    }
    let cpu = cpu_time().saturating_sub(before) / deliveries;
    let guest_cpu = guest_cpu_time().saturating_sub(guests_before) / deliveries;
    Ok(Cost {
        elapsed: microseconds(elapsed / u32::try_from(threads)?),
        cpu: microseconds(cpu),
        guest_cpu: microseconds(guest_cpu),
    })
}

/// Returns the CPU time that this process has used. Unlike the time on a clock, it doesn't depend on who else uses the
/// machine.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
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
            meter: tenant_meter::of(&row.event.tenant),
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

    /// Runs a batch of deliveries, all at the same time.
    async fn through_engine(&self) -> anyhow::Result<()> {
        try_join_all((0..BATCH).map(|_| self.deliver())).await.map(drop)
    }

    /// Runs a batch of deliveries, one after the other.
    async fn through_engine_alone(&self) -> anyhow::Result<()> {
        for _ in 0..BATCH {
            self.deliver().await?;
        }
        Ok(())
    }

    async fn deliver(&self) -> anyhow::Result<()> {
        let ended = self.version.run(&self.delivery()).await;
        ensure!(ended == GuestOutcome::Answered, "unexpected end of a delivery: {ended:?}");
        Ok(())
    }

    /// Runs a batch of deliveries on Wasmtime alone, one after the other: none of them waits for anything.
    async fn on_wasmtime(&self) -> anyhow::Result<()> {
        for _ in 0..BATCH {
            let answer = self.bare.run(&self.guest_event).await.map_err(to_anyhow)?;
            ensure!(answer.is_ok(), "unexpected result of a bare call: {answer:?}");
        }
        Ok(())
    }
}

/// Wasmtime's errors don't implement the standard trait.
fn to_anyhow(error: wasmtime::Error) -> anyhow::Error {
    anyhow!("{error:?}")
}
