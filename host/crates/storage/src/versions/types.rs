//! The types of the record of versions.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::ContentHash;
use modhost_core::plural::counted;

/// The id of an entry in the history. Later entries have larger ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(pub(super) i64);

/// The number of a module's state. It grows whenever a fact is recorded that decisions about versions depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub(super) u64);

/// An entry in the history of a module's versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: EntryId,
    /// The version.
    pub hash: ContentHash,
    /// Its role.
    pub role: Role,
    /// Where it came from.
    pub origin: Origin,
    /// The operator who requested it; `None` if the file changed or the host promoted a canary.
    pub requested_by: Option<String>,
    /// When it took the role.
    pub started_at: SystemTime,
    /// When it lost the role; `None` if it still has it.
    pub ended_at: Option<SystemTime>,
    /// Why it lost the role, or why it was refused.
    pub reason: Option<String>,
    /// Whether its component is kept, so that it can serve again.
    pub has_component: bool,
}

/// The role of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It processes the module's events.
    Serving,
    /// It processes a share of the module's events, on trial.
    Canary,
    /// It must not serve.
    Refused,
}

impl Role {
    /// Returns the name of the role, as stored and displayed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Canary => "canary",
            Self::Refused => "refused",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::Serving, Self::Canary, Self::Refused].into_iter().find(|role| role.name() == name)
    }
}

/// The origin of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The module's file.
    File,
    /// A kept component that an operator rolled back to.
    Rollback,
    /// A component that an operator pinned.
    Pin,
    /// A canary that was promoted.
    Canary,
}

impl Origin {
    /// Returns the name of the origin, as stored and displayed.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Rollback => "rollback",
            Self::Pin => "pin",
            Self::Canary => "canary",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::File, Self::Rollback, Self::Pin, Self::Canary].into_iter().find(|origin| origin.name() == name)
    }
}

/// An operator's action on a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorAction {
    /// The operator.
    pub by: String,
    /// When the operator requested the action.
    pub at: SystemTime,
}

/// A version that the host does not load, although the module's file contains it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBack {
    /// The version.
    pub hash: ContentHash,
    /// Why it is held back.
    pub why: String,
}

impl HeldBack {
    /// Holds back a version whose trial failed.
    pub fn after_failed_trial(hash: ContentHash, tally: &Tally) -> Self {
        Self { hash, why: format!("{TRIAL_FAILED}: {tally}") }
    }

    /// Returns whether the version is held back because its trial failed, rather than at an operator's request.
    pub fn is_failed_trial(&self) -> bool {
        self.why.starts_with(TRIAL_FAILED)
    }
}

/// The beginning of the stored reason of a version that is held back because its trial failed.
const TRIAL_FAILED: &str = "it did worse on trial";

/// The progress of a trial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// How long the trial has run, not counting the time without a running host.
    pub observed: Duration,
    /// The results of the canary and of the serving version.
    pub tally: Tally,
}

/// The results of a canary and the serving version: the numbers of deliveries, each counted once, by its first attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Deliveries to the canary.
    pub canary_runs: u64,
    /// Deliveries that the canary did not complete.
    pub canary_failed: u64,
    /// Deliveries to the serving version.
    pub stable_runs: u64,
    /// Deliveries that the serving version did not complete.
    pub stable_failed: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { canary_runs, canary_failed, stable_runs, stable_failed } = self;
        write!(
            f,
            "{canary_failed} of its {} failed, and {stable_failed} of the {stable_runs} of the version before",
            counted(*canary_runs, "delivery", "deliveries")
        )
    }
}

/// Whether the file of a host offers its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// The version is new.
    New,
    /// The record knows it, and decides which version serves.
    Known,
}

/// The state of a module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleState {
    /// The number of this state.
    pub epoch: Epoch,
    /// The version that serves, or that served last.
    pub serving: Option<Entry>,
    /// The canary.
    pub canary: Option<Entry>,
    /// The progress of the canary's trial, as last recorded.
    pub progress: Progress,
    /// The version that the module is pinned to, regardless of its file.
    pub pinned: Option<(ContentHash, OperatorAction)>,
    /// The version that is not loaded from the module's file.
    pub held_back: Option<HeldBack>,
    /// The action that paused the module's deliveries, while they are paused.
    pub paused: Option<OperatorAction>,
}

/// A fact to record about a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A version serves, replacing the previous one.
    Serves {
        /// The version.
        hash: ContentHash,
        /// Its origin.
        origin: Origin,
        /// The operator who requested it, if any.
        by: Option<String>,
    },
    /// The trial of a canary begins.
    CanaryStarted {
        /// The version.
        hash: ContentHash,
    },
    /// The trial has ended.
    CanaryEnded {
        /// Why it ended.
        reason: String,
    },
    /// A version must not serve.
    Refused {
        /// The version.
        hash: ContentHash,
        /// Why it is refused.
        reason: String,
    },
    /// The file of this host has offered a version, and the other facts say what became of it.
    Offered {
        /// The version.
        hash: ContentHash,
    },
    /// The module is pinned to a version, or unpinned.
    Pinned(Option<(ContentHash, OperatorAction)>),
    /// A version is held back: it is not loaded from the module's file. `None` ends this.
    HeldBack(Option<HeldBack>),
    /// The module's deliveries are paused, or resumed.
    Paused(Option<OperatorAction>),
}

impl Fact {
    /// Returns the version that the fact puts on record, if any.
    pub(super) fn hash(&self) -> Option<ContentHash> {
        match self {
            Self::Serves { hash, .. } | Self::CanaryStarted { hash } | Self::Refused { hash, .. } => Some(*hash),
            Self::CanaryEnded { .. } | Self::Offered { .. } | Self::Pinned(_) | Self::HeldBack(_) | Self::Paused(_) => {
                None
            }
        }
    }

    /// Returns whether decisions about versions depend on the fact, so that it begins another epoch. A refusal matters to
    /// others only together with [`Fact::Offered`].
    pub(super) fn begins_epoch(&self) -> bool {
        !matches!(self, Self::Paused(_) | Self::Refused { .. })
    }
}

impl ModuleState {
    /// Returns whether another state says the same, whatever led to it.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let Self { epoch: _, progress: _, serving, canary, pinned, held_back, paused } = self;
        *serving == other.serving
            && *canary == other.canary
            && *pinned == other.pinned
            && *held_back == other.held_back
            && *paused == other.paused
    }
}

impl Tally {
    /// Adds the results of other deliveries.
    pub fn add(&mut self, other: &Self) {
        let Self { canary_runs, canary_failed, stable_runs, stable_failed } = other;
        self.canary_runs += canary_runs;
        self.canary_failed += canary_failed;
        self.stable_runs += stable_runs;
        self.stable_failed += stable_failed;
    }
}
