//! A modules.toml or a test file that is being read: its text, and the errors found so far.

use std::cell::RefCell;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::error::Excerpt;
use super::{ConfigError, SourceLocation, redact};

/// The text of a file. Converts byte ranges to locations and collects errors.
pub struct Document<'t> {
    file: Arc<Path>,
    text: &'t str,
    /// The byte offset of each line. A file with a thousand modules has ten thousand lines, and a location is
    /// computed for as many values.
    lines: Vec<usize>,
    secrets: Vec<Range<usize>>,
    errors: RefCell<Vec<ConfigError>>,
}

impl<'t> Document<'t> {
    /// Creates a document without errors.
    pub fn new(file: &Path, text: &'t str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(newline, _)| newline + 1)).collect();
        Self { file: file.into(), text, lines, secrets: redact::ranges(text), errors: RefCell::default() }
    }

    /// Returns the path of the file, as the caller named it.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Returns the whole text.
    pub fn text(&self) -> &'t str {
        self.text
    }

    /// Returns the location of a byte offset.
    pub fn location(&self, offset: usize) -> SourceLocation {
        let line = self.lines.partition_point(|start| *start <= offset);
        // The first line begins at 0, so some line begins at or before any offset.
        let line_start = self.lines[line - 1];
        let column = self.text[line_start..offset].chars().count() + 1;
        SourceLocation { file: self.file.clone(), line, column }
    }

    /// Records an error about this part of the text.
    pub fn report(&self, span: Range<usize>, message: impl Into<String>, advice: impl Into<String>) {
        self.errors.borrow_mut().push(self.error(span, message).advice(advice));
    }

    /// Records an error about the whole file.
    pub fn report_whole(&self, message: &str, advice: &str) {
        let error = ConfigError::new(format!("{}: {message}", self.file.display()));
        self.errors.borrow_mut().push(error.advice(advice));
    }

    /// Returns an error about this part of the text, with its line.
    pub fn error(&self, span: Range<usize>, message: impl Into<String>) -> ConfigError {
        // A value that is missing at the end of the file has a span just past the end.
        let start = self.boundary(span.start);
        let end = self.boundary(span.end.max(start));
        ConfigError::new(message).at(Some(self.location(start))).excerpt(self.excerpt(start..end))
    }

    /// Whether errors were recorded so far.
    pub fn has_errors(&self) -> bool {
        !self.errors.borrow().is_empty()
    }

    /// Returns the errors recorded so far.
    pub fn into_errors(self) -> Vec<ConfigError> {
        self.errors.into_inner()
    }

    fn boundary(&self, offset: usize) -> usize {
        self.text.floor_char_boundary(offset.min(self.text.len()))
    }

    /// Returns the first line of a span: its text with secrets redacted, and how many characters of it the span
    /// covers.
    fn excerpt(&self, span: Range<usize>) -> Excerpt {
        let line_start = self.text[..span.start].rfind('\n').map_or(0, |newline| newline + 1);
        let line = self.text[line_start..].lines().next().unwrap_or_default();
        let end = span.end.min(line_start + line.len()).max(span.start);
        Excerpt { line: self.redacted_line(line, line_start), width: self.text[span.start..end].chars().count() }
    }

    /// Returns a line for display. Each character of a secret becomes a dot; each tab becomes one space, so that the
    /// markers below the line match.
    fn redacted_line(&self, line: &str, line_start: usize) -> String {
        let is_secret = |at: usize| self.secrets.iter().any(|range| range.contains(&at));
        line.char_indices()
            .map(|(at, c)| match c {
                _ if is_secret(line_start + at) => '·',
                '\t' => ' ',
                c => c,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_lines_and_columns_in_characters() {
        let document = Document::new(Path::new("m.toml"), "a = 1\r\nü = 'x' # y\n");
        let location = document.location("a = 1\r\nü = ".len());
        assert_eq!((location.line, location.column), (2, 5));
    }

    #[test]
    fn shows_error_past_the_end_at_the_end() {
        let document = Document::new(Path::new("m.toml"), "a =");
        assert_eq!(
            document.error(3..9, "nothing here").to_string(),
            "m.toml:1:4: nothing here\n  |\n1 | a =\n  |    ^"
        );
    }
}
