//! Writes readable TOML, for recorded tests and for `--update`.

use std::fmt::Write;

use serde_json::Value as Json;

use modhost_core::sanitize;

/// Maximum length of a line with a list, in bytes.
const MAX_LINE_LENGTH: usize = 110;

/// Returns a text as a TOML string. Texts with several lines are written between triple quotes.
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

/// Returns a text as a TOML string on one line.
pub fn line(text: &str) -> String {
    let json = serde_json::to_string(text).unwrap_or_default();
    json.chars().fold(String::with_capacity(json.len()), |mut line, c| {
        push(&mut line, c);
        line
    })
}

/// Appends a character. Invisible characters are escaped.
fn push(to: &mut String, c: char) {
    if !sanitize::is_unsafe(c) {
        return to.push(c);
    }
    _ = match u32::from(c) {
        code @ ..=0xFFFF => write!(to, "\\u{code:04X}"),
        code => write!(to, "\\U{code:08X}"),
    };
}

/// Returns a key, quoted if necessary.
pub fn key(key: &str) -> String {
    let is_bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if is_bare { key.to_owned() } else { line(key) }
}

/// Returns a value on one line. TOML has no null: fields and list items that are null are omitted.
pub fn value(json: &Json) -> String {
    match json {
        // Only outside of tables and lists.
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

/// Returns a list of values, on several lines if it is long.
pub fn list(items: &[Json]) -> String {
    rows(&items.iter().map(value).collect::<Vec<_>>())
}

/// Returns a list of values that are already TOML, on several lines if it is long.
pub fn rows(items: &[String]) -> String {
    let short = format!("[{}]", items.join(", "));
    if items.len() < 2 && short.len() <= MAX_LINE_LENGTH || short.len() <= MAX_LINE_LENGTH / 2 {
        return short;
    }
    let lines: String = items.iter().map(|item| format!("  {item},\n")).collect();
    format!("[\n{lines}]")
}

/// Returns whether TOML can represent a value. It has no null and no integers above `i64::MAX`.
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
    fn written_values_are_read_back_unchanged() {
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
