//! JSON as platforms write it, read field by field: one odd value never hides the ones beside it.
//!
//! `serde_json` refuses a whole text for a value that JavaScript, Python and Go write without a thought: half a surrogate
//! pair, a number no double can hold, more than 128 levels. Here a text is checked once, without recursion, and each value is
//! looked at only when somebody asks for it. What is taken beyond RFC 8259: lone surrogates and bytes that are not UTF-8 (both
//! read as U+FFFD), control characters in strings, `NaN` and `Infinity` as Python writes them, and a byte order mark.
//! [`Value::legal`] writes a value so that any parser takes it.

mod check;
mod legal;
mod number;
mod scan;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::rc::Rc;

use serde_json::Value as Json;

use legal::{legal_number, legal_string};
use number::same_number;
use scan::{decode, scalar_end, space_end, value_end};

/// One value of a text that was checked: its bytes, and nothing around them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Value<'a>(&'a [u8]);

/// What kind of value it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `{…}`
    Object,
    /// `[…]`
    List,
    /// `"…"`
    Text,
    /// A number, and what Python writes for none.
    Number,
    /// `true` or `false`.
    Bool,
    /// `null`
    Null,
}

/// What stands in a string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    /// The text, with U+FFFD for what is no character.
    pub text: Cow<'a, str>,
    /// Whether something was no character: two strings that differ may have the same text then.
    pub is_lossy: bool,
}

/// A value whose objects and lists are looked through at most once.
pub struct Document<'a> {
    root: Value<'a>,
    /// By where they begin.
    members: RefCell<HashMap<usize, Rc<Members<'a>>>>,
}

enum Members<'a> {
    Object(HashMap<Cow<'a, str>, Member<'a>>),
    List(Vec<Value<'a>>),
}

#[derive(Clone, Copy)]
struct Member<'a> {
    value: Value<'a>,
    /// Whether the same key has other values before this one.
    is_ambiguous: bool,
}

/// What a path leads to.
#[derive(Clone, Copy)]
pub struct Found<'a> {
    /// The value. Of a key that is there more than once it is the last, as JavaScript, Python and Go have it.
    pub value: Value<'a>,
    /// Whether a key on the way is there with several values: another reader may have found another one.
    pub is_ambiguous: bool,
}

/// Why a text is not JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} at line {line} column {column}")]
pub struct NotJson {
    expected: &'static str,
    line: usize,
    column: usize,
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.0))
    }
}

/// As people say what they found.
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

impl<'a> Value<'a> {
    /// `null`
    pub const NULL: Self = Self(b"null");

    /// Reads a text that is one value, with white space around it.
    ///
    /// # Errors
    ///
    /// When it isn't.
    pub fn read(text: &'a [u8]) -> Result<Self, NotJson> {
        check::one_value(text).map(|range| Self(&text[range]))
    }

    /// What kind of value it is.
    pub fn kind(self) -> Kind {
        match self.0.first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::List,
            Some(b'"') => Kind::Text,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'n') | None => Kind::Null,
            Some(_) => Kind::Number,
        }
    }

    /// Whether it says nothing.
    pub fn is_null(self) -> bool {
        self.kind() == Kind::Null
    }

    /// Where it stands in the text it was read from.
    pub fn range_in(self, text: &[u8]) -> Range<usize> {
        let start = self.0.as_ptr().addr() - text.as_ptr().addr();
        start..start + self.0.len()
    }

    /// The bytes it is written with.
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// What stands in it, if it is a string.
    pub fn text(self) -> Option<Text<'a>> {
        (self.kind() == Kind::Text).then(|| decode(&self.0[1..self.0.len() - 1]))
    }

    /// How it is written, if it is a number.
    pub fn number(self) -> Option<&'a str> {
        let digits = matches!(self.0.first(), Some(b'-' | b'0'..=b'9')) && self.0 != b"-Infinity";
        if digits { std::str::from_utf8(self.0).ok() } else { None }
    }

    /// Whether it is the same as another to a person: 1 is the same as 1.0, and integers of any size are told apart.
    pub fn is(self, other: &Json) -> bool {
        match other {
            Json::String(text) => self.text().is_some_and(|mine| mine.text == *text),
            Json::Bool(other) => self.0 == if *other { &b"true"[..] } else { b"false" },
            Json::Null => self.is_null(),
            Json::Number(other) => self.number().is_some_and(|mine| same_number(mine, other)),
            Json::Array(_) | Json::Object(_) => false,
        }
    }

    /// The same value as any parser takes it: half a surrogate pair becomes `\ufffd`, a control character is escaped, what is
    /// not UTF-8 becomes U+FFFD, a number no double can hold becomes the largest, `NaN` becomes `null` as JavaScript writes it.
    pub fn legal(self) -> Cow<'a, str> {
        let text = self.0;
        let (mut written, mut copied, mut at) = (Vec::new(), 0, 0);
        let mut replace = |range: Range<usize>, with: &[u8]| {
            written.extend_from_slice(&text[copied..range.start]);
            written.extend_from_slice(with);
            copied = range.end;
        };
        while at < text.len() {
            match text[at] {
                b'"' => at = legal_string(text, at, &mut replace),
                b'-' | b'0'..=b'9' | b'N' | b'I' => {
                    let end = scalar_end(text, at);
                    if let Some(legal) = legal_number(&text[at..end]) {
                        replace(at..end, &legal);
                    }
                    at = end;
                }
                b't' | b'f' | b'n' => at = scalar_end(text, at),
                _ => at += 1,
            }
        }
        if copied == 0 {
            return String::from_utf8_lossy(text);
        }
        written.extend_from_slice(&text[copied..]);
        Cow::Owned(String::from_utf8(written).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into()))
    }
}

impl<'a> Document<'a> {
    /// Reads a text that is one value.
    ///
    /// # Errors
    ///
    /// When it isn't.
    pub fn read(text: &'a [u8]) -> Result<Self, NotJson> {
        Value::read(text).map(Self::new)
    }

    /// A value to look into.
    pub fn new(root: Value<'a>) -> Self {
        Self { root, members: RefCell::default() }
    }

    /// All of it.
    pub fn root(&self) -> Value<'a> {
        self.root
    }

    /// What these keys lead to; the place of an item in a list is a key too.
    pub fn find<'k>(&self, path: impl IntoIterator<Item = &'k str>) -> Option<Found<'a>> {
        let mut found = Found { value: self.root, is_ambiguous: false };
        for key in path {
            let members = self.members_of(found.value)?;
            match &*members {
                Members::Object(fields) => {
                    let member = fields.get(key)?;
                    found = Found { value: member.value, is_ambiguous: found.is_ambiguous || member.is_ambiguous };
                }
                Members::List(items) => found.value = *items.get(key.parse::<usize>().ok()?)?,
            }
        }
        Some(found)
    }

    /// The keys and values of an object; none of anything else. Of a key that is there more than once, the last.
    pub fn entries(&self) -> Vec<(String, Value<'a>)> {
        match self.members_of(self.root).as_deref() {
            Some(Members::Object(fields)) => {
                fields.iter().map(|(key, member)| (key.clone().into_owned(), member.value)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn members_of(&self, value: Value<'a>) -> Option<Rc<Members<'a>>> {
        if !matches!(value.kind(), Kind::Object | Kind::List) {
            return None;
        }
        let start = value.0.as_ptr().addr();
        if let Some(known) = self.members.borrow().get(&start) {
            return Some(known.clone());
        }
        let members = Rc::new(Members::of(value.0));
        self.members.borrow_mut().insert(start, members.clone());
        Some(members)
    }
}

impl<'a> Members<'a> {
    /// Those of an object or a list that was checked.
    fn of(text: &'a [u8]) -> Self {
        let is_object = text[0] == b'{';
        let (mut fields, mut items) = (HashMap::new(), Vec::new());
        let mut at = space_end(text, 1);
        while at + 1 < text.len() {
            let mut key = None;
            if is_object {
                let end = value_end(text, at);
                key = Some(decode(&text[at + 1..end - 1]).text);
                at = space_end(text, space_end(text, end) + 1);
            }
            let end = value_end(text, at);
            let value = Value(&text[at..end]);
            match key {
                None => items.push(value),
                Some(key) => {
                    fields
                        .entry(key)
                        .and_modify(|member: &mut Member<'_>| {
                            let is_ambiguous = member.is_ambiguous || member.value != value;
                            *member = Member { value, is_ambiguous };
                        })
                        .or_insert(Member { value, is_ambiguous: false });
                }
            }
            // Past the comma; or past the end, behind the closing bracket.
            at = space_end(text, (space_end(text, end) + 1).min(text.len()));
        }
        if is_object { Self::Object(fields) } else { Self::List(items) }
    }
}
