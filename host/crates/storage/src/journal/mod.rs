//! The journal: the record of events, their deliveries, and the calls of each delivery with their answers.
//!
//! Three engines implement [`Journal`]: [`Sqlite`] stores everything in a file, [`Postgres`] in a database that several hosts
//! share, [`Memory`] in memory. The trait exposes no SQL, files or locks. An engine does not depend on HTTP or WebAssembly; it stores records and returns them in
//! order.
//!
//! Each engine has its own clock, which decides when a retry is due and when a lease expires. Callers pass only
//! durations, so hosts whose clocks differ agree.

mod failure_reason;
mod memory;
mod postgres;
mod sharded;
mod sqlite;
mod types;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::StorageError;
pub use failure_reason::FailureReason;
pub use memory::Memory;
use modhost_core::event::{DeliveryId, Event, Name};
pub use postgres::Postgres;
pub(crate) use postgres::{POSTGRES_TABLES, chat_key, event_key};
pub use sharded::Sharded;
pub(crate) use sqlite::SQLITE_TABLES;
pub use sqlite::accept_loss;
pub use sqlite::{OfflineJournal, Sqlite, SqliteSettings};
pub use types::*;
pub(crate) use usage::{CALL_BYTES, attempt_bytes, event_bytes, id_bytes};
pub use usage::{TenantLimits, TenantUsage, recorded_bytes};

/// The result of a journal operation.
pub type Result<T> = std::result::Result<T, JournalError>;

/// An error of a journal operation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The storage engine failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The attempt does not hold the lease on the delivery: the lease expired, or the attempt has ended.
    #[error("the lease on delivery {0} was lost")]
    LeaseLost(DeliveryId),
}

/// A store of events and deliveries.
///
/// An attempt works on a delivery under a [`Lease`]. Every operation that takes a lease checks it in the transaction
/// that makes the change (fencing): if the delivery is no longer leased to that attempt of that owner, the engine
/// changes nothing and returns [`JournalError::LeaseLost`].
///
/// Owners join a [`Cluster`](crate::cluster::Cluster). An engine that one host uses accepts any name.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    // ---- events

    /// Records an event with its deliveries, durably and in one transaction. An event whose tenant, source and id are
    /// known is a duplicate and not recorded again, even if its deliveries ended long ago, as long as its id is kept.
    /// Of an event without deliveries, the engine stores only the id. A delivery with a [`NewDelivery::lease`] is leased
    /// in the same transaction, as [`Journal::claim`] would, so that a host that can run it at once need not claim it;
    /// where the engine doesn't, it waits.
    async fn record(&self, event: Arc<Event>, deliveries: Vec<NewDelivery>) -> Result<Recorded>;

    // ---- dispatch

    /// Returns the lanes that have waiting deliveries, with exact counts. Cheap.
    async fn lanes(&self) -> Result<Vec<Lane>>;

    /// Returns the number and size of the unfinished deliveries of the host and of a tenant, exact as of the last commit.
    /// Cheap. Deliveries are included by the time [`Journal::record`] returns.
    fn backlog(&self, tenant: &Name) -> Backlog;

    /// Returns the lanes that have deliveries due now, each with up to `limit` deliveries that [`Journal::claim`] would
    /// lease.
    async fn due(&self, limit: u32) -> Result<Vec<Due>>;

    /// Leases up to `limit` due deliveries of a lane, longest waiting first. They are [`State::Running`] until their
    /// attempt is completed or the lease expires. Only a retry has a due time; every other waiting delivery is due at
    /// once, even after the clock was set back. In a chat whose deliveries run one at a time, only the first unfinished
    /// delivery can be claimed.
    async fn claim(&self, claim: Claim) -> Result<Vec<Claimed>>;

    /// Returns the time until the next waiting delivery is due: zero if one is due already, `None` if no waiting
    /// delivery can be claimed.
    async fn next_due(&self) -> Result<Option<Duration>>;

    /// Extends the leases in `running` to `lease` from now, and compares them with the leases that the owner holds.
    async fn heartbeat(&self, owner: &str, running: Vec<Lease>, lease: Duration) -> Result<Heartbeat>;

    /// Requeues deliveries whose lease has expired or whose owner is `gone`, a host that has certainly stopped. They
    /// are due at once and keep their position in the queue. Returns their number.
    async fn reclaim(&self, gone: Option<&str>) -> Result<u64>;

    /// Requeues a claimed delivery whose attempt never began. The attempt is not counted; the delivery is due at once
    /// and keeps its position in the queue. Returns whether the lease was still held.
    async fn unclaim(&self, lease: &Lease) -> Result<bool>;

    /// Completes an attempt: records its report and the next state of the delivery. Nobody waits for it but the caller, so
    /// an engine may delay the write by a few milliseconds, to share the commit of another operation. Returns whether the
    /// next delivery of its chat can be claimed now.
    ///
    /// # Errors
    ///
    /// [`JournalError::LeaseLost`] if the attempt does not hold the lease. Nothing is changed then.
    async fn complete_attempt(&self, lease: &Lease, report: AttemptReport, next: Disposition) -> Result<bool>;

    // ---- calls

    /// Returns the calls of a delivery's earlier attempts, in order, for replay.
    async fn calls(&self, delivery: &DeliveryId) -> Result<Vec<Call>>;

    /// Queues the write of a call and returns at once. Calls of one delivery are written in order, and a call replaces
    /// an earlier one with the same number (an answer replaces its intent). If a call cannot be written, later calls of
    /// the attempt fail as well until [`Journal::forget`] removes the calls from that number on, so that the call log
    /// never has a gap.
    ///
    /// The handle fails with [`JournalError::LeaseLost`] if the attempt does not hold the lease. Nothing is written
    /// then.
    ///
    /// # Errors
    ///
    /// [`StorageErrorKind::Full`](crate::error::StorageErrorKind::Full) if too many writes of the tenant are queued; the
    /// caller can retry.
    fn write(&self, lease: &Lease, call: Call) -> Result<CommitHandle>;

    /// Queues the removal of a delivery's calls from a number on and returns at once. Fails as [`Journal::write`] does.
    fn forget(&self, lease: &Lease, from: u32) -> Result<CommitHandle>;

    // ---- operators

    /// Returns deliveries, newest first.
    async fn list(&self, filter: Filter) -> Result<Vec<Summary>>;

    /// Returns everything recorded about a delivery; `None` if the id is unknown.
    async fn show(&self, delivery: &DeliveryId) -> Result<Option<Details>>;

    /// Queues an ended delivery again; with `fresh`, its call log is removed. In a chat whose deliveries run one at a
    /// time, it is queued behind the unfinished ones. Returns whether the delivery exists and had ended.
    async fn resend(&self, delivery: &DeliveryId, fresh: bool) -> Result<bool>;

    /// Ends a waiting delivery as [`State::Dropped`]. Returns whether the delivery exists and was waiting.
    async fn drop_waiting(&self, delivery: &DeliveryId, reason: &str) -> Result<bool>;

    /// Returns the size of each tenant's records in the journal, in bytes, exact as of the last commit. Cheap.
    fn usage(&self) -> Vec<TenantUsage>;

    /// Returns the number of deliveries in each state, and the size of the journal.
    async fn totals(&self) -> Result<Totals>;

    // ---- maintenance

    /// Checks whether events can be recorded, as of the last write that reached the disk or failed. Cheap; never waits.
    ///
    /// # Errors
    ///
    /// If the disk is full, the storage fails, or the writer thread has ended. [`Journal::probe`] tries again.
    fn health(&self) -> Result<()>;

    /// Writes to the disk as recording an event would, and updates [`Journal::health`].
    ///
    /// # Errors
    ///
    /// If the write fails. Also if only small writes succeed, because an event may not fit then.
    async fn probe(&self) -> Result<()>;

    /// Returns random bytes that were generated when the journal was created and never change. Values derived from them
    /// are reproducible, and cannot be guessed without them.
    fn salt(&self) -> [u8; 32];

    /// Removes deliveries and ids whose retention time is over or for which there is no space, and returns disk space to
    /// the operating system. One call takes a few milliseconds and removes at most `batch` deliveries and ids. Returns the number removed; while
    /// it is not zero, there may be more. An unfinished delivery is never removed, and an event's id is removed only
    /// after its deliveries.
    async fn purge(&self, keep: Retention, batch: u32) -> Result<u64>;

    /// Completes queued writes and closes the journal. Every later operation fails.
    async fn close(&self) -> Result<()>;
}
