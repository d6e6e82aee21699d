//! Finds the parts of a modules.toml that must not be shown.
//!
//! An error shows its line. A secret should never be in the file, but that may be the very error, and the file may
//! not even be TOML. So the text is scanned for keys that look like the key of a secret, misspelled keys and a
//! module's own keys included. Every value after such a key is redacted unless it is a reference.

use std::ops::Range;

use super::reference::is_reference;

/// Words that occur in the keys of secrets.
pub const SECRET_WORDS: [&str; 6] = ["secret", "key", "token", "password", "authorization", "cookie"];

/// A key that contains one of these words, but whose value is a size.
const NO_SECRET: &str = "keyvalue";

/// Returns the byte ranges of the text that contain, or may contain, a secret.
pub(super) fn ranges(text: &str) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let lowercase = text.to_ascii_lowercase();
    for word in SECRET_WORDS {
        for (at, _) in lowercase.match_indices(word).filter(|(at, _)| key_around(&lowercase, *at) != NO_SECRET) {
            let behind = &text[at + word.len()..];
            // Skip to the end of the key, which may be quoted. Any other character before the `=` means that this is
            // prose.
            let rest = behind.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "_-\"'".contains(c));
            if let Some(value) = rest.trim_start_matches([' ', '\t']).strip_prefix('=') {
                redact_value(text, text.len() - value.len(), &mut ranges);
            }
        }
    }
    redact_credentials(text, &mut ranges);
    ranges
}

/// Returns the whole key that contains the word at this offset.
fn key_around(text: &str, at: usize) -> &str {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    let start = text[..at].trim_end_matches(is_part).len();
    let length = text[start..].find(|c| !is_part(c)).unwrap_or(text.len() - start);
    &text[start..start + length]
}

/// Redacts the text before the `@` of a URL if it contains a password.
fn redact_credentials(text: &str, ranges: &mut Vec<Range<usize>>) {
    for (at, _) in text.match_indices('@') {
        let start = text[..at].rfind(['/', '"', '\'', ' ', '\n']).map_or(0, |before| before + 1);
        if text[start..at].contains(':') {
            ranges.push(start..at);
        }
    }
}

/// Redacts the value that starts at `start`: the literals of an array, one literal, or the rest of the line.
fn redact_value(text: &str, start: usize, ranges: &mut Vec<Range<usize>>) {
    let mut at = skip_spaces(text, start);
    if !text[at..].starts_with('[') {
        redact_item(text, at, ranges);
        return;
    }
    at += 1;
    // Until the closing bracket, or until a new section shows that the bracket is never closed.
    while let Some(next) = text[at..].chars().next() {
        match next {
            ']' | '[' => return,
            ',' => at += 1,
            '#' => at += line_length(&text[at..]),
            _ if next.is_whitespace() => at += next.len_utf8(),
            _ => at = redact_item(text, at, ranges),
        }
    }
}

/// Redacts one value unless it is a reference. Returns the offset of its end.
fn redact_item(text: &str, at: usize, ranges: &mut Vec<Range<usize>>) -> usize {
    let rest = &text[at..];
    let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| rest.starts_with(quote));
    let Some(quote) = quote else {
        // Not a string, so not a reference. A comma may be part of it.
        let end = at + line_length(rest);
        ranges.push(at..end);
        return end;
    };
    let inner = at + quote.len();
    let closing =
        text[inner..].find(quote).filter(|length| quote.len() == 3 || !text[inner..inner + length].contains('\n'));
    let (inner_end, end) = match closing {
        Some(length) => (inner + length, inner + length + quote.len()),
        None => (inner + line_length(&text[inner..]), inner + line_length(&text[inner..])),
    };
    if closing.is_none() || !is_reference(&text[inner..inner_end]) {
        ranges.push(inner..inner_end);
    }
    end
}

fn skip_spaces(text: &str, at: usize) -> usize {
    text.len() - text[at..].trim_start_matches([' ', '\t']).len()
}

fn line_length(text: &str) -> usize {
    text.find(['\r', '\n']).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let hidden = ranges(text);
        text.char_indices()
            .map(|(at, c)| if hidden.iter().any(|range| range.contains(&at)) { '·' } else { c })
            .collect()
    }

    #[test]
    fn redacts_literals_and_keeps_references() {
        assert_eq!(shown(r#"secrets = ["env:A|B", "usig_1"]"#), r#"secrets = ["env:A|B", "······"]"#);
        assert_eq!(shown("api_key='k'\nmodel='m'"), "api_key='·'\nmodel='m'");
        assert_eq!(shown(r#"{ "api_key" = "k", model = "m" }"#), r#"{ "api_key" = "·", model = "m" }"#);
        assert_eq!(
            shown("secrets = [\n  \"a\", # why\n  'b',\n]\npath = '/'"),
            "secrets = [\n  \"·\", # why\n  '·',\n]\npath = '/'"
        );
    }

    #[test]
    fn redacts_misspelled_keys_and_keys_of_modules() {
        assert_eq!(shown("secret = 'a'"), "secret = '·'");
        assert_eq!(shown("APIKEY='a'"), "APIKEY='·'");
        assert_eq!(shown("{ access-token-2 = 'a', name = 'b' }"), "{ access-token-2 = '·', name = 'b' }");
        assert_eq!(shown("my_keyvalue = 'a'"), "my_keyvalue = '·'");
    }

    #[test]
    fn keeps_size_of_key_value_store() {
        assert_eq!(shown("{ keyvalue = '10MB', key = 'a' }"), "{ keyvalue = '10MB', key = '·' }");
    }

    #[test]
    fn redacts_text_that_is_not_toml() {
        assert_eq!(shown("api_key = ukey_1\nx = 1"), "api_key = ······\nx = 1");
        assert_eq!(shown("api_key = \"ukey\nx = 1"), "api_key = \"····\nx = 1");
        assert_eq!(shown("secrets = [\"a\n[[tenant]]"), "secrets = [\"·\n[[tenant]]");
        assert_eq!(shown("secrets = 'a'"), "secrets = '·'");
    }

    #[test]
    fn keeps_prose() {
        assert_eq!(shown("# the secrets of the source"), "# the secrets of the source");
    }
}
