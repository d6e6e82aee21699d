//! The versions of each module: which one serves, how a new one takes its place, and what people may say about it.

mod canary;
mod gate;
mod intake;
mod likelihood;
mod orders;
mod slot;
mod status;
mod trials;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use futures::future::join_all;
use tokio::sync::Semaphore;

use super::Engine;
use super::version::{Spec, Version};
use crate::event::{DeliveryId, Name};
use crate::journal::Journal;
use crate::versions::{Entry, Versions, VersionsError};
use canary::{Arm, Trial};
pub use gate::REHEARSED_AT_ONCE;
pub use orders::OrderError;
use slot::Slot;
pub use status::{CanaryStatus, Status};

/// The modules of this host, each with the version that serves now.
///
/// Which version answers a delivery is read without a lock; a delivery that has one keeps it to the end of the attempt,
/// whatever comes after.
pub struct Registry {
    shared: Arc<Shared>,
    slots: ArcSwap<HashMap<Name, Arc<Slot>>>,
    /// Held while settings are taken in.
    setting: tokio::sync::Mutex<()>,
}

/// What all modules are worked on with.
struct Shared {
    engine: Engine,
    versions: Versions,
    /// Where rehearsals have their deliveries from.
    journal: Arc<dyn Journal>,
    /// Turns to rehearse.
    rehearsing: Semaphore,
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
    /// A registry without modules; `versions` remembers theirs, and rehearsals take their deliveries from `journal`.
    pub fn new(engine: Engine, versions: Versions, journal: Arc<dyn Journal>) -> Self {
        let shared = Shared { engine, versions, journal, rehearsing: Semaphore::new(REHEARSED_AT_ONCE) };
        Self { shared: Arc::new(shared), slots: ArcSwap::default(), setting: tokio::sync::Mutex::default() }
    }

    /// The version that answers a delivery which was received at this time: the same one whenever it is asked, as long
    /// as that one serves or is tried.
    pub fn choose(&self, module: &Name, delivery: &DeliveryId, received: SystemTime) -> Option<Chosen> {
        self.slots.load().get(module)?.choose(delivery, received)
    }

    /// Whether a module's deliveries wait, because a person said so.
    pub fn is_paused(&self, module: &Name) -> bool {
        self.slots.load().get(module).is_some_and(|slot| slot.is_paused())
    }

    /// Whether any module's do.
    pub fn any_paused(&self) -> bool {
        self.slots.load().values().any(|slot| slot.is_paused())
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
    pub async fn history(&self, module: &Name) -> Result<Vec<Entry>, VersionsError> {
        self.shared.versions.history(module).await
    }

    /// Makes these the host's modules: new ones are loaded, the others go on with their new settings, and then those
    /// no longer named are forgotten. In between, when both the old and the new can serve, `loaded` is called: it is
    /// where events are sent to the new ones.
    pub async fn set(&self, specs: Vec<Spec>, loaded: impl FnOnce()) {
        let _turn = self.setting.lock().await;
        let before = self.slots.load_full();
        let wanted: HashMap<Name, Arc<Slot>> = specs.into_iter().map(|spec| self.slot(&before, spec)).collect();
        let mut all = HashMap::clone(&before);
        all.extend(wanted.clone());
        self.slots.store(Arc::new(all));
        join_all(wanted.values().map(|slot| slot.settle())).await;
        loaded();
        self.slots.store(Arc::new(wanted));
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
    fn slot(&self, before: &HashMap<Name, Arc<Slot>>, spec: Spec) -> (Name, Arc<Slot>) {
        let name = spec.name.clone();
        let slot = match before.get(&name) {
            Some(slot) => {
                slot.set(spec);
                slot.clone()
            }
            None => Arc::new(Slot::new(self.shared.clone(), spec)),
        };
        (name, slot)
    }
}
