//! The modules that are measured: made and built as anybody would.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use modhost_authoring::names::Names;
use modhost_authoring::template::{Language, Template};
use modhost_config::Settings;
use modhost_contract::compat;

/// A module that was built.
pub struct Made {
    /// What it is written in, for people.
    pub language: String,
    /// What it was made with, as the component has it.
    pub tools: String,
    /// Its component.
    pub component: PathBuf,
    /// The modules.toml it stands in.
    pub settings: PathBuf,
    /// Where its author writes.
    pub folder: PathBuf,
}

/// Makes the module of a language and builds it.
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

/// This modhost, with the tools in its path.
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

/// What a component says it was made with.
fn tools(component: &Path) -> anyhow::Result<String> {
    let component_info = compat::examine(&std::fs::read(component)?, compat::MAX_SIZE)?;
    let producers = component_info.producers;
    Ok(producers.languages.into_iter().chain(producers.tools).collect::<Vec<_>>().join(", "))
}
