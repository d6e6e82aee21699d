//! The tables of the journal.

use super::table::{Cell, Kind, Table, column, key, unchanged};
use crate::journal::{attempt_bytes, chat_key, event_bytes, event_key, id_bytes};

/// The tables, in the order in which they are copied.
pub(super) const TABLES: &[Table] =
    &[SALT, LANES, EVENTS, KNOWN_EVENTS, DELIVERIES, CHANGES, ATTEMPTS, CALLS, TENANT_USAGE];

/// The statements for what PostgreSQL has besides, after all tables were copied: what is counted and locked, and the numbers
/// that come next.
pub(super) const DERIVE: &[&str] = &[
    "INSERT INTO chats (lane, chat, unfinished)
     SELECT lane, chat, count(*) FROM deliveries WHERE chat IS NOT NULL AND state IN ('waiting', 'running') GROUP BY lane, chat",
    "INSERT INTO counts (lane, slot, waiting, running, completed, dead, dropped, version)
     SELECT lane, 0, count(*) FILTER (WHERE state = 'waiting'), count(*) FILTER (WHERE state = 'running'),
            count(*) FILTER (WHERE state = 'completed'), count(*) FILTER (WHERE state = 'dead'),
            count(*) FILTER (WHERE state = 'dropped'), 1
     FROM deliveries GROUP BY lane",
    "SELECT setval(pg_get_serial_sequence('lanes', 'id'), coalesce(max(id), 0) + 1, false) FROM lanes",
    "SELECT setval(pg_get_serial_sequence('deliveries', 'seq'), coalesce(max(seq), 0) + 1, false) FROM deliveries",
    "SELECT setval('event_numbers', coalesce(max(number), 0) + 1, false) FROM events",
];

const SALT: Table = Table {
    name: "salt",
    columns: &[key("one", Kind::Bool), column("value", Kind::Bytes)],
    select: "SELECT 1, value FROM salt",
    convert: unchanged,
};

const LANES: Table = Table {
    name: "lanes",
    columns: &[key("id", Kind::Long), column("tenant", Kind::Text), column("module", Kind::Text)],
    select: "SELECT id, tenant, module FROM lanes ORDER BY id",
    convert: unchanged,
};

const EVENTS: Table = Table {
    name: "events",
    columns: &[
        key("number", Kind::Long),
        column("source", Kind::Text),
        column("id", Kind::Text),
        column("name", Kind::Text),
        column("tenant", Kind::Text),
        column("user_id", Kind::Text),
        column("company_id", Kind::Text),
        column("created_at", Kind::Long),
        column("received_at", Kind::Long),
        column("payload_start", Kind::Long),
        column("payload_length", Kind::Long),
        column("siblings", Kind::Long),
        column("body", Kind::Bytes),
        column("bytes", Kind::Long),
    ],
    select: "SELECT number, source, id, name, tenant, user_id, company_id, created_at, received_at, payload_start, \
                    payload_length, (SELECT count(*) FROM deliveries d WHERE d.event = e.number AND d.single = 0) \
                    + (SELECT count(*) FROM deliveries d WHERE d.seq = e.number AND d.single = 1), body \
             FROM events e ORDER BY number",
    convert: |row| {
        let body = row.last().map_or(0, Cell::length);
        row.push(long(event_bytes(body)));
    },
};

/// Events that a version recorded for which the tenant was not part of the key are known for their tenant, or for every tenant
/// of the journal if it isn't known any more.
const KNOWN_EVENTS: Table = Table {
    name: "known_events",
    columns: &[
        key("key", Kind::Bytes),
        column("tenant", Kind::Text),
        column("at", Kind::Long),
        column("event", Kind::Long),
        column("token", Kind::Long),
        column("bytes", Kind::Long),
    ],
    select: "SELECT id, tenant, at, event, 0, source FROM known_events
             UNION ALL
             SELECT k.id, t.tenant, k.at, k.event, 0, k.source
             FROM known_before k LEFT JOIN events e ON e.number = k.event
                  JOIN (SELECT tenant FROM lanes UNION SELECT tenant FROM known_events) t
                  ON t.tenant = coalesce(k.tenant, e.tenant, t.tenant)
             WHERE NOT EXISTS (SELECT 1 FROM known_events n WHERE n.id = k.id AND n.source = k.source AND n.tenant = t.tenant)",
    convert: |row| {
        let [id, tenant, .., source] = row.as_slice() else { return };
        let key = event_key(id.text(), source.text(), tenant.text());
        let bytes = long(id_bytes(id.text()));
        row.pop();
        row.push(bytes);
        if let Some(first) = row.first_mut() {
            *first = Cell::Bytes(key);
        }
    },
};

const DELIVERIES: Table = Table {
    name: "deliveries",
    columns: &[
        key("seq", Kind::Long),
        column("id", Kind::Text),
        column("event", Kind::Long),
        column("lane", Kind::Long),
        column("chat", Kind::Text),
        column("behind", Kind::Bool),
        column("state", Kind::Text),
        column("attempt", Kind::Int),
        column("earlier", Kind::Int),
        column("due_at", Kind::Long),
        column("timed", Kind::Bool),
        column("owner", Kind::Text),
        column("lease_until", Kind::Long),
        column("version", Kind::Text),
        column("reason", Kind::Text),
        column("changed_at", Kind::Long),
        column("changes", Kind::Int),
    ],
    select: "SELECT seq, id, event, lane, chat, behind, state, attempt, earlier, due_at, timed, \
                    iif(state = 'running', owner, NULL), lease_until, version, reason, changed_at, changes \
             FROM deliveries ORDER BY seq",
    convert: |row| {
        if let Some(Cell::Text(chat)) = row.get_mut(4) {
            *chat = chat_key(chat);
        }
    },
};

/// The last change of a delivery, and the lease of the attempt that ended with it, are in its row, unless an earlier version wrote
/// them as those before.
const CHANGES: Table = Table {
    name: "changes",
    columns: &[
        key("delivery", Kind::Long),
        key("number", Kind::Int),
        column("at", Kind::Long),
        column("state", Kind::Text),
        column("reason", Kind::Text),
    ],
    select: "SELECT delivery, number, at, state, reason FROM changes
             UNION ALL
             SELECT seq, changes, changed_at, state, reason FROM deliveries d
             WHERE changes > 0 AND NOT EXISTS (SELECT 1 FROM changes c WHERE c.delivery = d.seq AND c.number = d.changes)
             UNION ALL
             SELECT seq, changes - 1, leased_at, 'running', NULL FROM deliveries d
             WHERE changes > 0 AND leased_at IS NOT NULL
               AND NOT EXISTS (SELECT 1 FROM changes c WHERE c.delivery = d.seq AND c.number = d.changes - 1)",
    convert: unchanged,
};

/// The attempt that ended with the last change of a delivery is in its row.
const ATTEMPTS: Table = Table {
    name: "attempts",
    columns: &[
        key("delivery", Kind::Long),
        key("number", Kind::Int),
        column("owner", Kind::Text),
        column("started", Kind::Long),
        column("ended", Kind::Long),
        column("version", Kind::Text),
        column("outcome", Kind::Text),
        column("log", Kind::Text),
        column("bytes", Kind::Long),
    ],
    select: "SELECT delivery, number, owner, started, ended, version, outcome, log FROM attempts
             UNION ALL
             SELECT seq, attempt, owner, started, changed_at, version, outcome, log FROM deliveries
             WHERE changes > 0 AND leased_at IS NOT NULL",
    convert: |row| {
        if let [.., outcome, log] = row.as_slice() {
            let bytes = long(attempt_bytes(outcome.text(), log.text()));
            row.push(bytes);
        }
    },
};

/// Large answers are stored with each call.
const CALLS: Table = Table {
    name: "calls",
    columns: &[
        key("delivery", Kind::Long),
        key("number", Kind::Long),
        column("import", Kind::Text),
        column("arguments", Kind::Bytes),
        column("at", Kind::Long),
        column("answer", Kind::Bytes),
        column("bytes", Kind::Long),
    ],
    select: "SELECT c.delivery, c.number, c.import, c.arguments, c.at, coalesce(c.answer, a.answer) \
             FROM calls c LEFT JOIN large_answers a ON a.id = c.large ORDER BY c.delivery, c.number",
    convert: |row| {
        if let [_, _, import, arguments, _, answer] = row.as_slice() {
            let size = crate::journal::CALL_BYTES + (import.length() + arguments.length() + answer.length()) as u64;
            row.push(long(size));
        }
    },
};

const TENANT_USAGE: Table = Table {
    name: "tenant_usage",
    columns: &[
        key("tenant", Kind::Text),
        key("slot", Kind::Int),
        column("unfinished", Kind::Long),
        column("ended", Kind::Long),
        column("ids", Kind::Long),
        column("version", Kind::Long),
    ],
    select: "SELECT tenant, 0, unfinished, ended, ids, 1 FROM tenant_usage ORDER BY tenant",
    convert: unchanged,
};

fn long(number: u64) -> Cell {
    Cell::Long(i64::try_from(number).unwrap_or(i64::MAX))
}
