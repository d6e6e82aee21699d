//! The status of modules, for the admin API and the command line.

use std::time::{Duration, SystemTime};

use super::canary::{Canary, MissingEvidence};
use super::module_entry::ModuleEntry;
use modhost_core::event::Name;
use modhost_storage::versions::{ContentHash, HeldBack, OperatorAction, Tally};

/// The status of a module.
#[derive(Clone, Debug)]
pub struct Status {
    /// The name of the module.
    pub name: Name,
    /// The serving version, if any.
    pub version: Option<ContentHash>,
    /// When that version began to serve.
    pub since: Option<SystemTime>,
    /// Whether no version serves yet and the file is being read or compiled. Deliveries wait meanwhile.
    pub coming_up: bool,
    /// Since when deliveries wait for a version, and why; `None` if a version serves.
    pub waiting: Option<WaitState>,
    /// Why the current file is refused, if it is.
    pub refused: Option<String>,
    /// The version that isn't loaded from the file because it was rolled back.
    pub held_back: Option<HeldBack>,
    /// The version to which the module is pinned, and who pinned it.
    pub pinned: Option<(ContentHash, OperatorAction)>,
    /// Who paused the module, if it is paused.
    pub paused: Option<OperatorAction>,
    /// The version on trial, if any.
    pub canary: Option<CanaryStatus>,
    /// The number of versions in memory: serving, on trial, or still used by running deliveries.
    pub loaded: usize,
}

/// The state of a module without a serving version. Its deliveries wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitState {
    /// When the host started, or the module was added to modules.toml.
    pub since: SystemTime,
    /// The reason why no version serves.
    pub reason: String,
}

/// A module without a version to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingModule {
    /// The name of the module.
    pub name: Name,
    /// Whether its component is being read or compiled now. If not, the module needs another file or other settings.
    pub coming_up: bool,
    /// Since when it waits, and why.
    pub waiting: WaitState,
}

/// The status of a version on trial.
#[derive(Clone, Debug)]
pub struct CanaryStatus {
    /// The version.
    pub version: ContentHash,
    /// The percentage of deliveries that it gets.
    pub percent: u8,
    /// When the trial began.
    pub since: SystemTime,
    /// The minimum time until the trial ends.
    pub time_left: Duration,
    /// The minimum number of deliveries that must end on it before it can take over.
    pub min_deliveries: u32,
    /// The missing evidence, if the trial's time is over and it can't be decided yet.
    pub missing_evidence: Option<MissingEvidence>,
    /// The results so far.
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
            missing_evidence: trial.missing_evidence(),
            tally: trial.tally(),
        }
    }
}

impl ModuleEntry {
    /// Returns since when and why deliveries wait; `None` if a version serves.
    pub(super) fn waiting(&self) -> Option<WaitState> {
        if self.serving().is_some() {
            return None;
        }
        let reason = match self.refused() {
            Some(refused) => refused,
            None if self.is_loading() => "its component is being read or compiled".into(),
            None => "its component has not been read yet".into(),
        };
        Some(WaitState { since: self.added_at, reason })
    }

    pub(super) fn status(&self) -> Status {
        let state = self.module_state();
        let coming_up = self.is_loading();
        let serving = self.serving();
        let version = serving.as_ref().map(|serving| serving.stable.hash());
        Status {
            name: self.name.clone(),
            version,
            since: state.serving.filter(|entry| Some(entry.hash) == version).map(|entry| entry.started_at),
            coming_up: coming_up && version.is_none(),
            waiting: self.waiting().filter(|_| version.is_none()),
            refused: self.refused(),
            held_back: state.held_back,
            pinned: state.pinned,
            paused: state.paused,
            canary: serving.as_ref().and_then(|serving| serving.canary.as_ref()).map(CanaryStatus::of),
            loaded: self.loaded(),
        }
    }
}
