//! The calls of deliveries.

use std::collections::BTreeMap;

use super::rows::{now, tallied};
use crate::journal::usage::call_bytes;
use crate::journal::{Call, Lease};
use crate::postgres::{Value, value};
use modhost_core::clock::to_millis;

/// The changes of the calls of a lease, in a batch: at first calls are forgotten, then others are written.
#[derive(Default)]
pub(super) struct CallChanges<'a> {
    forget: Option<u32>,
    write: BTreeMap<u32, &'a Call>,
}

impl<'a> CallChanges<'a> {
    /// Adds the write of a call.
    pub(super) fn write(&mut self, call: &'a Call) {
        self.write.insert(call.number, call);
    }

    /// Adds the removal of the calls from a number on.
    pub(super) fn forget(&mut self, from: u32) {
        self.write.split_off(&from);
        self.forget = Some(self.forget.map_or(from, |before| before.min(from)));
    }
}

/// Changes the calls of leases that are held, and returns the numbers of these leases. The lock on the delivery and the check of
/// its lease are part of the statement (fencing): whoever takes the delivery over waits for this transaction, or this statement
/// sees that it was taken over.
pub(super) const CALLS: &str = concat!(
    "WITH held AS MATERIALIZED (
        SELECT i.k, i.forget, d.seq, d.lane
        FROM unnest($3, $4, $5, $6) WITH ORDINALITY AS i (id, owner, attempt, forget, k)
        JOIN deliveries d ON d.id = i.id
        WHERE d.state || '' = 'running' AND d.owner = i.owner AND d.attempt = i.attempt
        ORDER BY d.seq FOR SHARE OF d
    ), w AS MATERIALIZED (
        SELECT held.seq, held.lane, w.number, w.position, w.import, w.at, w.bytes
        FROM unnest($7, $8, $9, $10, $11) WITH ORDINALITY AS w (k, number, import, at, bytes, position) JOIN held USING (k)
    ), replaced AS MATERIALIZED (
        SELECT held.lane, c.bytes FROM held JOIN calls c ON c.delivery = held.seq
        WHERE c.number >= held.forget OR EXISTS (SELECT 1 FROM w WHERE w.seq = c.delivery AND w.number = c.number)
    ), forgotten AS (
        DELETE FROM calls c USING held WHERE c.delivery = held.seq AND c.number >= held.forget
            AND NOT EXISTS (SELECT 1 FROM w WHERE w.seq = c.delivery AND w.number = c.number)
    ), written AS (
        INSERT INTO calls (delivery, number, import, arguments, at, answer, bytes)
        SELECT seq, number, import, ($12)[position], at, ($13)[position], bytes FROM w ORDER BY seq, number
        ON CONFLICT (delivery, number) DO UPDATE SET import = excluded.import, arguments = excluded.arguments,
            at = excluded.at, answer = excluded.answer, bytes = excluded.bytes
    ), moved AS (
        SELECT 0::bigint AS lane, 0 AS waiting, 0 AS running, 0 AS completed, 0 AS dead, 0 AS dropped WHERE false
    ), spent AS (
        SELECT lanes.tenant, s.unfinished, 0 AS ended, 0 AS ids
        FROM (SELECT lane, bytes AS unfinished FROM w UNION ALL SELECT lane, -bytes FROM replaced) AS s
        JOIN lanes ON lanes.id = s.lane
    ), ",
    tallied!(),
    // The parameter is not used otherwise.
    " SELECT 3, NULL::text, ARRAY[k, ",
    now!(),
    "]::bigint[], NULL::text[], NULL::bytea FROM held UNION ALL SELECT * FROM tallied"
);

/// The parameters of [`CALLS`].
pub(super) struct Columns<'a> {
    id: Vec<&'a str>,
    owner: Vec<&'a str>,
    attempt: Vec<i32>,
    forget: Vec<Option<i64>>,
    of_lease: Vec<i64>,
    number: Vec<i64>,
    import: Vec<&'a str>,
    at: Vec<i64>,
    bytes: Vec<i64>,
    arguments: Vec<&'a [u8]>,
    answer: Vec<Option<&'a [u8]>>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(changes: &[(&'a Lease, CallChanges<'a>)]) -> Self {
        let leases = || changes.iter().map(|(lease, _)| *lease);
        let calls =
            || (1_i64..).zip(changes).flat_map(|(k, (_, changes))| changes.write.values().map(move |call| (k, *call)));
        Self {
            id: leases().map(|lease| lease.delivery.as_str()).collect(),
            owner: leases().map(|lease| &*lease.owner).collect(),
            attempt: leases().map(|lease| lease.attempt.cast_signed()).collect(),
            forget: changes.iter().map(|(_, changes)| changes.forget.map(i64::from)).collect(),
            of_lease: calls().map(|(k, _)| k).collect(),
            number: calls().map(|(_, call)| i64::from(call.number)).collect(),
            import: calls().map(|(_, call)| call.import.as_str()).collect(),
            at: calls().map(|(_, call)| to_millis(call.at)).collect(),
            bytes: calls().map(|(_, call)| call_bytes(call).cast_signed()).collect(),
            arguments: calls().map(|(_, call)| &call.arguments[..]).collect(),
            answer: calls().map(|(_, call)| call.answer.as_deref()).collect(),
        }
    }

    pub(super) fn values<'v>(&'v self, now: &'v Option<i64>, slot: &'v i32) -> [Value<'v>; 13] {
        [
            value(now),
            value(slot),
            value(&self.id),
            value(&self.owner),
            value(&self.attempt),
            value(&self.forget),
            value(&self.of_lease),
            value(&self.number),
            value(&self.import),
            value(&self.at),
            value(&self.bytes),
            value(&self.arguments),
            value(&self.answer),
        ]
    }
}
