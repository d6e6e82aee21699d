//! Reads what a delivery may use: of a module, of a tenant, and the ceilings of the server.

use std::ops::RangeInclusive;

use crate::settings::{Ceilings, ModuleLimits, TenantLimits};
use crate::table::{Table, Value};
use modhost_core::limits::{Amounts, Limits, Resource, Unit};

/// The size of one page of WebAssembly memory, the least a module can have, in bytes.
const MIN_MEMORY: u64 = 64 << 10;

/// What a module can address with 32 bits, in bytes.
const MAX_MEMORY: u64 = 4 << 30;

/// How large a stack may be, in bytes: the least on which the calls the host itself makes into a component fit, with
/// some room to spare; and one that the pool can have once for each delivery.
const STACKS: RangeInclusive<u64> = 128 << 10..=16 << 20;

/// As many calls as the record of a delivery has room for.
const MAX_CALLS: u64 = 10_000;

/// `stack` of `[server]`.
pub(super) fn stack(value: &Value<'_>) -> Option<u64> {
    let bytes = value.size()?;
    if STACKS.contains(&bytes) {
        return Some(bytes);
    }
    value.wrong("the stack of a module's calls is between 128KiB and 16MiB", r#"write for example "1MiB""#);
    None
}

/// `[server.ceilings]`.
pub(super) fn ceilings(table: Table<'_>) -> Ceilings {
    let ceilings = Ceilings {
        delivery: amounts(&table, "[server.ceilings.http]", &Amounts::default()),
        concurrency: table.get("concurrency").and_then(|value| value.count()),
    };
    table.finish();
    ceilings
}

/// `[tenant.limits]`, which may be left out: the ceilings hold all the same.
pub(super) fn tenant(table: Option<Table<'_>>, ceilings: &Ceilings) -> TenantLimits {
    let default = TenantLimits::default();
    let default = TenantLimits { concurrency: ceilings.concurrency_below(default.concurrency), ..default };
    let Some(table) = table else { return default };
    let limits = TenantLimits {
        concurrency: concurrency(&table, ceilings).unwrap_or(default.concurrency),
        max_deliveries: table.get("max_deliveries").and_then(|value| value.count()).unwrap_or(default.max_deliveries),
        events_per_second: table.get("events_per_second").and_then(|value| value.count()),
        total_memory: table.get("total_memory").and_then(|value| value.size()),
        delivery: amounts(&table, "[tenant.limits.http]", &ceilings.delivery),
    };
    table.finish();
    limits
}

/// `[module.limits]`, which may be left out: the ceilings hold all the same.
pub(super) fn module(table: Option<Table<'_>>, ceilings: &Ceilings) -> ModuleLimits {
    let mut limits = ModuleLimits {
        delivery: Limits::of_module(&Amounts::default(), &ceilings.delivery),
        concurrency: ceilings.concurrency_below(ModuleLimits::default().concurrency),
    };
    if let Some(table) = table {
        let amounts = amounts(&table, "[module.limits.http]", &ceilings.delivery);
        limits.delivery = Limits::of_module(&amounts, &ceilings.delivery);
        limits.concurrency = concurrency(&table, ceilings).unwrap_or(limits.concurrency);
        table.finish();
    }
    limits
}

/// How many deliveries may run at once, if the table says so and may.
fn concurrency(table: &Table<'_>, ceilings: &Ceilings) -> Option<usize> {
    let value = table.get("concurrency")?;
    let count: usize = value.count()?;
    if let Some(ceiling) = ceilings.concurrency.filter(|ceiling| *ceiling < count) {
        above(&value, "concurrency", &ceiling.to_string());
        return None;
    }
    Some(count)
}

/// The amounts a table gives, none of them above these ceilings; `http` is what people call the table in it.
fn amounts(table: &Table<'_>, http: &'static str, ceilings: &Amounts) -> Amounts {
    let mut amounts = Amounts::default();
    let mut read = |value: Value<'_>, resource: Resource| {
        let Some(amount) = amount(&value, resource) else { return };
        match ceilings.get(resource).filter(|ceiling| *ceiling < amount) {
            Some(ceiling) => above(&value, resource.key(), &resource.told(ceiling)),
            None => amounts.set(resource, amount),
        }
    };
    let in_http = |resource: Resource| resource.key().strip_prefix("http.");
    for resource in Resource::ALL.into_iter().filter(|resource| in_http(*resource).is_none()) {
        if let Some(value) = table.get(resource.key()) {
            read(value, resource);
        }
    }
    if let Some(table) = table.get("http").and_then(|value| value.table(http)) {
        for (resource, key) in Resource::ALL.into_iter().filter_map(|resource| Some((resource, in_http(resource)?))) {
            if let Some(value) = table.get(key) {
                read(value, resource);
            }
        }
        table.finish();
    }
    amounts
}

fn amount(value: &Value<'_>, resource: Resource) -> Option<u64> {
    let amount = match (resource, resource.unit()) {
        // A module that may keep nothing, or send nothing but a head, is a module all the same.
        (Resource::KeyValue | Resource::HttpRequest, _) => value.size_or_zero(),
        (_, Unit::Bytes) => value.size(),
        (_, Unit::Time) => value.duration().map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
        (_, Unit::Count) => value.count(),
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

/// Reports an amount above the server's ceiling, which is told for people.
fn above(value: &Value<'_>, key: &str, ceiling: &str) {
    let message = format!("`{key}` is more than the {ceiling} of [server.ceilings]");
    value.wrong(message, format!("ask for {ceiling} at the most, or raise `{key}` in [server.ceilings]"));
}
