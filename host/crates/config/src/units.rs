//! Parses durations and sizes.

use std::time::Duration;

use bytesize::ByteSize;

/// The help text for durations.
pub(super) const DURATION_ADVICE: &str = r#"write a number with a unit, in quotes: "500ms", "60s" or "5m""#;

/// The help text for sizes.
pub(super) const SIZE_ADVICE: &str =
    r#"write a number of bytes, or a number with a unit, in quotes: "64KiB", "128MiB" or "1GiB""#;

/// Parses a duration: `500ms`, `60s`, `1m 30s`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

/// Parses a size in bytes: `64KiB`, `1.5GiB`, `1MB` (a million), `1000`.
pub(super) fn size(text: &str) -> Option<u64> {
    text.trim().parse::<ByteSize>().ok().map(|size| size.as_u64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_durations() {
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("1m 30s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("0s"), Some(Duration::ZERO));
        for invalid in ["", "60", "-1s", "soon", "1 fortnight"] {
            assert_eq!(duration(invalid), None, "{invalid:?}");
        }
    }

    #[test]
    fn parses_sizes() {
        assert_eq!(size("128MiB"), Some(128 << 20));
        assert_eq!(size("1.5 GiB"), Some(3 << 29));
        assert_eq!(size("1MB"), Some(1_000_000));
        assert_eq!(size("1000"), Some(1000));
        for invalid in ["", "-1MiB", "big", "1 bucket"] {
            assert_eq!(size(invalid), None, "{invalid:?}");
        }
    }
}
