//! `modhost serve` in a process of its own, in a folder that survives when it is killed.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use modhost_emulator as local;
use serde_json::Value;
use tempfile::TempDir;

use super::faulty_platform::{FaultyPlatform, Question, api_base};
use super::harness::{Signal, component, http, sign, signal, until};

/// The default tenant, and the name of its source.
pub const TENANT: &str = "default";

/// The contents of modules.toml.
#[derive(Clone)]
pub struct Config {
    server: String,
    top: String,
    source: String,
    variables: Vec<(String, String)>,
    tenant: String,
    tenants: Vec<(String, String, String)>,
    modules: Vec<(String, &'static str, String)>,
}

impl Config {
    /// One tenant, no modules.
    pub fn new() -> Self {
        let tenants = vec![(TENANT.to_owned(), String::new(), String::new())];
        let (server, top, source, tenant) = Default::default();
        Self { server, top, source, variables: Vec::new(), tenant, tenants, modules: Vec::new() }
    }

    /// Adds a module with a built component and additional lines for its entry.
    pub fn module(mut self, name: &str, built: &'static str, lines: &str) -> Self {
        self.modules.push((name.to_owned(), built, lines.to_owned()));
        self
    }

    /// Adds lines to `[server]`.
    pub fn server(mut self, lines: &str) -> Self {
        writeln!(self.server, "{lines}").unwrap();
        self
    }

    /// Keeps deliveries, values and versions in this PostgreSQL database.
    pub fn database(mut self, url: &str) -> Self {
        "[storage]\nurl = \"env:CHAOS_DATABASE\"\n".clone_into(&mut self.top);
        self.variable("CHAOS_DATABASE", url)
    }

    /// Adds a setting to every source.
    pub fn source(mut self, setting: &str) -> Self {
        writeln!(self.source, "{setting}").unwrap();
        self
    }

    /// Adds a setting to every tenant.
    pub fn tenant(mut self, setting: &str) -> Self {
        writeln!(self.tenant, "{setting}").unwrap();
        self
    }

    /// Sets an additional environment variable of the host.
    pub fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// Replaces the default tenant by these, with their limits; each has a source of the same name.
    pub fn tenants(mut self, tenants: &[(&str, &str)]) -> Self {
        let tenants = tenants.iter().map(|(name, limits)| ((*name).to_owned(), (*limits).to_owned(), String::new()));
        self.tenants = tenants.collect();
        self
    }

    /// Adds a setting to every tenant's platform.
    pub fn platform(mut self, setting: &str) -> Self {
        for (_, _, platform) in &mut self.tenants {
            write!(platform, ", {setting}").unwrap();
        }
        self
    }

    fn text(&self) -> String {
        let mut text = format!("[server]\n{}\n{}", self.server, self.top);
        let (source, tenant) = (&self.source, &self.tenant);
        for (name, limits, platform) in &self.tenants {
            write!(
                text,
                r#"
[[source]]
name = "{name}"
path = "/{name}"
scheme = "unique"
secrets = ["env:CHAOS_SECRET"]
tenant = "{name}"
{source}
[[tenant]]
name = "{name}"
limits = {{ {limits} }}
platform = {{ kind = "unique", api_base = "env:CHAOS_API_BASE", app_id = "env:CHAOS_APP", api_key = "env:CHAOS_KEY", model = "test"{platform} }}
{tenant}"#
            )
            .unwrap();
        }
        for (name, _, lines) in &self.modules {
            write!(text, "\n[[module]]\nname = \"{name}\"\ncomponent = \"{name}.wasm\"\n{lines}\n").unwrap();
        }
        text
    }

    /// Writes all files of a host into a folder and starts it.
    pub async fn start(&self, faulty_platform: &FaultyPlatform) -> Host {
        let host = self.lay_out(faulty_platform);
        host.start().await;
        host
    }

    /// Writes all files of a host into a folder.
    pub fn lay_out(&self, faulty_platform: &FaultyPlatform) -> Host {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("modules.toml"), self.text()).unwrap();
        for (name, built, _) in &self.modules {
            std::fs::copy(component(built), folder.path().join(format!("{name}.wasm"))).unwrap();
        }
        Host {
            folder,
            variables: self.variables.clone(),
            platform: faulty_platform.origin(),
            lives: faulty_platform.lives(),
            number: AtomicU32::new(0),
            client: http(),
            log: Arc::default(),
            life: Mutex::new(None),
        }
    }
}

/// A host that can be killed and restarted. It is killed when dropped.
pub struct Host {
    folder: TempDir,
    variables: Vec<(String, String)>,
    /// The address of the platform.
    platform: String,
    /// The number of lives of all hosts of this platform.
    lives: Arc<AtomicU32>,
    /// The number of the current life among them.
    number: AtomicU32,
    client: reqwest::Client,
    /// The log of all starts.
    log: Arc<Mutex<String>>,
    life: Mutex<Option<Life>>,
}

struct Life {
    process: Child,
    output: Arc<Mutex<String>>,
}

/// The response of a source.
#[derive(Debug)]
pub struct Posted {
    pub status: u16,
    pub retry_after: Option<u64>,
}

impl Posted {
    pub fn is_acknowledged(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl Host {
    /// A command of the binary in the host's folder.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_modhost"));
        command
            .current_dir(self.folder.path())
            .args(args)
            .env("CHAOS_SECRET", local::ENDPOINT_SECRET)
            .env("CHAOS_API_BASE", api_base(&self.platform, self.life()))
            .env("CHAOS_APP", local::APP_ID)
            .env("CHAOS_KEY", local::API_KEY)
            .env("MODHOST_LOG", "modhost=debug")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// The number of the current or last life, from 1, counted over all hosts of the platform.
    pub fn life(&self) -> u32 {
        self.number.load(Ordering::SeqCst)
    }

    /// Runs `modhost deliveries` against the running host.
    pub fn deliveries_command(&self, args: &[&str]) -> Output {
        let admin = self.address("admin").unwrap().replace("/health", "");
        self.command(&[&["deliveries", "--admin", &admin], args].concat()).output().unwrap()
    }

    /// Runs `modhost modules` against the running host.
    pub fn modules_command(&self, args: &[&str]) -> Output {
        let admin = self.address("admin").unwrap().replace("/health", "");
        self.command(&[&["modules"], args, &["--admin", &admin]].concat()).output().unwrap()
    }

    /// Starts the process without waiting.
    pub fn spawn(&self) {
        self.spawn_with(&[]);
    }

    /// Starts the process with additional arguments.
    pub fn spawn_with(&self, args: &[&str]) {
        self.number.store(self.lives.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let args = [&["serve", "--port", "0", "--admin-port", "0"], args].concat();
        let mut process = self.command(&args).spawn().unwrap();
        gather(process.stderr.take().unwrap(), self.log.clone());
        let output = Arc::default();
        gather(process.stdout.take().unwrap(), Arc::clone(&output));
        *self.life.lock().unwrap() = Some(Life { process, output });
    }

    /// Starts the host and waits until it accepts events.
    pub async fn start(&self) {
        self.spawn();
        self.listening().await;
    }

    /// Waits until the host accepts events.
    pub async fn listening(&self) {
        until("the host to listen", async || {
            if let Some(status) = self.status() {
                panic!("the host exited ({status}):\n{}", self.log());
            }
            self.address("admin")
        })
        .await;
    }

    /// Kills the process with SIGKILL.
    pub fn kill(&self) {
        if let Some(mut life) = self.life.lock().unwrap().take() {
            life.process.kill().unwrap();
            life.process.wait().unwrap();
        }
    }

    /// Sends SIGTERM, as a service manager does.
    pub fn terminate(&self) {
        let process = self.life.lock().unwrap().as_ref().unwrap().process.id();
        signal(process, Signal::TERM);
    }

    /// Waits until the process exits on its own.
    pub async fn ended(&self) -> ExitStatus {
        until("the host to exit", async || self.status()).await
    }

    fn status(&self) -> Option<ExitStatus> {
        self.life.lock().unwrap().as_mut().unwrap().process.try_wait().unwrap()
    }

    /// The path of a file in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces the component of a module.
    pub fn swap(&self, module: &str, bytes: &[u8]) {
        std::fs::write(self.file(&format!("{module}.wasm")), bytes).unwrap();
    }

    /// The log of all starts.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until a log line contains all of these words.
    pub async fn logged(&self, words: &[&str]) {
        until(&format!("a log line with {words:?}"), async || {
            self.log().lines().any(|line| words.iter().all(|word| line.contains(word))).then_some(())
        })
        .await;
    }

    /// The address on the line of its output that starts with this word; `None` before the host listens.
    fn address(&self, word: &str) -> Option<String> {
        let life = self.life.lock().unwrap();
        let output = life.as_ref()?.output.lock().unwrap().clone();
        let line = output.lines().map(str::trim).find(|line| line.starts_with(word))?;
        line.split_whitespace().find(|part| part.starts_with("http://")).map(str::to_owned)
    }

    /// Posts an event to a source; `None` if there was no response.
    pub async fn post_to(&self, source: &str, event: &Value) -> Option<Posted> {
        let body = event.to_string().into_bytes();
        let mut url = reqwest::Url::parse(&self.address("events")?).unwrap();
        url.set_path(source);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let request = self
            .client
            .post(url)
            .header("content-type", "application/json")
            .header("x-unique-signature", sign(&body))
            .header("x-unique-created-at", now.to_string());
        let answer = request.body(body).send().await.ok()?;
        let retry_after = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().parse().unwrap());
        Some(Posted { status: answer.status().as_u16(), retry_after })
    }

    /// Posts the event of a question, which must be acknowledged.
    pub async fn post_acknowledged(&self, question: &Question) {
        let posted = self.post_to(TENANT, &question.event).await;
        assert!(posted.as_ref().is_some_and(Posted::is_acknowledged), "{posted:?}");
    }

    /// The response of the admin API.
    pub async fn get(&self, path: &str) -> Value {
        let url = self.address("admin").unwrap().replace("/health", path);
        self.client.get(url).send().await.unwrap().json().await.unwrap()
    }

    /// The deliveries of an event.
    pub async fn deliveries_of(&self, event: &str) -> Vec<Value> {
        self.get(&format!("/api/deliveries?event={event}")).await["deliveries"].as_array().unwrap().clone()
    }

    /// The only delivery of a question.
    pub async fn delivery(&self, question: &Question) -> Value {
        let deliveries = self.deliveries_of(question.id()).await;
        assert_eq!(deliveries.len(), 1, "{deliveries:?}");
        deliveries.into_iter().next().unwrap()
    }

    /// The id of the only delivery of a question.
    pub async fn delivery_id(&self, question: &Question) -> String {
        self.delivery(question).await["id"].as_str().unwrap().to_owned()
    }

    /// Waits until the delivery of a question is in a state.
    pub async fn in_state(&self, question: &Question, state: &str) -> Value {
        until(&format!("the delivery of {} to be {state}", question.id()), async || {
            Some(self.delivery(question).await).filter(|delivery| delivery["state"] == state)
        })
        .await
    }

    /// Waits until the delivery of a question is in a state after this many attempts.
    pub async fn in_state_after(&self, question: &Question, state: &str, attempts: u64) -> Value {
        until(&format!("the delivery of {} to be {state} after {attempts} attempts", question.id()), async || {
            let delivery = self.delivery(question).await;
            (delivery["state"] == state && delivery["attempts"] == attempts).then_some(delivery)
        })
        .await
    }

    /// Waits until the delivery of a question is scheduled for a retry, and returns the reason. The retry may already
    /// be running.
    pub async fn tried_again(&self, question: &Question) -> String {
        let id = self.delivery_id(question).await;
        until(&format!("{id} to be scheduled for a retry"), async || {
            let details = self.get(&format!("/api/deliveries/{id}")).await;
            let changes = details["changes"].as_array().unwrap().iter();
            let reason =
                changes.filter(|change| change["state"] == "waiting").find_map(|change| change["reason"].as_str());
            reason.map(str::to_owned)
        })
        .await
    }

    /// The number of deliveries per state, and the number of calls repeated since the last start.
    pub async fn totals(&self) -> Value {
        self.get("/api/totals").await
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let skip = log.lines().count().saturating_sub(200);
            eprintln!("--- end of the host's log");
            log.lines().skip(skip).for_each(|line| eprintln!("{line}"));
        }
    }
}

/// Reads a stream to its end in the background.
fn gather(stream: impl Read + Send + 'static, text: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            writeln!(text.lock().unwrap(), "{line}").unwrap();
        }
    });
}
