//! The journal: what is on disk. Events, their deliveries, and every call a delivery made with its answer.
//!
//! [`Journal`] is written so that different engines can stand behind it: nothing of SQL, files or locks shows through.
//! An engine knows nothing of HTTP and nothing of WebAssembly; it keeps what it is given and gives it back in order.
//!
//! Times are wall-clock times. An engine takes them from its caller and never compares them with a clock of its own,
//! so that a clock that jumps is one party's problem.

mod failure_reason;
mod sqlite;
mod types;

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;

pub use failure_reason::FailureReason;
use modhost_core::event::{DeliveryId, Event, Name};
pub use sqlite::accept_loss;
pub use sqlite::{AtRest, Sqlite, SqliteSettings};
pub use types::*;

/// What an operation of the journal ends in.
pub type Result<T> = std::result::Result<T, JournalError>;

/// Why the journal can't do what it is asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    /// There is no room to write: nothing was recorded, and nothing that was recorded is lost.
    #[error("the journal is full: {0}")]
    Full(String),
    /// The storage behind it fails.
    #[error("the journal fails: {0}")]
    Broken(String),
    /// What is on disk is not a journal this version can use.
    #[error("{0}")]
    Unusable(String),
    /// The delivery isn't this host's any more: its lease ran out and it was given to another.
    #[error("delivery {0} was given to another host")]
    LeaseLost(DeliveryId),
}

/// Where events and deliveries are kept.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    // ---- the way in

    /// Writes an event down with the deliveries it makes; all of it is on disk when this returns. An event whose source
    /// and id are known already is not written again, however long ago its deliveries ended within the time it is
    /// remembered. Of an event that makes no deliveries only the id is kept.
    async fn record(&self, event: Arc<Event>, deliveries: Vec<NewDelivery>, now: SystemTime) -> Result<Recorded>;

    // ---- dispatch

    /// The lanes that have deliveries waiting, with how many; exact, and cheap to ask.
    async fn lanes(&self) -> Result<Vec<Lane>>;

    /// How many deliveries wait and run, of the host and of a tenant: exact as of the last commit, and cheap to ask. What was
    /// recorded is counted when [`Journal::record`] returns.
    fn backlog(&self, tenant: &Name) -> Backlog;

    /// The lanes that have deliveries due at a time, each with the first of them, `limit` at the most: what
    /// [`Journal::claim`] would take.
    async fn due(&self, now: SystemTime, limit: u32) -> Result<Vec<Due>>;

    /// Takes up to `limit` deliveries of a lane that are due, the longest waiting first, and leases them: they are
    /// [`State::Running`] until they are settled or the lease runs out. Only a retry is due at a time; everything else
    /// that waits is due at once, whatever the clock says. Of a chat whose deliveries go one at a time only the one
    /// whose turn it is can be taken: the first unfinished one.
    async fn claim(&self, claim: Claim) -> Result<Vec<Claimed>>;

    /// The next time at which a delivery that waits now becomes due; 1970 if one is due already, none if none waits that
    /// could be taken.
    async fn next_due(&self) -> Result<Option<SystemTime>>;

    /// Prolongs leases. Answers with those that are no longer this owner's.
    async fn heartbeat(&self, owner: &str, deliveries: Vec<DeliveryId>, until: SystemTime) -> Result<Vec<DeliveryId>>;

    /// Makes deliveries wait again whose lease has run out, or whose owner is `gone` for certain: due at once, at the place
    /// in the queue they had. Answers with how many.
    async fn reclaim(&self, gone: Option<&str>, now: SystemTime) -> Result<u64>;

    /// Makes a delivery wait again that was claimed and whose attempt never began: it isn't counted, and the delivery is due
    /// at the place in the queue it had. Answers whether it was still this owner's.
    async fn unclaim(&self, claimed: &Claimed, owner: &str, now: SystemTime) -> Result<bool>;

    /// Ends an attempt: writes down how it went and what is next for the delivery.
    ///
    /// # Errors
    ///
    /// [`JournalError::LeaseLost`] when it isn't this attempt of this owner that runs; nothing is changed then.
    async fn complete_attempt(&self, delivery: DeliveryId, attempt: Attempt, next: Disposition) -> Result<()>;

    // ---- calls

    /// The calls of a delivery's earlier attempts, in order, for replay.
    async fn calls(&self, delivery: &DeliveryId) -> Result<Vec<Call>>;

    /// Writes a call down, without waiting. The order of calls of one delivery is kept, and a call of the same number
    /// replaces the one before it (an answer its intent). If one can't be written, none after it is, until the calls
    /// from there on are forgotten or the next attempt begins: what is on disk never has a hole.
    ///
    /// # Errors
    ///
    /// [`JournalError::Full`] when too much waits for the disk already: what this refused can be written later.
    fn write(&self, delivery: &DeliveryId, call: Call) -> Result<CommitHandle>;

    /// Forgets the calls of a delivery from a number on: what it does from there is new. Without waiting, like `write`.
    fn forget(&self, delivery: &DeliveryId, from: u32) -> Result<CommitHandle>;

    // ---- for people

    /// Deliveries, newest first.
    async fn list(&self, filter: Filter) -> Result<Vec<Summary>>;

    /// All there is to know about one delivery.
    async fn show(&self, delivery: &DeliveryId) -> Result<Option<Details>>;

    /// Sends a delivery that has ended on its way again; with `fresh` the calls of its earlier attempts are forgotten. In
    /// a chat whose deliveries go one at a time it goes behind the one whose turn it is. Answers whether it was there and
    /// had ended.
    async fn resend(&self, delivery: &DeliveryId, fresh: bool, now: SystemTime) -> Result<bool>;

    /// Ends a delivery that waits, as [`State::Dropped`]. Answers whether it was there and waited.
    async fn drop_waiting(&self, delivery: &DeliveryId, reason: &str, now: SystemTime) -> Result<bool>;

    /// How many deliveries are in each state, and how large the journal is.
    async fn totals(&self) -> Result<Totals>;

    // ---- upkeep

    /// Whether events can be recorded, as of the last write that reached the disk or failed. Costs next to nothing and
    /// waits for nothing.
    ///
    /// # Errors
    ///
    /// Why they can't: the disk is full, the storage fails, or the writer has ended. [`Journal::probe`] looks again.
    fn health(&self) -> Result<()>;

    /// Writes to the disk as recording an event would, and brings [`Journal::health`] up to date by that.
    ///
    /// # Errors
    ///
    /// Also when there is only room for what is small: what is written may still succeed then, and an event may not.
    async fn probe(&self) -> Result<()>;

    /// Random bytes that were drawn when the journal was made and stay the same: what is derived from them can be derived
    /// again, and not be guessed by anybody else.
    fn salt(&self) -> [u8; 32];

    /// Removes what need not be kept any longer, and gives room on disk back: one step of a few milliseconds, at most
    /// `batch` deliveries and ids. Answers with how many went; while some do, there may be more. What has not ended is
    /// never removed, nor is an event's id before its deliveries.
    async fn retain(&self, keep: Retention, now: SystemTime, batch: u32) -> Result<u64>;

    /// Writes everything out and closes. Nothing may be asked of the journal after this.
    async fn close(&self) -> Result<()>;
}
