//! Queries of operators and of replays: lists, the history of a delivery, its calls.

use std::sync::Arc;

use super::Postgres;
use super::claim::read_event;
use super::record::id_hash;
use super::rows::{Row, event_numbers, event_texts, unescape};
use super::schema::STORE;
use crate::error::StorageError;
use crate::journal::{Attempt, Call, Change, Details, Filter, LogLine, State, Summary};
use crate::postgres::{Failure, Row as SqlRow, Session, read, values};
use modhost_core::clock::{from_millis, to_millis};
use modhost_core::event::DeliveryId;

/// The columns of a delivery `d`, its event `e` and its lane `l`: those of the event come first.
macro_rules! summary_columns {
    ($body:literal) => {
        concat!(
            "3, d.id, ARRAY[",
            event_numbers!(),
            ", d.attempt, d.changed_at, d.due_at, d.seq]::bigint[], ARRAY[",
            event_texts!(),
            ", l.module, d.state, d.reason, d.version]::text[], ",
            $body
        )
    };
}

fn summary(row: &Row) -> Result<Summary, Failure> {
    let text = |index| row.text(index).unwrap_or_default();
    let state: State = text(7).parse().map_err(|error: String| Failure::Refused(StorageError::broken(STORE, error)))?;
    Ok(Summary {
        id: super::record::delivery_id(row),
        event_id: unescape(text(1)),
        event_name: unescape(text(2)),
        source: text(0).into(),
        tenant: text(3).into(),
        module: text(6).into(),
        state,
        reason: row.text(8).map(str::to_owned),
        attempts: u32::try_from(row.number(4)).unwrap_or_default(),
        version: row.text(9).map(str::to_owned),
        received_at: from_millis(row.number(0)),
        changed_at: from_millis(row.number(5)),
        due_at: (state == State::Waiting).then(|| from_millis(row.number(6))),
    })
}

/// The number of newest deliveries that a list of tenants or modules looks through first. An index has the deliveries of each
/// lane in order, but a module may have thousands of lanes, and most lists are full after a few hundred deliveries.
const NEWEST: u32 = 2_000;

/// Returns the query of a list of lanes among the [`NEWEST`] deliveries, with the parameters of [`list_query`].
fn newest_query(filter: &Filter) -> String {
    let state = if filter.state.is_some() { " AND d.state = $1" } else { "" };
    let since = if filter.since.is_some() { " AND d.changed_at >= $6" } else { "" };
    format!(
        "SELECT {} FROM (SELECT * FROM deliveries ORDER BY seq DESC LIMIT {NEWEST}) AS d \
         JOIN lanes l ON l.id = d.lane AND ($2 IS NULL OR l.tenant = $2) AND ($3 IS NULL OR l.module = $3) \
         JOIN events e ON e.number = d.event \
         WHERE $4::bytea IS NOT NULL AND $5::bytea IS NOT NULL{state}{since} ORDER BY d.seq DESC LIMIT $7",
        summary_columns!("NULL::bytea")
    )
}

/// Returns the query of a list, with parameters: 1 state, 2 tenant, 3 module, 4 and 5 the first and the last key of the event,
/// 6 the earliest change, 7 the limit. Each shape is one that an index answers in order.
fn list_query(filter: &Filter) -> String {
    let mut conditions = String::new();
    if filter.since.is_some() {
        conditions.push_str(" AND changed_at >= $6");
    }
    let lanes = "SELECT id FROM lanes WHERE ($2 IS NULL OR tenant = $2) AND ($3 IS NULL OR module = $3)";
    let of_lanes = filter.tenant.is_some() || filter.module.is_some();
    let found = if filter.event.is_some() {
        if filter.state.is_some() {
            conditions.push_str(" AND state = $1");
        }
        if of_lanes {
            conditions.push_str(&format!(" AND lane IN ({lanes})"));
        }
        format!(
            "SELECT * FROM deliveries WHERE event IN (SELECT event FROM known_events WHERE key BETWEEN $4 AND $5){conditions} \
             ORDER BY seq DESC LIMIT $7"
        )
    } else if of_lanes {
        let states = match filter.state {
            Some(_) => "($1)".to_owned(),
            None => State::ALL.map(|state| format!("('{}')", state.name())).join(", "),
        };
        // The rows are read of those alone that are in the list: the index has the rest.
        format!(
            "SELECT d.* FROM (SELECT f.seq FROM ({lanes}) AS w CROSS JOIN (VALUES {states}) AS s (state) CROSS JOIN LATERAL (\
             SELECT seq FROM deliveries WHERE lane = w.id AND state = s.state{conditions} ORDER BY seq DESC LIMIT $7) AS f \
             ORDER BY f.seq DESC LIMIT $7) AS newest JOIN deliveries d USING (seq)"
        )
    } else {
        if filter.state.is_some() {
            conditions.push_str(" AND state = $1");
        }
        format!("SELECT * FROM deliveries WHERE true{conditions} ORDER BY seq DESC LIMIT $7")
    };
    format!(
        "SELECT {} FROM ({found}) AS d JOIN events e ON e.number = d.event JOIN lanes l ON l.id = d.lane ORDER BY d.seq DESC",
        summary_columns!("NULL::bytea")
    )
}

fn rows(rows: &[SqlRow]) -> Result<Vec<Row>, Failure> {
    rows.iter().map(Row::read).collect()
}

const SHOW: &str = concat!(
    "SELECT ",
    summary_columns!("e.body"),
    " FROM deliveries d JOIN events e ON e.number = d.event JOIN lanes l ON l.id = d.lane WHERE d.id = $1"
);

const CHANGES: &str = "SELECT at, state, reason FROM changes WHERE delivery = $1 ORDER BY number";

const ATTEMPTS: &str =
    "SELECT number, owner, started, ended, version, outcome, log FROM attempts WHERE delivery = $1 ORDER BY number";

const CALLS: &str = "SELECT c.number, c.import, c.arguments, c.at, c.answer FROM calls c \
    JOIN deliveries d ON d.seq = c.delivery WHERE d.id = $1 ORDER BY c.number";

async fn changes(session: &Session, seq: i64) -> Result<Vec<Change>, Failure> {
    let rows = session.query(CHANGES, values![seq]).await?;
    let change = |row| {
        let state: String = session.get(row, 1)?;
        let state = state.parse().map_err(|error: String| Failure::Refused(StorageError::broken(STORE, error)))?;
        Ok(Change { at: from_millis(session.get(row, 0)?), state, reason: session.get(row, 2)? })
    };
    rows.iter().map(change).collect()
}

async fn attempts(session: &Session, seq: i64) -> Result<Vec<Attempt>, Failure> {
    let rows = session.query(ATTEMPTS, values![seq]).await?;
    let attempt = |row| {
        let log: String = session.get(row, 6)?;
        let log: Vec<LogLine> = serde_json::from_str(&log).map_err(|error| {
            Failure::Refused(StorageError::broken(STORE, format!("the log of an attempt cannot be read: {error}")))
        })?;
        Ok(Attempt {
            number: session.get::<i32>(row, 0)?.cast_unsigned(),
            owner: session.get(row, 1)?,
            started: from_millis(session.get(row, 2)?),
            ended: from_millis(session.get(row, 3)?),
            version: session.get(row, 4)?,
            outcome: session.get(row, 5)?,
            log,
        })
    };
    rows.iter().map(attempt).collect()
}

async fn calls(session: &Session, delivery: &DeliveryId) -> Result<Vec<Call>, Failure> {
    let rows = session.query(CALLS, values![delivery.as_str()]).await?;
    let call = |row| {
        Ok(Call {
            number: u32::try_from(session.get::<i64>(row, 0)?).unwrap_or(u32::MAX),
            import: session.get::<String>(row, 1)?.into(),
            arguments: session.get(row, 2)?,
            at: from_millis(session.get(row, 3)?),
            answer: session.get(row, 4)?,
        })
    };
    rows.iter().map(call).collect()
}

impl Postgres {
    /// Returns deliveries, newest first.
    pub(super) async fn find(&self, filter: &Filter) -> Result<Vec<Summary>, StorageError> {
        let sql = list_query(filter);
        let (state, tenant) = (filter.state.map(State::name), filter.tenant.as_ref().map(|name| name.as_str()));
        let module = filter.module.as_ref().map(|name| name.as_str());
        let hash = id_hash(filter.event.as_deref().unwrap_or_default());
        let [first, last] = [0, u8::MAX].map(|rest| [hash, [rest; 16]].concat());
        let (since, limit) = (filter.since.map(to_millis), filter.limit.map(i64::from));
        let of_lanes = filter.event.is_none() && (filter.tenant.is_some() || filter.module.is_some());
        let newest =
            filter.limit.filter(|limit| of_lanes && *limit < NEWEST).map(|limit| (limit, newest_query(filter)));
        read!(self.pools.read, session => {
            let values = values![state, tenant, module, first, last, since, limit];
            if let Some((limit, newest)) = &newest {
                let found = session.query(newest, values).await?;
                if found.len() >= *limit as usize {
                    return rows(&found)?.iter().map(summary).collect();
                }
            }
            rows(&session.query(&sql, values).await?)?.iter().map(summary).collect()
        })
    }

    /// Returns everything recorded about a delivery; `None` if the id is unknown.
    pub(super) async fn details(&self, delivery: &DeliveryId) -> Result<Option<Details>, StorageError> {
        read!(self.pools.read, session => {
            let found = session.query(SHOW, values![delivery.as_str()]).await?;
            let Some(mut row) = rows(&found)?.pop() else { return Ok(None) };
            let (summary, seq) = (summary(&row)?, row.number(7));
            let recorded = Change { at: summary.received_at, state: State::Waiting, reason: None };
            let (later, attempts, calls) =
                tokio::try_join!(changes(session, seq), attempts(session, seq), calls(session, delivery))?;
            let changes = std::iter::once(recorded).chain(later).collect();
            let event = Arc::new(read_event(&mut row).1);
            Ok(Some(Details { summary, event, changes, attempts, calls }))
        })
    }

    /// Returns the calls of a delivery, in order.
    pub(super) async fn calls_of(&self, delivery: &DeliveryId) -> Result<Vec<Call>, StorageError> {
        read!(self.pools.read, session => calls(session, delivery).await)
    }
}
