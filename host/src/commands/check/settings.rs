//! `modhost check` without a component: validates the settings and the components of all modules.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use futures::StreamExt;
use serde::Serialize;

use super::{BAD, DIM, GOOD};
use crate::commands::diagnostics::WARNING;
use crate::commands::{SettingsFile, caching_engine};
use modhost_config::{ConfigErrors, IncludedFile, Module, Settings, read_failed};
use modhost_core::event::Name;
use modhost_core::files::{self, ReadError};
use modhost_core::plural::counted;
use modhost_runtime::engine::Engine;
use modhost_server::host;
use modhost_server::resolved_config;
use modhost_storage::versions::ContentHash;

/// The result for the settings, as `--json` prints it.
#[derive(Serialize)]
pub(super) struct Report {
    /// Whether the host can start and all modules can serve.
    serves: bool,
    file: PathBuf,
    /// Errors that prevent the host from starting.
    problems: Vec<String>,
    /// How many files it includes.
    included: usize,
    /// The included files that the host would refuse.
    refused_files: Vec<RefusedFile>,
    /// Warnings that do not prevent the host from starting.
    warnings: Vec<String>,
    modules: Vec<ModuleReport>,
}

/// An included file that the host would refuse. The host starts without it, or with what it accepted of it last.
#[derive(Serialize)]
struct RefusedFile {
    file: PathBuf,
    problems: Vec<String>,
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
        let path = file.config.clone();
        let examined = files::blocking_with_timeout(files::READ_TIMEOUT, move || host::examine_settings(&path));
        let (settings, problems) = match examined.unwrap_or_else(|error| Err(read_failed(&error).into())) {
            Ok(examined) => examined,
            Err(errors) => return Ok(Self::new(&file.config, Some(errors), &[], Vec::new(), Vec::new())),
        };
        let engine = caching_engine(&settings, 1)?;
        let checked = settings.modules.iter().map(|module| ModuleReport::of(&engine, module));
        // One more than can be compiled at a time: it is read meanwhile.
        let concurrency = settings.server.compiler.processes.saturating_add(1);
        let modules = futures::stream::iter(checked).buffered(concurrency).collect().await;
        let warnings = settings.warnings().iter().map(ToString::to_string).collect();
        Ok(Self::new(&settings.file, problems, &settings.included, warnings, modules))
    }

    fn new(
        file: &Path,
        problems: Option<ConfigErrors>,
        included: &[IncludedFile],
        warnings: Vec<String>,
        modules: Vec<ModuleReport>,
    ) -> Self {
        let texts = |errors: &ConfigErrors| errors.iter().map(ToString::to_string).collect::<Vec<_>>();
        let problems: Vec<_> = problems.iter().flat_map(texts).collect();
        let refused = included.iter().filter_map(|it| Some((it.path.clone(), texts(it.refused.as_ref()?))));
        let refused_files: Vec<_> = refused.map(|(file, problems)| RefusedFile { file, problems }).collect();
        let is_valid = problems.is_empty() && refused_files.is_empty();
        let serves = is_valid && modules.iter().all(|module| module.refused.is_none());
        let included = included.iter().filter(|it| it.path != file).count();
        Self { serves, file: file.to_owned(), problems, included, refused_files, warnings, modules }
    }

    /// Returns how many included files the host accepts, for display.
    fn included_files(&self) -> String {
        match self.included {
            0 => String::new(),
            included => {
                let files = counted(included, "included file", "included files");
                match self.refused_files.iter().filter(|it| it.file != self.file).count() {
                    0 => format!(" and {files}"),
                    refused => format!(" and {} of {files}", included.saturating_sub(refused)),
                }
            }
        }
    }

    /// Returns whether the host can start and all modules can serve.
    pub(super) fn serves(&self) -> bool {
        self.serves
    }

    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let file = self.file.display();
        match self.problems.is_empty() {
            true => writeln!(out, "{GOOD}valid{GOOD:#}: {file}{}: the host can start", self.included_files())?,
            false => writeln!(out, "{BAD}invalid{BAD:#}: {file}: the host cannot start")?,
        }
        for problem in &self.problems {
            writeln!(out, "\n{BAD}error:{BAD:#} {problem}")?;
        }
        for RefusedFile { file, problems } in &self.refused_files {
            let effect = match *file == self.file {
                true => "not all files that it includes are known",
                false => "its tenant keeps the settings that the host accepted last, if any",
            };
            writeln!(out, "\n{BAD}refused{BAD:#}: {}: {effect}", file.display())?;
            for problem in problems {
                writeln!(out, "\n{BAD}error:{BAD:#} {problem}")?;
            }
        }
        for warning in &self.warnings {
            writeln!(out, "\n{WARNING}warning:{WARNING:#} {warning}")?;
        }
        let is_plain = self.problems.is_empty() && self.warnings.is_empty() && self.refused_files.is_empty();
        if !(self.modules.is_empty() || is_plain) {
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
