use std::borrow::Cow;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

fn read(text: &str) -> Value<'_> {
    Value::read(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn at<'a>(text: &'a str, path: &str) -> Option<Value<'a>> {
    Document::new(read(text)).find(path.split('.')).map(|found| found.value)
}

#[test]
fn reads_neighbors_of_malformed_values() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for malformed in
        ["1e400", "-1e400", r#""\ud83d""#, r#""\ude00\ud83d""#, &deep, "NaN", "-Infinity", "\"\u{1}\t\"", "\"\\u0000\""]
    {
        for text in [
            format!(r#"{{"malformed":{malformed},"kind":"order","list":[{malformed},7]}}"#),
            format!(r#"{{"kind":"order","list":[{malformed},7],"malformed":{malformed}}}"#),
        ] {
            assert_eq!(at(&text, "kind").unwrap().text().unwrap().text, "order");
            assert_eq!(at(&text, "list.1").unwrap().number(), Some("7"));
            assert!(at(&text, "list.2").is_none() && at(&text, "kind.x").is_none() && at(&text, "other").is_none());
            let fields = Fields::of(read(&text), &["kind", "list"]).unwrap();
            assert_eq!(fields.text("kind").as_deref(), Some("order"));
            assert_eq!(fields.get("list").unwrap().list().unwrap()[1].integer(), Some(7));
            let strict = read(&text).to_strict();
            serde_json::from_str::<serde::de::IgnoredAny>(&strict).unwrap_or_else(|error| panic!("{error}: {strict}"));
            assert_eq!(read(&text).to_json()["kind"], "order");
        }
    }
}

#[test]
fn decodes_malformed_values() {
    for (written, wanted) in [
        (r#"{"a": "x\ud83d", "b": 1}"#, json!({ "a": "x\u{fffd}", "b": 1 })),
        (r#"["\ude42\ud83d", "\ud83d\ude42", "\\ud83d"]"#, json!(["\u{fffd}\u{fffd}", "🙂", "\\ud83d"])),
        (r#"{"\ud83d": 1}"#, json!({ "\u{fffd}": 1 })),
        ("[1e400, -1e400, 1e-400, 12e3]", json!([f64::MAX, f64::MIN, 0.0, 12000.0])),
        ("[1.7976931348623158e308, -1.7976931348623158e308]", json!([f64::MAX, f64::MIN])),
        (r#"[NaN, Infinity, -Infinity, "NaN"]"#, json!([null, f64::MAX, f64::MIN, "NaN"])),
        ("[\"a\nb\tc\"]", json!(["a\nb\tc"])),
        (r#"{"a": 1, "a": 2}"#, json!({ "a": 2 })),
        ("\u{feff} {\"a\": 1}\r\n", json!({ "a": 1 })),
        (" \u{feff}[\n]\u{c}", json!([])),
    ] {
        assert_eq!(read(written).to_json(), wanted, "{written}");
    }
    assert_eq!(
        Value::read(b"[\"a\xf0\x9f\\n\xff\xff\", 1]").unwrap().to_json(),
        json!(["a\u{fffd}\n\u{fffd}\u{fffd}", 1])
    );
}

#[test]
fn decodes_containers_down_to_a_maximum_depth() {
    let text = format!(r#"{{"note": {}1{}, "kind": "order"}}"#, "[".repeat(50_000), "]".repeat(50_000));
    let read = read(&text).to_json();
    assert_eq!(read["kind"], "order");
    assert!(read["note"].is_array());
}

#[test]
fn replaces_lone_surrogates_only() {
    for (written, text, is_lossy) in [
        (r#""a\ud83d""#, "a\u{fffd}", true),
        (r#""\ud83dx""#, "\u{fffd}x", true),
        (r#""\ud83d\ud83d\ude00""#, "\u{fffd}😀", true),
        (r#""\ude00\u0041""#, "\u{fffd}A", true),
        (r#""\ud83d\n""#, "\u{fffd}\n", true),
        (r#""\ud83d\\ude00""#, "\u{fffd}\\ude00", true),
        (r#""\ud83d\ude00 \"\/""#, "😀 \"/", false),
        (r#""\uD83D\uDE00""#, "😀", false),
        (r#""gr\u00fcezi""#, "grüezi", false),
        (r#""\\ud83d""#, "\\ud83d", false),
    ] {
        let value = read(written);
        assert_eq!(value.text().unwrap(), Text { text: text.into(), is_lossy }, "{written}");
        let strict = value.to_strict();
        assert_eq!(serde_json::from_str::<String>(&strict).unwrap(), text, "{written}: {strict}");
        assert_eq!(matches!(strict, Cow::Owned(_)), is_lossy, "{written}: {strict}");
    }
    let bytes = b"{\"a\":\"\xed\xa0\xbd\",\"b\":\"\xff\",\"kind\":\"order\"}";
    let document = Document::read(bytes).unwrap();
    assert_eq!(document.find(["kind"]).unwrap().value.text().unwrap().text, "order");
    assert!(document.find(["b"]).unwrap().value.text().unwrap().is_lossy);
    assert_eq!(serde_json::from_str::<Json>(&document.root().to_strict()).unwrap()["b"], "\u{fffd}");
}

#[test]
fn compares_integers_of_any_size_exactly() {
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
        assert_eq!(read(written).equals(&wanted), same, "{written} and {wanted}");
    }
}

#[test]
fn converts_integers() {
    for (written, wanted) in [
        ("7", Some(7)),
        ("\" 12 \"", Some(12)),
        ("3.0", Some(3)),
        ("1e3", Some(1000)),
        ("-1", None),
        ("4294967296", None),
        ("1e400", None),
        ("\"1.0\"", None),
        ("NaN", None),
        ("Infinity", None),
        ("null", None),
        ("[1]", None),
    ] {
        assert_eq!(read(written).integer::<u32>(), wanted, "{written}");
    }
}

#[test]
fn takes_the_last_of_duplicate_keys_and_reports_ambiguity() {
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
fn finds_known_fields() {
    let text = r#"{"x": 1e999, "id": 7, "id": "last", "\ud800": 0, "\u006e": "12", "f": 3.0, "none": null, "m": [1], "nan": NaN}"#;
    let fields = Fields::of(read(text), &["id", "n", "f", "none", "m", "nan"]).unwrap();
    assert_eq!(fields.text("id").as_deref(), Some("last"));
    assert_eq!((fields.integer::<u32>("n"), fields.integer::<u32>("f")), (Some(12), Some(3)));
    assert!(fields.has("none") && fields.get("none").is_none() && !fields.has("x"));
    assert!(fields.get("nan").is_none() && fields.text("m").is_none());
    assert!(Fields::of(read("[]"), &["id"]).is_none());
}

#[test]
fn recognizes_empty_and_true_values() {
    for empty in ["null", "NaN", "false", "0", "\"\"", "\" \"", "[ ]", "{\n}"] {
        assert!(read(empty).is_empty() && !read(empty).is_true(), "{empty}");
    }
    for full in ["true", "1", "\"True\""] {
        assert!(read(full).is_true() && !read(full).is_empty(), "{full}");
    }
    for other in ["0.0", "\"0\"", "[0]", "{\"a\":0}", "Infinity", "2"] {
        assert!(!read(other).is_true() && !read(other).is_empty(), "{other}");
    }
}

#[test]
fn limits_lists() {
    let list = |items: usize| format!("[{}]", vec!["0"; items].join(","));
    assert_eq!(read(&list(100_000)).list().unwrap().len(), 100_000);
    assert_eq!(read(&list(100_001)).list(), None);
    assert_eq!(read("{}").list(), None);
}

#[test]
fn reports_the_position_of_a_syntax_error() {
    for (text, message) in [
        ("", "expected a value at line 1 column 1"),
        ("hello", "expected a value at line 1 column 1"),
        ("nul", "expected a value at line 1 column 1"),
        ("<html>", "expected a value at line 1 column 1"),
        ("{", "expected a key in quotes at line 1 column 2"),
        ("{\"a\":1,\n}", "expected a key in quotes at line 2 column 1"),
        ("[1,]", "expected a value at line 1 column 4"),
        ("[1 2]", "expected `,` or `]` at line 1 column 4"),
        ("[NaN1]", "expected `,` or `]` at line 1 column 5"),
        ("[-NaN]", "expected a value at line 1 column 3"),
        ("{\"a\" 1}", "expected `:` at line 1 column 6"),
        ("{} {}", "expected the end at line 1 column 4"),
        ("{}\u{feff}", "expected the end at line 1 column 3"),
        ("\"a", "expected the end of a string at line 1 column 3"),
        (r#""\x""#, "expected an escape at line 1 column 3"),
        (r#""\u12g4""#, "expected four hex digits behind `\\u` at line 1 column 3"),
        (r#""\u+123""#, "expected four hex digits behind `\\u` at line 1 column 3"),
        ("01", "expected the end at line 1 column 2"),
        ("1.", "expected a digit at line 1 column 3"),
        ("+1", "expected a value at line 1 column 1"),
        ("[1}", "expected `,` or `]` at line 1 column 3"),
    ] {
        assert_eq!(Value::read(text.as_bytes()).unwrap_err().to_string(), message, "{text}");
    }
    assert_eq!(read("\u{feff} [1] ").as_bytes(), b"[1]");
}

proptest! {
    /// Any input is parsed or rejected without a panic, and input that `serde_json` accepts is parsed to the same
    /// value.
    #[test]
    fn agrees_with_serde_json(bytes in prop::collection::vec(prop_oneof![
        Just(b'"'), Just(b'\\'), Just(b'u'), Just(b'd'), Just(b'8'), Just(b'{'), Just(b'}'), Just(b'['), Just(b']'),
        Just(b':'), Just(b','), Just(b'1'), Just(b'e'), any::<u8>(),
    ], 0..60)) {
        let ours = Value::read(&bytes).map(Value::to_json);
        if let Ok(theirs) = serde_json::from_slice::<Json>(&bytes) {
            prop_assert_eq!(ours, Ok(theirs));
        }
    }
}
