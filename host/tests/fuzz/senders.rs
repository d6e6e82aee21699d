//! JSON as JavaScript, Python and Go write it, with the value that all three read from it.

use std::fmt::Write;

use modhost_core::json::{Document, Fields, Value};
use serde_json::Value as Json;

/// A value of a sending program.
#[derive(Clone, Debug)]
pub enum Sent {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    /// The UTF-16 code units of a string, including lone surrogates.
    Text(Vec<u16>),
    List(Vec<Sent>),
    /// Keys may repeat.
    Object(Vec<(Vec<u16>, Sent)>),
}

/// The program that writes the JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// `JSON.stringify(value)`
    JavaScript,
    /// `json.dumps(value)`
    Python,
    /// `json.Marshal(value)`; a lone surrogate has already become a byte that isn't UTF-8.
    Go,
}

impl Sent {
    fn write(&self, writer: Writer, out: &mut String) {
        let (comma, colon) = match writer {
            Writer::Python => (", ", ": "),
            Writer::JavaScript | Writer::Go => (",", ":"),
        };
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(bool) => write!(out, "{bool}").unwrap(),
            Self::Integer(integer) => write!(out, "{integer}").unwrap(),
            Self::Float(float) => out.push_str(&write_float(*float, writer)),
            Self::Text(units) => write_text(units, writer, out),
            Self::List(items) => {
                out.push('[');
                for (place, item) in items.iter().enumerate() {
                    out.push_str(if place == 0 { "" } else { comma });
                    item.write(writer, out);
                }
                out.push(']');
            }
            Self::Object(entries) => {
                out.push('{');
                for (place, (key, value)) in entries.iter().enumerate() {
                    out.push_str(if place == 0 { "" } else { comma });
                    write_text(key, writer, out);
                    out.push_str(colon);
                    value.write(writer, out);
                }
                out.push('}');
            }
        }
    }

    /// Returns the value that is read. If the three readers differ, it is the one that strict JSON can represent:
    /// U+FFFD for a lone surrogate, the largest double for an infinite one, null for `NaN`.
    fn read(&self) -> Json {
        match self {
            Self::Null => Json::Null,
            Self::Bool(bool) => (*bool).into(),
            Self::Integer(integer) => match (u64::try_from(*integer), i64::try_from(*integer)) {
                (Ok(integer), _) => integer.into(),
                (_, Ok(integer)) => integer.into(),
                _ => (*integer as f64).into(),
            },
            Self::Float(float) if float.is_nan() => Json::Null,
            Self::Float(float) => float.clamp(f64::MIN, f64::MAX).into(),
            Self::Text(units) => String::from_utf16_lossy(units).into(),
            Self::List(items) => items.iter().map(Self::read).collect(),
            Self::Object(entries) => {
                entries.iter().map(|(key, value)| (String::from_utf16_lossy(key), value.read())).collect()
            }
        }
    }

    fn depth(&self) -> usize {
        match self {
            Self::List(items) => 1 + items.iter().map(Self::depth).max().unwrap_or(0),
            Self::Object(entries) => 1 + entries.iter().map(|(_, value)| value.depth()).max().unwrap_or(0),
            _ => 0,
        }
    }
}

fn write_float(float: f64, writer: Writer) -> String {
    let (infinity, nan) = match writer {
        Writer::Python => ("Infinity", "NaN"),
        // JSON in JavaScript has no such numbers, and Go refuses them; these are the texts of other programs.
        Writer::JavaScript | Writer::Go => ("1e999", "null"),
    };
    if float.is_nan() {
        return nan.to_owned();
    }
    if float.is_infinite() {
        return format!("{}{infinity}", if float < 0.0 { "-" } else { "" });
    }
    if float == 0.0 || (1e-5..1e16).contains(&float.abs()) {
        let written = float.to_string();
        // Only Python distinguishes floats from integers.
        return if writer == Writer::Python && float.fract() == 0.0 { written + ".0" } else { written };
    }
    format!("{float:e}").replace('e', if float.abs() < 1.0 { "e" } else { "e+" })
}

fn write_text(units: &[u16], writer: Writer, out: &mut String) {
    out.push('"');
    for decoded in char::decode_utf16(units.iter().copied()) {
        match (decoded, writer) {
            (Ok('"'), _) => out.push_str("\\\""),
            (Ok('\\'), _) => out.push_str("\\\\"),
            (Ok('\n'), _) => out.push_str("\\n"),
            (Ok('\r'), _) => out.push_str("\\r"),
            (Ok('\t'), _) => out.push_str("\\t"),
            (Ok('\u{8}'), _) => out.push_str("\\b"),
            (Ok('\u{c}'), _) => out.push_str("\\f"),
            (Ok(c @ ..'\u{20}'), _) => write!(out, "\\u{:04x}", u32::from(c)).unwrap(),
            (Ok(c @ ('<' | '>' | '&' | '\u{2028}' | '\u{2029}')), Writer::Go) => {
                write!(out, "\\u{:04x}", u32::from(c)).unwrap();
            }
            (Ok(c @ '\u{7f}'..), Writer::Python) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}").unwrap();
                }
            }
            (Ok(c), _) => out.push(c),
            (Err(_), Writer::Go) => out.push_str("\\ufffd"),
            (Err(lone), Writer::JavaScript | Writer::Python) => {
                write!(out, "\\u{:04x}", lone.unpaired_surrogate()).unwrap();
            }
        }
    }
    out.push('"');
}

/// A value is read as the three programs read it.
pub fn check_sent_value(sent: &Sent, writer: Writer) {
    // Values that are too deep are truncated by the decoder but not by the accessors.
    if sent.depth() > 100 {
        return;
    }
    let mut text = String::new();
    sent.write(writer, &mut text);
    let value = Value::read(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"));
    let wanted = sent.read();
    assert_same(&value.to_json(), &wanted, &text);
    let strict = value.to_strict();
    let strictly = serde_json::from_str(&strict).unwrap_or_else(|error| panic!("{error}: {strict}"));
    assert_same(&strictly, &wanted, &text);
    assert_found(value, sent, &text);
}

/// `serde_json` without its feature `float_roundtrip` may be off by one in the last bit.
fn assert_same(read: &Json, wanted: &Json, text: &str) {
    match (read, wanted) {
        (Json::Number(read), Json::Number(wanted)) if wanted.is_f64() || read.is_f64() => {
            let (read, wanted) = (read.as_f64().unwrap(), wanted.as_f64().unwrap());
            assert!((read - wanted).abs() <= wanted.abs() * 1e-15, "{read} is not {wanted}: {text}");
        }
        (Json::Array(read), Json::Array(wanted)) => {
            assert_eq!(read.len(), wanted.len(), "{text}");
            read.iter().zip(wanted).for_each(|(read, wanted)| assert_same(read, wanted, text));
        }
        (Json::Object(read), Json::Object(wanted)) => {
            assert_eq!(read.len(), wanted.len(), "{text}");
            for (key, wanted) in wanted {
                assert_same(read.get(key).unwrap_or_else(|| panic!("no {key}: {text}")), wanted, text);
            }
        }
        (read, wanted) => assert_eq!(read, wanted, "{text}"),
    }
}

/// Every accessor finds each value.
fn assert_found(value: Value<'_>, sent: &Sent, text: &str) {
    match sent {
        Sent::Null => assert!(value.is_null() && value.is_empty(), "{text}"),
        Sent::Bool(bool) => assert!(value.equals(&Json::from(*bool)) && value.is_true() == *bool, "{text}"),
        Sent::Integer(integer) => {
            assert_eq!(value.number(), Some(integer.to_string().as_str()), "{text}");
            if let Ok(integer) = i64::try_from(*integer) {
                assert_eq!(value.integer(), Some(integer), "{text}");
                assert!(value.equals(&integer.into()), "{text}");
                assert!(!value.equals(&(integer ^ 1).into()), "{text}");
            }
        }
        Sent::Float(float) => assert_eq!(value.is_null(), float.is_nan(), "{text}"),
        Sent::Text(units) => {
            let found = value.text().unwrap();
            assert_eq!(found.text, String::from_utf16_lossy(units), "{text}");
            assert!(value.equals(&found.text.as_ref().into()), "{text}");
            assert!(!found.is_lossy || String::from_utf16(units).is_err(), "{text}");
        }
        Sent::List(items) => {
            let (list, document) = (value.list().unwrap(), Document::new(value));
            assert_eq!(list.len(), items.len(), "{text}");
            for (place, (value, sent)) in list.into_iter().zip(items).enumerate() {
                assert_eq!(document.find([place.to_string().as_str()]).unwrap().value, value, "{text}");
                assert_found(value, sent, text);
            }
        }
        Sent::Object(entries) => {
            const NAMES: &[&str] = &["a", "id", "name"];
            let (fields, document) = (Fields::of(value, NAMES).unwrap(), Document::new(value));
            assert_eq!(value.entries().unwrap().count(), entries.len(), "{text}");
            for (place, (key, sent)) in entries.iter().enumerate() {
                let key = String::from_utf16_lossy(key);
                let is_same = |(other, _): &(Vec<u16>, Sent)| String::from_utf16_lossy(other) == key;
                if entries[place + 1..].iter().any(is_same) {
                    continue;
                }
                let found = document.find([key.as_str()]).unwrap();
                assert!(!found.is_ambiguous || entries[..place].iter().any(is_same), "{text}");
                assert_found(found.value, sent, text);
                if NAMES.contains(&key.as_str()) {
                    assert_eq!(fields.get(&key), Some(found.value).filter(|value| !value.is_null()), "{text}");
                }
            }
        }
    }
}
