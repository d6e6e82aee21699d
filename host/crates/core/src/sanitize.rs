//! Escapes untrusted text for terminals, logs and tables.
//!
//! An event's id, a module's output or a platform's error can contain anything. A line end can forge a line of the
//! host's output, an escape sequence controls the terminal, and a bidirectional control reorders the text around it, so
//! that a reader sees a different text. The functions here turn such characters into visible escapes. Nothing is
//! removed, so the original text can be recovered.

use std::borrow::Cow;
use std::fmt::Write;

/// Returns whether a character has an effect other than displaying itself.
///
/// Joiners (U+200C, U+200D) are safe: scripts and emoji need them, and they reorder nothing.
pub fn is_unsafe(c: char) -> bool {
    matches!(
        c,
        // Control characters of ASCII and Latin-1: line ends, escape sequences, and ESC [ as one character (U+009B).
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}'
            // Bidirectional controls, which reorder the text around them.
            | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // Line and paragraph separators.
            | '\u{2028}' | '\u{2029}'
            // Invisible characters, with which two different ids would look the same.
            | '\u{180e}' | '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{206a}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    )
}

/// Returns a text on one line: every unsafe character, including line ends and tabs, is escaped in Rust's notation.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false, rust_escape)
}

/// Returns a text of several lines: line ends and tabs are kept, all other unsafe characters are escaped.
pub fn lines(text: &str) -> Cow<'_, str> {
    // CRLF is a line end, too.
    let text = if text.contains("\r\n") { Cow::Owned(text.replace("\r\n", "\n")) } else { Cow::Borrowed(text) };
    match escaped(&text, |c| matches!(c, '\n' | '\t'), rust_escape) {
        Cow::Owned(escaped) => Cow::Owned(escaped),
        Cow::Borrowed(_) => text,
    }
}

/// Returns a text of several lines with `indent` before each line but the first, so that no line looks like one of the
/// host's.
pub fn indented(text: &str, indent: &str) -> String {
    lines(text.trim()).replace('\n', &format!("\n{indent}"))
}

/// Returns JSON with unsafe characters escaped as in JSON, so that it parses to the same value. Outside of strings,
/// JSON can only contain white space, which is kept.
pub fn json(text: &str) -> Cow<'_, str> {
    escaped(text, |c| matches!(c, '\n' | '\t' | '\r'), json_escape)
}

/// Escapes the host's own output: colors, line ends and tabs are kept, all other unsafe characters are escaped.
///
/// This is the last line of defense before a terminal. Values must be escaped when they are put into a line, because
/// their line ends would be kept here.
pub fn styled(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| is_unsafe(c) && !matches!(c, '\n' | '\t')) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let style = style_length(rest);
        if style > 0 {
            shown.push_str(&rest[..style]);
            rest = &rest[style..];
            continue;
        }
        match c {
            '\n' | '\t' => shown.push(c),
            c if is_unsafe(c) => rust_escape(&mut shown, c),
            c => shown.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    Cow::Owned(shown)
}

/// Returns the length in bytes of a color or style sequence (`ESC [ 1;31 m`) at the beginning, or 0.
fn style_length(text: &str) -> usize {
    let Some(parameters) = text.strip_prefix("\u{1b}[") else { return 0 };
    let length = parameters.bytes().take_while(|byte| byte.is_ascii_digit() || matches!(byte, b';' | b':')).count();
    if parameters.as_bytes().get(length) == Some(&b'm') { length + 3 } else { 0 }
}

fn escaped(text: &str, is_kept: impl Fn(char) -> bool, escape: impl Fn(&mut String, char)) -> Cow<'_, str> {
    let is_escaped = |c: char| is_unsafe(c) && !is_kept(c);
    let Some(first) = text.find(is_escaped) else { return Cow::Borrowed(text) };
    let mut shown = String::with_capacity(text.len() + 16);
    shown.push_str(&text[..first]);
    for c in text[first..].chars() {
        if is_escaped(c) { escape(&mut shown, c) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

fn rust_escape(to: &mut String, c: char) {
    match c {
        '\n' | '\r' | '\t' => to.extend(c.escape_default()),
        c => to.extend(c.escape_unicode()),
    }
}

fn json_escape(to: &mut String, c: char) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        // Writing to a String can't fail.
        let _ = write!(to, "\\u{unit:04x}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_line_ends_and_control_sequences() {
        for (text, shown) in [
            ("plain — ‘text’ 日本語 👩‍👩‍👧", "plain — ‘text’ 日本語 👩‍👩‍👧"),
            ("a\nERROR forged", r"a\nERROR forged"),
            ("a\r\u{85}b\tc", r"a\r\u{85}b\tc"),
            ("\u{1b}[2J\u{9b}2J\u{7f}\0", r"\u{1b}[2J\u{9b}2J\u{7f}\u{0}"),
            ("user\u{202e}txt.exe\u{2066}x\u{200f}", r"user\u{202e}txt.exe\u{2066}x\u{200f}"),
            ("a\u{2028}b\u{2029}c\u{feff}\u{200b}\u{e0041}", r"a\u{2028}b\u{2029}c\u{feff}\u{200b}\u{e0041}"),
        ] {
            assert_eq!(line(text), shown);
        }
        assert_eq!(lines("a\r\nb\n\u{1b}[31mc\rd"), "a\nb\n\\u{1b}[31mc\\rd");
        assert_eq!(indented("a\nERROR b\n", "  | "), "a\n  | ERROR b");
    }

    #[test]
    fn keeps_styles_and_escapes_everything_else() {
        let colored = "\u{1b}[1m\u{1b}[38;5;2mgood\u{1b}[0m\u{1b}[m\n";
        assert_eq!(styled(colored), colored);
        assert_eq!(styled("\u{1b}[2Jx\u{1b}]0;title\u{7}\u{1b}"), r"\u{1b}[2Jx\u{1b}]0;title\u{7}\u{1b}");
        assert_eq!(styled("\u{1b}[1"), r"\u{1b}[1");
    }

    proptest! {
        #[test]
        fn leaves_no_unsafe_character(
            text in any::<String>(),
            unsafe_one in unsafe_character(),
            at in any::<prop::sample::Index>(),
        ) {
            let text = with(&text, unsafe_one, at);
            prop_assert!(!line(&text).chars().any(is_unsafe));
            prop_assert!(!lines(&text).chars().any(|c| is_unsafe(c) && !matches!(c, '\n' | '\t')));
            let visible = anstream::adapter::strip_str(&styled(&text)).to_string();
            prop_assert!(!visible.chars().any(|c| is_unsafe(c) && !matches!(c, '\n' | '\t')), "{visible:?}");
        }

        #[test]
        fn escaped_json_parses_to_the_same_value(
            text in any::<String>(),
            unsafe_one in unsafe_character(),
            at in any::<prop::sample::Index>(),
        ) {
            let text = with(&text, unsafe_one, at);
            let written = serde_json::to_string(&serde_json::json!({ "key": text })).unwrap();
            let shown = json(&written);
            prop_assert!(!shown.chars().any(is_unsafe), "{shown:?}");
            let read: serde_json::Value = serde_json::from_str(&shown).unwrap();
            prop_assert_eq!(read["key"].as_str(), Some(text.as_str()));
        }
    }

    fn unsafe_character() -> impl Strategy<Value = char> {
        let ranges = [
            '\0'..='\u{1f}',
            '\u{7f}'..='\u{9f}',
            '\u{200b}'..='\u{200f}',
            '\u{2028}'..='\u{202e}',
            '\u{2060}'..='\u{206f}',
        ];
        let joins = |c: &char| is_unsafe(*c);
        let all: Vec<char> =
            ranges.into_iter().flatten().chain(['\u{61c}', '\u{feff}', '\u{e0041}']).filter(joins).collect();
        prop::sample::select(all)
    }

    fn with(text: &str, inserted: char, at: prop::sample::Index) -> String {
        let mut characters: Vec<char> = text.chars().collect();
        characters.insert(at.index(characters.len() + 1), inserted);
        characters.into_iter().collect()
    }
}
