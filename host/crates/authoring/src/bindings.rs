//! Bindings: the world of modules as a language has it, generated from the WIT this host was built with.
//!
//! All of the world is in them, and nothing of it in a component that doesn't use it: compilers leave out functions
//! nobody calls, and [`component`](super::component::componentize) imports what is left.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use wit_bindgen_core::{Files, WorldGenerator};

use super::go;
use modhost_contract as contract;

/// What bindings are written in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Language {
    /// The WIT itself, for tools that read it: those of Python and JavaScript.
    Wit,
    /// C, which C++ and Zig can use.
    C,
    /// Go.
    Go {
        /// The import path of the folder the bindings are written to.
        package: String,
    },
}

/// A generated file: where it belongs below the folder of the bindings, and what is in it.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// Where it belongs.
    pub path: PathBuf,
    /// What is in it.
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
/// When the generator can't express the world in the language. The world is part of this program, so that happens
/// always or never.
pub fn generate(language: &Language) -> anyhow::Result<Vec<File>> {
    match language {
        Language::Wit => Ok(contract::files().map(|(path, text)| File::new(path, text)).collect()),
        // C names everything by the world, and a module's own code those names.
        Language::C => run(wit_bindgen_c::Opts::default().build(), contract::WORLD),
        Language::Go { package } => {
            let options = wit_bindgen_go::Opts {
                // Whether the machine has `gofmt` must make no difference.
                format: wit_bindgen_go::Format::False,
                pkg_name: Some(package.clone()),
                ..Default::default()
            };
            Ok(go::complete(run(options.build(), contract::WORLD_WITH_HTTP)?, package))
        }
    }
}

/// Writes files below a folder, which is made if it isn't there. One that has its content already is left alone, so
/// that who watches the folder sees a change only where there is one. Answers with how many were written.
///
/// # Errors
///
/// When a file can't be written, with its path.
pub fn write(files: &[File], folder: &Path) -> Result<usize, (PathBuf, io::Error)> {
    let mut written = 0;
    for file in files {
        let path = folder.join(&file.path);
        if fs::read(&path).is_ok_and(|there| there == file.content) {
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
    /// A file of these bytes.
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
