//! The versions of each module: which one serves, how a new one takes its place, and what people may say about it.

mod admin_ops;
mod canary;
mod fisher_test;
mod gate;
mod module_entry;
mod refusal;
mod reload;
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
pub use admin_ops::OrderError;
pub use canary::MissingEvidence;
use canary::{Arm, Trial};
pub use gate::MAX_CONCURRENT_DRY_RUNS;
use modhost_core::event::{DeliveryId, Name};
use modhost_core::sync::lock;
use modhost_storage::error::StorageError;
use modhost_storage::journal::Journal;
use modhost_storage::versions::{Entry, Versions};
use module_entry::ModuleEntry;
pub use status::{CanaryStatus, Status, Waiting, WaitingModule};

/// The modules of this host, each with the version that serves now.
///
/// Which version answers a delivery is read without a lock; a delivery that has one keeps it to the end of the attempt,
/// whatever comes after.
pub struct Registry {
    shared: Arc<Shared>,
    slots: ArcSwap<HashMap<Name, Arc<ModuleEntry>>>,
    /// Held while settings are taken in.
    setting: Mutex<()>,
}

/// What all modules are worked on with.
struct Shared {
    engine: Engine,
    versions: Versions,
    /// Where dry runs have their deliveries from.
    journal: Arc<dyn Journal>,
    /// Turns to dry-run.
    rehearsing: Semaphore,
    /// Marked when a module has come up, or is known not to.
    changes: watch::Sender<()>,
}

impl Shared {
    fn notify_change(&self) {
        self.changes.send_replace(());
    }
}

/// The version that is to answer a delivery.
pub struct Chosen {
    /// The version.
    pub version: Arc<Version>,
    /// The trial it is a part of, and on which side.
    trial: Option<(Arc<Trial>, Arm)>,
}

impl Chosen {
    /// Takes in how the first attempt at a delivery ended.
    pub fn ended(&self, well: bool) {
        if let Some((trial, arm)) = &self.trial {
            trial.count(*arm, well);
        }
    }
}

impl Registry {
    /// A registry without modules; `versions` remembers theirs, and dry runs take their deliveries from `journal`.
    pub fn new(engine: Engine, versions: Versions, journal: Arc<dyn Journal>) -> Self {
        let (rehearsing, changes) = (Semaphore::new(MAX_CONCURRENT_DRY_RUNS), watch::Sender::new(()));
        let shared = Shared { engine, versions, journal, rehearsing, changes };
        Self { shared: Arc::new(shared), slots: ArcSwap::default(), setting: Mutex::default() }
    }

    /// The version that answers a delivery which was received at this time: the same one whenever it is asked, as long
    /// as that one serves or is tried.
    pub fn choose(&self, module: &Name, delivery: &DeliveryId, received: SystemTime) -> Option<Chosen> {
        self.slots.load().get(module)?.choose(delivery, received)
    }

    /// Whether a module's deliveries wait: a person paused it, or no version of it serves yet. They were acknowledged, so
    /// no attempt at them is spent on finding that there is nothing to run.
    pub fn makes_wait(&self, module: &Name) -> bool {
        self.slots.load().get(module).is_some_and(|slot| slot.makes_wait())
    }

    /// Whether any module's are.
    pub fn any_makes_wait(&self) -> bool {
        self.slots.load().values().any(|slot| slot.makes_wait())
    }

    /// Marked whenever a module has come up, or is known not to: what waits for it may be able to go on.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.shared.changes.subscribe()
    }

    /// The modules that have no version to run, by name: their deliveries wait until a component can serve.
    pub fn waiting(&self) -> Vec<WaitingModule> {
        let slots = self.slots.load();
        let waiting = slots.values().filter_map(|slot| {
            let (waiting, coming_up) = (slot.waiting()?, slot.is_coming_up());
            Some(WaitingModule { name: slot.name.clone(), coming_up, waiting })
        });
        let mut waiting: Vec<_> = waiting.collect();
        waiting.sort_by(|a, b| a.name.cmp(&b.name));
        waiting
    }

    /// Waits until no module is coming up any more: of each, a version serves, or its file is known not to.
    pub async fn all_have_come_up(&self) {
        let mut changes = self.changes();
        let coming_up = || self.slots.load().values().any(|slot| slot.is_coming_up());
        // It is never closed, as the sender is this registry's.
        while coming_up() && changes.changed().await.is_ok() {}
    }

    /// How every module stands, by name.
    pub fn status(&self) -> Vec<Status> {
        let slots = self.slots.load();
        let mut status: Vec<Status> = slots.values().map(|slot| slot.status()).collect();
        status.sort_by(|a, b| a.name.cmp(&b.name));
        status
    }

    /// How a module stands; none if there is none of this name.
    pub fn status_of(&self, module: &Name) -> Option<Status> {
        self.slots.load().get(module).map(|slot| slot.status())
    }

    /// What has happened to a module's versions, newest first; also of one that is no longer in modules.toml.
    ///
    /// # Errors
    ///
    /// When it can't be read.
    pub async fn history(&self, module: &Name) -> Result<Vec<Entry>, StorageError> {
        self.shared.versions.history(module).await
    }

    /// Makes these the host's modules. Those there were go on with their new settings, and the new ones come up each by
    /// itself: nobody waits here for a component that takes long. `route` is called when all of them are known, and
    /// before those no longer named are forgotten: it is where events are sent to the new ones and not to the others.
    pub fn set(&self, specs: Vec<Spec>, route: impl FnOnce()) {
        let _turn = lock(&self.setting);
        let before = self.slots.load_full();
        let wanted: HashMap<Name, Arc<ModuleEntry>> = specs.into_iter().map(|spec| self.slot(&before, spec)).collect();
        // Before anybody can see them: a new module that isn't coming up yet would look like one that can't.
        for slot in wanted.values() {
            slot.settle();
        }
        let mut all = HashMap::clone(&before);
        all.extend(wanted.clone());
        self.slots.store(Arc::new(all));
        route();
        let gone: Vec<_> = before.iter().filter(|(name, _)| !wanted.contains_key(*name)).collect();
        self.slots.store(Arc::new(wanted));
        for (_, slot) in gone {
            slot.forget();
        }
        self.shared.notify_change();
    }

    /// Writes down how far every trial has come, so that the next host goes on with it: for the end of this one.
    pub async fn note_trials(&self) {
        let slots = self.slots.load_full();
        join_all(slots.values().map(|slot| slot.note_trial())).await;
    }

    /// Takes in component files that changed, each module by itself: one that takes its time keeps no other waiting. A
    /// file that can't serve leaves the old version serving, and the log says why.
    pub fn refresh(&self, changed: &BTreeSet<PathBuf>) {
        for slot in self.slots.load().values().filter(|slot| changed.contains(&slot.component())) {
            slot.request();
        }
    }

    /// The slot a module had before, with its new settings, or else a new one.
    fn slot(&self, before: &HashMap<Name, Arc<ModuleEntry>>, spec: Spec) -> (Name, Arc<ModuleEntry>) {
        let name = spec.name.clone();
        let slot = match before.get(&name) {
            Some(slot) => {
                slot.set(spec);
                slot.clone()
            }
            None => Arc::new(ModuleEntry::new(self.shared.clone(), spec)),
        };
        (name, slot)
    }
}
