//! The metrics of tenants in the Prometheus text format.
//!
//! They are formatted here and not recorded with the crate `metrics`: its counters are integers, but CPU time is in
//! seconds, and it keeps the counters of removed tenants forever.

use std::fmt::Write;
use std::time::Duration;

use super::{ConnectionKind, TenantMeter, Totals, WAIT_BOUNDS};
use crate::import::Interface;

/// The current values of a tenant that its meter doesn't count.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gauges {
    /// The number of its running deliveries.
    pub running: u64,
    /// The number of its waiting deliveries.
    pub waiting: u64,
    /// How long the delivery that has waited longest has been due; `None` if none is due.
    pub longest_wait: Option<Duration>,
    /// The memory of its running guests, in bytes.
    pub memory: u64,
    /// The size of its records in the journal, in bytes.
    pub journal: u64,
    /// The part of it that belongs to waiting and running deliveries, in bytes.
    pub journal_unfinished: u64,
    /// The number of its connections of each kind. Its meter sets it.
    pub connections: [u64; ConnectionKind::ALL.len()],
}

impl Gauges {
    pub(super) fn with_connections(self, meter: &TenantMeter) -> Self {
        Self { connections: ConnectionKind::ALL.map(|kind| meter.connections(kind)), ..self }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.running += other.running;
        self.waiting += other.waiting;
        self.longest_wait = self.longest_wait.max(other.longest_wait);
        self.memory += other.memory;
        self.journal += other.journal;
        self.journal_unfinished += other.journal_unfinished;
        self.connections.iter_mut().zip(other.connections).for_each(|(sum, count)| *sum += count);
    }
}

/// The values of one label.
pub(super) struct Row {
    pub label: String,
    pub totals: Totals,
    pub gauges: Gauges,
}

/// Returns the metrics of these rows.
pub(super) fn format(rows: &[Row]) -> String {
    let mut text = Exposition { text: String::new(), rows };
    text.family("cpu_seconds_total", "counter", "CPU time of the tenant's modules", |sample, row| {
        sample.value("", "", seconds(row.totals.cpu()));
    });
    let help = "Time for which the tenant's modules could have continued and waited for a guest thread";
    text.family("cpu_wait_seconds_total", "counter", help, |sample, row| {
        sample.value("", "", seconds(row.totals.cpu_wait()));
    });
    text.family("memory_bytes", "gauge", "Memory of the tenant's running modules", |sample, row| {
        sample.value("", "", row.gauges.memory);
    });
    text.family("deliveries", "gauge", "Waiting and running deliveries of the tenant", |sample, row| {
        sample.value("", &pair("state", "waiting"), row.gauges.waiting);
        sample.value("", &pair("state", "running"), row.gauges.running);
    });
    let help = "How long the tenant's delivery that has waited longest has been due";
    text.family("longest_wait_seconds", "gauge", help, |sample, row| {
        sample.value("", "", seconds(row.gauges.longest_wait.unwrap_or_default()));
    });
    let help = "Time from the receipt of the tenant's events to the first attempt of their deliveries";
    text.family("delivery_wait_seconds", "histogram", help, |sample, row| {
        let mut count = 0;
        let bounds = WAIT_BOUNDS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        for (bound, in_bucket) in bounds.zip(row.totals.wait_buckets()) {
            count += in_bucket;
            sample.value("_bucket", &pair("le", &bound), count);
        }
        sample.value("_sum", "", seconds(row.totals.delivery_wait()));
        sample.value("_count", "", count);
    });
    text.family("calls_total", "counter", "Calls of the tenant's modules, by interface", |sample, row| {
        for interface in Interface::ALL {
            sample.value("", &pair("interface", interface.as_str()), row.totals.calls(interface));
        }
    });
    let help = "Connections of the tenant in use: requests whose answer is not read to its end";
    text.family("connections", "gauge", help, |sample, row| {
        for (kind, count) in ConnectionKind::ALL.into_iter().zip(row.gauges.connections) {
            sample.value("", &pair("to", kind.name()), count);
        }
    });
    text.family("journal_bytes", "gauge", "Size of the tenant's records in the journal", |sample, row| {
        let ended = row.gauges.journal.saturating_sub(row.gauges.journal_unfinished);
        sample.value("", &pair("state", "unfinished"), row.gauges.journal_unfinished);
        sample.value("", &pair("state", "ended"), ended);
    });
    text.text
}

struct Exposition<'a> {
    text: String,
    rows: &'a [Row],
}

impl Exposition<'_> {
    /// Adds a metric with the values of all rows.
    fn family(&mut self, name: &str, kind: &str, help: &str, add: impl Fn(&mut Sample<'_>, &Row)) {
        let name = format!("modhost_tenant_{name}");
        // Writing to a string can't fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for row in self.rows {
            let labels = pair("tenant", &row.label);
            add(&mut Sample { text: &mut self.text, name: &name, labels: &labels }, row);
        }
        self.text.push('\n');
    }
}

/// Writes the samples of one metric and row.
struct Sample<'a> {
    text: &'a mut String,
    name: &'a str,
    labels: &'a str,
}

impl Sample<'_> {
    /// Writes a sample. `more` is a second label, or empty.
    fn value(&mut self, suffix: &str, more: &str, value: impl std::fmt::Display) {
        let Self { name, labels, .. } = self;
        let comma = if more.is_empty() { "" } else { "," };
        let _ = writeln!(self.text, "{name}{suffix}{{{labels}{comma}{more}}} {value}");
    }
}

fn pair(label: &str, value: &str) -> String {
    let value = value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
    format!("{label}=\"{value}\"")
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::Import;

    #[test]
    fn formats_each_kind_of_metric() {
        let meter = TenantMeter::default();
        meter.add_cpu(Duration::from_millis(1250));
        meter.add_delivery_wait(Duration::from_millis(50));
        meter.add_delivery_wait(Duration::from_secs(3600));
        meter.count_call(Import::HttpHandle);
        let gauges = Gauges { waiting: 3, journal: 100, journal_unfinished: 40, ..Gauges::default() };
        let row = Row { label: "a \"b\" \\ c".into(), totals: meter.totals(), gauges };
        let text = format(&[row]);
        for line in [
            "# TYPE modhost_tenant_cpu_seconds_total counter",
            r#"modhost_tenant_cpu_seconds_total{tenant="a \"b\" \\ c"} 1.25"#,
            r#"modhost_tenant_deliveries{tenant="a \"b\" \\ c",state="waiting"} 3"#,
            r#"modhost_tenant_delivery_wait_seconds_bucket{tenant="a \"b\" \\ c",le="0.01"} 0"#,
            r#"modhost_tenant_delivery_wait_seconds_bucket{tenant="a \"b\" \\ c",le="0.1"} 1"#,
            r#"modhost_tenant_delivery_wait_seconds_bucket{tenant="a \"b\" \\ c",le="600"} 1"#,
            r#"modhost_tenant_delivery_wait_seconds_bucket{tenant="a \"b\" \\ c",le="+Inf"} 2"#,
            r#"modhost_tenant_delivery_wait_seconds_sum{tenant="a \"b\" \\ c"} 3600.05"#,
            r#"modhost_tenant_delivery_wait_seconds_count{tenant="a \"b\" \\ c"} 2"#,
            r#"modhost_tenant_calls_total{tenant="a \"b\" \\ c",interface="wasi:http"} 1"#,
            r#"modhost_tenant_journal_bytes{tenant="a \"b\" \\ c",state="ended"} 60"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
