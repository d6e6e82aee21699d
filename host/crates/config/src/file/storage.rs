//! Reads `[storage]`, and the name of a host among those that share it.

use std::collections::BTreeMap;

use super::items;
use crate::settings::{Shard, StorageSettings};
use crate::table::{Table, Value};
use crate::{Reference, WrittenKeys, reference};
use modhost_core::event::Name;

/// The maximum length of the name of a host.
const MAX_NAME: usize = 100;

const URL_ADVICE: &str = r#"write "env:DATABASE_URL", with DATABASE_URL=postgresql://user:password@host/database"#;

/// Reads `[storage]`, and which keys of it are in the file.
pub(super) fn storage(table: Table<'_>) -> (StorageSettings, WrittenKeys) {
    let url = table.get("url").and_then(|value| database_url(&value));
    let written_shards = table.get("shards");
    let shards = written_shards.as_ref().and_then(|value| value.table("[storage.shards]"));
    let mut known = BTreeMap::new();
    let shards = shards.iter().flat_map(Table::values);
    let shards = shards.filter_map(|value| shard(value.key, value.table("[storage.shards.NAME]")?, &mut known));
    let shards = shards.collect();
    if let Some(value) = written_shards.filter(|_| table.get("url").is_none()) {
        let message = "[storage.shards] needs `url` in [storage]: the database of all other tenants and of the modules";
        value.reject(message, URL_ADVICE);
    }
    let written = table.written();
    table.finish();
    (StorageSettings { url, shards }, written)
}

/// Reads a shard. `known` has the tenants of the shards before it, with the names of these shards.
fn shard<'d>(name: &'d str, table: Table<'d>, known: &mut BTreeMap<Name, &'d str>) -> Option<Shard> {
    let url = table.require("url", "\"env:DATABASE_URL_2\"").and_then(|value| database_url(&value));
    let tenants = table.require("tenants", "[\"acme\"]");
    let mut names = Vec::new();
    for value in items(tenants.clone()) {
        let Some(tenant) = value.text().map(Name::from) else { continue };
        match known.insert(tenant.clone(), name) {
            None => names.push(tenant),
            Some(first) => {
                let message = format!("the tenant \"{tenant}\" is in the shard \"{first}\" already");
                value.reject(message, "name each tenant once: its deliveries are in one database");
            }
        }
    }
    if let Some(tenants) = tenants.filter(Value::list_is_empty) {
        tenants.reject("a shard without tenants is never used", "name its tenants, or remove the shard");
    }
    table.finish();
    Some(Shard { name: name.to_owned(), url: url?, tenants: names })
}

/// Reads the URL of a database, or a reference to one. A password must not be in the file.
fn database_url(value: &Value<'_>) -> Option<Reference> {
    let reference = reference::read(value)?;
    let Some(text) = reference.literal() else { return Some(reference) };
    // Not read as a URL: libpq's may name several hosts.
    let Some(address) = ["postgres://", "postgresql://"].iter().find_map(|scheme| text.strip_prefix(scheme)) else {
        value
            .reject(format!("`{}` is neither a reference nor the URL of a PostgreSQL database", value.key), URL_ADVICE);
        return None;
    };
    if has_password(address) {
        let message = format!("`{}` contains a password, and secrets must not be in this file", value.key);
        value.reject(message, r#"refer to the URL: "env:DATABASE_URL", or "file:PATH""#);
        return None;
    }
    Some(reference)
}

/// Returns whether the URL of a database, without its scheme, may contain a password.
fn has_password(address: &str) -> bool {
    let user = address.rsplit_once('@').map_or("", |(user, _)| user);
    user.contains(':') || address.to_ascii_lowercase().contains("password")
}

/// Reads the name of this host.
pub(super) fn host_name(value: &Value<'_>) -> Option<String> {
    let name = value.text()?;
    let is_valid = name.len() <= MAX_NAME && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if !is_valid {
        let message = format!("`name` must have at most {MAX_NAME} letters, digits, `-`, `_` and `.`");
        value.reject(message, r#"for example "host-1""#);
        return None;
    }
    Some(name.to_owned())
}
