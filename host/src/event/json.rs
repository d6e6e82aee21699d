//! JSON as platforms write it, read field by field: one odd value never hides the ones beside it.
//!
//! `serde_json` refuses a whole text for a value that JavaScript, Python and Go write without a thought: half a surrogate
//! pair, a number no double can hold, more than 128 levels. Here a text is checked once, without recursion, and each value is
//! looked at only when somebody asks for it. What is taken beyond RFC 8259: lone surrogates and bytes that are not UTF-8 (both
//! read as U+FFFD), control characters in strings, `NaN` and `Infinity` as Python writes them, and a byte order mark.
//! [`Value::legal`] writes a value so that any parser takes it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::rc::Rc;

use serde_json::Value as Json;

/// The largest double. Numbers beyond it are handed on as this, since half of the guests' parsers refuse them.
const LARGEST: &[u8] = b"1.7976931348623157e308";

/// Numbers of fewer characters than this, and without an exponent, fit into a double.
const ALWAYS_FITS: usize = 300;

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
        let mut checker = Checker { text, at: 0 };
        checker.value().map(|range| Self(&text[range])).map_err(|expected| not_json(text, checker.at, expected))
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

/// Checks a text from its beginning to its end, without calling itself.
struct Checker<'a> {
    text: &'a [u8],
    at: usize,
}

type Expected<T> = Result<T, &'static str>;

impl Checker<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        self.at = space_end(self.text, self.at);
    }

    /// One value and nothing behind it: where it stands.
    fn value(&mut self) -> Expected<Range<usize>> {
        const MARK: &[u8] = "\u{feff}".as_bytes();
        if self.text.starts_with(MARK) {
            self.at = MARK.len();
        }
        self.skip_space();
        let start = self.at;
        // What is open around the value at hand, outermost first: one byte a level.
        let mut open: Vec<u8> = Vec::new();
        'values: loop {
            match self.peek() {
                Some(bracket @ (b'{' | b'[')) => {
                    self.at += 1;
                    self.skip_space();
                    let is_object = bracket == b'{';
                    if self.peek() == Some(if is_object { b'}' } else { b']' }) {
                        self.at += 1;
                    } else {
                        open.push(bracket);
                        if is_object {
                            self.key()?;
                        }
                        continue 'values;
                    }
                }
                Some(b'"') => self.string()?,
                _ => self.scalar()?,
            }
            loop {
                let end = self.at;
                self.skip_space();
                match (open.last(), self.peek()) {
                    (None, None) => return Ok(start..end),
                    (None, Some(_)) => return Err("the end"),
                    (Some(b'{'), Some(b',')) => {
                        self.at += 1;
                        self.skip_space();
                        self.key()?;
                        continue 'values;
                    }
                    (Some(_), Some(b',')) => {
                        self.at += 1;
                        self.skip_space();
                        continue 'values;
                    }
                    (Some(b'{'), Some(b'}')) | (Some(b'['), Some(b']')) => {
                        open.pop();
                        self.at += 1;
                    }
                    (Some(b'{'), _) => return Err("`,` or `}`"),
                    (Some(_), _) => return Err("`,` or `]`"),
                }
            }
        }
    }

    /// A key, its colon, and the space around that.
    fn key(&mut self) -> Expected<()> {
        if self.peek() != Some(b'"') {
            return Err("a key in quotes");
        }
        self.string()?;
        self.skip_space();
        if self.peek() != Some(b':') {
            return Err("`:`");
        }
        self.at += 1;
        self.skip_space();
        Ok(())
    }

    fn string(&mut self) -> Expected<()> {
        self.at += 1;
        loop {
            match self.peek() {
                None => return Err("the end of a string"),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
                        Some(b'u') => {
                            if unit(self.text, self.at - 1).is_none() {
                                return Err("four hex digits behind `\\u`");
                            }
                            self.at += 5;
                        }
                        _ => return Err("an escape"),
                    }
                }
                Some(_) => self.at += 1,
            }
        }
    }

    fn scalar(&mut self) -> Expected<()> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let words: [&[u8]; 6] = [b"true", b"false", b"null", b"NaN", b"Infinity", b"-Infinity"];
        match words.iter().find(|word| rest.starts_with(word)) {
            Some(word) => {
                self.at += word.len();
                Ok(())
            }
            None => self.number(),
        }
    }

    fn number(&mut self) -> Expected<()> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            _ => return Err("a value"),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Expected<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { Err("a digit") } else { Ok(()) }
    }
}

fn not_json(text: &[u8], at: usize, expected: &'static str) -> NotJson {
    let before = &text[..at.min(text.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    NotJson { expected, line, column }
}

/// Where white space ends.
fn space_end(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
        at += 1;
    }
    at
}

/// Where a value ends that begins here, in a text that was checked.
fn value_end(text: &[u8], start: usize) -> usize {
    match text[start] {
        b'"' => string_end(text, start),
        b'{' | b'[' => {
            let (mut at, mut depth) = (start, 0usize);
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
        _ => scalar_end(text, start),
    }
}

/// Where a string ends that begins here, behind its closing quote.
fn string_end(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while text[at] != b'"' {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

fn scalar_end(text: &[u8], start: usize) -> usize {
    let rest = &text[start..];
    let ends = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n');
    start + rest.iter().position(ends).unwrap_or(rest.len())
}

/// The UTF-16 unit of the escape `\uXXXX` that begins here.
fn unit(text: &[u8], at: usize) -> Option<u16> {
    let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// What stands between the quotes of a string.
fn decode(inside: &[u8]) -> Text<'_> {
    if !inside.contains(&b'\\') {
        let text = String::from_utf8_lossy(inside);
        let is_lossy = matches!(text, Cow::Owned(_));
        return Text { text, is_lossy };
    }
    let (mut text, mut is_lossy) = (String::with_capacity(inside.len()), false);
    let mut push_raw = |text: &mut String, raw: &[u8]| {
        let raw = String::from_utf8_lossy(raw);
        is_lossy |= matches!(raw, Cow::Owned(_));
        text.push_str(&raw);
    };
    let (mut at, mut copied, mut halves) = (0, 0, false);
    while at < inside.len() {
        if inside[at] != b'\\' {
            at += 1;
            continue;
        }
        push_raw(&mut text, &inside[copied..at]);
        let escaped = inside.get(at + 1).copied().unwrap_or(b'\\');
        if escaped == b'u' {
            let (character, length) = character(inside, at);
            halves |= character.is_none();
            text.push(character.unwrap_or(char::REPLACEMENT_CHARACTER));
            at += length;
        } else {
            text.push(match escaped {
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                other => char::from(other),
            });
            at += 2;
        }
        copied = at;
    }
    push_raw(&mut text, inside.get(copied..).unwrap_or_default());
    Text { text: Cow::Owned(text), is_lossy: is_lossy | halves }
}

/// The character of the escape that begins here, and how many bytes it takes; none if it is half of one.
fn character(text: &[u8], at: usize) -> (Option<char>, usize) {
    let Some(first) = unit(text, at) else { return (None, 2) };
    if let Some(second) = unit(text, at + 6)
        && let Some(Ok(character)) = char::decode_utf16([first, second]).next()
        && character.len_utf16() == 2
    {
        return (Some(character), 12);
    }
    (char::from_u32(first.into()), 6)
}

/// Makes a string legal that begins here; answers where it ends.
fn legal_string(text: &[u8], start: usize, replace: &mut impl FnMut(Range<usize>, &[u8])) -> usize {
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
fn legal_number(written: &[u8]) -> Option<Cow<'static, [u8]>> {
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
fn same_number(written: &str, wanted: &serde_json::Number) -> bool {
    let exact = Decimal::read(written).zip(Decimal::read(&wanted.to_string()));
    if exact.is_some_and(|(written, wanted)| written == wanted) {
        return true;
    }
    // One with a fraction was a double before anybody wrote it down.
    let fraction = wanted.as_f64().filter(|wanted| wanted.fract() != 0.0);
    fraction.is_some_and(|wanted| written.parse() == Ok(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Value<'_> {
        Value::read(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn at<'a>(text: &'a str, path: &str) -> Option<Value<'a>> {
        Document::new(read(text)).find(path.split('.')).map(|found| found.value)
    }

    #[test]
    fn an_odd_value_hides_no_neighbor() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for odd in [
            "1e400",
            "-1e400",
            r#""\ud83d""#,
            r#""\ude00\ud83d""#,
            &deep,
            "NaN",
            "-Infinity",
            "\"\u{1}\t\"",
            "\"\\u0000\"",
        ] {
            for text in [
                format!(r#"{{"odd":{odd},"kind":"order","list":[{odd},7]}}"#),
                format!(r#"{{"kind":"order","list":[{odd},7],"odd":{odd}}}"#),
            ] {
                assert_eq!(at(&text, "kind").unwrap().text().unwrap().text, "order");
                assert_eq!(at(&text, "list.1").unwrap().number(), Some("7"));
                assert!(at(&text, "list.2").is_none() && at(&text, "kind.x").is_none() && at(&text, "other").is_none());
                let legal = read(&text).legal();
                serde_json::from_str::<serde::de::IgnoredAny>(&legal)
                    .unwrap_or_else(|error| panic!("{error}: {legal}"));
                if odd.len() < 100 {
                    let json: Json = serde_json::from_str(&legal).unwrap_or_else(|error| panic!("{error}: {legal}"));
                    assert_eq!(json["kind"], "order");
                }
            }
        }
    }

    #[test]
    fn halves_of_characters_are_replaced_and_whole_ones_are_not() {
        for (written, text, is_lossy) in [
            (r#""a\ud83d""#, "a\u{fffd}", true),
            (r#""\ud83dx""#, "\u{fffd}x", true),
            (r#""\ud83d\ud83d\ude00""#, "\u{fffd}😀", true),
            (r#""\ude00\u0041""#, "\u{fffd}A", true),
            (r#""\ud83d\n""#, "\u{fffd}\n", true),
            (r#""\ud83d\\ude00""#, "\u{fffd}\\ude00", true),
            (r#""\ud83d\ude00 \"\/""#, "😀 \"/", false),
            (r#""gr\u00fcezi""#, "grüezi", false),
            (r#""\\ud83d""#, "\\ud83d", false),
        ] {
            let value = read(written);
            assert_eq!(value.text().unwrap(), Text { text: text.into(), is_lossy }, "{written}");
            let legal = value.legal();
            assert_eq!(serde_json::from_str::<String>(&legal).unwrap(), text, "{written}: {legal}");
            assert_eq!(matches!(legal, Cow::Owned(_)), is_lossy, "{written}: {legal}");
        }
        let bytes = b"{\"a\":\"\xed\xa0\xbd\",\"b\":\"\xff\",\"kind\":\"order\"}";
        let document = Document::read(bytes).unwrap();
        assert_eq!(document.find(["kind"]).unwrap().value.text().unwrap().text, "order");
        assert!(document.find(["b"]).unwrap().value.text().unwrap().is_lossy);
        assert_eq!(serde_json::from_str::<Json>(&document.root().legal()).unwrap()["b"], "\u{fffd}");
    }

    #[test]
    fn integers_are_told_apart_whatever_their_size() {
        let integer = |wanted: i64| Json::from(wanted);
        let float = |wanted: f64| Json::from(wanted);
        for (written, wanted, same) in [
            ("9007199254740993", integer(9_007_199_254_740_992), false),
            ("9007199254740993", integer(9_007_199_254_740_993), true),
            ("9007199254740993.0", integer(9_007_199_254_740_993), true),
            ("9007199254740993", float(9_007_199_254_740_992.0), false),
            ("9223372036854775808", integer(i64::MAX), false),
            ("18446744073709551617", integer(1), false),
            ("1.0", integer(1), true),
            ("1e0", integer(1), true),
            ("100", float(1e2), true),
            ("10e1", integer(100), true),
            ("-0", integer(0), true),
            ("-1", integer(1), false),
            ("0.1", float(0.1), true),
            ("0.10", float(0.1), true),
            ("0.1000000000000000055511151231257827", float(0.1), true),
            ("1e300", float(1e300), true),
            ("1e400", float(f64::MAX), false),
            ("1e99999999999999999999", integer(1), false),
            ("NaN", integer(0), false),
            ("\"1\"", integer(1), false),
        ] {
            assert_eq!(read(written).is(&wanted), same, "{written} and {wanted}");
        }
    }

    #[test]
    fn the_last_of_several_counts_and_is_called_ambiguous() {
        let ambiguous = |text: &str, path: &str| {
            let document = Document::new(read(text));
            let found = document.find(path.split('.')).unwrap();
            (format!("{:?}", found.value), found.is_ambiguous)
        };
        assert_eq!(ambiguous(r#"{"a":1,"b":2,"a":3}"#, "a"), ("3".into(), true));
        assert_eq!(ambiguous(r#"{"a":1,"\u0061":3}"#, "a"), ("3".into(), true));
        assert_eq!(ambiguous(r#"{"a":3,"a":3}"#, "a"), ("3".into(), false));
        assert_eq!(ambiguous(r#"{"a":{"x":1},"a":{"x":2}}"#, "a.x"), ("2".into(), true));
        assert_eq!(ambiguous(r#"{"a":1,"b":2,"a":3}"#, "b"), ("2".into(), false));
    }

    #[test]
    fn what_is_not_json_is_told_with_its_place() {
        for (text, told) in [
            ("", "expected a value at line 1 column 1"),
            ("hello", "expected a value at line 1 column 1"),
            ("{", "expected a key in quotes at line 1 column 2"),
            ("{\"a\":1,\n}", "expected a key in quotes at line 2 column 1"),
            ("[1,]", "expected a value at line 1 column 4"),
            ("[1 2]", "expected `,` or `]` at line 1 column 4"),
            ("{\"a\" 1}", "expected `:` at line 1 column 6"),
            ("{} {}", "expected the end at line 1 column 4"),
            ("\"a", "expected the end of a string at line 1 column 3"),
            (r#""\x""#, "expected an escape at line 1 column 3"),
            (r#""\u12g4""#, "expected four hex digits behind `\\u` at line 1 column 3"),
            ("01", "expected the end at line 1 column 2"),
            ("1.", "expected a digit at line 1 column 3"),
            ("+1", "expected a value at line 1 column 1"),
            ("[1}", "expected `,` or `]` at line 1 column 3"),
        ] {
            assert_eq!(Value::read(text.as_bytes()).unwrap_err().to_string(), told, "{text}");
        }
        assert_eq!(read("\u{feff} [1] ").bytes(), b"[1]");
    }
}
