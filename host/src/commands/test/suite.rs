//! Finds the tests of modules.

use std::path::{Path, PathBuf};

use anyhow::bail;

use super::TESTS_FOLDER;
use crate::commands::diagnostics::{self, error_with_help};
use crate::commands::find_module;
use crate::testing::Test;
use modhost_config::{ConfigErrors, Module, Settings};

/// A module and its tests.
pub(super) struct Suite {
    pub(super) module: Module,
    /// The folder of the tests.
    pub(super) folder: PathBuf,
    pub(super) tests: Vec<LoadedTest>,
}

/// A test file that was read.
pub(super) struct LoadedTest {
    pub(super) file: PathBuf,
    pub(super) name: String,
    pub(super) test: Result<Test, ConfigErrors>,
}

/// Returns the tests of these modules, or of all modules, whose names contain `filter`.
///
/// # Errors
///
/// If a module is unknown, or there are no tests.
pub(super) fn find(settings: &Settings, names: &[String], filter: Option<&str>) -> anyhow::Result<Vec<Suite>> {
    let modules: Vec<&Module> = match names.is_empty() {
        true => settings.modules.iter().collect(),
        false => names.iter().map(|name| find_module(settings, name)).collect::<Result<_, _>>()?,
    };
    let mut suites = Vec::new();
    for module in &modules {
        let folder = folder(module);
        let mut tests: Vec<LoadedTest> = test_files(&folder).into_iter().map(load).collect();
        tests.retain(|loaded| loaded.is_for(module) && filter.is_none_or(|part| loaded.name.contains(part)));
        if tests.is_empty() && !names.is_empty() && filter.is_none() {
            diagnostics::warn(format_args!("module {} has no tests in {}", module.name, folder.display()));
        }
        if !tests.is_empty() {
            suites.push(Suite { module: (*module).clone(), folder, tests });
        }
    }
    if !suites.is_empty() {
        return Ok(suites);
    }
    let folders: Vec<_> = modules.iter().map(|module| folder(module).display().to_string()).collect();
    if let Some(part) = filter {
        bail!("no test has \"{part}\" in its name; searched {}", folders.join(", "));
    }
    let first = folders.first().map_or(TESTS_FOLDER, String::as_str);
    Err(error_with_help(
        format!("there are no tests: no file *.toml in {}", folders.join(", ")),
        format!(
            "create one, for example {first}/hello.toml, with one line:\n\n  text = \"Hello\"\n\n\
             `modhost test --update` then adds the module's actual result to it, for you to review. \
             `modhost test --record last` records the newest delivery as a test."
        ),
    ))
}

/// Returns the folder of a module's tests: `tests` in the folder of its sources. That is its `folder`, else the first entry of
/// `watch` without a trailing `src`, else the folder of the settings file that has the module.
pub(super) fn folder(module: &Module) -> PathBuf {
    if let Some(folder) = &module.folder {
        return folder.join(TESTS_FOLDER);
    }
    let settings_folder = module.location.file.parent().unwrap_or(Path::new(""));
    let first = module.watch.first().map_or(settings_folder, PathBuf::as_path);
    let is_file = first.is_file();
    let sources = match first.file_name() {
        Some(name) if is_file || name == "src" => first.parent().unwrap_or(settings_folder),
        _ => first,
    };
    sources.join(TESTS_FOLDER)
}

/// Returns the test files of a folder, sorted by name.
fn test_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = files_in(folder).filter(|path| path.extension().is_some_and(|it| it == "toml")).collect();
    files.sort();
    files
}

/// Returns all files in a folder of tests: tests, and events that they refer to.
pub(super) fn files_in(folder: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn load(file: PathBuf) -> LoadedTest {
    let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    LoadedTest { test: Test::load(&file), name, file }
}

impl LoadedTest {
    /// Returns whether the test is for a module: it names the module, or none.
    fn is_for(&self, module: &Module) -> bool {
        let named = self.test.as_ref().ok().and_then(|test| test.module.as_deref());
        named.is_none_or(|name| name == module.name.as_str() || name == module.platform_name())
    }
}
