//! What is told to a journal and what it tells.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::FailureReason;
use modhost_core::event::{DeliveryId, Event, Name};
use modhost_core::import::RecordedImport;

/// A delivery to be written down with its event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDelivery {
    /// Its id.
    pub id: DeliveryId,
    /// The module it goes to.
    pub module: Name,
    /// Set if the module's deliveries of one chat go one at a time, in the order they were recorded: the chat.
    pub one_at_a_time: Option<String>,
}

/// What became of an event that was to be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It is on disk.
    New,
    /// It was there already: nothing was written.
    Duplicate,
}

/// The deliveries of one tenant to one module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// The tenant.
    pub tenant: Name,
    /// The module.
    pub module: Name,
    /// How many wait, due or not.
    pub waiting: u64,
}

/// How many deliveries have not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Of the whole host.
    pub host: u64,
    /// Of one tenant.
    pub tenant: u64,
}

/// Deliveries of a lane that are due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The tenant.
    pub tenant: Name,
    /// The module.
    pub module: Name,
    /// The first of them.
    pub deliveries: Vec<DeliveryId>,
}

/// A wish for deliveries to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Of this tenant,
    pub tenant: Name,
    /// to this module,
    pub module: Name,
    /// so many at the most,
    pub limit: u32,
    /// due at this time,
    pub now: SystemTime,
    /// for this owner: one running host,
    pub owner: String,
    /// until this time, unless the lease is prolonged.
    pub until: SystemTime,
}

/// A delivery that may run now.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// Its id.
    pub id: DeliveryId,
    /// The module.
    pub module: Name,
    /// The event.
    pub event: Arc<Event>,
    /// Which attempt this is, from 1. An attempt that was cut off counts.
    pub attempt: u32,
    /// How many of the attempts before belong to an earlier sending, ended until a person sent the delivery again: a
    /// retry schedule counts from there.
    pub earlier: u32,
    /// When the event was recorded.
    pub received_at: SystemTime,
    /// How many calls of earlier attempts are recorded.
    pub calls: u32,
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It waits for its turn, or for the time of its next attempt.
    Waiting,
    /// A host works on it.
    Running,
    /// The module answered.
    Completed,
    /// Given up; a person can send it again.
    Dead,
    /// Not done on purpose, for a reason.
    Dropped,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Waiting, Self::Running, Self::Completed, Self::Dead, Self::Dropped];

    /// The word for it, as people read and type it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Dead => "dead",
            Self::Dropped => "dropped",
        }
    }

    /// Whether a delivery stays in it unless a person does something.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Dead | Self::Dropped)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl std::str::FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|state| state.word() == text).ok_or_else(|| {
            let words: Vec<&str> = Self::ALL.iter().map(|state| state.word()).collect();
            format!("no state is called \"{text}\"; there are {}", words.join(", "))
        })
    }
}

/// How one attempt went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Which attempt, from 1.
    pub number: u32,
    /// The host that made it.
    pub owner: String,
    /// When it began.
    pub started: SystemTime,
    /// When it ended.
    pub ended: SystemTime,
    /// The module version that ran, if one did.
    pub version: Option<String>,
    /// How it ended, for people: `completed`, or why not.
    pub outcome: String,
    /// The lines its module logged.
    pub log: Vec<LogLine>,
}

/// A line a module logged.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LogLine {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// How serious: `trace` to `error`.
    pub level: String,
    /// Where from: `stdout`, `stderr`, or what the module says.
    pub context: String,
    /// The line.
    pub text: String,
}

/// What is next for a delivery whose attempt has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Nothing: it is answered.
    Completed,
    /// Another attempt at this time.
    Retry {
        /// When.
        at: SystemTime,
        /// Why.
        reason: FailureReason,
    },
    /// Nothing: it is given up.
    Dead {
        /// Why.
        reason: FailureReason,
    },
    /// Nothing: it is not to be done.
    Dropped {
        /// Why.
        reason: String,
    },
}

/// A call a module made through a capability, or something else it was told that can't be asked again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its place among the calls of the delivery, from 0.
    pub number: u32,
    /// What was called: `search.search`.
    pub import: RecordedImport,
    /// Its arguments, in whatever form the caller can compare.
    pub arguments: Vec<u8>,
    /// The answer, in whatever form the caller can read again; none while it is in flight.
    pub answer: Option<Vec<u8>>,
    /// When it was begun.
    pub at: SystemTime,
}

/// Something on its way to the disk.
#[must_use = "it is not on disk until this says so"]
pub struct CommitHandle(Option<tokio::sync::oneshot::Receiver<Result<(), super::JournalError>>>);

impl CommitHandle {
    /// Already on disk.
    pub fn already() -> Self {
        Self(None)
    }

    /// On disk when a message comes.
    pub fn when(done: tokio::sync::oneshot::Receiver<Result<(), super::JournalError>>) -> Self {
        Self(Some(done))
    }

    /// Waits until it is on disk, and with it everything that was written before.
    ///
    /// # Errors
    ///
    /// When it could not be written.
    pub async fn on_disk(self) -> Result<(), super::JournalError> {
        match self.0 {
            None => Ok(()),
            Some(done) => {
                let gone = || super::JournalError::Broken("its writer has stopped".into());
                done.await.unwrap_or_else(|_| Err(gone()))
            }
        }
    }
}

/// Which deliveries are meant; what is `None` doesn't matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// In this state.
    pub state: Option<State>,
    /// To this module.
    pub module: Option<Name>,
    /// Of this tenant.
    pub tenant: Option<Name>,
    /// Of the event with this id.
    pub event: Option<String>,
    /// Recorded or changed at or after this time.
    pub since: Option<SystemTime>,
    /// The newest so many.
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
    /// Where it stands.
    pub state: State,
    /// Why it stands there, where there is something to say.
    pub reason: Option<String>,
    /// How many attempts were begun.
    pub attempts: u32,
    /// The module version that ran in the last attempt that ended, if one did.
    pub version: Option<String>,
    /// When its event was recorded.
    pub received_at: SystemTime,
    /// When it came to stand there.
    pub changed_at: SystemTime,
    /// When its next attempt is due, if it waits.
    pub due_at: Option<SystemTime>,
}

/// All there is to know about a delivery.
#[derive(Clone, Debug)]
pub struct Details {
    /// As in a list.
    pub summary: Summary,
    /// The event.
    pub event: Arc<Event>,
    /// Every change of its state: when, to what, why.
    pub changes: Vec<Change>,
    /// The attempts that have ended.
    pub attempts: Vec<Attempt>,
    /// The calls, answers included.
    pub calls: Vec<Call>,
}

/// A change of a delivery's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub at: SystemTime,
    /// To what.
    pub state: State,
    /// Why, where there is something to say.
    pub reason: Option<String>,
}

/// What is in a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    /// How many deliveries are in each state, in the order of [`State::ALL`].
    pub deliveries: [u64; 5],
    /// How large it is on disk, in bytes.
    pub bytes: u64,
}

impl Totals {
    /// How many deliveries are in a state.
    pub fn of(&self, state: State) -> u64 {
        let index = State::ALL.iter().position(|known| *known == state);
        index.and_then(|index| self.deliveries.get(index)).copied().unwrap_or_default()
    }
}

/// How long things are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Deliveries that completed or were dropped, with their calls.
    pub completed: Duration,
    /// Deliveries that were given up: someone may want to send them again.
    pub dead: Duration,
    /// The ids of events, so that a redelivery is known.
    pub ids: Duration,
    /// Beyond this size on disk, in bytes, the oldest of those that have ended go before their time.
    pub max_bytes: Option<u64>,
}
