//! Formats what tenants use as text.

use std::fmt::Write;
use std::time::Duration;

use anstyle::Style;
use bytesize::ByteSize;

use crate::commands::format_table;
use modhost_core::sanitize::line;
use modhost_server::admin_api::TenantView;

const BOLD: Style = Style::new().bold();

/// Formats a table with one line per tenant.
pub(super) fn table(tenants: &[TenantView]) -> String {
    if tenants.is_empty() {
        return "no tenants\n".into();
    }
    let rows = tenants.iter().map(|tenant| {
        [
            if tenant.configured { tenant.name.clone() } else { format!("{} (removed)", tenant.name) },
            or_dash(tenant.cpu_weight),
            tenant.running.to_string(),
            tenant.waiting.to_string(),
            tenant.longest_wait_seconds.map_or_else(|| or_dash(None::<u32>), seconds),
            seconds(tenant.cpu_seconds),
            tenant.cpu_share.map_or_else(|| or_dash(None::<u32>), percent),
            bytes(tenant.memory_bytes),
            bytes(tenant.journal_bytes),
            tenant.calls.values().sum::<u64>().to_string(),
            tenant.connections.values().sum::<u64>().to_string(),
        ]
    });
    let heading = [
        "tenant",
        "weight",
        "running",
        "waiting",
        "longest wait",
        "cpu",
        "cpu share",
        "memory",
        "journal",
        "calls",
        "connections",
    ];
    format_table(heading, rows.collect())
}

/// Formats everything about one tenant.
pub(super) fn details(tenant: &TenantView) -> String {
    let mut text = String::new();
    // Writing to a string can't fail.
    let _ = writeln!(text, "{BOLD}{}{BOLD:#}", line(&tenant.name));
    if !tenant.configured {
        text.push_str("  removed      it is not in the settings; the journal still has records of it\n");
    }
    let mut add = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<12} {value}");
    };
    let longest = tenant.longest_wait_seconds.map(|wait| format!(", the longest for {}", seconds(wait)));
    add("deliveries", format!("{} running, {} waiting{}", tenant.running, tenant.waiting, longest.unwrap_or_default()));
    let share = tenant.cpu_share.map(|share| format!(", {} of all modules", percent(share)));
    add("cpu time", format!("{} since the host started", seconds(tenant.cpu_seconds)));
    add("last minute", format!("{:.2} cores{}", tenant.cpu_cores, share.unwrap_or_default()));
    add("cpu weight", or_dash(tenant.cpu_weight));
    add("cpu wait", format!("{} waiting for a guest thread", seconds(tenant.cpu_wait_seconds)));
    add("memory", bytes(tenant.memory_bytes));
    let unfinished = bytes(tenant.journal_unfinished_bytes);
    add("journal", format!("{}, of unfinished deliveries {unfinished}", bytes(tenant.journal_bytes)));
    add("calls", counts(&tenant.calls));
    add("connections", counts(&tenant.connections));
    text
}

/// Formats counts by name, without zeros.
fn counts(counts: &std::collections::BTreeMap<String, u64>) -> String {
    let counted = counts.iter().filter(|(_, count)| **count > 0);
    let parts: Vec<String> = counted.map(|(name, count)| format!("{count} {}", line(name))).collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| value.to_string())
}

fn bytes(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

fn percent(share: f64) -> String {
    format!("{:.1}%", 100.0 * share)
}

/// Formats seconds: with milliseconds below ten seconds, as hours and minutes above a minute.
fn seconds(seconds: f64) -> String {
    let whole = || Duration::try_from_secs_f64(seconds.round()).unwrap_or(Duration::MAX);
    match seconds {
        ..10.0 => format!("{seconds:.3}s"),
        ..60.0 => format!("{seconds:.1}s"),
        _ => humantime::format_duration(whole()).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_short_and_long_times() {
        let times = [0.0, 0.0125, 9.9994, 12.34, 59.9, 61.4, 7322.0].map(seconds);
        assert_eq!(times, ["0.000s", "0.013s", "9.999s", "12.3s", "59.9s", "1m 1s", "2h 2m 2s"]);
    }
}
