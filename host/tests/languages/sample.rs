//! Modules that are built by tools this repository doesn't bring along.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::harness::{Host, Settings};

/// A module in a folder of its own.
pub struct Sample {
    /// Its name, in the file it stands in or for the test alone.
    pub name: &'static str,
    /// The folder, from the top of the repository.
    pub folder: &'static str,
    /// The program that its build can't do without, in the path or among the tools of the folder.
    pub tool: &'static str,
    /// How it is built there, as `build` in modules.toml has it.
    pub build: &'static str,
}

/// Which samples are built, so that each is once.
static BUILT: Mutex<Vec<&str>> = Mutex::new(Vec::new());

impl Sample {
    /// A host with the module, after it was built; none if its tools aren't there.
    pub fn settings(&self) -> Option<Settings> {
        let folder = repository().join(self.folder);
        if !is_found(self.folder, self.tool, tools(&folder).into_iter().chain([folder.clone()]).chain(path())) {
            return None;
        }
        self.build(&folder);
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

    /// Runs the build as `modhost dev` does: in the folder, with its tools and this very modhost in the path. It isn't left
    /// to `dev` itself, as a compiler that fills its cache may take longer than a host may to start.
    fn build(&self, folder: &Path) {
        let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
        if built.contains(&self.folder) {
            return;
        }
        let modhost = Path::new(env!("CARGO_BIN_EXE_modhost")).parent().unwrap().to_owned();
        let path = env::join_paths(tools(folder).into_iter().chain([modhost]).chain(path())).unwrap();
        let status =
            Command::new("sh").args(["-c", self.build]).current_dir(folder).env("PATH", path).status().unwrap();
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

/// Whether a program is there that something is built by; says so loudly where it isn't.
pub fn is_there(what: &str, tool: &str) -> bool {
    is_found(what, tool, path())
}

fn is_found(what: &str, tool: &str, folders: impl IntoIterator<Item = PathBuf>) -> bool {
    let found = folders.into_iter().any(|folder| folder.join(tool).is_file());
    if !found {
        let what = format!("{what} needs `{tool}`, which is not there");
        assert!(env::var_os("MODHOST_TOOLCHAINS").is_none_or(|value| value != "required"), "{what}");
        eprintln!("\n=== SKIPPED: {what}. Its README says how to get it.\n");
    }
    found
}

/// Where a module's folder has tools of its own.
fn tools(folder: &Path) -> [PathBuf; 2] {
    [folder.join(".venv/bin"), folder.join("node_modules/.bin")]
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Where programs are looked for.
pub fn path() -> Vec<PathBuf> {
    let toolchains = repository().join("target/toolchains");
    let usual = env::var_os("PATH").unwrap_or_default();
    let installed = [toolchains.join("venv/bin"), toolchains.join("node/node_modules/.bin")];
    env::split_paths(&usual).chain(installed).collect()
}
