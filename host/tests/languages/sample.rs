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
    /// The program that its build can't do without.
    pub tool: &'static str,
}

/// Which samples are built, so that each is once.
static BUILT: Mutex<Vec<&str>> = Mutex::new(Vec::new());

impl Sample {
    /// A host with the module, after it was built; none if its tools aren't there.
    pub fn settings(&self) -> Option<Settings> {
        let folder = repository().join(self.folder);
        if !self.is_buildable() {
            return None;
        }
        self.build(&folder);
        let component = folder.join("assistant.wasm");
        let lines = "retry = { attempts = 1 }\nlimits = { memory = \"256MiB\" }";
        Some(Settings::new().module_file(self.name, component.to_str().unwrap(), lines))
    }

    /// Starts a host with the module, and waits until it is compiled: on a busy machine that takes longer than anything else
    /// in the tests.
    pub async fn start(&self, settings: Settings) -> Host {
        const PATIENCE: Duration = Duration::from_secs(600);
        let host = settings.start().await;
        let deadline = Instant::now() + PATIENCE;
        while host.module(self.name).await["version"].is_null() {
            assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {} to be compiled", self.folder);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        host
    }

    fn is_buildable(&self) -> bool {
        let found = path().iter().any(|folder| folder.join(self.tool).is_file());
        if !found {
            let what = format!("{} needs `{}`, which is not there", self.folder, self.tool);
            assert!(env::var_os("MODHOST_TOOLCHAINS").is_none_or(|value| value != "required"), "{what}");
            eprintln!("\n=== SKIPPED: {what}. Its README says how to get it.\n");
        }
        found
    }

    /// Runs the build as `modhost dev` does: in the folder, with its tools and this very modhost in the path. It isn't left
    /// to `dev` itself, as a compiler that fills its cache may take longer than a host may to start.
    fn build(&self, folder: &Path) {
        let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
        if built.contains(&self.folder) {
            return;
        }
        let modhost = Path::new(env!("CARGO_BIN_EXE_modhost")).parent().unwrap().to_owned();
        let own = [folder.join(".venv/bin"), folder.join("node_modules/.bin"), modhost];
        let path = env::join_paths(own.into_iter().chain(path())).unwrap();
        let status = Command::new("sh").arg("build.sh").current_dir(folder).env("PATH", path).status().unwrap();
        assert!(status.success(), "{} can't be built: {status}", self.folder);
        built.push(self.folder);
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Where programs are looked for.
fn path() -> Vec<PathBuf> {
    let toolchains = repository().join("target/toolchains");
    let usual = env::var_os("PATH").unwrap_or_default();
    let installed = [toolchains.join("venv/bin"), toolchains.join("node/node_modules/.bin")];
    env::split_paths(&usual).chain(installed).collect()
}
