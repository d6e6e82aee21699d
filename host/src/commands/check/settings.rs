//! `check` without a component: would a host start with these settings, and which of its modules could serve?

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use futures::StreamExt;
use serde::Serialize;

use super::{ASIDE, BAD, GOOD};
use crate::commands::{SettingsFile, keeping_engine};
use modhost_config::{ConfigErrors, Module, Settings, unanswered};
use modhost_core::event::Name;
use modhost_core::files::{self, ReadError};
use modhost_platform::http_client;
use modhost_runtime::engine::Engine;
use modhost_server::resolved_config::{self, ResolvedConfig};
use modhost_storage::versions::ContentHash;

/// What was found: what `--json` prints.
#[derive(Serialize)]
pub(super) struct Report {
    /// Whether a host starts, and all of its modules serve.
    serves: bool,
    file: PathBuf,
    /// What keeps a host from starting, with what can be done about it.
    problems: Vec<String>,
    /// What a host says, and works with.
    warnings: Vec<String>,
    modules: Vec<ModuleReport>,
}

#[derive(Serialize)]
struct ModuleReport {
    name: Name,
    component: PathBuf,
    /// The version that would serve.
    version: Option<String>,
    /// Why there is none.
    refused: Option<String>,
}

impl Report {
    /// Reads the settings, looks up what they refer to, and compiles every component as the host would that has them.
    ///
    /// # Errors
    ///
    /// When this machine can't compile.
    pub(super) async fn of(file: &SettingsFile) -> anyhow::Result<Self> {
        let settings = match file.load() {
            Ok(settings) => settings,
            Err(errors) => return Ok(Self::new(&file.config, Some(errors), Vec::new(), Vec::new())),
        };
        let client = http_client()?;
        let to_plan = settings.clone();
        let planned = files::within(files::READ_TIMEOUT, move || ResolvedConfig::new(&to_plan, &client).map(|_| ()));
        let problems = planned.unwrap_or_else(|why| Err(unanswered(&why).into())).err();
        let engine = keeping_engine(&settings, 1)?;
        let checked = settings.modules.iter().map(|module| ModuleReport::of(&engine, module));
        // One is read while another is compiled.
        let at_once = settings.server.compiler.processes.saturating_add(1);
        let modules = futures::stream::iter(checked).buffered(at_once).collect().await;
        let warnings = settings.warnings().iter().map(ToString::to_string).collect();
        Ok(Self::new(&settings.file, problems, warnings, modules))
    }

    fn new(file: &Path, problems: Option<ConfigErrors>, warnings: Vec<String>, modules: Vec<ModuleReport>) -> Self {
        let problems: Vec<_> = problems.iter().flat_map(ConfigErrors::iter).map(ToString::to_string).collect();
        let serves = problems.is_empty() && modules.iter().all(|module| module.refused.is_none());
        Self { serves, file: file.to_owned(), problems, warnings, modules }
    }

    /// Whether a host starts, and all of its modules serve.
    pub(super) fn serves(&self) -> bool {
        self.serves
    }

    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let file = self.file.display();
        match self.problems.is_empty() {
            true => writeln!(out, "{GOOD}fine{GOOD:#}: {file}: a host starts with it")?,
            false => writeln!(out, "{BAD}wrong{BAD:#}: {file}: no host starts with it")?,
        }
        for problem in &self.problems {
            writeln!(out, "\n{problem}")?;
        }
        for warning in &self.warnings {
            writeln!(out, "\nwarning: {warning}")?;
        }
        if !(self.modules.is_empty() || self.problems.is_empty() && self.warnings.is_empty()) {
            writeln!(out)?;
        }
        for ModuleReport { name, component, version, refused } in &self.modules {
            let component = component.display();
            match (version, refused) {
                (_, Some(refused)) => writeln!(out, "{BAD}can't serve{BAD:#} {name}: {component}: {refused}")?,
                (version, None) => {
                    let version = version.as_deref().unwrap_or_default();
                    writeln!(out, "{GOOD}can serve{GOOD:#} {name}: {component} {ASIDE}version {version}{ASIDE:#}")?;
                }
            }
        }
        Ok(())
    }
}

impl ModuleReport {
    async fn of(engine: &Engine, module: &Module) -> Self {
        let version = version(engine, module).await;
        let (version, refused) = match version {
            Ok(hash) => (Some(hash.to_string()), None),
            Err(refused) => (None, Some(refused)),
        };
        Self { name: module.name.clone(), component: module.component.clone(), version, refused }
    }
}

/// The version that a module's file would serve as; else why it can't.
async fn version(engine: &Engine, module: &Module) -> Result<ContentHash, String> {
    let bytes = super::bytes(&module.component).map_err(|error| match &module.build {
        Some(_) if error.is_not_found() => format!("there is no such file; `modhost build {}` makes it", module.name),
        _ => match error {
            ReadError::NotRegular(kind) => Settings::no_component(module, kind).to_string(),
            error => super::trouble(&error),
        },
    })?;
    let version = engine.load(bytes, &resolved_config::spec(module)).await.map_err(|refused| refused.to_string())?;
    Ok(version.hash())
}
