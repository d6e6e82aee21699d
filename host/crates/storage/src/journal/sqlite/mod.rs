//! The journal in one SQLite file, for one host.
//!
//! One thread writes and commits what waits together, so that on disk costs a share of one write to the disk; what is
//! only read is read apart from it. The file is one process's at a time. A person can open it and look, also while the
//! host runs; [`schema`] says what stands where.

mod calls;
mod checkpoint;
mod claim;
mod column;
mod complete_attempt;
mod counts;
mod delivery_row;
mod fault;
mod health;
mod offline;
mod open;
mod purge;
mod reading;
mod record;
mod schema;
mod store;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;

use self::calls::Change;
use self::column::{millis, time};
use self::counts::Counts;
use self::schema::JOURNAL;
use self::writer::Writer;
use super::{
    Attempt, Backlog, Call, Claim, Claimed, CommitHandle, Details, Disposition, Due, Filter, Journal, JournalError,
    Lane, NewDelivery, Recorded, Result, Retention, Summary, Totals,
};
use crate::sqlite::{Database, Readers};
use modhost_core::event::{DeliveryId, Event, Name};

/// Where the journal is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteSettings {
    /// The directory its files are in; made if it isn't there.
    pub directory: PathBuf,
}

impl SqliteSettings {
    /// The journal's file: what a backup is made of, together with the `-wal` beside it.
    pub fn file(&self) -> PathBuf {
        Database::new(&JOURNAL, self.directory.clone()).file()
    }
}

pub use offline::AtRest;

/// Gives up what is missing from the journal in a directory. Answers with what that is; none if nothing is.
pub fn accept_loss(directory: &Path) -> Result<Option<String>> {
    Ok(Database::new(&JOURNAL, directory.to_owned()).accept_loss()?)
}

/// The journal in one SQLite file. Dropping it without [`Journal::close`] loses nothing that was acknowledged.
pub struct Sqlite {
    writer: Writer,
    readers: Readers,
    counts: Arc<Counts>,
    database: Database,
    salt: [u8; 32],
}

impl Sqlite {
    /// Opens the journal in a directory, or makes an empty one there. With a million deliveries it takes seconds.
    ///
    /// # Errors
    ///
    /// [`JournalError::Unusable`] when another host runs on the directory, the journal was written by a newer version,
    /// or what is there is damaged or no journal at all: it is left as it is then.
    pub async fn open(settings: SqliteSettings) -> Result<Self> {
        let database = Database::new(&JOURNAL, settings.directory);
        let opening = tokio::task::spawn_blocking(move || {
            let opened = open::open(&database)?;
            let (counts, salt) = (Arc::clone(opened.store.counts()), opened.salt);
            let writer = Writer::start(opened)?;
            Ok(Self { writer, readers: Readers::new(database.clone()), counts, database, salt })
        });
        opening.await.map_err(|error| JournalError::Broken(format!("opening it broke off: {error}")))?
    }
}

#[async_trait]
impl Journal for Sqlite {
    async fn record(&self, event: Arc<Event>, deliveries: Vec<NewDelivery>, now: SystemTime) -> Result<Recorded> {
        let at = millis(now);
        self.writer.ask(move |store| Ok(store.record(&event, &deliveries, at)?)).await
    }

    async fn lanes(&self) -> Result<Vec<Lane>> {
        Ok(self.counts.waiting())
    }

    fn backlog(&self, tenant: &Name) -> Backlog {
        self.counts.backlog(tenant)
    }

    async fn due(&self, now: SystemTime, limit: u32) -> Result<Vec<Due>> {
        let (lanes, now) = (self.counts.waiting_ids(), millis(now));
        Ok(self.readers.read(move |connection| reading::due(connection, lanes, now, limit)).await?)
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<Claimed>> {
        let given_out = self.writer.ask(move |store| Ok(store.claim(&claim)?)).await?;
        Ok(given_out.into_iter().map(Claimed::from).collect())
    }

    async fn next_due(&self) -> Result<Option<SystemTime>> {
        Ok(self.readers.read(reading::next_due).await?.map(time))
    }

    async fn heartbeat(&self, owner: &str, deliveries: Vec<DeliveryId>, until: SystemTime) -> Result<Vec<DeliveryId>> {
        let (owner, until) = (owner.to_owned(), millis(until));
        self.writer.ask(move |store| Ok(store.heartbeat(&owner, &deliveries, until)?)).await
    }

    async fn reclaim(&self, gone: Option<&str>, now: SystemTime) -> Result<u64> {
        let (gone, now) = (gone.map(str::to_owned), millis(now));
        self.writer.ask(move |store| Ok(store.reclaim(gone.as_deref(), now)?)).await
    }

    async fn unclaim(&self, claimed: &Claimed, owner: &str, now: SystemTime) -> Result<bool> {
        let (delivery, attempt, owner, now) = (claimed.id.clone(), claimed.attempt, owner.to_owned(), millis(now));
        self.writer.ask(move |store| Ok(store.unclaim(&delivery, attempt, &owner, now)?)).await
    }

    async fn complete_attempt(&self, delivery: DeliveryId, attempt: Attempt, next: Disposition) -> Result<()> {
        let unwritable = |error| JournalError::Broken(format!("the log of {delivery} can't be written: {error}"));
        let log = serde_json::to_string(&attempt.log).map_err(unwritable)?;
        self.writer.ask(move |store| store.complete_attempt(&delivery, &attempt, &log, &next)).await
    }

    async fn calls(&self, delivery: &DeliveryId) -> Result<Vec<Call>> {
        let delivery = delivery.clone();
        Ok(self.readers.read(move |connection| reading::calls(connection, &delivery)).await?)
    }

    fn write(&self, delivery: &DeliveryId, call: Call) -> Result<CommitHandle> {
        self.writer.change_calls(delivery, Change::Write(call))
    }

    fn forget(&self, delivery: &DeliveryId, from: u32) -> Result<CommitHandle> {
        self.writer.change_calls(delivery, Change::Forget(from))
    }

    async fn list(&self, filter: Filter) -> Result<Vec<Summary>> {
        let totals = self.counts.totals();
        Ok(self.readers.read(move |connection| reading::list(connection, &filter, totals)).await?)
    }

    async fn show(&self, delivery: &DeliveryId) -> Result<Option<Details>> {
        let delivery = delivery.clone();
        let story = self.readers.read(move |connection| reading::show(connection, &delivery)).await?;
        Ok(story.map(Details::from))
    }

    async fn resend(&self, delivery: &DeliveryId, fresh: bool, now: SystemTime) -> Result<bool> {
        let (delivery, now) = (delivery.clone(), millis(now));
        self.writer.ask(move |store| Ok(store.resend(&delivery, fresh, now)?)).await
    }

    async fn drop_waiting(&self, delivery: &DeliveryId, reason: &str, now: SystemTime) -> Result<bool> {
        let (delivery, reason, now) = (delivery.clone(), reason.to_owned(), millis(now));
        self.writer.ask(move |store| Ok(store.drop_waiting(&delivery, &reason, now)?)).await
    }

    async fn totals(&self) -> Result<Totals> {
        let size = |path| std::fs::metadata(path).map_or(0, |file| file.len());
        let bytes = size(self.database.file()) + size(self.database.wal());
        Ok(Totals { deliveries: self.counts.totals(), bytes })
    }

    async fn retain(&self, keep: Retention, now: SystemTime, batch: u32) -> Result<u64> {
        let now = millis(now);
        self.writer.ask(move |store| Ok(store.retain(&keep, now, batch)?)).await
    }

    fn health(&self) -> Result<()> {
        self.writer.health()
    }

    async fn probe(&self) -> Result<()> {
        let in_doubt = self.writer.health().is_err();
        self.writer.ask(|store| Ok(store.touch()?)).await?;
        // The write-ahead log is written over from its beginning now and then, and needs no room for that.
        let database = self.database.clone();
        let room = tokio::task::spawn_blocking(move || database.check_room(in_doubt)).await;
        Ok(room.map_err(|error| JournalError::Broken(format!("looking for room broke off: {error}")))??)
    }

    fn salt(&self) -> [u8; 32] {
        self.salt
    }

    async fn close(&self) -> Result<()> {
        self.readers.close().await;
        self.writer.close().await
    }
}
