//! The measured modules, created and built with the ordinary commands.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use modhost_authoring::names::Names;
use modhost_authoring::template::{Language, Template};
use modhost_config::Settings;
use modhost_contract::compat;

/// A built module.
pub struct Made {
    /// Its language, as displayed.
    pub language: String,
    /// The tools that made it, from the component's metadata.
    pub tools: String,
    /// Its component.
    pub component: PathBuf,
    /// The modules.toml with its entry.
    pub settings: PathBuf,
    /// The folder of its sources.
    pub folder: PathBuf,
}

/// Creates and builds a module in a language.
pub fn make(folder: &Path, language: Language) -> anyhow::Result<Made> {
    let (name, settings) = (format!("Bench-{}", language.folder()), folder.join(format!("{}.toml", language.folder())));
    let names = Names::new(&name, None).map_err(anyhow::Error::msg)?;
    let file = settings.to_str().context("a folder that is text")?;
    run(modhost().args(["new", &name, "--lang", language.folder(), "--config", file]))?;
    let own = folder.join(&names.package);
    if own.join("package-lock.json").is_file() {
        run(Command::new("npm").args(["ci", "--silent", "--no-audit", "--no-fund"]).current_dir(&own))?;
    }
    run(modhost().args(["build", "--config", file]))?;
    let component = Settings::load(&settings)?.modules.first().context("the module")?.component.clone();
    let (language, tools) = (Template::of(language).language().to_owned(), tools(&component)?);
    Ok(Made { language, tools, component, settings, folder: own })
}

/// A command of this modhost, with the tools in its path.
pub fn modhost() -> Command {
    let mut modhost = Command::new(env!("CARGO_BIN_EXE_modhost"));
    let toolchains = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/toolchains/venv/bin");
    let usual = std::env::var_os("PATH").unwrap_or_default();
    if let Ok(path) = std::env::join_paths(std::env::split_paths(&usual).chain([toolchains])) {
        modhost.env("PATH", path);
    }
    for variable in ["CARGO_TARGET_DIR", "RUSTUP_TOOLCHAIN", "MODHOST_CONFIG"] {
        modhost.env_remove(variable);
    }
    modhost
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let done = command.output()?;
    let (stdout, stderr) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    ensure!(done.status.success(), "{command:?}: {}\n{stdout}\n{stderr}", done.status);
    Ok(())
}

/// Returns the tools named in a component's metadata.
fn tools(component: &Path) -> anyhow::Result<String> {
    let component_info = compat::examine(&std::fs::read(component)?, compat::MAX_SIZE)?;
    let producers = component_info.producers;
    Ok(producers.languages.into_iter().chain(producers.tools).collect::<Vec<_>>().join(", "))
}
