//! Truncation and single-line formatting of text.

use std::borrow::Cow;

/// Returns a text on one line: each run of white space and control characters becomes one space; leading and trailing
/// ones are removed.
pub fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

/// Truncates a text to this many characters, and appends `…` if it was longer.
pub fn truncate(text: &str, max_chars: usize) -> Cow<'_, str> {
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// Returns the longest prefix of at most this many bytes that doesn't split a character.
pub fn prefix(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn puts_text_on_one_line() {
        for (text, line) in [("", ""), ("a b", "a b"), (" a\r\n\tb\u{1b}[2J\u{85}c\u{2028}", "a b [2J c"), ("\n\n", "")]
        {
            assert_eq!(one_line(text), line);
        }
    }

    #[test]
    fn truncates_text_between_characters() {
        assert_eq!(truncate("äöü", 3), "äöü");
        assert_eq!(truncate("äöü", 2), "äö…");
        assert_eq!(truncate("äöü", 0), "…");
        assert_eq!(truncate("", 0), "");
        assert_eq!(prefix("äöü", 3), "ä");
        assert_eq!(prefix("äöü", 9), "äöü");
    }
}
