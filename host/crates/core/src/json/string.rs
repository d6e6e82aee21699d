//! Decoding of strings.

use std::borrow::Cow;

/// The decoded content of a string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    /// The text, with U+FFFD in place of anything that is not Unicode.
    pub text: Cow<'a, str>,
    /// Whether something was replaced: different strings may then have the same text.
    pub is_lossy: bool,
}

/// Decodes the content of a string, given without its quotes.
pub(super) fn decode(content: &[u8]) -> Text<'_> {
    if !content.contains(&b'\\') {
        let text = String::from_utf8_lossy(content);
        let is_lossy = matches!(text, Cow::Owned(_));
        return Text { text, is_lossy };
    }
    let (mut text, mut is_lossy) = (String::with_capacity(content.len()), false);
    let mut rest = content;
    loop {
        let plain = rest.iter().position(|byte| *byte == b'\\').unwrap_or(rest.len());
        let (plain, escaped) = rest.split_at(plain);
        let plain = String::from_utf8_lossy(plain);
        is_lossy |= matches!(plain, Cow::Owned(_));
        text.push_str(&plain);
        let Some(kind) = escaped.get(1) else { break };
        let length = if *kind == b'u' {
            let (character, length) = escaped_character(escaped, 0);
            is_lossy |= character.is_none();
            text.push(character.unwrap_or(char::REPLACEMENT_CHARACTER));
            length
        } else {
            text.push(match kind {
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                other => char::from(*other),
            });
            2
        };
        rest = escaped.get(length..).unwrap_or_default();
    }
    Text { text: Cow::Owned(text), is_lossy }
}

/// Returns the character whose `\u` escape begins here, and the length of the escape in bytes: 12 for a surrogate pair.
/// Returns `None` as the character of a lone surrogate.
pub(super) fn escaped_character(text: &[u8], at: usize) -> (Option<char>, usize) {
    let Some(first) = code_unit(text, at) else { return (None, 2) };
    if is_high_surrogate(first)
        && let Some(second) = code_unit(text, at + 6)
        && let Some(Ok(character)) = char::decode_utf16([first, second]).next()
    {
        return (Some(character), 12);
    }
    (char::from_u32(first.into()), 6)
}

/// Returns the UTF-16 code unit whose escape, `\uXXXX`, begins here.
pub(super) fn code_unit(text: &[u8], at: usize) -> Option<u16> {
    let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
    let unit = digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))?;
    u16::try_from(unit).ok()
}

fn is_high_surrogate(unit: u16) -> bool {
    (0xd800..=0xdbff).contains(&unit)
}

/// Returns the start of an incomplete character at the end of a string's content: an escaped high surrogate, or the
/// first bytes of a UTF-8 sequence. If there is none, returns the length of the content.
pub(super) fn complete_end(content: &[u8]) -> usize {
    let length = content.len();
    if let Some(at) = length.checked_sub(6)
        && code_unit(content, at).is_some_and(is_high_surrogate)
        // The backslash of the escape is not itself escaped.
        && content[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 0
    {
        return at;
    }
    let is_cut = |at: &usize| {
        let cut = str::from_utf8(&content[*at..]);
        cut.is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    };
    (length.saturating_sub(3)..length).find(is_cut).unwrap_or(length)
}
