//! A host in a process of its own.

use std::fmt::Write;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use modhost_emulator::LocalPlatform;
use modhost_storage::versions::ContentHash;
use tempfile::TempDir;

use super::{Signal, Variables, bare, component, http, signal, until};

/// A running `modhost dev` with its local platform, or `modhost serve` with a platform of the test. Killed when
/// dropped.
pub struct Host {
    process: Child,
    folder: TempDir,
    log: Arc<Mutex<String>>,
    output: Arc<Mutex<String>>,
    /// The URL of the webhook.
    pub webhook: String,
    /// The URL of the admin listener.
    pub admin: String,
    /// The URL of the local platform.
    pub platform: String,
}

/// The settings and arguments of a host.
pub struct Settings {
    server: String,
    secrets: String,
    source: String,
    more: String,
    tenants: String,
    modules: String,
    args: Vec<String>,
    builds: bool,
    waits: bool,
    log: String,
}

/// The token of the admin API, in tests that set one.
pub const ADMIN_TOKEN: &str = "sesame-sesame-sesame";

/// The default log filter.
const LOG: &str = "modhost=debug,module=trace";

/// The default tenant.
const TENANT: &str = r#"
[[tenant]]
name = "default"

[tenant.platform]
kind = "unique"
api_base = "env:TEST_API_BASE"
app_id = "env:TEST_APP_ID"
api_key = "env:TEST_API_KEY"
model = "test-model"
"#;

impl Settings {
    /// A host without modules.
    pub fn new() -> Self {
        Self {
            server: String::new(),
            secrets: r#""env:TEST_ENDPOINT_SECRET""#.to_owned(),
            source: String::new(),
            more: String::new(),
            tenants: TENANT.to_owned(),
            modules: String::new(),
            args: Vec::new(),
            builds: false,
            waits: true,
            log: LOG.into(),
        }
    }

    /// The sample modules under their names.
    pub fn samples() -> Self {
        let listens = r#"events = ["unique.chat.user-message.created"]"#;
        Self::new()
            .module("Assistant", "assistant", "")
            .module("DemoApp", "demo_app", r#"config = { greeting = "Hello" }"#)
            .module("ChatLog", "chat_log", listens)
    }

    /// The test guest, named `Test`, with additional lines for its entry.
    pub fn test_guest(lines: &str) -> Self {
        Self::new().module("Test", "test_guest", lines)
    }

    /// Adds a module with a built component, and additional lines for its entry.
    pub fn module(mut self, name: &str, built: &str, lines: &str) -> Self {
        let file = component(built);
        writeln!(self.modules, "[[module]]\nname = {name:?}\ncomponent = {file:?}\n{lines}\n").unwrap();
        self
    }

    /// Adds a module whose component is a file in the host's own folder.
    pub fn module_file(mut self, name: &str, file: &str, lines: &str) -> Self {
        writeln!(self.modules, "[[module]]\nname = {name:?}\ncomponent = {file:?}\n{lines}\n").unwrap();
        self
    }

    /// Adds lines to `[server]`.
    pub fn server(mut self, lines: &str) -> Self {
        writeln!(self.server, "{lines}").unwrap();
        self
    }

    /// Sets the log filter.
    pub fn log(mut self, filter: &str) -> Self {
        self.log = filter.to_owned();
        self
    }

    /// Sends completions to a model.
    pub fn model(self, url: &str) -> Self {
        self.args(&["--completion-url", url])
    }

    /// Adds lines to the `[[source]]`.
    pub fn source(mut self, lines: &str) -> Self {
        writeln!(self.source, "{lines}").unwrap();
        self
    }

    /// Adds lines to the platform of the last `[[tenant]]`, or tables of that tenant after it.
    pub fn tenant(mut self, lines: &str) -> Self {
        writeln!(self.tenants, "{lines}").unwrap();
        self
    }

    /// Adds tables to modules.toml.
    pub fn more(mut self, tables: &str) -> Self {
        writeln!(self.more, "{tables}").unwrap();
        self
    }

    /// Replaces the secrets of the source by these references.
    pub fn secrets(mut self, references: &[&str]) -> Self {
        self.secrets = references.iter().map(|it| format!("{it:?}")).collect::<Vec<_>>().join(", ");
        self
    }

    /// Replaces the default tenant by tenants with these names and companies.
    pub fn tenants(mut self, tenants: &[(&str, &str)]) -> Self {
        self.tenants.clear();
        for (name, company) in tenants {
            let named = format!("name = {name:?}\ncompanies = [{company:?}]");
            self.tenants.push_str(&TENANT.replace(r#"name = "default""#, &named));
        }
        self
    }

    /// Runs the modules' build commands, which is off by default in tests.
    pub fn building(mut self) -> Self {
        self.builds = true;
        self
    }

    /// Starts without waiting for the modules to load.
    pub fn at_once(mut self) -> Self {
        self.waits = false;
        self
    }

    /// Adds arguments to the command line.
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// The text of modules.toml.
    pub fn text(&self) -> String {
        format!(
            r#"
[server]
{}

[[source]]
name = "unique"
path = "/webhook"
scheme = "unique"
secrets = [{}]
{}
{}
{}
{}"#,
            self.server, self.secrets, self.source, self.more, self.tenants, self.modules
        )
    }

    /// Starts the host, and waits until it listens and its modules are loaded.
    pub async fn start(&self) -> Host {
        self.start_in(tempfile::tempdir().unwrap()).await
    }

    /// Starts the host with its log redirected.
    pub async fn start_logging_to(&self, log: impl Into<Stdio>) -> Host {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Host::command(self, &folder);
        let host = Host::run_with_log(command.stderr(log), &self.log, folder, None).await;
        host.has_come_up().await;
        host
    }

    /// Starts the host in a folder that may already contain files.
    pub async fn start_in(&self, folder: TempDir) -> Host {
        Host::start(self, folder).await
    }
}

impl Host {
    /// The command `modhost dev` with these settings, which are written into the folder.
    fn command(settings: &Settings, folder: &TempDir) -> Command {
        let documents = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/assistant/documents");
        let mut command = bare("dev", folder.path());
        command.args(["--port", "0", "--admin-port", "0", "--platform-port", "0", "--documents"]).arg(documents);
        if !settings.builds {
            command.arg("--no-build");
        }
        std::fs::write(folder.path().join("modules.toml"), settings.text()).unwrap();
        command.args(&settings.args);
        command
    }

    async fn start(settings: &Settings, folder: TempDir) -> Self {
        let mut command = Self::command(settings, &folder);
        let host = Self::run(&mut command, &settings.log, folder, None).await;
        if settings.waits {
            host.has_come_up().await;
        }
        host
    }

    /// Starts `modhost dev` with the modules.toml of a folder.
    pub async fn dev(folder: TempDir) -> Self {
        let mut command = bare("dev", folder.path());
        command.args(["--port", "0", "--admin-port", "0", "--platform-port", "0", "--no-build"]);
        let host = Self::run(&mut command, LOG, folder, None).await;
        host.has_come_up().await;
        host
    }

    /// Starts `modhost dev` with variables; it builds its modules.
    #[allow(dead_code, reason = "for the tests of other languages")]
    pub async fn dev_building(folder: TempDir, variables: Variables<'_>) -> Self {
        let mut command = bare("dev", folder.path());
        command.args(["--port", "0", "--admin-port", "0", "--platform-port", "0"]).envs(variables.iter().copied());
        let host = Self::run(&mut command, LOG, folder, None).await;
        host.has_come_up().await;
        host
    }

    /// Starts `modhost serve` with the modules.toml and the `.env` of a folder, for a platform of the test.
    pub async fn serve(folder: TempDir, variables: Variables<'_>, platform: Option<&LocalPlatform>) -> Self {
        let host = Self::serve_at_once(folder, variables, platform).await;
        host.has_come_up().await;
        host
    }

    /// Starts `modhost serve` without waiting for the modules to load.
    pub async fn serve_at_once(folder: TempDir, variables: Variables<'_>, platform: Option<&LocalPlatform>) -> Self {
        let platform = platform.map(|platform| format!("http://{}", platform.address())).unwrap_or_default();
        let mut command = bare("serve", folder.path());
        command.args(["--port", "0", "--admin-port", "0"]).envs(variables.iter().copied());
        Self::run(&mut command, LOG, folder, Some(platform)).await
    }

    /// Runs a command that starts `modhost serve` in a folder, for a platform of the test.
    pub async fn serve_with(mut command: Command, folder: TempDir, platform: &LocalPlatform) -> Self {
        let platform = format!("http://{}", platform.address());
        let host = Self::run(&mut command, LOG, folder, Some(platform)).await;
        host.has_come_up().await;
        host
    }

    /// Waits until each module either has a version or a reason for not having one.
    async fn has_come_up(&self) {
        until("the modules to load", async || {
            let health = self.health().await;
            health["modules"].as_array().unwrap().iter().all(|module| module["coming_up"] == false).then_some(())
        })
        .await;
    }

    async fn run(command: &mut Command, log: &str, folder: TempDir, platform: Option<String>) -> Self {
        command.stderr(Stdio::piped());
        Self::run_with_log(command, log, folder, platform).await
    }

    /// Runs a host whose log goes where the command says.
    async fn run_with_log(command: &mut Command, log: &str, folder: TempDir, platform: Option<String>) -> Self {
        let mut process = command.env("MODHOST_LOG", log).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let log = process.stderr.take().map(gather).unwrap_or_default();
        let output = gather(process.stdout.take().unwrap());
        let mut host = Self {
            process,
            folder,
            log,
            output,
            webhook: String::new(),
            admin: String::new(),
            platform: String::new(),
        };
        let (webhook, admin, platform) = until("the host's addresses", async || {
            if let Some(status) = host.process.try_wait().unwrap() {
                panic!("the host exited ({status}):\n{}\n{}", host.output(), host.log());
            }
            let output = host.output();
            let platform = platform.clone().or_else(|| address(&output, "platform"));
            // A host with an event socket has no webhook.
            let webhook = output.contains("events ").then(|| address(&output, "events").unwrap_or_default());
            Some((webhook?, address(&output, "admin")?, platform?))
        })
        .await;
        (host.webhook, host.admin, host.platform) = (webhook, admin.replace("/health", ""), platform);
        host
    }

    /// The folder of its modules.toml.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The path of a file in its folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The address of the public listener.
    pub fn socket(&self) -> SocketAddr {
        let (_, address) = self.webhook.split_once("://").unwrap();
        address.strip_suffix("/webhook").unwrap().parse().unwrap()
    }

    /// The process id.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// The number of log lines that contain all of these words.
    pub fn lines(&self, words: &[&str]) -> usize {
        self.log().lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The standard output so far.
    pub fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// Waits for a log line that contains all of these words, and returns it.
    pub async fn logged(&self, words: &[&str]) -> String {
        until(&format!("a log line with {words:?} in:\n{}", self.log()), async || {
            let log = self.log();
            log.lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned)
        })
        .await
    }

    /// The body of `/health` on the admin listener, with the admin token.
    pub async fn health(&self) -> serde_json::Value {
        let admin = self.admin.replace("0.0.0.0", "127.0.0.1");
        let health = http().get(format!("{admin}/health")).bearer_auth(ADMIN_TOKEN);
        health.send().await.unwrap().json().await.unwrap()
    }

    /// The entry of a module in `/health`; null if there is no such module.
    pub async fn module(&self, name: &str) -> serde_json::Value {
        let health = self.health().await;
        let modules = health["modules"].as_array().unwrap();
        modules.iter().find(|module| module["name"] == name).cloned().unwrap_or_default()
    }

    /// Waits until this version of a module serves, and its file has no error.
    pub async fn serves(&self, module: &str, bytes: &[u8]) {
        let version = ContentHash::of(bytes).to_string();
        let what = format!("version {version} of {module}");
        until(&what, async || {
            let module = self.module(module).await;
            (module["version"] == *version && module["refused"].is_null()).then_some(())
        })
        .await
    }

    /// Waits until this version of a module serves or is the canary.
    pub async fn serves_or_tries(&self, module: &str, bytes: &[u8]) {
        let version = ContentHash::of(bytes).to_string();
        until(&format!("version {version} of {module}, serving or on trial"), async || {
            let now = super::module_state(self, module).await;
            (now["version"] == *version || now["canary"]["version"] == *version).then_some(())
        })
        .await;
    }

    /// Replaces modules.toml, as an editor does.
    pub fn save_settings(&self, settings: &Settings) {
        self.save("modules.toml", settings.text());
    }

    /// Replaces a file in its folder atomically.
    pub fn save(&self, name: &str, content: impl AsRef<[u8]>) {
        let whole = self.file(&format!("{name}.new"));
        std::fs::write(&whole, content).unwrap();
        std::fs::rename(whole, self.file(name)).unwrap();
    }

    /// Sends SIGTERM, as a service manager does, and waits until the process has exited.
    pub async fn stop(&mut self) -> ExitStatus {
        self.terminate();
        self.ended().await
    }

    /// Sends SIGTERM, as a service manager does.
    pub fn terminate(&self) {
        signal(self.process.id(), Signal::TERM);
    }

    /// Kills the process, as a crash would; returns its folder for the next host.
    pub fn kill(mut self) -> TempDir {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }

    /// Waits until the process has exited.
    pub async fn ended(&mut self) -> ExitStatus {
        until("the host to stop", async || self.process.try_wait().unwrap()).await
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- what the host printed\n{}\n--- what it logged\n{}", self.output(), self.log());
        }
    }
}

/// The address on the first line that starts with a word.
fn address(output: &str, word: &str) -> Option<String> {
    let line = output.lines().map(str::trim).find(|line| line.starts_with(word))?;
    let is_address = |part: &&str| part.starts_with("http://") || part.starts_with("https://");
    line.split_whitespace().find(is_address).map(str::to_owned)
}

/// Reads a stream to its end in the background.
fn gather(stream: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let gathered = text.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            writeln!(gathered.lock().unwrap(), "{line}").unwrap();
        }
    });
    text
}
