//! Modules and their versions as the admin API tells them and the commands print them.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::view::rfc3339;
use modhost_core::event::Name;
use modhost_runtime::engine::{CanaryStatus, Status, Waiting};
use modhost_storage::versions::{ContentHash, Entry, HeldBack, ModuleState, Order, Tally};

/// How a module stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModuleView {
    /// Its name.
    pub name: String,
    /// The version that serves, if one does: the first digits of its hash.
    pub version: Option<String>,
    /// All digits of it.
    pub hash: Option<String>,
    /// Since when it serves (RFC 3339).
    pub since: Option<String>,
    /// Whether none serves yet, but what is in its file is on its way: its deliveries wait.
    pub coming_up: bool,
    /// Set if no version serves: its deliveries wait for one.
    pub waiting: Option<WaitingView>,
    /// Why its file as it is now doesn't serve, if it doesn't.
    pub refused: Option<String>,
    /// What isn't taken from the file until that changes.
    pub held_back: Option<HeldBackView>,
    /// The version it stays on, if a person said so.
    pub pinned: Option<PinnedView>,
    /// Set if its deliveries wait.
    pub paused: Option<OrderView>,
    /// The version that is on trial.
    pub canary: Option<CanaryView>,
    /// How many of its deliveries run now; none: its host doesn't run.
    pub in_flight: Option<usize>,
    /// How many of its versions are in memory; none: its host doesn't run.
    pub versions_loaded: Option<usize>,
}

/// That no version of a module serves, and its deliveries wait for one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WaitingView {
    /// Since when (RFC 3339).
    pub since: String,
    /// Why no version serves.
    pub reason: String,
}

/// A version that isn't taken from the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldBackView {
    /// The version.
    pub version: String,
    /// Why.
    pub why: String,
}

/// A version a module stays on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PinnedView {
    /// The version.
    pub version: String,
    /// Who said so, and when.
    #[serde(flatten)]
    pub order: OrderView,
}

/// Something a person said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderView {
    /// Who.
    pub by: String,
    /// When (RFC 3339).
    pub at: String,
}

/// A version that is on trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CanaryView {
    /// The version.
    pub version: String,
    /// How many of a hundred deliveries it gets; none: its host doesn't run, and its settings say.
    pub percent: Option<u8>,
    /// Since when (RFC 3339).
    pub since: String,
    /// How long the trial goes on at least, in seconds; none: its host doesn't run, and its settings say.
    pub seconds_left: Option<u64>,
    /// How many deliveries have to have ended on it before it can take over; none: its host doesn't run, and its settings
    /// say.
    pub min_deliveries: Option<u32>,
    /// What the trial waits for, if its time is over and too little is known to end it.
    pub waits_for: Option<String>,
    /// How many deliveries it was given.
    pub runs: u64,
    /// How many of those it didn't complete.
    pub failed: u64,
    /// How many deliveries the version that serves was given meanwhile.
    pub stable_runs: u64,
    /// How many of those it didn't complete.
    pub stable_failed: u64,
}

/// Something that happened to a version of a module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionView {
    /// The version: the first digits of its hash.
    pub version: String,
    /// All digits of it.
    pub hash: String,
    /// What it came to be: `serving`, `canary` or `refused`.
    pub role: String,
    /// Where it came from: `file`, `rollback`, `pin` or `canary`.
    pub origin: String,
    /// Who asked for it; none: nobody did, its file changed.
    pub by: Option<String>,
    /// When it came to be that (RFC 3339).
    pub began_at: String,
    /// When that was over, if it is (RFC 3339).
    pub ended_at: Option<String>,
    /// Why it was over, or why it was refused.
    pub reason: Option<String>,
    /// Whether its component is kept, so that it can serve again.
    pub kept: bool,
}

impl ModuleView {
    /// How a module stands, with so many deliveries running.
    pub fn new(status: Status, in_flight: usize) -> Self {
        Self {
            name: status.name.to_string(),
            version: status.version.map(|version| version.to_string()),
            hash: status.version.as_ref().map(ContentHash::in_full),
            since: status.since.map(rfc3339),
            coming_up: status.coming_up,
            waiting: status.waiting.map(WaitingView::from),
            refused: status.refused,
            held_back: status.held_back.map(HeldBackView::from),
            pinned: status.pinned.map(PinnedView::from),
            paused: status.paused.map(OrderView::from),
            canary: status.canary.map(CanaryView::from),
            in_flight: Some(in_flight),
            versions_loaded: Some(status.loaded),
        }
    }

    /// How a module stands whose host doesn't run, as the record of versions has it.
    pub fn at_rest(name: &Name, standing: ModuleState) -> Self {
        let serving = standing.serving.as_ref();
        Self {
            name: name.to_string(),
            version: serving.map(|entry| entry.hash.to_string()),
            hash: serving.map(|entry| entry.hash.in_full()),
            since: serving.map(|entry| rfc3339(entry.began)),
            coming_up: false,
            waiting: None,
            refused: None,
            held_back: standing.held_back.map(HeldBackView::from),
            pinned: standing.pinned.map(PinnedView::from),
            paused: standing.paused.map(OrderView::from),
            canary: standing.canary.map(|entry| CanaryView::new(entry.hash, entry.began, standing.progress.tally)),
            in_flight: None,
            versions_loaded: None,
        }
    }
}

impl From<Waiting> for WaitingView {
    fn from(waiting: Waiting) -> Self {
        Self { since: rfc3339(waiting.since), reason: waiting.reason }
    }
}

impl From<HeldBack> for HeldBackView {
    fn from(held_back: HeldBack) -> Self {
        Self { version: held_back.hash.to_string(), why: held_back.why }
    }
}

impl From<(ContentHash, Order)> for PinnedView {
    fn from((hash, order): (ContentHash, Order)) -> Self {
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

impl From<Order> for OrderView {
    fn from(order: Order) -> Self {
        Self { by: order.by, at: rfc3339(order.at) }
    }
}

impl From<CanaryStatus> for CanaryView {
    fn from(canary: CanaryStatus) -> Self {
        Self {
            percent: Some(canary.percent),
            seconds_left: Some(canary.time_left.as_secs()),
            min_deliveries: Some(canary.min_deliveries),
            waits_for: canary.waits_for.map(|missing| missing.to_string()),
            ..Self::new(canary.version, canary.since, canary.tally)
        }
    }
}

impl From<Entry> for VersionView {
    fn from(entry: Entry) -> Self {
        Self {
            version: entry.hash.to_string(),
            hash: entry.hash.in_full(),
            role: entry.role.word().into(),
            origin: entry.origin.word().into(),
            by: entry.by,
            began_at: rfc3339(entry.began),
            ended_at: entry.ended.map(rfc3339),
            reason: entry.reason,
            kept: entry.kept,
        }
    }
}
