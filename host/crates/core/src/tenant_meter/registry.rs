//! The meters of all tenants, and which of them have a label of their own in metrics.
//!
//! A host may have thousands of tenants, and a metrics server pays for each label value. So only some tenants have a
//! label of their own, and the others are summed under [`OTHER`]. A counter must never decrease, or the metrics server
//! takes it for one that was reset. Therefore:
//!
//! - A tenant keeps its label until it is removed from the settings.
//! - What a tenant counted under [`OTHER`] stays there when it gets a label, or is removed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use super::exposition::{self, Gauges, Row};
use super::{TenantMeter, Totals};
use crate::event::Name;
use crate::sync::lock;

/// The label of all tenants without a label of their own.
const OTHER: &str = "other";

/// How long the meter of a removed tenant is kept: a metrics server must be able to read its last values.
const KEEP_REMOVED: Duration = Duration::from_secs(300);

/// The period over which recent CPU time is measured.
const RECENT: Duration = Duration::from_secs(60);

static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(Mutex::default);

/// Returns the meter of a tenant.
pub fn of(tenant: &Name) -> Arc<TenantMeter> {
    lock(&REGISTRY).of(tenant, Instant::now())
}

/// Sets the tenants in the settings. At most `max_labels` of them have a label of their own in metrics, in this order,
/// except that tenants that have one keep it.
pub fn configure(tenants: Vec<Name>, max_labels: usize) {
    lock(&REGISTRY).configure(tenants, max_labels, Instant::now());
}

/// Measures recent CPU times, and drops the meters of tenants that were removed some time ago. Call it every few seconds.
pub fn maintain() {
    lock(&REGISTRY).maintain(Instant::now());
}

/// Returns the label of a tenant in metrics. Before the tenants are configured, it is the name.
pub fn label(tenant: &Name) -> String {
    lock(&REGISTRY).label(tenant).to_owned()
}

/// Returns the current values of all meters.
pub fn snapshots() -> Vec<Snapshot> {
    lock(&REGISTRY).snapshots(Instant::now())
}

/// Returns the metrics of all tenants in the Prometheus text format. `gauges` has values that are not metered here.
pub fn render(gauges: &HashMap<Name, Gauges>) -> String {
    let rows = lock(&REGISTRY).rows(gauges);
    exposition::format(&rows)
}

/// The current values of a tenant's meter.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The tenant.
    pub tenant: Name,
    /// Its meter.
    pub meter: Arc<TenantMeter>,
    /// The counters.
    pub totals: Totals,
    /// The CPU time of its guests in the last minute, or since its meter exists.
    pub recent_cpu: Duration,
    /// The length of that period.
    pub recent: Duration,
}

#[derive(Default)]
struct Registry {
    meters: HashMap<Name, Entry>,
    /// The tenants in the settings, in order; `None` before they are configured.
    configured: Option<Vec<Name>>,
    max_labels: usize,
    /// The counts under [`OTHER`] of tenants that have a label now or were dropped.
    other: Totals,
}

struct Entry {
    meter: Arc<TenantMeter>,
    /// `None` if the tenant has no label of its own. Otherwise, the totals when it got the label.
    labeled: Option<Totals>,
    /// Since when the tenant is not in the settings.
    removed_at: Option<Instant>,
    /// The CPU time at some times in the last minute, and the last one before; oldest first.
    samples: VecDeque<(Instant, Duration)>,
}

impl Entry {
    fn new(removed_at: Option<Instant>, now: Instant) -> Self {
        let samples = VecDeque::from([(now, Duration::ZERO)]);
        Self { meter: Arc::default(), labeled: None, removed_at, samples }
    }
}

impl Registry {
    fn of(&mut self, tenant: &Name, now: Instant) -> Arc<TenantMeter> {
        if let Some(entry) = self.meters.get(tenant) {
            return entry.meter.clone();
        }
        let is_removed = self.configured.as_ref().is_some_and(|configured| !configured.contains(tenant));
        let entry = Entry::new(is_removed.then_some(now), now);
        let meter = entry.meter.clone();
        self.meters.insert(tenant.clone(), entry);
        meter
    }

    fn configure(&mut self, tenants: Vec<Name>, max_labels: usize, now: Instant) {
        let names: HashSet<&Name> = tenants.iter().collect();
        for (name, entry) in &mut self.meters {
            match names.contains(name) {
                true => entry.removed_at = None,
                false => _ = entry.removed_at.get_or_insert(now),
            }
        }
        for tenant in &tenants {
            self.meters.entry(tenant.clone()).or_insert_with(|| Entry::new(None, now));
        }
        self.configured = Some(tenants);
        self.max_labels = max_labels;
        self.assign_labels();
    }

    /// Gives free labels to the first tenants in the settings that have none.
    fn assign_labels(&mut self) {
        let mut free = self.max_labels.saturating_sub(self.meters.values().filter(|it| it.labeled.is_some()).count());
        for name in self.configured.iter().flatten().filter(|name| name.as_str() != OTHER) {
            if free == 0 {
                return;
            }
            if let Some(entry) = self.meters.get_mut(name).filter(|entry| entry.labeled.is_none()) {
                let totals = entry.meter.totals();
                entry.labeled = Some(totals);
                self.other.add(&totals);
                free -= 1;
            }
        }
    }

    fn maintain(&mut self, now: Instant) {
        let other = &mut self.other;
        self.meters.retain(|_, entry| {
            let keeps = entry.removed_at.is_none_or(|removed| now.duration_since(removed) < KEEP_REMOVED);
            if !keeps && entry.labeled.is_none() {
                other.add(&entry.meter.totals());
            }
            keeps
        });
        self.assign_labels();
        for entry in self.meters.values_mut() {
            entry.samples.push_back((now, entry.meter.totals().cpu()));
            // The first sample is at least as old as the period.
            while entry.samples.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= RECENT) {
                entry.samples.pop_front();
            }
        }
    }

    fn label<'a>(&self, tenant: &'a Name) -> &'a str {
        // Without a tenant, the label is empty.
        let is_own = self.configured.is_none() || tenant.as_str().is_empty();
        let is_labeled = || self.meters.get(tenant).is_some_and(|entry| entry.labeled.is_some());
        if is_own || is_labeled() { tenant.as_str() } else { OTHER }
    }

    fn snapshots(&self, now: Instant) -> Vec<Snapshot> {
        let snapshot = |(tenant, entry): (&Name, &Entry)| {
            let totals = entry.meter.totals();
            let (at, cpu) = entry.samples.front().copied().unwrap_or((now, totals.cpu()));
            Snapshot {
                tenant: tenant.clone(),
                meter: entry.meter.clone(),
                totals,
                recent_cpu: totals.cpu().saturating_sub(cpu),
                recent: now.duration_since(at),
            }
        };
        self.meters.iter().map(snapshot).collect()
    }

    /// Returns the values of each label, in the order of the labels.
    fn rows(&self, gauges: &HashMap<Name, Gauges>) -> Vec<Row> {
        let mut other = Row { label: OTHER.to_owned(), totals: self.other, gauges: Gauges::default() };
        let mut rows = Vec::new();
        for (name, entry) in &self.meters {
            let totals = entry.meter.totals();
            let gauges = gauges.get(name).copied().unwrap_or_default().with_connections(&entry.meter);
            match &entry.labeled {
                Some(before) => {
                    rows.push(Row { label: name.as_str().to_owned(), totals: totals.since(before), gauges })
                }
                None => {
                    other.totals.add(&totals);
                    other.gauges.add(&gauges);
                }
            }
        }
        // A removed tenant whose records are still in the journal.
        for (_, gauges) in gauges.iter().filter(|(name, _)| !self.meters.contains_key(*name)) {
            other.gauges.add(gauges);
        }
        rows.sort_by(|a, b| a.label.cmp(&b.label));
        if other.totals != Totals::default() || rows.len() < self.meters.len() || other.gauges != Gauges::default() {
            rows.push(other);
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::{Import, Interface};

    /// A registry with a clock that stands still.
    struct Tenants {
        registry: Registry,
        now: Instant,
    }

    impl Tenants {
        fn new(tenants: &[&str], max_labels: usize) -> Self {
            let mut all = Self { registry: Registry::default(), now: Instant::now() };
            all.configure(tenants, max_labels);
            all
        }

        fn configure(&mut self, tenants: &[&str], max_labels: usize) {
            let names = tenants.iter().map(|name| Name::from(*name)).collect();
            self.registry.configure(names, max_labels, self.now);
        }

        fn calls(&mut self, tenant: &str, calls: usize) {
            let meter = self.registry.of(&tenant.into(), self.now);
            (0..calls).for_each(|_| meter.count_call(Import::SearchSearch));
        }

        fn pass(&mut self, time: Duration) {
            self.now += time;
            self.registry.maintain(self.now);
        }

        /// The calls by label.
        fn rows(&self) -> Vec<(String, u64)> {
            let rows = self.registry.rows(&HashMap::new());
            rows.iter().map(|row| (row.label.clone(), row.totals.calls(Interface::Search))).collect()
        }
    }

    fn rows(rows: &[(&str, u64)]) -> Vec<(String, u64)> {
        rows.iter().map(|(label, calls)| ((*label).to_owned(), *calls)).collect()
    }

    #[test]
    fn first_tenants_have_labels_and_the_others_are_summed() {
        let mut tenants = Tenants::new(&["b", "a", "d", "c"], 2);
        for (tenant, calls) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
            tenants.calls(tenant, calls);
        }
        assert_eq!(tenants.rows(), rows(&[("a", 1), ("b", 2), ("other", 7)]));
        // Another order in the settings moves no label.
        tenants.configure(&["c", "d", "a", "b"], 2);
        assert_eq!(tenants.rows(), rows(&[("a", 1), ("b", 2), ("other", 7)]));
        let label = |tenant: &str| tenants.registry.label(&tenant.into()).to_owned();
        assert_eq!(["a", "c", "unknown", ""].map(label), ["a", "other", "other", ""].map(str::to_owned));
    }

    #[test]
    fn counters_never_decrease_when_labels_change() {
        let mut tenants = Tenants::new(&["a", "b", "c"], 1);
        ["a", "b", "c"].iter().for_each(|tenant| tenants.calls(tenant, 10));
        assert_eq!(tenants.rows(), rows(&[("a", 10), ("other", 20)]));
        // A tenant that gets a label counts from zero, and what it had counted stays in `other`.
        tenants.configure(&["a", "b", "c"], 2);
        assert_eq!(tenants.rows(), rows(&[("a", 10), ("b", 0), ("other", 20)]));
        tenants.calls("b", 5);
        tenants.calls("c", 1);
        assert_eq!(tenants.rows(), rows(&[("a", 10), ("b", 5), ("other", 21)]));
        // A lower number takes no label away.
        tenants.configure(&["a", "b", "c"], 1);
        assert_eq!(tenants.rows(), rows(&[("a", 10), ("b", 5), ("other", 21)]));
        // So do those of removed tenants.
        tenants.configure(&["a", "b"], 2);
        tenants.pass(KEEP_REMOVED);
        assert_eq!(tenants.rows(), rows(&[("a", 10), ("b", 5), ("other", 21)]));
    }

    #[test]
    fn label_of_removed_tenant_vanishes_after_a_while_and_is_free_again() {
        let mut tenants = Tenants::new(&["a", "b"], 1);
        tenants.calls("a", 1);
        tenants.configure(&["b"], 1);
        tenants.pass(KEEP_REMOVED / 2);
        assert_eq!(tenants.rows(), rows(&[("a", 1), ("other", 0)]));
        tenants.pass(KEEP_REMOVED / 2);
        tenants.calls("b", 1);
        assert_eq!(tenants.rows(), rows(&[("b", 1)]));
        assert_eq!(tenants.registry.meters.len(), 1);
        // A tenant that comes back in time continues to count.
        tenants.configure(&[], 1);
        tenants.pass(KEEP_REMOVED / 2);
        tenants.configure(&["b"], 1);
        tenants.pass(KEEP_REMOVED);
        assert_eq!(tenants.rows(), rows(&[("b", 1)]));
    }

    #[test]
    fn tenant_named_like_the_sum_is_part_of_it() {
        let mut tenants = Tenants::new(&["other", "a", "b"], 1);
        tenants.calls("other", 1);
        tenants.calls("b", 2);
        assert_eq!(tenants.rows(), rows(&[("a", 0), ("other", 3)]));
    }

    #[test]
    fn meters_of_unknown_tenants_are_dropped() {
        let mut tenants = Tenants::new(&["a"], 1);
        for number in 0..100 {
            tenants.calls(&format!("unknown-{number}"), 1);
        }
        tenants.pass(KEEP_REMOVED);
        assert_eq!(tenants.rows(), rows(&[("a", 0), ("other", 100)]));
        assert_eq!(tenants.registry.meters.len(), 1);
    }

    #[test]
    fn measures_the_cpu_time_of_the_last_minute() {
        let mut tenants = Tenants::new(&["a"], 1);
        let meter = tenants.registry.of(&"a".into(), tenants.now);
        let recent = |tenants: &Tenants| {
            let snapshot = tenants.registry.snapshots(tenants.now).remove(0);
            (snapshot.recent_cpu.as_secs(), snapshot.recent.as_secs())
        };
        for second in 1..=20 {
            meter.add_cpu(Duration::from_secs(1));
            tenants.pass(Duration::from_secs(5));
            assert_eq!(recent(&tenants), (second.min(12), (5 * second).min(60)));
        }
        for second in 1..=12 {
            tenants.pass(Duration::from_secs(5));
            assert_eq!(recent(&tenants), (12 - second, 60));
        }
        assert!(tenants.registry.meters.values().all(|entry| entry.samples.len() <= 13));
    }
}
