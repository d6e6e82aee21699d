//! The tools that build modules in languages other than Rust: found, installed on demand, or reported as missing.
//!
//! Go is taken from `PATH`. Everything else comes from package registries: Python's tools, Zig, and Go if it isn't in
//! `PATH`, are installed into a virtual environment in `target/toolchains`; JavaScript's into `node_modules` beside
//! each `package-lock.json`. The first test that needs a missing tool installs it, if the machine has Python or Node
//! and a network. If that fails, the test is skipped with a line that names the reason.
//!
//! `MODHOST_TOOLCHAINS=required` turns a missing tool into an error; `MODHOST_TOOLCHAINS=installed` installs nothing.
//! `MODHOST_TOOLCHAINS_FOLDER` replaces `target/toolchains`.

mod environment;
mod machine;
mod node;
mod stubs;
mod tests;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::notice::notice;
use machine::{Machine, Mode};

/// The tools that build a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// Python, with this repository's SDK for it.
    Python,
    /// Node and npm, with this repository's SDK for JavaScript. TypeScript's compiler is a package of each module.
    JavaScript,
    /// Go.
    Go,
    /// Zig, the compiler for C and C++.
    Zig,
}

impl Toolchain {
    const ALL: [Self; 4] = [Self::Python, Self::JavaScript, Self::Go, Self::Zig];
}

/// The folders of a toolchain's programs, to be placed before those of `PATH`. An error says what is missing and what
/// to do.
type Found = Result<Vec<PathBuf>, String>;

/// Finds a toolchain's programs. If it is missing and can't be installed, prints the reason and returns `None`: skip
/// the test.
pub fn find(toolchain: Toolchain, what: &str) -> Option<Vec<PathBuf>> {
    or_skip(what, found(toolchain))
}

/// Installs the packages of the `package-lock.json` in a folder; returns `false` if the test is to be skipped.
pub fn install_packages(folder: &Path, what: &str) -> bool {
    or_skip(what, Machine::this().packages(folder)).is_some()
}

/// The value of `PATH` with these folders first.
pub fn path_with(folders: &[PathBuf]) -> std::ffi::OsString {
    let usual = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(folders.iter().cloned().chain(std::env::split_paths(&usual))).unwrap()
}

/// Finds a toolchain once per process: a failed installation isn't repeated by the next test.
fn found(toolchain: Toolchain) -> Found {
    static FOUND: [OnceLock<Found>; Toolchain::ALL.len()] = [const { OnceLock::new() }; Toolchain::ALL.len()];
    FOUND[toolchain as usize].get_or_init(|| Machine::this().find(toolchain)).clone()
}

fn or_skip<T>(what: &str, found: Result<T, String>) -> Option<T> {
    match found {
        Ok(found) => Some(found),
        Err(why) if Machine::this().mode == Mode::Required => panic!("{what} can't be tested: {why}"),
        Err(why) => {
            notice(&format!("SKIPPED {what}: {why}"));
            None
        }
    }
}

/// Installs all toolchains and lists the missing ones in one place; the other tests report them one by one.
#[test]
fn missing_toolchains_are_listed_with_instructions() {
    let mut list = "toolchains for the tests in other languages than Rust:".to_owned();
    let found = Toolchain::ALL.map(|toolchain| (toolchain, found(toolchain)));
    for (toolchain, found) in &found {
        let text = match found {
            Ok(_) => "ready".to_owned(),
            Err(why) => format!("MISSING, its tests are skipped: {why}"),
        };
        list += &format!("\n      {:<10}  {text}", format!("{toolchain:?}"));
    }
    notice(&list);
    for (toolchain, found) in found {
        let Err(why) = found else { continue };
        assert!(Machine::this().mode != Mode::Required, "{toolchain:?}: {why}");
        assert!(why.contains(". To "), "{toolchain:?} is missing, and the reason has no instructions: {why}");
    }
}
