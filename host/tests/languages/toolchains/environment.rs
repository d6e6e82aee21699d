//! The virtual environment with the tools from PyPI: Python's tools and this repository's SDK, Go, Zig.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::Found;
use super::machine::{Machine, version};

/// The oldest Python that supports the Python SDK and the Go bindings.
const OLDEST_PYTHON: (u32, u32) = (3, 11);
const OLDEST_GO: (u32, u32) = (1, 26);

/// A Python program that prints every installed distribution with its version.
const DISTRIBUTIONS: &str = "import importlib.metadata as m
for it in m.distributions(): print(f'{it.name}=={it.version}')";

impl Machine {
    pub fn python_tools(&self) -> Found {
        self.in_environment("Python's tools", "plugins/assistant-python/requirements.txt", true)
    }

    pub fn zig_tools(&self) -> Found {
        self.in_environment("Zig", "plugins/assistant-c/requirements.txt", false)
    }

    /// A Go of a sufficient version, from PATH or from PyPI.
    pub fn go_tools(&self) -> Found {
        let mut others = Vec::new();
        for go in self.programs(&["go"]) {
            let found = self.ask(&go, &["version"]);
            match found.as_deref().map(version) {
                Ok(Some(version)) if version >= OLDEST_GO => return Ok(parent(&go)),
                _ => others.push(describe(&go, found)),
            }
        }
        self.in_environment("Go", "plugins/assistant-go/requirements.txt", false).map_err(|why| {
            let others = if others.is_empty() { "no Go in PATH".to_owned() } else { others.join(", ") };
            format!("{others}, and no other: {why}, or install Go 1.26 or newer (https://go.dev/dl)")
        })
    }

    /// The folder of the environment's programs, after the pinned packages and, if `sdk`, the SDK were installed.
    fn in_environment(&self, what: &str, requirements: &str, sdk: bool) -> Found {
        let environment = Environment { machine: self, folder: self.folder.join("venv") };
        let pins = pins(&fs::read_to_string(self.repository.join(requirements)).map_err(|error| error.to_string())?);
        let is_done = || environment.has(&pins, sdk).then(|| vec![environment.programs()]);
        if let Some(done) = is_done() {
            return Ok(done);
        }
        let python = self.newest_enough_python()?;
        self.set_up(&format!("{what} in {}", environment.folder.display()), is_done, |until| {
            environment.make(&python, until)?;
            environment.pip(&["--require-hashes", "-r", requirements], until)?;
            if sdk {
                // Installs the current files even if the same version is installed.
                let args = ["--no-deps", "--no-build-isolation", "--force-reinstall", "./sdk-guest/python"];
                environment.pip(&args, until)?;
            }
            Ok(())
        })
    }

    /// The first Python in `PATH` of a sufficient version; programs that can't be started are skipped.
    fn newest_enough_python(&self) -> Result<PathBuf, String> {
        let mut others = Vec::new();
        for python in self.programs(&["python3", "python"]) {
            let found = self.ask(&python, &["--version"]);
            match found.as_deref().map(version) {
                Ok(Some(version)) if version >= OLDEST_PYTHON => return Ok(python),
                _ => others.push(describe(&python, found)),
            }
        }
        let others = if others.is_empty() { "there is no python3 in PATH".to_owned() } else { others.join(", ") };
        Err(format!("{others}. To have it, install Python 3.11 or newer with venv (Debian: python3-venv)"))
    }
}

/// A Python virtual environment.
struct Environment<'m> {
    machine: &'m Machine,
    folder: PathBuf,
}

impl Environment<'_> {
    fn programs(&self) -> PathBuf {
        self.folder.join("bin")
    }

    fn python(&self) -> PathBuf {
        self.programs().join("python")
    }

    /// Reports whether the environment works and has all pinned packages and, if `sdk`, the SDK.
    fn has(&self, pins: &BTreeSet<String>, sdk: bool) -> bool {
        if !self.python().is_file() {
            return false;
        }
        let installed = self.machine.ask(&self.python(), &["-c", DISTRIBUTIONS]).unwrap_or_default();
        let installed: BTreeSet<_> = installed.lines().map(normalized).collect();
        pins.is_subset(&installed) && (!sdk || self.has_sdk())
    }

    /// Reports whether the installed SDK equals the one in this repository.
    fn has_sdk(&self) -> bool {
        let (source, contract) =
            (self.machine.repository.join("sdk-guest/python/src/modhost"), self.machine.repository.join("wit"));
        let packages = fs::read_dir(self.folder.join("lib")).into_iter().flatten().flatten();
        packages
            .map(|it| it.path().join("site-packages/modhost"))
            .any(|package| are_in(&source, &package, "py") && are_in(&contract, &package.join("wit"), "wit"))
    }

    /// Creates the environment, unless it exists with a working pip.
    fn make(&self, python: &Path, until: Instant) -> Result<(), String> {
        if self.python().is_file() && self.machine.ask(&self.python(), &["-m", "pip", "--version"]).is_ok() {
            return Ok(());
        }
        let folder = self.folder.to_string_lossy();
        self.machine.run(python, &["-m", "venv", "--clear", &folder], &self.machine.repository, until)?;
        Ok(())
    }

    fn pip(&self, what: &[&str], until: Instant) -> Result<(), String> {
        // Fails fast without a network.
        let how = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
            "--retries",
            "1",
            "--timeout",
            "20",
        ];
        self.machine.run(&self.python(), &[&how, what].concat(), &self.machine.repository, until)?;
        Ok(())
    }
}

/// The pins of a requirements file: `name==version`.
fn pins(requirements: &str) -> BTreeSet<String> {
    let pins = requirements.lines().filter_map(|line| line.split([' ', ';', '\\']).next());
    pins.filter(|pin| pin.contains("==") && !pin.starts_with('#')).map(normalized).collect()
}

/// Normalizes the name in a pin: PyPI accepts several spellings of it.
fn normalized(pin: &str) -> String {
    let (name, version) = pin.split_once("==").unwrap_or((pin, ""));
    let name: Vec<_> = name.split(['-', '_', '.']).filter(|part| !part.is_empty()).collect();
    format!("{}=={version}", name.join("-").to_lowercase())
}

/// Reports whether all files with this ending below a folder have the same content in another folder.
pub fn are_in(source: &Path, copy: &Path, ending: &str) -> bool {
    fs::read_dir(source).is_ok_and(|entries| {
        entries.flatten().all(|entry| {
            let (from, to) = (entry.path(), copy.join(entry.file_name()));
            if from.is_dir() {
                // Skips folders of tools' caches.
                return from.ends_with("__pycache__") || are_in(&from, &to, ending);
            }
            from.extension().is_none_or(|it| it != ending) || fs::read(&from).ok() == fs::read(&to).ok()
        })
    })
}

fn parent(program: &Path) -> Vec<PathBuf> {
    program.parent().map(Path::to_owned).into_iter().collect()
}

/// Describes why a program can't be used.
pub fn describe(program: &Path, found: Result<String, String>) -> String {
    match found {
        Ok(said) => format!("{} is {}", program.display(), said.trim()),
        Err(why) => format!("{}: {why}", program.display()),
    }
}
