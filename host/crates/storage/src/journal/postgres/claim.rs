//! Leases: claiming deliveries, extending leases, and returning deliveries to the queue.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Postgres;
use super::change;
use super::record::delivery_id;
use super::rows::{Row, event_numbers, event_texts, now, read, tallied, unescape};
use crate::error::StorageError;
use crate::journal::{Claim, Claimed, Due, Heartbeat, Lease};
use crate::postgres::{read, repeatable, statement, values};
use modhost_core::clock::{from_millis, whole_millis};
use modhost_core::event::{Event, Header, Name};

/// Leases due deliveries of lane `$3`, of which other hosts skip those that are being leased.
const CLAIM: &str = concat!(
    "WITH clock AS MATERIALIZED (SELECT ",
    now!(),
    " AS now), ready AS MATERIALIZED (
        SELECT seq, due_at FROM deliveries WHERE lane = $3 AND state = 'waiting' AND NOT behind AND NOT timed
        ORDER BY due_at, seq LIMIT $4 FOR UPDATE SKIP LOCKED
    ), timed AS MATERIALIZED (
        SELECT seq, due_at FROM deliveries
        WHERE lane = $3 AND state = 'waiting' AND NOT behind AND timed AND due_at <= (SELECT now FROM clock)
        ORDER BY due_at, seq LIMIT $4 FOR UPDATE SKIP LOCKED
    ), due AS MATERIALIZED (
        SELECT seq, due_at FROM (SELECT * FROM ready UNION ALL SELECT * FROM timed) AS found ORDER BY due_at, seq LIMIT $4
    ), claimed AS (
        UPDATE deliveries d SET state = 'running', attempt = d.attempt + 1, owner = $5, lease_until = clock.now + $6,
            reason = NULL, changed_at = clock.now, changes = d.changes + 1
        FROM due, clock WHERE d.seq = due.seq
        RETURNING d.seq, d.id, d.event, d.attempt, d.earlier, d.due_at, d.changes, d.lane
    ), changed AS (
        INSERT INTO changes (delivery, number, at, state) SELECT seq, changes, clock.now, 'running' FROM claimed, clock
    ), moved AS (
        SELECT lane, -count(*) AS waiting, count(*) AS running, 0 AS completed, 0 AS dead, 0 AS dropped
        FROM claimed GROUP BY lane
    ), spent AS (
        SELECT NULL::text AS tenant, 0 AS unfinished, 0 AS ended, 0 AS ids WHERE false
    ), ",
    tallied!(),
    " SELECT 3, c.id, ARRAY[",
    event_numbers!(),
    ", c.attempt, c.earlier, c.due_at, c.seq,
            CASE WHEN c.attempt > 1 THEN (SELECT count(*) FROM calls WHERE delivery = c.seq) ELSE 0 END,
            CASE WHEN c.attempt > 1 THEN (SELECT count(*) FROM attempts WHERE delivery = c.seq AND number > c.earlier) ELSE 0 END
        ]::bigint[], ARRAY[",
    event_texts!(),
    "]::text[], e.body FROM claimed c JOIN events e ON e.number = c.event UNION ALL SELECT * FROM tallied"
);

/// The statement that requeues the deliveries in a table `lost (seq, lane, changes, reason, attempts)` and returns their ids.
/// `attempts` is what is added to the number of attempts.
macro_rules! requeue {
    ($lost:expr) => {
        concat!(
            "WITH clock AS MATERIALIZED (SELECT ",
            now!(),
            " AS now), ",
            $lost,
            ", updated AS (
                UPDATE deliveries d SET state = 'waiting', attempt = d.attempt + l.attempts, owner = NULL, lease_until = NULL,
                    timed = false, reason = l.reason, changed_at = clock.now, changes = l.changes + 1
                FROM lost l, clock WHERE d.seq = l.seq
            ), changed AS (
                INSERT INTO changes (delivery, number, at, state, reason)
                SELECT seq, changes + 1, clock.now, 'waiting', reason FROM lost, clock
            ), moved AS (
                SELECT lane, count(*) AS waiting, -count(*) AS running, 0 AS completed, 0 AS dead, 0 AS dropped
                FROM lost GROUP BY lane
            ), spent AS (
                SELECT NULL::text AS tenant, 0 AS unfinished, 0 AS ended, 0 AS ids WHERE false
            ), ",
            tallied!(),
            " SELECT 3, NULL::text, ARRAY[count(*)]::bigint[], NULL::text[], NULL::bytea FROM lost
              UNION ALL SELECT * FROM tallied"
        )
    };
}

const UNCLAIM: &str = requeue!(
    "lost AS MATERIALIZED (
        SELECT seq, lane, changes, 'no version of its module serves' AS reason, -1 AS attempts FROM deliveries
        WHERE id = $3 AND state || '' = 'running' AND owner = $4 AND attempt = $5 FOR UPDATE
    )"
);

const RECLAIM: &str = requeue!(
    "lost AS MATERIALIZED (
        SELECT seq, lane, changes, CASE WHEN lease_until <= clock.now THEN 'its host did not prolong its lease'
            ELSE 'its host stopped while it ran' END AS reason, 0 AS attempts
        FROM deliveries, clock WHERE state = 'running' AND (lease_until <= clock.now OR owner = $3)
        ORDER BY seq FOR UPDATE OF deliveries
    )"
);

/// Marks hosts as gone before their deliveries are returned, so that they don't come back under the same owner.
const MARK_GONE: &str =
    concat!("UPDATE hosts SET gone = true WHERE NOT gone AND (owner = $2 OR lease_until <= ", now!(), ")");

/// Extends leases, and returns the leases that the owner holds: kind 3 those that were extended, with their position, kind 4
/// the others.
const HEARTBEAT: &str = concat!(
    "WITH named AS MATERIALIZED (
        SELECT d.seq, i.k FROM unnest($3, $4) WITH ORDINALITY AS i (id, attempt, k)
        JOIN deliveries d ON d.id = i.id AND d.state || '' = 'running' AND d.owner = $2 AND d.attempt = i.attempt
        ORDER BY d.seq FOR UPDATE OF d
    ), extended AS (
        UPDATE deliveries d SET lease_until = ",
    now!(),
    " + $5 FROM named WHERE d.seq = named.seq
    )
    SELECT 3, NULL::text, ARRAY[k]::bigint[], NULL::text[], NULL::bytea FROM named
    UNION ALL
    SELECT 4, d.id, ARRAY[d.attempt]::bigint[], ARRAY[l.tenant]::text[], NULL
    FROM deliveries d JOIN lanes l ON l.id = d.lane
    WHERE d.state = 'running' AND d.owner = $2 AND d.seq NOT IN (SELECT seq FROM named)"
);

/// Returns the due deliveries of lanes, up to `$3` of each.
const DUE: &str = concat!(
    "SELECT 3, d.id, ARRAY[l.id, d.due_at, d.seq]::bigint[], NULL::text[], NULL::bytea
    FROM unnest($2) AS l (id) CROSS JOIN LATERAL (
        (SELECT id, due_at, seq FROM deliveries WHERE lane = l.id AND state = 'waiting' AND NOT behind AND NOT timed
         ORDER BY due_at, seq LIMIT $3)
        UNION ALL
        (SELECT id, due_at, seq FROM deliveries WHERE lane = l.id AND state = 'waiting' AND NOT behind AND timed AND due_at <= ",
    now!(),
    "     ORDER BY due_at, seq LIMIT greatest($3, 1))
    ) AS d ORDER BY l.id, d.due_at, d.seq"
);

/// Returns in how many milliseconds the next delivery is due. `ORDER BY` makes the server use the partial index.
const NEXT_DUE: &str = concat!(
    "SELECT 3, NULL::text, ARRAY[
        CASE WHEN (SELECT seq FROM deliveries WHERE state = 'waiting' AND NOT behind AND NOT timed
                   ORDER BY lane, due_at, seq LIMIT 1) IS NOT NULL THEN 0
        ELSE (SELECT min(d.due_at) FROM lanes l CROSS JOIN LATERAL (
                SELECT due_at FROM deliveries WHERE lane = l.id AND state = 'waiting' AND NOT behind AND timed
                ORDER BY due_at, seq LIMIT 1
            ) AS d) - ",
    now!(),
    " END]::bigint[], NULL::text[], NULL::bytea"
);

/// Reads an event from the columns of `event_numbers!` and `event_texts!`, from the start of the arrays on. Returns when it was
/// recorded, in milliseconds since 1970, and the event.
pub(super) fn read_event(row: &mut Row) -> (i64, Event) {
    let text = |index| row.text(index).unwrap_or_default().to_owned();
    let header = Header {
        source: text(0).into(),
        id: unescape(&text(1)),
        name: unescape(&text(2)),
        tenant: text(3).into(),
        user_id: row.text(4).map(unescape),
        company_id: row.text(5).map(unescape),
        created_at: row.n.get(1).copied().flatten().map(i64::cast_unsigned),
    };
    let [start, length] = [2, 3].map(|index| usize::try_from(row.number(index)).unwrap_or_default());
    let body = Bytes::from(row.body.take().unwrap_or_default());
    (row.number(0), Event::new(header, body, start..start.saturating_add(length)))
}

fn claimed(mut row: Row, claim: &Claim) -> Claimed {
    let delivery = delivery_id(&row);
    let small = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
    let [attempt, earlier_attempts, calls, completed] = [4, 5, 8, 9].map(|index| small(row.number(index)));
    let (received_at, event) = read_event(&mut row);
    Claimed {
        lease: Lease { delivery, tenant: claim.tenant.clone(), owner: claim.owner.clone(), attempt },
        module: claim.module.clone(),
        event: Arc::new(event),
        earlier_attempts,
        received_at: from_millis(received_at),
        calls,
        interrupted: attempt.saturating_sub(earlier_attempts + 1).saturating_sub(completed),
    }
}

impl Postgres {
    /// Leases the due deliveries of a lane.
    pub(super) async fn claim_due(&self, claim: &Claim) -> Result<Vec<Claimed>, StorageError> {
        let Some(lane) = self.lane(&claim.tenant, &claim.module).await? else { return Ok(Vec::new()) };
        let (limit, lease) = (i64::from(claim.limit), whole_millis(claim.lease));
        let mut rows =
            change!(self, self.pools.claim, CLAIM, now, slot => values![now, slot, lane, limit, &*claim.owner, lease])?;
        rows.sort_by_key(|row| (row.number(6), row.number(7)));
        Ok(rows.into_iter().map(|row| claimed(row, claim)).collect())
    }

    /// Requeues a delivery whose attempt never began.
    pub(super) async fn requeue(&self, lease: &Lease) -> Result<bool, StorageError> {
        let attempt = lease.attempt.cast_signed();
        let rows = change!(self, self.pools.claim, UNCLAIM, now, slot => values![now, slot, lease.delivery.as_str(), &*lease.owner, attempt])?;
        Ok(rows.first().is_some_and(|row| row.number(0) > 0))
    }

    /// Requeues deliveries whose lease has expired or whose owner is gone.
    pub(super) async fn requeue_lost(&self, gone: Option<&str>) -> Result<u64, StorageError> {
        let now = self.clock.now();
        repeatable!(self.pools.beat, session => session.execute(MARK_GONE, values![now, gone]).await)?;
        let rows = change!(self, self.pools.beat, RECLAIM, now, slot => values![now, slot, gone])?;
        Ok(rows.first().map_or(0, |row| row.number(0).unsigned_abs()))
    }

    /// Extends leases, and compares them with those that the owner holds.
    pub(super) async fn extend(
        &self,
        owner: &str,
        running: Vec<Lease>,
        lease: Duration,
    ) -> Result<Heartbeat, StorageError> {
        let (now, until) = (self.clock.now(), whole_millis(lease));
        let own: Vec<&Lease> = running.iter().filter(|lease| *lease.owner == *owner).collect();
        let id: Vec<&str> = own.iter().map(|lease| lease.delivery.as_str()).collect();
        let attempt: Vec<i32> = own.iter().map(|lease| lease.attempt.cast_signed()).collect();
        let rows = repeatable!(self.pools.beat, session => {
            let rows = session.query(HEARTBEAT, values![now, owner, id, attempt, until]).await?;
            read(&rows, &self.cache)
        })?;
        let extended = rows.iter().filter(|row| row.kind == 3);
        let extended: HashSet<&Lease> =
            extended.filter_map(|row| own.get(usize::try_from(row.number(0) - 1).ok()?).copied()).collect();
        let lost = running.iter().filter(|lease| !extended.contains(lease)).cloned().collect();
        let owner: Arc<str> = owner.into();
        let unknown = rows.iter().filter(|row| row.kind == 4).map(|row| Lease {
            delivery: delivery_id(row),
            tenant: row.text(0).unwrap_or_default().into(),
            owner: owner.clone(),
            attempt: u32::try_from(row.number(0)).unwrap_or_default(),
        });
        Ok(Heartbeat { lost, unknown: unknown.collect() })
    }

    /// Returns the lanes with due deliveries, each with up to `limit` of them.
    pub(super) async fn due_by_lane(&self, limit: u32) -> Result<Vec<Due>, StorageError> {
        self.refresh().await?;
        let (now, lanes, limit_of_lane) = (self.clock.now(), self.cache.waiting_ids(), i64::from(limit));
        let rows = read!(self.pools.read, session => {
            let rows = session.query(DUE, values![now, lanes, limit_of_lane]).await?;
            read(&rows, &self.cache)
        })?;
        let mut due: Vec<(i64, Due)> = Vec::new();
        for row in rows {
            let lane = row.number(0);
            if due.last().is_none_or(|(last, _)| *last != lane) {
                let Some((tenant, module)) = self.cache.names(lane) else { continue };
                let since = from_millis(row.number(1));
                due.push((lane, Due { tenant, module, deliveries: Vec::new(), since }));
            }
            let deliveries = due.last_mut().map(|(_, due)| &mut due.deliveries);
            if let Some(deliveries) = deliveries.filter(|deliveries| deliveries.len() < limit as usize) {
                deliveries.push(delivery_id(&row));
            }
        }
        Ok(due.into_iter().map(|(_, due)| due).collect())
    }

    /// Returns the time until the next delivery is due.
    pub(super) async fn next_due_in(&self) -> Result<Option<Duration>, StorageError> {
        let now = self.clock.now();
        let rows = read!(self.pools.read, session => {
            let rows = session.query(NEXT_DUE, values![now]).await?;
            read(&rows, &self.cache)
        })?;
        let millis = rows.first().and_then(|row| row.n.first().copied().flatten());
        Ok(millis.map(|millis| Duration::from_millis(millis.max(0).unsigned_abs())))
    }

    /// Returns the id of a lane; `None` if no delivery was ever recorded in it.
    async fn lane(&self, tenant: &Name, module: &Name) -> Result<Option<i64>, StorageError> {
        if let Some(lane) = self.cache.lane(tenant, module) {
            return Ok(Some(lane));
        }
        self.refresh().await?;
        Ok(self.cache.lane(tenant, module))
    }
}
