//! The contract that this host was built with: the WIT files in `wit/`, as text and as types.

#![deny(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

pub mod compat;

use wit_parser::{PackageId, Resolve, SourceMap, WorldId};

/// The package of the contract.
pub const PACKAGE: &str = "modhost:module";
/// The world of modules in that package.
pub const WORLD: &str = "module";
/// The same world, plus the imports for sending HTTP requests, for tools that take from a world only what a module
/// uses.
pub const WORLD_WITH_HTTP: &str = "module-with-http";

/// A file: its path below `wit/`, and its text.
pub type File = (&'static str, &'static str);

/// Embeds a file of the contract with its path.
macro_rules! wit {
    ($path:literal) => {
        ($path, include_str!(concat!("../../../../wit/", $path)))
    };
}

/// The package of the contract.
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

/// The standard packages that the contract imports, each after its own dependencies.
const DEPENDENCIES: [&[File]; 6] = [
    &[wit!("deps/io/streams.wit")],
    &[wit!("deps/clocks/monotonic-clock.wit")],
    &[wit!("deps/http/handler.wit"), wit!("deps/http/types.wit")],
    &[wit!("deps/config/store.wit")],
    &[wit!("deps/keyvalue/atomic.wit"), wit!("deps/keyvalue/batch.wit"), wit!("deps/keyvalue/store.wit")],
    &[wit!("deps/logging/logging.wit")],
];

/// Returns all files. Their paths form a folder that WIT tools can read.
pub fn files() -> impl Iterator<Item = File> {
    DEPENDENCIES.into_iter().flatten().chain(&CONTRACT).copied()
}

/// Parses the files, and returns the types and the contract's package.
///
/// # Errors
///
/// Returns an error if the files aren't valid WIT. They are part of this program, so this fails always or never.
pub fn read() -> anyhow::Result<(Resolve, PackageId)> {
    let mut resolve = Resolve::default();
    for package in DEPENDENCIES {
        push(&mut resolve, package)?;
    }
    let package = push(&mut resolve, &CONTRACT)?;
    Ok((resolve, package))
}

/// Parses the files, and returns the types and one of the worlds: [`WORLD`] or [`WORLD_WITH_HTTP`].
///
/// # Errors
///
/// See [`read`]. Also returns an error if the world doesn't exist.
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

    fn collect_files(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect_files(&path, found);
            } else {
                let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../wit");
                found.insert(path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/"));
            }
        }
    }

    #[test]
    fn embeds_every_file_of_the_contract() {
        let mut on_disk = BTreeSet::new();
        collect_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../wit"), &mut on_disk);
        let embedded: BTreeSet<_> = super::files().map(|(path, _)| path.to_owned()).collect();
        assert_eq!(embedded, on_disk);
    }
}
