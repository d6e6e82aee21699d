//! Builds modules with the commands modules.toml gives, at the start and when their sources change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::built_components::BuiltComponents;
use crate::commands::build_command::{BuildCommand, Purpose};
use crate::commands::output;
use crate::commands::test::TESTS;
use modhost_config::Settings;
use modhost_core::event::Name;
use modhost_runtime::engine::FileWatch;

/// Folders whose changes are made by building, not by people.
const MADE_BY_TOOLS: [&str; 5] = ["target", "node_modules", "__pycache__", "dist", "build"];

/// How many folders deep sources are looked for.
const DEPTH: usize = 16;

/// The modules that can be built.
pub(in crate::commands) struct Builder {
    file: PathBuf,
    modules: Arc<Mutex<Vec<Buildable>>>,
    /// What is known of the files that builds write, by module.
    made: Mutex<BTreeMap<Name, BuiltComponents>>,
}

#[derive(Clone)]
struct Buildable {
    name: Name,
    command: BuildCommand,
    component: PathBuf,
    sources: Vec<PathBuf>,
    /// What lies among the sources and is none: the component itself, and the tests.
    left_out: Vec<PathBuf>,
}

impl Builder {
    pub(in crate::commands) fn new(settings: &Settings) -> Self {
        let modules = Arc::new(Mutex::new(buildable(settings)));
        Self { file: settings.file.clone(), modules, made: Mutex::default() }
    }

    /// Builds these settings' modules from now on.
    pub(super) fn set(&self, settings: &Settings) {
        *lock(&self.modules) = buildable(settings);
    }

    /// Builds every module whose component may be out of date; one that can't be built is told of, and the others go on.
    pub(super) async fn build_all(&self) {
        let modules = lock(&self.modules).clone();
        for module in modules {
            if module.is_up_to_date() {
                tracing::info!(module = %module.name, "up to date, not built again");
            } else {
                self.build(&module).await;
            }
        }
    }

    /// Builds the modules that have one of these files among their sources.
    pub(super) async fn build_changed(&self, changed: &BTreeSet<PathBuf>) {
        let modules = lock(&self.modules).clone();
        for module in modules {
            let changed = changed.iter().filter(|file| module.is_made_from(file));
            let due = {
                let mut made = lock(&self.made);
                let made = made.entry(module.name.clone()).or_default();
                // Each is asked, as asking is what tells a person's files from a build's.
                changed.filter(|file| made.counts(file)).count() > 0
            };
            if due {
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
            output::eprintln!("building {}: {}", module.name, module.command.text);
            let problem = match self.run(module, Purpose::Serve).await {
                Ok(status) if status.success() => continue,
                Ok(status) => {
                    let why = module.command.missing(status).unwrap_or_else(|| "as said above".to_owned());
                    format!("the build failed ({status}): {why}")
                }
                Err(wrong) => format!("it can't be built: {wrong}"),
            };
            output::eprintln!("{}: {problem}", module.name);
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

    /// Builds a module, and tells how that went.
    async fn build(&self, module: &Buildable) -> bool {
        tracing::info!(module = %module.name, "building: {}", module.command.text);
        let started = Instant::now();
        match self.run(module, Purpose::Dev).await {
            Ok(status) if status.success() => {
                tracing::info!(module = %module.name, "built in {:.1} s", started.elapsed().as_secs_f64());
                true
            }
            Ok(status) => {
                let why = module.command.missing(status).unwrap_or_else(|| "as said above".to_owned());
                tracing::error!(module = %module.name, "the build failed ({status}): {why}; what served before goes on");
                false
            }
            Err(wrong) => {
                tracing::error!(module = %module.name, "it can't be built: {wrong}");
                false
            }
        }
    }

    /// Runs the build command, and notes what it wrote.
    async fn run(&self, module: &Buildable, purpose: Purpose) -> Result<ExitStatus, String> {
        lock(&self.made).entry(module.name.clone()).or_default().begin(&module.files());
        let ended = module.command.run(purpose).await;
        lock(&self.made).entry(module.name.clone()).or_default().end(&module.files());
        ended
    }
}

impl Buildable {
    /// Whether nothing has changed since the component was made that its build looks at, as far as can be told. Cargo tells
    /// that better, in a moment: it also knows the crates elsewhere that a module is made of.
    fn is_up_to_date(&self) -> bool {
        let Ok(made) = std::fs::metadata(&self.component).and_then(|it| it.modified()) else { return false };
        let is_newer = |path: PathBuf| std::fs::metadata(path).and_then(|it| it.modified()).is_ok_and(|it| it > made);
        !self.command.calls("cargo") && !self.is_outdated() && !self.command.tools().into_iter().any(is_newer)
    }

    /// Whether the component is missing, or was made before one of its sources was changed.
    fn is_outdated(&self) -> bool {
        let Ok(made) = std::fs::metadata(&self.component).and_then(|it| it.modified()) else { return true };
        let changed = |source: &PathBuf| std::fs::metadata(source).and_then(|it| it.modified());
        self.files().iter().any(|source| changed(source).is_ok_and(|changed| changed > made))
    }

    /// The files it is made from, as they are now.
    fn files(&self) -> BTreeSet<PathBuf> {
        let mut files = BTreeSet::new();
        for source in &self.sources {
            gather(source, &self.left_out, DEPTH, &mut files);
        }
        files
    }

    /// Whether a file is among its sources.
    fn is_made_from(&self, file: &Path) -> bool {
        self.sources.iter().any(|folder| file.starts_with(folder))
    }
}

fn files(settings: &Path, modules: &[Buildable]) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::from([settings.to_owned()]);
    for module in modules {
        files.append(&mut module.files());
    }
    files
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn buildable(settings: &Settings) -> Vec<Buildable> {
    let modules = settings.modules.iter().filter_map(|module| {
        let command = BuildCommand::of(module, &settings.file)?;
        let (component, sources) = (module.component.clone(), module.watch.clone());
        // Who changes a test waits for no build.
        let tests = module.folder.iter().map(|folder| folder.join(TESTS));
        let left_out = tests.chain([component.clone()]).collect();
        Some(Buildable { name: module.name.clone(), command, component, sources, left_out })
    });
    modules.collect()
}

/// Adds the files below a path, but for those that tools make, and these.
fn gather(path: &Path, left_out: &[PathBuf], depth: usize, files: &mut BTreeSet<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(path) else {
        files.insert(path.to_path_buf());
        return;
    };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if name.starts_with('.') || left_out.contains(&path) {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => {
                if depth > 0 && !MADE_BY_TOOLS.contains(&&*name) {
                    gather(&path, left_out, depth - 1, files);
                }
            }
            Ok(_) => drop(files.insert(path)),
            Err(_) => {}
        }
    }
}
