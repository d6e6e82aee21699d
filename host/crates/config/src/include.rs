//! `include`: the settings files of tenants, which modules.toml names by path or by pattern.
//!
//! An included file has the tables of modules.toml for one tenant. Its sources and modules have names of their own:
//! outside of the file, `Assistant` of the tenant `acme` is `acme/Assistant`.

pub(crate) mod claims;
mod tenant_file;

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

use super::table::Value;
use super::{ConfigError, SourceLocation};
use modhost_core::files;
pub(crate) use tenant_file::scope;

/// The maximum number of included files.
pub const MAX_FILES: usize = 10_000;

/// The characters that make a path a pattern.
const WILDCARDS: [char; 3] = ['*', '?', '['];

/// How a pattern matches file names. Editors and deployment tools write hidden files beside the real ones.
const MATCHING: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// An entry of `include`.
#[derive(Clone, Debug, PartialEq)]
pub struct Include {
    /// The entry as it is in the file.
    written: String,
    /// The folder, resolved against the folder of the file.
    folder: PathBuf,
    name: FileName,
    location: SourceLocation,
}

/// Which files of a folder an entry includes.
#[derive(Clone, Debug, PartialEq)]
enum FileName {
    Literal(PathBuf),
    Pattern(Pattern),
}

/// The files that the entries of `include` name.
#[derive(Clone, Debug, Default)]
pub struct IncludedFiles {
    /// The files, in the order in which they are read.
    pub files: BTreeSet<PathBuf>,
    /// The entries whose folder could not be listed. What they included before is not gone.
    pub errors: Vec<ConfigError>,
}

impl Include {
    /// Reads an entry of `include`.
    pub(super) fn read(value: &Value<'_>) -> Option<Self> {
        let written = value.text()?;
        let path: PathBuf = super::file::resolve_path(value.document, Path::new(written)).components().collect();
        let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            value.reject(
                format!("\"{written}\" does not name a file"),
                r#"write a path or a pattern, for example, "tenants/*.toml""#,
            );
            return None;
        };
        let in_folder = Path::new(written).parent().is_some_and(|folder| folder.to_string_lossy().contains(WILDCARDS));
        if in_folder {
            value.reject(
                format!("\"{written}\" has a wildcard in the name of a folder"),
                r#"use wildcards in file names only, and list each folder: ["north/*.toml", "south/*.toml"]"#,
            );
            return None;
        }
        let name = if name.contains(WILDCARDS) {
            let pattern = Pattern::new(name).map_err(|error| {
                value.reject(
                    format!("\"{written}\" is not a pattern: {}", error.msg),
                    r#"use * for any characters and ? for one character, for example, "tenants/*.toml""#,
                );
            });
            FileName::Pattern(pattern.ok()?)
        } else {
            FileName::Literal(path.clone())
        };
        let location = value.document.location(value.span().start);
        Some(Self { written: written.to_owned(), folder: folder.to_owned(), name, location })
    }

    /// Returns the path of the file, unless the entry is a pattern.
    pub fn literal(&self) -> Option<&Path> {
        match &self.name {
            FileName::Literal(path) => Some(path),
            FileName::Pattern(_) => None,
        }
    }

    /// Whether the entry includes a file, whether or not that exists.
    pub fn names(&self, file: &Path) -> bool {
        match &self.name {
            FileName::Literal(path) => path == file,
            FileName::Pattern(pattern) => {
                let name = file.file_name().and_then(|name| name.to_str());
                file.parent() == Some(&self.folder) && name.is_some_and(|name| pattern.matches_with(name, MATCHING))
            }
        }
    }

    /// Returns a path in the folder of the files. Watching it notices new files.
    pub fn in_folder(&self) -> PathBuf {
        match &self.name {
            FileName::Literal(path) => path.clone(),
            FileName::Pattern(pattern) => self.folder.join(pattern.as_str()),
        }
    }

    /// Adds the files of the entry. `top` is the settings file, which a pattern never includes.
    fn add_files(&self, top: &Path, files: &mut BTreeSet<PathBuf>) -> Result<(), ConfigError> {
        if let Some(path) = self.literal() {
            files.insert(path.to_owned());
            return Ok(());
        }
        let folder = if self.folder.as_os_str().is_empty() { Path::new(".") } else { &self.folder };
        files::record_path(folder);
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            // The folder may be filled later.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(self.unlisted(&error)),
        };
        for entry in entries {
            let file = self.folder.join(entry.map_err(|error| self.unlisted(&error))?.file_name());
            if self.names(&file) && !is_same_path(&file, top) {
                files.insert(file);
            }
        }
        Ok(())
    }

    fn unlisted(&self, error: &std::io::Error) -> ConfigError {
        ConfigError::new(format!("cannot list the files of \"{}\": {error}", self.written))
            .at(Some(self.location.clone()))
            .advice("check the folder and its permissions; files that were included before stay in effect")
    }

    /// Whether the folder of an entry could not be listed, so that nothing is known about its files.
    pub fn is_unlisted(&self, found: &IncludedFiles) -> bool {
        found.errors.iter().any(|error| error.location().is_some_and(|at| at.is_at(&self.location)))
    }

    /// Returns the error for a file that the entry names and that does not exist.
    pub fn missing(&self) -> ConfigError {
        ConfigError::new(format!("there is no file {}, which `include` names", self.in_folder().display()))
            .at(Some(self.location.clone()))
            .advice("create the file, or remove it from `include`")
    }
}

/// Returns the included files that exist, and those that are named without a wildcard.
pub fn included_files(include: &[Include], top: &Path) -> IncludedFiles {
    let mut found = IncludedFiles::default();
    for entry in include {
        if let Err(error) = entry.add_files(top, &mut found.files) {
            found.errors.push(error);
        }
    }
    if found.files.len() > MAX_FILES {
        let error =
            ConfigError::new(format!("`include` names {} files, but the maximum is {MAX_FILES}", found.files.len()))
                .at(include.first().map(|entry| entry.location.clone()))
                .advice("use fewer files; those after the maximum, in alphabetical order, are not read");
        found.errors.push(error);
        found.files = std::mem::take(&mut found.files).into_iter().take(MAX_FILES).collect();
    }
    found
}

fn is_same_path(one: &Path, other: &Path) -> bool {
    let absolute = |path: &Path| std::path::absolute(path).ok();
    one.file_name() == other.file_name() && absolute(one) == absolute(other)
}
