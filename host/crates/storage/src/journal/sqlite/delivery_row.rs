//! Where a delivery stands, and how that changes: the one place where a state is written.

use rusqlite::{OptionalExtension, Row, params};

use super::store::Store;
use crate::journal::State;
use modhost_core::event::DeliveryId;

/// Where a delivery stands.
pub(super) struct DeliveryRow {
    pub(super) seq: i64,
    pub(super) event: i64,
    pub(super) lane: i64,
    /// Its chat, if the deliveries of that go one at a time.
    pub(super) chat: Option<String>,
    /// Whether another delivery of the chat comes first.
    pub(super) behind: bool,
    pub(super) state: State,
    /// How many attempts were begun.
    pub(super) attempt: u32,
    /// How many of them belong to an earlier sending.
    pub(super) earlier: u32,
    /// When it is due, and its place in the queue.
    pub(super) due_at: i64,
    /// Whether it must not run before it is due.
    pub(super) timed: bool,
    pub(super) owner: Option<String>,
    pub(super) lease_until: Option<i64>,
    /// The module version that ran last.
    pub(super) version: Option<String>,
    /// How many changes of its state are written down.
    changes: i64,
}

/// The query of the deliveries that fulfil a condition, for [`standing`].
macro_rules! standing_where {
    ($condition:literal) => {
        concat!(
            "SELECT seq, event, lane, chat, behind, state, attempt, earlier, due_at, timed, owner, lease_until, version, ",
            "changes FROM deliveries WHERE ",
            $condition
        )
    };
}

fn standing(row: &Row<'_>) -> rusqlite::Result<DeliveryRow> {
    Ok(DeliveryRow {
        seq: row.get(0)?,
        event: row.get(1)?,
        lane: row.get(2)?,
        chat: row.get(3)?,
        behind: row.get(4)?,
        state: row.get(5)?,
        attempt: row.get(6)?,
        earlier: row.get(7)?,
        due_at: row.get(8)?,
        timed: row.get(9)?,
        owner: row.get(10)?,
        lease_until: row.get(11)?,
        version: row.get(12)?,
        changes: row.get(13)?,
    })
}

impl Store {
    /// Where a delivery of this id stands; none if there is none.
    pub(super) fn standing(&self, delivery: &DeliveryId) -> rusqlite::Result<Option<DeliveryRow>> {
        self.sql(standing_where!("id = ?1"))?.query_row([delivery.as_str()], standing).optional()
    }

    /// Where the delivery with this place in the order of arrival stands.
    pub(super) fn standing_of(&self, seq: i64) -> rusqlite::Result<DeliveryRow> {
        self.sql(standing_where!("seq = ?1"))?.query_row([seq], standing)
    }

    /// Brings a delivery into a state, at a time in milliseconds and for a reason, and writes it down as it stands now.
    /// When the first of a chat ends, the next one's turn has come.
    pub(super) fn enter(
        &mut self,
        mut it: DeliveryRow,
        state: State,
        at: i64,
        reason: Option<&str>,
    ) -> rusqlite::Result<()> {
        let before = std::mem::replace(&mut it.state, state);
        let was_first = !it.behind;
        if state != State::Running {
            it.owner = None;
            it.lease_until = None;
        }
        if state.is_final() {
            it.behind = false;
        }
        it.changes += 1;
        self.write_standing(&it, at, reason)?;
        let sql = "INSERT INTO changes (delivery, number, at, state, reason) VALUES (?1, ?2, ?3, ?4, ?5)";
        self.sql(sql)?.execute(params![it.seq, it.changes, at, state, reason])?;
        self.count(it.lane, Some(before), Some(state));
        match &it.chat {
            Some(chat) if state.is_final() && was_first => self.next_of_chat(it.lane, chat),
            _ => Ok(()),
        }
    }

    fn write_standing(&self, it: &DeliveryRow, at: i64, reason: Option<&str>) -> rusqlite::Result<()> {
        let sql = "UPDATE deliveries SET behind = ?2, state = ?3, attempt = ?4, earlier = ?5, due_at = ?6, timed = ?7, \
                   owner = ?8, lease_until = ?9, version = ?10, reason = ?11, changed_at = ?12, changes = ?13 WHERE seq = ?1";
        let values = params![
            it.seq,
            it.behind,
            it.state,
            it.attempt,
            it.earlier,
            it.due_at,
            it.timed,
            it.owner,
            it.lease_until,
            it.version,
            reason,
            at,
            it.changes
        ];
        self.sql(sql)?.execute(values).map(drop)
    }

    /// Whether a delivery of this chat has not ended yet.
    pub(super) fn chat_is_busy(&self, lane: i64, chat: &str) -> rusqlite::Result<bool> {
        let sql = "SELECT 1 FROM deliveries WHERE lane = ?1 AND chat = ?2 AND state IN ('waiting', 'running') LIMIT 1";
        self.sql(sql)?.exists(params![lane, chat])
    }

    fn next_of_chat(&self, lane: i64, chat: &str) -> rusqlite::Result<()> {
        let sql = "UPDATE deliveries SET behind = 0 WHERE seq = (SELECT min(seq) FROM deliveries \
                   WHERE lane = ?1 AND chat = ?2 AND state IN ('waiting', 'running'))";
        self.sql(sql)?.execute(params![lane, chat]).map(drop)
    }
}
