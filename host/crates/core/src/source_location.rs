//! Positions in files.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A position in a file, displayed as `modules.toml:12:3`.
///
/// Two locations are always equal, so that settings compare equal if a reload only moved them to another line.
#[derive(Clone, Debug)]
pub struct SourceLocation {
    /// The path of the file, as given by the caller.
    pub file: Arc<Path>,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

impl SourceLocation {
    /// Whether two locations are the same place.
    pub fn is_at(&self, other: &Self) -> bool {
        (&self.file, self.line, self.column) == (&other.file, other.line, other.column)
    }
}

impl PartialEq for SourceLocation {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for SourceLocation {}

impl fmt::Display for SourceLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}
