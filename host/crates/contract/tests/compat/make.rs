//! Components made on the spot, from the contract's own WIT or an altered copy of it.

use std::path::Path;

use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{LiftLowerAbi, ManglingAndAbi, PackageId, Resolve, SourceMap};

/// The world all tests alter: what `wit/world.wit` says, without its documentation.
pub const HANDLE: &str = "use events.{event, failure}; export handle: func(event: event) -> result<_, failure>;";

/// A copy of the contract, to be altered before it is built.
pub struct Contract {
    files: Vec<(String, String)>,
    /// The packages it imports from, each in its files.
    dependencies: Vec<Vec<(String, String)>>,
}

#[allow(dead_code, reason = "each of the test programs that share this file uses a part of it")]
impl Contract {
    /// The contract as it is in `wit/`.
    pub fn read() -> Self {
        // This file is also part of the tests of `modhost check`, in another package.
        let wit =
            Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("wit")).find(|it| it.is_dir());
        let wit = wit.expect("the contract");
        Self {
            files: texts(&wit),
            dependencies: ["deps/config", "deps/keyvalue", "deps/logging", "deps/io", "deps/clocks", "deps/http"]
                .map(|path| texts(&wit.join(path)))
                .into(),
        }
    }

    /// Replaces text of one file, which must be there.
    pub fn with(mut self, file: &str, from: &str, to: &str) -> Self {
        let (_, text) = self.files.iter_mut().find(|(name, _)| name == file).expect("a file of the contract");
        assert!(text.contains(from), "{file} has no {from:?}");
        *text = text.replace(from, to);
        self
    }

    /// Gives the whole package another version.
    pub fn version(mut self, version: &str) -> Self {
        for (_, text) in &mut self.files {
            *text = text.replace("package modhost:module@0.1.0;", &format!("package modhost:module@{version};"));
        }
        self
    }

    /// Replaces the world.
    pub fn world(mut self, items: &str) -> Self {
        let (_, text) = self.files.iter_mut().find(|(name, _)| name == "world.wit").expect("world.wit");
        let package = text.lines().next().expect("a package line");
        *text = format!("{package}\nworld module {{ {items} }}");
        self
    }

    /// Adds a package for the world to import from.
    pub fn dependency(mut self, text: &str) -> Self {
        self.dependencies.push(vec![("dependency.wit".to_owned(), text.to_owned())]);
        self
    }

    /// A component that imports all the world has and exports all it asks for; what its functions do is no matter.
    pub fn build(self) -> Vec<u8> {
        self.build_as(LiftLowerAbi::Sync)
    }

    /// The same, with asynchronous functions where the world has them.
    pub fn build_as(self, abi: LiftLowerAbi) -> Vec<u8> {
        let mut resolve = Resolve::default();
        for files in self.dependencies {
            push(&mut resolve, files);
        }
        let package = push(&mut resolve, self.files);
        let world = resolve.select_world(&[package], Some("module")).expect("a world");
        let mut module = dummy_module(&resolve, world, ManglingAndAbi::Legacy(abi));
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("metadata");
        ComponentEncoder::default().module(&module).expect("a module").encode().expect("a component")
    }
}

/// Adds a package that consists of these files.
fn push(resolve: &mut Resolve, files: Vec<(String, String)>) -> PackageId {
    let mut sources = SourceMap::default();
    for (path, text) in files {
        sources.push_str(&path, text);
    }
    resolve.push_group(sources.parse().map_err(|(_, error)| error).expect("WIT")).expect("WIT")
}

fn texts(folder: &Path) -> Vec<(String, String)> {
    let mut texts: Vec<_> = std::fs::read_dir(folder)
        .expect("a folder of WIT")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_file())
        .map(|path| {
            (
                path.file_name().expect("a name").to_string_lossy().into_owned(),
                std::fs::read_to_string(&path).expect("text"),
            )
        })
        .collect();
    texts.sort();
    texts
}

/// A component, or anything else, written as text.
pub fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("WAT")
}
