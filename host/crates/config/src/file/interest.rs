//! What a `[[module]]` says of the events it wants.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value as Json;

use super::{items, name_of};
use crate::table::{Table, Value, to_json};
use modhost_core::event::interest::{Interest, NamePattern, Path};

/// The event a module wants if it doesn't say otherwise.
const DEFAULT_EVENT: &str = "unique.chat.external-module.chosen";

/// The events a module wants, and where in the file the names stand that are checked against other parts.
pub(super) struct LocatedInterest {
    pub wants: Interest,
    pub sources: Vec<Range<usize>>,
    pub tenants: Vec<Range<usize>>,
}

pub(super) fn interest(table: &Table<'_>) -> LocatedInterest {
    let events = events(table.get("events"));
    let sources = items(table.get("sources"));
    let tenants = items(table.get("tenants"));
    let assistants = items(table.get("assistants"));
    let fields = table.get("match").and_then(|value| value.table("[module.match]"));
    LocatedInterest {
        sources: sources.iter().map(Value::span).collect(),
        tenants: tenants.iter().map(Value::span).collect(),
        wants: Interest {
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
        value.wrong(
            "`events` is an empty list: the module would never run",
            format!("leave it out for \"{DEFAULT_EVENT}\""),
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
        value.wrong(
            format!("the star of \"{text}\" stands for the end of a name, and for nothing else"),
            r#"write for example "unique.chat.*""#,
        );
        return None;
    }
    Some(if is_prefix { NamePattern::Prefix(name.to_owned()) } else { NamePattern::Exact(name.to_owned()) })
}

/// Fields of the payload, each with the values it may have: one, or a list of them.
fn fields_of(table: Table<'_>) -> BTreeMap<Path, Vec<Json>> {
    let mut fields = BTreeMap::new();
    for (key, value) in table.entries() {
        let report = |(message, advice): (String, &str)| table.document.report(value.span(), message, advice);
        match to_json(value.get_ref()) {
            Ok(json) => field(key, json, &mut fields).unwrap_or_else(report),
            Err(reason) => report((format!("`{key}` can't be compared: {reason}"), "write another value")),
        }
    }
    fields
}

/// Takes in a field, or the fields of a table: TOML reads `a.b = 1` as a table `a` with a `b` in it.
fn field(key: &str, json: Json, fields: &mut BTreeMap<Path, Vec<Json>>) -> Result<(), (String, &'static str)> {
    let values = match json {
        Json::Object(inner) => {
            return inner.into_iter().try_for_each(|(name, json)| field(&format!("{key}.{name}"), json, fields));
        }
        Json::Array(values) => values,
        value => vec![value],
    };
    let path = Path::new(key).ok_or_else(|| {
        (format!("\"{key}\" leads to no field"), r#"write its keys with dots between them: "document.status""#)
    })?;
    if values.is_empty() {
        return Err((format!("`{key}` is an empty list: the module would never run"), "name the values it may have"));
    }
    if values.iter().any(|value| value.is_array() || value.is_object()) {
        let advice = r#"name the values it may have: "document.status" = ["PROCESSED", "FAILED"]"#;
        return Err((format!("`{key}` can be compared with text, numbers, true and false"), advice));
    }
    fields.insert(path, values);
    Ok(())
}
