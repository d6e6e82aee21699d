//! A modules.toml or a test file being read: its text, and what was found wrong with it so far.

use std::cell::RefCell;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::error::Excerpt;
use super::{ConfigError, SourceLocation, redact};

/// The text of a file, which turns byte ranges into places and collects what is wrong.
pub struct Document<'t> {
    file: Arc<Path>,
    text: &'t str,
    /// Where each line begins: a file with a thousand modules has ten thousand lines and asks for as many places.
    lines: Vec<usize>,
    secrets: Vec<Range<usize>>,
    problems: RefCell<Vec<ConfigError>>,
}

impl<'t> Document<'t> {
    pub fn new(file: &Path, text: &'t str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(newline, _)| newline + 1)).collect();
        Self { file: file.into(), text, lines, secrets: redact::ranges(text), problems: RefCell::default() }
    }

    /// The file, as it was named by who asked for it.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The whole text.
    pub fn text(&self) -> &'t str {
        self.text
    }

    /// The place of a byte of the text.
    pub fn place(&self, offset: usize) -> SourceLocation {
        let line = self.lines.partition_point(|start| *start <= offset);
        // The first line begins at 0, so there is one before any offset.
        let line_start = self.lines[line - 1];
        let column = self.text[line_start..offset].chars().count() + 1;
        SourceLocation { file: self.file.clone(), line, column }
    }

    /// Notes that something is wrong here.
    pub fn report(&self, span: Range<usize>, message: impl Into<String>, advice: impl Into<String>) {
        self.problems.borrow_mut().push(self.error(span, message).advice(advice));
    }

    /// Notes that something is wrong with the file as a whole.
    pub fn report_whole(&self, message: &str, advice: &str) {
        let error = ConfigError::new(format!("{}: {message}", self.file.display()));
        self.problems.borrow_mut().push(error.advice(advice));
    }

    /// An error about this part of the text, with its line.
    pub fn error(&self, span: Range<usize>, message: impl Into<String>) -> ConfigError {
        // What is missing at the end of the file is reported just behind it.
        let start = self.boundary(span.start);
        let end = self.boundary(span.end.max(start));
        ConfigError::new(message).at(Some(self.place(start))).excerpt(self.excerpt(start..end))
    }

    /// Everything found wrong so far.
    pub fn into_problems(self) -> Vec<ConfigError> {
        self.problems.into_inner()
    }

    fn boundary(&self, offset: usize) -> usize {
        self.text.floor_char_boundary(offset.min(self.text.len()))
    }

    /// The first line of a span: its text without secrets, and how much of it the span covers.
    fn excerpt(&self, span: Range<usize>) -> Excerpt {
        let line_start = self.text[..span.start].rfind('\n').map_or(0, |newline| newline + 1);
        let line = self.text[line_start..].lines().next().unwrap_or_default();
        let end = span.end.min(line_start + line.len()).max(span.start);
        Excerpt { line: self.shown(line, line_start), width: self.text[span.start..end].chars().count() }
    }

    /// A line as it may be shown: as many characters as it has, those of a secret as dots, and tabs as wide as the
    /// marks below them.
    fn shown(&self, line: &str, line_start: usize) -> String {
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
        let place = document.place("a = 1\r\nü = ".len());
        assert_eq!((place.line, place.column), (2, 5));
    }

    #[test]
    fn an_error_behind_the_end_is_shown_at_the_end() {
        let document = Document::new(Path::new("m.toml"), "a =");
        assert_eq!(
            document.error(3..9, "nothing here").to_string(),
            "m.toml:1:4: nothing here\n  |\n1 | a =\n  |    ^"
        );
    }
}
