//! Lengths of time and sizes, as people write them.

use std::time::Duration;

use bytesize::ByteSize;

/// How a length of time is written.
pub(super) const DURATION_ADVICE: &str = r#"write a number with its unit, in quotes: "500ms", "60s" or "5m""#;

/// How a size is written.
pub(super) const SIZE_ADVICE: &str =
    r#"write a number of bytes, or one with its unit in quotes: "64KiB", "128MiB" or "1GiB""#;

/// Reads a length of time: `500ms`, `60s`, `1m 30s`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

/// Reads a size in bytes: `64KiB`, `1.5GiB`, `1MB` (a million), `1000`.
pub(super) fn size(text: &str) -> Option<u64> {
    text.trim().parse::<ByteSize>().ok().map(|size| size.as_u64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lengths_of_time() {
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("1m 30s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("0s"), Some(Duration::ZERO));
        for wrong in ["", "60", "-1s", "soon", "1 fortnight"] {
            assert_eq!(duration(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn reads_sizes() {
        assert_eq!(size("128MiB"), Some(128 << 20));
        assert_eq!(size("1.5 GiB"), Some(3 << 29));
        assert_eq!(size("1MB"), Some(1_000_000));
        assert_eq!(size("1000"), Some(1000));
        for wrong in ["", "-1MiB", "big", "1 bucket"] {
            assert_eq!(size(wrong), None, "{wrong:?}");
        }
    }
}
