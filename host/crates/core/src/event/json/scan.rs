//! Where values end in a text that was checked, and what stands in its strings.

use std::borrow::Cow;

use super::Text;

/// Where white space ends.
pub(super) fn space_end(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
        at += 1;
    }
    at
}

/// Where a value ends that begins here, in a text that was checked.
pub(super) fn value_end(text: &[u8], start: usize) -> usize {
    match text[start] {
        b'"' => string_end(text, start),
        b'{' | b'[' => {
            let (mut at, mut depth) = (start, 0usize);
            loop {
                match text[at] {
                    b'"' => {
                        at = string_end(text, at);
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    return at;
                }
            }
        }
        _ => scalar_end(text, start),
    }
}

/// Where a string ends that begins here, behind its closing quote.
pub(super) fn string_end(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while text[at] != b'"' {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

pub(super) fn scalar_end(text: &[u8], start: usize) -> usize {
    let rest = &text[start..];
    let ends = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n');
    start + rest.iter().position(ends).unwrap_or(rest.len())
}

/// The UTF-16 unit of the escape `\uXXXX` that begins here.
pub(super) fn unit(text: &[u8], at: usize) -> Option<u16> {
    let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// What stands between the quotes of a string.
pub(super) fn decode(inside: &[u8]) -> Text<'_> {
    if !inside.contains(&b'\\') {
        let text = String::from_utf8_lossy(inside);
        let is_lossy = matches!(text, Cow::Owned(_));
        return Text { text, is_lossy };
    }
    let (mut text, mut is_lossy) = (String::with_capacity(inside.len()), false);
    let mut push_raw = |text: &mut String, raw: &[u8]| {
        let raw = String::from_utf8_lossy(raw);
        is_lossy |= matches!(raw, Cow::Owned(_));
        text.push_str(&raw);
    };
    let (mut at, mut copied, mut halves) = (0, 0, false);
    while at < inside.len() {
        if inside[at] != b'\\' {
            at += 1;
            continue;
        }
        push_raw(&mut text, &inside[copied..at]);
        let escaped = inside.get(at + 1).copied().unwrap_or(b'\\');
        if escaped == b'u' {
            let (character, length) = character(inside, at);
            halves |= character.is_none();
            text.push(character.unwrap_or(char::REPLACEMENT_CHARACTER));
            at += length;
        } else {
            text.push(match escaped {
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                other => char::from(other),
            });
            at += 2;
        }
        copied = at;
    }
    push_raw(&mut text, inside.get(copied..).unwrap_or_default());
    Text { text: Cow::Owned(text), is_lossy: is_lossy | halves }
}

/// The character of the escape that begins here, and how many bytes it takes; none if it is half of one.
pub(super) fn character(text: &[u8], at: usize) -> (Option<char>, usize) {
    let Some(first) = unit(text, at) else { return (None, 2) };
    if let Some(second) = unit(text, at + 6)
        && let Some(Ok(character)) = char::decode_utf16([first, second]).next()
        && character.len_utf16() == 2
    {
        return (Some(character), 12);
    }
    (char::from_u32(first.into()), 6)
}
