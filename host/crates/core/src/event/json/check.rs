//! Whether a text is JSON.

use std::ops::Range;

use super::NotJson;
use super::scan::{space_end, unit};

/// Where the value stands that is all of a text but for white space around it.
pub(super) fn one_value(text: &[u8]) -> Result<Range<usize>, NotJson> {
    let mut checker = Checker { text, at: 0 };
    checker.value().map_err(|expected| not_json(text, checker.at, expected))
}

/// Checks a text from its beginning to its end, without calling itself.
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

    /// One value and nothing behind it: where it stands.
    fn value(&mut self) -> Expected<Range<usize>> {
        const MARK: &[u8] = "\u{feff}".as_bytes();
        if self.text.starts_with(MARK) {
            self.at = MARK.len();
        }
        self.skip_space();
        let start = self.at;
        // What is open around the value at hand, outermost first: one byte a level.
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
            loop {
                let end = self.at;
                self.skip_space();
                match (open.last(), self.peek()) {
                    (None, None) => return Ok(start..end),
                    (None, Some(_)) => return Err("the end"),
                    (Some(b'{'), Some(b',')) => {
                        self.at += 1;
                        self.skip_space();
                        self.key()?;
                        continue 'values;
                    }
                    (Some(_), Some(b',')) => {
                        self.at += 1;
                        self.skip_space();
                        continue 'values;
                    }
                    (Some(b'{'), Some(b'}')) | (Some(b'['), Some(b']')) => {
                        open.pop();
                        self.at += 1;
                    }
                    (Some(b'{'), _) => return Err("`,` or `}`"),
                    (Some(_), _) => return Err("`,` or `]`"),
                }
            }
        }
    }

    /// A key, its colon, and the space around that.
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
            match self.peek() {
                None => return Err("the end of a string"),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
                        Some(b'u') => {
                            if unit(self.text, self.at - 1).is_none() {
                                return Err("four hex digits behind `\\u`");
                            }
                            self.at += 5;
                        }
                        _ => return Err("an escape"),
                    }
                }
                Some(_) => self.at += 1,
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
}

fn not_json(text: &[u8], at: usize, expected: &'static str) -> NotJson {
    let before = &text[..at.min(text.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    NotJson { expected, line, column }
}
