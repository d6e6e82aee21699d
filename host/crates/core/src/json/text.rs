//! Texts with halves of characters in them.
//!
//! `serde_json` hands a string's bytes out with lone surrogates as three bytes each, which is known as WTF-8. A server that
//! cuts its text wherever a token ends cuts characters, too: surrogate pairs where it escapes all but ASCII, bytes where it
//! doesn't.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// A JSON string's bytes: UTF-8, but for lone surrogates.
pub(super) struct Bytes(pub(super) Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(string: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
                Ok(Bytes(text.as_bytes().to_vec()))
            }
        }
        string.deserialize_bytes(Any)
    }
}

/// A string's text, with U+FFFD for what is not Unicode in it.
pub(super) fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| {
        let mut joiner = TextJoiner::default();
        let mut text = joiner.push(error.as_bytes());
        text.push_str(&joiner.finish());
        text
    })
}

/// Puts a text together that comes in pieces: a character that is cut between two of them comes with the second.
#[derive(Debug, Default)]
pub struct TextJoiner {
    /// The beginning of a character: a high surrogate, or bytes of UTF-8, each of them as three bytes.
    pending: Vec<u8>,
}

/// How many bytes a lone surrogate has.
const SURROGATE: usize = 3;

impl TextJoiner {
    /// The text that is complete with this piece.
    pub fn push(&mut self, piece: &[u8]) -> String {
        if self.pending.is_empty()
            && let Ok(text) = str::from_utf8(piece)
        {
            return text.to_owned();
        }
        let mut bytes = std::mem::take(&mut self.pending);
        bytes.extend_from_slice(piece);
        let mut text = String::with_capacity(bytes.len());
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let plain = match str::from_utf8(rest) {
                Ok(plain) => plain.len(),
                Err(error) => error.valid_up_to(),
            };
            let (plain, odd) = rest.split_at(plain);
            // Lossless: it is valid so far.
            text.push_str(&String::from_utf8_lossy(plain));
            rest = odd;
            if rest.is_empty() {
                break;
            }
            let Some(unit) = surrogate(rest) else {
                text.push(char::REPLACEMENT_CHARACTER);
                rest = &rest[1..];
                continue;
            };
            let behind = &rest[SURROGATE..];
            match (unit, surrogate(behind)) {
                (0xd800..=0xdbff, None) if behind.is_empty() => {
                    self.pending = rest.to_vec();
                    break;
                }
                (0xd800..=0xdbff, Some(low @ 0xdc00..=0xdfff)) => {
                    text.extend(char::decode_utf16([unit, low]).map(|it| it.unwrap_or(char::REPLACEMENT_CHARACTER)));
                    rest = &behind[SURROGATE..];
                }
                (0xdc80..=0xdcff, _) => {
                    let (decoded, used, goes_on) = escaped_bytes(rest);
                    text.push_str(&decoded);
                    rest = &rest[used..];
                    if goes_on {
                        self.pending = rest.to_vec();
                        break;
                    }
                }
                _ => {
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = behind;
                }
            }
        }
        text
    }

    /// What is left when nothing more comes: U+FFFD for each half.
    pub fn finish(&mut self) -> String {
        let halves = std::mem::take(&mut self.pending).len() / SURROGATE;
        char::REPLACEMENT_CHARACTER.to_string().repeat(halves)
    }
}

/// The surrogate a text begins with.
fn surrogate(bytes: &[u8]) -> Option<u16> {
    match bytes {
        [0xed, second @ 0xa0..=0xbf, third @ 0x80..=0xbf, ..] => {
            Some(0xd000 | u16::from(second & 0x3f) << 6 | u16::from(third & 0x3f))
        }
        _ => None,
    }
}

/// The bytes that a text begins with as lone surrogates: decoded, how much of the text they are, and whether what is left of
/// it is the beginning of a character, with nothing behind it.
fn escaped_bytes(text: &[u8]) -> (String, usize, bool) {
    let escaped = text.chunks(SURROGATE).map_while(surrogate).take_while(|unit| (0xdc80..=0xdcff).contains(unit));
    let bytes: Vec<u8> = escaped.map(|unit| unit.to_le_bytes()[0]).collect();
    let is_last = bytes.len() * SURROGATE == text.len();
    let (mut decoded, mut used) = (String::new(), 0);
    for chunk in bytes.utf8_chunks() {
        decoded.push_str(chunk.valid());
        used += chunk.valid().len();
        let invalid = chunk.invalid();
        let is_begun = str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
        if is_begun && is_last && used + invalid.len() == bytes.len() {
            return (decoded, used * SURROGATE, true);
        }
        if !invalid.is_empty() {
            decoded.push(char::REPLACEMENT_CHARACTER);
            used += invalid.len();
        }
    }
    (decoded, used * SURROGATE, false)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The text of a string that comes in these pieces, each JSON.
    fn joined(pieces: &[&str]) -> String {
        let mut joiner = TextJoiner::default();
        let mut text = String::new();
        for piece in pieces {
            let Bytes(bytes) = serde_json::from_str(piece).unwrap();
            text.push_str(&joiner.push(&bytes));
        }
        text + &joiner.finish()
    }

    #[test]
    fn halves_are_put_together_or_replaced() {
        for (pieces, wanted) in [
            (&[r#""a\ud83d""#, r#""\ude42b""#][..], "a🙂b"),
            (&[r#""\ud83d""#, r#""""#, r#""\ude42""#], "🙂"),
            (&[r#""\ud83d""#, r#""x""#], "\u{fffd}x"),
            (&[r#""\ud83d""#, r#""\ud83d\ude42""#], "\u{fffd}🙂"),
            (&[r#""\ude42""#], "\u{fffd}"),
            (&[r#""x\ud83d""#], "x\u{fffd}"),
            // Bytes that are no UTF-8 on their own: f0 9f | 99 82, and c3 that never goes on.
            (&[r#""\udcf0\udc9f""#, r#""\udc99\udc82""#], "🙂"),
            (&[r#""\udcc3""#, r#""x""#], "\u{fffd}x"),
            (&[r#""\udcff\udcc3\udca9""#], "\u{fffd}é"),
        ] {
            assert_eq!(joined(pieces), wanted, "{pieces:?}");
        }
    }

    #[test]
    fn a_megabyte_of_no_text_takes_no_time() {
        let text = format!("\"{}\"", r"\udcff".repeat(1 << 18));
        assert_eq!(joined(&[&text]).chars().count(), 1 << 18);
    }

    proptest! {
        /// Wherever a text is cut, between UTF-16's units or UTF-8's bytes, it is whole again.
        #[test]
        fn cuts_make_no_difference(text in ".{0,20}", size in 1..5usize) {
            let units: Vec<_> = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            let pieces: Vec<_> = units.chunks(size).map(|units| format!("\"{}\"", units.concat())).collect();
            prop_assert_eq!(&joined(&pieces.iter().map(String::as_str).collect::<Vec<_>>()), &text);

            let mut joiner = TextJoiner::default();
            let mut joined = String::new();
            for bytes in text.as_bytes().chunks(size) {
                let document = [b"\"", &bytes.iter().flat_map(|byte| match byte {
                    b'"' | b'\\' => vec![b'\\', *byte],
                    byte => vec![*byte],
                }).collect::<Vec<_>>()[..], b"\""].concat();
                let document = crate::json::document(&document).unwrap();
                let bytes = crate::json::bytes(crate::json::raw(&document).unwrap()).unwrap();
                joined.push_str(&joiner.push(&bytes));
            }
            joined.push_str(&joiner.finish());
            prop_assert_eq!(joined, text);
        }
    }
}
