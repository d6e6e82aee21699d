//! The extent of values in text whose syntax has been checked.

use super::Value;

/// Returns the end of the white space that begins here.
pub(super) fn space_end(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
        at += 1;
    }
    at
}

/// Returns the end of the value that begins here.
pub(super) fn value_end(text: &[u8], start: usize) -> usize {
    match text[start] {
        b'"' => string_end(text, start),
        b'{' | b'[' => container_end(text, start),
        _ => scalar_end(text, start),
    }
}

/// Returns the end of the object or list that begins here, after its closing bracket.
fn container_end(text: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0_usize);
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

/// Returns the end of the string that begins here, after its closing quote.
pub(super) fn string_end(text: &[u8], start: usize) -> usize {
    let mut at = plain_end(text, start + 1);
    while text[at] == b'\\' {
        at = plain_end(text, at + 2);
    }
    at + 1
}

/// Returns the position of the next quote or backslash, or the end of the text.
pub(super) fn plain_end(text: &[u8], start: usize) -> usize {
    let rest = text.get(start..).unwrap_or_default();
    start + memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len())
}

/// Returns the end of the number or word that begins here.
pub(super) fn scalar_end(text: &[u8], start: usize) -> usize {
    let rest = &text[start..];
    let ends = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n');
    start + rest.iter().position(ends).unwrap_or(rest.len())
}

/// An iterator over the items of a list.
#[derive(Clone, Debug)]
pub struct Items<'a>(Members<'a>);

/// An iterator over the entries of an object in document order, including duplicate keys. Yields raw keys with their
/// quotes, and values.
#[derive(Clone, Debug)]
pub struct Entries<'a>(Members<'a>);

impl<'a> Items<'a> {
    pub(super) fn of(list: &'a [u8]) -> Self {
        Self(Members::of(list))
    }
}

impl<'a> Entries<'a> {
    pub(super) fn of(object: &'a [u8]) -> Self {
        Self(Members::of(object))
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.0.value(b',')
    }
}

impl<'a> Iterator for Entries<'a> {
    /// A key is also a value: a string.
    type Item = (Value<'a>, Value<'a>);

    fn next(&mut self) -> Option<(Value<'a>, Value<'a>)> {
        Some((self.0.value(b':')?, self.0.value(b',')?))
    }
}

/// The content of a container.
#[derive(Clone, Debug)]
struct Members<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Members<'a> {
    fn of(container: &'a [u8]) -> Self {
        let inside = container.get(1..container.len() - 1).unwrap_or_default();
        Self { text: inside, at: space_end(inside, 0) }
    }

    /// Returns the next value, and skips the separator after it.
    fn value(&mut self, separator: u8) -> Option<Value<'a>> {
        if self.at >= self.text.len() {
            return None;
        }
        let end = value_end(self.text, self.at);
        let value = Value::of_checked(&self.text[self.at..end]);
        self.at = space_end(self.text, end);
        if self.text.get(self.at) == Some(&separator) {
            self.at = space_end(self.text, self.at + 1);
        }
        Some(value)
    }
}
