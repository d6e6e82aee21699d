//! Where something stands in a file.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where something stands in a file; shown as `modules.toml:12:3`.
///
/// Two places are always equal, so that settings compare equal when a reload only moved them to another line.
#[derive(Clone, Debug)]
pub struct SourceLocation {
    /// The file, as it was named by who asked for it.
    pub file: Arc<Path>,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
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
