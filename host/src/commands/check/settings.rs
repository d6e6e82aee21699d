//! `modhost check` without a component: validates the settings and the components of all modules.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use futures::StreamExt;
use serde::Serialize;

use super::{BAD, DIM, GOOD};
use crate::commands::diagnostics::WARNING;
use crate::commands::{SettingsFile, caching_engine};
use modhost_config::{ConfigErrors, Module, Settings, read_failed};
use modhost_core::event::Name;
use modhost_core::files::{self, ReadError};
use modhost_platform::TenantHttpClients;
use modhost_runtime::engine::Engine;
use modhost_server::resolved_config::{self, ResolvedConfig};
use modhost_storage::versions::ContentHash;

/// The result for the settings, as `--json` prints it.
#[derive(Serialize)]
pub(super) struct Report {
    /// Whether the host can start and all modules can serve.
    serves: bool,
    file: PathBuf,
    /// Errors that prevent the host from starting.
    problems: Vec<String>,
    /// Warnings that do not prevent the host from starting.
    warnings: Vec<String>,
    modules: Vec<ModuleReport>,
}

#[derive(Serialize)]
struct ModuleReport {
    name: Name,
    component: PathBuf,
    /// The version that can serve.
    version: Option<String>,
    /// Why no version can serve.
    refused: Option<String>,
}

impl Report {
    /// Reads the settings, resolves their references, and compiles all components with the limits of the host.
    ///
    /// # Errors
    ///
    /// If the compiler cannot be started.
    pub(super) async fn of(file: &SettingsFile) -> anyhow::Result<Self> {
        let settings = match file.load() {
            Ok(settings) => settings,
            Err(errors) => return Ok(Self::new(&file.config, Some(errors), Vec::new(), Vec::new())),
        };
        let to_resolve = settings.clone();
        let resolved = files::blocking_with_timeout(files::READ_TIMEOUT, move || {
            ResolvedConfig::new(&to_resolve, &TenantHttpClients::default()).map(|_| ())
        });
        let problems = resolved.unwrap_or_else(|error| Err(read_failed(&error).into())).err();
        let engine = caching_engine(&settings, 1)?;
        let checked = settings.modules.iter().map(|module| ModuleReport::of(&engine, module));
        // One more than can be compiled at a time: it is read meanwhile.
        let concurrency = settings.server.compiler.processes.saturating_add(1);
        let modules = futures::stream::iter(checked).buffered(concurrency).collect().await;
        let warnings = settings.warnings().iter().map(ToString::to_string).collect();
        Ok(Self::new(&settings.file, problems, warnings, modules))
    }

    fn new(file: &Path, problems: Option<ConfigErrors>, warnings: Vec<String>, modules: Vec<ModuleReport>) -> Self {
        let problems: Vec<_> = problems.iter().flat_map(ConfigErrors::iter).map(ToString::to_string).collect();
        let serves = problems.is_empty() && modules.iter().all(|module| module.refused.is_none());
        Self { serves, file: file.to_owned(), problems, warnings, modules }
    }

    /// Returns whether the host can start and all modules can serve.
    pub(super) fn serves(&self) -> bool {
        self.serves
    }

    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let file = self.file.display();
        match self.problems.is_empty() {
            true => writeln!(out, "{GOOD}valid{GOOD:#}: {file}: the host can start")?,
            false => writeln!(out, "{BAD}invalid{BAD:#}: {file}: the host cannot start")?,
        }
        for problem in &self.problems {
            writeln!(out, "\n{BAD}error:{BAD:#} {problem}")?;
        }
        for warning in &self.warnings {
            writeln!(out, "\n{WARNING}warning:{WARNING:#} {warning}")?;
        }
        if !(self.modules.is_empty() || self.problems.is_empty() && self.warnings.is_empty()) {
            writeln!(out)?;
        }
        for ModuleReport { name, component, version, refused } in &self.modules {
            let component = component.display();
            match (version, refused) {
                (_, Some(refused)) => writeln!(out, "{BAD}cannot serve{BAD:#} {name}: {component}: {refused}")?,
                (version, None) => {
                    let version = version.as_deref().unwrap_or_default();
                    writeln!(out, "{GOOD}can serve{GOOD:#} {name}: {component} {DIM}version {version}{DIM:#}")?;
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

/// Returns the version of a module's component, or why it cannot serve.
async fn version(engine: &Engine, module: &Module) -> Result<ContentHash, String> {
    let bytes = super::bytes(&module.component).map_err(|error| match &module.build {
        Some(_) if error.is_not_found() => {
            format!("there is no such file; to build it, run `modhost build {}`", module.name)
        }
        _ => match error {
            ReadError::NotRegular(kind) => Settings::invalid_component(module, kind).to_string(),
            error => match super::read_problem(&error) {
                (problem, Some(help)) => format!("{problem}; {help}"),
                (problem, None) => problem,
            },
        },
    })?;
    let version = engine.load(bytes, &resolved_config::spec(module)).await.map_err(|refused| refused.to_string())?;
    Ok(version.hash())
}
