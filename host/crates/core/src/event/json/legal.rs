//! Values as any parser takes them.

use std::borrow::Cow;
use std::ops::Range;

use super::scan::character;

/// The largest double. Numbers beyond it are handed on as this, since half of the guests' parsers refuse them.
const LARGEST: &[u8] = b"1.7976931348623157e308";

/// Numbers of fewer characters than this, and without an exponent, fit into a double.
const ALWAYS_FITS: usize = 300;

/// Makes a string legal that begins here; answers where it ends.
pub(super) fn legal_string(text: &[u8], start: usize, replace: &mut impl FnMut(Range<usize>, &[u8])) -> usize {
    let mut at = start + 1;
    while text[at] != b'"' {
        at += match text[at] {
            b'\\' if text.get(at + 1) == Some(&b'u') => {
                let (character, length) = character(text, at);
                if character.is_none() {
                    replace(at..at + length, b"\\ufffd");
                }
                length
            }
            b'\\' => 2,
            control @ ..0x20 => {
                replace(at..at + 1, format!("\\u{control:04x}").as_bytes());
                1
            }
            _ => 1,
        };
    }
    at + 1
}

/// What is handed on in place of a number that not every parser takes.
pub(super) fn legal_number(written: &[u8]) -> Option<Cow<'static, [u8]>> {
    let is_negative = written.starts_with(b"-");
    let largest = || if is_negative { [b"-", LARGEST].concat().into() } else { LARGEST.into() };
    match written {
        b"NaN" => Some(b"null"[..].into()),
        b"Infinity" | b"-Infinity" => Some(largest()),
        _ if written.len() < ALWAYS_FITS && !written.iter().any(|byte| matches!(byte, b'e' | b'E')) => None,
        _ => {
            let number: f64 = std::str::from_utf8(written).ok()?.parse().ok()?;
            number.is_infinite().then(largest)
        }
    }
}
