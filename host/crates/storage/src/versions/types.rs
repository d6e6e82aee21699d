//! What is told to the record of versions and what it tells.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::ContentHash;
use modhost_core::plural::counted;

/// One thing that happened to a version of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The version.
    pub hash: ContentHash,
    /// What it came to be.
    pub role: Role,
    /// Where it came from.
    pub origin: Origin,
    /// Who asked for it; none: nobody did, its file changed.
    pub by: Option<String>,
    /// When it came to be that.
    pub began: SystemTime,
    /// When that was over; none: it still is.
    pub ended: Option<SystemTime>,
    /// Why it was over, or why it was refused.
    pub reason: Option<String>,
    /// Whether its component is kept, so that it can serve again.
    pub kept: bool,
}

/// What a version is to its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It answers the module's events.
    Serving,
    /// It answers a share of them, to see how it does.
    Canary,
    /// It may not serve.
    Refused,
}

impl Role {
    /// The word for it, as it is stored and as people read it.
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

/// Where a version came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The module's file.
    File,
    /// The component kept of a version that served before, which a person went back to.
    Rollback,
    /// A component a person pinned.
    Pin,
    /// A canary that took over.
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

/// Something a person said about a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Who.
    pub by: String,
    /// When.
    pub at: SystemTime,
}

/// A version that isn't taken, although it is what the module's file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBack {
    /// The version.
    pub hash: ContentHash,
    /// Why it isn't.
    pub why: String,
}

impl HeldBack {
    /// A version whose trial has sent it back.
    pub fn by_its_trial(hash: ContentHash, tally: &Tally) -> Self {
        Self { hash, why: format!("{DID_WORSE}: {tally}") }
    }

    /// Whether its trial has sent it back, and not a person.
    pub fn is_by_its_trial(&self) -> bool {
        self.why.starts_with(DID_WORSE)
    }
}

/// Why a version is held back that its trial has sent back.
const DID_WORSE: &str = "it did worse on trial";

/// How far a trial has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// How long it has gone on while a host ran.
    pub watched: Duration,
    /// How the two versions have done.
    pub tally: Tally,
}

/// How two versions have done side by side: deliveries, each counted once, by its first attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many the new version was given.
    pub canary_runs: u64,
    /// How many of those it didn't complete.
    pub canary_failed: u64,
    /// How many the version that serves was given.
    pub stable_runs: u64,
    /// How many of those it didn't complete.
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

/// How a module stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleState {
    /// The version that serves, or served last.
    pub serving: Option<Entry>,
    /// The version that is tried.
    pub canary: Option<Entry>,
    /// How far its trial had come when that was last written down.
    pub progress: Progress,
    /// The version it stays on whatever its file says.
    pub pinned: Option<(ContentHash, Order)>,
    /// What isn't taken from its file.
    pub held_back: Option<HeldBack>,
    /// Set if its deliveries wait.
    pub paused: Option<Order>,
}

/// Something to write down about a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A version serves in place of the one before.
    Serves {
        /// The version.
        hash: ContentHash,
        /// Where it came from.
        origin: Origin,
        /// Who asked for it, if anybody did.
        by: Option<String>,
    },
    /// A version is tried.
    Tried {
        /// The version.
        hash: ContentHash,
    },
    /// How far the trial of a version has come, if it is still tried.
    Progress {
        /// The version.
        hash: ContentHash,
        /// How far.
        progress: Progress,
    },
    /// The version that was tried isn't any more.
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
    /// The module stays on a version, or no longer does.
    Pinned(Option<(ContentHash, Order)>),
    /// A version isn't taken from the file, or all are.
    HeldBack(Option<HeldBack>),
    /// The module's deliveries wait, or no longer do.
    Paused(Option<Order>),
}
