//! Finds the tests of a module.

use std::path::{Path, PathBuf};

use anyhow::bail;

use super::TESTS;
use crate::commands::{module, output};
use crate::testing::Test;
use modhost_config::{ConfigErrors, Module, Settings};

/// A module and its tests.
pub(super) struct Suite {
    pub(super) module: Module,
    /// Where they are.
    pub(super) folder: PathBuf,
    pub(super) tests: Vec<Loaded>,
}

/// A test file, read.
pub(super) struct Loaded {
    pub(super) file: PathBuf,
    pub(super) name: String,
    pub(super) test: Result<Test, ConfigErrors>,
}

/// The tests of these modules, or of all; only those with `filter` in their names.
///
/// # Errors
///
/// When there is no such module, or nothing to run.
pub(super) fn find(settings: &Settings, names: &[String], filter: Option<&str>) -> anyhow::Result<Vec<Suite>> {
    let modules: Vec<&Module> = match names.is_empty() {
        true => settings.modules.iter().collect(),
        false => names.iter().map(|name| module(settings, name)).collect::<Result<_, _>>()?,
    };
    let mut suites = Vec::new();
    for module in &modules {
        let folder = folder(module, settings);
        let mut tests: Vec<Loaded> = files(&folder).into_iter().map(load).collect();
        tests.retain(|loaded| loaded.is_for(module) && filter.is_none_or(|part| loaded.name.contains(part)));
        if tests.is_empty() && !names.is_empty() && filter.is_none() {
            output::eprintln!("{} has no tests in {}", module.name, folder.display());
        }
        if !tests.is_empty() {
            suites.push(Suite { module: (*module).clone(), folder, tests });
        }
    }
    if !suites.is_empty() {
        return Ok(suites);
    }
    let folders: Vec<_> = modules.iter().map(|module| folder(module, settings).display().to_string()).collect();
    match filter {
        Some(part) => bail!("no test has \"{part}\" in its name; looked in {}", folders.join(", ")),
        None => bail!(
            "there are no tests: no file *.toml in {}\n\nA first one needs no more than a line, for example in {}/hello.toml:\n\n  \
             text = \"Hello\"\n\nmodhost test --update then writes down what the module does, for you to look at. \
             modhost test --record last makes a test of the newest delivery.",
            folders.join(", "),
            folders.first().map_or("tests", String::as_str),
        ),
    }
}

/// The folder of a module's tests: `tests` in the folder its sources lie in. That is its `folder`, else the one `watch`
/// begins with, without a `src` at its end; where there is neither, the folder of modules.toml.
pub(super) fn folder(module: &Module, settings: &Settings) -> PathBuf {
    if let Some(folder) = &module.folder {
        return folder.join(TESTS);
    }
    let of_settings = settings.file.parent().unwrap_or(Path::new(""));
    let first = module.watch.first().map_or(of_settings, PathBuf::as_path);
    let is_file = first.is_file();
    let sources = match first.file_name() {
        Some(name) if is_file || name == "src" => first.parent().unwrap_or(of_settings),
        _ => first,
    };
    sources.join(TESTS)
}

/// The test files of a folder, by name.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = around(folder).filter(|path| path.extension().is_some_and(|it| it == "toml")).collect();
    files.sort();
    files
}

/// What lies in a folder of tests: the tests, and the events they may name.
pub(super) fn around(folder: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn load(file: PathBuf) -> Loaded {
    let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Loaded { test: Test::load(&file), name, file }
}

impl Loaded {
    /// Whether it is a module's: it says so, or says nothing.
    fn is_for(&self, module: &Module) -> bool {
        let named = self.test.as_ref().ok().and_then(|test| test.module.as_deref());
        named.is_none_or(|name| name == module.name.as_str())
    }
}
