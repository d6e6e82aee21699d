//! The journal in a PostgreSQL database that several hosts share.
//!
//! Every change is one statement or a few in one transaction, which also changes the counts. What many callers do at once
//! (recording, writing calls, completing attempts) is queued and written in batches by workers, each with a connection of its
//! own ([`worker`]). The engine's clock is that of the database. [`schema`] documents the tables.
//!
//! Every operation locks rows in the same order: chats, events with several deliveries, deliveries, counts. Within a table, rows
//! are locked in the order of their keys.

mod attempt_jobs;
mod cache;
mod calls;
mod claim;
mod hosts;
mod operators;
mod purge;
mod queue;
mod reading;
mod record;
mod rows;
mod schema;
mod time;
mod worker;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinHandle};

use self::attempt_jobs::{AttemptJob, Attempts, Change, Done};
use self::cache::Cache;
use self::queue::Queue;
use self::record::{RecordJob, Records};
pub(crate) use self::record::{chat_key, event_key};
use self::rows::{Row, read};
pub(crate) use self::schema::JOURNAL as POSTGRES_TABLES;
use self::schema::{JOURNAL, STORE};
use self::time::EngineClock;
use self::worker::{Health, Worker, Writer};
use super::{
    AttemptReport, Backlog, Call, Claim, Claimed, CommitHandle, Details, Disposition, Due, Filter, Heartbeat, Journal,
    Lane, Lease, NewDelivery, Recorded, Result, Retention, Summary, TenantUsage, Totals,
};
use crate::error::StorageError;
use crate::postgres::{Database, Failure, Pool, Row as SqlRow, Session, read, repeatable, statement, values};
use modhost_core::clock::Clock;
use modhost_core::event::{DeliveryId, Event, Name};
use modhost_core::sync::lock;

/// How often the counts of other hosts are read, and how often a host looks for the deliveries of others.
const POLL_EVERY: Duration = Duration::from_millis(250);

/// The number of workers that record events, each with a connection.
const RECORD_WORKERS: usize = 3;

/// The number of workers that write what attempts write, each with a connection. The jobs of a delivery have the same one.
const ATTEMPT_WORKERS: usize = 3;

/// The number of connections that claim deliveries.
const CLAIM_CONNECTIONS: usize = 2;

/// The number of connections that only read.
const READ_CONNECTIONS: usize = 3;

/// The number of slots of the counts. Two connections that use the same one wait for each other.
const SLOTS: i32 = 256;

/// The tables of the journal, for its size.
const SIZE: &str = "SELECT sum(pg_total_relation_size(name::regclass))::bigint FROM unnest(ARRAY['lanes', 'events', 'known_events', \
    'deliveries', 'chats', 'changes', 'attempts', 'calls', 'counts', 'tenant_usage']) AS t (name)";

/// Returns all lanes and counts.
const REFRESH: &str = "
    SELECT 0, NULL::text, ARRAY[id]::bigint[], ARRAY[tenant, module]::text[], NULL::bytea FROM lanes
    UNION ALL
    SELECT 1, NULL, ARRAY[lane, slot, waiting, running, completed, dead, dropped, version]::bigint[], NULL, NULL FROM counts
    UNION ALL
    SELECT 2, tenant, ARRAY[slot, unfinished, ended, ids, version]::bigint[], NULL, NULL FROM tenant_usage";

/// A journal in a PostgreSQL database. Dropping it without [`Journal::close`] loses no acknowledged write.
pub struct Postgres {
    database: Database,
    pools: Pools,
    slots: Slots,
    cache: Arc<Cache>,
    clock: EngineClock,
    health: Arc<Health>,
    salt: [u8; 32],
    records: Arc<Queue<RecordJob>>,
    attempts: Vec<Arc<Queue<AttemptJob>>>,
    /// `None` once the journal is closed.
    workers: Mutex<Option<Vec<JoinHandle<()>>>>,
    poll: AbortHandle,
}

/// The connections, by role. The workers have pools of their own.
struct Pools {
    claim: Pool,
    /// Heartbeats, and what hosts do about each other.
    beat: Pool,
    read: Pool,
    operators: Pool,
}

/// The slots of the counts that are not those of a worker.
struct Slots {
    claim: [i32; CLAIM_CONNECTIONS],
    next: AtomicUsize,
    operators: i32,
}

impl Postgres {
    /// Opens the journal in a database, and creates or migrates its tables if necessary.
    ///
    /// # Errors
    ///
    /// [`StorageErrorKind::Unavailable`](crate::error::StorageErrorKind::Unavailable) if the database can't be reached;
    /// [`StorageErrorKind::Unusable`](crate::error::StorageErrorKind::Unusable) if its tables are too new, or if it loses what it
    /// acknowledges.
    pub async fn open(database: Database) -> Result<Self> {
        Self::open_with(database, EngineClock::Database).await
    }

    /// Opens the journal in a database, with a clock instead of that of the database.
    ///
    /// # Errors
    ///
    /// As [`Postgres::open`].
    pub async fn open_with_clock(database: Database, clock: Arc<dyn Clock>) -> Result<Self> {
        Self::open_with(database, EngineClock::Set(clock)).await
    }

    async fn open_with(database: Database, clock: EngineClock) -> Result<Self> {
        database.migrate(&JOURNAL).await?;
        let pool = |role, size| database.pool(STORE, role, size);
        let pools = Pools {
            claim: pool("claims", CLAIM_CONNECTIONS),
            beat: pool("heartbeats", 1),
            read: pool("reads", READ_CONNECTIONS),
            operators: pool("operators", 1),
        };
        // Rows of workers whose host crashed. A worker that has worked for longer gets another row.
        let old = "DELETE FROM writers WHERE at < now() - interval '30 days'";
        repeatable!(pools.operators, session => session.execute(old, &[]).await)?;
        let salt = read!(pools.read, session => read_salt(session).await)?;
        // Slots of a host are next to each other, so that they differ.
        let first = fastrand::i32(0..SLOTS);
        let slot = |index: usize| (first + i32::try_from(index).unwrap_or_default()) % SLOTS;
        let claim = std::array::from_fn(|index| slot(RECORD_WORKERS + ATTEMPT_WORKERS + index));
        let operators = slot(RECORD_WORKERS + ATTEMPT_WORKERS + CLAIM_CONNECTIONS);
        let (cache, health) = (Arc::new(Cache::default()), Arc::new(Health::default()));
        let writer = |pool: Pool, index| Writer::new(pool, Arc::clone(&cache), clock.clone(), slot(index));
        let mut workers = Vec::new();
        let (records, record_pool) = (Arc::new(Queue::new()), pool("recording", RECORD_WORKERS));
        for index in 0..RECORD_WORKERS {
            let (queue, writer) = (Arc::clone(&records), writer(record_pool.clone(), index));
            let worker = Worker { queue, writer, batches: Records, health: Arc::clone(&health) };
            workers.push(tokio::spawn(worker.run()));
        }
        let (mut attempts, attempt_pool) = (Vec::new(), pool("attempts", ATTEMPT_WORKERS));
        for index in 0..ATTEMPT_WORKERS {
            let (queue, writer) = (Arc::new(Queue::new()), writer(attempt_pool.clone(), RECORD_WORKERS + index));
            attempts.push(Arc::clone(&queue));
            let worker = Worker { queue, writer, batches: Attempts::default(), health: Arc::clone(&health) };
            workers.push(tokio::spawn(worker.run()));
        }
        refresh(&pools.read, &cache).await?;
        let poll = tokio::spawn(poll(pool("polls", 1), Arc::clone(&cache))).abort_handle();
        let slots = Slots { claim, next: AtomicUsize::new(0), operators };
        let workers = Mutex::new(Some(workers));
        Ok(Self { database, pools, slots, cache, clock, health, salt, records, attempts, workers, poll })
    }

    /// Returns the database.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Reads the counts of all hosts.
    async fn refresh(&self) -> std::result::Result<(), StorageError> {
        refresh(&self.pools.read, &self.cache).await
    }

    /// Returns the next slot for a statement that is not a worker's.
    fn next_slot(&self) -> i32 {
        self.slots.claim[self.slots.next.fetch_add(1, Ordering::Relaxed) % CLAIM_CONNECTIONS]
    }

    /// Updates the counts from the result of a change. Returns its other rows.
    async fn applied(
        &self,
        result: std::result::Result<Vec<SqlRow>, StorageError>,
    ) -> std::result::Result<Vec<Row>, StorageError> {
        let rows = read(&self.noted(result)?, &self.cache)?;
        if self.cache.take_unknown() {
            // Some counts belong to lanes that another host created.
            self.refresh().await?;
        }
        Ok(rows)
    }

    fn noted<T>(&self, result: std::result::Result<T, StorageError>) -> std::result::Result<T, StorageError> {
        self.health.note(result.as_ref());
        result
    }

    /// Queues what an attempt writes, at the worker of its delivery.
    fn submit(&self, lease: &Lease, change: Change, done: Done) -> Result<()> {
        let mut hasher = DefaultHasher::new();
        lease.delivery.hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % self.attempts.len().max(1) as u64).unwrap_or_default();
        let queue = self.attempts.get(index).ok_or_else(|| StorageError::closed(STORE))?;
        Ok(queue.push(AttemptJob::new(lease.clone(), change, done))?)
    }

    /// Queues a change of calls.
    fn change_calls(&self, lease: &Lease, change: Change) -> Result<CommitHandle> {
        let (done, written) = oneshot::channel();
        self.submit(lease, change, Done::Written(done))?;
        Ok(CommitHandle::pending(written))
    }

    fn close_queues(&self) {
        self.records.close();
        self.attempts.iter().for_each(|queue| queue.close());
    }
}

/// Runs a statement that changes the counts, given the time and a slot. Returns the rows of its result, or an error.
macro_rules! change {
    ($journal:ident, $pool:expr, $sql:expr, $now:ident, $slot:ident => $values:expr) => {{
        let ($now, $slot) = ($journal.clock.now(), $journal.next_slot());
        let changed = statement!($pool, session => session.query($sql, $values).await);
        $journal.applied(changed).await
    }};
}
use change;

impl Drop for Postgres {
    /// The workers write what is queued, and end.
    fn drop(&mut self) {
        self.close_queues();
        self.poll.abort();
    }
}

async fn read_salt(session: &Session) -> std::result::Result<[u8; 32], Failure> {
    let broken = || Failure::Refused(StorageError::broken(STORE, "the table salt does not have one row of 32 bytes"));
    let rows = session.query("SELECT value FROM salt", &[]).await?;
    let salt: Vec<u8> = session.get(rows.first().ok_or_else(broken)?, 0)?;
    salt.try_into().map_err(|_| broken())
}

async fn refresh(pool: &Pool, cache: &Cache) -> std::result::Result<(), StorageError> {
    read!(pool, session => {
        let rows = session.query(REFRESH, &[]).await?;
        read(&rows, cache)?;
        Ok(())
    })?;
    cache.take_unknown();
    Ok(())
}

/// Reads the counts of all hosts again and again.
async fn poll(pool: Pool, cache: Arc<Cache>) {
    loop {
        tokio::time::sleep(POLL_EVERY).await;
        if let Err(error) = refresh(&pool, &cache).await {
            tracing::debug!(%error, "cannot read the counts of the journal");
        }
    }
}

#[async_trait]
impl Journal for Postgres {
    async fn record(&self, event: Arc<Event>, deliveries: Vec<NewDelivery>) -> Result<Recorded> {
        let lanes = record::lanes(&self.pools.claim, &self.cache, &event.tenant, &deliveries).await?;
        let (done, recorded) = oneshot::channel();
        self.records.push(RecordJob::new(event, deliveries, lanes, done))?;
        recorded.await.map_err(record::stopped)?
    }

    async fn lanes(&self) -> Result<Vec<Lane>> {
        self.refresh().await?;
        Ok(self.cache.waiting())
    }

    fn backlog(&self, tenant: &Name) -> Backlog {
        self.cache.backlog(tenant)
    }

    async fn due(&self, limit: u32) -> Result<Vec<Due>> {
        Ok(self.due_by_lane(limit).await?)
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<Claimed>> {
        Ok(self.claim_due(&claim).await?)
    }

    async fn next_due(&self) -> Result<Option<Duration>> {
        Ok(self.next_due_in().await?)
    }

    async fn heartbeat(&self, owner: &str, running: Vec<Lease>, lease: Duration) -> Result<Heartbeat> {
        Ok(self.extend(owner, running, lease).await?)
    }

    async fn reclaim(&self, gone: Option<&str>) -> Result<u64> {
        Ok(self.requeue_lost(gone).await?)
    }

    async fn unclaim(&self, lease: &Lease) -> Result<bool> {
        Ok(self.requeue(lease).await?)
    }

    async fn complete_attempt(&self, lease: &Lease, report: AttemptReport, next: Disposition) -> Result<bool> {
        let log = serde_json::to_string(&report.log).map_err(|error| {
            StorageError::broken(STORE, format!("cannot write the log of delivery {}: {error}", lease.delivery))
        })?;
        let (done, completed) = oneshot::channel();
        let change = Change::Complete(Box::new((report, log, next)));
        self.submit(lease, change, Done::Completed(done))?;
        completed.await.map_err(record::stopped)?
    }

    async fn calls(&self, delivery: &DeliveryId) -> Result<Vec<Call>> {
        Ok(self.calls_of(delivery).await?)
    }

    fn write(&self, lease: &Lease, call: Call) -> Result<CommitHandle> {
        self.change_calls(lease, Change::Write(call))
    }

    fn forget(&self, lease: &Lease, from: u32) -> Result<CommitHandle> {
        self.change_calls(lease, Change::Forget(from))
    }

    async fn list(&self, filter: Filter) -> Result<Vec<Summary>> {
        Ok(self.find(&filter).await?)
    }

    async fn show(&self, delivery: &DeliveryId) -> Result<Option<Details>> {
        Ok(self.details(delivery).await?)
    }

    async fn resend(&self, delivery: &DeliveryId, fresh: bool) -> Result<bool> {
        Ok(self.send_again(delivery, fresh).await?)
    }

    async fn drop_waiting(&self, delivery: &DeliveryId, reason: &str) -> Result<bool> {
        Ok(self.drop_delivery(delivery, reason).await?)
    }

    fn usage(&self) -> Vec<TenantUsage> {
        self.cache.usage()
    }

    async fn totals(&self) -> Result<Totals> {
        self.refresh().await?;
        let size = read!(self.pools.read, session => {
            let rows = session.query(SIZE, &[]).await?;
            rows.first().map_or(Ok(0), |row| session.get::<i64>(row, 0))
        });
        Ok(Totals { deliveries: self.cache.totals(), bytes: size?.max(0).unsigned_abs() })
    }

    fn health(&self) -> Result<()> {
        Ok(self.health.get()?)
    }

    async fn probe(&self) -> Result<()> {
        // A row that is written and removed again.
        let probed = statement!(self.pools.operators, session => {
            let sql = "WITH probe AS (INSERT INTO writers DEFAULT VALUES RETURNING id) SELECT id FROM probe";
            let rows = session.query(sql, &[]).await?;
            let id: i64 = rows.first().map_or(Ok(0), |row| session.get(row, 0))?;
            session.execute("DELETE FROM writers WHERE id = $1", values![id]).await
        });
        Ok(self.noted(probed).map(drop)?)
    }

    fn salt(&self) -> [u8; 32] {
        self.salt
    }

    async fn purge(&self, keep: Retention, batch: u32) -> Result<u64> {
        Ok(self.remove_old(&keep, batch).await?)
    }

    async fn close(&self) -> Result<()> {
        self.close_queues();
        let workers = lock(&self.workers).take().ok_or_else(|| StorageError::closed(STORE))?;
        for worker in workers {
            if worker.await.is_err() {
                return Err(StorageError::broken(STORE, "a worker failed; see the log").into());
            }
        }
        self.poll.abort();
        let Pools { claim, beat, read, operators } = &self.pools;
        [claim, beat, read, operators].into_iter().for_each(Pool::close);
        Ok(())
    }
}
