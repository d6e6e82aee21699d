//! The uniform rows that statements of the journal return, and the parts that statements have in common.
//!
//! A statement that changes the journal returns rows of different kinds: its own results, and the counts that it changed. All
//! have the columns `kind, name, n, t, body`.
//!
//! Where a statement finds deliveries by id or event, it compares `state || ''`: the planner would use an index by state otherwise
//! if the statistics say that hardly any delivery is waiting or running, which was true when they were taken.

use super::cache::Cache;
use super::schema::STORE;
use crate::error::StorageError;
use crate::postgres::{Failure, Row as SqlRow};

/// A row of a result: a kind, and values whose meaning depends on it.
pub(super) struct Row {
    pub(super) kind: i32,
    pub(super) name: Option<String>,
    pub(super) n: Vec<Option<i64>>,
    pub(super) t: Vec<Option<String>>,
    pub(super) body: Option<Vec<u8>>,
}

impl Row {
    /// Reads a row.
    pub(super) fn read(row: &SqlRow) -> Result<Self, Failure> {
        let read = || -> Result<Self, tokio_postgres::Error> {
            Ok(Self {
                kind: row.try_get(0)?,
                name: row.try_get(1)?,
                n: row.try_get::<_, Option<_>>(2)?.unwrap_or_default(),
                t: row.try_get::<_, Option<_>>(3)?.unwrap_or_default(),
                body: row.try_get(4)?,
            })
        };
        read().map_err(|error| {
            Failure::Refused(StorageError::broken(STORE, format!("PostgreSQL returned an unexpected row: {error}")))
        })
    }

    /// Returns a number; 0 if it is null.
    pub(super) fn number(&self, index: usize) -> i64 {
        self.n.get(index).copied().flatten().unwrap_or_default()
    }

    /// Returns a text, if it is not null.
    pub(super) fn text(&self, index: usize) -> Option<&str> {
        self.t.get(index)?.as_deref()
    }
}

/// A row of `lanes`: `n` is the id, `t` tenant and module.
pub(super) const LANE: i32 = 0;
/// A changed row of `counts`: `n` is lane, slot, the five counts, version.
pub(super) const COUNTS: i32 = 1;
/// A changed row of `tenant_usage`: `name` is the tenant, `n` slot, unfinished, ended, ids, version.
pub(super) const USAGE: i32 = 2;
/// The first kind that statements use for their own results.
pub(super) const RESULT: i32 = 3;

/// Reads the rows of a result: updates the counts, and returns the other rows.
pub(super) fn read(rows: &[SqlRow], cache: &Cache) -> Result<Vec<Row>, Failure> {
    let mut results = Vec::new();
    let mut counts = Vec::new();
    for row in rows {
        let row = Row::read(row)?;
        if row.kind < RESULT { counts.push(row) } else { results.push(row) }
    }
    cache.apply(&counts);
    Ok(results)
}

/// The current time in milliseconds since 1970. Parameter 1 of each statement is the time if a test sets it, and null
/// otherwise.
macro_rules! now {
    () => {
        "coalesce($1::bigint, floor(extract(epoch FROM statement_timestamp()) * 1000)::bigint)"
    };
}
pub(super) use now;

/// The end of a `WITH` clause that has the tables `moved (lane, waiting, running, completed, dead, dropped)` and `spent (tenant,
/// unfinished, ended, ids)`: adds them to the counts of slot `$2`. The table `tallied` has the changed rows.
macro_rules! tallied {
    () => {
        "counted AS (
            INSERT INTO counts AS c (lane, slot, waiting, running, completed, dead, dropped, version)
            SELECT lane, $2::integer, sum(waiting)::bigint, sum(running)::bigint, sum(completed)::bigint, sum(dead)::bigint,
                   sum(dropped)::bigint, 1
            FROM moved GROUP BY lane ORDER BY lane
            ON CONFLICT (lane, slot) DO UPDATE SET waiting = c.waiting + excluded.waiting,
                running = c.running + excluded.running, completed = c.completed + excluded.completed,
                dead = c.dead + excluded.dead, dropped = c.dropped + excluded.dropped, version = c.version + 1
            RETURNING lane, slot, waiting, running, completed, dead, dropped, version
        ), used AS (
            INSERT INTO tenant_usage AS u (tenant, slot, unfinished, ended, ids, version)
            SELECT tenant, $2::integer, sum(unfinished)::bigint, sum(ended)::bigint, sum(ids)::bigint, 1
            FROM spent GROUP BY tenant ORDER BY tenant
            ON CONFLICT (tenant, slot) DO UPDATE SET unfinished = u.unfinished + excluded.unfinished,
                ended = u.ended + excluded.ended, ids = u.ids + excluded.ids, version = u.version + 1
            RETURNING tenant, slot, unfinished, ended, ids, version
        ), tallied (kind, name, n, t, body) AS (
            SELECT 1, NULL::text, ARRAY[lane, slot, waiting, running, completed, dead, dropped, version]::bigint[], NULL::text[],
                   NULL::bytea
            FROM counted
            UNION ALL
            SELECT 2, tenant, ARRAY[slot, unfinished, ended, ids, version]::bigint[], NULL, NULL FROM used
        )"
    };
}
pub(super) use tallied;

/// The columns of an event `e` in the array `n` of a row, from an index on; see [`super::claim::read_event`].
macro_rules! event_numbers {
    () => {
        "e.received_at, e.created_at, e.payload_start, e.payload_length"
    };
}
pub(super) use event_numbers;

/// The columns of an event `e` in the array `t` of a row.
macro_rules! event_texts {
    () => {
        "e.source, e.id, e.name, e.tenant, e.user_id, e.company_id"
    };
}
pub(super) use event_texts;

/// Replaces NUL characters, which PostgreSQL can't store in text. For text that only people read.
pub(super) fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Begins an escape sequence of [`escape`].
const ESCAPE: char = '\u{1a}';

/// Returns the text of an event as stored: a signed event may contain NUL characters, and modules get them back.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\0' => escaped.extend([ESCAPE, '0']),
            ESCAPE => escaped.extend([ESCAPE, '1']),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Returns the text of an event from what [`escape`] returned.
pub(super) fn unescape(stored: &str) -> String {
    let mut text = String::with_capacity(stored.len());
    let mut rest = stored.chars();
    while let Some(character) = rest.next() {
        match (character, rest.as_str().chars().next()) {
            (ESCAPE, Some('0')) => text.push('\0'),
            (ESCAPE, Some('1')) => text.push(ESCAPE),
            (other, _) => {
                text.push(other);
                continue;
            }
        }
        rest.next();
    }
    text
}
