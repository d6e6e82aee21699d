//! Comparison and conversion of numbers in their decimal notation, because a double cannot represent every integer.

use std::borrow::Cow;

/// The largest double in decimal notation; several parsers reject larger numbers.
const MAX: &str = "1.7976931348623157e308";

/// A number shorter than this, in bytes, is within the range of a double unless it has an exponent.
const ALWAYS_FITS: usize = 300;

/// Returns the integer value of a number, such as 3 for `3.0`. A fraction is truncated, and a value out of range is
/// clamped.
pub(super) fn to_integer(written: &str) -> Option<i64> {
    written.parse().ok().or_else(|| {
        let float: f64 = written.parse().ok()?;
        float.is_finite().then_some(float as i64)
    })
}

/// Returns the replacement for a number or a word that some parser rejects or reads as infinite.
pub(super) fn replacement(written: &[u8]) -> Option<Cow<'static, str>> {
    let max = || if written.starts_with(b"-") { format!("-{MAX}").into() } else { MAX.into() };
    match written {
        b"NaN" => return Some("null".into()),
        b"Infinity" | b"-Infinity" => return Some(max()),
        _ if written.len() < ALWAYS_FITS && !written.iter().any(|byte| matches!(byte, b'e' | b'E')) => return None,
        _ => {}
    }
    let number: f64 = str::from_utf8(written).ok()?.parse().ok()?;
    // Parsers that round less carefully overflow near the largest double.
    (number.abs() == f64::MAX || number.is_infinite()).then(max).filter(|max| max.as_bytes() != written)
}

/// A number as its significant digits, without zeros at either end, and a power of ten.
#[derive(PartialEq, Eq)]
struct Decimal {
    is_negative: bool,
    digits: Vec<u8>,
    exponent: i64,
}

impl Decimal {
    fn read(written: &str) -> Option<Self> {
        let (mantissa, exponent) = written.split_once(['e', 'E']).unwrap_or((written, "0"));
        let (is_negative, mantissa) = match mantissa.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, mantissa),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = [whole, fraction].concat().into_bytes();
        let Some(first) = all.iter().position(|digit| *digit != b'0') else {
            return Some(Self { is_negative: false, digits: Vec::new(), exponent: 0 });
        };
        let last = all.iter().rposition(|digit| *digit != b'0').unwrap_or(first);
        let trailing = i64::try_from(all.len() - 1 - last).ok()?;
        let exponent = exponent.parse::<i64>().ok()?.checked_sub(i64::try_from(fraction.len()).ok()?)?;
        Some(Self { is_negative, digits: all[first..=last].to_vec(), exponent: exponent.checked_add(trailing)? })
    }
}

/// Returns whether a number equals one from the settings.
pub(super) fn equals(written: &str, wanted: &serde_json::Number) -> bool {
    let exact = Decimal::read(written).zip(Decimal::read(&wanted.to_string()));
    if exact.is_some_and(|(written, wanted)| written == wanted) {
        return true;
    }
    // A number with a fraction was parsed as a double, so compare it as one.
    let fraction = wanted.as_f64().filter(|wanted| wanted.fract() != 0.0);
    fraction.is_some_and(|wanted| written.parse() == Ok(wanted))
}
