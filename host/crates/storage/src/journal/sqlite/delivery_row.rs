//! The row of a delivery, and its state transitions. Only this module changes the state of a delivery.
//!
//! A change of the state is in the row until the next one: only then a row of `changes` is written for it. Likewise an
//! attempt is in the row of its delivery while the delivery is in the state in which the attempt ended.

use std::time::SystemTime;

use rusqlite::{OptionalExtension, Row, params};

use super::store::Store;
use crate::journal::{AttemptReport, Lease, State};
use modhost_core::clock::to_millis;
use modhost_core::event::DeliveryId;

/// The row of a delivery. Times are in milliseconds since 1970.
#[derive(Clone)]
pub(super) struct DeliveryRow {
    pub(super) seq: i64,
    pub(super) id: DeliveryId,
    pub(super) event: i64,
    /// Whether it is the only delivery of its event.
    pub(super) is_single: bool,
    pub(super) lane: i64,
    /// The chat, if deliveries of the chat run one at a time.
    pub(super) chat: Option<String>,
    /// Whether an unfinished delivery of the chat comes before it.
    pub(super) blocked: bool,
    pub(super) state: State,
    /// The number of attempts that began.
    pub(super) attempt: u32,
    /// The number of attempts before the delivery was last resent.
    pub(super) earlier_attempts: u32,
    /// The due time, which also determines the position in the queue.
    pub(super) due_at: i64,
    /// Whether the delivery must not run before `due_at`.
    pub(super) has_due_time: bool,
    /// The owner of the lease or of the last attempt.
    pub(super) owner: Option<String>,
    pub(super) lease_until: Option<i64>,
    /// The module version of the last attempt.
    pub(super) version: Option<String>,
    /// When it entered its state.
    pub(super) changed_at: i64,
    /// The number of state changes.
    pub(super) changes: i64,
    /// When the attempt that the row contains was leased; `None` if it contains none.
    pub(super) leased_at: Option<i64>,
}

/// The query for the deliveries that satisfy a condition, in the form that [`read_row`] reads.
macro_rules! rows_where {
    ($condition:literal) => {
        concat!(
            "SELECT seq, event, lane, chat, behind, state, attempt, earlier, due_at, timed, owner, lease_until, version, ",
            "changes, id, single, changed_at, leased_at FROM deliveries WHERE ",
            $condition
        )
    };
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<DeliveryRow> {
    Ok(DeliveryRow {
        seq: row.get(0)?,
        event: row.get(1)?,
        lane: row.get(2)?,
        chat: row.get(3)?,
        blocked: row.get(4)?,
        state: row.get(5)?,
        attempt: row.get(6)?,
        earlier_attempts: row.get(7)?,
        due_at: row.get(8)?,
        has_due_time: row.get(9)?,
        owner: row.get(10)?,
        lease_until: row.get(11)?,
        version: row.get(12)?,
        changes: row.get(13)?,
        id: DeliveryId::from_text(row.get::<_, String>(14)?),
        is_single: row.get(15)?,
        changed_at: row.get(16)?,
        leased_at: row.get(17)?,
    })
}

impl Store {
    /// Returns the row of a delivery, if the id is known.
    pub(super) fn row(&self, delivery: &DeliveryId) -> rusqlite::Result<Option<DeliveryRow>> {
        self.sql(rows_where!("id = ?1"))?.query_row([delivery.as_str()], read_row).optional()
    }

    /// Returns the row with a sequence number.
    pub(super) fn row_at(&self, seq: i64) -> rusqlite::Result<DeliveryRow> {
        self.sql(rows_where!("seq = ?1"))?.query_row([seq], read_row)
    }

    /// Returns the row of a delivery, if the lease is held.
    pub(super) fn leased_row(&self, lease: &Lease) -> rusqlite::Result<Option<DeliveryRow>> {
        if let Some(running) = self.running.get(lease) {
            return Ok(Some(running.row.clone()));
        }
        let sql = rows_where!("id = ?1 AND state = 'running' AND owner = ?2 AND attempt = ?3");
        let values = params![lease.delivery.as_str(), &*lease.owner, lease.attempt];
        self.sql(sql)?.query_row(values, read_row).optional()
    }

    /// Returns the sequence number and the lane of a delivery, if the lease is held.
    pub(super) fn leased(&self, lease: &Lease) -> rusqlite::Result<Option<(i64, i64)>> {
        if let Some(running) = self.running.get(lease) {
            return Ok(Some((running.row.seq, running.row.lane)));
        }
        let sql =
            "SELECT seq, lane FROM deliveries WHERE id = ?1 AND state = 'running' AND owner = ?2 AND attempt = ?3";
        let values = params![lease.delivery.as_str(), &*lease.owner, lease.attempt];
        self.sql(sql)?.query_row(values, |row| Ok((row.get(0)?, row.get(1)?))).optional()
    }

    /// Moves a delivery to a state and writes its row; `at` is in milliseconds since 1970. When the first delivery of a
    /// chat ends, the next one becomes claimable.
    pub(super) fn transition(
        &mut self,
        mut row: DeliveryRow,
        state: State,
        at: i64,
        reason: Option<&str>,
    ) -> rusqlite::Result<()> {
        self.write_change(&mut row)?;
        let before = std::mem::replace(&mut row.state, state);
        let was_first = !row.blocked;
        if state != State::Running {
            row.owner = None;
            row.lease_until = None;
        }
        if state.is_final() {
            row.blocked = false;
        }
        row.changed_at = at;
        row.changes += 1;
        self.write_row(&row, reason)?;
        self.transitioned(&row, before, was_first).map(drop)
    }

    /// Moves a running delivery to the state in which its attempt ends, and writes the attempt with it. `log` is the log
    /// of the report, as JSON. Returns whether the next delivery of its chat can be claimed now.
    pub(super) fn complete(
        &mut self,
        mut row: DeliveryRow,
        state: State,
        report: &AttemptReport,
        log: &str,
        ended: SystemTime,
        reason: Option<&str>,
    ) -> rusqlite::Result<bool> {
        let sql = "UPDATE deliveries SET state = ?2, due_at = ?3, timed = ?4, lease_until = NULL, version = ?5, \
                   reason = ?6, changed_at = ?7, changes = ?8, leased_at = ?9, started = ?10, outcome = ?11, log = ?12 \
                   WHERE seq = ?1";
        let before = std::mem::replace(&mut row.state, state);
        let leased_at = std::mem::replace(&mut row.changed_at, to_millis(ended));
        row.leased_at = Some(leased_at);
        row.changes += 1;
        let started = to_millis(ended.checked_sub(report.took).unwrap_or(ended));
        let values = params![
            row.seq,
            state,
            row.due_at,
            row.has_due_time,
            report.version,
            reason,
            row.changed_at,
            row.changes,
            leased_at,
            started,
            report.outcome,
            log
        ];
        self.sql(sql)?.execute(values)?;
        // Only a delivery that isn't blocked can be claimed.
        self.transitioned(&row, before, true)
    }

    /// Updates what depends on the state of a delivery. `row` is as written; `was_first` is whether it was the first
    /// unfinished delivery of its chat. Returns whether the next one can be claimed now.
    fn transitioned(&mut self, row: &DeliveryRow, before: State, was_first: bool) -> rusqlite::Result<bool> {
        self.count(row.lane, Some(before), Some(row.state));
        if before.is_final() != row.state.is_final() {
            self.move_usage(row)?;
        }
        self.running.remove(&row.id);
        match &row.chat {
            Some(chat) if row.state.is_final() && was_first => self.release_next_of_chat(row.lane, chat),
            _ => Ok(false),
        }
    }

    /// Writes what the row says of the present state and of its attempt to rows of their own, because the state changes.
    pub(super) fn write_change(&self, row: &mut DeliveryRow) -> rusqlite::Result<()> {
        // An earlier version has written the change already.
        let sql = "INSERT INTO changes (delivery, number, at, state, reason) \
                   SELECT seq, changes, changed_at, state, reason FROM deliveries WHERE seq = ?1 ON CONFLICT DO NOTHING";
        if row.changes > 0 {
            self.sql(sql)?.execute([row.seq])?;
        }
        let Some(leased_at) = row.leased_at.take() else { return Ok(()) };
        let sql = "INSERT INTO changes (delivery, number, at, state) VALUES (?1, ?2, ?3, 'running')";
        self.sql(sql)?.execute([row.seq, row.changes - 1, leased_at])?;
        let sql = "INSERT INTO attempts (delivery, number, owner, started, ended, version, outcome, log) \
                   SELECT seq, attempt, owner, started, changed_at, version, outcome, log FROM deliveries WHERE seq = ?1";
        self.sql(sql)?.execute([row.seq])?;
        let sql = "UPDATE deliveries SET leased_at = NULL, started = NULL, outcome = NULL, log = NULL WHERE seq = ?1";
        self.sql(sql)?.execute([row.seq]).map(drop)
    }

    fn write_row(&self, row: &DeliveryRow, reason: Option<&str>) -> rusqlite::Result<()> {
        let sql = "UPDATE deliveries SET behind = ?2, state = ?3, attempt = ?4, earlier = ?5, due_at = ?6, timed = ?7, \
                   owner = ?8, lease_until = ?9, version = ?10, reason = ?11, changed_at = ?12, changes = ?13 WHERE seq = ?1";
        let values = params![
            row.seq,
            row.blocked,
            row.state,
            row.attempt,
            row.earlier_attempts,
            row.due_at,
            row.has_due_time,
            row.owner,
            row.lease_until,
            row.version,
            reason,
            row.changed_at,
            row.changes
        ];
        self.sql(sql)?.execute(values).map(drop)
    }

    /// Returns whether a chat has an unfinished delivery.
    pub(super) fn chat_is_busy(&self, lane: i64, chat: &str) -> rusqlite::Result<bool> {
        let sql = "SELECT 1 FROM deliveries WHERE lane = ?1 AND chat = ?2 AND state IN ('waiting', 'running') LIMIT 1";
        self.sql(sql)?.exists(params![lane, chat])
    }

    /// Lets the first unfinished delivery of a chat be claimed. Returns whether there is one.
    fn release_next_of_chat(&self, lane: i64, chat: &str) -> rusqlite::Result<bool> {
        let sql = "UPDATE deliveries SET behind = 0 WHERE seq = (SELECT min(seq) FROM deliveries \
                   WHERE lane = ?1 AND chat = ?2 AND state IN ('waiting', 'running'))";
        Ok(self.sql(sql)?.execute(params![lane, chat])? > 0)
    }
}
