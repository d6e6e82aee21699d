//! A value and its conversions.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde_json::Value as Json;

use super::scan::{Entries, Items};
use super::string::{Text, decode};
use super::{SyntaxError, number, strict, syntax};

/// Maximum nesting depth passed to `serde_json`, which rejects 128 levels.
const MAX_JSON_DEPTH: usize = 120;

/// Maximum number of items that [`Value::list`] returns. An item takes 16 bytes of memory, but as little as 2 bytes of
/// the document.
const MAX_LIST: usize = 100_000;

/// A value in a document whose syntax was checked: its bytes, without white space around them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Value<'a>(&'a [u8]);

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `{…}`
    Object,
    /// `[…]`
    List,
    /// `"…"`
    Text,
    /// A number, `Infinity` and `-Infinity` included.
    Number,
    /// `true` or `false`.
    Bool,
    /// `null`, or `NaN`, for which JavaScript writes `null`.
    Null,
}

/// The type with its article, for messages: `a string`.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Object => "an object",
            Self::List => "a list",
            Self::Text => "a string",
            Self::Number => "a number",
            Self::Bool => "a boolean",
            Self::Null => "null",
        })
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.0))
    }
}

impl<'a> Value<'a> {
    /// `null`
    pub const NULL: Self = Self(b"null");

    /// Reads a document.
    ///
    /// # Errors
    ///
    /// Returns an error if the text is not one JSON value, as the [module](super) describes JSON.
    pub fn read(text: &'a [u8]) -> Result<Self, SyntaxError> {
        syntax::check(text).map(|range| Self(&text[range]))
    }

    /// Wraps the bytes of one value, without white space around them, whose syntax was checked.
    pub(super) fn of_checked(text: &'a [u8]) -> Self {
        Self(text)
    }

    /// Returns the type.
    pub fn kind(self) -> Kind {
        match self.0.first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::List,
            Some(b'"') => Kind::Text,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'n' | b'N') | None => Kind::Null,
            Some(_) => Kind::Number,
        }
    }

    /// Returns whether this is `null` or `NaN`.
    pub fn is_null(self) -> bool {
        self.kind() == Kind::Null
    }

    /// Returns whether this is null, `false`, 0, an empty list or object, or a string without anything but white space.
    pub fn is_empty(self) -> bool {
        match self.kind() {
            Kind::Null => true,
            Kind::Number | Kind::Bool => matches!(self.0, b"0" | b"false"),
            Kind::Object | Kind::List | Kind::Text => self.0[1..self.0.len() - 1].trim_ascii().is_empty(),
        }
    }

    /// Returns whether this is `true`, 1, or the string "true" in any case.
    pub fn is_true(self) -> bool {
        matches!(self.0, b"true" | b"1") || self.0.eq_ignore_ascii_case(b"\"true\"")
    }

    /// Returns the bytes of the value as they are written.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Returns the position of the value in the document that it was read from.
    pub fn range_in(self, document: &[u8]) -> Range<usize> {
        let start = self.0.as_ptr().addr() - document.as_ptr().addr();
        start..start + self.0.len()
    }

    /// Returns the raw content of a string, without the quotes and with the escapes: a piece for
    /// [`TextJoiner::push`](super::TextJoiner::push).
    pub fn content(self) -> Option<&'a [u8]> {
        (self.kind() == Kind::Text).then(|| &self.0[1..self.0.len() - 1])
    }

    /// Returns the decoded content of a string.
    pub fn text(self) -> Option<Text<'a>> {
        self.content().map(decode)
    }

    /// Returns the text of a number; `None` for `Infinity`, which has no digits.
    pub fn number(self) -> Option<&'a str> {
        let is_number = matches!(self.0.first(), Some(b'-' | b'0'..=b'9')) && self.0 != b"-Infinity";
        if is_number { str::from_utf8(self.0).ok() } else { None }
    }

    /// Returns the content of a string or the text of a number: platforms write ids as either.
    pub fn text_or_number(self) -> Option<Text<'a>> {
        self.text().or_else(|| self.number().map(|number| Text { text: number.into(), is_lossy: false }))
    }

    /// Returns an integer, written as a number (1.0 and 1e3 are integers, too) or as a string; `None` if `T` cannot
    /// represent it.
    pub fn integer<T: TryFrom<i64>>(self) -> Option<T> {
        let integer = match self.number() {
            Some(number) => number::to_integer(number),
            None => self.text()?.text.trim().parse().ok(),
        };
        T::try_from(integer?).ok()
    }

    /// Returns an iterator over the items of a list; `None` if this is not a list.
    pub fn items(self) -> Option<Items<'a>> {
        (self.kind() == Kind::List).then(|| Items::of(self.0))
    }

    /// Returns an iterator over the entries of an object; `None` if this is not an object.
    pub fn entries(self) -> Option<Entries<'a>> {
        (self.kind() == Kind::Object).then(|| Entries::of(self.0))
    }

    /// Returns the items of a list; `None` if this is not a list, or has more than 100,000 items.
    pub fn list(self) -> Option<Vec<Self>> {
        let list: Vec<_> = self.items()?.take(MAX_LIST + 1).collect();
        (list.len() <= MAX_LIST).then_some(list)
    }

    /// Returns whether this equals a value from the settings. 1 equals 1.0, and integers of any size are compared
    /// exactly. Objects and lists equal nothing.
    pub fn equals(self, other: &Json) -> bool {
        match other {
            Json::String(other) => self.text().is_some_and(|mine| mine.text == *other),
            Json::Bool(other) => self.0 == if *other { &b"true"[..] } else { b"false" },
            Json::Null => self.is_null(),
            Json::Number(other) => self.number().is_some_and(|mine| number::equals(mine, other)),
            Json::Array(_) | Json::Object(_) => false,
        }
    }

    /// Returns the same value in JSON that every parser accepts: a lone surrogate becomes `\ufffd`, a control character
    /// is escaped, bytes that are not UTF-8 become U+FFFD, a number out of range becomes ±[`f64::MAX`], `NaN` becomes
    /// `null`. Borrows the value if it is strict already.
    pub fn to_strict(self) -> Cow<'a, str> {
        strict::rewrite(self.0, usize::MAX)
    }

    /// Decodes the value, with the replacements of [`to_strict`](Self::to_strict). Objects and lists nested more than
    /// 120 levels deep become null.
    pub fn to_json(self) -> Json {
        serde_json::from_slice(self.0)
            .or_else(|_| serde_json::from_str(&strict::rewrite(self.0, MAX_JSON_DEPTH)))
            // The rewritten value is strict and not too deep, so this doesn't fail.
            .unwrap_or_default()
    }
}
