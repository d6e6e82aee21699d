//! Templates: what a new module is made from. `templates/` at the top of the repository has those in this program, and tells
//! how one is made.

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use serde::Deserialize;

use super::bindings::File;
use super::embedded::TEMPLATES;
use super::names::Names;
use super::sdk::Sdk;

/// What says how modules made from a template are built; it isn't copied.
const ABOUT: &str = "template.toml";
/// What every template of this program has besides its own files.
const EVERY: &str = "every";
/// What a first module is written along with.
const FIRST: &str = "first";
/// Where the SDK is written to, in the module's folder.
const SDK: &str = "sdk";
/// How many folders deep files of a template are looked for.
const DEPTH: usize = 16;
/// Folders that tools make, which are no part of a template.
const MADE_BY_TOOLS: [&str; 5] = ["target", "node_modules", ".venv", "__pycache__", ".git"];

/// A language this program has a template for.
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

/// What modules are made from.
#[derive(Clone, Debug)]
pub struct Template {
    about: About,
    files: Vec<File>,
}

/// What `template.toml` says.
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

/// Why a folder is no template.
#[derive(Debug)]
pub enum Unusable {
    /// A file or folder can't be read.
    Unreadable(PathBuf, io::Error),
    /// Its `template.toml` doesn't say what it should.
    About(PathBuf, Box<toml::de::Error>),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) if path.ends_with(ABOUT) && error.kind() == io::ErrorKind::NotFound => {
                write!(
                    f,
                    "there is no {}: a template has one, which says how its modules are built:\n\n  language = \"Rust\"\n  build \
                 = \"cargo build --release --target wasm32-wasip2\"\n  component = \
                 \"target/wasm32-wasip2/release/my_module.wasm\"\n  sdk = \"rust\"",
                    path.display()
                )
            }
            Self::Unreadable(path, error) => write!(f, "can't read {}: {error}", path.display()),
            Self::About(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for Unusable {}

impl Template {
    /// The template of a language.
    pub fn of(language: Language) -> Self {
        let folder = language.folder();
        // A language whose folder isn't there, or says nothing, has no test that passes.
        let about =
            below(folder).find(|file| file.path == Path::new(ABOUT)).map(|file| file.content).unwrap_or_default();
        let about = toml::from_str(&String::from_utf8_lossy(&about)).unwrap_or_else(|_| About::unknown(folder));
        let files = below(folder).chain(below(EVERY)).filter(|file| file.path != Path::new(ABOUT)).collect();
        Self { about, files }
    }

    /// The template in a folder of somebody's own.
    ///
    /// # Errors
    ///
    /// When it is none, or can't be read.
    pub fn read(folder: &Path) -> Result<Self, Unusable> {
        let path = folder.join(ABOUT);
        let about = fs::read_to_string(&path).map_err(|error| Unusable::Unreadable(path.clone(), error))?;
        let about = toml::from_str(&about).map_err(|error| Unusable::About(path, Box::new(error)))?;
        let mut files = Vec::new();
        gather(folder, Path::new(""), DEPTH, &mut files)?;
        files.retain(|file: &File| file.path != Path::new(ABOUT));
        Ok(Self { about, files })
    }

    /// The language, for people.
    pub fn language(&self) -> &str {
        &self.about.language
    }

    /// What is run once in the module's folder, before it is built for the first time.
    pub fn setup(&self) -> &[String] {
        &self.about.setup
    }

    /// The files of a module, its SDK among them.
    pub fn files(&self, names: &Names) -> Vec<File> {
        let sdk = self.about.sdk.map(Sdk::files).unwrap_or_default();
        let sdk = sdk.into_iter().map(|file| File::new(Path::new(SDK).join(file.path), file.content));
        let own = self.files.iter().map(|file| {
            let path = names.put_into(&file.path.to_string_lossy());
            match std::str::from_utf8(&file.content) {
                Ok(text) => File::new(path, names.put_into(text)),
                // A picture, say.
                Err(_) => File::new(path, file.content.clone()),
            }
        });
        own.chain(sdk).collect()
    }

    /// The entry of a module for `modules.toml`, whose folder is this one as seen from there.
    pub fn entry(&self, names: &Names, folder: &str) -> String {
        let component = format!("{folder}/{}", names.put_into(&self.about.component));
        let lines = [
            ("name", names.module.clone()),
            ("folder", folder.to_owned()),
            ("component", component),
            ("build", names.put_into(&self.about.build)),
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
    /// Its name on the command line, which is that of its folder, too.
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

/// What is written where there is no `modules.toml` yet: one, without modules, and documents to search.
pub fn first() -> Vec<File> {
    below(FIRST).collect()
}

/// A string as TOML writes it. JSON's escapes are among TOML's; the one character it leaves bare is none of a name's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// The embedded files below a folder, by their paths there.
fn below(folder: &str) -> impl Iterator<Item = File> {
    TEMPLATES.iter().filter_map(move |(path, content)| {
        let path = path.strip_prefix(folder)?.strip_prefix('/')?;
        Some(File::new(path, *content))
    })
}

/// Adds the files below a folder; `at` is where that is in the template.
fn gather(folder: &Path, at: &Path, depth: usize, files: &mut Vec<File>) -> Result<(), Unusable> {
    let unreadable = |path: &Path, error| Unusable::Unreadable(path.to_owned(), error);
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
