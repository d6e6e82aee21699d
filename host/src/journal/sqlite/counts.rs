//! How many deliveries are in each state, by lane: kept in memory, so that asking costs nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::column::NameColumn;
use crate::event::Name;
use crate::journal::{Lane, State};

/// The counts as of the last commit. The writer changes them, anyone reads them.
pub(super) struct Counts(Mutex<BTreeMap<i64, LaneCounts>>);

struct LaneCounts {
    tenant: Name,
    module: Name,
    states: [u64; State::ALL.len()],
}

/// What a transaction changes in the counts, once it is committed.
pub(super) enum Tally {
    /// There is a new lane.
    Lane {
        /// Its id.
        id: i64,
        /// The tenant.
        tenant: Name,
        /// The module.
        module: Name,
    },
    /// A delivery of a lane came, went, or changed its state.
    Moved {
        /// The id of the lane.
        lane: i64,
        /// None if it came.
        from: Option<State>,
        /// None if it went.
        to: Option<State>,
    },
}

impl Counts {
    /// Counts what is in the tables.
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let mut lanes = BTreeMap::new();
        let mut statement = connection.prepare("SELECT id, tenant, module FROM lanes")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (NameColumn(tenant), NameColumn(module)) = (row.get(1)?, row.get(2)?);
            lanes.insert(row.get(0)?, LaneCounts { tenant, module, states: Default::default() });
        }
        let mut statement = connection.prepare("SELECT lane, state, count(*) FROM deliveries GROUP BY lane, state")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let Some(lane) = lanes.get_mut(&row.get(0)?) {
                lane.states[row.get::<_, State>(1)? as usize] = row.get::<_, i64>(2)?.unsigned_abs();
            }
        }
        Ok(Self(Mutex::new(lanes)))
    }

    /// Takes in what a transaction changed.
    pub(super) fn take_in(&self, tallies: impl Iterator<Item = Tally>) {
        let mut lanes = self.lock();
        for tally in tallies {
            match tally {
                Tally::Lane { id, tenant, module } => {
                    lanes.insert(id, LaneCounts { tenant, module, states: Default::default() });
                }
                Tally::Moved { lane, from, to } => {
                    let Some(lane) = lanes.get_mut(&lane) else { continue };
                    if let Some(from) = from {
                        lane.states[from as usize] = lane.states[from as usize].saturating_sub(1);
                    }
                    if let Some(to) = to {
                        lane.states[to as usize] += 1;
                    }
                }
            }
        }
    }

    /// The lanes there are: id, tenant, module.
    pub(super) fn ids(&self) -> Vec<(i64, Name, Name)> {
        self.lock().iter().map(|(id, lane)| (*id, lane.tenant.clone(), lane.module.clone())).collect()
    }

    /// The lanes in which deliveries wait.
    pub(super) fn waiting(&self) -> Vec<Lane> {
        let lanes = self.lock();
        let counted = lanes.values().map(|lane| Lane {
            tenant: lane.tenant.clone(),
            module: lane.module.clone(),
            waiting: lane.states[State::Waiting as usize],
        });
        counted.filter(|lane| lane.waiting > 0).collect()
    }

    /// How many deliveries are in each state, in the order of [`State::ALL`].
    pub(super) fn totals(&self) -> [u64; State::ALL.len()] {
        let mut totals = [0; State::ALL.len()];
        for lane in self.lock().values() {
            for (total, count) in totals.iter_mut().zip(lane.states) {
                *total += count;
            }
        }
        totals
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i64, LaneCounts>> {
        // Nothing in here panics half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
