//! Matchers for texts and values: equal, or containing something.

use serde_json::{Map, Value as Json};

use modhost_config::table::Value;

/// A condition on a text.
#[derive(Clone, Debug, PartialEq)]
pub enum Matcher {
    /// The text equals this.
    Equals(String),
    /// The text contains all of these.
    Contains(Vec<String>),
    /// The text matches this pattern, in which `*` stands for any text.
    Pattern(String),
}

/// The meaning of a text without a table around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BareText {
    /// The whole text.
    Whole,
    /// A part of the text.
    Part,
}

const ADVICE: &str = "write the text in quotes, or { contains = \"…\" }, or { matches = \"… * …\" }";

impl Matcher {
    /// Reads a matcher: a text, or a table with one of `is`, `contains` and `matches`.
    pub(super) fn read(value: &Value<'_>, bare_text: BareText) -> Option<Self> {
        if value.is_text() {
            let text = value.any_text()?.to_owned();
            return Some(match bare_text {
                BareText::Whole => Self::Equals(text),
                BareText::Part => Self::Contains(vec![text]),
            });
        }
        if !value.is_table() {
            value.reject(format!("`{}` must be a text or a table that describes one", value.key), ADVICE);
            return None;
        }
        let table = value.table("a matcher")?;
        let is = table.get("is").and_then(|value| value.any_text().map(|text| Self::Equals(text.to_owned())));
        let contains = table.get("contains").and_then(|value| texts(&value).map(Self::Contains));
        let matches = table.get("matches").and_then(|value| value.text().map(|text| Self::Pattern(text.to_owned())));
        let keys = table.entries().count();
        // Unknown keys and invalid values are reported separately.
        if keys != 1 {
            value.reject("this requires exactly one of `is`, `contains` and `matches`", ADVICE);
            table.allow_unknown_keys();
        }
        table.finish();
        [is, contains, matches].into_iter().flatten().next().filter(|_| keys == 1)
    }

    /// Returns whether a text meets the condition.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Equals(whole) => whole == text,
            Self::Contains(parts) => parts.iter().all(|part| text.contains(part)),
            Self::Pattern(pattern) => matches_pattern(pattern, text),
        }
    }

    /// Describes the expected text.
    pub fn describe(&self) -> String {
        match self {
            Self::Equals(whole) => whole.clone(),
            Self::Contains(parts) => {
                let parts: Vec<_> = parts.iter().map(|part| format!("{part:?}")).collect();
                format!("a text that contains {}", parts.join(" and "))
            }
            Self::Pattern(pattern) => format!("a text that matches {pattern:?}"),
        }
    }
}

fn texts(value: &Value<'_>) -> Option<Vec<String>> {
    if value.is_list() {
        return Some(value.list()?.iter().filter_map(|item| item.text().map(str::to_owned)).collect());
    }
    value.text().map(|text| vec![text.to_owned()])
}

/// Returns whether a text matches a pattern, in which `*` stands for any text.
fn matches_pattern(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Returns whether a value meets an expectation: an object has the expected fields, a list has equal items, and a text matches a
/// table with `contains` or `matches`. Numbers are compared by value.
pub(super) fn meets(value: &Json, expected: &Json) -> bool {
    match (expected, value) {
        (Json::Object(expected), Json::String(text)) => {
            matcher_from_json(expected).is_some_and(|matcher| matcher.matches(text))
        }
        (Json::Object(expected), Json::Object(fields)) => {
            expected.iter().all(|(key, expected)| meets(fields.get(key).unwrap_or(&Json::Null), expected))
        }
        (Json::Array(expected), Json::Array(items)) => {
            expected.len() == items.len() && expected.iter().zip(items).all(|(expected, item)| meets(item, expected))
        }
        (Json::Number(expected), Json::Number(number)) => expected == number || expected.as_f64() == number.as_f64(),
        _ => value == expected,
    }
}

/// Returns only the parts of a value that an expectation mentions, for comparison with it.
pub(super) fn relevant_part(value: &Json, expected: &Json) -> Json {
    match (expected, value) {
        (Json::Object(_), Json::String(_)) if meets(value, expected) => expected.clone(),
        (Json::Object(expected), Json::Object(fields)) => {
            let named = expected.iter().filter_map(|(key, expected)| {
                let value = fields.get(key)?;
                Some((key.clone(), relevant_part(value, expected)))
            });
            Json::Object(named.collect())
        }
        (Json::Array(expected), Json::Array(items)) if expected.len() == items.len() => {
            Json::Array(expected.iter().zip(items).map(|(expected, item)| relevant_part(item, expected)).collect())
        }
        _ if meets(value, expected) => expected.clone(),
        _ => value.clone(),
    }
}

fn matcher_from_json(table: &Map<String, Json>) -> Option<Matcher> {
    let (key, value) = table.iter().next().filter(|_| table.len() == 1)?;
    let text = |value: &Json| value.as_str().map(str::to_owned);
    match key.as_str() {
        "is" => text(value).map(Matcher::Equals),
        "matches" => text(value).map(Matcher::Pattern),
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
    fn star_matches_any_text() {
        for (pattern, text) in [("*", ""), ("a*", "a"), ("Found * documents", "Found 3 documents"), ("a*b*a", "abba")] {
            assert!(matches_pattern(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("", "a"), ("a", "ab"), ("a*a", "a"), ("*b*b", "ab"), ("Found * documents", "Found 3")]
        {
            assert!(!matches_pattern(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn compares_only_the_expected_parts() {
        let value = json!({ "text": "travel policy", "limit": 3, "scopes": [], "more": { "a": 1, "b": null } });
        assert!(meets(&value, &json!({ "limit": 3.0, "more": { "a": 1 } })));
        assert!(meets(&value, &json!({ "text": { "contains": ["travel", "policy"] } })));
        assert!(!meets(&value, &json!({ "text": { "contains": "leave" } })));
        assert!(!meets(&value, &json!({ "scopes": [1] })));
        assert!(!meets(&value, &json!({ "missing": 1 })));
        let shown = relevant_part(&value, &json!({ "limit": 4, "text": { "matches": "travel*" } }));
        assert_eq!(shown, json!({ "limit": 3, "text": { "matches": "travel*" } }));
    }
}
