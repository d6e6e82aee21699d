//! JSON as other programs write it, read as far as it can be.
//!
//! `serde_json` refuses a whole document for one lone surrogate (which `JSON.stringify` writes), one number beyond a double,
//! one `NaN` (which Python writes), one byte that is not UTF-8, or one value nested too deeply. Here a document is split
//! into its parts without looking into them ([`Fields`], [`list`]), and each part is decoded on its own: what is odd in one
//! field costs that field at most.

mod repair;
mod text;

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

pub use text::TextJoiner;

/// The most items of a list that are read. Each takes 16 bytes of memory, and only 2 of the document.
const MAX_ITEMS: usize = 100_000;

/// A document that [`document`] has looked through: UTF-8, and JSON but for what stands in its strings and numbers.
pub type Document<'a> = Cow<'a, str>;

/// Checks that bytes are one JSON value, and repairs what keeps them from being one: bytes that are not UTF-8 in strings,
/// raw control characters in strings, `NaN` and `Infinity`. White space and a byte order mark around it are left out.
///
/// # Errors
/// If it is no JSON even so: cut off, most often, or something else altogether.
pub fn document(bytes: &[u8]) -> Result<Document<'_>, serde_json::Error> {
    let bytes = bytes.trim_ascii();
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii();
    let first = match str::from_utf8(bytes) {
        Ok(text) => match serde_json::from_str::<&RawValue>(text) {
            Ok(_) => return Ok(Cow::Borrowed(text)),
            Err(error) => Some(error),
        },
        Err(_) => None,
    };
    let repaired = repair::document(bytes);
    match serde_json::from_str::<&RawValue>(&repaired) {
        Ok(_) => Ok(Cow::Owned(repaired)),
        // The positions of the first error are those of what was sent.
        Err(error) => Err(first.unwrap_or(error)),
    }
}

/// A document's value as it stands there.
///
/// # Errors
/// If the text is not JSON.
pub fn raw(document: &str) -> Result<&RawValue, serde_json::Error> {
    serde_json::from_str(document)
}

/// Some fields of an object. The others are never decoded nor kept, and of a field that stands there twice the last counts.
pub struct Fields<'a>(Vec<(&'static str, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// The fields of these names; none if the value is no object.
    pub fn of(value: &'a RawValue, names: &'static [&'static str]) -> Option<Self> {
        struct Names(&'static [&'static str]);
        impl<'a> Visitor<'a> for Names {
            type Value = Vec<(&'static str, &'a RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields: Self::Value = Vec::with_capacity(self.0.len());
                while let Some(text::Bytes(key)) = map.next_key()? {
                    let Some(name) = self.0.iter().find(|name| name.as_bytes() == key) else {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    let value = map.next_value()?;
                    match fields.iter_mut().find(|(known, _)| known == name) {
                        Some(field) => field.1 = value,
                        None => fields.push((name, value)),
                    }
                }
                Ok(fields)
            }
        }
        if kind(value) != Kind::Object {
            return None;
        }
        serde_json::Deserializer::from_str(value.get()).deserialize_map(Names(names)).ok().map(Self)
    }

    /// Whether a field is there, even as null.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| *known == name)
    }

    /// A field's value; null is none.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        let field = self.0.iter().find(|(known, _)| *known == name);
        field.map(|(_, value)| *value).filter(|value| kind(value) != Kind::Null)
    }

    /// A field of one of these names, the first there is.
    pub fn first(&self, names: &[&str]) -> Option<&'a RawValue> {
        names.iter().find_map(|name| self.get(name))
    }

    /// A field's [`text()`].
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).and_then(text)
    }

    /// A field's [`integer`].
    pub fn integer<T: TryFrom<i64>>(&self, name: &str) -> Option<T> {
        self.get(name).and_then(integer)
    }
}

/// What a value is, as its first character says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// A number.
    Number,
    /// A text.
    Text,
    /// A list.
    List,
    /// An object.
    Object,
}

/// What a value is.
pub fn kind(value: &RawValue) -> Kind {
    match value.get().trim_ascii_start().as_bytes().first() {
        Some(b'{') => Kind::Object,
        Some(b'[') => Kind::List,
        Some(b'"') => Kind::Text,
        Some(b't' | b'f') => Kind::Bool,
        Some(b'-' | b'0'..=b'9') => Kind::Number,
        _ => Kind::Null,
    }
}

/// Whether a value says nothing: null, `false`, 0, or an empty text, list or object.
pub fn is_empty(value: &RawValue) -> bool {
    let text: String = value.get().chars().filter(|c| !c.is_ascii_whitespace()).take(6).collect();
    matches!(text.as_str(), "null" | "false" | "0" | "\"\"" | "[]" | "{}")
}

/// The items of a list; none if it is no list, or one without measure.
pub fn list(value: &RawValue) -> Option<Vec<&RawValue>> {
    struct Items;
    impl<'a> Visitor<'a> for Items {
        type Value = Vec<&'a RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of reasonable length")
        }

        fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = seq.next_element()? {
                if items.len() == MAX_ITEMS {
                    return Err(serde::de::Error::invalid_length(items.len(), &self));
                }
                items.push(item);
            }
            Ok(items)
        }
    }
    if kind(value) != Kind::List {
        return None;
    }
    serde_json::Deserializer::from_str(value.get()).deserialize_seq(Items).ok()
}

/// A text, with U+FFFD for what is not Unicode in it, or a number as one; none for anything else.
pub fn text(value: &RawValue) -> Option<String> {
    match kind(value) {
        Kind::Text => bytes(value).map(text::lossy),
        Kind::Number => Some(value.get().trim_ascii().to_owned()),
        _ => None,
    }
}

/// Whether a text has nothing in it that is not Unicode.
pub fn is_unicode(value: &RawValue) -> bool {
    serde_json::from_str::<Cow<'_, str>>(value.get()).is_ok()
}

/// The bytes of a text that may go on elsewhere, for [`TextJoiner::push`]; none if it is no text.
pub fn bytes(value: &RawValue) -> Option<Vec<u8>> {
    if kind(value) != Kind::Text {
        return None;
    }
    serde_json::from_str(value.get()).ok().map(|text::Bytes(bytes)| bytes)
}

/// An integer, as a number or as a text; what is neither, or doesn't fit, is none.
pub fn integer<T: TryFrom<i64>>(value: &RawValue) -> Option<T> {
    let written = text(value)?;
    let written = written.trim();
    let integer = written.parse().ok().or_else(|| {
        // 1.0 and 1e3 are integers, too. A cast ends at the integer's limits.
        let float: f64 = written.parse().ok().filter(|_| kind(value) == Kind::Number)?;
        float.is_finite().then_some(float as i64)
    })?;
    T::try_from(integer).ok()
}

/// Yes or no, as a bool, a number or a text; anything else is no.
pub fn is_true(value: &RawValue) -> bool {
    matches!(value.get().trim_ascii().to_ascii_lowercase().as_str(), "true" | "1" | "\"true\"")
}

/// A value, decoded: with U+FFFD for what is not Unicode in a text, and null for a number that no double can hold and for
/// what is nested too deeply.
pub fn value(value: &RawValue) -> Value {
    let text = value.get();
    serde_json::from_str(text)
        .or_else(|_| serde_json::from_str(&repair::value(text)))
        // What is left after the repair can be read; should it not be, it is as good as not there.
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Value {
        let document = document(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
        value(raw(&document).unwrap())
    }

    #[test]
    fn odd_values_cost_only_themselves() {
        for (written, wanted) in [
            (r#"{"a": "x\ud83d", "b": 1}"#, json!({ "a": "x\u{fffd}", "b": 1 })),
            (r#"["\ude42\ud83d", "\ud83d\ude42", "\\ud83d"]"#, json!(["\u{fffd}\u{fffd}", "🙂", "\\ud83d"])),
            (r#"{"\ud83d": 1}"#, json!({ "\u{fffd}": 1 })),
            (r#"[1e400, -1e400, 1e-400, 12e3]"#, json!([null, null, 0.0, 12000.0])),
            (r#"[NaN, Infinity, -Infinity, "NaN"]"#, json!([null, null, null, "NaN"])),
            ("[\"a\nb\tc\"]", json!(["a\nb\tc"])),
            ("\u{feff} {\"a\": 1}\r\n", json!({ "a": 1 })),
        ] {
            assert_eq!(read(written), wanted, "{written}");
        }
        let raw_bytes = document(b"[\"a\xf0\x9f\", 1]").unwrap();
        assert_eq!(value(raw(&raw_bytes).unwrap()), json!(["a\u{fffd}\u{fffd}", 1]));
    }

    #[test]
    fn what_is_too_deep_is_left_out() {
        let deep = format!("{{\"note\": {}1{}, \"kind\": \"order\"}}", "[".repeat(50_000), "]".repeat(50_000));
        let read = read(&deep);
        assert_eq!(read["kind"], "order");
        assert!(read["note"].is_array());
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in ["", "{", "{\"a\": \"x", "{\"a\" 1}", "[1,]", "nul", "{} {}", "<html>", "\"\\x\"", "data: {}"] {
            assert!(document(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn fields_are_found_beside_odd_ones() {
        let text = r#"{"x": 1e999, "id": 7, "id": "last", "\ud800": 0, "n": "12", "f": 3.0, "none": null, "m": [1]}"#;
        let document = document(text.as_bytes()).unwrap();
        let fields = Fields::of(raw(&document).unwrap(), &["id", "n", "f", "none", "m"]).unwrap();
        assert_eq!(fields.text("id").as_deref(), Some("last"));
        assert_eq!((fields.integer::<u32>("n"), fields.integer::<u32>("f")), (Some(12), Some(3)));
        assert!(fields.get("none").is_none() && fields.text("m").is_none());
    }

    proptest! {
        /// Whatever comes is read or refused, and what serde_json reads is read alike.
        #[test]
        fn nothing_good_is_changed(bytes in prop::collection::vec(prop_oneof![
            Just(b'"'), Just(b'\\'), Just(b'u'), Just(b'd'), Just(b'8'), Just(b'{'), Just(b'}'), Just(b'['), Just(b']'),
            Just(b':'), Just(b','), Just(b'1'), Just(b'e'), any::<u8>(),
        ], 0..60)) {
            let ours = document(&bytes).map(|document| value(raw(&document).unwrap()));
            if let Ok(theirs) = serde_json::from_slice::<Value>(&bytes) {
                prop_assert_eq!(ours.ok(), Some(theirs));
            }
        }
    }
}
