//! A module's entry in `modules.toml`. An existing file is only appended to; a missing one is created.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::initial_files;
use crate::commands::diagnostics::error_with_help;
use crate::commands::output;
use modhost_authoring::bindings;
use modhost_authoring::names::Names;
use modhost_config::Settings;

/// The entry of a module in `modules.toml`.
pub(super) struct ModuleEntry {
    text: String,
}

/// Where an entry is written.
pub(super) enum EntryTarget {
    /// A new `modules.toml`.
    NewFile { file: PathBuf },
    /// Standard output, for the user to copy to the existing file with this text.
    Print { file: PathBuf, text: String },
    /// The end of the existing file with this text.
    Append { file: PathBuf, text: String },
}

impl ModuleEntry {
    pub(super) fn new(text: String) -> Self {
        Self { text }
    }

    /// Returns a file's text with the entry appended.
    fn append_to(&self, text: &str) -> String {
        format!("{}\n\n{}", text.trim_end(), self.text)
    }

    /// Returns the line of the appended entry.
    fn line(&self, text: &str) -> usize {
        text.trim_end().lines().count() + 2
    }
}

impl EntryTarget {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// If the file already defines a module of this name.
    pub(super) fn find(file: &Path, names: &Names) -> anyhow::Result<Self> {
        let text = match Settings::text(file) {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(Self::NewFile { file: file.to_owned() }),
            Err(error) => return Err(error.into()),
        };
        // Errors elsewhere in the file do not matter here.
        let modules = Settings::parse(&text, file).map(|settings| settings.modules).unwrap_or_default();
        if let Some(existing) = modules.iter().find(|module| module.name.as_str() == names.module) {
            let message = format!("{}: a module named {} already exists", existing.location, names.module);
            return Err(error_with_help(message, "choose another name"));
        }
        Ok(Self::Print { file: file.to_owned(), text })
    }

    /// Decides whether the entry is appended to the file or printed.
    ///
    /// # Errors
    ///
    /// If the file is invalid with the entry appended.
    pub(super) fn choose(self, entry: &ModuleEntry, add: bool) -> anyhow::Result<Self> {
        let Self::Print { file, text } = self else { return Ok(self) };
        if !add {
            return Ok(Self::Print { file, text });
        }
        Settings::parse(&entry.append_to(&text), &file)
            .with_context(|| format!("cannot add the module to {}; no file was created or changed", file.display()))?;
        Ok(Self::Append { file, text })
    }

    /// Writes or prints the entry.
    pub(super) fn write(&self, entry: &ModuleEntry) -> anyhow::Result<()> {
        match self {
            Self::NewFile { file } => {
                let (text, documents) = initial_files();
                let folder = file.parent().unwrap_or(Path::new(""));
                replace(file, &entry.append_to(&text))?;
                output::println!("created {}; the module is defined at line {}", file.display(), entry.line(&text));
                let missing: Vec<_> =
                    documents.into_iter().filter(|file| !first_component(folder, &file.path).exists()).collect();
                for document in &missing {
                    output::println!("created {}, a document to search", folder.join(&document.path).display());
                }
                bindings::write(&missing, folder)
                    .map_err(|(path, error)| anyhow::anyhow!("cannot write {}: {error}", path.display()))?;
            }
            Self::Append { file, text } => {
                replace(file, &entry.append_to(text))?;
                output::println!("added the module to {}, at line {}", file.display(), entry.line(text));
            }
            Self::Print { file, .. } => {
                output::println!("append this to {}, or use --add next time:\n", file.display());
                output::print!("{}", entry.text);
            }
        }
        Ok(())
    }
}

/// Returns the first component of a relative path, in a folder.
fn first_component(folder: &Path, path: &Path) -> PathBuf {
    folder.join(path.components().next().map(|first| first.as_os_str().to_owned()).unwrap_or_default())
}

/// Returns the path of a folder as written in a `modules.toml` in the folder `from`.
pub(super) fn path_from(from: &Path, folder: &Path) -> anyhow::Result<String> {
    let absolute = |path: &Path| {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        std::path::absolute(path).with_context(|| format!("{} is not a folder", path.display()))
    };
    let (from, folder) = (absolute(from)?, absolute(folder)?);
    let relative = folder.strip_prefix(&from).unwrap_or(&folder);
    let text = relative.to_str().with_context(|| format!("the path {} is not valid Unicode", folder.display()))?;
    Ok(if text.is_empty() { ".".to_owned() } else { text.replace('\\', "/") })
}

/// Replaces a file atomically, because a host may be reading it.
fn replace(file: &Path, text: &str) -> anyhow::Result<()> {
    // Replaces the target of a link, not the link.
    let real = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let file = real.as_path();
    let write = || -> io::Result<()> {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let mut new = tempfile::Builder::new().prefix(".modules-").tempfile_in(folder)?;
        new.write_all(text.as_bytes())?;
        // Temporary files are readable by their owner only.
        match fs::metadata(file) {
            Ok(existing) => new.as_file().set_permissions(existing.permissions())?,
            Err(_) => make_readable(new.as_file())?,
        }
        new.persist(file)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(unix)]
fn make_readable(file: &fs::File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn make_readable(_: &fs::File) -> io::Result<()> {
    Ok(())
}
