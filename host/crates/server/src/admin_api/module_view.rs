//! Modules and their versions, as the admin API returns them and the commands print them.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::view::rfc3339;
use modhost_core::event::Name;
use modhost_runtime::engine::{CanaryStatus, Status, WaitState};
use modhost_storage::versions::{ContentHash, Entry, HeldBack, ModuleState, OperatorAction, Tally};

/// The state of a module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModuleView {
    /// Its name.
    pub name: String,
    /// The serving version: the first digits of its hash. `None` if none serves.
    pub version: Option<String>,
    /// The full hash of that version.
    pub hash: Option<String>,
    /// When it began to serve (RFC 3339).
    pub since: Option<String>,
    /// Whether no version serves yet, but one is loading. The module's deliveries wait.
    pub coming_up: bool,
    /// Set if no version serves and the module's deliveries wait for one.
    pub waiting: Option<WaitingView>,
    /// The reason why the current file can't serve, if it can't.
    pub refused: Option<String>,
    /// The version that is not loaded from the file until the file changes.
    pub held_back: Option<HeldBackView>,
    /// The version that an operator pinned.
    pub pinned: Option<PinnedView>,
    /// Set if the module is paused: its deliveries wait.
    pub paused: Option<OperatorActionView>,
    /// The canary.
    pub canary: Option<CanaryView>,
    /// The number of deliveries that run now. `None` if the host doesn't run.
    pub in_flight: Option<usize>,
    /// The number of versions in memory. `None` if the host doesn't run.
    pub versions_loaded: Option<usize>,
}

/// The state of a module without a serving version, whose deliveries wait.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WaitingView {
    /// Since when they wait (RFC 3339).
    pub since: String,
    /// The reason why no version serves.
    pub reason: String,
}

/// A version that isn't loaded from the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldBackView {
    /// The version.
    pub version: String,
    /// The reason.
    pub why: String,
}

/// A pinned version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PinnedView {
    /// The version.
    pub version: String,
    /// The operator's action.
    #[serde(flatten)]
    pub order: OperatorActionView,
}

/// An action of an operator on a module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperatorActionView {
    /// The operator's name.
    pub by: String,
    /// When the operator requested it (RFC 3339).
    pub at: String,
}

/// A canary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CanaryView {
    /// The version.
    pub version: String,
    /// The percentage of deliveries that it gets. `None` if the host doesn't run; the settings contain it.
    pub percent: Option<u8>,
    /// When the trial began (RFC 3339).
    pub since: String,
    /// The minimum time left, in seconds. `None` if the host doesn't run; the settings contain the total.
    pub seconds_left: Option<u64>,
    /// The number of deliveries that must end on it before it can be promoted. `None` if the host doesn't run; the
    /// settings contain it.
    pub min_deliveries: Option<u32>,
    /// The evidence that is missing for a decision, if the trial's time is over.
    pub waits_for: Option<String>,
    /// The number of deliveries that it got.
    pub runs: u64,
    /// The number of those that it didn't complete.
    pub failed: u64,
    /// The number of deliveries that the serving version got meanwhile.
    pub stable_runs: u64,
    /// The number of those that it didn't complete.
    pub stable_failed: u64,
}

/// An entry in the history of a module's versions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionView {
    /// The version: the first digits of its hash.
    pub version: String,
    /// The full hash.
    pub hash: String,
    /// The role of the version: `serving`, `canary` or `refused`.
    pub role: String,
    /// The origin of the change: `file`, `rollback`, `pin` or `canary`.
    pub origin: String,
    /// The operator who requested it. `None` if the file changed.
    pub by: Option<String>,
    /// When the role began (RFC 3339).
    pub began_at: String,
    /// When it ended (RFC 3339), if it has.
    pub ended_at: Option<String>,
    /// The reason for its end, or for the refusal.
    pub reason: Option<String>,
    /// Whether the component is stored, so that it can serve again.
    pub kept: bool,
}

impl ModuleView {
    /// Returns the state of a module with this number of running deliveries.
    pub fn new(status: Status, in_flight: usize) -> Self {
        Self {
            name: status.name.to_string(),
            version: status.version.map(|version| version.to_string()),
            hash: status.version.as_ref().map(ContentHash::to_hex),
            since: status.since.map(rfc3339),
            coming_up: status.coming_up,
            waiting: status.waiting.map(WaitingView::from),
            refused: status.refused,
            held_back: status.held_back.map(HeldBackView::from),
            pinned: status.pinned.map(PinnedView::from),
            paused: status.paused.map(OperatorActionView::from),
            canary: status.canary.map(CanaryView::from),
            in_flight: Some(in_flight),
            versions_loaded: Some(status.loaded),
        }
    }

    /// Returns the recorded state of a module whose host doesn't run.
    pub fn offline(name: &Name, state: ModuleState) -> Self {
        let serving = state.serving.as_ref();
        Self {
            name: name.to_string(),
            version: serving.map(|entry| entry.hash.to_string()),
            hash: serving.map(|entry| entry.hash.to_hex()),
            since: serving.map(|entry| rfc3339(entry.started_at)),
            coming_up: false,
            waiting: None,
            refused: None,
            held_back: state.held_back.map(HeldBackView::from),
            pinned: state.pinned.map(PinnedView::from),
            paused: state.paused.map(OperatorActionView::from),
            canary: state.canary.map(|entry| CanaryView::new(entry.hash, entry.started_at, state.progress.tally)),
            in_flight: None,
            versions_loaded: None,
        }
    }
}

impl From<WaitState> for WaitingView {
    fn from(waiting: WaitState) -> Self {
        Self { since: rfc3339(waiting.since), reason: waiting.reason }
    }
}

impl From<HeldBack> for HeldBackView {
    fn from(held_back: HeldBack) -> Self {
        Self { version: held_back.hash.to_string(), why: held_back.why }
    }
}

impl From<(ContentHash, OperatorAction)> for PinnedView {
    fn from((hash, order): (ContentHash, OperatorAction)) -> Self {
        Self { version: hash.to_string(), order: order.into() }
    }
}

impl CanaryView {
    fn new(version: ContentHash, since: SystemTime, tally: Tally) -> Self {
        Self {
            version: version.to_string(),
            percent: None,
            since: rfc3339(since),
            seconds_left: None,
            min_deliveries: None,
            waits_for: None,
            runs: tally.canary_runs,
            failed: tally.canary_failed,
            stable_runs: tally.stable_runs,
            stable_failed: tally.stable_failed,
        }
    }
}

impl From<OperatorAction> for OperatorActionView {
    fn from(order: OperatorAction) -> Self {
        Self { by: order.by, at: rfc3339(order.at) }
    }
}

impl From<CanaryStatus> for CanaryView {
    fn from(canary: CanaryStatus) -> Self {
        Self {
            percent: Some(canary.percent),
            seconds_left: Some(canary.time_left.as_secs()),
            min_deliveries: Some(canary.min_deliveries),
            waits_for: canary.missing_evidence.map(|missing| missing.to_string()),
            ..Self::new(canary.version, canary.since, canary.tally)
        }
    }
}

impl From<Entry> for VersionView {
    fn from(entry: Entry) -> Self {
        Self {
            version: entry.hash.to_string(),
            hash: entry.hash.to_hex(),
            role: entry.role.name().into(),
            origin: entry.origin.name().into(),
            by: entry.requested_by,
            began_at: rfc3339(entry.started_at),
            ended_at: entry.ended_at.map(rfc3339),
            reason: entry.reason,
            kept: entry.has_component,
        }
    }
}
