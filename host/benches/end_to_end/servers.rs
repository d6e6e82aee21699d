//! The measured servers, each in a process of its own: the host, a server that does almost nothing, and Flask.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use axum::serve::ListenerExt;
use axum::{Json, Router, routing::post};
use bytes::Bytes;
use serde_json::json;

use crate::signed::SECRET;

/// The argument that makes the benchmark run as the server that does almost nothing.
pub const BARE_SERVER: &str = "bare-server";

/// The webhook path of all servers.
pub const PATH: &str = "/webhook";

/// The module that subscribes to events of user messages and does nothing.
pub const MODULE: &str = "Nothing";

/// What to do if there is no program `wasmtime`. The build takes minutes.
pub const HOW_TO_GET_WASMTIME: &str = "Install it with `cargo install wasmtime-cli@48.0.8 --locked --root target/wasmtime \
    --no-default-features --features run,serve,component-model-async,cranelift,pooling-allocator,parallel-compilation`, \
    or set BENCH_WASMTIME to its path";

/// The time limit for starting a server and for completing deliveries.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server; killed when dropped.
pub struct Server {
    process: Child,
    /// Kept open: a server that prints to a closed pipe would die.
    _output: BufReader<ChildStdout>,
    /// Its address.
    pub address: SocketAddr,
    log: Option<PathBuf>,
}

impl Server {
    /// Starts `modhost serve` in a folder, with a module whose component does nothing.
    pub fn host(folder: &Path, component: &Path) -> anyhow::Result<Self> {
        let module = module(MODULE, component, "unique.chat.user-message.created");
        Self::start_host(folder, &(settings() + &module))
    }

    /// Starts `modhost serve` in a folder, with this many modules, of which each has an event of its own ([`event_of`]).
    pub fn host_with_modules(folder: &Path, component: &Path, modules: usize) -> anyhow::Result<Self> {
        let modules = (0..modules).map(|number| module(&format!("Nothing{number}"), component, &event_of(number)));
        Self::start_host(folder, &(settings() + &modules.collect::<String>()))
    }

    fn start_host(folder: &Path, settings: &str) -> anyhow::Result<Self> {
        std::fs::write(folder.join("modules.toml"), settings)?;
        // Not in the folder of the settings: the host watches that folder, and each log line would count as a change.
        let log = folder.join("log/modhost.log");
        std::fs::create_dir(folder.join("log"))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_modhost"));
        command
            .current_dir(folder)
            .args(["serve", "--port", "0", "--admin-port", "0"])
            .env("BENCH_SECRET", SECRET)
            .env_remove("MODHOST_LOG")
            .stderr(File::create(&log)?);
        Self::start(command, Some(log))
    }

    /// Starts a server that reads bodies and answers 200.
    pub fn bare() -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(BARE_SERVER);
        Self::start(command, None)
    }

    /// Starts Flask with gunicorn from the virtual environment named by `BENCH_VENV`; `None` if the variable isn't set.
    pub fn flask() -> anyhow::Result<Option<Self>> {
        let Some(environment) = std::env::var_os("BENCH_VENV") else { return Ok(None) };
        let address = free_address()?;
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/flask");
        let mut command = Command::new(Path::new(&environment).join("bin/gunicorn"));
        command
            .args(["-w", "2", "--threads", "4", "--log-level", "error", "-b", &address.to_string(), "app:app"])
            .current_dir(folder)
            .env("BENCH_SECRET", SECRET)
            .env("PYTHONDONTWRITEBYTECODE", "1");
        Self::start_at(command, address).context("gunicorn").map(Some)
    }

    /// Starts `wasmtime serve` with a component that verifies events. Each request gets an instance of its own from
    /// Wasmtime's pool, as a delivery does in the host.
    pub fn wasmtime_serve(program: &Path, component: &Path) -> anyhow::Result<Self> {
        let address = free_address()?;
        let mut command = Command::new(program);
        command
            .args(["serve", "-Scli=y", "-Opooling-allocator=y", "--addr", &address.to_string()])
            .args(["--env", &format!("BENCH_SECRET={SECRET}")])
            .arg(component)
            .stderr(Stdio::null());
        Self::start_at(command, address).with_context(|| format!("{} serve", program.display()))
    }

    /// Starts a server that listens on this address and doesn't print it.
    fn start_at(mut command: Command, address: SocketAddr) -> anyhow::Result<Self> {
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(process.stdout.take().context("its standard output")?);
        let server = Self { process, _output: output, address, log: None };
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(address).is_err() {
            if Instant::now() > deadline {
                bail!("nothing listens on {address}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    fn start(mut command: Command, log: Option<PathBuf>) -> anyhow::Result<Self> {
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut output = BufReader::new(process.stdout.take().context("its standard output")?);
        // The first address that the host prints is that of its webhook.
        let mut line = String::new();
        output.read_line(&mut line)?;
        let address = line.split_whitespace().find_map(|word| word.strip_prefix("http://")?.strip_suffix(PATH));
        let Some(address) = address.and_then(|address| address.parse().ok()) else {
            let _ = process.kill();
            let log_text = log.map(std::fs::read_to_string).transpose()?.unwrap_or_default();
            bail!("a server printed no address but `{}`:\n{log_text}", line.trim());
        };
        Ok(Self { process, _output: output, address, log })
    }

    /// Returns the length of its log.
    pub fn log_length(&self) -> anyhow::Result<u64> {
        Ok(std::fs::metadata(self.log.as_ref().context("this server has no log")?)?.len())
    }

    /// Waits until this many deliveries have completed after this length of the log.
    pub fn wait_for_deliveries(&self, deliveries: usize, since: u64) -> anyhow::Result<()> {
        let mut log = File::open(self.log.as_ref().context("this server has no log")?)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut lines = String::new();
            log.seek(SeekFrom::Start(since))?;
            log.read_to_string(&mut lines)?;
            let completed = lines.lines().filter(|line| line.contains(" completed ")).count();
            if completed >= deliveries {
                return Ok(());
            }
            if Instant::now() > deadline {
                let last = lines.lines().last().unwrap_or_default();
                bail!("{completed} of {deliveries} deliveries have been completed; the end of its log:\n{last}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs the server that does almost nothing, until it is killed.
pub fn serve_bare() -> anyhow::Result<()> {
    let answer = async |_: Bytes| Json(json!({ "success": true }));
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("http://{}{PATH}", listener.local_addr()?);
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        Ok(axum::serve(listener, Router::new().route(PATH, post(answer))).await?)
    })
}

/// Returns an address that was free a moment ago, for servers that don't print the port that they get.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Returns the program `wasmtime`: from `BENCH_WASMTIME`, `target/wasmtime`, or `PATH`.
pub fn wasmtime_program() -> Option<PathBuf> {
    if let Some(program) = std::env::var_os("BENCH_WASMTIME") {
        return Some(program.into());
    }
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/wasmtime/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(installed).chain(std::env::split_paths(&path));
    folders.map(|folder| folder.join("wasmtime")).find(|program| program.is_file())
}

/// The event that a module of [`Server::host_with_modules`] subscribes to.
pub fn event_of(module: usize) -> String {
    format!("benchmark.module-{module}")
}

fn module(name: &str, component: &Path, event: &str) -> String {
    format!("\n[[module]]\nname = \"{name}\"\ncomponent = {component:?}\nevents = [\"{event}\"]\n")
}

fn settings() -> String {
    format!(
        r#"
[[source]]
name = "unique"
path = "{PATH}"
scheme = "unique"
secrets = ["env:BENCH_SECRET"]

[[tenant]]
name = "default"

[tenant.platform]
kind = "unique"
# Nothing is asked of it.
api_base = "http://127.0.0.1:9/public/chat"
app_id = "app_benchmark"
api_key = "env:BENCH_SECRET"
"#
    )
}
