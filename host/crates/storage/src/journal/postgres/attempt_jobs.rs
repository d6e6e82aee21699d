//! What attempts write: calls, and how they ended. The jobs of a delivery are written by one worker, in order.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::oneshot;

use super::calls::{CALLS, CallChanges};
use super::queue::QueuedJob;
use super::record::delivery_id;
use super::rows::{RESULT, clean, now, read, tallied};
use super::worker::{Batches, Job, JobResult, Writer};
use crate::journal::usage::{DELIVERY_BYTES, attempt_bytes};
use crate::journal::{AttemptReport, Call, Disposition, JournalError, Lease, Result, State};
use crate::postgres::{Failure, values};
use modhost_core::clock::whole_millis;
use modhost_core::event::{DeliveryId, Name};
use modhost_core::sync::lock;

/// Something that an attempt writes under its lease.
pub(super) struct AttemptJob {
    lease: Lease,
    change: Change,
    done: Mutex<Option<Done>>,
}

/// Who waits for a job.
pub(super) enum Done {
    /// For the write of calls.
    Written(oneshot::Sender<Result<()>>),
    /// For the completion of an attempt. The result is whether the next delivery of its chat can be claimed.
    Completed(oneshot::Sender<Result<bool>>),
}

/// What is written.
pub(super) enum Change {
    /// Writes a call.
    Write(Call),
    /// Forgets the calls from this number on.
    Forget(u32),
    /// Completes the attempt; the text is the log of the report as JSON.
    Complete(Box<(AttemptReport, String, Disposition)>),
}

impl AttemptJob {
    pub(super) fn new(lease: Lease, change: Change, done: Done) -> Self {
        Self { lease, change, done: Mutex::new(Some(done)) }
    }

    /// Returns the number of the first call that it changes.
    fn number(&self) -> Option<u32> {
        match &self.change {
            Change::Write(call) => Some(call.number),
            Change::Forget(from) => Some(*from),
            Change::Complete(_) => None,
        }
    }

    fn is_completion(&self) -> bool {
        matches!(self.change, Change::Complete(_))
    }

    fn lost(&self) -> JournalError {
        JournalError::LeaseLost(self.lease.delivery.clone())
    }
}

impl QueuedJob for AttemptJob {
    fn tenant(&self) -> &Name {
        &self.lease.tenant
    }

    fn bytes(&self) -> usize {
        match &self.change {
            Change::Write(call) => call.arguments.len() + call.answer.as_ref().map_or(0, Vec::len),
            Change::Forget(_) => 0,
            Change::Complete(ended) => ended.1.len() + ended.0.outcome.len(),
        }
    }

    /// A batch writes calls before it completes attempts, so nothing of a lease follows its completion.
    fn fits(&self, batch: &[Self]) -> bool {
        !batch.iter().any(|other| other.is_completion() && other.lease.delivery == self.lease.delivery)
    }
}

impl Job for AttemptJob {
    /// Whether the next delivery of the chat can be claimed.
    type Output = bool;

    fn finish(&self, result: Result<bool>) {
        // The caller may have dropped its handle.
        match lock(&self.done).take() {
            Some(Done::Written(done)) => drop(done.send(result.map(drop))),
            Some(Done::Completed(done)) => drop(done.send(result)),
            None => {}
        }
    }
}

/// A call that could not be written. Later calls of the attempt are not written either, so that the call log has no gap.
struct Unwritten {
    attempt: u32,
    number: u32,
    error: JournalError,
}

/// The maximum number of attempts with an unwritten call that are remembered; each ends with an error of its own.
const MAX_UNWRITTEN: usize = 10_000;

/// Writes what attempts write in batches.
#[derive(Default)]
pub(super) struct Attempts {
    unwritten: HashMap<DeliveryId, Unwritten>,
}

impl Attempts {
    /// Returns why a call must not be written: an earlier one of the attempt was not.
    fn gap(&self, job: &AttemptJob) -> Option<JournalError> {
        let known = self.unwritten.get(&job.lease.delivery)?;
        (matches!(job.change, Change::Write(_)) && known.attempt == job.lease.attempt).then(|| known.error.clone())
    }

    /// Closes a gap, if the job forgets the unwritten call as well, or ends the attempt.
    fn close_gap(&mut self, job: &AttemptJob) {
        let closes = |known: &mut Unwritten| match &job.change {
            Change::Write(_) => false,
            Change::Forget(from) => known.number >= *from,
            Change::Complete(_) => known.attempt <= job.lease.attempt,
        };
        if self.unwritten.get_mut(&job.lease.delivery).is_some_and(closes) {
            self.unwritten.remove(&job.lease.delivery);
        }
    }
}

impl Batches for Attempts {
    type Job = AttemptJob;

    async fn write(
        &mut self,
        writer: &mut Writer,
        jobs: &[AttemptJob],
        is_repeated: bool,
    ) -> std::result::Result<Vec<JobResult<Self>>, Failure> {
        let completed = match is_repeated {
            true => completed_before(writer, jobs).await?,
            false => HashSet::new(),
        };
        let mut results: Vec<Option<Result<bool>>> = Vec::with_capacity(jobs.len());
        // The gaps that jobs of this batch close don't hold back those behind them.
        let mut closed: HashMap<&DeliveryId, u32> = HashMap::new();
        for job in jobs {
            let is_done = completed.contains(&job.lease);
            let gap = self.gap(job).filter(|_| {
                let known = self.unwritten.get(&job.lease.delivery).map(|known| known.number);
                closed.get(&job.lease.delivery).is_none_or(|from| known.is_some_and(|number| number < *from))
            });
            if let Change::Forget(from) = &job.change {
                let before = closed.entry(&job.lease.delivery).or_insert(*from);
                *before = (*before).min(*from);
            }
            // Its chat may have been released by the earlier attempt.
            results.push(if is_done { Some(Ok(true)) } else { gap.map(Err) });
        }
        let open = || jobs.iter().zip(&results).filter(|(_, result)| result.is_none()).map(|(job, _)| job);
        let held_leases = write(writer, open()).await?;
        for (job, result) in jobs.iter().zip(&mut results) {
            let held = match job.is_completion() {
                true => held_leases.completed.contains(&job.lease),
                false => held_leases.written.contains(&job.lease),
            };
            let released = held_leases.released.contains(&job.lease.delivery);
            let result = result.get_or_insert_with(|| if held { Ok(released) } else { Err(job.lost()) });
            if result.is_ok() {
                self.close_gap(job);
            }
        }
        Ok(results.into_iter().flatten().collect())
    }

    fn failed(&mut self, job: &AttemptJob, error: &JournalError) {
        let Some(number) = job.number() else { return };
        if self.unwritten.len() >= MAX_UNWRITTEN {
            self.unwritten.clear();
        }
        let known = self.unwritten.get(&job.lease.delivery);
        if known.is_none_or(|known| known.attempt < job.lease.attempt) {
            let unwritten = Unwritten { attempt: job.lease.attempt, number, error: error.clone() };
            self.unwritten.insert(job.lease.delivery.clone(), unwritten);
        }
    }
}

/// The leases that were held when a batch was written.
#[derive(Default)]
struct Held {
    written: HashSet<Lease>,
    completed: HashSet<Lease>,
    /// The deliveries of whose chats the next one can be claimed.
    released: HashSet<DeliveryId>,
}

/// Returns the leases whose attempts were completed by an earlier try of the batch: a transaction that completes an attempt
/// has written its calls as well.
async fn completed_before(writer: &mut Writer, jobs: &[AttemptJob]) -> std::result::Result<HashSet<Lease>, Failure> {
    let leases: Vec<&Lease> = jobs.iter().filter(|job| job.is_completion()).map(|job| &job.lease).collect();
    if leases.is_empty() {
        return Ok(HashSet::new());
    }
    let sql = "SELECT 3, NULL::text, ARRAY[i.k], NULL::text[], NULL::bytea \
               FROM unnest($1, $2, $3) WITH ORDINALITY AS i (id, owner, attempt, k) JOIN deliveries d ON d.id = i.id \
               JOIN attempts a ON a.delivery = d.seq AND a.number = i.attempt AND a.owner = i.owner";
    let keys = LeaseColumns::of(leases.iter().copied());
    let rows = writer.read(sql, values![keys.id, keys.owner, keys.attempt]).await?;
    let rows = read(&rows, &writer.cache)?;
    Ok(rows
        .iter()
        .filter_map(|row| leases.get(usize::try_from(row.number(0) - 1).ok()?))
        .map(|it| (*it).clone())
        .collect())
}

/// Leases as parameters of a statement.
struct LeaseColumns<'a> {
    id: Vec<&'a str>,
    owner: Vec<&'a str>,
    attempt: Vec<i32>,
}

impl<'a> LeaseColumns<'a> {
    fn of(leases: impl Iterator<Item = &'a Lease>) -> Self {
        let mut columns = Self { id: Vec::new(), owner: Vec::new(), attempt: Vec::new() };
        for lease in leases {
            columns.id.push(lease.delivery.as_str());
            columns.owner.push(&lease.owner);
            columns.attempt.push(lease.attempt.cast_signed());
        }
        columns
    }
}

/// Locks the rows that completing deliveries `$1` changes, in the order in which every operation locks them: chats, events with
/// several deliveries, deliveries. The next statement sees everything that was committed before.
pub(super) const LOCK_CHATS: &str = "
    SELECT 1 FROM chats c
    JOIN (SELECT DISTINCT lane, chat FROM deliveries WHERE id = ANY($1) AND chat IS NOT NULL) AS d
        ON c.lane = d.lane AND c.chat = d.chat
    ORDER BY c.lane, c.chat FOR UPDATE OF c";
pub(super) const LOCK_EVENTS: &str = "
    SELECT 1 FROM events WHERE siblings > 1 AND number IN (SELECT event FROM deliveries WHERE id = ANY($1))
    ORDER BY number FOR UPDATE";
pub(super) const LOCK_DELIVERIES: &str = "SELECT 1 FROM deliveries WHERE id = ANY($1) ORDER BY seq FOR UPDATE";

/// Makes the next delivery of each chat claimable, in the chats of deliveries `$1`, if none of the chat is, and removes the chats
/// without unfinished deliveries. Returns those of the deliveries `$1` in whose chats there is one now.
pub(super) const RELEASE_CHATS: &str = "
    WITH own AS MATERIALIZED (
        SELECT DISTINCT lane, chat FROM deliveries WHERE id = ANY($1) AND chat IS NOT NULL
    ), emptied AS (
        DELETE FROM chats c USING own WHERE c.lane = own.lane AND c.chat = own.chat AND c.unfinished <= 0
    ), next AS (
        SELECT min(d.seq) AS seq FROM own JOIN deliveries d ON d.lane = own.lane AND d.chat = own.chat
        WHERE d.chat IS NOT NULL AND d.state IN ('waiting', 'running')
        GROUP BY d.lane, d.chat HAVING bool_and(d.behind)
    ), released AS (
        UPDATE deliveries d SET behind = false FROM next WHERE d.seq = next.seq RETURNING d.lane, d.chat
    )
    SELECT 3, d.id, NULL::bigint[], NULL::text[], NULL::bytea
    FROM deliveries d JOIN released r ON r.lane = d.lane AND r.chat = d.chat WHERE d.id = ANY($1)";

/// The tables of a statement that moves deliveries, with what they take, between the unfinished and the ended ones. `moving` has
/// the deliveries with `seq, event, lane, chat, ends`, where `ends` is true if the delivery ends and false if it is queued
/// again; `$bytes` is the parameter with the size of a delivery. All rows that it reads are locked.
macro_rules! moved_usage {
    ($bytes:literal) => {
        concat!(
            "parts AS MATERIALIZED (
                SELECT m.lane, m.ends, ",
            $bytes,
            "::bigint + coalesce((SELECT sum(bytes) FROM calls WHERE delivery = m.seq), 0)
                    + coalesce((SELECT sum(bytes) FROM attempts WHERE delivery = m.seq), 0) AS bytes
                FROM moving m
                UNION ALL
                SELECT m.lane, m.ends, e.bytes
                FROM (SELECT event, min(lane) AS lane, bool_or(ends) AS ends FROM moving GROUP BY event) AS m
                JOIN events e ON e.number = m.event
                WHERE CASE WHEN e.siblings = 1 THEN true ELSE (
                    SELECT count(*) FROM deliveries o WHERE o.event = m.event AND o.state || '' IN ('waiting', 'running')
                        AND o.seq NOT IN (SELECT seq FROM moving)
                ) = 0 END
            ), counted_chats AS (
                UPDATE chats c SET unfinished = c.unfinished - m.count
                FROM (SELECT lane, chat, count(*) AS count FROM moving WHERE ends AND chat IS NOT NULL GROUP BY lane, chat) AS m
                WHERE c.lane = m.lane AND c.chat = m.chat
            )"
        )
    };
}
pub(super) use moved_usage;

/// Completes attempts, whose deliveries are locked.
const COMPLETE: &str = concat!(
    "WITH clock AS MATERIALIZED (SELECT ",
    now!(),
    " AS now, coalesce($1::bigint, ceil(extract(epoch FROM statement_timestamp()) * 1000)::bigint) AS latest
    ), leased AS MATERIALIZED (
        SELECT i.*, d.seq, d.event, d.lane, d.chat, d.changes + 1 AS change, i.state <> 'waiting' AS ends
        FROM unnest($3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) WITH ORDINALITY
            AS i (id, owner, attempt, state, reason, after, took, version, outcome, log, bytes, k)
        JOIN deliveries d ON d.id = i.id AND d.state || '' = 'running' AND d.owner = i.owner AND d.attempt = i.attempt
    ), attempted AS (
        INSERT INTO attempts (delivery, number, owner, started, ended, version, outcome, log, bytes)
        SELECT seq, attempt, owner, greatest(clock.now - took, 0), clock.now, version, outcome, log, bytes FROM leased, clock
    ), updated AS (
        UPDATE deliveries d SET state = l.state, reason = l.reason, version = l.version, changed_at = clock.now,
            changes = l.change, owner = NULL, lease_until = NULL, behind = d.behind AND NOT l.ends,
            due_at = CASE WHEN l.ends THEN d.due_at ELSE clock.latest + l.after END, timed = d.timed OR NOT l.ends
        FROM leased l, clock WHERE d.seq = l.seq
    ), changed AS (
        INSERT INTO changes (delivery, number, at, state, reason)
        SELECT seq, change, clock.now, state, reason FROM leased, clock
    ), moving AS MATERIALIZED (
        SELECT seq, event, lane, chat, ends FROM leased WHERE ends
    ), ",
    moved_usage!("$14"),
    ", moved AS (
        SELECT lane, count(*) FILTER (WHERE state = 'waiting') AS waiting, -count(*) AS running,
               count(*) FILTER (WHERE state = 'completed') AS completed, count(*) FILTER (WHERE state = 'dead') AS dead,
               count(*) FILTER (WHERE state = 'dropped') AS dropped
        FROM leased GROUP BY lane
    ), spent AS (
        SELECT lanes.tenant, s.unfinished, s.ended, 0 AS ids FROM (
            SELECT lane, -bytes AS unfinished, bytes AS ended FROM parts
            UNION ALL
            SELECT lane, CASE WHEN ends THEN 0 ELSE bytes END, CASE WHEN ends THEN bytes ELSE 0 END FROM leased
        ) AS s JOIN lanes ON lanes.id = s.lane
    ), ",
    tallied!(),
    " SELECT 3, NULL::text, ARRAY[k]::bigint[], NULL::text[], NULL::bytea FROM leased UNION ALL SELECT * FROM tallied"
);

/// Writes jobs in one transaction: the calls first.
async fn write<'a>(
    writer: &mut Writer,
    jobs: impl Iterator<Item = &'a AttemptJob>,
) -> std::result::Result<Held, Failure> {
    let (completions, changes): (Vec<&AttemptJob>, Vec<&AttemptJob>) = jobs.partition(|job| job.is_completion());
    let mut calls: BTreeMap<&DeliveryId, Vec<(&Lease, CallChanges<'_>)>> = BTreeMap::new();
    for job in changes {
        let of_delivery = calls.entry(&job.lease.delivery).or_default();
        let changes = match of_delivery.iter_mut().find(|(lease, _)| **lease == job.lease) {
            Some((_, changes)) => changes,
            None => {
                of_delivery.push((&job.lease, CallChanges::default()));
                let Some((_, changes)) = of_delivery.last_mut() else { continue };
                changes
            }
        };
        match &job.change {
            Change::Write(call) => changes.write(call),
            Change::Forget(from) => changes.forget(*from),
            Change::Complete(_) => {}
        }
    }
    let calls: Vec<(&Lease, CallChanges<'_>)> = calls.into_values().flatten().collect();
    let call_leases: Vec<&Lease> = calls.iter().map(|(lease, _)| *lease).collect();
    let call_columns = super::calls::Columns::of(&calls);
    let (now, slot) = (writer.clock.now(), writer.slot);
    let call_values = call_columns.values(&now, &slot);

    let ended: Vec<Ended<'_>> = completions.iter().filter_map(|job| Ended::of(job)).collect();
    let leases = LeaseColumns::of(ended.iter().map(|it| it.lease));
    let state: Vec<&str> = ended.iter().map(|it| it.state.name()).collect();
    let reason: Vec<Option<&str>> = ended.iter().map(|it| it.reason.as_deref()).collect();
    let after: Vec<Option<i64>> = ended.iter().map(|it| it.after.map(millis_rounded_up)).collect();
    let took: Vec<i64> = ended.iter().map(|it| whole_millis(it.report.took)).collect();
    let version: Vec<Option<&str>> = ended.iter().map(|it| it.report.version.as_deref()).collect();
    let outcome: Vec<&str> = ended.iter().map(|it| it.outcome.as_str()).collect();
    let log: Vec<&str> = ended.iter().map(|it| it.log).collect();
    let bytes: Vec<i64> = ended.iter().map(|it| it.bytes).collect();
    let delivery_bytes = DELIVERY_BYTES.cast_signed();
    let ids = values![leases.id];
    let complete = values![
        now,
        slot,
        leases.id,
        leases.owner,
        leases.attempt,
        state,
        reason,
        after,
        took,
        version,
        outcome,
        log,
        bytes,
        delivery_bytes
    ];

    let mut statements: Vec<(&str, &[crate::postgres::Value<'_>])> = Vec::new();
    if !calls.is_empty() {
        statements.push((CALLS, &call_values));
    }
    if !ended.is_empty() {
        statements.extend([(LOCK_CHATS, &ids[..]), (LOCK_EVENTS, &ids[..]), (LOCK_DELIVERIES, &ids[..])]);
        statements.extend([(COMPLETE, &complete[..]), (RELEASE_CHATS, &ids[..])]);
    }
    if statements.is_empty() {
        return Ok(Held::default());
    }
    let results = writer.transaction(&statements).await?;
    let mut held = Held::default();
    for ((sql, _), rows) in statements.iter().zip(&results) {
        if ![CALLS, COMPLETE, RELEASE_CHATS].contains(sql) {
            continue;
        }
        for row in read(rows, &writer.cache)?.iter().filter(|row| row.kind == RESULT) {
            if *sql == RELEASE_CHATS {
                held.released.insert(delivery_id(row));
                continue;
            }
            let Ok(index) = usize::try_from(row.number(0) - 1) else { continue };
            if *sql == CALLS {
                held.written.extend(call_leases.get(index).map(|lease| (*lease).clone()));
            } else {
                held.completed.extend(ended.get(index).map(|it| it.lease.clone()));
            }
        }
    }
    Ok(held)
}

/// The end of an attempt, as stored.
struct Ended<'a> {
    lease: &'a Lease,
    report: &'a AttemptReport,
    log: &'a str,
    outcome: String,
    state: State,
    reason: Option<String>,
    after: Option<Duration>,
    /// The size of the attempt.
    bytes: i64,
}

impl<'a> Ended<'a> {
    fn of(job: &'a AttemptJob) -> Option<Self> {
        let Change::Complete(ended) = &job.change else { return None };
        let (report, log, next) = &**ended;
        let (state, reason, after) = match next {
            Disposition::Completed => (State::Completed, None, None),
            Disposition::Retry { after, reason } => (State::Waiting, Some(reason.to_string()), Some(*after)),
            Disposition::Dead { reason } => (State::Dead, Some(reason.to_string()), None),
            Disposition::Dropped { reason } => (State::Dropped, Some(reason.clone()), None),
        };
        let outcome = clean(&report.outcome);
        let bytes = attempt_bytes(&outcome, log).cast_signed();
        let reason = reason.as_deref().map(clean);
        Some(Self { lease: &job.lease, report, log, outcome, state, reason, after, bytes })
    }
}

/// Rounds up, so that nothing runs before it is due.
fn millis_rounded_up(duration: Duration) -> i64 {
    whole_millis(duration.saturating_add(Duration::from_nanos(999_999)))
}
