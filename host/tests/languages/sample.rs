//! Modules that are built by external tools.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::harness::{Host, Settings};
use super::toolchains::{self, Toolchain};

/// A module in a folder of its own.
pub struct Sample {
    /// Its name in modules.toml, or a name for the test alone.
    pub name: &'static str,
    /// The folder, relative to the root of the repository.
    pub folder: &'static str,
    /// The toolchain that builds it.
    pub toolchain: Toolchain,
    /// The build command, as in `build` of modules.toml.
    pub build: &'static str,
}

/// The samples that were already built in this process.
static BUILT: Mutex<Vec<&str>> = Mutex::new(Vec::new());

impl Sample {
    /// The settings of a host with the module, after it was built; `None` if its tools are missing.
    pub fn settings(&self) -> Option<Settings> {
        let folder = repository().join(self.folder);
        let tools = toolchains::find(self.toolchain, self.folder)?;
        if folder.join("package-lock.json").is_file() && !toolchains::install_packages(&folder, self.folder) {
            return None;
        }
        self.build(&folder, tools);
        let component = folder.join("assistant.wasm");
        let lines = "retry = { attempts = 1 }\nlimits = { memory = \"256MiB\" }";
        Some(Settings::new().module_file(self.name, component.to_str().unwrap(), lines))
    }

    /// Starts a host with the module, and waits until it is compiled.
    pub async fn start(&self, settings: Settings) -> Host {
        let host = settings.start().await;
        until_compiled(&host, self.name).await;
        host
    }

    /// Runs the build as `modhost dev` does: in the folder, with the tools and this modhost in PATH. `dev` itself
    /// doesn't run it, because a compiler that fills its cache may take longer than the time limit for starting a host.
    fn build(&self, folder: &Path, mut tools: Vec<PathBuf>) {
        let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
        if built.contains(&self.folder) {
            return;
        }
        let modhost = Path::new(env!("CARGO_BIN_EXE_modhost")).parent().unwrap().to_owned();
        tools.extend([folder.join("node_modules/.bin"), modhost]);
        let mut build = Command::new("sh");
        build.args(["-c", self.build]).current_dir(folder).env("PATH", toolchains::path_with(&tools));
        let status = build.status().unwrap();
        assert!(status.success(), "{} can't be built: {status}", self.folder);
        built.push(self.folder);
    }
}

/// Waits until a module is compiled: on a busy machine that takes longer than anything else in the tests.
pub async fn until_compiled(host: &Host, module: &str) {
    const PATIENCE: Duration = Duration::from_secs(600);
    let deadline = Instant::now() + PATIENCE;
    while host.module(module).await["version"].is_null() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {module} to be compiled:\n{}", host.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}
