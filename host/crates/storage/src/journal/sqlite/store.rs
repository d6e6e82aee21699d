//! The state of the writer thread: its connection, and a cache of parts of the tables.
//!
//! The operations are methods of [`Store`], in one file per subject.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{CachedStatement, params};

use super::calls::Unwritten;
use super::checkpoint::Checkpoints;
use super::counts::{Counts, Tally};
use super::running::RunningDeliveries;
use super::tenant_usages::TenantUsages;
use crate::error::StorageError;
use crate::journal::{JournalError, State};
use crate::sqlite::{DirectoryLock, WriteConnection, WriteStore};
use modhost_core::event::{DeliveryId, Name};

/// The error of an operation of the writer.
pub(super) type Fault = crate::sqlite::Fault<JournalError>;

/// The state of the writer thread.
pub(super) struct Store {
    connection: WriteConnection,
    checkpoints: Checkpoints,
    /// Held as long as the journal may be written.
    lock: DirectoryLock,
    /// Whether the journal contains events that were recorded when the tenant was not part of an event's key yet.
    pub(super) has_v1_keys: bool,
    lanes: HashMap<(Name, Name), i64>,
    /// What each tenant uses, with the changes of the open transaction.
    pub(super) usage: TenantUsages,
    /// The largest committed id of a lane.
    last_lane: i64,
    counts: Arc<Counts>,
    /// The changes of the counts by the open transaction.
    tallies: Vec<Tally>,
    /// The sequence number of the next delivery. An event has the number of its first delivery.
    next_seq: i64,
    /// The deliveries that run, with the changes of the open transaction.
    pub(super) running: RunningDeliveries,
    /// Deliveries with a call that could not be written. See [`super::calls`].
    pub(super) unwritten: HashMap<DeliveryId, Unwritten>,
}

impl Store {
    /// Creates the store and loads its cached state from the tables.
    pub(super) fn new(
        connection: WriteConnection,
        checkpoints: Checkpoints,
        lock: DirectoryLock,
    ) -> rusqlite::Result<Self> {
        let counts = Counts::load(&connection)?;
        let lanes: HashMap<_, _> =
            counts.ids().into_iter().map(|(id, tenant, module)| ((tenant, module), id)).collect();
        let next = |sql| connection.query_row(sql, [], |row| row.get::<_, Option<i64>>(0)).map(|n| n.unwrap_or(0) + 1);
        Ok(Self {
            // Earlier versions counted events and deliveries apart.
            next_seq: next("SELECT max(number) FROM events")?.max(next("SELECT max(seq) FROM deliveries")?),
            running: RunningDeliveries::default(),
            usage: TenantUsages::load(&connection, &lanes)?,
            last_lane: lanes.values().copied().max().unwrap_or(0),
            has_v1_keys: super::record::has_v1_keys(&connection)?,
            connection,
            checkpoints,
            lock,
            lanes,
            counts: Arc::new(counts),
            tallies: Vec::new(),
            unwritten: HashMap::new(),
        })
    }

    /// Returns the number of deliveries in each state, as of the last commit.
    pub(super) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Returns a cached prepared statement.
    pub(super) fn sql(&self, sql: &str) -> rusqlite::Result<CachedStatement<'_>> {
        self.connection.sql(sql)
    }

    /// Writes a page without changing data, to test whether the journal can be written.
    pub(super) fn touch(&self) -> rusqlite::Result<()> {
        crate::sqlite::Mark::touch(&self.connection)
    }

    /// Returns the sequence number of the next delivery.
    pub(super) fn next_seq(&self) -> i64 {
        self.next_seq
    }

    /// Assigns the sequence number of the next delivery.
    pub(super) fn number_delivery(&mut self) -> i64 {
        self.next_seq += 1;
        self.next_seq - 1
    }

    /// Counts a delivery that was added or removed, or whose state changed. `from` is `None` if it was added, `to` if
    /// it was removed.
    pub(super) fn count(&mut self, lane: i64, from: Option<State>, to: Option<State>) {
        self.tallies.push(Tally::Moved { lane, from, to });
    }

    /// Returns the id of a lane; `None` if no delivery was ever recorded in it.
    pub(super) fn known_lane(&self, tenant: &Name, module: &Name) -> Option<i64> {
        self.lanes.get(&(tenant.clone(), module.clone())).copied()
    }

    /// Returns the ids of all lanes.
    pub(super) fn lane_ids(&self) -> Vec<i64> {
        self.lanes.values().copied().collect()
    }

    /// Returns the ids of a tenant's lanes.
    pub(super) fn lanes_of(&self, tenant: &Name) -> Vec<i64> {
        self.lanes.iter().filter(|((name, _), _)| name == tenant).map(|(_, id)| *id).collect()
    }

    /// Returns the id of a lane, and creates the lane if necessary.
    pub(super) fn lane(&mut self, tenant: &Name, module: &Name) -> rusqlite::Result<i64> {
        if let Some(id) = self.known_lane(tenant, module) {
            return Ok(id);
        }
        let sql = "INSERT INTO lanes (id, tenant, module) VALUES (?1, ?2, ?3)";
        let id = self.lanes.values().copied().max().unwrap_or(0) + 1;
        self.sql(sql)?.execute(params![id, tenant.as_str(), module.as_str()])?;
        self.lanes.insert((tenant.clone(), module.clone()), id);
        self.usage.add_lane(id, tenant);
        self.tallies.push(Tally::Lane { id, tenant: tenant.clone(), module: module.clone() });
        Ok(id)
    }
}

impl WriteStore for Store {
    type Error = JournalError;

    fn connection(&mut self) -> &mut WriteConnection {
        &mut self.connection
    }

    fn before_commit(&mut self) -> rusqlite::Result<()> {
        self.usage.write(&self.connection)
    }

    fn on_commit(&mut self) {
        for tally in &self.tallies {
            if let Tally::Lane { id, .. } = tally {
                self.last_lane = self.last_lane.max(*id);
            }
        }
        self.counts.apply(self.tallies.drain(..), self.usage.commit());
    }

    /// Discards the changes of the transaction. The numbers it assigned stay unused.
    fn on_rollback(&mut self) {
        self.tallies.clear();
        self.running.clear();
        self.usage.roll_back();
        let last_lane = self.last_lane;
        self.lanes.retain(|_, id| *id <= last_lane);
    }

    fn after_batch(&mut self) {
        self.checkpoints.after_commit(&self.connection);
    }

    fn close(self) -> Result<(), StorageError> {
        let Self { connection, checkpoints, lock, .. } = self;
        checkpoints.stop();
        let closed = connection.close();
        drop(lock);
        closed
    }
}
