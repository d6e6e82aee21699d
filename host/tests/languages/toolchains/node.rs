//! Node and npm, and the packages of `package-lock.json` files.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Found;
use super::environment::{are_in, describe};
use super::machine::{Machine, version};

const OLDEST: (u32, u32) = (20, 0);

/// The JavaScript SDK, with the bundler and QuickJS that make components.
const SDK: &str = "sdk-guest/js";

impl Machine {
    /// Node and npm, with the packages of the SDK installed.
    pub fn javascript_tools(&self) -> Found {
        let (node, _) = self.node()?;
        let folder = self.repository.join(SDK);
        let loads = || self.loads(&node);
        self.install(&folder, || is_installed(&folder, &self.repository) && loads().is_ok())
            // The error names the package that doesn't load.
            .map_err(|why| {
                loads().err().filter(|_| is_installed(&folder, &self.repository)).map_or(why, |loading| {
                    format!("{loading}. To have it, see {SDK}/README.md for the systems it runs on")
                })
            })?;
        Ok(node.parent().map(Path::to_owned).into_iter().collect())
    }

    /// Installs the packages of the `package-lock.json` in a folder, unless they are installed.
    pub fn packages(&self, folder: &Path) -> Result<(), String> {
        self.install(folder, || is_installed(folder, &self.repository))
    }

    fn install(&self, folder: &Path, is_installed: impl Fn() -> bool) -> Result<(), String> {
        if is_installed() {
            return Ok(());
        }
        let (_, npm) = self.node()?;
        let what = format!("JavaScript's packages in {}", folder.display());
        self.set_up(
            &what,
            || is_installed().then_some(()),
            |until| {
                // Fails fast without a network.
                let bounds = ["--fetch-retries=1", "--fetch-timeout=30000"];
                let args = ["ci", "--no-audit", "--no-fund", "--loglevel=error", "--include=dev", "--include=optional"];
                self.run(&npm, &[&args[..], &bounds].concat(), folder, until).map(drop)
            },
        )
    }

    /// The first Node in `PATH` of a sufficient version with npm, and that npm.
    fn node(&self) -> Result<(PathBuf, PathBuf), String> {
        let (mut others, npms) = (Vec::new(), self.programs(&["npm"]));
        for node in self.programs(&["node"]) {
            let found = self.ask(&node, &["--version"]);
            match found.as_deref().map(version) {
                Ok(Some(version)) if version >= OLDEST => {
                    let beside = node.with_file_name("npm");
                    match npms.iter().find(|npm| **npm == beside).or(npms.first()) {
                        Some(npm) => return Ok((node, npm.clone())),
                        None => others.push(format!("{} has no npm", node.display())),
                    }
                }
                _ => others.push(describe(&node, found)),
            }
        }
        let others = if others.is_empty() { "there is no node in PATH".to_owned() } else { others.join(", ") };
        Err(format!("{others}. To have it, install Node 20 or newer with npm (https://nodejs.org; Debian: nodejs npm)"))
    }

    /// Checks that the program that makes components of JavaScript can be loaded, including QuickJS.
    fn loads(&self, node: &Path) -> Result<(), String> {
        let file = |name: &str| Value::from(self.repository.join(SDK).join(name).to_string_lossy()).to_string();
        let script = format!(
            "import {{ quickJs }} from {}; import {}; quickJs();",
            file("bin/quickjs.js"),
            file("node_modules/esbuild/lib/main.js")
        );
        self.ask(node, &["--input-type=module", "-e", &script]).map(drop)
    }
}

/// Reports whether `node_modules` matches `package-lock.json` and has the current SDK of the repository.
fn is_installed(folder: &Path, repository: &Path) -> bool {
    let packages = |file: &str| {
        let text = fs::read_to_string(folder.join(file)).ok()?;
        let mut lock: Value = serde_json::from_str(&text).ok()?;
        Some(lock["packages"].take())
    };
    let (Some(wanted), Some(there)) = (packages("package-lock.json"), packages("node_modules/.package-lock.json"))
    else {
        return false;
    };
    let (Some(wanted), Some(there)) = (wanted.as_object(), there.as_object()) else { return false };
    // Optional packages are either for other systems, or loading them fails with its own error.
    let needed = wanted.iter().filter(|(path, package)| !path.is_empty() && package["optional"] != true);
    let is_there = |path: &str| there.contains_key(path) && folder.join(path).is_dir();
    let complete = needed.map(|(path, _)| path).all(|path| is_there(path));
    let current = there.iter().all(|(path, package)| wanted.get(path) == Some(package));
    complete && current && has_sdk(folder, repository)
}

/// Reports whether the copy of the SDK among the packages is current.
fn has_sdk(folder: &Path, repository: &Path) -> bool {
    let copy = folder.join("node_modules/@modhost/sdk");
    if !copy.exists() {
        return true;
    }
    let sdk = if folder.join("sdk/package.json").is_file() { folder.join("sdk") } else { repository.join(SDK) };
    ["bin", "src", "types"]
        .iter()
        .all(|part| ["js", "ts", "wit"].iter().all(|ending| are_in(&sdk.join(part), &copy.join(part), ending)))
}
