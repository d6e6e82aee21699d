//! Reads the limits of deliveries: of a module, of a tenant, and the ceilings of the server.

use std::ops::RangeInclusive;

use crate::settings::{Ceilings, ModuleLimits, TenantLimits};
use crate::table::{Table, Value};
use modhost_core::limits::{LimitAmounts, Limits, Resource, Unit};

/// The minimum memory of a module, in bytes: one page of WebAssembly memory.
const MIN_MEMORY: u64 = 64 << 10;

/// The maximum memory of a module, in bytes: what 32 bits can address.
const MAX_MEMORY: u64 = 4 << 30;

/// The allowed sizes of a stack, in bytes. The minimum is enough, with some reserve, for the calls that the host
/// itself makes into a component. The pool can reserve the maximum once for each delivery.
const STACK_SIZES: RangeInclusive<u64> = 128 << 10..=16 << 20;

/// The allowed weights of a tenant's CPU time, as for `cpu.weight` of a control group.
const CPU_WEIGHTS: RangeInclusive<u32> = 1..=10_000;

/// The maximum number of calls. The call log of a delivery has at most 20,000 entries, and a call may be preceded by an
/// entry with clock readings.
const MAX_CALLS: u64 = 10_000;

/// Reads `stack` of `[server]`.
pub(super) fn stack(value: &Value<'_>) -> Option<u64> {
    let bytes = value.size()?;
    if STACK_SIZES.contains(&bytes) {
        return Some(bytes);
    }
    value.reject("`stack` must be between 128KiB and 16MiB", r#"write, for example, "1MiB""#);
    None
}

/// Reads `[server.ceilings]`.
pub(super) fn ceilings(table: Table<'_>) -> Ceilings {
    let ceilings = Ceilings {
        delivery: amounts(&table, "[server.ceilings.http]", &LimitAmounts::default()),
        concurrency: table.get("concurrency").and_then(|value| value.count()),
    };
    table.finish();
    ceilings
}

/// Reads a size per second.
fn rate(value: &Value<'_>) -> Option<u32> {
    let bytes = value.size()?;
    let rate = u32::try_from(bytes);
    if rate.is_err() {
        value.reject("`log_rate` is too large", r#"write a size per second of at most "4095MiB""#);
    }
    rate.ok()
}

/// Reads the optional `[tenant.limits]`. The ceilings apply even without it.
pub(super) fn tenant(table: Option<Table<'_>>, ceilings: &Ceilings) -> TenantLimits {
    let default = TenantLimits::default();
    let default = TenantLimits { concurrency: ceilings.concurrency_below(default.concurrency), ..default };
    let Some(table) = table else { return default };
    let limits = TenantLimits {
        concurrency: concurrency(&table, ceilings).unwrap_or(default.concurrency),
        max_deliveries: table.get("max_deliveries").and_then(|value| value.count()).unwrap_or(default.max_deliveries),
        events_per_second: table.get("events_per_second").and_then(|value| value.count()),
        total_memory: table.get("total_memory").and_then(|value| value.size()),
        total_journal: table.get("total_journal").and_then(|value| value.size()),
        log_rate: table.get("log_rate").and_then(|value| rate(&value)).unwrap_or(default.log_rate),
        cpu_weight: table.get("cpu_weight").and_then(|value| cpu_weight(&value)).unwrap_or(default.cpu_weight),
        delivery: amounts(&table, "[tenant.limits.http]", &ceilings.delivery),
    };
    table.finish();
    limits
}

/// Reads the optional `[module.limits]`. The ceilings apply even without it.
pub(super) fn module(table: Option<Table<'_>>, ceilings: &Ceilings) -> ModuleLimits {
    let mut limits = ModuleLimits {
        delivery: Limits::of_module(&LimitAmounts::default(), &ceilings.delivery),
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

fn cpu_weight(value: &Value<'_>) -> Option<u32> {
    let weight: u32 = value.count()?;
    if CPU_WEIGHTS.contains(&weight) {
        return Some(weight);
    }
    let (min, max) = (CPU_WEIGHTS.start(), CPU_WEIGHTS.end());
    let advice = "the default is 100; a tenant with 200 gets twice the CPU time of one with 100";
    value.reject(format!("`cpu_weight` must be between {min} and {max}"), advice);
    None
}

/// Reads how many deliveries may run at once, unless that is above the ceiling.
fn concurrency(table: &Table<'_>, ceilings: &Ceilings) -> Option<usize> {
    let value = table.get("concurrency")?;
    let count: usize = value.count()?;
    if let Some(ceiling) = ceilings.concurrency.filter(|ceiling| *ceiling < count) {
        report_above_ceiling(&value, "concurrency", &ceiling.to_string());
        return None;
    }
    Some(count)
}

/// Reads the amounts of a table. An amount above its ceiling is reported and ignored. `http` is the title of the
/// nested table.
fn amounts(table: &Table<'_>, http: &'static str, ceilings: &LimitAmounts) -> LimitAmounts {
    let mut amounts = LimitAmounts::default();
    let mut read = |value: Value<'_>, resource: Resource| {
        let Some(amount) = amount(&value, resource) else { return };
        match ceilings.get(resource).filter(|ceiling| *ceiling < amount) {
            Some(ceiling) => report_above_ceiling(&value, resource.key(), &resource.format_amount(ceiling)),
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
        // 0 is valid: a module may store nothing, or send requests without a body.
        (Resource::KeyValue | Resource::HttpRequest, _) => value.size_or_zero(),
        (_, Unit::Bytes) => value.size(),
        (_, Unit::Time) => value.duration().map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
        (_, Unit::Count) => value.count(),
    }?;
    match resource {
        Resource::Memory if !(MIN_MEMORY..=MAX_MEMORY).contains(&amount) => {
            value.reject("`memory` must be between 64KiB and 4GiB", r#"write, for example, "128MiB""#);
            None
        }
        Resource::Calls if amount > MAX_CALLS => {
            let message = format!("a delivery can make at most {MAX_CALLS} calls");
            value.reject(message, format!("use a number up to {MAX_CALLS}"));
            None
        }
        _ => Some(amount),
    }
}

/// Reports an amount above the server's ceiling. `ceiling` is formatted for display.
fn report_above_ceiling(value: &Value<'_>, key: &str, ceiling: &str) {
    let message = format!("`{key}` exceeds the limit of {ceiling} in [server.ceilings]");
    value.reject(message, format!("use at most {ceiling}, or raise `{key}` in [server.ceilings]"));
}
