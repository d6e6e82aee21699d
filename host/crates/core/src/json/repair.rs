//! Text that is nearly JSON, made JSON.

use std::fmt::Write;

/// How deep a value may be nested that is decoded. `serde_json` ends at 128, and refuses the whole.
const MAX_DEPTH: usize = 120;

/// A document with what keeps it from being JSON repaired. Bytes that are no UTF-8 become lone surrogates, as Python's
/// `surrogateescape` has them (PEP 383), so that a character whose bytes come in two pieces can be put together.
pub(super) fn document(bytes: &[u8]) -> String {
    Repair { rest: bytes, out: String::with_capacity(bytes.len() + 16), depth: 0, is_value: false }.run()
}

/// A document's value with what keeps it from being decoded replaced.
pub(super) fn value(text: &str) -> String {
    Repair { rest: text.as_bytes(), out: String::with_capacity(text.len()), depth: 0, is_value: true }.run()
}

struct Repair<'a> {
    rest: &'a [u8],
    out: String,
    depth: usize,
    /// Whether it is to be decoded: without lone surrogates, numbers beyond a double, and depths.
    is_value: bool,
}

impl Repair<'_> {
    fn run(mut self) -> String {
        while let Some(&byte) = self.rest.first() {
            match byte {
                b'"' => {
                    self.take(1);
                    self.string();
                }
                b'{' | b'[' if self.is_value && self.depth == MAX_DEPTH => {
                    self.skip_nested();
                    self.out.push_str("null");
                }
                b'{' | b'[' => {
                    self.depth += 1;
                    self.take(1);
                }
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    self.take(1);
                }
                b'-' | b'0'..=b'9' | b'N' | b'I' => self.number(),
                byte if byte.is_ascii() => self.take(1),
                // Outside of strings nothing else can stand: whoever parses it says so.
                _ => {
                    self.rest = &self.rest[1..];
                    self.out.push(char::REPLACEMENT_CHARACTER);
                }
            }
        }
        self.out
    }

    /// Takes over so many bytes of ASCII.
    fn take(&mut self, count: usize) {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.out.extend(taken.iter().map(|byte| char::from(*byte)));
        self.rest = rest;
    }

    fn number(&mut self) {
        for word in ["NaN", "Infinity", "-Infinity"] {
            if let Some(rest) = self.rest.strip_prefix(word.as_bytes()) {
                self.rest = rest;
                self.out.push_str("null");
                return;
            }
        }
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let end = self.rest.iter().position(|byte| !is_part(byte)).unwrap_or(self.rest.len());
        let start = self.out.len();
        self.take(end.max(1));
        if self.is_value && self.out[start..].parse::<f64>().is_ok_and(f64::is_infinite) {
            self.out.truncate(start);
            self.out.push_str("null");
        }
    }

    /// The rest of a string, its closing quote included.
    fn string(&mut self) {
        loop {
            let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
            let end = self.rest.iter().position(is_special).unwrap_or(self.rest.len());
            let (plain, rest) = self.rest.split_at(end);
            for chunk in plain.utf8_chunks() {
                self.out.push_str(chunk.valid());
                for byte in chunk.invalid() {
                    self.escape(0xdc00 + u32::from(*byte));
                }
            }
            self.rest = rest;
            match self.rest.first() {
                None => return,
                Some(b'"') => return self.take(1),
                Some(b'\\') => self.escaped(),
                Some(control) => {
                    self.escape(u32::from(*control));
                    self.rest = &self.rest[1..];
                }
            }
        }
    }

    /// What a backslash stands before.
    fn escaped(&mut self) {
        let Some(unit) = self.unit_at(0).filter(|_| self.is_value) else {
            // The byte behind it may be the first of several.
            return if self.rest.get(1).is_none_or(u8::is_ascii) { self.take(2) } else { self.take(1) };
        };
        match unit {
            0xd800..=0xdbff if self.unit_at(6).is_some_and(|low| (0xdc00..=0xdfff).contains(&low)) => self.take(12),
            0xd800..=0xdfff => {
                self.rest = &self.rest[6..];
                self.out.push(char::REPLACEMENT_CHARACTER);
            }
            _ => self.take(6),
        }
    }

    /// The code unit whose escape stands there.
    fn unit_at(&self, at: usize) -> Option<u16> {
        let digits = self.rest.get(at..at + 6)?.strip_prefix(b"\\u")?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
    }

    fn escape(&mut self, unit: u32) {
        let is_surrogate = (0xd800..=0xdfff).contains(&unit);
        if is_surrogate && self.is_value {
            self.out.push(char::REPLACEMENT_CHARACTER);
        } else {
            // Writing to a string can't fail.
            let _ = write!(self.out, "\\u{unit:04x}");
        }
    }

    /// Passes over a list or an object, however deep.
    fn skip_nested(&mut self) {
        let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
        for (at, byte) in self.rest.iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_string => escaped = true,
                b'"' => in_string = !in_string,
                b'{' | b'[' if !in_string => depth += 1,
                b'}' | b']' if !in_string => {
                    depth -= 1;
                    if depth == 0 {
                        self.rest = &self.rest[at + 1..];
                        return;
                    }
                }
                _ => {}
            }
        }
        self.rest = &[];
    }
}
