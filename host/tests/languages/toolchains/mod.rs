//! The tools that modules in other languages than Rust are built with: found, or set up on the spot, or reported as missing.
//!
//! Go is taken from `PATH`. Everything else comes from package registries: Python's tools, Zig, and Go where there is none, go
//! into a virtual environment in `target/toolchains`, JavaScript's into `node_modules` beside each `package-lock.json`. What
//! isn't there is set up by whichever test needs it first, if the machine has Python or Node and a network. If that fails,
//! the test is skipped with a line that says why.
//!
//! `MODHOST_TOOLCHAINS=required` makes whatever is missing an error, `MODHOST_TOOLCHAINS=installed` sets nothing up.
//! `MODHOST_TOOLCHAINS_FOLDER` is used in place of `target/toolchains`.

mod environment;
mod machine;
mod node;
mod stubs;
mod tests;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::notice::notice;
use machine::{Machine, Mode};

/// What a module is built with.
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

/// The folders of a toolchain's programs, which come before those of `PATH`; an error says what is missing and what to do.
type Found = Result<Vec<PathBuf>, String>;

/// Where a toolchain's programs are. If it is missing and can't be set up, says so and answers `None`: the test is skipped.
pub fn find(toolchain: Toolchain, what: &str) -> Option<Vec<PathBuf>> {
    or_skip(what, found(toolchain))
}

/// Installs what the `package-lock.json` in a folder names, unless it is installed; `false` if the test is skipped.
pub fn install_packages(folder: &Path, what: &str) -> bool {
    or_skip(what, Machine::this().packages(folder)).is_some()
}

/// The value of `PATH` with these folders before those of everyone.
pub fn path_with(folders: &[PathBuf]) -> std::ffi::OsString {
    let usual = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(folders.iter().cloned().chain(std::env::split_paths(&usual))).unwrap()
}

/// Looks for a toolchain once in this process: what failed once isn't tried again by the next test.
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

/// Sets up what it can, and says what this machine lacks in one place: the other tests say so one by one.
#[test]
fn what_this_machine_lacks_is_listed_with_what_to_do() {
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
        assert!(why.contains(". To "), "{toolchain:?} is missing, and nothing says what to do: {why}");
    }
}
