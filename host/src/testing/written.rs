//! Writes TOML, as a person would: what is recorded and what `--update` puts in place of what was expected.

use std::fmt::Write;

use serde_json::Value as Json;

use modhost_core::sanitize;

/// How long a line may be before a list is written over several.
const LINE: usize = 110;

/// A text as a TOML string; one of several lines between triple quotes.
pub fn text(text: &str) -> String {
    let lines = text.contains('\n') && !text.contains('\r');
    let mut written = if lines { "\"\"\"\n".to_owned() } else { "\"".to_owned() };
    for c in text.chars() {
        match c {
            '\\' => written.push_str("\\\\"),
            '"' => written.push_str("\\\""),
            '\n' if lines => written.push('\n'),
            '\n' => written.push_str("\\n"),
            '\r' => written.push_str("\\r"),
            '\t' => written.push_str("\\t"),
            c => push(&mut written, c),
        }
    }
    written.push_str(if lines { "\"\"\"" } else { "\"" });
    written
}

/// A text on one line.
pub fn line(text: &str) -> String {
    let json = serde_json::to_string(text).unwrap_or_default();
    json.chars().fold(String::with_capacity(json.len()), |mut line, c| {
        push(&mut line, c);
        line
    })
}

/// Adds a character; one that doesn't show itself as an escape.
fn push(to: &mut String, c: char) {
    if !sanitize::is_unsafe(c) {
        return to.push(c);
    }
    _ = match u32::from(c) {
        code @ ..=0xFFFF => write!(to, "\\u{code:04X}"),
        code => write!(to, "\\U{code:08X}"),
    };
}

/// A key, in quotes where it needs them.
pub fn key(key: &str) -> String {
    let is_bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if is_bare { key.to_owned() } else { line(key) }
}

/// A value on one line. TOML has no null: a field that is null is left out, and so is an item of a list.
pub fn value(json: &Json) -> String {
    match json {
        // Nothing a table or a list could hold; alone, there is no better word for it.
        Json::Null => "\"\"".to_owned(),
        Json::Bool(flag) => flag.to_string(),
        Json::Number(number) => number.to_string(),
        Json::String(text) => line(text),
        Json::Array(items) => {
            let items: Vec<_> = items.iter().filter(|item| !item.is_null()).map(value).collect();
            format!("[{}]", items.join(", "))
        }
        Json::Object(fields) => {
            let fields: Vec<_> = fields
                .iter()
                .filter(|(_, field)| !field.is_null())
                .map(|(name, field)| format!("{} = {}", key(name), value(field)))
                .collect();
            if fields.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", fields.join(", ")) }
        }
    }
}

/// A list of values, over several lines where one would be long.
pub fn list(items: &[Json]) -> String {
    rows(&items.iter().map(value).collect::<Vec<_>>())
}

/// A list of what is written already, over several lines where one would be long.
pub fn rows(items: &[String]) -> String {
    let short = format!("[{}]", items.join(", "));
    if items.len() < 2 && short.len() <= LINE || short.len() <= LINE / 2 {
        return short;
    }
    let lines: String = items.iter().map(|item| format!("  {item},\n")).collect();
    format!("[\n{lines}]")
}

/// Whether a value can be written as TOML and read back the same: nulls can't.
pub fn is_writable(json: &Json) -> bool {
    match json {
        Json::Null => false,
        Json::Array(items) => items.iter().all(is_writable),
        Json::Object(fields) => fields.values().all(is_writable),
        Json::Number(number) => number.as_u64().is_none_or(|number| i64::try_from(number).is_ok()),
        Json::Bool(_) | Json::String(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use toml::de::{DeTable, DeValue};

    use super::*;
    use modhost_config::table::to_json;

    fn read_back(toml: &str) -> Json {
        let table = DeTable::parse(toml).unwrap_or_else(|error| panic!("{toml}\n{error}"));
        to_json(&DeValue::Table(table.into_inner())).unwrap()["it"].clone()
    }

    #[test]
    fn what_is_written_is_read_back() {
        for it in [
            "",
            "plain",
            "\"quoted\" \\ ",
            "\nfirst line empty",
            "two\nlines\n",
            "\u{1b}[31m\u{7f}",
            "\u{9b}2J \u{202e}txt \u{feff}\u{e0041}",
            "a\r\nb",
            "\"\"\"\n",
        ] {
            assert_eq!(read_back(&format!("it = {}", text(it))), it, "{it:?}");
            assert_eq!(read_back(&format!("it = {}", line(it))), it, "{it:?}");
        }
        let it = serde_json::json!({ "a b": [1, -2.5, true, { "x": "é" }], "": {}, "long": "x".repeat(200) });
        assert_eq!(read_back(&format!("it = {}", value(&it))), it);
        let items = [it.clone(), it.clone()];
        assert_eq!(read_back(&format!("it = {}", list(&items))), serde_json::json!(items));
    }
}
