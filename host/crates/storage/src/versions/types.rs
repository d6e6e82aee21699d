//! The types of the record of versions.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::ContentHash;
use modhost_core::plural::counted;

/// An entry in the history of a module's versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The version.
    pub hash: ContentHash,
    /// Its role.
    pub role: Role,
    /// Where it came from.
    pub origin: Origin,
    /// The operator who requested it; none if the file changed.
    pub by: Option<String>,
    /// When it took the role.
    pub began: SystemTime,
    /// When it lost the role; none if it still has it.
    pub ended: Option<SystemTime>,
    /// Why it lost the role, or why it was refused.
    pub reason: Option<String>,
    /// Whether its component is kept, so that it can serve again.
    pub kept: bool,
}

/// The role of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It answers the module's events.
    Serving,
    /// It answers a share of them, on trial.
    Canary,
    /// It may not serve.
    Refused,
}

impl Role {
    /// Its name, as stored and as people read it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Canary => "canary",
            Self::Refused => "refused",
        }
    }

    pub(super) fn from_word(word: &str) -> Option<Self> {
        [Self::Serving, Self::Canary, Self::Refused].into_iter().find(|role| role.word() == word)
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
    /// The word for it, as it is stored and as people read it.
    pub fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Rollback => "rollback",
            Self::Pin => "pin",
            Self::Canary => "canary",
        }
    }

    pub(super) fn from_word(word: &str) -> Option<Self> {
        [Self::File, Self::Rollback, Self::Pin, Self::Canary].into_iter().find(|origin| origin.word() == word)
    }
}

/// An operator's order about a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The operator.
    pub by: String,
    /// When.
    pub at: SystemTime,
}

/// A version that is not loaded, although the module's file contains it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBack {
    /// The version.
    pub hash: ContentHash,
    /// Why.
    pub why: String,
}

impl HeldBack {
    /// Creates it for a version whose trial failed.
    pub fn by_its_trial(hash: ContentHash, tally: &Tally) -> Self {
        Self { hash, why: format!("{DID_WORSE}: {tally}") }
    }

    /// Whether its trial failed, in contrast to an operator's request.
    pub fn is_by_its_trial(&self) -> bool {
        self.why.starts_with(DID_WORSE)
    }
}

/// Why a version is held back whose trial failed.
const DID_WORSE: &str = "it did worse on trial";

/// The progress of a trial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// How long it has lasted while a host ran.
    pub watched: Duration,
    /// The results of the two versions.
    pub tally: Tally,
}

/// The results of two versions side by side: deliveries, each counted once, by its first attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Deliveries to the new version.
    pub canary_runs: u64,
    /// Those that it did not complete.
    pub canary_failed: u64,
    /// Deliveries to the serving version.
    pub stable_runs: u64,
    /// Those that it did not complete.
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

/// The state of a module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleState {
    /// The version that serves, or that served last.
    pub serving: Option<Entry>,
    /// The version on trial.
    pub canary: Option<Entry>,
    /// The progress of its trial, as last recorded.
    pub progress: Progress,
    /// The version it is pinned to, whatever is in its file.
    pub pinned: Option<(ContentHash, Order)>,
    /// The version that is not loaded from its file.
    pub held_back: Option<HeldBack>,
    /// Set while its deliveries are paused.
    pub paused: Option<Order>,
}

/// A fact to record about a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A version serves instead of the one before.
    Serves {
        /// The version.
        hash: ContentHash,
        /// Its origin.
        origin: Origin,
        /// The operator who requested it, if any.
        by: Option<String>,
    },
    /// A version is on trial.
    Tried {
        /// The version.
        hash: ContentHash,
    },
    /// The progress of the trial of a version; ignored if the trial has ended.
    Progress {
        /// The version.
        hash: ContentHash,
        /// The progress.
        progress: Progress,
    },
    /// The trial has ended.
    TrialOver {
        /// Why.
        reason: String,
    },
    /// A version may not serve.
    Refused {
        /// The version.
        hash: ContentHash,
        /// Why.
        reason: String,
    },
    /// The module is pinned to a version, or unpinned.
    Pinned(Option<(ContentHash, Order)>),
    /// A version is not loaded from the file; none: every version is.
    HeldBack(Option<HeldBack>),
    /// The module's deliveries are paused, or resumed.
    Paused(Option<Order>),
}
