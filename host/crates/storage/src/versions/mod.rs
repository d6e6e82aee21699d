//! The record of versions. It contains the history of each module's versions (when each served, its origin, the
//! operator who requested it, why it ended), the actions of operators, and the components, so that a version can serve
//! again whose file no longer exists.
//!
//! Several hosts can share one record. Each decides on the state that it knows and names the [`Epoch`] of that state
//! when it records the decision. If another host has changed the state meanwhile, nothing is recorded, and the caller
//! decides again. So whatever happens to a version is decided once, by one host, and the others follow.
//!
//! The record does not depend on WebAssembly: a component is a sequence of bytes.

mod components;
mod hash;
mod policy;
mod postgres;
mod sqlite;
mod types;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::StorageError;
use modhost_core::event::Name;

pub use components::Keep;
pub(crate) use components::folder as component_folder;
pub use hash::ContentHash;
pub use policy::{
    Decision, Refusal, VersionRequest, aborted_by, canary_failed_facts, canary_promoted_facts, promoted_by,
};
pub(crate) use postgres::{PART as COMPONENT_PART, POSTGRES_TABLES};
pub use postgres::{Postgres, PostgresHost};
pub(crate) use sqlite::SQLITE_TABLES;
pub use sqlite::{OfflineVersions, Sqlite, accept_loss};
pub use types::{
    Entry, EntryId, Epoch, Fact, HeldBack, ModuleState, Offer, OperatorAction, Origin, Progress, Role, Tally,
};

/// Maximum number of history entries of a module.
const MAX_ENTRIES: u32 = 200;

/// The result of an operation on the record.
pub type Result<T> = std::result::Result<T, StorageError>;

/// The reason why facts were not recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The state of the module has changed since the epoch on which the decision was based. Nothing was recorded, and
    /// [`Versions::module_state`] returns the new state.
    #[error("another decision about the module was recorded meanwhile")]
    Conflict,
    /// The record cannot be written.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A record of versions.
#[async_trait]
pub trait Versions: Send + Sync + 'static {
    /// Returns the state of a module as this host knows it: the serving version, the canary, and the actions of operators.
    /// Reads no file and no database, so that it can be called for every event.
    fn module_state(&self, module: &Name) -> ModuleState;

    /// Records facts about a module durably, all or none. They were decided on the state with this epoch. Returns the
    /// epoch of the state that they result in.
    ///
    /// # Errors
    ///
    /// [`NoteError::Conflict`] if the module has another epoch by now. If the record cannot be written.
    async fn note(&self, module: &Name, based_on: Epoch, facts: Vec<Fact>) -> std::result::Result<Epoch, NoteError>;

    /// Adds results of deliveries that ended on this host to the trial of a module's canary. `trial` is the canary's entry
    /// in the history, and `observed` how long the trial has run. Returns the progress over all hosts. If the trial has
    /// ended, the results are dropped, and the progress is zero.
    ///
    /// # Errors
    ///
    /// If the record cannot be written. The results are written with the next call for this trial.
    async fn count_trial(&self, module: &Name, trial: EntryId, ended: Tally, observed: Duration) -> Result<Progress>;

    /// Returns whether the file of this host offers a version, because the file is new, or has changed to a version that no
    /// host has offered since this host's file changed last. Otherwise the record decides which version serves, so that a
    /// host whose file is older doesn't bring back its version. The version remains offered until [`Fact::Offered`] is
    /// recorded with what became of it.
    ///
    /// # Errors
    ///
    /// If the record cannot be read or written.
    async fn offer(&self, module: &Name, file: ContentHash) -> Result<Offer>;

    /// Returns the history of a module's versions, newest first, as far back as it is kept.
    ///
    /// # Errors
    ///
    /// If the record cannot be read.
    async fn history(&self, module: &Name) -> Result<Vec<Entry>>;

    /// Keeps a component, so that it can serve again, on any host. Beyond the limits, removes the components of the
    /// versions that were recorded longest ago, except those that serve, are canaries or are pinned.
    ///
    /// # Errors
    ///
    /// If the component cannot be written.
    async fn keep(&self, hash: ContentHash, bytes: Arc<[u8]>) -> Result<()>;

    /// Returns the bytes of a kept component; `None` if it is not kept, or its bytes have changed.
    ///
    /// # Errors
    ///
    /// If the record cannot be read.
    async fn component(&self, hash: ContentHash) -> Result<Option<Vec<u8>>>;

    /// Reads what other hosts have changed. Returns the modules whose state is another one since the last call.
    ///
    /// # Errors
    ///
    /// If the record cannot be read.
    async fn refresh(&self) -> Result<Vec<Name>>;

    /// Returns how often [`refresh`](Self::refresh) has to be called; `None` if no other host can use this record.
    fn poll_every(&self) -> Option<Duration>;
}
