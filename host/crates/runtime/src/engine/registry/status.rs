//! How a module stands, for people.

use std::time::{Duration, SystemTime};

use super::canary::{Canary, MissingEvidence};
use super::module_entry::ModuleEntry;
use modhost_core::event::Name;
use modhost_storage::versions::{ContentHash, HeldBack, Order, Tally};

/// How a module stands.
#[derive(Clone, Debug)]
pub struct Status {
    /// The module.
    pub name: Name,
    /// The version that serves, if one does.
    pub version: Option<ContentHash>,
    /// Since when it does.
    pub since: Option<SystemTime>,
    /// Whether nothing serves yet, but what is in the file is on its way: its deliveries wait.
    pub coming_up: bool,
    /// Since when its deliveries wait for a version, and why there is none; none if one serves.
    pub waiting: Option<Waiting>,
    /// Why the file as it is now doesn't serve, if it doesn't.
    pub refused: Option<String>,
    /// What isn't taken from the file, because it was gone back from.
    pub held_back: Option<HeldBack>,
    /// The version it is to stay on, and who said so.
    pub pinned: Option<(ContentHash, Order)>,
    /// Who said that its deliveries wait, if anybody did.
    pub paused: Option<Order>,
    /// The version that is tried on a share of the deliveries.
    pub canary: Option<CanaryStatus>,
    /// How many versions are in memory: what serves, what is tried, and what deliveries still run on.
    pub loaded: usize,
}

/// That no version of a module serves: its deliveries wait for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Since when: the host started, or the module came into modules.toml.
    pub since: SystemTime,
    /// Why no version serves.
    pub reason: String,
}

/// A module that has no version to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingModule {
    /// The module.
    pub name: Name,
    /// Whether its component is being read or compiled now. If not, the module waits for another file, or for other settings.
    pub coming_up: bool,
    /// Since when, and why.
    pub waiting: Waiting,
}

/// A version that is tried.
#[derive(Clone, Debug)]
pub struct CanaryStatus {
    /// The version.
    pub version: ContentHash,
    /// How many of a hundred deliveries it gets.
    pub percent: u8,
    /// Since when.
    pub since: SystemTime,
    /// How long the trial goes on at least.
    pub time_left: Duration,
    /// How many deliveries have to have ended on it before it can take over.
    pub min_deliveries: u32,
    /// What the trial waits for, if its time is over and it can't be decided yet.
    pub waits_for: Option<MissingEvidence>,
    /// How it has gone so far.
    pub tally: Tally,
}

impl CanaryStatus {
    pub(super) fn of(canary: &Canary) -> Self {
        let Canary { version, trial } = canary;
        Self {
            version: version.hash(),
            percent: trial.policy.percent,
            since: trial.since,
            time_left: trial.time_left(),
            min_deliveries: trial.policy.min_deliveries,
            waits_for: trial.waits_for(),
            tally: trial.tally(),
        }
    }
}

impl ModuleEntry {
    /// Since when and why its deliveries wait for a version, if none serves.
    pub(super) fn waiting(&self) -> Option<Waiting> {
        if self.serving().is_some() {
            return None;
        }
        let reason = match self.refused() {
            Some(refused) => refused,
            None if self.is_coming_up() => "its component is being read or compiled".into(),
            None => "its component has not been read yet".into(),
        };
        Some(Waiting { since: self.named, reason })
    }

    pub(super) fn status(&self) -> Status {
        let standing = self.standing();
        let coming_up = self.is_coming_up();
        let serving = self.serving();
        let version = serving.as_ref().map(|serving| serving.stable.hash());
        Status {
            name: self.name.clone(),
            version,
            since: standing.serving.filter(|entry| Some(entry.hash) == version).map(|entry| entry.began),
            coming_up: coming_up && version.is_none(),
            waiting: self.waiting().filter(|_| version.is_none()),
            refused: self.refused(),
            held_back: standing.held_back,
            pinned: standing.pinned,
            paused: standing.paused,
            canary: serving.as_ref().and_then(|serving| serving.canary.as_ref()).map(CanaryStatus::of),
            loaded: self.loaded(),
        }
    }
}
