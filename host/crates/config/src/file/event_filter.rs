//! Reads which events a `[[module]]` handles.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value as Json;

use super::{items, name_of};
use crate::table::{Table, Value, to_json};
use modhost_core::event::event_filter::{EventFilter, NamePattern, Path};

/// The event that a module handles by default.
const DEFAULT_EVENT: &str = "unique.chat.external-module.chosen";

/// The events that a module handles, and the spans of the names that are checked against other parts.
pub(super) struct LocatedEventFilter {
    pub wants: EventFilter,
    pub sources: Vec<Range<usize>>,
    pub tenants: Vec<Range<usize>>,
}

pub(super) fn event_filter(table: &Table<'_>) -> LocatedEventFilter {
    let events = events(table.get("events"));
    let sources = items(table.get("sources"));
    let tenants = items(table.get("tenants"));
    let assistants = items(table.get("assistants"));
    let fields = table.get("match").and_then(|value| value.table("[module.match]"));
    LocatedEventFilter {
        sources: sources.iter().map(Value::span).collect(),
        tenants: tenants.iter().map(Value::span).collect(),
        wants: EventFilter {
            events,
            sources: sources.into_iter().map(|value| name_of(Some(value))).collect(),
            tenants: tenants.into_iter().map(|value| name_of(Some(value))).collect(),
            assistants: assistants.iter().filter_map(|value| value.text().map(str::to_owned)).collect(),
            fields: fields.map(fields_of).unwrap_or_default(),
        },
    }
}

fn events(value: Option<Value<'_>>) -> Vec<NamePattern> {
    let Some(value) = value else {
        return vec![NamePattern::Exact(DEFAULT_EVENT.into())];
    };
    if value.list_is_empty() {
        value.reject(
            "`events` is empty: the module would never run",
            format!("remove it to use the default, \"{DEFAULT_EVENT}\""),
        );
    }
    items(Some(value)).iter().filter_map(pattern).collect()
}

fn pattern(value: &Value<'_>) -> Option<NamePattern> {
    let text = value.text()?;
    let (name, is_prefix) = match text.strip_suffix('*') {
        Some(prefix) => (prefix, true),
        None => (text, false),
    };
    if name.contains('*') {
        value.reject(
            format!("`*` is only allowed at the end of a name, unlike in \"{text}\""),
            r#"write, for example, "unique.chat.*""#,
        );
        return None;
    }
    Some(if is_prefix { NamePattern::Prefix(name.to_owned()) } else { NamePattern::Exact(name.to_owned()) })
}

/// Reads fields of the payload, each with its allowed values: one, or an array of them.
fn fields_of(table: Table<'_>) -> BTreeMap<Path, Vec<Json>> {
    let mut fields = BTreeMap::new();
    for (key, value) in table.entries() {
        let report = |(message, advice): (String, &str)| table.document.report(value.span(), message, advice);
        match to_json(value.get_ref()) {
            Ok(json) => field(key, json, &mut fields).unwrap_or_else(report),
            Err(reason) => report((format!("`{key}` cannot be compared: {reason}"), "use another value")),
        }
    }
    fields
}

/// Adds a field, or the fields of a table: TOML parses `a.b = 1` as a table `a` that contains `b`.
fn field(key: &str, json: Json, fields: &mut BTreeMap<Path, Vec<Json>>) -> Result<(), (String, &'static str)> {
    let values = match json {
        Json::Object(inner) => {
            return inner.into_iter().try_for_each(|(name, json)| field(&format!("{key}.{name}"), json, fields));
        }
        Json::Array(values) => values,
        value => vec![value],
    };
    let path = Path::new(key).ok_or_else(|| {
        (format!("\"{key}\" is not a path to a field"), r#"separate the keys with single dots: "document.status""#)
    })?;
    if values.is_empty() {
        return Err((format!("`{key}` is empty: the module would never run"), "list the allowed values"));
    }
    if values.iter().any(|value| value.is_array() || value.is_object()) {
        let advice = r#"list the allowed values: "document.status" = ["PROCESSED", "FAILED"]"#;
        return Err((format!("`{key}` can only be compared with strings, numbers and booleans"), advice));
    }
    fields.insert(path, values);
    Ok(())
}
