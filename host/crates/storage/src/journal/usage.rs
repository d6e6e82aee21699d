//! What the records of each tenant take, counted alike by every engine.
//!
//! The sizes are those of the data, and a constant for each record that stands for its other columns and its index
//! entries. An answer that several calls share is counted for each of them, so that a tenant's usage doesn't depend on
//! others.

use std::collections::BTreeMap;

use modhost_core::event::{Event, Name};

use super::Call;

/// The bytes counted for an event besides its body.
const EVENT_BYTES: u64 = 256;

/// The bytes counted for the id of an event besides its text. Ids are kept longer than events.
const ID_BYTES: u64 = 128;

/// The bytes counted for a delivery besides its calls and attempts.
pub(super) const DELIVERY_BYTES: u64 = 512;

/// The bytes counted for an attempt besides its outcome and log, with the changes of the state that it causes.
pub(super) const ATTEMPT_BYTES: u64 = 256;

/// The bytes counted for a call besides its import, arguments and answer.
pub(crate) const CALL_BYTES: u64 = 64;

/// Returns the size of an event with a body of this length.
pub(crate) fn event_bytes(body: usize) -> u64 {
    EVENT_BYTES + body as u64
}

/// Returns the size of the id of an event.
pub(crate) fn id_bytes(id: &str) -> u64 {
    ID_BYTES + id.len() as u64
}

/// Returns the size of an attempt. `log` is its log as JSON.
pub(crate) fn attempt_bytes(outcome: &str, log: &str) -> u64 {
    ATTEMPT_BYTES + (outcome.len() + log.len()) as u64
}

/// Returns the size of a call.
pub(super) fn call_bytes(call: &Call) -> u64 {
    let answer = call.answer.as_ref().map_or(0, Vec::len);
    CALL_BYTES + (call.import.as_str().len() + call.arguments.len() + answer) as u64
}

/// Returns the size that recording an event with deliveries adds to the unfinished deliveries of its tenant, in bytes.
pub fn recorded_bytes(event: &Event, deliveries: usize) -> u64 {
    event_bytes(event.raw().len()) + DELIVERY_BYTES * deliveries as u64
}

/// What a tenant uses of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantUsage {
    /// The tenant.
    pub tenant: Name,
    /// Bytes of all its records.
    pub bytes: u64,
    /// Bytes of its unfinished deliveries, waiting or running.
    pub unfinished_bytes: u64,
}

/// A part of a tenant's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Unfinished deliveries, and events with an unfinished delivery.
    Unfinished,
    /// Ended deliveries, and events whose deliveries have all ended.
    Ended,
    /// The ids of events.
    Ids,
}

impl Part {
    /// Returns the part of a delivery by whether it has ended.
    pub(super) fn of_delivery(is_final: bool) -> Self {
        if is_final { Self::Ended } else { Self::Unfinished }
    }
}

/// The bytes of a tenant by [`Part`]; of a change, what it adds or removes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PartBytes([i64; 3]);

impl PartBytes {
    pub(super) fn new(unfinished: i64, ended: i64, ids: i64) -> Self {
        Self([unfinished, ended, ids])
    }

    /// Returns the bytes of a part.
    pub(super) fn get(&self, part: Part) -> i64 {
        self.0[part as usize]
    }

    /// Adds bytes to a part.
    pub(super) fn add(&mut self, part: Part, bytes: i64) {
        self.0[part as usize] += bytes;
    }

    /// Returns the bytes of unfinished deliveries.
    pub(super) fn unfinished(&self) -> u64 {
        self.get(Part::Unfinished).max(0).unsigned_abs()
    }

    /// Returns the bytes of all parts.
    pub(super) fn total(&self) -> i64 {
        self.0.iter().sum()
    }

    /// Returns the bytes with the opposite sign.
    pub(super) fn negated(self) -> Self {
        Self(self.0.map(|bytes| -bytes))
    }

    fn is_zero(&self) -> bool {
        self.0 == [0; 3]
    }
}

/// The usage of every tenant that has records.
#[derive(Clone, Debug, Default)]
pub(super) struct Usage {
    tenants: BTreeMap<Name, PartBytes>,
    /// The sum over all tenants.
    all: PartBytes,
}

impl Usage {
    /// Adds the bytes of a tenant.
    pub(super) fn add(&mut self, tenant: &Name, bytes: PartBytes) {
        let of_tenant = self.tenants.entry(tenant.clone()).or_default();
        for part in [Part::Unfinished, Part::Ended, Part::Ids] {
            of_tenant.add(part, bytes.get(part));
            self.all.add(part, bytes.get(part));
        }
        if of_tenant.is_zero() {
            self.tenants.remove(tenant);
        }
    }

    /// Returns the bytes of a tenant.
    pub(super) fn of(&self, tenant: &Name) -> PartBytes {
        self.tenants.get(tenant).copied().unwrap_or_default()
    }

    /// Returns the bytes of all tenants.
    pub(super) fn all(&self) -> PartBytes {
        self.all
    }

    /// Returns the usage of each tenant, by name.
    pub(super) fn tenants(&self) -> impl Iterator<Item = (&Name, PartBytes)> {
        self.tenants.iter().map(|(tenant, bytes)| (tenant, *bytes))
    }

    /// Returns the usage of each tenant as reported.
    pub(super) fn report(&self) -> Vec<TenantUsage> {
        let reported = self.tenants().map(|(tenant, bytes)| TenantUsage {
            tenant: tenant.clone(),
            bytes: bytes.total().max(0).unsigned_abs(),
            unfinished_bytes: bytes.unfinished(),
        });
        reported.collect()
    }

    /// Returns the tenant whose records have to be removed next, and the part to remove from; `None` if nothing has to
    /// be removed, or nothing can be. `is_too_large` says whether the journal exceeds `max`.
    ///
    /// Ended deliveries are removed from a tenant above its own limit, and, while the journal is too large, from the
    /// tenant that uses most. Ids are removed only while they take more than a quarter of a limit, because redeliveries
    /// are recognized by them. Unfinished deliveries are never removed.
    pub(super) fn next_to_remove(
        &self,
        limits: &TenantLimits,
        max: Option<u64>,
        is_too_large: bool,
    ) -> Option<(Name, Part)> {
        let ended = self.largest(limits, is_too_large, Part::Ended, |bytes, limit| bytes.total() > limit);
        let too_many_ids = max.is_some_and(|max| self.all.get(Part::Ids) > whole(max / 4));
        let ids = || self.largest(limits, too_many_ids, Part::Ids, |bytes, limit| bytes.get(Part::Ids) > limit / 4);
        ended.map(|tenant| (tenant, Part::Ended)).or_else(|| Some((ids()?, Part::Ids)))
    }

    /// Returns the tenant to remove a part from: one that is above its own limit, or else, if `from_any`, the one that
    /// uses most.
    fn largest(
        &self,
        limits: &TenantLimits,
        from_any: bool,
        part: Part,
        is_above: impl Fn(PartBytes, i64) -> bool,
    ) -> Option<Name> {
        let removable = self.tenants().filter(|(_, bytes)| bytes.get(part) > 0).filter_map(|(tenant, bytes)| {
            let is_above = limits.get(tenant).is_some_and(|limit| is_above(bytes, whole(*limit)));
            let used = if part == Part::Ids { bytes.get(part) } else { bytes.total() };
            (is_above || from_any).then_some((is_above, used, tenant))
        });
        removable.max().map(|(_, _, tenant)| tenant.clone())
    }
}

fn whole(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// The maximum size of the records of tenants that have a limit of their own, in bytes.
pub type TenantLimits = BTreeMap<Name, u64>;

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(tenants: &[(&str, [i64; 3])]) -> Usage {
        let mut usage = Usage::default();
        for (tenant, [unfinished, ended, ids]) in tenants {
            usage.add(&Name::from(*tenant), PartBytes::new(*unfinished, *ended, *ids));
        }
        usage
    }

    #[test]
    fn forgets_tenants_without_records() {
        let mut usage = usage(&[("acme", [1, 2, 3])]);
        usage.add(&"acme".into(), PartBytes::new(-1, -2, -3));
        assert_eq!(usage.report(), []);
        assert_eq!(usage.all(), PartBytes::default());
    }

    #[test]
    fn removes_from_whoever_uses_most() {
        let usage = usage(&[("busy", [90, 0, 0]), ("large", [10, 50, 20]), ("quiet", [0, 60, 5])]);
        let none = TenantLimits::new();
        assert_eq!(usage.next_to_remove(&none, Some(100), false), None);
        assert_eq!(usage.next_to_remove(&none, Some(100), true), Some(("large".into(), Part::Ended)));
        // A tenant above its own limit comes first, even if others use more.
        let limits = TenantLimits::from([("quiet".into(), 64), ("large".into(), 80), ("busy".into(), 1)]);
        assert_eq!(usage.next_to_remove(&limits, None, false), Some(("quiet".into(), Part::Ended)));
        assert_eq!(usage.next_to_remove(&limits, Some(100), true), Some(("quiet".into(), Part::Ended)));
    }

    #[test]
    fn keeps_ids_within_a_quarter_of_the_limit() {
        let usage = usage(&[("acme", [1_000, 0, 20]), ("globex", [0, 0, 30])]);
        let none = TenantLimits::new();
        assert_eq!(usage.next_to_remove(&none, Some(200), true), None, "unfinished deliveries cost no ids");
        assert_eq!(usage.next_to_remove(&none, Some(199), true), Some(("globex".into(), Part::Ids)));
        let limits = TenantLimits::from([("acme".into(), 76), ("globex".into(), 120)]);
        assert_eq!(usage.next_to_remove(&limits, None, false), Some(("acme".into(), Part::Ids)));
    }
}
