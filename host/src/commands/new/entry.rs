//! A module's entry, and the `modules.toml` it goes into: written if there is none, and else changed only by adding to it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::first;
use crate::commands::output;
use modhost_authoring::bindings;
use modhost_authoring::names::Names;
use modhost_config::Settings;

/// What `modules.toml` has to say of a module.
pub(super) struct Entry {
    text: String,
}

/// Where an entry goes.
pub(super) enum EntryPosition {
    /// There is no `modules.toml`: one is written.
    First { file: PathBuf },
    /// There is one, with this text.
    Existing { file: PathBuf, text: String },
    /// It is to be added to this text.
    Added { file: PathBuf, text: String },
}

impl Entry {
    pub(super) fn new(text: String) -> Self {
        Self { text }
    }

    /// A file's text with the entry at its end.
    fn at_the_end_of(&self, text: &str) -> String {
        format!("{}\n\n{}", text.trim_end(), self.text)
    }

    /// Which line it begins on then.
    fn line(&self, text: &str) -> usize {
        text.trim_end().lines().count() + 2
    }
}

impl EntryPosition {
    /// Looks at the file.
    ///
    /// # Errors
    ///
    /// When it has a module of this name already.
    pub(super) fn find(file: &Path, names: &Names) -> anyhow::Result<Self> {
        let text = match Settings::text(file) {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(Self::First { file: file.to_owned() }),
            Err(error) => return Err(error.into()),
        };
        // One that is wrong somewhere else needn't keep anybody from starting.
        let modules = Settings::parse(&text, file).map(|settings| settings.modules).unwrap_or_default();
        if let Some(taken) = modules.iter().find(|module| module.name.as_str() == names.module) {
            bail!("{}: there is a module {} already; give this one another name", taken.place, names.module);
        }
        Ok(Self::Existing { file: file.to_owned(), text })
    }

    /// Settles where the entry goes.
    ///
    /// # Errors
    ///
    /// When it is to be added to a file that doesn't make sense with it.
    pub(super) fn with(self, entry: &Entry, add: bool) -> anyhow::Result<Self> {
        let Self::Existing { file, text } = self else { return Ok(self) };
        if !add {
            return Ok(Self::Existing { file, text });
        }
        Settings::parse(&entry.at_the_end_of(&text), &file)
            .with_context(|| format!("nothing is added to {}, and nothing was made", file.display()))?;
        Ok(Self::Added { file, text })
    }

    /// Writes the entry, or says what to add.
    pub(super) fn write(&self, entry: &Entry) -> anyhow::Result<()> {
        match self {
            Self::First { file } => {
                let (text, others) = first();
                let folder = file.parent().unwrap_or(Path::new(""));
                replace(file, &entry.at_the_end_of(&text))?;
                output::println!("{}: new, with the module in it at line {}", file.display(), entry.line(&text));
                let missing: Vec<_> =
                    others.into_iter().filter(|other| !begins(folder, &other.path).exists()).collect();
                for other in &missing {
                    output::println!("{}: a document for the module to find", folder.join(&other.path).display());
                }
                bindings::write(&missing, folder)
                    .map_err(|(path, error)| anyhow::anyhow!("can't write {}: {error}", path.display()))?;
            }
            Self::Added { file, text } => {
                replace(file, &entry.at_the_end_of(text))?;
                output::println!("{}: the module is in it, at line {}", file.display(), entry.line(text));
            }
            Self::Existing { file, .. } => {
                output::println!("{}: put this at its end; with --add, `new` does it by itself\n", file.display());
                output::print!("{}", entry.text);
            }
        }
        Ok(())
    }
}

/// The folder a file's path begins with.
fn begins(folder: &Path, path: &Path) -> PathBuf {
    folder.join(path.components().next().map(|first| first.as_os_str().to_owned()).unwrap_or_default())
}

/// A folder as `modules.toml` in another names it.
pub(super) fn seen_from(from: &Path, folder: &Path) -> anyhow::Result<String> {
    let absolute = |path: &Path| {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        std::path::absolute(path).with_context(|| format!("{} is no folder", path.display()))
    };
    let (from, folder) = (absolute(from)?, absolute(folder)?);
    let seen = folder.strip_prefix(&from).unwrap_or(&folder);
    let text = seen.to_str().with_context(|| format!("the name of {} is no text", folder.display()))?;
    Ok(if text.is_empty() { ".".to_owned() } else { text.replace('\\', "/") })
}

/// Puts a file in its place in one go, as one is there that a host may be reading.
fn replace(file: &Path, text: &str) -> anyhow::Result<()> {
    // What it may be a link to stays where it is.
    let real = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let file = real.as_path();
    let write = || -> io::Result<()> {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let mut new = tempfile::Builder::new().prefix(".modules-").tempfile_in(folder)?;
        new.write_all(text.as_bytes())?;
        // A temporary file is its owner's alone, where this one is everyone's who could read it before.
        match fs::metadata(file) {
            Ok(there) => new.as_file().set_permissions(there.permissions())?,
            Err(_) => everyones(new.as_file())?,
        }
        new.persist(file)?;
        Ok(())
    };
    write().with_context(|| format!("can't write {}", file.display()))
}

#[cfg(unix)]
fn everyones(file: &fs::File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn everyones(_: &fs::File) -> io::Result<()> {
    Ok(())
}
