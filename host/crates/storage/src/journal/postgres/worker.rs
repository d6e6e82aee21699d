//! Workers that write queued jobs in batches, each with a connection of its own.
//!
//! A batch is one transaction in one round trip. Its jobs get their results after the commit. If the connection breaks, the
//! worker connects again and repeats the batch, after it has made sure that the earlier transaction is committed or can't be
//! any more ([`Writer`]); the operations recognize what they have done.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::cache::Cache;
use super::queue::{Queue, QueuedJob};
use super::schema::STORE;
use super::time::EngineClock;
use crate::error::{StorageError, StorageErrorKind};
use crate::journal::JournalError;
use crate::postgres::{Failure, Pool, PooledSession, Row as SqlRow, Value, repeatable, values};
use modhost_core::backoff::Backoff;
use modhost_core::sync::lock;

/// How long jobs wait for the commit of their batch before they fail. The batch goes on: a commit that waits for a synchronous
/// standby is never given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// The number of times that a batch is repeated if others are in conflict with it.
const MAX_CONFLICTS: u32 = 20;

/// The delays after a conflict.
const CONFLICT_BACKOFF: Backoff = Backoff::new(Duration::from_millis(2), Duration::from_millis(200));

/// Fails with a division by zero if the writer's epoch has advanced.
const FENCE: &str = "SELECT 1 / count(*) FROM \
    (SELECT 1 FROM writers WHERE id = $1 AND epoch = $2 FOR SHARE) AS writer";

/// Whether the last write reached the database.
#[derive(Default)]
pub(super) struct Health(Mutex<Option<StorageError>>);

impl Health {
    /// Returns the error of the last write.
    pub(super) fn get(&self) -> Result<(), StorageError> {
        lock(&self.0).clone().map_or(Ok(()), Err)
    }

    /// Notes the result of a write. Errors of the written data don't count.
    pub(super) fn note<T>(&self, result: Result<T, &StorageError>) {
        match result {
            Ok(_) => *lock(&self.0) = None,
            Err(error) if error.kind == StorageErrorKind::Broken => {}
            Err(error) => *lock(&self.0) = Some(error.clone()),
        }
    }
}

/// A job that waits for its result.
pub(super) trait Job: QueuedJob + Sync {
    /// The result.
    type Output: Send;

    /// Delivers the result, unless one was delivered.
    fn finish(&self, result: Result<Self::Output, JournalError>);
}

/// The operation of a worker.
pub(super) trait Batches: Send + 'static {
    /// The jobs.
    type Job: Job;

    /// Writes the jobs in one transaction. Returns their results in order. With `is_repeated`, an earlier attempt may have
    /// been committed.
    fn write(
        &mut self,
        writer: &mut Writer,
        jobs: &[Self::Job],
        is_repeated: bool,
    ) -> impl Future<Output = Result<Vec<JobResult<Self>>, Failure>> + Send;

    /// Notes that a job was not written.
    fn failed(&mut self, _job: &Self::Job, _error: &JournalError) {}
}

/// The result of a job.
pub(super) type JobResult<B> = Result<<<B as Batches>::Job as Job>::Output, JournalError>;

/// Writes the jobs of a queue.
pub(super) struct Worker<B: Batches> {
    pub(super) queue: Arc<Queue<B::Job>>,
    pub(super) writer: Writer,
    pub(super) batches: B,
    pub(super) health: Arc<Health>,
}

impl<B: Batches> Worker<B> {
    /// Writes until the queue is closed and empty.
    pub(super) async fn run(mut self) {
        while let Some(jobs) = self.queue.next_batch().await {
            let mut parts = vec![jobs];
            while let Some(mut jobs) = parts.pop() {
                match self.commit(&jobs).await {
                    Ok(results) => jobs.iter().zip(results).for_each(|(job, result)| job.finish(result)),
                    // One of them is invalid. The others must not fail with it.
                    Err(Failure::Refused(error)) if jobs.len() > 1 && error.kind == StorageErrorKind::Broken => {
                        parts.push(jobs.split_off(jobs.len() / 2));
                        parts.push(jobs);
                    }
                    Err(failure) => self.fail(&jobs, failure.into_error()),
                }
            }
        }
        self.writer.leave().await;
    }

    fn fail(&mut self, jobs: &[B::Job], error: StorageError) {
        self.health.note(Err::<(), _>(&error));
        let error = JournalError::from(error);
        for job in jobs {
            self.batches.failed(job, &error);
            job.finish(Err(error.clone()));
        }
    }

    /// Writes jobs, and repeats it after conflicts and broken connections.
    async fn commit(&mut self, jobs: &[B::Job]) -> Result<Vec<JobResult<B>>, Failure> {
        let started = Instant::now();
        let (mut conflicts, mut broken) = (0, None);
        loop {
            match self.attempt(jobs, broken.as_ref(), started).await {
                Ok(results) => {
                    self.health.note(Ok::<_, &StorageError>(()));
                    return Ok(results);
                }
                Err(Failure::Conflict(_)) if conflicts < MAX_CONFLICTS => {
                    tokio::time::sleep(CONFLICT_BACKOFF.full_jitter(conflicts)).await;
                    conflicts += 1;
                }
                Err(Failure::Disconnected(error)) if started.elapsed() < PATIENCE => {
                    tracing::debug!(%error, "repeating a batch after a broken connection");
                    broken = Some(error);
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Writes jobs once. Fails them when they have waited too long, and goes on. `broken` is why an earlier attempt failed, if its
    /// outcome is unknown.
    async fn attempt(
        &mut self,
        jobs: &[B::Job],
        broken: Option<&StorageError>,
        started: Instant,
    ) -> Result<Vec<JobResult<B>>, Failure> {
        let (health, store) = (&self.health, self.writer.pool.store());
        let mut writing = std::pin::pin!(self.batches.write(&mut self.writer, jobs, broken.is_some()));
        tokio::select! {
            biased;
            result = &mut writing => return result,
            () = tokio::time::sleep_until((started + PATIENCE).into()) => {}
        }
        let error = broken.cloned().unwrap_or_else(|| {
            let detail = format!(
                "a commit is not acknowledged after {PATIENCE:?}; if a standby is missing, PostgreSQL waits for it \
                 (synchronous_standby_names)"
            );
            StorageError::unavailable(store, detail)
        });
        health.note(Err::<(), _>(&error));
        jobs.iter().for_each(|job| job.finish(Err(error.clone().into())));
        writing.await
    }
}

/// The connection of a worker, and what makes its transactions its own.
///
/// Every transaction locks the worker's row in `writers` and checks its epoch. After a broken connection the epoch is advanced,
/// which waits for a transaction that is still under way in the server, and refuses one that is on its way to it. Then the
/// outcome is known, and no earlier write can overtake a later one.
pub(super) struct Writer {
    pool: Pool,
    pub(super) cache: Arc<Cache>,
    pub(super) clock: EngineClock,
    /// The slot in which this worker counts.
    pub(super) slot: i32,
    /// The row in `writers`: its id and the epoch.
    row: Option<(i64, i64)>,
    /// Whether an earlier transaction may still be under way.
    is_in_doubt: bool,
}

impl Writer {
    pub(super) fn new(pool: Pool, cache: Arc<Cache>, clock: EngineClock, slot: i32) -> Self {
        Self { pool, cache, clock, slot, row: None, is_in_doubt: false }
    }

    /// Returns a connection with which the next transaction may begin.
    async fn session(&mut self) -> Result<(PooledSession, (i64, i64)), Failure> {
        let mut session = self.pool.get().await?;
        session.set_dirty(true);
        if let Some(row) = self.row.filter(|_| !self.is_in_doubt) {
            return Ok((session, row));
        }
        let mut rows = Vec::new();
        if let Some((id, _)) = self.row {
            let sql = "UPDATE writers SET epoch = epoch + 1, at = now() WHERE id = $1 RETURNING id, epoch";
            rows = session.query(sql, values![id]).await?;
        }
        if rows.is_empty() {
            rows = session.query("INSERT INTO writers DEFAULT VALUES RETURNING id, epoch", &[]).await?;
        }
        let Some(row) = rows.first() else {
            return Err(Failure::Conflict(StorageError::unavailable(STORE, "PostgreSQL returned no row for a writer")));
        };
        let row = (session.get(row, 0)?, session.get(row, 1)?);
        self.row = Some(row);
        self.is_in_doubt = false;
        Ok((session, row))
    }

    /// Runs statements in one transaction and one round trip. Returns their rows after the commit.
    pub(super) async fn transaction(
        &mut self,
        statements: &[(&str, &[Value<'_>])],
    ) -> Result<Vec<Vec<SqlRow>>, Failure> {
        let (mut session, (id, epoch)) = self.session().await?;
        self.is_in_doubt = true;
        let all = futures::future::join_all(statements.iter().map(|(sql, values)| session.query(sql, values)));
        // Each future sends its message when it is polled first, so the order of the messages is that of the futures. After an
        // error the server ignores the statements that follow, and the commit rolls back.
        let fence = values![id, epoch];
        let (begun, fenced, results, committed) = tokio::join!(
            biased;
            session.batch("BEGIN ISOLATION LEVEL READ COMMITTED"),
            session.query(FENCE, fence),
            all,
            session.batch("COMMIT"),
        );
        let result = begun.and_then(|()| match fenced {
            // Somebody removed the row.
            Err(Failure::Refused(error)) => Err(Failure::Conflict(error)),
            other => other,
        });
        let is_fenced = matches!(result, Err(Failure::Conflict(_)));
        let result = result.and_then(|_| results.into_iter().collect::<Result<Vec<_>, _>>());
        let result = result.and_then(|rows| committed.map(|()| rows));
        let is_broken = matches!(result, Err(Failure::Disconnected(_)));
        self.is_in_doubt = is_broken || is_fenced;
        session.set_dirty(is_broken);
        result
    }

    /// Runs a query that changes nothing, outside of a transaction.
    pub(super) async fn read(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Vec<SqlRow>, Failure> {
        let (mut session, _) = self.session().await?;
        let rows = session.query(sql, values).await?;
        session.set_dirty(false);
        Ok(rows)
    }

    /// Removes the worker's row.
    async fn leave(&mut self) {
        let Some((id, _)) = self.row.take() else { return };
        let leaving =
            repeatable!(self.pool, session => session.execute("DELETE FROM writers WHERE id = $1", values![id]).await);
        if let Err(error) = leaving {
            tracing::debug!(%error, "cannot remove the row of a writer");
        }
    }
}
