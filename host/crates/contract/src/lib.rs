//! The contract this host was built with: the WIT files of `wit/`, as text and as types.

#![deny(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

pub mod compat;

use wit_parser::{PackageId, Resolve, SourceMap, WorldId};

/// The package of the contract.
pub const PACKAGE: &str = "modhost:module";
/// The contract's world in that package.
pub const WORLD: &str = "module";
/// The same with what a module sends HTTP requests by: for who takes of a world what it uses.
pub const WORLD_WITH_HTTP: &str = "module-with-http";

/// A file: where it lies below `wit/`, and what it says.
pub type File = (&'static str, &'static str);

/// Embeds a file of the contract under its own name.
macro_rules! wit {
    ($path:literal) => {
        ($path, include_str!(concat!("../../../../wit/", $path)))
    };
}

/// The contract itself.
const CONTRACT: [File; 8] = [
    wit!("completion.wit"),
    wit!("events.wit"),
    wit!("http.wit"),
    wit!("message-log.wit"),
    wit!("messages.wit"),
    wit!("search.wit"),
    wit!("types.wit"),
    wit!("world.wit"),
];

/// The standard packages the contract imports from, each after those it takes from.
const DEPENDENCIES: [&[File]; 6] = [
    &[wit!("deps/io/streams.wit")],
    &[wit!("deps/clocks/monotonic-clock.wit")],
    &[wit!("deps/http/handler.wit"), wit!("deps/http/types.wit")],
    &[wit!("deps/config/store.wit")],
    &[wit!("deps/keyvalue/atomic.wit"), wit!("deps/keyvalue/batch.wit"), wit!("deps/keyvalue/store.wit")],
    &[wit!("deps/logging/logging.wit")],
];

/// All files, as they lie in a folder that WIT tools can read.
pub fn files() -> impl Iterator<Item = File> {
    DEPENDENCIES.into_iter().flatten().chain(&CONTRACT).copied()
}

/// Reads the files: the types, and the contract's package among them.
///
/// # Errors
///
/// When they aren't WIT. They are part of this program, so that happens always or never.
pub fn read() -> anyhow::Result<(Resolve, PackageId)> {
    let mut resolve = Resolve::default();
    for package in DEPENDENCIES {
        push(&mut resolve, package)?;
    }
    let package = push(&mut resolve, &CONTRACT)?;
    Ok((resolve, package))
}

/// Reads the files, and finds one of the worlds of modules in them: [`WORLD`] or [`WORLD_WITH_HTTP`].
///
/// # Errors
///
/// As [`read`], and when there is no such world.
pub fn world(name: &str) -> anyhow::Result<(Resolve, WorldId)> {
    let (resolve, package) = read()?;
    let world = resolve.select_world(&[package], Some(name))?;
    Ok((resolve, world))
}

/// Adds a package that consists of these files.
fn push(resolve: &mut Resolve, files: &[File]) -> anyhow::Result<PackageId> {
    let mut sources = SourceMap::default();
    for (path, text) in files {
        sources.push_str(path, *text);
    }
    let package = sources.parse().map_err(|(_, error)| anyhow::Error::from(error))?;
    Ok(resolve.push_group(package)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    fn below(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                below(&path, found);
            } else {
                let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../wit");
                found.insert(path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/"));
            }
        }
    }

    #[test]
    fn no_file_of_the_contract_is_forgotten() {
        let mut there = BTreeSet::new();
        below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../wit"), &mut there);
        let embedded: BTreeSet<_> = super::files().map(|(path, _)| path.to_owned()).collect();
        assert_eq!(embedded, there);
    }
}
