//! What each tenant uses of the journal: kept in memory, and written with every transaction that changes it.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, params};

use super::column::NameColumn;
use super::delivery_row::DeliveryRow;
use super::store::Store;
use crate::journal::usage::{ATTEMPT_BYTES, CALL_BYTES, DELIVERY_BYTES, Part, PartBytes, Usage, event_bytes};
use crate::sqlite::WriteConnection;
use modhost_core::event::Name;

/// The usage of every tenant, as the writer thread sees it.
pub(super) struct TenantUsages {
    /// The usage, with the changes of the open transaction.
    usage: Usage,
    /// The changes of the open transaction.
    changes: BTreeMap<Name, PartBytes>,
    /// The tenant of each lane, also of lanes whose creation was rolled back.
    tenants: HashMap<i64, Name>,
}

impl TenantUsages {
    /// Reads the usage. `lanes` has the id of each tenant and module.
    pub(super) fn load(connection: &Connection, lanes: &HashMap<(Name, Name), i64>) -> rusqlite::Result<Self> {
        let tenants = lanes.iter().map(|((tenant, _), id)| (*id, tenant.clone())).collect();
        Ok(Self { usage: read(connection)?, changes: BTreeMap::new(), tenants })
    }

    /// Adds a lane.
    pub(super) fn add_lane(&mut self, lane: i64, tenant: &Name) {
        self.tenants.insert(lane, tenant.clone());
    }

    /// Adds bytes to a part of a tenant's records.
    pub(super) fn add(&mut self, tenant: &Name, part: Part, bytes: i64) {
        let mut change = PartBytes::default();
        change.add(part, bytes);
        self.usage.add(tenant, change);
        self.changes.entry(tenant.clone()).or_default().add(part, bytes);
    }

    /// Adds bytes to a part of the records of a lane's tenant.
    pub(super) fn add_to_lane(&mut self, lane: i64, part: Part, bytes: i64) {
        if let Some(tenant) = self.tenants.get(&lane).cloned() {
            self.add(&tenant, part, bytes);
        }
    }

    /// Returns the usage, with the changes of the open transaction.
    pub(super) fn usage(&self) -> &Usage {
        &self.usage
    }

    /// Writes the changes of the open transaction.
    pub(super) fn write(&self, connection: &WriteConnection) -> rusqlite::Result<()> {
        let sql = "INSERT INTO tenant_usage (tenant, unfinished, ended, ids) VALUES (?1, ?2, ?3, ?4) \
                   ON CONFLICT (tenant) DO UPDATE SET unfinished = unfinished + excluded.unfinished, \
                   ended = ended + excluded.ended, ids = ids + excluded.ids";
        for (tenant, change) in self.changes.iter().filter(|(_, change)| **change != PartBytes::default()) {
            let [unfinished, ended, ids] = [Part::Unfinished, Part::Ended, Part::Ids].map(|part| change.get(part));
            connection.sql(sql)?.execute(params![tenant.as_str(), unfinished, ended, ids])?;
        }
        Ok(())
    }

    /// Ends the open transaction, which was committed. Returns its changes.
    pub(super) fn commit(&mut self) -> BTreeMap<Name, PartBytes> {
        std::mem::take(&mut self.changes)
    }

    /// Undoes the changes of the open transaction, which was rolled back.
    pub(super) fn roll_back(&mut self) {
        for (tenant, change) in std::mem::take(&mut self.changes) {
            self.usage.add(&tenant, change.negated());
        }
    }
}

/// Reads the usage of every tenant.
pub(super) fn read(connection: &Connection) -> rusqlite::Result<Usage> {
    let mut usage = Usage::default();
    let mut statement = connection.prepare("SELECT tenant, unfinished, ended, ids FROM tenant_usage")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let NameColumn(tenant) = row.get(0)?;
        usage.add(&tenant, PartBytes::new(row.get(1)?, row.get(2)?, row.get(3)?));
    }
    Ok(usage)
}

impl Store {
    /// Moves the bytes of a delivery that ended or was queued again, and of its event if no other delivery of the event is
    /// unfinished. `row` is as written.
    pub(super) fn move_usage(&mut self, row: &DeliveryRow) -> rusqlite::Result<()> {
        let known = self.running.bytes(&row.id);
        let mut bytes = match known {
            Some((delivery, _)) => delivery,
            None => self.delivery_bytes(row.seq)?,
        };
        let sql = "SELECT 1 FROM deliveries WHERE event = ?1 AND single = 0 AND seq <> ?2 \
                   AND state IN ('waiting', 'running') LIMIT 1";
        if row.is_single || !self.sql(sql)?.exists([row.event, row.seq])? {
            bytes += match known {
                Some((_, event)) => event,
                None => self.event_bytes(row.event)?,
            };
        }
        let to = Part::of_delivery(row.state.is_final());
        let from = if to == Part::Ended { Part::Unfinished } else { Part::Ended };
        self.usage.add_to_lane(row.lane, from, -bytes);
        self.usage.add_to_lane(row.lane, to, bytes);
        Ok(())
    }

    /// Returns the size of an event.
    pub(super) fn event_bytes(&self, event: i64) -> rusqlite::Result<i64> {
        let sql = "SELECT length(body) FROM events WHERE number = ?1";
        let body: i64 = self.sql(sql)?.query_row([event], |row| row.get(0))?;
        Ok(event_bytes(0).cast_signed() + body)
    }

    /// Returns the size of a delivery with its calls and attempts.
    pub(super) fn delivery_bytes(&self, seq: i64) -> rusqlite::Result<i64> {
        let sql = "SELECT coalesce(sum(?2 + octet_length(outcome) + octet_length(log)), 0) FROM attempts \
                   WHERE delivery = ?1";
        let values = [seq, ATTEMPT_BYTES.cast_signed()];
        let attempts: i64 = self.sql(sql)?.query_row(values, |row| row.get(0))?;
        let sql = "SELECT coalesce(?2 + octet_length(outcome) + octet_length(log), 0) FROM deliveries WHERE seq = ?1";
        let last: i64 = self.sql(sql)?.query_row(values, |row| row.get(0))?;
        Ok(DELIVERY_BYTES.cast_signed() + self.calls_bytes(seq, 0)? + attempts + last)
    }

    /// Returns the size of the calls of a delivery from a number on.
    pub(super) fn calls_bytes(&self, seq: i64, from: u32) -> rusqlite::Result<i64> {
        let sql = "SELECT coalesce(sum(?3 + octet_length(c.import) + length(c.arguments) \
                   + coalesce(length(c.answer), length(a.answer), 0)), 0) \
                   FROM calls c LEFT JOIN large_answers a ON a.id = c.large WHERE c.delivery = ?1 AND c.number >= ?2";
        self.sql(sql)?.query_row(params![seq, from, CALL_BYTES.cast_signed()], |row| row.get(0))
    }
}
