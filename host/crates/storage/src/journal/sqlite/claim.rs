//! Leases: claiming deliveries, extending leases, and returning deliveries to the queue.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{CachedStatement, params};

use super::column::NameColumn;
use super::delivery_row::DeliveryRow;
use super::record::{StoredEvent, event_columns};
use super::running::RunningDelivery;
use super::store::Store;
use crate::journal::usage::{DELIVERY_BYTES, event_bytes};
use crate::journal::{Claim, Claimed, Heartbeat, Lease, State};
use modhost_core::clock::{from_millis, whole_millis};
use modhost_core::event::{DeliveryId, Name};

/// A claimed delivery, as stored. Its event is parsed outside the writer thread.
pub(super) struct ClaimedRow {
    lease: Lease,
    module: Name,
    event: StoredEvent,
    earlier_attempts: u32,
    calls: u32,
    interrupted: u32,
}

impl From<ClaimedRow> for Claimed {
    fn from(row: ClaimedRow) -> Self {
        let received_at = from_millis(row.event.received_at);
        Self {
            lease: row.lease,
            module: row.module,
            event: Arc::new(row.event.event()),
            earlier_attempts: row.earlier_attempts,
            received_at,
            calls: row.calls,
            interrupted: row.interrupted,
        }
    }
}

const READY: &str = "SELECT due_at, seq FROM deliveries INDEXED BY deliveries_ready \
    WHERE lane = ?1 AND state = 'waiting' AND behind = 0 AND timed = 0 ORDER BY due_at, seq LIMIT ?2";

const TIMED: &str = "SELECT due_at, seq FROM deliveries INDEXED BY deliveries_timed \
    WHERE lane = ?1 AND state = 'waiting' AND behind = 0 AND timed = 1 AND due_at <= ?3 ORDER BY due_at, seq LIMIT ?2";

/// The query for the running deliveries that satisfy a condition. It names the states as the partial index does, because
/// SQLite uses the index only then.
macro_rules! running_where {
    ($condition:literal) => {
        concat!(
            "SELECT seq FROM deliveries INDEXED BY deliveries_unfinished ",
            "WHERE state IN ('waiting', 'running') AND state = 'running' AND ",
            $condition
        )
    };
}

impl Store {
    /// Leases the due deliveries of a lane.
    pub(super) fn claim(&mut self, claim: &Claim, now: i64) -> rusqlite::Result<Vec<ClaimedRow>> {
        let Some(lane) = self.known_lane(&claim.tenant, &claim.module) else { return Ok(Vec::new()) };
        let due = self.due(lane, claim.limit, now)?;
        due.into_iter().map(|seq| self.claim_row(seq, claim, now)).collect()
    }

    /// Returns the due deliveries of a lane, longest waiting first.
    fn due(&self, lane: i64, limit: u32, now: i64) -> rusqlite::Result<Vec<i64>> {
        let pair = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let mut due: Vec<(i64, i64)> =
            self.sql(READY)?.query_map(params![lane, limit], pair)?.collect::<rusqlite::Result<_>>()?;
        for timed in self.sql(TIMED)?.query_map(params![lane, limit, now], pair)? {
            due.push(timed?);
        }
        due.sort_unstable();
        Ok(due.into_iter().map(|(_, seq)| seq).take(limit as usize).collect())
    }

    fn claim_row(&mut self, seq: i64, claim: &Claim, now: i64) -> rusqlite::Result<ClaimedRow> {
        let mut row = self.row_at(seq)?;
        self.write_change(&mut row)?;
        row.attempt += 1;
        row.owner = Some(claim.owner.to_string());
        row.lease_until = Some(now.saturating_add(whole_millis(claim.lease)));
        let claimed = self.claimed_row(&row, claim)?;
        self.unwritten.remove(&claimed.lease.delivery);
        let mut running = row.clone();
        self.transition(row, State::Running, now, None)?;
        running.state = State::Running;
        running.changed_at = now;
        running.changes += 1;
        let event_bytes = event_bytes(claimed.event.body_length()).cast_signed();
        // A delivery that was never claimed has no calls and attempts.
        let bytes = (running.changes == 1).then_some(DELIVERY_BYTES.cast_signed());
        self.running.insert(RunningDelivery { row: running, bytes, event_bytes });
        Ok(claimed)
    }

    fn claimed_row(&self, row: &DeliveryRow, claim: &Claim) -> rusqlite::Result<ClaimedRow> {
        // A delivery has no calls before its first attempt.
        let (calls, interrupted) = match row.attempt {
            ..=1 => (0, 0),
            attempt => {
                let sql = "SELECT count(*) FROM calls WHERE delivery = ?1";
                let calls = self.sql(sql)?.query_row([row.seq], |row| row.get(0))?;
                let sql = "SELECT count(*) FROM attempts WHERE delivery = ?1 AND number > ?2";
                let values = params![row.seq, row.earlier_attempts];
                let completed: u32 = self.sql(sql)?.query_row(values, |row| row.get(0))?;
                (calls, attempt.saturating_sub(row.earlier_attempts + 1).saturating_sub(completed))
            }
        };
        let sql = concat!(
            "SELECT d.id, ",
            event_columns!(),
            " FROM deliveries d JOIN events e ON e.number = d.event WHERE d.seq = ?1"
        );
        let (attempt, earlier_attempts) = (row.attempt, row.earlier_attempts);
        self.sql(sql)?.query_row([row.seq], |row| {
            let delivery = DeliveryId::from_text(row.get::<_, String>(0)?);
            Ok(ClaimedRow {
                lease: Lease { delivery, tenant: claim.tenant.clone(), owner: claim.owner.clone(), attempt },
                module: claim.module.clone(),
                event: StoredEvent::read(row, 1)?,
                earlier_attempts,
                calls,
                interrupted,
            })
        })
    }

    /// Requeues a delivery whose attempt never began, at its old position.
    pub(super) fn unclaim(&mut self, lease: &Lease, now: i64) -> rusqlite::Result<bool> {
        let Some(mut row) = self.leased_row(lease)? else { return Ok(false) };
        row.attempt = row.attempt.saturating_sub(1);
        row.has_due_time = false;
        self.transition(row, State::Waiting, now, Some("no version of its module serves"))?;
        Ok(true)
    }

    /// Extends the leases in `running`, and compares them with the leases that the owner holds.
    pub(super) fn heartbeat(
        &mut self,
        owner: &Arc<str>,
        running: &[Lease],
        lease: Duration,
        now: i64,
    ) -> rusqlite::Result<Heartbeat> {
        let until = now.saturating_add(whole_millis(lease));
        let sql = "UPDATE deliveries SET lease_until = ?4 \
                   WHERE id = ?1 AND state = 'running' AND owner = ?2 AND attempt = ?3";
        let (mut extend, mut heartbeat) = (self.sql(sql)?, Heartbeat::default());
        for lease in running {
            let held = lease.owner == *owner
                && extend.execute(params![lease.delivery.as_str(), &**owner, lease.attempt, until])? > 0;
            if !held {
                heartbeat.lost.push(lease.clone());
            }
        }
        let known: HashSet<&Lease> = running.iter().collect();
        let sql = "SELECT d.id, d.attempt, l.tenant FROM deliveries d INDEXED BY deliveries_unfinished \
                   CROSS JOIN lanes l ON l.id = d.lane \
                   WHERE d.state IN ('waiting', 'running') AND d.state = 'running' AND d.owner = ?1";
        let mut held = self.sql(sql)?;
        let mut rows = held.query([&**owner])?;
        while let Some(row) = rows.next()? {
            let delivery = DeliveryId::from_text(row.get::<_, String>(0)?);
            let NameColumn(tenant) = row.get(2)?;
            let lease = Lease { delivery, tenant, owner: owner.clone(), attempt: row.get(1)? };
            if !known.contains(&lease) {
                heartbeat.unknown.push(lease);
            }
        }
        Ok(heartbeat)
    }

    /// Requeues deliveries whose lease has expired or whose owner, the host `gone`, has stopped, at their old
    /// positions.
    pub(super) fn reclaim(&mut self, gone: Option<&str>, now: i64) -> rusqlite::Result<u64> {
        let expired = self.sql(running_where!("lease_until <= ?1"))?;
        let expired = numbers(expired, [now])?;
        let orphaned = match gone {
            Some(owner) => numbers(self.sql(running_where!("owner = ?1 AND lease_until > ?2"))?, params![owner, now])?,
            None => Vec::new(),
        };
        for (seqs, reason) in
            [(&expired, "its host did not prolong its lease"), (&orphaned, "its host stopped while it ran")]
        {
            for seq in seqs {
                let mut row = self.row_at(*seq)?;
                row.has_due_time = false;
                self.transition(row, State::Waiting, now, Some(reason))?;
            }
        }
        Ok((expired.len() + orphaned.len()) as u64)
    }
}

/// Returns the rows of a query with a single integer column.
pub(super) fn numbers(mut query: CachedStatement<'_>, values: impl rusqlite::Params) -> rusqlite::Result<Vec<i64>> {
    query.query_map(values, |row| row.get(0))?.collect()
}
