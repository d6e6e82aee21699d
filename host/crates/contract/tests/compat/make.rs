//! Builds components from the contract's own WIT or an altered copy of it.

use std::path::Path;

use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{LiftLowerAbi, ManglingAndAbi, PackageId, Resolve, SourceMap};

/// The default world of the tests: `wit/world.wit` without documentation.
pub const HANDLE: &str = "use events.{event, failure}; export handle: func(event: event) -> result<_, failure>;";

/// A copy of the contract that a test can alter before it builds a component.
pub struct Contract {
    files: Vec<(String, String)>,
    /// The packages that it imports from, each as a list of files.
    dependencies: Vec<Vec<(String, String)>>,
}

#[allow(dead_code, reason = "each of the test programs that share this file uses a part of it")]
impl Contract {
    /// Reads the contract from `wit/`.
    pub fn read() -> Self {
        // `modhost check`'s tests in another package include this file, too.
        let wit =
            Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("wit")).find(|it| it.is_dir());
        let wit = wit.expect("no `wit` folder in any parent folder");
        Self {
            files: texts(&wit),
            dependencies: ["deps/config", "deps/keyvalue", "deps/logging", "deps/io", "deps/clocks", "deps/http"]
                .map(|path| texts(&wit.join(path)))
                .into(),
        }
    }

    /// Replaces text in one file; panics if the file doesn't contain it.
    pub fn with(mut self, file: &str, from: &str, to: &str) -> Self {
        let (_, text) = self.files.iter_mut().find(|(name, _)| name == file).expect("the contract has no such file");
        assert!(text.contains(from), "{file} has no {from:?}");
        *text = text.replace(from, to);
        self
    }

    /// Changes the version of the package.
    pub fn version(mut self, version: &str) -> Self {
        for (_, text) in &mut self.files {
            *text = text.replace("package modhost:module@0.1.0;", &format!("package modhost:module@{version};"));
        }
        self
    }

    /// Replaces the items of the world.
    pub fn world(mut self, items: &str) -> Self {
        let (_, text) =
            self.files.iter_mut().find(|(name, _)| name == "world.wit").expect("the contract has no world.wit");
        let package = text.lines().next().expect("world.wit is empty");
        *text = format!("{package}\nworld module {{ {items} }}");
        self
    }

    /// Adds a package that the world can import from.
    pub fn dependency(mut self, text: &str) -> Self {
        self.dependencies.push(vec![("dependency.wit".to_owned(), text.to_owned())]);
        self
    }

    /// Builds a component with all imports and exports of the world. Its functions do nothing useful.
    pub fn build(self) -> Vec<u8> {
        self.build_as(LiftLowerAbi::Sync)
    }

    /// Builds the component with this ABI, for worlds with asynchronous functions.
    pub fn build_as(self, abi: LiftLowerAbi) -> Vec<u8> {
        let mut resolve = Resolve::default();
        for files in self.dependencies {
            push(&mut resolve, files);
        }
        let package = push(&mut resolve, self.files);
        let world = resolve.select_world(&[package], Some("module")).expect("the package has no world `module`");
        let mut module = dummy_module(&resolve, world, ManglingAndAbi::Legacy(abi));
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
            .expect("cannot embed the metadata");
        ComponentEncoder::default()
            .module(&module)
            .expect("invalid core module")
            .encode()
            .expect("cannot encode the component")
    }
}

/// Adds a package that consists of these files.
fn push(resolve: &mut Resolve, files: Vec<(String, String)>) -> PackageId {
    let mut sources = SourceMap::default();
    for (path, text) in files {
        sources.push_str(&path, text);
    }
    resolve.push_group(sources.parse().map_err(|(_, error)| error).expect("invalid WIT")).expect("invalid WIT")
}

fn texts(folder: &Path) -> Vec<(String, String)> {
    let mut texts: Vec<_> = std::fs::read_dir(folder)
        .expect("cannot list the folder")
        .map(|entry| entry.expect("cannot read the folder entry").path())
        .filter(|path| path.is_file())
        .map(|path| {
            (
                path.file_name().expect("path without a file name").to_string_lossy().into_owned(),
                std::fs::read_to_string(&path).expect("cannot read the file"),
            )
        })
        .collect();
    texts.sort();
    texts
}

/// Parses WebAssembly text: a component or a module.
pub fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("invalid WAT")
}
