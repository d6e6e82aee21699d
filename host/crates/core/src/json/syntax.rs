//! The grammar and its syntax error.

use std::ops::Range;

use super::scan::{plain_end, space_end};
use super::string::code_unit;

/// The reason a text is not JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} at line {line} column {column}")]
pub struct SyntaxError {
    expected: &'static str,
    /// Counts from 1.
    line: usize,
    /// Counts bytes from 1.
    column: usize,
}

/// Returns the range of the single value in a text, without surrounding white space and byte order mark.
pub(super) fn check(text: &[u8]) -> Result<Range<usize>, SyntaxError> {
    let mut checker = Checker { text, at: 0 };
    checker.document().map_err(|expected| checker.error(expected))
}

/// A validating parser that builds no values and does not recurse.
struct Checker<'a> {
    text: &'a [u8],
    at: usize,
}

type Expected<T> = Result<T, &'static str>;

impl Checker<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        self.at = space_end(self.text, self.at);
    }

    /// Skips white space around the document; form feeds are accepted there, too.
    fn skip_outer_space(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// Checks that the text is one value; returns its range.
    fn document(&mut self) -> Expected<Range<usize>> {
        const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
        self.skip_outer_space();
        if self.text[self.at..].starts_with(BYTE_ORDER_MARK) {
            self.at += BYTE_ORDER_MARK.len();
            self.skip_outer_space();
        }
        let start = self.at;
        self.value()?;
        let end = self.at;
        self.skip_outer_space();
        if self.at == self.text.len() { Ok(start..end) } else { Err("the end") }
    }

    /// Checks a value.
    fn value(&mut self) -> Expected<()> {
        // The opening brackets of the containers around the current value, outermost first.
        let mut open: Vec<u8> = Vec::new();
        'values: loop {
            match self.peek() {
                Some(bracket @ (b'{' | b'[')) => {
                    self.at += 1;
                    self.skip_space();
                    let is_object = bracket == b'{';
                    if self.peek() == Some(if is_object { b'}' } else { b']' }) {
                        self.at += 1;
                    } else {
                        open.push(bracket);
                        if is_object {
                            self.key()?;
                        }
                        continue 'values;
                    }
                }
                Some(b'"') => self.string()?,
                _ => self.scalar()?,
            }
            while let Some(bracket) = open.last() {
                self.skip_space();
                match (bracket, self.peek()) {
                    (b'{', Some(b',')) => {
                        self.at += 1;
                        self.skip_space();
                        self.key()?;
                        continue 'values;
                    }
                    (_, Some(b',')) => {
                        self.at += 1;
                        self.skip_space();
                        continue 'values;
                    }
                    (b'{', Some(b'}')) | (b'[', Some(b']')) => {
                        open.pop();
                        self.at += 1;
                    }
                    (b'{', _) => return Err("`,` or `}`"),
                    (_, _) => return Err("`,` or `]`"),
                }
            }
            return Ok(());
        }
    }

    /// Checks a key, its colon, and the white space around the colon.
    fn key(&mut self) -> Expected<()> {
        if self.peek() != Some(b'"') {
            return Err("a key in quotes");
        }
        self.string()?;
        self.skip_space();
        if self.peek() != Some(b':') {
            return Err("`:`");
        }
        self.at += 1;
        self.skip_space();
        Ok(())
    }

    fn string(&mut self) -> Expected<()> {
        self.at += 1;
        loop {
            self.at = plain_end(self.text, self.at);
            match self.peek() {
                None => return Err("the end of a string"),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(_) => {
                    self.at += 1;
                    match self.peek() {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
                        Some(b'u') => {
                            if code_unit(self.text, self.at - 1).is_none() {
                                return Err("four hex digits behind `\\u`");
                            }
                            self.at += 5;
                        }
                        _ => return Err("an escape"),
                    }
                }
            }
        }
    }

    fn scalar(&mut self) -> Expected<()> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let words: [&[u8]; 6] = [b"true", b"false", b"null", b"NaN", b"Infinity", b"-Infinity"];
        match words.iter().find(|word| rest.starts_with(word)) {
            Some(word) => {
                self.at += word.len();
                Ok(())
            }
            None => self.number(),
        }
    }

    fn number(&mut self) -> Expected<()> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            _ => return Err("a value"),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Expected<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { Err("a digit") } else { Ok(()) }
    }

    fn error(&self, expected: &'static str) -> SyntaxError {
        let before = &self.text[..self.at.min(self.text.len())];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        SyntaxError { expected, line, column }
    }
}
