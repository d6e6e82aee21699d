//! Removes deliveries and ids whose retention time is over, or for which there is no space.
//!
//! Rows that another host removes at the same time are skipped.

use std::collections::HashMap;

use super::Postgres;
use super::rows::{now, tallied};
use crate::error::StorageError;
use crate::journal::Retention;
use crate::journal::usage::{DELIVERY_BYTES, Part, PartBytes, Usage};
use crate::postgres::{Failure, Row as SqlRow, Session, transaction, values};
use modhost_core::clock::whole_millis;
use modhost_core::event::Name;

/// Returns the current time.
const NOW: &str = concat!("SELECT ", now!());

/// Locks and returns deliveries that ended before `$1` (completed and dropped) or `$2` (dead), first the one that ended first,
/// up to `$3`.
const TOO_OLD: &str = "
    SELECT d.seq FROM (
        SELECT d.seq, d.changed_at
        FROM lanes l CROSS JOIN (VALUES ('completed', $1), ('dropped', $1), ('dead', $2)) AS s (state, before)
        CROSS JOIN LATERAL (
            SELECT seq, changed_at FROM deliveries
            WHERE lane = l.id AND state = s.state AND state IN ('completed', 'dropped', 'dead') AND changed_at < s.before
            ORDER BY changed_at, seq LIMIT $3
        ) AS d
        ORDER BY d.changed_at, d.seq LIMIT $3
    ) AS old JOIN deliveries d ON d.seq = old.seq AND d.changed_at = old.changed_at
    ORDER BY d.seq FOR UPDATE OF d SKIP LOCKED";

/// Returns the ended deliveries of tenant `$1`, in the order in which they are removed, up to `$2`, each with: seq, event, bytes,
/// bytes of the event, number of the event's deliveries, when the event was recorded, bytes of its id.
const CANDIDATES: &str = "
    SELECT d.seq, d.event,
           ($3 + coalesce((SELECT sum(bytes) FROM calls WHERE delivery = d.seq), 0)
               + coalesce((SELECT sum(bytes) FROM attempts WHERE delivery = d.seq), 0))::bigint,
           e.bytes, (SELECT count(*) FROM deliveries o WHERE o.event = d.event), e.received_at,
           $4 + octet_length(e.id)::bigint
    FROM (
        SELECT d.seq, d.state, d.changed_at
        FROM lanes l CROSS JOIN (VALUES ('completed'), ('dropped'), ('dead')) AS s (state)
        CROSS JOIN LATERAL (
            SELECT seq, state, changed_at FROM deliveries
            WHERE lane = l.id AND state = s.state AND state IN ('completed', 'dropped', 'dead')
            ORDER BY changed_at, seq LIMIT $2
        ) AS d
        WHERE l.tenant = $1
        ORDER BY d.state = 'dead', d.changed_at, d.seq LIMIT $2
    ) AS first JOIN deliveries d ON d.seq = first.seq AND d.state = first.state AND d.changed_at = first.changed_at
    JOIN events e ON e.number = d.event
    ORDER BY first.state = 'dead', first.changed_at, first.seq
    FOR UPDATE OF d SKIP LOCKED";

/// Locks the events of deliveries `$1` that have several.
const LOCK_EVENTS: &str = "
    SELECT 1 FROM events WHERE siblings > 1 AND number IN (SELECT event FROM deliveries WHERE seq = ANY($1))
    ORDER BY number FOR UPDATE";

/// Removes deliveries `$3`, which are locked, with everything recorded about them, and their events unless these have other
/// deliveries. The parameter `$1` is not used otherwise.
const REMOVE: &str = concat!(
    "WITH gone AS (
        DELETE FROM deliveries WHERE seq = ANY($3) AND state IN ('completed', 'dropped', 'dead')
        RETURNING seq, event, lane, state
    ), calls_gone AS (
        DELETE FROM calls USING gone WHERE calls.delivery = gone.seq RETURNING gone.lane, calls.bytes
    ), attempts_gone AS (
        DELETE FROM attempts USING gone WHERE attempts.delivery = gone.seq RETURNING gone.lane, attempts.bytes
    ), changes_gone AS (
        DELETE FROM changes USING gone WHERE changes.delivery = gone.seq
    ), last AS MATERIALIZED (
        SELECT event, min(lane) AS lane FROM gone
        WHERE NOT EXISTS (SELECT 1 FROM deliveries o WHERE o.event = gone.event AND o.seq NOT IN (SELECT seq FROM gone))
        GROUP BY event
    ), events_gone AS (
        DELETE FROM events e USING last WHERE e.number = last.event RETURNING last.lane, e.bytes, e.number, e.tenant, e.id, e.source
    ), forgotten AS (
        UPDATE known_events k SET event = NULL FROM events_gone e
        WHERE k.event = e.number AND k.key = substring(sha256(convert_to(e.id, 'UTF8')) FOR 16)
            || substring(sha256(int8send(octet_length(e.source)) || convert_to(e.source || e.tenant, 'UTF8')) FOR 16)
    ), moved AS (
        SELECT lane, 0 AS waiting, 0 AS running, -count(*) FILTER (WHERE state = 'completed') AS completed,
               -count(*) FILTER (WHERE state = 'dead') AS dead, -count(*) FILTER (WHERE state = 'dropped') AS dropped
        FROM gone GROUP BY lane
    ), spent AS (
        SELECT lanes.tenant, 0 AS unfinished, -s.bytes AS ended, 0 AS ids FROM (
            SELECT lane, $4 AS bytes FROM gone
            UNION ALL SELECT lane, bytes FROM calls_gone
            UNION ALL SELECT lane, bytes FROM attempts_gone
            UNION ALL SELECT lane, bytes FROM events_gone
        ) AS s JOIN lanes ON lanes.id = s.lane
    ), ",
    tallied!(),
    " SELECT 3, NULL::text, ARRAY[count(*), ",
    now!(),
    "]::bigint[], NULL::text[], NULL::bytea FROM gone UNION ALL SELECT * FROM tallied"
);

/// Removes ids of tenants `$3` that were recorded before `$4` and whose deliveries are removed, oldest first, up to `$5` in all.
const FORGET: &str = concat!(
    "WITH old AS MATERIALIZED (
        SELECT k.key FROM (
            SELECT k.key, k.at FROM unnest($3) AS t (tenant) CROSS JOIN LATERAL (
                SELECT key, at FROM known_events WHERE tenant = t.tenant AND event IS NULL AND at < $4 ORDER BY at LIMIT $5
            ) AS k ORDER BY k.at LIMIT $5
        ) AS found JOIN known_events k ON k.key = found.key AND k.event IS NULL
        ORDER BY k.key FOR UPDATE OF k SKIP LOCKED
    ), gone AS (
        DELETE FROM known_events k USING old WHERE k.key = old.key RETURNING k.tenant, k.bytes
    ), moved AS (
        SELECT 0::bigint AS lane, 0 AS waiting, 0 AS running, 0 AS completed, 0 AS dead, 0 AS dropped WHERE false
    ), spent AS (
        SELECT tenant, 0 AS unfinished, 0 AS ended, -bytes AS ids FROM gone
    ), ",
    tallied!(),
    " SELECT 3, NULL::text, ARRAY[count(*), ",
    now!(),
    "]::bigint[], NULL::text[], NULL::bytea FROM gone UNION ALL SELECT * FROM tallied"
);

/// Returns the sizes of the oldest ids of tenant `$1` whose deliveries are removed.
const IDLE_IDS: &str = "SELECT bytes FROM known_events WHERE tenant = $1 AND event IS NULL ORDER BY at LIMIT $2";

const USAGE: &str =
    "SELECT tenant, sum(unfinished)::bigint, sum(ended)::bigint, sum(ids)::bigint FROM tenant_usage GROUP BY tenant";

/// One call of [`Postgres::remove_old`].
struct Step<'a> {
    session: &'a Session,
    slot: i32,
    now: i64,
    keep: &'a Retention,
    /// The number of deliveries and ids removed.
    removed: u64,
    /// Their maximum number.
    batch: u64,
    /// The rows of the counts that changed.
    rows: Vec<SqlRow>,
}

impl Postgres {
    /// Removes ended deliveries and ids that are old enough or for which there is no space, at most `batch` in all.
    pub(super) async fn remove_old(&self, keep: &Retention, batch: u32) -> Result<u64, StorageError> {
        let (clock, slot) = (self.clock.now(), self.slots.operators);
        let changed = transaction!(self.pools.operators, session => {
            let found = session.query(NOW, values![clock]).await?;
            let now = found.first().map_or(Ok(0), |row| session.get(row, 0))?;
            let mut step = Step { session, slot, now, keep, removed: 0, batch: u64::from(batch), rows: Vec::new() };
            step.remove_too_old().await?;
            step.forget_too_old().await?;
            while step.left() > 0 && step.free_space().await? {}
            Ok(step.rows)
        });
        let rows = self.applied(changed).await?;
        Ok(rows.iter().map(|row| row.number(0).max(0).unsigned_abs()).sum())
    }
}

impl Step<'_> {
    fn left(&self) -> i64 {
        self.batch.saturating_sub(self.removed).cast_signed()
    }

    fn before(&self, kept: std::time::Duration) -> i64 {
        self.now.saturating_sub(whole_millis(kept))
    }

    async fn remove_too_old(&mut self) -> Result<(), Failure> {
        let (completed, dead) = (self.before(self.keep.completed), self.before(self.keep.dead));
        let old = self.session.query(TOO_OLD, values![completed, dead, self.left()]).await?;
        let seqs = old.iter().map(|row| self.session.get(row, 0)).collect::<Result<Vec<i64>, _>>()?;
        self.remove(seqs).await
    }

    /// Removes deliveries that are locked.
    async fn remove(&mut self, seqs: Vec<i64>) -> Result<(), Failure> {
        if seqs.is_empty() {
            return Ok(());
        }
        self.session.query(LOCK_EVENTS, values![seqs]).await?;
        let bytes = DELIVERY_BYTES.cast_signed();
        let rows = self.session.query(REMOVE, values![self.now, self.slot, seqs, bytes]).await?;
        self.count(rows)
    }

    async fn forget_too_old(&mut self) -> Result<(), Failure> {
        let usage = self.usage().await?;
        let tenants: Vec<String> = usage
            .tenants()
            .filter(|(_, bytes)| bytes.get(Part::Ids) > 0)
            .map(|(tenant, _)| tenant.to_string())
            .collect();
        self.forget(tenants, self.before(self.keep.ids), self.left()).await
    }

    async fn forget(&mut self, tenants: Vec<String>, before: i64, limit: i64) -> Result<(), Failure> {
        if limit <= 0 {
            return Ok(());
        }
        let rows = self.session.query(FORGET, values![self.now, self.slot, tenants, before, limit]).await?;
        self.count(rows)
    }

    /// Adds the number of removed records, which is in a result.
    fn count(&mut self, rows: Vec<SqlRow>) -> Result<(), Failure> {
        for row in &rows {
            let row = super::rows::Row::read(row)?;
            if row.kind == super::rows::RESULT {
                self.removed += row.number(0).max(0).unsigned_abs();
            }
        }
        self.rows.extend(rows);
        Ok(())
    }

    async fn usage(&self) -> Result<Usage, Failure> {
        let mut usage = Usage::default();
        for row in self.session.query(USAGE, &[]).await? {
            let get = |column| self.session.get::<i64>(&row, column);
            let tenant: String = self.session.get(&row, 0)?;
            usage.add(&tenant.into(), PartBytes::new(get(1)?, get(2)?, get(3)?));
        }
        Ok(usage)
    }

    /// Returns the tenant whose records are removed next, if the sizes are these.
    fn next(&self, usage: &Usage) -> Option<(Name, Part)> {
        let all = usage.all().total().max(0).unsigned_abs();
        let is_too_large = self.keep.max_bytes.is_some_and(|max| all > max);
        usage.next_to_remove(&self.keep.tenant_limits, self.keep.max_bytes, is_too_large)
    }

    /// Removes records of a tenant above its limit, or, if the journal is too large, of the tenant that uses most: as many as
    /// necessary, or until another tenant uses most. Returns whether it removed any.
    async fn free_space(&mut self) -> Result<bool, Failure> {
        let usage = self.usage().await?;
        let before = self.removed;
        match self.next(&usage) {
            Some((tenant, Part::Ids)) => self.free_ids(usage, &tenant).await?,
            Some((tenant, _)) => self.free_deliveries(usage, &tenant).await?,
            None => {}
        }
        Ok(self.removed > before)
    }

    async fn free_ids(&mut self, mut usage: Usage, tenant: &Name) -> Result<(), Failure> {
        let rows = self.session.query(IDLE_IDS, values![tenant.as_str(), self.left()]).await?;
        let mut count = 0;
        for row in &rows {
            if self.next(&usage) != Some((tenant.clone(), Part::Ids)) {
                break;
            }
            usage.add(tenant, PartBytes::new(0, 0, -self.session.get::<i64>(row, 0)?));
            count += 1;
        }
        self.forget(vec![tenant.to_string()], i64::MAX, count).await
    }

    async fn free_deliveries(&mut self, mut usage: Usage, tenant: &Name) -> Result<(), Failure> {
        let (delivery_bytes, id_bytes) =
            (DELIVERY_BYTES.cast_signed(), crate::journal::usage::id_bytes("").cast_signed());
        let ids_before = self.before(self.keep.ids);
        let (tenant_name, left) = (tenant.as_str(), self.left());
        let values = values![tenant_name, left, delivery_bytes, id_bytes];
        let rows = self.session.query(CANDIDATES, values).await?;
        let (mut seqs, mut ids, mut siblings) = (Vec::new(), 0, HashMap::new());
        for row in &rows {
            // An id counts as well.
            let is_full = seqs.len() as i64 + ids >= self.left();
            if is_full || self.next(&usage).is_none_or(|(next, part)| next != *tenant || part == Part::Ids) {
                break;
            }
            let get = |column| self.session.get::<i64>(row, column);
            let (mut ended, mut id) = (get(2)?, 0);
            let others = siblings.entry(get(1)?).or_insert(get(4)?);
            *others -= 1;
            if *others == 0 {
                ended += get(3)?;
                if get(5)? < ids_before && seqs.len() as i64 + ids + 1 < self.left() {
                    id = get(6)?;
                    ids += 1;
                }
            }
            usage.add(tenant, PartBytes::new(0, -ended, -id));
            seqs.push(get(0)?);
        }
        self.remove(seqs).await?;
        self.forget(vec![tenant.to_string()], ids_before, ids).await
    }
}
