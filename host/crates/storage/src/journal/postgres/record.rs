//! Records events and their deliveries.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use super::cache::Cache;
use super::queue::QueuedJob;
use super::rows::{RESULT, Row, clean, escape, now, read, tallied};
use super::schema::STORE;
use super::worker::{Batches, Job, JobResult, Writer};
use crate::error::StorageError;
use crate::journal::usage::{DELIVERY_BYTES, event_bytes, id_bytes};
use crate::journal::{JournalError, Lease, NewDelivery, NewLease, Recorded, Result};
use crate::postgres::{Failure, Pool, repeatable, values};
use modhost_core::clock::{from_millis, whole_millis};
use modhost_core::event::{DeliveryId, Event, Name};
use modhost_core::sync::lock;

/// The length of a chat's name in bytes above which the journal stores its hash, because an index has a limit.
const MAX_CHAT: usize = 256;

/// An event to record.
pub(super) struct RecordJob {
    event: Arc<Event>,
    deliveries: Vec<NewDelivery>,
    /// The ids of the deliveries' lanes.
    lanes: Vec<i64>,
    key: Vec<u8>,
    /// Recognizes what this job recorded.
    token: i64,
    done: Mutex<Option<oneshot::Sender<Result<Recorded>>>>,
}

impl RecordJob {
    /// Creates the job of an event. `lanes` are the ids of the deliveries' lanes.
    pub(super) fn new(
        event: Arc<Event>,
        deliveries: Vec<NewDelivery>,
        lanes: Vec<i64>,
        done: oneshot::Sender<Result<Recorded>>,
    ) -> Self {
        let (key, token) = (event_key(&event.id, event.source.as_str(), event.tenant.as_str()), rand_token());
        Self { event, deliveries, lanes, key, token, done: Mutex::new(Some(done)) }
    }
}

/// Returns a random number for [`RecordJob::token`].
fn rand_token() -> i64 {
    fastrand::i64(..)
}

/// Returns the hash of an event's id, which is the first half of its key.
pub(super) fn id_hash(id: &str) -> [u8; 16] {
    half(Sha256::new().chain_update(id))
}

fn half(hash: Sha256) -> [u8; 16] {
    let hash: [u8; 32] = hash.finalize().into();
    std::array::from_fn(|index| hash[index])
}

/// Returns the key of an event: of a fixed length, because ids of platforms may be too long for an index.
pub(crate) fn event_key(id: &str, source: &str, tenant: &str) -> Vec<u8> {
    let rest = Sha256::new().chain_update((source.len() as u64).to_be_bytes()).chain_update(source);
    [id_hash(id), half(rest.chain_update(tenant))].concat()
}

/// Returns the name of a chat as stored.
pub(crate) fn chat_key(chat: &str) -> String {
    match chat.len() > MAX_CHAT {
        true => format!("sha256:{}", hex::encode(Sha256::digest(chat))),
        false => clean(chat),
    }
}

impl QueuedJob for RecordJob {
    fn tenant(&self) -> &Name {
        &self.event.tenant
    }

    fn bytes(&self) -> usize {
        self.event.raw().len()
    }

    /// The same event twice is recorded in two batches, so that the second one is a duplicate of the first.
    fn fits(&self, batch: &[Self]) -> bool {
        batch.iter().all(|other| other.key != self.key)
    }
}

impl Job for RecordJob {
    type Output = Recorded;

    fn finish(&self, result: Result<Recorded>) {
        if let Some(done) = lock(&self.done).take() {
            let _ = done.send(result); // the caller may be gone
        }
    }
}

/// Kinds of rows of [`RECORD`].
const RECORDED: i32 = RESULT;
const LEASED: i32 = RESULT + 1;

/// Records events. Those that are known are left out.
const RECORD: &str = concat!(
    "WITH clock AS MATERIALIZED (SELECT ",
    now!(),
    " AS now), e AS MATERIALIZED (
        SELECT * FROM unnest($3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
            AS e (k, key, id, source, tenant, name, user_id, company_id, created_at, payload_start, payload_length, siblings, token,
                  id_bytes, bytes)
    ), known AS (
        INSERT INTO known_events (key, tenant, at, event, token, bytes)
        SELECT key, tenant, clock.now, CASE WHEN siblings > 0 THEN nextval('event_numbers') END, token, id_bytes
        FROM e, clock ORDER BY key
        ON CONFLICT DO NOTHING
        RETURNING token, event
    ), new AS MATERIALIZED (
        SELECT e.*, known.event AS number FROM known JOIN e USING (token)
    ), stored AS (
        INSERT INTO events (number, source, id, name, tenant, user_id, company_id, created_at, received_at, payload_start,
                            payload_length, siblings, bytes, body)
        SELECT number, source, id, name, tenant, user_id, company_id, created_at, clock.now, payload_start, payload_length,
               siblings, bytes, ($18)[k]
        FROM new, clock WHERE number IS NOT NULL
    ), d AS MATERIALIZED (
        SELECT d.*, new.number
        FROM unnest($19, $20, $21, $22, $23, $24) WITH ORDINALITY AS d (k, id, lane, chat, owner, lease, position)
        JOIN new ON new.k = d.k
    ), locked AS (
        INSERT INTO chats AS c (lane, chat, unfinished)
        SELECT lane, chat, count(*) FROM d WHERE chat IS NOT NULL GROUP BY lane, chat ORDER BY lane, chat
        ON CONFLICT (lane, chat) DO UPDATE SET unfinished = c.unfinished + excluded.unfinished
        RETURNING lane, chat, unfinished
    ), placed AS MATERIALIZED (
        SELECT d.*, d.chat IS NOT NULL AND (
            row_number() OVER (PARTITION BY d.lane, d.chat ORDER BY d.position) > 1
            OR locked.unfinished > count(*) OVER (PARTITION BY d.lane, d.chat)
        ) AS behind
        FROM d LEFT JOIN locked ON locked.lane = d.lane AND locked.chat = d.chat
    ), added AS (
        INSERT INTO deliveries (id, event, lane, chat, behind, state, attempt, earlier, due_at, timed, owner, lease_until,
                                changed_at, changes)
        SELECT id, number, lane, chat, behind, CASE WHEN is_leased THEN 'running' ELSE 'waiting' END, is_leased::integer, 0,
               clock.now, false, CASE WHEN is_leased THEN owner END, CASE WHEN is_leased THEN clock.now + lease END, clock.now,
               is_leased::integer
        FROM (SELECT *, owner IS NOT NULL AND NOT behind AS is_leased FROM placed) AS p, clock ORDER BY position
        RETURNING seq, id, lane, state
    ), begun AS (
        INSERT INTO changes (delivery, number, at, state)
        SELECT seq, 1, clock.now, 'running' FROM added, clock WHERE state = 'running'
    ), moved AS (
        SELECT lane, count(*) FILTER (WHERE state = 'waiting') AS waiting, count(*) FILTER (WHERE state = 'running') AS running,
               0 AS completed, 0 AS dead, 0 AS dropped
        FROM added GROUP BY lane
    ), spent AS (
        SELECT tenant, CASE WHEN siblings > 0 THEN bytes + $25 * siblings ELSE 0 END AS unfinished, 0 AS ended, id_bytes AS ids
        FROM new
    ), ",
    tallied!(),
    " SELECT 3, NULL::text, ARRAY[k, clock.now]::bigint[], NULL::text[], NULL::bytea FROM new, clock
      UNION ALL SELECT 4, id, NULL, NULL, NULL FROM added WHERE state = 'running'
      UNION ALL SELECT * FROM tallied"
);

/// Returns what earlier attempts of these jobs recorded: of each the token, when, and the deliveries that are still leased.
const RECORDED_BEFORE: &str = "
    SELECT 3, d.id, ARRAY[k.token, k.at]::bigint[], ARRAY[d.owner], NULL::bytea
    FROM unnest($1, $2) AS e (key, token)
    JOIN known_events k ON k.key = e.key AND k.token = e.token
    LEFT JOIN deliveries d ON d.event = k.event AND d.state = 'running' AND d.attempt = 1";

/// Records events in batches.
pub(super) struct Records;

impl Batches for Records {
    type Job = RecordJob;

    async fn write(
        &mut self,
        writer: &mut Writer,
        jobs: &[RecordJob],
        is_repeated: bool,
    ) -> std::result::Result<Vec<JobResult<Self>>, Failure> {
        let before = match is_repeated {
            true => recorded_before(writer, jobs).await?,
            false => HashMap::new(),
        };
        let is_new = |job: &&RecordJob| !before.contains_key(&job.token);
        let new: Vec<&RecordJob> = jobs.iter().filter(is_new).collect();
        let mut recorded = before;
        if !new.is_empty() {
            recorded.extend(record(writer, &new).await?);
        }
        Ok(jobs.iter().map(|job| Ok(recorded.remove(&job.token).unwrap_or(Recorded::Duplicate))).collect())
    }
}

/// Returns what was recorded, by token.
async fn recorded_before(
    writer: &mut Writer,
    jobs: &[RecordJob],
) -> std::result::Result<HashMap<i64, Recorded>, Failure> {
    let keys: Vec<&[u8]> = jobs.iter().map(|job| &job.key[..]).collect();
    let tokens: Vec<i64> = jobs.iter().map(|job| job.token).collect();
    let rows = writer.read(RECORDED_BEFORE, values![keys, tokens]).await?;
    let rows = read(&rows, &writer.cache)?;
    let mut recorded = HashMap::new();
    for job in jobs {
        let own = || rows.iter().filter(|row| row.number(0) == job.token);
        let Some(first) = own().next() else { continue };
        let is_leased =
            |id: &str, owner: &str| own().any(|row| row.name.as_deref() == Some(id) && row.text(0) == Some(owner));
        let leases = leases(job, is_leased);
        recorded.insert(job.token, Recorded::New { at: from_millis(first.number(1)), leases });
    }
    Ok(recorded)
}

/// Returns the leases of the deliveries of a job that are leased as wanted.
fn leases(job: &RecordJob, is_leased: impl Fn(&str, &str) -> bool) -> Vec<Lease> {
    let leased = job.deliveries.iter().filter_map(|new| {
        let owner = new.lease.as_ref().map(|lease| &lease.owner)?;
        let (delivery, tenant) = (new.id.clone(), job.event.tenant.clone());
        is_leased(new.id.as_str(), owner).then(|| Lease { delivery, tenant, owner: owner.clone(), attempt: 1 })
    });
    leased.collect()
}

/// Records events in one transaction. Returns those that were new, by token.
async fn record(writer: &mut Writer, jobs: &[&RecordJob]) -> std::result::Result<HashMap<i64, Recorded>, Failure> {
    let events = || jobs.iter().map(|job| &job.event);
    let k: Vec<i64> = (1..=jobs.len() as i64).collect();
    let key: Vec<&[u8]> = jobs.iter().map(|job| &job.key[..]).collect();
    let id: Vec<String> = events().map(|event| escape(&event.id)).collect();
    let source: Vec<&str> = events().map(|event| event.source.as_str()).collect();
    let tenant: Vec<&str> = events().map(|event| event.tenant.as_str()).collect();
    let name: Vec<String> = events().map(|event| escape(&event.name)).collect();
    let user_id: Vec<Option<String>> = events().map(|event| event.user_id.as_deref().map(escape)).collect();
    let company_id: Vec<Option<String>> = events().map(|event| event.company_id.as_deref().map(escape)).collect();
    let created_at: Vec<Option<i64>> = events().map(|event| event.created_at.map(u64::cast_signed)).collect();
    let payload_start: Vec<i64> = events().map(|event| event.payload_range().start as i64).collect();
    let payload_length: Vec<i64> = events().map(|event| event.payload_range().len() as i64).collect();
    let siblings: Vec<i64> = jobs.iter().map(|job| job.deliveries.len() as i64).collect();
    let token: Vec<i64> = jobs.iter().map(|job| job.token).collect();
    let id_bytes: Vec<i64> = events().map(|event| id_bytes(&event.id).cast_signed()).collect();
    let bytes: Vec<i64> = events().map(|event| event_bytes(event.raw().len()).cast_signed()).collect();
    let body: Vec<&[u8]> = events().map(|event| &event.raw()[..]).collect();

    let deliveries =
        || jobs.iter().zip(&k).flat_map(|(job, k)| job.deliveries.iter().zip(&job.lanes).map(move |it| (*k, it)));
    let of_event: Vec<i64> = deliveries().map(|(k, _)| k).collect();
    let delivery: Vec<&str> = deliveries().map(|(_, (new, _))| new.id.as_str()).collect();
    let lane: Vec<i64> = deliveries().map(|(_, (_, lane))| *lane).collect();
    let chat: Vec<Option<String>> =
        deliveries().map(|(_, (new, _))| new.ordered_chat.as_deref().map(chat_key)).collect();
    let owner: Vec<Option<&str>> =
        deliveries().map(|(_, (new, _))| new.lease.as_ref().map(|lease| &*lease.owner)).collect();
    let duration = |lease: &NewLease| whole_millis(lease.duration);
    let lease: Vec<Option<i64>> = deliveries().map(|(_, (new, _))| new.lease.as_ref().map(duration)).collect();

    let (now, slot, delivery_bytes) = (writer.clock.now(), writer.slot, DELIVERY_BYTES.cast_signed());
    let values = values![
        now,
        slot,
        k,
        key,
        id,
        source,
        tenant,
        name,
        user_id,
        company_id,
        created_at,
        payload_start,
        payload_length,
        siblings,
        token,
        id_bytes,
        bytes,
        body,
        of_event,
        delivery,
        lane,
        chat,
        owner,
        lease,
        delivery_bytes
    ];
    let results = writer.transaction(&[(RECORD, values)]).await?;
    let rows = results.into_iter().next().unwrap_or_default();
    let rows = read(&rows, &writer.cache)?;
    let leased: Vec<&str> = of_kind(&rows, LEASED).filter_map(|row| row.name.as_deref()).collect();
    let recorded = of_kind(&rows, RECORDED).filter_map(|row| {
        let job = jobs.get(usize::try_from(row.number(0) - 1).ok()?)?;
        let leases = leases(job, |id, _| leased.contains(&id));
        Some((job.token, Recorded::New { at: from_millis(row.number(1)), leases }))
    });
    Ok(recorded.collect())
}

fn of_kind(rows: &[Row], kind: i32) -> impl Iterator<Item = &Row> {
    rows.iter().filter(move |row| row.kind == kind)
}

/// Returns the ids of the lanes of a tenant's deliveries, and creates those that are missing.
pub(super) async fn lanes(
    pool: &Pool,
    cache: &Cache,
    tenant: &Name,
    deliveries: &[NewDelivery],
) -> std::result::Result<Vec<i64>, StorageError> {
    let mut ids = Vec::with_capacity(deliveries.len());
    for delivery in deliveries {
        ids.push(match cache.lane(tenant, &delivery.module) {
            Some(id) => id,
            None => create_lane(pool, cache, tenant, &delivery.module).await?,
        });
    }
    Ok(ids)
}

/// Creates a lane unless it is there, and returns its id.
async fn create_lane(
    pool: &Pool,
    cache: &Cache,
    tenant: &Name,
    module: &Name,
) -> std::result::Result<i64, StorageError> {
    repeatable!(pool, session => {
        // The update makes the statement return the row in any case.
        let sql = "INSERT INTO lanes (tenant, module) VALUES ($1, $2) ON CONFLICT (tenant, module) DO UPDATE SET tenant = $1 \
                   RETURNING 0, NULL::text, ARRAY[id]::bigint[], ARRAY[tenant, module]::text[], NULL::bytea";
        let rows = session.query(sql, values![tenant.as_str(), module.as_str()]).await?;
        read(&rows, cache)?;
        cache.lane(tenant, module).ok_or_else(|| {
            Failure::Refused(StorageError::broken(STORE, "PostgreSQL returned no row for a lane"))
        })
    })
}

/// The error of an operation whose worker has stopped.
pub(super) fn stopped<E>(_: E) -> JournalError {
    StorageError::closed(STORE).into()
}

/// Wraps the id of a delivery.
pub(super) fn delivery_id(row: &Row) -> DeliveryId {
    DeliveryId::from_text(row.name.as_deref().unwrap_or_default())
}
