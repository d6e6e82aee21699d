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
    for odd in
        ["1e400", "-1e400", r#""\ud83d""#, r#""\ude00\ud83d""#, &deep, "NaN", "-Infinity", "\"\u{1}\t\"", "\"\\u0000\""]
    {
        for text in [
            format!(r#"{{"odd":{odd},"kind":"order","list":[{odd},7]}}"#),
            format!(r#"{{"kind":"order","list":[{odd},7],"odd":{odd}}}"#),
        ] {
            assert_eq!(at(&text, "kind").unwrap().text().unwrap().text, "order");
            assert_eq!(at(&text, "list.1").unwrap().number(), Some("7"));
            assert!(at(&text, "list.2").is_none() && at(&text, "kind.x").is_none() && at(&text, "other").is_none());
            let legal = read(&text).legal();
            serde_json::from_str::<serde::de::IgnoredAny>(&legal).unwrap_or_else(|error| panic!("{error}: {legal}"));
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
