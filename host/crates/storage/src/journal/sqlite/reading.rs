//! Queries that run concurrently with the writer: lists, the history of a delivery, its calls.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::column::NameColumn;
use super::record::{StoredEvent, event_columns};
use crate::journal::{Attempt, Call, Change, Details, Due, Filter, LogLine, State, Summary};
use modhost_core::clock::{from_millis, to_millis};
use modhost_core::event::{DeliveryId, Name};

/// The columns of a delivery `d`, its event `e` and its lane `l`, for [`summary`].
macro_rules! summary_columns {
    () => {
        "d.id, e.id, e.name, e.source, l.tenant, l.module, d.state, d.reason, d.attempt, d.version, e.received_at, \
         d.changed_at, d.due_at"
    };
}

/// The number of [`summary_columns!`].
const SUMMARY_COLUMNS: usize = 13;

/// Maximum number of deliveries in a state for which collecting and sorting them all is faster than scanning from the
/// newest.
const MAX_SORTED: u64 = 10_000;

fn summary(row: &Row<'_>) -> rusqlite::Result<Summary> {
    let (NameColumn(source), NameColumn(tenant), NameColumn(module)) = (row.get(3)?, row.get(4)?, row.get(5)?);
    let state = row.get(6)?;
    Ok(Summary {
        id: DeliveryId::from_text(row.get::<_, String>(0)?),
        event_id: row.get(1)?,
        event_name: row.get(2)?,
        source,
        tenant,
        module,
        state,
        reason: row.get(7)?,
        attempts: row.get(8)?,
        version: row.get(9)?,
        received_at: from_millis(row.get(10)?),
        changed_at: from_millis(row.get(11)?),
        due_at: if state == State::Waiting { Some(from_millis(row.get(12)?)) } else { None },
    })
}

/// Returns deliveries, newest first. `totals` is the number of deliveries in each state.
pub(super) fn list(
    connection: &Connection,
    filter: &Filter,
    totals: [u64; State::ALL.len()],
) -> rusqlite::Result<Vec<Summary>> {
    let mut from = "deliveries d CROSS JOIN events e ON e.number = d.event CROSS JOIN lanes l ON l.id = d.lane";
    let mut conditions = vec!["1"];
    let mut values: Vec<Value> = Vec::new();
    let mut want = |condition, value: Value| {
        conditions.push(condition);
        values.push(value);
    };
    if let Some(state) = filter.state {
        want("d.state = ?", state.name().to_owned().into());
        if totals[state as usize] <= MAX_SORTED {
            from = if state.is_final() { FROM_ENDED } else { FROM_UNFINISHED };
        }
    }
    if let Some(event) = &filter.event {
        let seqs = serde_json::to_string(&of_event(connection, event)?).unwrap_or_default();
        want("d.seq IN (SELECT value FROM json_each(?))", seqs.into());
        from = "deliveries d CROSS JOIN events e ON e.number = d.event CROSS JOIN lanes l ON l.id = d.lane";
    }
    if let Some(module) = &filter.module {
        want("l.module = ?", module.as_str().to_owned().into());
    }
    if let Some(tenant) = &filter.tenant {
        want("l.tenant = ?", tenant.as_str().to_owned().into());
    }
    if let Some(since) = filter.since {
        want("max(d.changed_at, e.received_at) >= ?", to_millis(since).into());
    }
    let sql = format!(
        "SELECT {} FROM {from} WHERE {} ORDER BY d.seq DESC LIMIT {}",
        summary_columns!(),
        conditions.join(" AND "),
        filter.limit.map_or(-1, i64::from)
    );
    connection.prepare_cached(&sql)?.query_map(params_from_iter(values), summary)?.collect()
}

/// The tables of a list of few waiting or running deliveries.
const FROM_UNFINISHED: &str = "deliveries d INDEXED BY deliveries_unfinished \
    CROSS JOIN events e ON e.number = d.event AND d.state IN ('waiting', 'running') CROSS JOIN lanes l ON l.id = d.lane";

/// The tables of a list of few deliveries in a final state.
const FROM_ENDED: &str = "lanes l CROSS JOIN deliveries d INDEXED BY deliveries_ended \
    ON d.lane = l.id AND d.state IN ('completed', 'dropped', 'dead') CROSS JOIN events e ON e.number = d.event";

/// Returns the sequence numbers of the deliveries of an event by its id. The tables that contain event ids depend on the
/// version of the schema, because an offline journal is read without migrating it.
fn of_event(connection: &Connection, event: &str) -> rusqlite::Result<Vec<i64>> {
    let version = schema_version(connection)?;
    let mut numbers =
        integers(connection, "SELECT event FROM known_events WHERE id = ?1 AND event IS NOT NULL", event)?;
    if version >= 2 {
        let sql = "SELECT event FROM known_before WHERE id = ?1 AND event IS NOT NULL";
        numbers.extend(integers(connection, sql, event)?);
    }
    let sql = if version >= COMPACT {
        "SELECT seq FROM deliveries WHERE seq = ?1 AND single = 1 \
         UNION ALL SELECT seq FROM deliveries WHERE event = ?1 AND single = 0"
    } else {
        "SELECT seq FROM deliveries WHERE event = ?1"
    };
    let mut seqs = Vec::new();
    for number in numbers {
        seqs.extend(integers(connection, sql, number)?);
    }
    Ok(seqs)
}

/// The version of the schema since which a delivery's row contains its last change and attempt.
const COMPACT: i64 = 5;

fn schema_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA user_version")?.query_row([], |row| row.get(0))
}

/// Returns the rows of a query with one integer column and one parameter.
fn integers(connection: &Connection, sql: &str, value: impl rusqlite::ToSql) -> rusqlite::Result<Vec<i64>> {
    connection.prepare_cached(sql)?.query_map([value], |row| row.get(0))?.collect()
}

/// Everything recorded about a delivery, with an event that is not parsed yet.
pub(super) struct DeliveryHistory {
    summary: Summary,
    event: StoredEvent,
    changes: Vec<Change>,
    attempts: Vec<Attempt>,
    calls: Vec<Call>,
}

impl From<DeliveryHistory> for Details {
    fn from(history: DeliveryHistory) -> Self {
        let DeliveryHistory { summary, event, changes, attempts, calls } = history;
        Self { summary, event: Arc::new(event.event()), changes, attempts, calls }
    }
}

/// Returns everything recorded about a delivery; `None` if the id is unknown.
pub(super) fn show(connection: &Connection, delivery: &DeliveryId) -> rusqlite::Result<Option<DeliveryHistory>> {
    let sql = concat!(
        "SELECT ",
        summary_columns!(),
        ", ",
        event_columns!(),
        ", d.seq FROM deliveries d JOIN events e ON e.number = d.event JOIN lanes l ON l.id = d.lane WHERE d.id = ?1"
    );
    let found = connection
        .prepare_cached(sql)?
        .query_row([delivery.as_str()], |row| {
            let event = StoredEvent::read(row, SUMMARY_COLUMNS)?;
            Ok((summary(row)?, event, row.get("seq")?))
        })
        .optional()?;
    let Some((summary, event, seq)) = found else { return Ok(None) };
    let mut changes = BTreeMap::new();
    changes.insert(0, Change { at: summary.received_at, state: State::Waiting, reason: None });
    let mut attempts = attempts(connection, seq)?;
    if schema_version(connection)? >= COMPACT {
        let (last, attempt) = latest(connection, seq)?;
        changes.extend(last);
        attempts.extend(attempt);
    }
    // Also those that an earlier version wrote although the row has them, too.
    changes.extend(stored_changes(connection, seq)?);
    let changes = changes.into_values().collect();
    Ok(Some(DeliveryHistory { summary, event, changes, attempts, calls: calls_of(connection, seq)? }))
}

/// A change of state and its number.
type NumberedChange = (i64, Change);

/// Returns the changes and the attempt that are in the row of a delivery.
fn latest(connection: &Connection, seq: i64) -> rusqlite::Result<(Vec<NumberedChange>, Option<Attempt>)> {
    let sql = "SELECT changes, changed_at, state, reason, leased_at, attempt, owner, started, version, outcome, log \
               FROM deliveries WHERE seq = ?1";
    connection.prepare_cached(sql)?.query_row([seq], |row| {
        let number: i64 = row.get(0)?;
        if number == 0 {
            return Ok((Vec::new(), None));
        }
        let changed_at = from_millis(row.get(1)?);
        let mut changes = vec![(number, Change { at: changed_at, state: row.get(2)?, reason: row.get(3)? })];
        let Some(leased_at) = row.get::<_, Option<i64>>(4)? else { return Ok((changes, None)) };
        changes.push((number - 1, Change { at: from_millis(leased_at), state: State::Running, reason: None }));
        let attempt = Attempt {
            number: row.get(5)?,
            owner: row.get(6)?,
            started: from_millis(row.get(7)?),
            ended: changed_at,
            version: row.get(8)?,
            outcome: row.get(9)?,
            log: log_lines(&row.get::<_, String>(10)?)?,
        };
        Ok((changes, Some(attempt)))
    })
}

/// Returns the changes that have rows of their own.
fn stored_changes(connection: &Connection, seq: i64) -> rusqlite::Result<Vec<NumberedChange>> {
    let sql = "SELECT number, at, state, reason FROM changes WHERE delivery = ?1";
    let change = |row: &Row<'_>| {
        Ok((row.get(0)?, Change { at: from_millis(row.get(1)?), state: row.get(2)?, reason: row.get(3)? }))
    };
    connection.prepare_cached(sql)?.query_map([seq], change)?.collect()
}

fn attempts(connection: &Connection, seq: i64) -> rusqlite::Result<Vec<Attempt>> {
    let sql = "SELECT number, owner, started, ended, version, outcome, log FROM attempts WHERE delivery = ?1 \
               ORDER BY number";
    let attempt = |row: &Row<'_>| {
        Ok(Attempt {
            number: row.get(0)?,
            owner: row.get(1)?,
            started: from_millis(row.get(2)?),
            ended: from_millis(row.get(3)?),
            version: row.get(4)?,
            outcome: row.get(5)?,
            log: log_lines(&row.get::<_, String>(6)?)?,
        })
    };
    connection.prepare_cached(sql)?.query_map([seq], attempt)?.collect()
}

fn log_lines(json: &str) -> rusqlite::Result<Vec<LogLine>> {
    let unreadable = |error| rusqlite::Error::FromSqlConversionFailure(6, rusqlite::types::Type::Text, Box::new(error));
    serde_json::from_str(json).map_err(unreadable)
}

/// Returns the calls of a delivery, in order; an empty list if the id is unknown.
pub(super) fn calls(connection: &Connection, delivery: &DeliveryId) -> rusqlite::Result<Vec<Call>> {
    let sql = "SELECT seq FROM deliveries WHERE id = ?1";
    match connection.prepare_cached(sql)?.query_row([delivery.as_str()], |row| row.get(0)).optional()? {
        Some(seq) => calls_of(connection, seq),
        None => Ok(Vec::new()),
    }
}

fn calls_of(connection: &Connection, seq: i64) -> rusqlite::Result<Vec<Call>> {
    let sql = "SELECT c.number, c.import, c.arguments, c.at, coalesce(c.answer, a.answer) FROM calls c \
               LEFT JOIN large_answers a ON a.id = c.large WHERE c.delivery = ?1 ORDER BY c.number";
    let call = |row: &Row<'_>| {
        Ok(Call {
            number: row.get(0)?,
            import: row.get::<_, String>(1)?.into(),
            arguments: row.get(2)?,
            at: from_millis(row.get(3)?),
            answer: row.get(4)?,
        })
    };
    connection.prepare_cached(sql)?.query_map(params![seq], call)?.collect()
}

/// Returns when the next delivery is due, in milliseconds since 1970: 0 if one is due at once, regardless of the clock;
/// `None` if no waiting delivery can be claimed.
pub(super) fn next_due(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    let ready = "SELECT 1 FROM deliveries INDEXED BY deliveries_ready \
                 WHERE state = 'waiting' AND behind = 0 AND timed = 0 LIMIT 1";
    if connection.prepare_cached(ready)?.exists([])? {
        return Ok(Some(0));
    }
    let due = "SELECT min(due_at) FROM deliveries INDEXED BY deliveries_due \
               WHERE state = 'waiting' AND behind = 0 AND timed = 1";
    connection.prepare_cached(due)?.query_row([], |row| row.get(0))
}

/// Returns the lanes that have due deliveries, each with up to `limit` of them.
pub(super) fn due(
    connection: &Connection,
    lanes: Vec<(i64, Name, Name)>,
    now: i64,
    limit: u32,
) -> rusqlite::Result<Vec<Due>> {
    let ready = "SELECT id, due_at FROM deliveries INDEXED BY deliveries_ready \
                 WHERE lane = ?1 AND state = 'waiting' AND behind = 0 AND timed = 0 ORDER BY due_at LIMIT ?2";
    let timed = "SELECT id, due_at FROM deliveries INDEXED BY deliveries_timed \
                 WHERE lane = ?1 AND state = 'waiting' AND behind = 0 AND timed = 1 AND due_at <= ?3 \
                 ORDER BY due_at LIMIT ?2";
    let delivery = |row: &Row<'_>| Ok((DeliveryId::from_text(row.get::<_, String>(0)?), row.get::<_, i64>(1)?));
    let (mut ready, mut timed) = (connection.prepare_cached(ready)?, connection.prepare_cached(timed)?);
    let mut due = Vec::new();
    for (lane, tenant, module) in lanes {
        let mut found: Vec<(DeliveryId, i64)> =
            ready.query_map(params![lane, limit], delivery)?.collect::<rusqlite::Result<_>>()?;
        // At least one, because it may have been due for longer than those.
        for delivery in timed.query_map(params![lane, limit.max(1), now], delivery)? {
            found.push(delivery?);
        }
        let Some(since) = found.iter().map(|(_, due_at)| *due_at).min() else { continue };
        let deliveries = found.into_iter().map(|(id, _)| id).take(limit as usize).collect();
        due.push(Due { tenant, module, deliveries, since: from_millis(since) });
    }
    Ok(due)
}
