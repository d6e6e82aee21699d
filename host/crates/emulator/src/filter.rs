//! Metadata filters in UniqueQL, the subset that applies to documents in a folder.
//!
//! A filter is `{"and": […]}`, `{"or": […]}` or `{"path": ["title"], "operator": "contains", "value": "travel"}`. The
//! names of the operators are those of `UQLOperator` in the official Python SDK.

use std::cmp::Ordering;

use serde_json::{Map, Value};

/// A parsed filter.
#[derive(Debug, PartialEq)]
pub enum Filter {
    /// All filters match.
    And(Vec<Filter>),
    /// At least one filter matches.
    Or(Vec<Filter>),
    /// Compares the metadata value at a path.
    Compare(Vec<String>, Operator, Value),
}

/// The comparison of a metadata value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operator {
    /// Equal.
    Equals,
    /// Greater or less, optionally or equal.
    Orders(Ordering, OrEqual),
    /// The value is in a list.
    In,
    /// A string contains a substring, ignoring case, or a list contains an element.
    Contains,
    /// Two lists have a common element.
    Overlaps,
    /// The value is missing or null.
    IsNull,
    /// The value is missing, null or empty.
    IsEmpty,
    /// The negation of an operator.
    Not(&'static Operator),
}

/// Whether equal values satisfy an ordering.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OrEqual {
    /// Equal values match.
    Yes,
    /// Equal values don't match.
    No,
}

impl Filter {
    /// Parses a filter. The error says what is unsupported or invalid.
    pub fn read(filter: &Map<String, Value>) -> Result<Self, String> {
        let list = |key: &str| filter.get(key).map(|parts| read_all(key, parts)).transpose();
        if let Some(parts) = list("and")? {
            return Ok(Self::And(parts));
        }
        if let Some(parts) = list("or")? {
            return Ok(Self::Or(parts));
        }
        let path =
            filter.get("path").and_then(Value::as_array).ok_or("a filter needs \"and\", \"or\" or a list \"path\"")?;
        let path: Option<Vec<_>> = path.iter().map(|part| part.as_str().map(str::to_owned)).collect();
        let path = path.ok_or("the parts of a filter's \"path\" must be strings")?;
        if path.iter().any(|part| part == "*") {
            return Err("the local platform doesn't support \"*\" in a filter's \"path\"".to_owned());
        }
        let name =
            filter.get("operator").and_then(Value::as_str).ok_or("a filter with a \"path\" needs an \"operator\"")?;
        let operator =
            Operator::named(name).ok_or_else(|| format!("the local platform has no filter operator {name:?}"))?;
        Ok(Self::Compare(path, operator, filter.get("value").cloned().unwrap_or(Value::Null)))
    }

    /// Returns whether content with this metadata matches.
    pub fn passes(&self, metadata: &Value) -> bool {
        match self {
            Self::And(parts) => parts.iter().all(|part| part.passes(metadata)),
            Self::Or(parts) => parts.iter().any(|part| part.passes(metadata)),
            Self::Compare(path, operator, value) => {
                let found = path.iter().try_fold(metadata, |at, part| at.get(part)).unwrap_or(&Value::Null);
                operator.holds(found, value)
            }
        }
    }
}

fn read_all(key: &str, parts: &Value) -> Result<Vec<Filter>, String> {
    let parts = parts.as_array().ok_or_else(|| format!("{key:?} of a filter must be a list of filters"))?;
    let read = |part: &Value| {
        part.as_object().ok_or_else(|| format!("{key:?} of a filter must be a list of filters")).and_then(Filter::read)
    };
    parts.iter().map(read).collect()
}

impl Operator {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "equals" => Self::Equals,
            "notEquals" => Self::Not(&Self::Equals),
            "greaterThan" => Self::Orders(Ordering::Greater, OrEqual::No),
            "greaterThanOrEqual" => Self::Orders(Ordering::Greater, OrEqual::Yes),
            "lessThan" => Self::Orders(Ordering::Less, OrEqual::No),
            "lessThanOrEqual" => Self::Orders(Ordering::Less, OrEqual::Yes),
            "in" => Self::In,
            "notIn" => Self::Not(&Self::In),
            "contains" => Self::Contains,
            "notContains" => Self::Not(&Self::Contains),
            "overlaps" => Self::Overlaps,
            "notOverlaps" => Self::Not(&Self::Overlaps),
            "isNull" => Self::IsNull,
            "isNotNull" => Self::Not(&Self::IsNull),
            "isEmpty" => Self::IsEmpty,
            "isNotEmpty" => Self::Not(&Self::IsEmpty),
            _ => return None,
        })
    }

    fn holds(self, found: &Value, value: &Value) -> bool {
        match self {
            Self::Not(operator) => !operator.holds(found, value),
            Self::Equals => found == value,
            Self::Orders(wanted, or_equal) => match order(found, value) {
                Some(Ordering::Equal) => or_equal == OrEqual::Yes,
                ordering => ordering == Some(wanted),
            },
            Self::In => value.as_array().is_some_and(|values| values.contains(found)),
            Self::Contains => match (found, value) {
                (Value::String(found), Value::String(value)) => found.to_lowercase().contains(&value.to_lowercase()),
                (Value::Array(found), value) => found.contains(value),
                _ => false,
            },
            Self::Overlaps => match (found, value) {
                (Value::Array(found), Value::Array(values)) => found.iter().any(|found| values.contains(found)),
                _ => false,
            },
            Self::IsNull => found.is_null(),
            Self::IsEmpty => match found {
                Value::Null => true,
                Value::String(text) => text.is_empty(),
                Value::Array(values) => values.is_empty(),
                Value::Object(fields) => fields.is_empty(),
                _ => false,
            },
        }
    }
}

fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn passes(filter: Value) -> bool {
        let metadata = json!({ "title": "Travel policy", "year": 2026, "tags": ["hr", "money"], "note": "" });
        Filter::read(filter.as_object().unwrap()).unwrap().passes(&metadata)
    }

    fn compare(path: &str, operator: &str, value: Value) -> Value {
        json!({ "path": [path], "operator": operator, "value": value })
    }

    #[test]
    fn every_operator_accepts_and_rejects() {
        for (operator, path, yes, no) in [
            ("equals", "year", json!(2026), json!(2025)),
            ("notEquals", "year", json!(2025), json!(2026)),
            ("greaterThan", "year", json!(2025), json!(2026)),
            ("greaterThanOrEqual", "year", json!(2026), json!(2027)),
            ("lessThan", "year", json!(2027), json!(2026)),
            ("lessThanOrEqual", "year", json!(2026), json!(2025)),
            ("in", "year", json!([2025, 2026]), json!([2025])),
            ("notIn", "year", json!([2025]), json!([2026])),
            ("contains", "title", json!("travel"), json!("leave")),
            ("notContains", "tags", json!("it"), json!("hr")),
            ("overlaps", "tags", json!(["hr"]), json!(["it"])),
            ("notOverlaps", "tags", json!(["it"]), json!(["hr"])),
        ] {
            assert!(passes(compare(path, operator, yes)), "{operator}");
            assert!(!passes(compare(path, operator, no)), "{operator}");
        }
        for (operator, yes, no) in [
            ("isNull", "none", "note"),
            ("isNotNull", "note", "none"),
            ("isEmpty", "note", "title"),
            ("isNotEmpty", "tags", "note"),
        ] {
            assert!(passes(compare(yes, operator, Value::Null)), "{operator}");
            assert!(!passes(compare(no, operator, Value::Null)), "{operator}");
        }
    }

    #[test]
    fn filters_combine() {
        let (yes, no) = (compare("year", "equals", json!(2026)), compare("year", "equals", json!(1)));
        assert!(passes(json!({ "or": [no, yes] })));
        assert!(!passes(json!({ "and": [no, { "or": [yes] }] })));
    }

    #[test]
    fn errors_name_what_is_unsupported() {
        for (filter, words) in [
            (json!({ "path": ["a", "*"], "operator": "nested", "value": {} }), "\"*\""),
            (json!({ "path": ["a"], "operator": "nested", "value": {} }), "\"nested\""),
            (json!({ "and": {} }), "list of filters"),
            (json!({}), "\"path\""),
        ] {
            let error = Filter::read(filter.as_object().unwrap()).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
