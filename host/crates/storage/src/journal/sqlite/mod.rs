//! The journal in one SQLite file, for one host.
//!
//! One thread commits all queued jobs in one transaction, so that they share one disk write. Reads run concurrently on
//! other connections. One host at a time can open the journal. Operators can query the file with SQLite tools while the
//! host runs; [`schema`] documents the tables.

mod calls;
mod checkpoint;
mod claim;
mod column;
mod complete_attempt;
mod counts;
mod delivery_row;
mod offline;
mod open;
mod purge;
mod reading;
mod record;
mod running;
mod schema;
mod store;
mod tenant_usages;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;

use self::calls::{Change, PendingBytes};
use self::counts::Counts;
use self::schema::JOURNAL;
use self::store::Store;
use super::{
    AttemptReport, Backlog, Call, Claim, Claimed, CommitHandle, Details, Disposition, Due, Filter, Heartbeat, Journal,
    Lane, Lease, NewDelivery, Recorded, Result, Retention, Summary, TenantUsage, Totals,
};
use crate::error::StorageError;
use crate::sqlite::{Database, JobClass, Readers, Writer, WriterLimits};
use modhost_core::clock::{Clock, SystemClock, to_millis};
use modhost_core::event::{DeliveryId, Event, Name};
pub use offline::OfflineJournal;
pub(crate) use schema::JOURNAL as SQLITE_TABLES;

/// The limits of the journal's writer.
const LIMITS: WriterLimits = WriterLimits { queued: 2 * calls::MAX_PENDING_CALLS, batch: 1024 };

/// The location of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteSettings {
    /// The directory of its files; created if necessary.
    pub directory: PathBuf,
}

impl SqliteSettings {
    /// Returns the path of the journal's file. A backup consists of this file and its `-wal` file.
    pub fn file(&self) -> PathBuf {
        Database::new(&JOURNAL, self.directory.clone()).file()
    }
}

/// Accepts the loss of the changes that are missing from the journal in a directory. Returns a description of them;
/// `None` if nothing is missing.
pub fn accept_loss(directory: &Path) -> Result<Option<String>> {
    Ok(Database::new(&JOURNAL, directory.to_owned()).accept_loss()?)
}

/// A journal in one SQLite file. Dropping it without [`Journal::close`] loses no acknowledged write.
pub struct Sqlite {
    writer: Writer<Store>,
    pending: PendingBytes,
    readers: Readers,
    counts: Arc<Counts>,
    database: Database,
    clock: Arc<dyn Clock>,
    salt: [u8; 32],
}

impl Sqlite {
    /// Opens the journal in a directory, or creates an empty one. Takes seconds if it has a million deliveries.
    ///
    /// # Errors
    ///
    /// [`StorageErrorKind::Unusable`](crate::error::StorageErrorKind::Unusable) if another host uses the directory, or
    /// if the file is damaged, was written by a newer version, or is not a journal. The file is left unchanged then.
    pub async fn open(settings: SqliteSettings) -> Result<Self> {
        Self::open_with_clock(settings, Arc::new(SystemClock)).await
    }

    /// Opens the journal in a directory with a clock.
    ///
    /// # Errors
    ///
    /// As [`Sqlite::open`].
    pub async fn open_with_clock(settings: SqliteSettings, clock: Arc<dyn Clock>) -> Result<Self> {
        let database = Database::new(&JOURNAL, settings.directory);
        let opened = database.clone();
        let opening = tokio::task::spawn_blocking(move || {
            let (store, salt) = open::open(&opened)?;
            let counts = Arc::clone(store.counts());
            let writer = Writer::start(store, "journal", LIMITS)?;
            let readers = Readers::new(opened.clone());
            Ok(Self { writer, pending: PendingBytes::default(), readers, counts, database: opened, clock, salt })
        });
        opening.await.map_err(|error| database.task_failed(&error))?
    }

    /// Returns the current time, in milliseconds since 1970.
    fn now(&self) -> i64 {
        to_millis(self.clock.now())
    }

    fn change_calls(&self, lease: &Lease, change: Change) -> Result<CommitHandle> {
        let (done, written) = oneshot::channel();
        self.writer.submit(Box::new(self.pending.job(lease, change, done)?))?;
        Ok(CommitHandle::pending(written))
    }
}

#[async_trait]
impl Journal for Sqlite {
    async fn record(&self, event: Arc<Event>, deliveries: Vec<NewDelivery>) -> Result<Recorded> {
        let now = self.now();
        let class = JobClass::of_event(&event.tenant, event.raw().len());
        self.writer.ask_in(class, move |store| Ok(store.record(&event, &deliveries, now)?)).await
    }

    async fn lanes(&self) -> Result<Vec<Lane>> {
        Ok(self.counts.waiting())
    }

    fn backlog(&self, tenant: &Name) -> Backlog {
        self.counts.backlog(tenant)
    }

    async fn due(&self, limit: u32) -> Result<Vec<Due>> {
        let (lanes, now) = (self.counts.waiting_ids(), self.now());
        Ok(self.readers.read(move |connection| reading::due(connection, lanes, now, limit)).await?)
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<Claimed>> {
        let now = self.now();
        let claimed = self.writer.ask(move |store| Ok(store.claim(&claim, now)?)).await?;
        Ok(claimed.into_iter().map(Claimed::from).collect())
    }

    async fn next_due(&self) -> Result<Option<Duration>> {
        let due = self.readers.read(reading::next_due).await?;
        let now = self.now();
        Ok(due.map(|due| Duration::from_millis(due.saturating_sub(now).max(0).unsigned_abs())))
    }

    async fn heartbeat(&self, owner: &str, running: Vec<Lease>, lease: Duration) -> Result<Heartbeat> {
        let (owner, now) = (owner.into(), self.now());
        self.writer.ask(move |store| Ok(store.heartbeat(&owner, &running, lease, now)?)).await
    }

    async fn reclaim(&self, gone: Option<&str>) -> Result<u64> {
        let (gone, now) = (gone.map(str::to_owned), self.now());
        self.writer.ask(move |store| Ok(store.reclaim(gone.as_deref(), now)?)).await
    }

    async fn unclaim(&self, lease: &Lease) -> Result<bool> {
        let (lease, now) = (lease.clone(), self.now());
        let class = JobClass::of_module(&lease.tenant, 0);
        self.writer.ask_in(class, move |store| Ok(store.unclaim(&lease, now)?)).await
    }

    async fn complete_attempt(&self, lease: &Lease, report: AttemptReport, next: Disposition) -> Result<bool> {
        let log = serde_json::to_string(&report.log).map_err(|error| {
            self.database.broken(format!("cannot write the log of delivery {}: {error}", lease.delivery))
        })?;
        let (lease, now) = (lease.clone(), self.clock.now());
        // Behind the calls of the attempt, which are queued for the same tenant. Nobody waits for it.
        let class = JobClass::of_module(&lease.tenant, log.len()).deferred();
        self.writer.ask_in(class, move |store| store.complete_attempt(&lease, &report, &log, &next, now)).await
    }

    async fn calls(&self, delivery: &DeliveryId) -> Result<Vec<Call>> {
        let delivery = delivery.clone();
        Ok(self.readers.read(move |connection| reading::calls(connection, &delivery)).await?)
    }

    fn write(&self, lease: &Lease, call: Call) -> Result<CommitHandle> {
        self.change_calls(lease, Change::Write(call))
    }

    fn forget(&self, lease: &Lease, from: u32) -> Result<CommitHandle> {
        self.change_calls(lease, Change::Forget(from))
    }

    async fn list(&self, filter: Filter) -> Result<Vec<Summary>> {
        let totals = self.counts.totals();
        Ok(self.readers.read(move |connection| reading::list(connection, &filter, totals)).await?)
    }

    async fn show(&self, delivery: &DeliveryId) -> Result<Option<Details>> {
        let delivery = delivery.clone();
        let history = self.readers.read(move |connection| reading::show(connection, &delivery)).await?;
        Ok(history.map(Details::from))
    }

    async fn resend(&self, delivery: &DeliveryId, fresh: bool) -> Result<bool> {
        let (delivery, now) = (delivery.clone(), self.now());
        self.writer.ask(move |store| Ok(store.resend(&delivery, fresh, now)?)).await
    }

    async fn drop_waiting(&self, delivery: &DeliveryId, reason: &str) -> Result<bool> {
        let (delivery, reason, now) = (delivery.clone(), reason.to_owned(), self.now());
        self.writer.ask(move |store| Ok(store.drop_waiting(&delivery, &reason, now)?)).await
    }

    fn usage(&self) -> Vec<TenantUsage> {
        self.counts.usage()
    }

    async fn totals(&self) -> Result<Totals> {
        let size = |path| std::fs::metadata(path).map_or(0, |file| file.len());
        let bytes = size(self.database.file()) + size(self.database.wal());
        Ok(Totals { deliveries: self.counts.totals(), bytes })
    }

    async fn purge(&self, keep: Retention, batch: u32) -> Result<u64> {
        let now = self.now();
        self.writer.ask(move |store| Ok(store.purge(&keep, now, batch)?)).await
    }

    fn health(&self) -> Result<()> {
        Ok(self.writer.health()?)
    }

    async fn probe(&self) -> Result<()> {
        let in_doubt = self.writer.health().is_err();
        self.writer.ask(|store| Ok(store.touch()?)).await?;
        // A successful write does not prove that there is free space: SQLite may have reused space in the write-ahead
        // log.
        let database = self.database.clone();
        let checked: std::result::Result<(), StorageError> =
            tokio::task::spawn_blocking(move || database.check_free_space(in_doubt))
                .await
                .map_err(|error| self.database.task_failed(&error))?;
        Ok(checked?)
    }

    fn salt(&self) -> [u8; 32] {
        self.salt
    }

    async fn close(&self) -> Result<()> {
        self.readers.close().await;
        Ok(self.writer.close().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::StorageErrorKind;

    fn event(number: usize) -> Arc<Event> {
        let header = modhost_core::event::Header {
            id: format!("evt_{number}"),
            source: "unique".into(),
            name: "test.happened".to_owned(),
            tenant: "acme".into(),
            user_id: None,
            company_id: None,
            created_at: None,
        };
        Arc::new(Event::new(header, bytes::Bytes::from_static(b"{}"), 0..2))
    }

    /// Does everything that happens to deliveries, several times, with values that differ.
    async fn run_deliveries(journal: &Sqlite) {
        let (owner, duration): (Arc<str>, _) = ("host".into(), Duration::from_secs(30));
        for number in 0..30 {
            let (event, modules): (_, &[&str]) =
                (event(number), if number % 2 == 0 { &["Echo"] } else { &["Echo", "Log"] });
            let new = modules.iter().map(|module| NewDelivery {
                id: DeliveryId::new(&event, &(*module).into()),
                module: (*module).into(),
                ordered_chat: (number % 3 > 0).then(|| format!("chat_{}", number % 3)),
                lease: (number % 5 < 3).then(|| super::super::NewLease { owner: owner.clone(), duration }),
            });
            let Recorded::New { leases: mut held, .. } = journal.record(event.clone(), new.collect()).await.unwrap()
            else {
                panic!("a new event is a duplicate")
            };
            for module in modules {
                let (tenant, module, owner) = ("acme".into(), (*module).into(), owner.clone());
                let claim = Claim { tenant, module, limit: 8, owner, lease: duration };
                held.extend(journal.claim(claim).await.unwrap().into_iter().map(|claimed| claimed.lease));
            }
            journal.heartbeat(&owner, held.clone(), duration).await.unwrap();
            for (index, lease) in held.into_iter().enumerate() {
                for answer in [None, Some(vec![7; 20_000])] {
                    let at = std::time::SystemTime::UNIX_EPOCH;
                    let call = Call { number: 0, import: "search.search".into(), arguments: vec![1], answer, at };
                    journal.write(&lease, call).unwrap().durable().await.unwrap();
                }
                let report = AttemptReport { took: duration, version: None, outcome: "it".into(), log: Vec::new() };
                let reason = "because".into();
                match (index + number) % 4 {
                    0 => drop(journal.unclaim(&lease).await.unwrap()),
                    1 => {
                        let next = Disposition::Retry { after: Duration::ZERO, reason };
                        journal.complete_attempt(&lease, report, next).await.unwrap();
                    }
                    2 => {
                        journal.complete_attempt(&lease, report, Disposition::Dead { reason }).await.unwrap();
                        journal.resend(&lease.delivery, number % 3 == 0).await.unwrap();
                    }
                    _ => drop(journal.complete_attempt(&lease, report, Disposition::Completed).await.unwrap()),
                }
            }
        }
        journal.reclaim(Some("another")).await.unwrap();
    }

    /// SQLite prepares a statement again if its plan depends on a value, and reads a whole table if a partial index
    /// doesn't fit: neither may happen to a statement that runs for every delivery.
    #[tokio::test]
    async fn statements_are_prepared_once_and_read_no_whole_table() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Sqlite::open(SqliteSettings { directory: directory.path().to_owned() }).await.unwrap();
        run_deliveries(&journal).await;
        let checked = journal.writer.ask(|store| {
            let connection = crate::sqlite::WriteStore::connection(store);
            let (used, mut wrong) = (connection.used.take(), Vec::new());
            for sql in &used {
                let prepared = connection.prepare_cached(sql)?.get_status(rusqlite::StatementStatus::RePrepare);
                if prepared > 0 {
                    wrong.push(format!("prepared again {prepared} times: {sql}"));
                }
                let Ok(mut explain) = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")) else { continue };
                let values = vec![1; explain.parameter_count()];
                let mut rows = explain.query(rusqlite::params_from_iter(values))?;
                while let Some(row) = rows.next()? {
                    let step: String = row.get(3)?;
                    let is_table =
                        ["deliveries", "d", "events", "e", "calls", "c", "attempts", "changes", "known_events"]
                            .iter()
                            .any(|table| step == format!("SCAN {table}"));
                    if is_table {
                        wrong.push(format!("{step}: {sql}"));
                    }
                }
            }
            Ok((used.len(), wrong))
        });
        let (used, wrong) = checked.await.unwrap();
        assert!(used > 30, "{used} statements were used");
        assert!(wrong.is_empty(), "{wrong:#?}");
        journal.close().await.unwrap();
    }

    #[tokio::test]
    async fn panicking_job_fails_alone() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Sqlite::open(SqliteSettings { directory: directory.path().to_owned() }).await.unwrap();
        let broken = journal.writer.ask(|store| -> std::result::Result<(), store::Fault> {
            store.touch()?;
            panic!("at the disco")
        });
        let good = (0..20).map(|_| journal.probe());
        let (broken, good) = futures::future::join(broken, futures::future::join_all(good)).await;
        let super::super::JournalError::Storage(error) = broken.unwrap_err() else { panic!("not a storage error") };
        assert_eq!(error.kind, StorageErrorKind::Broken);
        assert!(error.detail.contains("at the disco"), "{error}");
        assert!(good.iter().all(Result::is_ok), "{good:?}");
        journal.health().unwrap();
        journal.close().await.unwrap();
    }
}
