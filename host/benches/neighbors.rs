//! Measures what hostile tenants cost the others on the same host: how long a quiet tenant's event takes to its
//! acknowledgement and to its reply, without an attack, beside each attack, and beside all of them.
//!
//! `cargo bench --bench neighbors` takes about five minutes. Each scene has a host of its own, because attacks leave work
//! behind. Each attack has a tenant of its own, with a valid secret, and
//! the hostile tenants share a module. Everything runs on one machine, so the load generator and the platform take CPU time as well.

#[path = "end_to_end/figures.rs"]
mod figures;

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, ensure};
use axum::extract::{Request, State};
use axum::{Json, Router};
use modhost_core::secret::Secret;
use modhost_ingress::sources::schemes::unique;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use figures::{median, percentile};

/// The number of quiet tenants. Each sends an event every [`QUIET_EVERY`].
const QUIET: usize = 99;
const QUIET_EVERY: Duration = Duration::from_millis(1500);

/// The number of rounds, and the duration of each scene of a round.
const ROUNDS: usize = 3;
const TURN: Duration = Duration::from_secs(5);

/// The time between the start of an attack and the measurement.
const RUN_UP: Duration = Duration::from_secs(1);

/// The maximum time for the replies to the events of a scene.
const PATIENCE: Duration = Duration::from_secs(60);

const SECRET: &str = "usig_benchmark";

/// An attack: the text of the hostile tenant's events, and how many of them are unanswered at any time.
struct Attack {
    name: &'static str,
    tenant: &'static str,
    text: &'static str,
    concurrent: usize,
}

const ATTACKS: [Attack; 7] = [
    Attack { name: "computes forever", tenant: "computes", text: "loop", concurrent: 64 },
    Attack { name: "many events", tenant: "sends", text: "reply hello", concurrent: 64 },
    Attack { name: "fails and is retried", tenant: "fails", text: "retry 0", concurrent: 64 },
    Attack { name: "floods its log", tenant: "logs", text: "flood 20000", concurrent: 16 },
    Attack { name: "stores large values", tenant: "stores", text: "kv-fill 1000000 key", concurrent: 16 },
    Attack { name: "allocates memory", tenant: "allocates", text: "allocate 64", concurrent: 16 },
    Attack { name: "sleeps in many deliveries", tenant: "sleeps", text: "sleep 60000", concurrent: 512 },
];

/// The times of a scene.
#[derive(Default)]
struct Times {
    acknowledged: Vec<Duration>,
    replied: Vec<Duration>,
}

/// The results of all rounds of a scene: acknowledgement p50 and p99, reply p50 and p99, and their ratios to quiet.
#[derive(Default)]
struct Row {
    figures: [Vec<f64>; 4],
    ratios: [Vec<f64>; 4],
    events: usize,
}

/// The platform of all tenants: it answers every call at once, and remembers when the reply to an event was written.
#[derive(Clone, Default)]
struct Platform(Arc<Mutex<HashMap<String, Instant>>>);

fn main() -> anyhow::Result<()> {
    // The load generator and the platform stand for other machines, which don't wait for the guests' time slices.
    modhost_sandbox::shorten_time_slice()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let guest = build_guest()?;
    let platform = Platform::default();
    let api = runtime.block_on(platform.clone().serve())?;
    let client = modhost_platform::http_client()?;
    let number = Arc::<AtomicU64>::default();
    let measure = |attacks: &[&'static Attack]| {
        let folder = tempfile::tempdir()?;
        let host = Host::start(folder.path(), &guest, api)?;
        let (client, platform, number) = (client.clone(), platform.clone(), number.clone());
        let load = Load { client, webhook: host.webhook.clone(), platform, number };
        runtime.block_on(async {
            load.warm_up().await?;
            load.measure(attacks).await
        })
    };

    let scenes: Vec<(&str, Vec<&'static Attack>)> = [("quiet", Vec::new())]
        .into_iter()
        .chain(ATTACKS.iter().map(|attack| (attack.name, vec![attack])))
        .chain([("all at once", ATTACKS.iter().collect())])
        .collect();
    let mut rows: Vec<Row> = scenes.iter().map(|_| Row::default()).collect();
    for _ in 0..ROUNDS {
        let mut quiet = [f64::NAN; 4];
        for (row, (name, attacks)) in rows.iter_mut().zip(&scenes) {
            let mut times = measure(attacks).with_context(|| (*name).to_owned())?;
            row.events += times.replied.len();
            let figures = [
                percentile(&mut times.acknowledged, 50),
                percentile(&mut times.acknowledged, 99),
                percentile(&mut times.replied, 50),
                percentile(&mut times.replied, 99),
            ];
            if attacks.is_empty() {
                quiet = figures;
            }
            for (index, figure) in figures.into_iter().enumerate() {
                row.figures[index].push(figure);
                row.ratios[index].push(figure / quiet[index]);
            }
        }
    }
    println!("| beside it | events | ack p50 ms | ack p99 ms | ratios | reply p50 ms | reply p99 ms | ratios |");
    println!("|---|--:|--:|--:|--:|--:|--:|--:|");
    for ((name, _), row) in scenes.iter().zip(&rows) {
        let ms = |index: usize| median(row.figures[index].iter().copied()) / 1000.0;
        let ratio = |index: usize| median(row.ratios[index].iter().copied());
        println!(
            "| {name} | {} | {:.1} | {:.1} | {:.2}, {:.2} | {:.1} | {:.1} | {:.2}, {:.2} |",
            row.events,
            ms(0),
            ms(1),
            ratio(0),
            ratio(1),
            ms(2),
            ms(3),
            ratio(2),
            ratio(3),
        );
    }
    Ok(())
}

/// Sends events.
#[derive(Clone)]
struct Load {
    client: reqwest::Client,
    webhook: String,
    platform: Platform,
    number: Arc<AtomicU64>,
}

impl Load {
    /// Sends the quiet tenants' events for one scene, during some attacks.
    async fn measure(&self, attacks: &[&'static Attack]) -> anyhow::Result<Times> {
        let stop = CancellationToken::new();
        for attack in attacks {
            tokio::spawn(self.clone().attack(attack, stop.clone()));
        }
        if !attacks.is_empty() {
            sleep(RUN_UP).await;
        }
        let tenants = (0..QUIET).map(|tenant| tokio::spawn(self.clone().quiet(tenant)));
        let mut times = Times::default();
        for tenant in futures::future::join_all(tenants).await {
            let of_tenant = tenant??;
            times.acknowledged.extend(of_tenant.acknowledged);
            times.replied.extend(of_tenant.replied);
        }
        stop.cancel();
        Ok(times)
    }

    /// Waits until the modules have come up, and the host has answered some events.
    async fn warm_up(&self) -> anyhow::Result<()> {
        for tenant in 0..QUIET {
            let started = Instant::now();
            let message = self.post(&format!("quiet-{tenant}"), "Quiet", "reply hello").await?;
            while self.platform.replied(&message).is_none() {
                ensure!(started.elapsed() < PATIENCE, "the host answers no event within {PATIENCE:?}");
                sleep(Duration::from_millis(1)).await;
            }
        }
        Ok(())
    }

    /// Sends the events of one quiet tenant.
    async fn quiet(self, tenant: usize) -> anyhow::Result<Times> {
        sleep(QUIET_EVERY * u32::try_from(tenant)? / u32::try_from(QUIET)?).await;
        let mut ticks = interval(QUIET_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut times, until) = (Times::default(), Instant::now() + TURN);
        while Instant::now() < until {
            ticks.tick().await;
            let started = Instant::now();
            let message = self.post(&format!("quiet-{tenant}"), "Quiet", "reply hello").await?;
            times.acknowledged.push(started.elapsed());
            let replied = loop {
                if let Some(at) = self.platform.replied(&message) {
                    break at;
                }
                ensure!(started.elapsed() < PATIENCE, "a quiet tenant got no reply within {PATIENCE:?}");
                sleep(Duration::from_millis(1)).await;
            };
            times.replied.push(replied - started);
        }
        Ok(times)
    }

    /// Keeps this many of the hostile tenant's events unanswered.
    async fn attack(self, attack: &'static Attack, stop: CancellationToken) {
        let permits = Arc::new(Semaphore::new(attack.concurrent));
        let attacks = async {
            loop {
                let Ok(permit) = permits.clone().acquire_owned().await else { return };
                let (load, stop) = (self.clone(), stop.clone());
                tokio::spawn(async move {
                    let _permit = permit;
                    let Ok(message) = load.post(attack.tenant, "Hostile", attack.text).await else {
                        return sleep(Duration::from_millis(20)).await;
                    };
                    while load.platform.replied(&message).is_none() && !stop.is_cancelled() {
                        sleep(Duration::from_millis(20)).await;
                    }
                });
            }
        };
        stop.run_until_cancelled(attacks).await;
    }

    /// Posts an event of a tenant; returns the id of the message for the reply.
    async fn post(&self, tenant: &str, module: &str, text: &str) -> anyhow::Result<String> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let message = format!("msg_{number}");
        let event = json!({
            "id": format!("evt_{number}"),
            "version": "1.0.0",
            "event": "unique.chat.external-module.chosen",
            "createdAt": "1700000000",
            "userId": "user_1",
            "companyId": tenant,
            "payload": {
                "name": module,
                "description": "",
                "configuration": {},
                "chatId": format!("chat_{number}"),
                "assistantId": "assistant_1",
                "userMessage": { "id": "msg_user", "text": text, "createdAt": "2026-01-01T00:00:00.000Z" },
                "assistantMessage": { "id": message, "createdAt": "2026-01-01T00:00:00.000Z" },
            },
        });
        let body = event.to_string();
        let signature = unique::sign(&Secret::new(SECRET), body.as_bytes());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let request = self.client.post(&self.webhook).header("x-unique-signature", signature);
        let answer = request.header("x-unique-created-at", now.to_string()).body(body).send().await?;
        ensure!(answer.status() == 200, "{tenant}'s event was answered {}", answer.status());
        Ok(message)
    }
}

impl Platform {
    async fn serve(self) -> anyhow::Result<SocketAddr> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = Router::new().fallback(answer).with_state(self);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(address)
    }

    fn replied(&self, message: &str) -> Option<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(message).copied()
    }
}

async fn answer(State(platform): State<Platform>, request: Request) -> Json<Value> {
    let id = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    if request.method() == axum::http::Method::PATCH && id.starts_with("msg_") {
        platform.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), Instant::now());
    }
    Json(json!({ "id": id, "object": "message", "chatId": "chat_1", "role": "ASSISTANT", "text": "hello" }))
}

/// The measured host; killed when dropped.
struct Host {
    process: Child,
    /// Kept open: a server that prints to a closed pipe would die.
    _output: BufReader<ChildStdout>,
    webhook: String,
}

impl Host {
    fn start(folder: &Path, guest: &Path, api: SocketAddr) -> anyhow::Result<Self> {
        std::fs::write(folder.join("modules.toml"), settings(guest, api))?;
        // Not in the folder of the settings: the host watches that folder, and each log line would count as a change.
        std::fs::create_dir(folder.join("log"))?;
        let mut process = Command::new(env!("CARGO_BIN_EXE_modhost"))
            .current_dir(folder)
            .args(["serve", "--port", "0", "--admin-port", "0", "--log-level", "error"])
            .env("BENCH_SECRET", SECRET)
            .env_remove("MODHOST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(folder.join("log/modhost.log"))?)
            .spawn()?;
        let mut output = BufReader::new(process.stdout.take().context("its standard output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let Some(webhook) = line.split_whitespace().find(|word| word.starts_with("http://")).map(str::to_owned) else {
            let _ = process.kill();
            let log = std::fs::read_to_string(folder.join("log/modhost.log"))?;
            anyhow::bail!("the host printed no address but `{}`:\n{log}", line.trim());
        };
        Ok(Self { process, _output: output, webhook })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn settings(guest: &Path, api: SocketAddr) -> String {
    let hostile: Vec<&str> = ATTACKS.iter().map(|attack| attack.tenant).collect();
    let quiet = (0..QUIET).map(|number| format!("quiet-{number}"));
    let tenants: String = hostile
        .iter()
        .map(|name| (*name).to_owned())
        .chain(quiet)
        .map(|name| {
            format!(
                "[[tenant]]\nname = {name:?}\ncompanies = [{name:?}]\n[tenant.platform]\nkind = \"unique\"\n\
                 api_base = \"http://{api}/public/chat\"\napp_id = \"app\"\napi_key = \"env:BENCH_SECRET\"\n\n"
            )
        })
        .collect();
    format!(
        r#"[[source]]
name = "unique"
path = "/webhook"
scheme = "unique"
secrets = ["env:BENCH_SECRET"]

{tenants}
[[module]]
name = "Hostile"
component = {guest:?}
tenants = {hostile:?}
limits = {{ cpu = "2s", timeout = "10s", keyvalue = "1GiB", concurrency = 64 }}
retry = {{ attempts = 3, first = "100ms", max = "1s" }}

[[module]]
name = "Quiet"
component = {guest:?}
"#
    )
}

/// Builds the test guest.
fn build_guest() -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the package is in a workspace")?;
    let target = root.join("target/guests");
    let status = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["build", "--quiet", "-p=test-guest", "--profile", "guest", "--target", "wasm32-wasip2", "--target-dir"])
        .arg(&target)
        .status()?;
    ensure!(status.success(), "the guest can't be built; is the target there? rustup target add wasm32-wasip2");
    Ok(target.join("wasm32-wasip2/guest/test_guest.wasm"))
}
