//! Bindings of the world of modules, generated from the WIT that this host was built with.
//!
//! Bindings contain the whole world. A component imports only the parts it uses: compilers remove functions that are
//! never called, and [`component`](super::component::componentize) imports the rest.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use wit_bindgen_core::{Files, WorldGenerator};

use super::go;
use modhost_contract as contract;

/// The language of bindings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Language {
    /// The WIT files, for tools that read them: those of Python and JavaScript.
    Wit,
    /// C, also for C++ and Zig.
    C,
    /// Go.
    Go {
        /// The import path of the folder that contains the bindings.
        package: String,
    },
}

/// A generated file: its path below the folder of the bindings, and its content.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// The path, relative to the folder.
    pub path: PathBuf,
    /// The content.
    pub content: Vec<u8>,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.path.display(), self.content.len())
    }
}

/// Generates the bindings of the world.
///
/// # Errors
///
/// Returns an error if the generator can't express the world in the language. The world is part of this program, so
/// this fails always or never.
pub fn generate(language: &Language) -> anyhow::Result<Vec<File>> {
    match language {
        Language::Wit => Ok(contract::files().map(|(path, text)| File::new(path, text)).collect()),
        // The C generator derives all names from the world, and modules use those names.
        Language::C => run(wit_bindgen_c::Opts::default().build(), contract::WORLD),
        Language::Go { package } => {
            let options = wit_bindgen_go::Opts {
                // The output must not depend on whether `gofmt` is installed.
                format: wit_bindgen_go::Format::False,
                pkg_name: Some(package.clone()),
                ..Default::default()
            };
            Ok(go::add_runtime(run(options.build(), contract::WORLD_WITH_HTTP)?, package))
        }
    }
}

/// Writes files below a folder, and creates the folder if necessary. A file that already has its content isn't touched,
/// so that a watcher of the folder sees only real changes. Returns the number of files written.
///
/// # Errors
///
/// Returns the path of a file that can't be written, and the error.
pub fn write(files: &[File], folder: &Path) -> Result<usize, (PathBuf, io::Error)> {
    let mut written = 0;
    for file in files {
        let path = folder.join(&file.path);
        if fs::read(&path).is_ok_and(|existing| existing == file.content) {
            continue;
        }
        path.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&path, &file.content))
            .map_err(|error| (path, error))?;
        written += 1;
    }
    Ok(written)
}

impl File {
    /// Creates a file with this content.
    pub(super) fn new(path: impl Into<PathBuf>, content: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), content: content.into() }
    }
}

fn run(mut generator: Box<dyn WorldGenerator>, world: &str) -> anyhow::Result<Vec<File>> {
    let (mut resolve, world) = contract::world(world)?;
    let mut files = Files::default();
    generator.generate(&mut resolve, world, &mut files)?;
    Ok(files.iter().map(|(path, content)| File::new(path, content)).collect())
}
