//! Builds modules with the commands modules.toml gives, at the start and when their sources change.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::process::Command;

use crate::config::Settings;
use crate::engine::FileWatch;
use crate::event::Name;

/// Folders whose changes are made by building, not by people.
const MADE_BY_TOOLS: [&str; 5] = ["target", "node_modules", "__pycache__", "dist", "build"];

/// How many folders deep sources are looked for.
const DEPTH: usize = 16;

/// The modules that can be built.
pub(in crate::commands) struct Builder {
    file: PathBuf,
    modules: Arc<Mutex<Vec<Buildable>>>,
}

#[derive(Clone)]
struct Buildable {
    name: Name,
    command: String,
    component: PathBuf,
    sources: Vec<PathBuf>,
}

impl Builder {
    pub(in crate::commands) fn new(settings: &Settings) -> Self {
        Self { file: settings.file.clone(), modules: Arc::new(Mutex::new(buildable(settings))) }
    }

    /// The settings file, which is watched along with the sources.
    pub(super) fn settings_file(&self) -> &Path {
        &self.file
    }

    /// Builds these settings' modules from now on.
    pub(super) fn set(&self, settings: &Settings) {
        *lock(&self.modules) = buildable(settings);
    }

    /// Builds every module; one that can't be built is told of, and the others go on.
    pub(super) async fn build_all(&self) {
        let modules = lock(&self.modules).clone();
        for module in modules {
            self.build(&module).await;
        }
    }

    /// Builds the modules that have one of these files among their sources.
    pub(super) async fn build_changed(&self, changed: &BTreeSet<PathBuf>) {
        let modules = lock(&self.modules).clone();
        for module in modules {
            if module.sources.iter().any(|folder| changed.iter().any(|file| file.starts_with(folder))) {
                self.build(&module).await;
            }
        }
    }

    /// Builds those of these modules whose component is missing or older than one of its sources, and says so on standard
    /// error; answers with those that couldn't be built.
    pub(in crate::commands) async fn build_outdated(&self, names: &[Name]) -> Vec<Name> {
        let modules = lock(&self.modules).clone();
        let mut failed = Vec::new();
        for module in modules.iter().filter(|module| names.contains(&module.name) && module.is_outdated()) {
            anstream::eprintln!("building {}: {}", module.name, module.command);
            let problem = match self.made(module).await {
                Ok(status) if status.success() => continue,
                Ok(status) => format!("the build failed ({status}), as said above"),
                Err(error) => format!("the build command can't be run: {error}"),
            };
            anstream::eprintln!("{}: {problem}", module.name);
            failed.push(module.name.clone());
        }
        failed
    }

    /// Watches the sources of all modules, and the settings.
    pub(super) fn watch(&self) -> FileWatch {
        let (file, modules) = (self.file.clone(), self.modules.clone());
        FileWatch::new(move || files(&file, &lock(&modules)))
    }

    /// The sources of all modules as they are now, and the settings.
    pub(in crate::commands) fn files(&self) -> BTreeSet<PathBuf> {
        files(&self.file, &lock(&self.modules))
    }

    /// Runs a module's build command, in the folder of modules.toml, with its output on the terminal.
    async fn build(&self, module: &Buildable) -> bool {
        tracing::info!(module = %module.name, "building: {}", module.command);
        let started = Instant::now();
        match self.made(module).await {
            Ok(status) if status.success() => {
                tracing::info!(module = %module.name, "built in {:.1} s", started.elapsed().as_secs_f64());
                true
            }
            Ok(status) => {
                tracing::error!(module = %module.name, "the build failed ({status}), as said above; what served before goes on");
                false
            }
            Err(error) => {
                tracing::error!(module = %module.name, "the build command can't be run: {error}");
                false
            }
        }
    }

    /// Runs the build command.
    async fn made(&self, module: &Buildable) -> std::io::Result<ExitStatus> {
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        shell(&module.command).current_dir(folder).stdin(Stdio::null()).kill_on_drop(true).status().await
    }
}

impl Buildable {
    /// Whether the component is missing, or was made before one of its sources was changed.
    fn is_outdated(&self) -> bool {
        let Ok(made) = std::fs::metadata(&self.component).and_then(|it| it.modified()) else { return true };
        let mut sources = BTreeSet::new();
        for source in &self.sources {
            gather(source, &self.component, DEPTH, &mut sources);
        }
        let changed = |source: &PathBuf| std::fs::metadata(source).and_then(|it| it.modified());
        sources.iter().any(|source| changed(source).is_ok_and(|changed| changed > made))
    }
}

fn files(settings: &Path, modules: &[Buildable]) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::from([settings.to_owned()]);
    for module in modules {
        for source in &module.sources {
            gather(source, &module.component, DEPTH, &mut files);
        }
    }
    files
}

fn lock(modules: &Mutex<Vec<Buildable>>) -> MutexGuard<'_, Vec<Buildable>> {
    modules.lock().unwrap_or_else(PoisonError::into_inner)
}

fn buildable(settings: &Settings) -> Vec<Buildable> {
    let modules = settings.modules.iter().filter_map(|module| {
        let command = module.build.clone()?;
        let sources = module.watch.clone();
        Some(Buildable { name: module.name.clone(), command, component: module.component.clone(), sources })
    });
    modules.collect()
}

fn shell(command: &str) -> Command {
    let (program, flag) = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
    let mut shell = Command::new(program);
    shell.arg(flag).arg(command);
    shell
}

/// Adds the files below a path, those that tools make left out.
fn gather(path: &Path, component: &Path, depth: usize, files: &mut BTreeSet<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(path) else {
        files.insert(path.to_path_buf());
        return;
    };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if name.starts_with('.') || path == component {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => {
                if depth > 0 && !MADE_BY_TOOLS.contains(&&*name) {
                    gather(&path, component, depth - 1, files);
                }
            }
            Ok(_) => drop(files.insert(path)),
            Err(_) => {}
        }
    }
}
