//! The journal: the record of events, their deliveries, and every call that a delivery made with its answer.
//!
//! [`Journal`] is implemented by several engines: [`Sqlite`] keeps everything in a file, [`Memory`] keeps everything in
//! memory. Nothing of SQL, files or locks shows through the trait. An engine knows nothing of HTTP or WebAssembly: it
//! stores what it is given and returns it in order.
//!
//! An engine reads the time from one clock of its own, which decides when a retry is due and when a lease expires. Callers
//! pass durations only, so that hosts whose clocks differ agree.

mod failure_reason;
mod memory;
mod sqlite;
mod types;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::StorageError;
pub use failure_reason::FailureReason;
pub use memory::Memory;
use modhost_core::event::{DeliveryId, Event, Name};
pub use sqlite::accept_loss;
pub use sqlite::{AtRest, Sqlite, SqliteSettings};
pub use types::*;

/// The result of a journal operation.
pub type Result<T> = std::result::Result<T, JournalError>;

/// Why the journal rejects an operation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The storage cannot do it.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The attempt does not hold the delivery: its lease expired, or the attempt has ended.
    #[error("delivery {0} was given to another host")]
    LeaseLost(DeliveryId),
}

/// A store of events and deliveries.
///
/// A delivery is worked on under a [`Lease`]. Every operation that takes one checks it in the transaction that makes the
/// change (fencing): if the delivery is no longer leased to that attempt of that owner, the engine changes nothing and
/// returns [`JournalError::LeaseLost`].
///
/// Owners are not registered: an engine takes any name. Operations by which several hosts join, leave and see each other
/// come with the first engine that several hosts share.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    // ---- intake

    /// Records an event with its deliveries; all of it is durable when this returns. The engine does not record an event
    /// again whose tenant, source and id it knows, however long ago its deliveries ended, as long as it keeps the id. Of an
    /// event without deliveries it keeps only the id.
    async fn record(&self, event: Arc<Event>, deliveries: Vec<NewDelivery>) -> Result<Recorded>;

    // ---- dispatch

    /// Returns the lanes that have waiting deliveries, with exact counts. Cheap.
    async fn lanes(&self) -> Result<Vec<Lane>>;

    /// Returns the number of waiting and running deliveries, of the host and of a tenant: exact as of the last commit, and
    /// cheap. Deliveries are counted when [`Journal::record`] returns.
    fn backlog(&self, tenant: &Name) -> Backlog;

    /// Returns the lanes that have deliveries due now, each with the first of them, at most `limit`: those that
    /// [`Journal::claim`] would take.
    async fn due(&self, limit: u32) -> Result<Vec<Due>>;

    /// Leases up to `limit` due deliveries of a lane, longest waiting first: they are [`State::Running`] until their
    /// attempt is completed or the lease expires. Only a retry has a due time; every other waiting delivery is due at once,
    /// whatever the clock says. Of a chat whose deliveries run one at a time, only the first unfinished one can be claimed.
    async fn claim(&self, claim: Claim) -> Result<Vec<Claimed>>;

    /// Returns how long it is until the next waiting delivery is due; zero if one is due already, none if no waiting
    /// delivery can be claimed.
    async fn next_due(&self) -> Result<Option<Duration>>;

    /// Extends the leases in `running` to `lease` from now, and compares them with the leases that the owner holds.
    async fn heartbeat(&self, owner: &str, running: Vec<Lease>, lease: Duration) -> Result<Heartbeat>;

    /// Returns deliveries to the queue whose lease has expired or whose owner is `gone` for certain: they are due at once,
    /// at the position in the queue they had. Returns their number.
    async fn reclaim(&self, gone: Option<&str>) -> Result<u64>;

    /// Returns a claimed delivery to the queue whose attempt never began: the attempt is not counted, and the delivery is
    /// due at the position in the queue it had. Returns whether the lease was still held.
    async fn unclaim(&self, lease: &Lease) -> Result<bool>;

    /// Completes an attempt: records its report and the next state of the delivery.
    ///
    /// # Errors
    ///
    /// [`JournalError::LeaseLost`] if the attempt does not hold the lease; nothing is changed then.
    async fn complete_attempt(&self, lease: &Lease, report: AttemptReport, next: Disposition) -> Result<()>;

    // ---- calls

    /// Returns the calls of a delivery's earlier attempts, in order, for replay.
    async fn calls(&self, delivery: &DeliveryId) -> Result<Vec<Call>>;

    /// Writes a call without waiting. Calls of one delivery keep their order, and a call replaces an earlier one of the same
    /// number (an answer replaces its intent). If a call cannot be written, no later call of the attempt is written until
    /// the calls from there on are forgotten: the record never has a gap.
    ///
    /// The handle fails with [`JournalError::LeaseLost`] if the attempt does not hold the lease; nothing is written then.
    ///
    /// # Errors
    ///
    /// [`StorageErrorKind::Full`](crate::error::StorageErrorKind::Full) if too many writes are queued already: this
    /// call can be written later.
    fn write(&self, lease: &Lease, call: Call) -> Result<CommitHandle>;

    /// Forgets the calls of a delivery from a number on, without waiting. Fails as [`Journal::write`] does.
    fn forget(&self, lease: &Lease, from: u32) -> Result<CommitHandle>;

    // ---- operators

    /// Returns deliveries, newest first.
    async fn list(&self, filter: Filter) -> Result<Vec<Summary>>;

    /// Returns everything that is recorded of one delivery; none if the id is unknown.
    async fn show(&self, delivery: &DeliveryId) -> Result<Option<Details>>;

    /// Queues a delivery again that has ended; with `fresh` the calls of its earlier attempts are forgotten. In a chat whose
    /// deliveries run one at a time it goes behind the unfinished ones. Returns whether the delivery existed and had ended.
    async fn resend(&self, delivery: &DeliveryId, fresh: bool) -> Result<bool>;

    /// Ends a waiting delivery as [`State::Dropped`]. Returns whether the delivery existed and was waiting.
    async fn drop_waiting(&self, delivery: &DeliveryId, reason: &str) -> Result<bool>;

    /// Returns the number of deliveries in each state, and the size of the journal.
    async fn totals(&self) -> Result<Totals>;

    // ---- maintenance

    /// Returns whether events can be recorded, as of the last write that reached the disk or failed. Cheap; never waits.
    ///
    /// # Errors
    ///
    /// Why they cannot: the disk is full, the storage fails, or the writer has ended. [`Journal::probe`] tries again.
    fn health(&self) -> Result<()>;

    /// Writes to the disk as recording an event would, and updates [`Journal::health`].
    ///
    /// # Errors
    ///
    /// Also if only small writes still succeed: an event may not fit then.
    async fn probe(&self) -> Result<()>;

    /// Returns random bytes that were drawn when the journal was created and never change. Values derived from them can be
    /// derived again, and nobody else can guess them.
    fn salt(&self) -> [u8; 32];

    /// Removes deliveries and ids that need not be kept any longer, and returns disk space to the system: one step of a few
    /// milliseconds, at most `batch` deliveries and ids. Returns the number removed; while it is not zero, there may be
    /// more. A delivery that has not ended is never removed, nor is an event's id before its deliveries.
    async fn purge(&self, keep: Retention, batch: u32) -> Result<u64>;

    /// Writes everything out and closes the journal. No operation succeeds after this.
    async fn close(&self) -> Result<()>;
}
