//! The row of a delivery, and its state transitions. Only this module changes the state of a delivery.

use rusqlite::{OptionalExtension, Row, params};

use super::store::Store;
use crate::journal::usage::Part;
use crate::journal::{Lease, State};
use modhost_core::event::DeliveryId;

/// The row of a delivery. Times are in milliseconds since 1970.
pub(super) struct DeliveryRow {
    pub(super) seq: i64,
    pub(super) event: i64,
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
    pub(super) owner: Option<String>,
    pub(super) lease_until: Option<i64>,
    /// The module version of the last attempt.
    pub(super) version: Option<String>,
    /// The number of recorded state changes.
    changes: i64,
}

/// The query for the deliveries that satisfy a condition, in the form that [`read_row`] reads.
macro_rules! rows_where {
    ($condition:literal) => {
        concat!(
            "SELECT seq, event, lane, chat, behind, state, attempt, earlier, due_at, timed, owner, lease_until, version, ",
            "changes FROM deliveries WHERE ",
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
        let sql = rows_where!("id = ?1 AND state = 'running' AND owner = ?2 AND attempt = ?3");
        let values = params![lease.delivery.as_str(), &*lease.owner, lease.attempt];
        self.sql(sql)?.query_row(values, read_row).optional()
    }

    /// Returns the sequence number and the lane of a delivery, if the lease is held.
    pub(super) fn leased(&self, lease: &Lease) -> rusqlite::Result<Option<(i64, i64)>> {
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
        let before = std::mem::replace(&mut row.state, state);
        let was_first = !row.blocked;
        if state != State::Running {
            row.owner = None;
            row.lease_until = None;
        }
        if state.is_final() {
            row.blocked = false;
        }
        row.changes += 1;
        self.write_row(&row, at, reason)?;
        let sql = "INSERT INTO changes (delivery, number, at, state, reason) VALUES (?1, ?2, ?3, ?4, ?5)";
        self.sql(sql)?.execute(params![row.seq, row.changes, at, state, reason])?;
        self.count(row.lane, Some(before), Some(state));
        if before.is_final() != state.is_final() {
            self.move_usage(row.seq, row.event, row.lane, Part::of_delivery(state.is_final()))?;
        }
        match &row.chat {
            Some(chat) if state.is_final() && was_first => self.release_next_of_chat(row.lane, chat),
            _ => Ok(()),
        }
    }

    fn write_row(&self, row: &DeliveryRow, at: i64, reason: Option<&str>) -> rusqlite::Result<()> {
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
            at,
            row.changes
        ];
        self.sql(sql)?.execute(values).map(drop)
    }

    /// Returns whether a chat has an unfinished delivery.
    pub(super) fn chat_is_busy(&self, lane: i64, chat: &str) -> rusqlite::Result<bool> {
        let sql = "SELECT 1 FROM deliveries WHERE lane = ?1 AND chat = ?2 AND state IN ('waiting', 'running') LIMIT 1";
        self.sql(sql)?.exists(params![lane, chat])
    }

    fn release_next_of_chat(&self, lane: i64, chat: &str) -> rusqlite::Result<()> {
        let sql = "UPDATE deliveries SET behind = 0 WHERE seq = (SELECT min(seq) FROM deliveries \
                   WHERE lane = ?1 AND chat = ?2 AND state IN ('waiting', 'running'))";
        self.sql(sql)?.execute(params![lane, chat]).map(drop)
    }
}
