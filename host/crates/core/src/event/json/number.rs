//! Numbers, compared as they are written: no double holds all integers.

/// A number as its digits without zeros at either end, and the power of ten they are times.
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
        let significant = all.iter().position(|digit| *digit != b'0');
        let Some(first) = significant else {
            return Some(Self { is_negative: false, digits: Vec::new(), exponent: 0 });
        };
        let last = all.iter().rposition(|digit| *digit != b'0').unwrap_or(first);
        let behind = i64::try_from(all.len() - 1 - last).ok()?;
        let exponent = exponent.parse::<i64>().ok()?.checked_sub(i64::try_from(fraction.len()).ok()?)?;
        Some(Self { is_negative, digits: all[first..=last].to_vec(), exponent: exponent.checked_add(behind)? })
    }
}

/// Whether a number is the same as one of the settings.
pub(super) fn same_number(written: &str, wanted: &serde_json::Number) -> bool {
    let exact = Decimal::read(written).zip(Decimal::read(&wanted.to_string()));
    if exact.is_some_and(|(written, wanted)| written == wanted) {
        return true;
    }
    // One with a fraction was a double before anybody wrote it down.
    let fraction = wanted.as_f64().filter(|wanted| wanted.fract() != 0.0);
    fraction.is_some_and(|wanted| written.parse() == Ok(wanted))
}
