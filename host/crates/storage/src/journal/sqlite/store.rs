//! What the writer works on: the connection that writes, and what it knows about what is in the tables.
//!
//! The operations themselves are methods of [`Store`] too, one file a subject.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::counts::{Counts, Tally};
use crate::journal::{JournalError, State};
use crate::sqlite::{Database, Mark};
use modhost_core::event::{DeliveryId, Name};

/// The tables, in the hands of the one thread that writes.
pub(super) struct Store {
    connection: Connection,
    pub(super) database: Database,
    /// Whether events are known that a version recorded to which the tenant didn't belong to what an event is known by.
    pub(super) knows_before: bool,
    lanes: HashMap<(Name, Name), i64>,
    /// The largest id of a lane that is on disk.
    last_lane: i64,
    counts: Arc<Counts>,
    /// What the open transaction changes in the counts.
    tallies: Vec<Tally>,
    /// How many rows the connection had changed when the open transaction began.
    changed_before: u64,
    /// The high-water mark beside the file.
    mark: Mark,
    /// The number the next event gets.
    next_event: i64,
    /// The place in the order of arrival the next delivery gets.
    next_seq: i64,
    /// Deliveries with a call that couldn't be written: the call's number, and why. See [`super::calls`].
    pub(super) unwritten: HashMap<DeliveryId, (u32, JournalError)>,
}

impl Store {
    /// Looks at what is in the tables.
    pub(super) fn new(connection: Connection, database: Database, mark: Mark) -> rusqlite::Result<Self> {
        let counts = Counts::load(&connection)?;
        let lanes: HashMap<_, _> =
            counts.ids().into_iter().map(|(id, tenant, module)| ((tenant, module), id)).collect();
        let next = |sql| connection.query_row(sql, [], |row| row.get::<_, Option<i64>>(0)).map(|n| n.unwrap_or(0) + 1);
        Ok(Self {
            next_event: next("SELECT max(number) FROM events")?,
            next_seq: next("SELECT max(seq) FROM deliveries")?,
            last_lane: lanes.values().copied().max().unwrap_or(0),
            knows_before: super::record::knows_before(&connection)?,
            changed_before: connection.total_changes(),
            mark,
            connection,
            database,
            lanes,
            counts: Arc::new(counts),
            tallies: Vec::new(),
            unwritten: HashMap::new(),
        })
    }

    /// The connection that writes.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Gives the connection back, to be closed.
    pub(super) fn into_connection(self) -> Connection {
        self.connection
    }

    /// How many deliveries are in each state, as of the last commit.
    pub(super) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// A statement, prepared once.
    pub(super) fn sql(&self, sql: &str) -> rusqlite::Result<CachedStatement<'_>> {
        self.connection.prepare_cached(sql)
    }

    pub(super) fn begin(&mut self) -> rusqlite::Result<()> {
        self.changed_before = self.connection.total_changes();
        self.sql("BEGIN IMMEDIATE")?.execute([]).map(drop)
    }

    /// Commits what was done since `begin`; it is on disk when this returns. Answers whether anything was written.
    pub(super) fn commit(&mut self) -> rusqlite::Result<bool> {
        let written = self.connection.total_changes() > self.changed_before;
        if written {
            self.mark.count(&self.connection)?;
        }
        self.sql("COMMIT")?.execute([])?;
        if written {
            self.mark.raise();
        }
        for tally in &self.tallies {
            if let Tally::Lane { id, .. } = tally {
                self.last_lane = self.last_lane.max(*id);
            }
        }
        self.counts.take_in(self.tallies.drain(..));
        Ok(written)
    }

    /// Writes something that changes nothing: what can be committed then, an event could be, too.
    pub(super) fn touch(&self) -> rusqlite::Result<()> {
        Mark::touch(&self.connection)
    }

    /// Takes back what was done since `begin`. What stays is only a gap in the numbers.
    pub(super) fn roll_back(&mut self) {
        self.tallies.clear();
        let last_lane = self.last_lane;
        self.lanes.retain(|_, id| *id <= last_lane);
        // After some failures SQLite has rolled back already.
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::debug!(%error, "rolling the journal back failed");
        }
    }

    /// The number of the next event.
    pub(super) fn number_event(&mut self) -> i64 {
        self.next_event += 1;
        self.next_event - 1
    }

    /// The place of the next delivery in the order of arrival.
    pub(super) fn number_delivery(&mut self) -> i64 {
        self.next_seq += 1;
        self.next_seq - 1
    }

    /// A delivery of a lane came, went, or changed its state.
    pub(super) fn count(&mut self, lane: i64, from: Option<State>, to: Option<State>) {
        self.tallies.push(Tally::Moved { lane, from, to });
    }

    /// The id of a lane, if there ever was a delivery in it.
    pub(super) fn known_lane(&self, tenant: &Name, module: &Name) -> Option<i64> {
        self.lanes.get(&(tenant.clone(), module.clone())).copied()
    }

    /// The id of a lane, made if need be.
    pub(super) fn lane(&mut self, tenant: &Name, module: &Name) -> rusqlite::Result<i64> {
        if let Some(id) = self.known_lane(tenant, module) {
            return Ok(id);
        }
        let sql = "INSERT INTO lanes (id, tenant, module) VALUES (?1, ?2, ?3)";
        let id = self.lanes.values().copied().max().unwrap_or(0) + 1;
        self.sql(sql)?.execute(params![id, tenant.as_str(), module.as_str()])?;
        self.lanes.insert((tenant.clone(), module.clone()), id);
        self.tallies.push(Tally::Lane { id, tenant: tenant.clone(), module: module.clone() });
        Ok(id)
    }

    /// Where a delivery of this id stands in the order of arrival.
    pub(super) fn seq(&self, delivery: &DeliveryId) -> rusqlite::Result<Option<i64>> {
        let sql = "SELECT seq FROM deliveries WHERE id = ?1";
        self.sql(sql)?.query_row([delivery.as_str()], |row| row.get(0)).optional()
    }
}
