//! The number of deliveries by lane and state, kept in memory so that reading it is cheap.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};

use rusqlite::Connection;

use super::column::NameColumn;
use super::tenant_usages;
use crate::journal::usage::{PartBytes, Usage};
use crate::journal::{Backlog, Lane, State, TenantUsage};
use modhost_core::event::Name;
use modhost_core::sync::lock;

/// The counts as of the last commit. The writer thread updates them; any thread can read them.
pub(super) struct Counts(Mutex<Counted>);

#[derive(Default)]
struct Counted {
    lanes: BTreeMap<i64, LaneCounts>,
    /// The number of waiting and running deliveries of each tenant that has any.
    unfinished: HashMap<Name, u64>,
    /// The sum of `unfinished`.
    all_unfinished: u64,
    usage: Usage,
}

struct LaneCounts {
    tenant: Name,
    module: Name,
    states: [u64; State::ALL.len()],
}

impl LaneCounts {
    /// Returns the number of waiting and running deliveries.
    fn unfinished(&self) -> u64 {
        self.states[State::Waiting as usize] + self.states[State::Running as usize]
    }
}

/// A change of the counts, applied when its transaction is committed.
pub(super) enum Tally {
    /// A lane was added.
    Lane {
        /// Its id.
        id: i64,
        /// The tenant.
        tenant: Name,
        /// The module.
        module: Name,
    },
    /// A delivery was added or removed, or its state changed.
    Moved {
        /// The id of the lane.
        lane: i64,
        /// The old state; `None` if the delivery was added.
        from: Option<State>,
        /// The new state; `None` if the delivery was removed.
        to: Option<State>,
    },
}

impl Counts {
    /// Counts the deliveries in the tables.
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let mut lanes = BTreeMap::new();
        let mut statement = connection.prepare("SELECT id, tenant, module FROM lanes")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (NameColumn(tenant), NameColumn(module)) = (row.get(1)?, row.get(2)?);
            lanes.insert(row.get(0)?, LaneCounts { tenant, module, states: Default::default() });
        }
        // From two small indexes, not from the table.
        let sql = "SELECT lane, state, count(*) FROM deliveries INDEXED BY deliveries_unfinished \
                   WHERE state IN ('waiting', 'running') GROUP BY lane, state \
                   UNION ALL SELECT lane, state, count(*) FROM deliveries INDEXED BY deliveries_ended \
                   WHERE state IN ('completed', 'dropped', 'dead') GROUP BY lane, state";
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let Some(lane) = lanes.get_mut(&row.get(0)?) {
                lane.states[row.get::<_, State>(1)? as usize] = row.get::<_, i64>(2)?.unsigned_abs();
            }
        }
        let mut unfinished: HashMap<Name, u64> = HashMap::new();
        for lane in lanes.values() {
            *unfinished.entry(lane.tenant.clone()).or_default() += lane.unfinished();
        }
        unfinished.retain(|_, count| *count > 0);
        let (all_unfinished, usage) = (unfinished.values().sum(), tenant_usages::read(connection)?);
        Ok(Self(Mutex::new(Counted { lanes, unfinished, all_unfinished, usage })))
    }

    /// Applies the changes of a committed transaction.
    pub(super) fn apply(&self, tallies: impl Iterator<Item = Tally>, used: BTreeMap<Name, PartBytes>) {
        let mut counted = self.lock();
        let Counted { lanes, unfinished, all_unfinished, usage } = &mut *counted;
        for (tenant, bytes) in used {
            usage.add(&tenant, bytes);
        }
        for tally in tallies {
            match tally {
                Tally::Lane { id, tenant, module } => {
                    lanes.insert(id, LaneCounts { tenant, module, states: Default::default() });
                }
                Tally::Moved { lane, from, to } => {
                    let Some(lane) = lanes.get_mut(&lane) else { continue };
                    let before = lane.unfinished();
                    if let Some(from) = from {
                        lane.states[from as usize] = lane.states[from as usize].saturating_sub(1);
                    }
                    if let Some(to) = to {
                        lane.states[to as usize] += 1;
                    }
                    let now = lane.unfinished();
                    if now != before {
                        let count = unfinished.entry(lane.tenant.clone()).or_default();
                        *count = (*count + now).saturating_sub(before);
                        *all_unfinished = (*all_unfinished + now).saturating_sub(before);
                        if *count == 0 {
                            unfinished.remove(&lane.tenant);
                        }
                    }
                }
            }
        }
    }

    /// Returns all lanes: id, tenant, module.
    pub(super) fn ids(&self) -> Vec<(i64, Name, Name)> {
        self.lock().lanes.iter().map(|(id, lane)| (*id, lane.tenant.clone(), lane.module.clone())).collect()
    }

    /// Returns the lanes with waiting deliveries: id, tenant, module.
    pub(super) fn waiting_ids(&self) -> Vec<(i64, Name, Name)> {
        let counted = self.lock();
        let waiting = counted.lanes.iter().filter(|(_, lane)| lane.states[State::Waiting as usize] > 0);
        waiting.map(|(id, lane)| (*id, lane.tenant.clone(), lane.module.clone())).collect()
    }

    /// Returns the number and size of the unfinished deliveries of the host and of a tenant.
    pub(super) fn backlog(&self, tenant: &Name) -> Backlog {
        let counted = self.lock();
        Backlog {
            host: counted.all_unfinished,
            tenant: counted.unfinished.get(tenant).copied().unwrap_or_default(),
            host_bytes: counted.usage.all().unfinished(),
            tenant_bytes: counted.usage.of(tenant).unfinished(),
        }
    }

    /// Returns what each tenant uses.
    pub(super) fn usage(&self) -> Vec<TenantUsage> {
        self.lock().usage.report()
    }

    /// Returns the lanes with waiting deliveries, and their number.
    pub(super) fn waiting(&self) -> Vec<Lane> {
        let counted = self.lock();
        let lanes = counted.lanes.values().map(|lane| Lane {
            tenant: lane.tenant.clone(),
            module: lane.module.clone(),
            waiting: lane.states[State::Waiting as usize],
        });
        lanes.filter(|lane| lane.waiting > 0).collect()
    }

    /// Returns the number of deliveries in each state, in the order of [`State::ALL`].
    pub(super) fn totals(&self) -> [u64; State::ALL.len()] {
        let mut totals = [0; State::ALL.len()];
        for lane in self.lock().lanes.values() {
            for (total, count) in totals.iter_mut().zip(lane.states) {
                *total += count;
            }
        }
        totals
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        // A poisoned lock can be used: no panic can leave the counts partly updated.
        lock(&self.0)
    }
}
