//! The versions of each module: which one serves, how a new one replaces it, and the admin operations.

mod admin_ops;
mod canary;
mod fisher_test;
mod follow;
mod gate;
mod module_entry;
mod refusal;
mod reload;
mod restore;
mod status;
mod trials;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use futures::future::join_all;
use tokio::sync::{Semaphore, watch};

use super::Engine;
use super::version::{Spec, Version};
pub use admin_ops::AdminError;
pub use canary::MissingEvidence;
use canary::{Arm, Trial};
pub use gate::MAX_CONCURRENT_DRY_RUNS;
use modhost_core::event::{DeliveryId, Name};
use modhost_core::sync::lock;
use modhost_storage::error::StorageError;
use modhost_storage::journal::Journal;
use modhost_storage::versions::{Entry, Versions};
use module_entry::ModuleEntry;
pub use status::{CanaryStatus, Status, WaitState, WaitingModule};

/// The modules of this host, each with its serving version.
///
/// Choosing a version takes no lock. An attempt keeps its version to its end, even if another version serves meanwhile.
pub struct Registry {
    shared: Arc<Shared>,
    modules: ArcSwap<HashMap<Name, Arc<ModuleEntry>>>,
    /// Serializes calls of [`set`](Self::set).
    set_lock: Mutex<()>,
}

/// The state shared by all modules.
struct Shared {
    engine: Engine,
    versions: Arc<dyn Versions>,
    /// The source of recorded deliveries for dry runs.
    journal: Arc<dyn Journal>,
    /// Bounds concurrent dry runs.
    dry_run_permits: Semaphore,
    /// Notified when a module got a version to run, or its file turned out to be unusable.
    changes: watch::Sender<()>,
}

impl Shared {
    /// Whether other hosts decide about the modules, too.
    fn is_shared(&self) -> bool {
        self.versions.poll_every().is_some()
    }

    fn notify_change(&self) {
        self.changes.send_replace(());
    }
}

/// The version chosen for a delivery.
pub struct Chosen {
    /// The version.
    pub version: Arc<Version>,
    /// The trial in which the delivery counts, if any, and the side it counts for.
    trial: Option<(Arc<Trial>, Arm)>,
}

impl Chosen {
    /// Counts the result of a delivery's first attempt in the trial, if any.
    pub fn ended(&self, well: bool) {
        if let Some((trial, arm)) = &self.trial {
            trial.count(*arm, well);
        }
    }
}

impl Registry {
    /// Creates a registry without modules. `versions` stores the history of versions, and dry runs read deliveries from
    /// `journal`.
    pub fn new(engine: Engine, versions: Arc<dyn Versions>, journal: Arc<dyn Journal>) -> Self {
        let (dry_run_permits, changes) = (Semaphore::new(MAX_CONCURRENT_DRY_RUNS), watch::Sender::new(()));
        let shared = Shared { engine, versions, journal, dry_run_permits, changes };
        Self { shared: Arc::new(shared), modules: ArcSwap::default(), set_lock: Mutex::default() }
    }

    /// Returns the version for a delivery received at this time. The choice is deterministic as long as that version
    /// serves or is on trial.
    pub fn choose(&self, module: &Name, delivery: &DeliveryId, received: SystemTime) -> Option<Chosen> {
        self.modules.load().get(module)?.choose(delivery, received)
    }

    /// Whether a module's deliveries wait, because it is paused or no version serves. Such deliveries aren't claimed,
    /// so they spend no attempts.
    pub fn is_blocked(&self, module: &Name) -> bool {
        self.modules.load().get(module).is_some_and(|entry| entry.is_blocked())
    }

    /// Whether the deliveries of any module wait.
    pub fn any_blocked(&self) -> bool {
        self.modules.load().values().any(|entry| entry.is_blocked())
    }

    /// Subscribes to notifications that a module got a version to run, or that its file turned out to be unusable.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.shared.changes.subscribe()
    }

    /// Returns the modules without a version to run, sorted by name.
    pub fn waiting(&self) -> Vec<WaitingModule> {
        let modules = self.modules.load();
        let waiting = modules.values().filter_map(|entry| {
            let (waiting, coming_up) = (entry.waiting()?, entry.is_loading());
            Some(WaitingModule { name: entry.name.clone(), coming_up, waiting })
        });
        let mut waiting: Vec<_> = waiting.collect();
        waiting.sort_by(|a, b| a.name.cmp(&b.name));
        waiting
    }

    /// Waits until no module is coming up: for each, a version serves or its file turned out to be unusable.
    pub async fn wait_until_loaded(&self) {
        let mut changes = self.changes();
        let coming_up = || self.modules.load().values().any(|entry| entry.is_loading());
        // The channel is never closed: the registry owns the sender.
        while coming_up() && changes.changed().await.is_ok() {}
    }

    /// Returns the status of all modules, sorted by name.
    pub fn status(&self) -> Vec<Status> {
        let modules = self.modules.load();
        let mut status: Vec<Status> = modules.values().map(|entry| entry.status()).collect();
        status.sort_by(|a, b| a.name.cmp(&b.name));
        status
    }

    /// Returns the status of a module; `None` if the module is unknown.
    pub fn status_of(&self, module: &Name) -> Option<Status> {
        self.modules.load().get(module).map(|entry| entry.status())
    }

    /// Returns the history of a module's versions, newest first, even if the module is no longer in modules.toml.
    ///
    /// # Errors
    ///
    /// If the history can't be read.
    pub async fn history(&self, module: &Name) -> Result<Vec<Entry>, StorageError> {
        self.shared.versions.history(module).await
    }

    /// Replaces the modules. Existing modules continue with their new settings, and new ones load in the background, so
    /// this function doesn't wait for any component. It calls `route` after the new modules are added and before the
    /// removed ones are dropped; `route` switches the event routes.
    pub fn set(&self, specs: Vec<Spec>, route: impl FnOnce()) {
        let _guard = lock(&self.set_lock);
        let before = self.modules.load_full();
        let mut changed = Vec::new();
        let new_modules: HashMap<Name, Arc<ModuleEntry>> = specs
            .into_iter()
            .map(|spec| {
                // A change of one tenant doesn't read the components of all others.
                let is_changed = before.get(&spec.name).is_none_or(|entry| *entry.spec() != spec);
                let (name, entry) = self.entry(&before, spec);
                changed.extend(is_changed.then(|| entry.clone()));
                (name, entry)
            })
            .collect();
        // Start loading before the modules become visible. Otherwise a new module would look as if it couldn't load.
        for entry in changed {
            entry.apply_and_reload();
        }
        let mut all = HashMap::clone(&before);
        all.extend(new_modules.clone());
        self.modules.store(Arc::new(all));
        route();
        let gone: Vec<_> = before.iter().filter(|(name, _)| !new_modules.contains_key(*name)).collect();
        self.modules.store(Arc::new(new_modules));
        for (_, entry) in gone {
            entry.forget();
        }
        self.shared.notify_change();
    }

    /// Sets the weights of the tenants' shares of the CPU time, also for deliveries that run. All other tenants have the
    /// default weight.
    pub fn set_cpu_weights(&self, weights: impl IntoIterator<Item = (Name, u32)>) {
        self.shared.engine.set_cpu_weights(weights);
    }

    /// Saves the progress of all trials when the host shuts down, so that the next host continues them.
    pub async fn record_trials(&self) {
        let modules = self.modules.load_full();
        join_all(modules.values().map(|entry| entry.record_trial())).await;
    }

    /// Reloads the modules whose component files changed, independently of each other. If a new component can't serve,
    /// the old version continues to serve and the reason is logged.
    pub fn refresh(&self, changed: &BTreeSet<PathBuf>) {
        for entry in self.modules.load().values().filter(|entry| changed.contains(&entry.component())) {
            entry.request_reload();
        }
    }

    /// Returns the entry of a module with its new settings: the existing one, or a new one.
    fn entry(&self, before: &HashMap<Name, Arc<ModuleEntry>>, spec: Spec) -> (Name, Arc<ModuleEntry>) {
        let name = spec.name.clone();
        let entry = match before.get(&name) {
            Some(entry) => {
                entry.set(spec);
                entry.clone()
            }
            None => Arc::new(ModuleEntry::new(self.shared.clone(), spec)),
        };
        (name, entry)
    }
}
