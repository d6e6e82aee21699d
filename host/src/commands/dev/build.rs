//! Builds modules with their build commands, at the start and when their sources change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::build_outputs::BuildOutputs;
use crate::commands::build_command::{BuildCommand, Purpose};
use crate::commands::diagnostics::{self, error_with_help};
use crate::commands::output;
use crate::commands::test::TESTS_FOLDER;
use modhost_config::Settings;
use modhost_core::event::Name;
use modhost_core::sync::lock;
use modhost_runtime::engine::FileWatch;

/// Folders that build tools write to. Changes in them are ignored.
const BUILD_FOLDERS: [&str; 5] = ["target", "node_modules", "__pycache__", "dist", "build"];

/// Maximum depth of source folders.
const MAX_DEPTH: usize = 16;

/// The modules that can be built.
pub(in crate::commands) struct Builder {
    file: PathBuf,
    modules: Arc<Mutex<Vec<BuildableModule>>>,
    /// The files that builds write, by module.
    outputs: Mutex<BTreeMap<Name, BuildOutputs>>,
}

#[derive(Clone)]
struct BuildableModule {
    name: Name,
    command: BuildCommand,
    component: PathBuf,
    sources: Vec<PathBuf>,
    /// Files among the sources that are none: the component and the tests.
    excluded: Vec<PathBuf>,
}

impl Builder {
    pub(in crate::commands) fn new(settings: &Settings) -> Self {
        let modules = Arc::new(Mutex::new(buildable(settings)));
        Self { file: settings.file.clone(), modules, outputs: Mutex::default() }
    }

    /// Replaces the modules with those of these settings.
    pub(super) fn set(&self, settings: &Settings) {
        *lock(&self.modules) = buildable(settings);
    }

    /// Builds every module whose component may be out of date. Failures are logged.
    pub(super) async fn build_all(&self) {
        let modules = lock(&self.modules).clone();
        for module in modules {
            if module.is_up_to_date() {
                tracing::info!(module = %module.name, "component is up to date");
            } else {
                self.build(&module).await;
            }
        }
    }

    /// Builds the modules that have one of these files among their sources.
    pub(super) async fn build_changed(&self, changed: &BTreeSet<PathBuf>) {
        let modules = lock(&self.modules).clone();
        for module in modules {
            let changed = changed.iter().filter(|file| module.has_source(file));
            let is_outdated = {
                let mut outputs = lock(&self.outputs);
                let outputs = outputs.entry(module.name.clone()).or_default();
                // Without short-circuiting, because the check updates what is known of each file.
                changed.filter(|file| outputs.is_source_change(file)).count() > 0
            };
            if is_outdated {
                self.build(&module).await;
            }
        }
    }

    /// Builds those of the named modules whose component is missing or older than a source file. Prints progress and errors to
    /// standard error. Returns the modules that could not be built.
    pub(in crate::commands) async fn build_outdated(&self, names: &[Name]) -> Vec<Name> {
        let modules = lock(&self.modules).clone();
        let mut failed = Vec::new();
        for module in modules.iter().filter(|module| names.contains(&module.name) && module.is_outdated()) {
            output::eprintln!("building {}: {}", module.name, module.command.text);
            let (problem, help) = match self.run(module, Purpose::Serve).await {
                Ok(status) if status.success() => continue,
                Ok(status) => {
                    (format!("the build command failed ({status})"), module.command.missing_tool_advice(status))
                }
                Err(problem) => (problem, None),
            };
            let message = format!("cannot build module {}: {problem}", module.name);
            diagnostics::report(&match help {
                Some(help) => error_with_help(message, help),
                None => anyhow::anyhow!(message),
            });
            failed.push(module.name.clone());
        }
        failed
    }

    /// Watches the settings and the sources of all modules.
    pub(super) fn watch(&self) -> FileWatch {
        let (file, modules) = (self.file.clone(), self.modules.clone());
        FileWatch::new(move || files(&file, &lock(&modules)))
    }

    /// Returns the settings file and the current source files of all modules.
    pub(in crate::commands) fn files(&self) -> BTreeSet<PathBuf> {
        files(&self.file, &lock(&self.modules))
    }

    /// Builds a module and logs the result.
    async fn build(&self, module: &BuildableModule) {
        let name = &module.name;
        tracing::info!(module = %name, command = module.command.text, "building module");
        let started = Instant::now();
        match self.run(module, Purpose::Dev).await {
            Ok(status) if status.success() => {
                let elapsed = format!("{:.1} s", started.elapsed().as_secs_f64());
                tracing::info!(module = %name, elapsed, "built module");
            }
            Ok(status) => {
                let help = module.command.missing_tool_advice(status);
                tracing::error!(module = %name, %status, help, "build failed; the previous version continues to serve");
            }
            Err(error) => tracing::error!(module = %name, error, "cannot build module"),
        }
    }

    /// Runs the build command, and records which files it wrote.
    async fn run(&self, module: &BuildableModule, purpose: Purpose) -> Result<ExitStatus, String> {
        lock(&self.outputs).entry(module.name.clone()).or_default().begin(&module.files());
        let result = module.command.run(purpose).await;
        lock(&self.outputs).entry(module.name.clone()).or_default().end(&module.files());
        result
    }
}

impl BuildableModule {
    /// Returns whether the component is newer than its sources and tools. Always false for Cargo, which checks this itself in a
    /// moment, and knows dependencies outside of the folder.
    fn is_up_to_date(&self) -> bool {
        let Ok(built) = std::fs::metadata(&self.component).and_then(|it| it.modified()) else { return false };
        let is_newer = |path: PathBuf| std::fs::metadata(path).and_then(|it| it.modified()).is_ok_and(|it| it > built);
        !self.command.calls("cargo") && !self.is_outdated() && !self.command.tools().into_iter().any(is_newer)
    }

    /// Returns whether the component is missing or older than a source file.
    fn is_outdated(&self) -> bool {
        let Ok(built) = std::fs::metadata(&self.component).and_then(|it| it.modified()) else { return true };
        let changed = |source: &PathBuf| std::fs::metadata(source).and_then(|it| it.modified());
        self.files().iter().any(|source| changed(source).is_ok_and(|changed| changed > built))
    }

    /// Returns the current source files.
    fn files(&self) -> BTreeSet<PathBuf> {
        let mut files = BTreeSet::new();
        for source in &self.sources {
            collect_files(source, &self.excluded, MAX_DEPTH, &mut files);
        }
        files
    }

    /// Returns whether a file is in one of the source folders.
    fn has_source(&self, file: &Path) -> bool {
        self.sources.iter().any(|folder| file.starts_with(folder))
    }
}

fn files(settings: &Path, modules: &[BuildableModule]) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::from([settings.to_owned()]);
    for module in modules {
        files.append(&mut module.files());
    }
    files
}

fn buildable(settings: &Settings) -> Vec<BuildableModule> {
    let modules = settings.modules.iter().filter_map(|module| {
        let command = BuildCommand::of(module)?;
        let (component, sources) = (module.component.clone(), module.watch.clone());
        // A changed test does not require a build.
        let tests = module.folder.iter().map(|folder| folder.join(TESTS_FOLDER));
        let excluded = tests.chain([component.clone()]).collect();
        Some(BuildableModule { name: module.name.clone(), command, component, sources, excluded })
    });
    modules.collect()
}

/// Collects the files below a path, except those in build folders and those in `excluded`.
fn collect_files(path: &Path, excluded: &[PathBuf], depth: usize, files: &mut BTreeSet<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(path) else {
        files.insert(path.to_path_buf());
        return;
    };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if name.starts_with('.') || excluded.contains(&path) {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => {
                if depth > 0 && !BUILD_FOLDERS.contains(&&*name) {
                    collect_files(&path, excluded, depth - 1, files);
                }
            }
            Ok(_) => drop(files.insert(path)),
            Err(_) => {}
        }
    }
}
