//! The types of the journal's operations.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{FailureReason, JournalError, TenantLimits};
use crate::error::StorageError;
use modhost_core::event::{DeliveryId, Event, Name};
use modhost_core::import::RecordedImport;

/// A delivery to record with its event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDelivery {
    /// Its id.
    pub id: DeliveryId,
    /// Its module.
    pub module: Name,
    /// The chat, if the module's deliveries in a chat run one at a time, in the order they were recorded.
    pub ordered_chat: Option<String>,
    /// The lease of its first attempt, if the delivery is to be leased as it is recorded. It waits nevertheless if an
    /// unfinished delivery of its chat comes first.
    pub lease: Option<NewLease>,
}

/// A lease to take as a delivery is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLease {
    /// The owner: one running host.
    pub owner: Arc<str>,
    /// How long the lease lasts unless a heartbeat extends it.
    pub duration: Duration,
}

/// The result of recording an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// The event was recorded.
    New {
        /// When, by the engine's clock.
        at: SystemTime,
        /// The leases of the deliveries that were leased as they were recorded, in the order of the deliveries.
        leases: Vec<Lease>,
    },
    /// The event was recorded before; nothing was written.
    Duplicate,
}

impl Recorded {
    /// Returns whether the event was recorded by this operation.
    pub fn is_new(&self) -> bool {
        matches!(self, Self::New { .. })
    }
}

/// The deliveries of one tenant to one module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// The tenant.
    pub tenant: Name,
    /// The module.
    pub module: Name,
    /// The number of waiting deliveries, due or not.
    pub waiting: u64,
}

/// The unfinished deliveries: waiting and running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// The number of those of the whole host.
    pub host: u64,
    /// The number of those of one tenant.
    pub tenant: u64,
    /// The size of those of the whole host with their events and calls, in bytes; see [`TenantUsage`](super::TenantUsage).
    pub host_bytes: u64,
    /// The size of those of one tenant, in bytes.
    pub tenant_bytes: u64,
}

/// Due deliveries of a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The tenant.
    pub tenant: Name,
    /// The module.
    pub module: Name,
    /// The first due deliveries.
    pub deliveries: Vec<DeliveryId>,
    /// Since when the delivery that has been due for longest is due.
    pub since: SystemTime,
}

/// A request to lease due deliveries of a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The tenant.
    pub tenant: Name,
    /// The module.
    pub module: Name,
    /// Maximum number of deliveries.
    pub limit: u32,
    /// The owner of the leases: one running host.
    pub owner: Arc<str>,
    /// How long the leases last unless a heartbeat extends them.
    pub lease: Duration,
}

/// The right of one attempt to work on one delivery.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The delivery.
    pub delivery: DeliveryId,
    /// Its tenant.
    pub tenant: Name,
    /// The owner: one running host.
    pub owner: Arc<str>,
    /// The number of the attempt, from 1. Interrupted attempts count.
    pub attempt: u32,
}

/// The difference between the leases that an owner names in a heartbeat and those it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// Leases that the owner named and does not hold.
    pub lost: Vec<Lease>,
    /// Leases that the owner holds and did not name: the result of the claim has not reached it yet or was lost, or the
    /// outcome of the attempt could not be recorded. They are not extended; unless a later heartbeat names them, they
    /// expire and [`Journal::reclaim`](super::Journal::reclaim) requeues the deliveries.
    pub unknown: Vec<Lease>,
}

/// A delivery that was leased for an attempt.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The lease of the attempt.
    pub lease: Lease,
    /// The module.
    pub module: Name,
    /// The event.
    pub event: Arc<Event>,
    /// The number of attempts before the delivery was last resent. The retry schedule counts from there.
    pub earlier_attempts: u32,
    /// When the event was recorded.
    pub received_at: SystemTime,
    /// The number of calls that earlier attempts recorded.
    pub calls: u32,
    /// The number of attempts since the delivery was last sent that began and were never completed: their host stopped,
    /// or lost its lease.
    pub interrupted: u32,
}

impl Claimed {
    /// Returns the id of the delivery.
    pub fn id(&self) -> &DeliveryId {
        &self.lease.delivery
    }

    /// Returns the number of the attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.lease.attempt
    }
}

/// The state of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Queued, for its first attempt or for a retry.
    Waiting,
    /// Leased by a host.
    Running,
    /// The module answered.
    Completed,
    /// Given up after failures; an operator can resend it.
    Dead,
    /// Deliberately not run; the reason is recorded.
    Dropped,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Waiting, Self::Running, Self::Completed, Self::Dead, Self::Dropped];

    /// Returns the name of the state, as displayed, typed and stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Dead => "dead",
            Self::Dropped => "dropped",
        }
    }

    /// Returns whether a delivery leaves this state only at an operator's request.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Dead | Self::Dropped)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|state| state.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|state| state.name()).collect();
            format!("unknown state \"{text}\"; the states are {}", names.join(", "))
        })
    }
}

/// The report of an attempt that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptReport {
    /// How long the attempt took. The engine records the current time as its end, and derives its start.
    pub took: Duration,
    /// The module version that ran, if one did.
    pub version: Option<String>,
    /// The outcome as readable text: `completed`, or the reason of the failure.
    pub outcome: String,
    /// The lines that the module logged.
    pub log: Vec<LogLine>,
}

/// An attempt that has ended, as recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The number of the attempt, from 1.
    pub number: u32,
    /// The host that made the attempt.
    pub owner: String,
    /// When it began.
    pub started: SystemTime,
    /// When it ended.
    pub ended: SystemTime,
    /// The module version that ran, if one did.
    pub version: Option<String>,
    /// The outcome as readable text: `completed`, or the reason of the failure.
    pub outcome: String,
    /// The lines that the module logged.
    pub log: Vec<LogLine>,
}

/// A line that a module logged.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LogLine {
    /// The time, in milliseconds since 1970.
    pub at: u64,
    /// The level: `trace` to `error`.
    pub level: String,
    /// The origin: `stdout`, `stderr`, or a name the module gives.
    pub context: String,
    /// The text.
    pub text: String,
}

/// The next state of a delivery whose attempt has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// The module answered.
    Completed,
    /// Another attempt follows.
    Retry {
        /// The delay, counted from when the engine records it.
        after: Duration,
        /// Why the attempt failed.
        reason: FailureReason,
    },
    /// The delivery is given up.
    Dead {
        /// Why the attempt failed.
        reason: FailureReason,
    },
    /// The delivery is deliberately not run.
    Dropped {
        /// Why it is dropped.
        reason: String,
    },
}

/// A call that a module made through a capability, or a value it received that must be the same on replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The position among the calls of the delivery, from 0.
    pub number: u32,
    /// The function, for example `search.search`.
    pub import: RecordedImport,
    /// The arguments, in an encoding that the caller can compare.
    pub arguments: Vec<u8>,
    /// The answer, in an encoding of the caller; `None` while the call is in flight.
    pub answer: Option<Vec<u8>>,
    /// When the call began, by the caller's clock.
    pub at: SystemTime,
}

/// The handle of a write that may not be durable yet.
#[must_use = "the write is durable only once this resolves"]
pub struct CommitHandle(Commit);

enum Commit {
    Done(Result<(), JournalError>),
    Pending(tokio::sync::oneshot::Receiver<Result<(), JournalError>>),
}

impl CommitHandle {
    /// Creates the handle of a write that is already durable.
    pub fn committed() -> Self {
        Self::done(Ok(()))
    }

    /// Creates the handle of a write whose result is known.
    pub fn done(result: Result<(), JournalError>) -> Self {
        Self(Commit::Done(result))
    }

    /// Creates the handle of a write whose result will be sent through a channel.
    pub fn pending(done: tokio::sync::oneshot::Receiver<Result<(), JournalError>>) -> Self {
        Self(Commit::Pending(done))
    }

    /// Waits until this write and every earlier one are durable.
    ///
    /// # Errors
    ///
    /// If the write failed.
    pub async fn durable(self) -> Result<(), JournalError> {
        match self.0 {
            Commit::Done(result) => result,
            Commit::Pending(done) => {
                done.await.unwrap_or_else(|_| Err(StorageError::broken("journal", "its writer has stopped").into()))
            }
        }
    }
}

/// A filter of deliveries. A field that is `None` matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The state.
    pub state: Option<State>,
    /// The module.
    pub module: Option<Name>,
    /// The tenant.
    pub tenant: Option<Name>,
    /// The id of the event.
    pub event: Option<String>,
    /// The earliest time at which the event was recorded or the state changed.
    pub since: Option<SystemTime>,
    /// Maximum number of deliveries; the newest are returned.
    pub limit: Option<u32>,
}

/// A delivery in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Its id.
    pub id: DeliveryId,
    /// The id of its event.
    pub event_id: String,
    /// The name of its event.
    pub event_name: String,
    /// The source of its event.
    pub source: Name,
    /// The tenant.
    pub tenant: Name,
    /// The module.
    pub module: Name,
    /// Its state.
    pub state: State,
    /// The reason for its state, if one is recorded.
    pub reason: Option<String>,
    /// The number of attempts that began.
    pub attempts: u32,
    /// The module version that ran in the last attempt that ended, if one did.
    pub version: Option<String>,
    /// When its event was recorded.
    pub received_at: SystemTime,
    /// When it entered its state.
    pub changed_at: SystemTime,
    /// When its next attempt is due, if it is waiting.
    pub due_at: Option<SystemTime>,
}

/// Everything recorded about a delivery.
#[derive(Clone, Debug)]
pub struct Details {
    /// Its summary, as in a list.
    pub summary: Summary,
    /// The event.
    pub event: Arc<Event>,
    /// Every change of its state, oldest first.
    pub changes: Vec<Change>,
    /// The attempts that have ended.
    pub attempts: Vec<Attempt>,
    /// Its calls, with their answers.
    pub calls: Vec<Call>,
}

/// A change of a delivery's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When the state changed.
    pub at: SystemTime,
    /// The new state.
    pub state: State,
    /// The reason, if one is recorded.
    pub reason: Option<String>,
}

/// The size of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    /// The number of deliveries in each state, in the order of [`State::ALL`].
    pub deliveries: [u64; 5],
    /// Its size on disk, or in memory if it is not stored on disk; in bytes.
    pub bytes: u64,
}

impl Totals {
    /// Returns the number of deliveries in a state.
    pub fn of(&self, state: State) -> u64 {
        let index = State::ALL.iter().position(|known| *known == state);
        index.and_then(|index| self.deliveries.get(index)).copied().unwrap_or_default()
    }
}

/// How long deliveries and ids are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// For deliveries that completed or were dropped, with their calls.
    pub completed: Duration,
    /// For dead deliveries, which an operator may resend.
    pub dead: Duration,
    /// For the ids of events, by which redeliveries are recognized.
    pub ids: Duration,
    /// Maximum size in bytes. Above it, ended deliveries are removed early: of the tenant that uses most, completed and
    /// dropped ones before dead ones, and those that ended first. Ids may take a quarter of it; above that, the oldest
    /// ones of the tenant that has most are removed early.
    pub max_bytes: Option<u64>,
    /// The same for the records of single tenants, each with a limit of its own. The sizes are those of
    /// [`Journal::usage`](super::Journal::usage).
    pub tenant_limits: TenantLimits,
}
