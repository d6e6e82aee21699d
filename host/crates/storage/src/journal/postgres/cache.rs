//! The number and size of deliveries, kept in memory so that reading them is cheap.
//!
//! Each row of `counts` and `tenant_usage` has a version. The host's own operations return the rows they changed, and a poll
//! reads all of them; whichever has the higher version is the newer one. So what this host committed is in the cache by the
//! time the operation returns, and what others committed by the next poll.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use super::rows::{COUNTS, LANE, Row, USAGE};
use crate::journal::usage::{PartBytes, Usage};
use crate::journal::{Backlog, Lane, State, TenantUsage};
use modhost_core::event::Name;
use modhost_core::sync::lock;

/// The number of deliveries in each state, in the order of [`State::ALL`].
type StateCounts = [i64; State::ALL.len()];

/// The counts as of the last operations and the last poll.
#[derive(Default)]
pub(super) struct Cache(Mutex<Cached>);

#[derive(Default)]
struct Cached {
    lanes: BTreeMap<i64, LaneCounts>,
    ids: HashMap<(Name, Name), i64>,
    /// The rows of `counts` by lane and slot, each with its version.
    counts: HashMap<(i64, i64), (i64, StateCounts)>,
    /// The rows of `tenant_usage` by tenant and slot, each with its version.
    usages: HashMap<(Name, i64), (i64, PartBytes)>,
    usage: Usage,
    /// The number of waiting and running deliveries of each tenant.
    unfinished: HashMap<Name, i64>,
    all_unfinished: i64,
    /// Whether counts of an unknown lane were ignored.
    has_unknown: bool,
}

struct LaneCounts {
    tenant: Name,
    module: Name,
    states: StateCounts,
}

impl Cache {
    /// Applies rows that an operation or a poll returned. Counts of an unknown lane are ignored: the poll that brings the lane
    /// brings its counts as well.
    pub(super) fn apply(&self, rows: &[Row]) {
        let mut cached = lock(&self.0);
        rows.iter().for_each(|row| cached.apply(row));
    }

    /// Returns whether counts of an unknown lane were ignored since the last call.
    pub(super) fn take_unknown(&self) -> bool {
        std::mem::take(&mut lock(&self.0).has_unknown)
    }

    /// Returns the id of a lane, if it is known here.
    pub(super) fn lane(&self, tenant: &Name, module: &Name) -> Option<i64> {
        lock(&self.0).ids.get(&(tenant.clone(), module.clone())).copied()
    }

    /// Returns tenant and module of a lane.
    pub(super) fn names(&self, lane: i64) -> Option<(Name, Name)> {
        lock(&self.0).lanes.get(&lane).map(|lane| (lane.tenant.clone(), lane.module.clone()))
    }

    /// Returns the number and size of the unfinished deliveries of all hosts and of a tenant.
    pub(super) fn backlog(&self, tenant: &Name) -> Backlog {
        let cached = lock(&self.0);
        Backlog {
            host: count(cached.all_unfinished),
            tenant: count(cached.unfinished.get(tenant).copied().unwrap_or_default()),
            host_bytes: cached.usage.all().unfinished(),
            tenant_bytes: cached.usage.of(tenant).unfinished(),
        }
    }

    /// Returns what each tenant uses.
    pub(super) fn usage(&self) -> Vec<TenantUsage> {
        lock(&self.0).usage.report()
    }

    /// Returns the lanes with waiting deliveries, and their number.
    pub(super) fn waiting(&self) -> Vec<Lane> {
        let cached = lock(&self.0);
        let lanes = cached.lanes.values().map(|lane| Lane {
            tenant: lane.tenant.clone(),
            module: lane.module.clone(),
            waiting: count(lane.states[State::Waiting as usize]),
        });
        lanes.filter(|lane| lane.waiting > 0).collect()
    }

    /// Returns the ids of the lanes with waiting deliveries.
    pub(super) fn waiting_ids(&self) -> Vec<i64> {
        let cached = lock(&self.0);
        let waiting = cached.lanes.iter().filter(|(_, lane)| lane.states[State::Waiting as usize] > 0);
        waiting.map(|(id, _)| *id).collect()
    }

    /// Returns the number of deliveries in each state, in the order of [`State::ALL`].
    pub(super) fn totals(&self) -> [u64; State::ALL.len()] {
        let mut totals: StateCounts = Default::default();
        for lane in lock(&self.0).lanes.values() {
            totals.iter_mut().zip(lane.states).for_each(|(total, count)| *total += count);
        }
        totals.map(count)
    }
}

/// A sum over slots; a slot alone may be negative.
fn count(sum: i64) -> u64 {
    sum.max(0).unsigned_abs()
}

impl Cached {
    fn apply(&mut self, row: &Row) {
        match row.kind {
            LANE => {
                let (Some(tenant), Some(module)) = (row.text(0), row.text(1)) else { return };
                let (tenant, module) = (Name::from(tenant), Name::from(module));
                self.ids.insert((tenant.clone(), module.clone()), row.number(0));
                let empty = || LaneCounts { tenant, module, states: Default::default() };
                self.lanes.entry(row.number(0)).or_insert_with(empty);
            }
            COUNTS => {
                let (id, version) = (row.number(0), row.number(7));
                let Some(lane) = self.lanes.get_mut(&id) else {
                    self.has_unknown = true;
                    return;
                };
                let known = self.counts.entry((id, row.number(1))).or_default();
                if known.0 >= version {
                    return;
                }
                let unfinished =
                    |states: &StateCounts| states[State::Waiting as usize] + states[State::Running as usize];
                let before = unfinished(&lane.states);
                let new: StateCounts = std::array::from_fn(|state| row.number(2 + state));
                for (state, total) in lane.states.iter_mut().enumerate() {
                    *total += new[state] - known.1[state];
                }
                *known = (version, new);
                let added = unfinished(&lane.states) - before;
                *self.unfinished.entry(lane.tenant.clone()).or_default() += added;
                self.all_unfinished += added;
            }
            USAGE => {
                let Some(tenant) = row.name.as_deref().map(Name::from) else { return };
                let (slot, version) = (row.number(0), row.number(4));
                let known = self.usages.entry((tenant.clone(), slot)).or_default();
                if known.0 >= version {
                    return;
                }
                let new = PartBytes::new(row.number(1), row.number(2), row.number(3));
                let before = std::mem::replace(known, (version, new)).1;
                self.usage.add(&tenant, before.negated());
                self.usage.add(&tenant, new);
            }
            _ => {}
        }
    }
}
