//! A host in a process of its own, with any number of modules, each of its own tenant.

use std::fmt::Write;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

use crate::process;

/// The time limit of every wait, including a thousand compiles.
const PATIENCE: Duration = Duration::from_secs(900);

/// The command that runs the host.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `modhost serve`.
    Serve,
    /// `modhost dev`.
    Dev,
}

/// A running host; killed when dropped.
pub struct Host {
    process: Child,
    log: Receiver<String>,
    /// The time until it listened with all its modules loaded.
    pub started: Duration,
    /// The number of components that it compiled until then.
    pub compiled: usize,
    /// The URL of its public listener.
    pub public: String,
}

/// Returns the path of a module's component.
pub fn component(folder: &Path, number: u16) -> PathBuf {
    folder.join(format!("{number}.wasm"))
}

/// Writes modules.toml and the components.
pub fn write_modules(folder: &Path, modules: u16, bytes: impl Fn(u16) -> Vec<u8>) -> anyhow::Result<()> {
    let mut settings = String::from(
        "[[source]]\nname = \"unique\"\npath = \"/webhook\"\nscheme = \"unique\"\nsecrets = [\"env:BENCH_SECRET\"]\n",
    );
    for number in 0..modules {
        std::fs::write(component(folder, number), bytes(number))?;
        write!(
            settings,
            r#"
[[tenant]]
name = "t{number}"
companies = ["company_{number}"]
platform = {{ kind = "unique", api_base = "http://127.0.0.1:9/public/chat", app_id = "app_{number}", api_key = "env:BENCH_SECRET" }}

[[module]]
name = "M{number}"
component = "{number}.wasm"
tenants = ["t{number}"]
"#
        )?;
    }
    Ok(std::fs::write(folder.join("modules.toml"), settings)?)
}

/// Copies the first module's cache entry for all modules: their components differ only in a custom section, and a
/// thousand compiles would not be part of the measured start.
pub fn copy_cache_entry(folder: &Path, modules: u16) -> anyhow::Result<()> {
    let cache = folder.join(".modhost/components");
    let compiled = std::fs::read_dir(&cache)?.next().context("the first component wasn't compiled")??.path();
    let name = compiled.file_name().and_then(|name| name.to_str()).context("its name")?;
    // The file name starts with the hash of the component.
    let (_, rest) = name.split_once('-').context("its name has no separator")?;
    for number in 1..modules {
        let hash = hex::encode(Sha256::digest(std::fs::read(component(folder, number))?));
        std::fs::copy(&compiled, cache.join(format!("{hash}-{rest}")))?;
    }
    Ok(())
}

impl Host {
    /// Starts a host, and waits until its modules are loaded.
    pub fn start(mode: Mode, folder: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_modhost"));
        match mode {
            Mode::Serve => command.arg("serve"),
            Mode::Dev => command.args(["dev", "--no-build", "--platform-port", "0"]),
        };
        command.args(["--port", "0", "--admin-port", "0"]).current_dir(folder).env("BENCH_SECRET", "c2VjcmV0");
        // With many modules, `dev` logs no more than `serve`.
        command.env("MODHOST_LOG", "modhost_runtime::engine=debug,modhost_server::host=debug,modhost=warn");
        let started = Instant::now();
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let log = lines(process.stderr.take());
        let mut host = Self { process, log, started: Duration::ZERO, compiled: 0, public: String::new() };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = host.log.recv_timeout(deadline - Instant::now()).context("the host failed to start")?;
            host.compiled += usize::from(line.contains("component compiled"));
            if let Some((_, address)) = line.split_once("listening public=") {
                host.public = format!("http://{}", address.split(' ').next().unwrap_or_default());
            }
            if line.contains("modules started") {
                host.started = started.elapsed();
                return Ok(host);
            }
        }
    }

    /// Waits for the next log line with these words, and returns it.
    pub fn wait_for(&self, words: &str) -> anyhow::Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.log.recv_timeout(deadline - Instant::now()).with_context(|| format!("no {words:?}"))?;
            if line.contains(words) {
                return Ok(line);
            }
            if line.contains("ERROR") {
                bail!("the host logged: {line}");
            }
        }
    }

    /// Returns its memory use in bytes.
    pub fn resident(&self) -> anyhow::Result<u64> {
        process::resident(&self.process.id().to_string())
    }

    /// Returns the CPU time that it has used.
    pub fn cpu_time(&self) -> anyhow::Result<Duration> {
        process::cpu_time(&self.process.id().to_string())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Sends the lines of a stream as they arrive.
fn lines(stream: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        for line in stream.into_iter().flat_map(|stream| BufReader::new(stream).lines().map_while(Result::ok)) {
            // Reads to the end even without a receiver: otherwise the host would block on the pipe.
            let _ = send.send(line);
        }
    });
    receive
}
