//! What a text or a value should be like: equal, or with something in it.

use serde_json::{Map, Value as Json};

use modhost_config::table::Value;

/// What a text should be like.
#[derive(Clone, Debug, PartialEq)]
pub enum Matcher {
    /// Exactly this.
    Is(String),
    /// All of these are in it.
    Contains(Vec<String>),
    /// It is this, where each `*` stands for any text.
    Matches(String),
}

/// How a text alone, without a table around it, is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plain {
    /// Exactly this.
    Whole,
    /// It is in it.
    Part,
}

const ADVICE: &str = "write the text in quotes, or { contains = \"…\" }, or { matches = \"… * …\" }";

impl Matcher {
    /// Reads one: a text, or a table with one of `is`, `contains` and `matches`.
    pub(super) fn read(value: &Value<'_>, plain: Plain) -> Option<Self> {
        if value.is_text() {
            let text = value.any_text()?.to_owned();
            return Some(match plain {
                Plain::Whole => Self::Is(text),
                Plain::Part => Self::Contains(vec![text]),
            });
        }
        if !value.is_table() {
            value.wrong(format!("`{}` should say what the text is", value.key), ADVICE);
            return None;
        }
        let table = value.table("this")?;
        let is = table.get("is").and_then(|value| value.any_text().map(|text| Self::Is(text.to_owned())));
        let contains = table.get("contains").and_then(|value| texts(&value).map(Self::Contains));
        let matches = table.get("matches").and_then(|value| value.text().map(|text| Self::Matches(text.to_owned())));
        let keys = table.entries().count();
        // What is wrong with another key, or with a value, is told by itself.
        if keys != 1 {
            value.wrong("this wants one of is, contains and matches, and nothing else", ADVICE);
            table.know_all();
        }
        table.finish();
        [is, contains, matches].into_iter().flatten().next().filter(|_| keys == 1)
    }

    /// Whether a text is like it.
    pub fn fits(&self, text: &str) -> bool {
        match self {
            Self::Is(whole) => whole == text,
            Self::Contains(parts) => parts.iter().all(|part| text.contains(part)),
            Self::Matches(pattern) => matches(pattern, text),
        }
    }

    /// What it wants, in words.
    pub fn told(&self) -> String {
        match self {
            Self::Is(whole) => whole.clone(),
            Self::Contains(parts) => {
                let parts: Vec<_> = parts.iter().map(|part| format!("{part:?}")).collect();
                format!("a text with {} in it", parts.join(" and "))
            }
            Self::Matches(pattern) => format!("a text like {pattern:?}"),
        }
    }
}

fn texts(value: &Value<'_>) -> Option<Vec<String>> {
    if value.is_list() {
        return Some(value.list()?.iter().filter_map(|item| item.text().map(str::to_owned)).collect());
    }
    value.text().map(|text| vec![text.to_owned()])
}

/// Whether a text is as the pattern says, each `*` of which is any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Whether a value has what is expected of it: of an object the fields that are named, of a list all items, of a text
/// what a table with `contains` or `matches` says. Numbers are equal if they count the same.
pub(super) fn has(value: &Json, expected: &Json) -> bool {
    match (expected, value) {
        (Json::Object(wanted), Json::String(text)) => like(wanted).is_some_and(|matcher| matcher.fits(text)),
        (Json::Object(wanted), Json::Object(fields)) => {
            wanted.iter().all(|(key, wanted)| has(fields.get(key).unwrap_or(&Json::Null), wanted))
        }
        (Json::Array(wanted), Json::Array(items)) => {
            wanted.len() == items.len() && wanted.iter().zip(items).all(|(wanted, item)| has(item, wanted))
        }
        (Json::Number(wanted), Json::Number(number)) => wanted == number || wanted.as_f64() == number.as_f64(),
        _ => value == expected,
    }
}

/// A value with only what is expected of it, to be held beside that.
pub(super) fn as_expected(value: &Json, expected: &Json) -> Json {
    match (expected, value) {
        (Json::Object(_), Json::String(_)) if has(value, expected) => expected.clone(),
        (Json::Object(wanted), Json::Object(fields)) => {
            let named = wanted.iter().filter_map(|(key, wanted)| {
                let value = fields.get(key)?;
                Some((key.clone(), as_expected(value, wanted)))
            });
            Json::Object(named.collect())
        }
        (Json::Array(wanted), Json::Array(items)) if wanted.len() == items.len() => {
            Json::Array(wanted.iter().zip(items).map(|(wanted, item)| as_expected(item, wanted)).collect())
        }
        _ if has(value, expected) => expected.clone(),
        _ => value.clone(),
    }
}

fn like(table: &Map<String, Json>) -> Option<Matcher> {
    let (key, value) = table.iter().next().filter(|_| table.len() == 1)?;
    let text = |value: &Json| value.as_str().map(str::to_owned);
    match key.as_str() {
        "is" => text(value).map(Matcher::Is),
        "matches" => text(value).map(Matcher::Matches),
        "contains" => match value {
            Json::Array(parts) => parts.iter().map(text).collect::<Option<_>>().map(Matcher::Contains),
            part => Some(Matcher::Contains(vec![text(part)?])),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_star_is_any_text() {
        for (pattern, text) in [("*", ""), ("a*", "a"), ("Found * documents", "Found 3 documents"), ("a*b*a", "abba")] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("", "a"), ("a", "ab"), ("a*a", "a"), ("*b*b", "ab"), ("Found * documents", "Found 3")]
        {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn only_what_is_written_is_compared() {
        let value = json!({ "text": "travel policy", "limit": 3, "scopes": [], "more": { "a": 1, "b": null } });
        assert!(has(&value, &json!({ "limit": 3.0, "more": { "a": 1 } })));
        assert!(has(&value, &json!({ "text": { "contains": ["travel", "policy"] } })));
        assert!(!has(&value, &json!({ "text": { "contains": "leave" } })));
        assert!(!has(&value, &json!({ "scopes": [1] })));
        assert!(!has(&value, &json!({ "missing": 1 })));
        let shown = as_expected(&value, &json!({ "limit": 4, "text": { "matches": "travel*" } }));
        assert_eq!(shown, json!({ "limit": 3, "text": { "matches": "travel*" } }));
    }
}
