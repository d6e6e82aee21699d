//! Rewrites values for stricter parsers.

use std::borrow::Cow;
use std::ops::Range;

use super::number::replacement;
use super::scan::{plain_end, scalar_end, value_end};
use super::string::escaped_character;

/// Rewrites a value so that every parser accepts it; borrows it if it is strict already. Objects and lists nested
/// deeper than `max_depth` become `null`.
pub(super) fn rewrite(text: &[u8], max_depth: usize) -> Cow<'_, str> {
    let mut rewriter = Rewriter { text, written: Vec::new(), copied: 0 };
    let (mut at, mut depth) = (0, 0_usize);
    while at < text.len() {
        match text[at] {
            b'"' => at = rewriter.string(at),
            b'-' | b'0'..=b'9' | b'N' | b'I' => {
                let end = scalar_end(text, at);
                if let Some(with) = replacement(&text[at..end]) {
                    rewriter.replace(at..end, with.as_bytes());
                }
                at = end;
            }
            b't' | b'f' | b'n' => at = scalar_end(text, at),
            b'{' | b'[' if depth == max_depth => {
                let end = value_end(text, at);
                rewriter.replace(at..end, b"null");
                at = end;
            }
            byte => {
                match byte {
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
            }
        }
    }
    rewriter.finish()
}

/// A text with some of its ranges replaced.
struct Rewriter<'a> {
    text: &'a [u8],
    written: Vec<u8>,
    /// The end of the part of `text` that `written` covers.
    copied: usize,
}

impl<'a> Rewriter<'a> {
    fn replace(&mut self, range: Range<usize>, with: &[u8]) {
        self.written.extend_from_slice(&self.text[self.copied..range.start]);
        self.written.extend_from_slice(with);
        self.copied = range.end;
    }

    /// Rewrites the string that begins here; returns its end.
    fn string(&mut self, start: usize) -> usize {
        let text = self.text;
        let mut at = start + 1;
        loop {
            let end = plain_end(text, at);
            self.plain(at, end);
            if text[end] == b'"' {
                return end + 1;
            }
            at = end + 2;
            if text[end + 1] == b'u' {
                let (character, length) = escaped_character(text, end);
                if character.is_none() {
                    self.replace(end..end + length, b"\\ufffd");
                }
                at = end + length;
            }
        }
    }

    /// Escapes the control characters in a part of a string that has no escapes.
    fn plain(&mut self, start: usize, end: usize) {
        let part = &self.text[start..end];
        // Without a branch per byte, so that the compiler uses vector instructions.
        if !part.iter().fold(false, |found, byte| found | (*byte < 0x20)) {
            return;
        }
        for (at, byte) in (start..).zip(part).filter(|(_, byte)| **byte < 0x20) {
            self.replace(at..at + 1, format!("\\u{byte:04x}").as_bytes());
        }
    }

    fn finish(mut self) -> Cow<'a, str> {
        // Only strings can contain bytes that are not UTF-8.
        if self.copied == 0 {
            return String::from_utf8_lossy(self.text);
        }
        self.written.extend_from_slice(&self.text[self.copied..]);
        let text = String::from_utf8(self.written);
        Cow::Owned(text.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }
}
