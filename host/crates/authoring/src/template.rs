//! Templates for new modules. Those in `templates/`, at the top of the repository, are embedded; the README there
//! describes their format.

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use serde::Deserialize;

use super::bindings::File;
use super::embedded::TEMPLATES;
use super::names::Names;
use super::sdk::Sdk;

/// Describes how modules made from the template are built. Not copied.
const ABOUT: &str = "template.toml";
/// The folder of files that are added to every embedded template.
const EVERY: &str = "every";
/// The folder of files that are written along with a first module.
const FIRST: &str = "first";
/// The folder of the SDK in a module.
const SDK: &str = "sdk";
/// Maximum depth of folders in a template.
const MAX_DEPTH: usize = 16;
/// Folders that tools create, which are not part of a template.
const MADE_BY_TOOLS: [&str; 5] = ["target", "node_modules", ".venv", "__pycache__", ".git"];

/// A language with an embedded template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    /// Rust.
    Rust,
    /// Python.
    Python,
    /// JavaScript.
    Javascript,
    /// TypeScript.
    Typescript,
    /// Go.
    Go,
    /// C.
    C,
    /// C++.
    Cpp,
}

/// A template for modules.
#[derive(Clone, Debug)]
pub struct Template {
    about: About,
    files: Vec<File>,
}

/// The content of `template.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    language: String,
    build: String,
    component: String,
    sdk: Option<Sdk>,
    #[serde(default)]
    setup: Vec<String>,
}

/// The reason a folder is not a template.
#[derive(Debug)]
pub enum TemplateError {
    /// A file or folder can't be read.
    Unreadable(PathBuf, io::Error),
    /// The `template.toml` is invalid.
    InvalidManifest(PathBuf, Box<toml::de::Error>),
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) if path.ends_with(ABOUT) && error.kind() == io::ErrorKind::NotFound => {
                write!(
                    f,
                    "there is no {}: a template needs one that describes how to build its modules, for \
                     example:\n\n  language = \"Rust\"\n  build = \"cargo build --release --target \
                     wasm32-wasip2\"\n  component = \"target/wasm32-wasip2/release/my_module.wasm\"\n  sdk = \"rust\"",
                    path.display()
                )
            }
            Self::Unreadable(path, error) => write!(f, "can't read {}: {error}", path.display()),
            Self::InvalidManifest(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for TemplateError {}

impl Template {
    /// Returns the embedded template of a language.
    pub fn of(language: Language) -> Self {
        let folder = language.folder();
        // A test makes sure that every language has a valid `template.toml`.
        let about = embedded_files(folder)
            .find(|file| file.path == Path::new(ABOUT))
            .map(|file| file.content)
            .unwrap_or_default();
        let about = toml::from_str(&String::from_utf8_lossy(&about)).unwrap_or_else(|_| About::unknown(folder));
        let files =
            embedded_files(folder).chain(embedded_files(EVERY)).filter(|file| file.path != Path::new(ABOUT)).collect();
        Self { about, files }
    }

    /// Reads a template from a folder.
    ///
    /// # Errors
    ///
    /// Returns an error if the folder is not a template or can't be read.
    pub fn read(folder: &Path) -> Result<Self, TemplateError> {
        let path = folder.join(ABOUT);
        let about = fs::read_to_string(&path).map_err(|error| TemplateError::Unreadable(path.clone(), error))?;
        let about = toml::from_str(&about).map_err(|error| TemplateError::InvalidManifest(path, Box::new(error)))?;
        let mut files = Vec::new();
        gather(folder, Path::new(""), MAX_DEPTH, &mut files)?;
        files.retain(|file: &File| file.path != Path::new(ABOUT));
        Ok(Self { about, files })
    }

    /// Returns the language for display.
    pub fn language(&self) -> &str {
        &self.about.language
    }

    /// Returns the commands to run once in the module's folder before the first build.
    pub fn setup(&self) -> &[String] {
        &self.about.setup
    }

    /// Returns the files of a module, including its SDK.
    pub fn files(&self, names: &Names) -> Vec<File> {
        let sdk = self.about.sdk.map(Sdk::files).unwrap_or_default();
        let sdk = sdk.into_iter().map(|file| File::new(Path::new(SDK).join(file.path), file.content));
        let own = self.files.iter().map(|file| {
            let path = names.substitute(&file.path.to_string_lossy());
            match std::str::from_utf8(&file.content) {
                Ok(text) => File::new(path, names.substitute(text)),
                // A binary file, such as an image.
                Err(_) => File::new(path, file.content.clone()),
            }
        });
        own.chain(sdk).collect()
    }

    /// Returns the entry of a module for `modules.toml`. `folder` is the module's folder, relative to `modules.toml`.
    pub fn entry(&self, names: &Names, folder: &str) -> String {
        let component = format!("{folder}/{}", names.substitute(&self.about.component));
        let lines = [
            ("name", names.module.clone()),
            ("folder", folder.to_owned()),
            ("component", component),
            ("build", names.substitute(&self.about.build)),
        ];
        lines
            .iter()
            .fold("[[module]]\n".to_owned(), |text, (key, value)| text + &format!("{key} = {}\n", quoted(value)))
    }
}

impl About {
    fn unknown(folder: &str) -> Self {
        Self {
            language: folder.to_owned(),
            build: String::new(),
            component: String::new(),
            sdk: None,
            setup: Vec::new(),
        }
    }
}

impl Language {
    /// Returns the name on the command line, which is also the name of the template's folder.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Python => "python",
            Self::Javascript => "javascript",
            Self::Typescript => "typescript",
            Self::Go => "go",
            Self::C => "c",
            Self::Cpp => "cpp",
        }
    }
}

/// Returns the files that are written if there is no `modules.toml`: one without modules, and documents to search.
pub fn initial_files() -> Vec<File> {
    embedded_files(FIRST).collect()
}

/// Formats a string for TOML. JSON's escapes are valid in TOML; only DEL, which JSON doesn't escape, must be escaped in
/// addition.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// Returns the embedded files below a folder, with paths relative to it.
fn embedded_files(folder: &str) -> impl Iterator<Item = File> {
    TEMPLATES.iter().filter_map(move |(path, content)| {
        let path = path.strip_prefix(folder)?.strip_prefix('/')?;
        Some(File::new(path, *content))
    })
}

/// Adds the files below a folder; `at` is the path of the folder in the template.
fn gather(folder: &Path, at: &Path, depth: usize, files: &mut Vec<File>) -> Result<(), TemplateError> {
    let unreadable = |path: &Path, error| TemplateError::Unreadable(path.to_owned(), error);
    for entry in fs::read_dir(folder).map_err(|error| unreadable(folder, error))? {
        let entry = entry.map_err(|error| unreadable(folder, error))?;
        let (path, name) = (entry.path(), entry.file_name());
        let at = at.join(&name);
        if !path.is_dir() {
            files.push(File::new(at, fs::read(&path).map_err(|error| unreadable(&path, error))?));
        } else if depth > 0 && !MADE_BY_TOOLS.iter().any(|made| *made == name) {
            gather(&path, &at, depth - 1, files)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_language_has_a_template() {
        for language in Language::value_variants() {
            let folder = language.folder();
            assert_eq!(language.to_possible_value().unwrap().get_name(), folder);
            let template = Template::of(*language);
            assert!(!template.about.build.is_empty() && template.about.sdk.is_some(), "{folder}");
            let names = Names::new("TravelDesk", None).unwrap();
            let files = template.files(&names);
            let has = |path: &str| files.iter().any(|file| file.path == Path::new(path));
            assert!(has("README.md") && has(".gitignore") && has("sdk/LICENSE") && !has(ABOUT), "{folder}: {files:?}");
            let tests = files.iter().filter(|file| file.path.starts_with("tests")).count();
            assert!(tests > 0, "{folder} has no tests");
            for file in &files {
                let text = String::from_utf8_lossy(&file.content);
                let placeholder = ["MyModule", "my-module", "my_module"].into_iter().find(|name| text.contains(name));
                let own = !file.path.starts_with(SDK);
                assert!(!own || placeholder.is_none(), "{folder}: {placeholder:?} in {file:?}");
            }
        }
    }
}
