//! Reads what a delivery may use: of a module, of a tenant, and the ceilings of the server.

use super::http;
use crate::config::settings::{ModuleLimits, TenantLimits};
use crate::config::table::{Table, Value};
use crate::limits::{Amounts, Limits, Resource, Unit};

/// The size of one page of WebAssembly memory, the least a module can have, in bytes.
const MIN_MEMORY: u64 = 64 << 10;

/// What a module can address with 32 bits, in bytes.
const MAX_MEMORY: u64 = 4 << 30;

/// As many calls as the record of a delivery has room for.
const MAX_CALLS: u64 = 10_000;

/// `[server.ceilings]`.
pub(super) fn ceilings(table: Table<'_>) -> Amounts {
    let ceilings = amounts(&table, &Amounts::default());
    table.finish();
    ceilings
}

/// `[tenant.limits]`.
pub(super) fn tenant(table: Table<'_>, ceilings: &Amounts) -> TenantLimits {
    let default = TenantLimits::default();
    let limits = TenantLimits {
        concurrency: table.get("concurrency").and_then(|value| value.count()).unwrap_or(default.concurrency),
        max_deliveries: table.get("max_deliveries").and_then(|value| value.count()).unwrap_or(default.max_deliveries),
        events_per_second: table.get("events_per_second").and_then(|value| value.count()),
        total_memory: table.get("total_memory").and_then(|value| value.size()),
        delivery: amounts(&table, ceilings),
    };
    table.finish();
    limits
}

/// `[module.limits]`, which may be left out: the ceilings hold all the same.
pub(super) fn module(table: Option<Table<'_>>, ceilings: &Amounts) -> ModuleLimits {
    let default = ModuleLimits { delivery: Limits::of_module(&Amounts::default(), ceilings), ..Default::default() };
    let Some(table) = table else { return default };
    let limits = ModuleLimits {
        delivery: Limits::of_module(&amounts(&table, ceilings), ceilings),
        concurrency: table.get("concurrency").and_then(|value| value.count()).unwrap_or(default.concurrency),
        keyvalue: table.get("keyvalue").and_then(|value| value.size_or_zero()).unwrap_or(default.keyvalue),
        http: table
            .get("http")
            .and_then(|value| value.table("[module.limits.http]"))
            .map(http::limits)
            .unwrap_or(default.http),
    };
    table.finish();
    limits
}

/// The amounts a table gives, none of them above these ceilings.
fn amounts(table: &Table<'_>, ceilings: &Amounts) -> Amounts {
    let mut amounts = Amounts::default();
    for resource in Resource::ALL {
        let Some(value) = table.get(resource.key()) else { continue };
        let Some(amount) = amount(&value, resource) else { continue };
        match ceilings.get(resource).filter(|ceiling| *ceiling < amount) {
            Some(ceiling) => above(&value, resource, ceiling),
            None => amounts.set(resource, amount),
        }
    }
    amounts
}

fn amount(value: &Value<'_>, resource: Resource) -> Option<u64> {
    let amount = match resource.unit() {
        Unit::Bytes => value.size(),
        Unit::Time => value.duration().map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
        Unit::Count => value.count(),
    }?;
    match resource {
        Resource::Memory if !(MIN_MEMORY..=MAX_MEMORY).contains(&amount) => {
            value.wrong("a module's memory is between 64KiB and 4GiB", r#"write for example "128MiB""#);
            None
        }
        Resource::Calls if amount > MAX_CALLS => {
            let message = format!("a delivery can make {MAX_CALLS} calls at the most");
            value.wrong(message, format!("write a number up to {MAX_CALLS}"));
            None
        }
        _ => Some(amount),
    }
}

/// Reports an amount above the server's ceiling.
fn above(value: &Value<'_>, resource: Resource, ceiling: u64) {
    let (key, ceiling) = (resource.key(), resource.told(ceiling));
    let message = format!("`{key}` is more than the {ceiling} of [server.ceilings]");
    value.wrong(message, format!("ask for {ceiling} at the most, or raise `{key}` in [server.ceilings]"));
}
