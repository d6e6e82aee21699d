//! The current version of each module, and how a new one takes its place.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use futures::future::join_all;

use super::version::{ContentHash, Spec, Version};
use super::{Engine, LoadError, Urgency, milliseconds};
use crate::event::Name;

/// The modules of this host, each with the version that serves now.
///
/// Reading the current version takes no lock; a delivery that has it keeps it to its end, whatever comes after.
pub struct Registry {
    engine: Engine,
    slots: ArcSwap<HashMap<Name, Arc<Slot>>>,
    /// Held while the modules are set, so that two sets of them come one after the other.
    setting: tokio::sync::Mutex<()>,
}

struct Slot {
    /// Held while its file is taken in, so that two changes to it come one after the other. Others' go on meanwhile.
    taking_in: tokio::sync::Mutex<()>,
    spec: ArcSwap<Spec>,
    current: ArcSwapOption<Version>,
    /// Why the file as it is now doesn't serve.
    refused: Mutex<Option<(ContentHash, String)>>,
}

/// How a module stands.
#[derive(Clone, Debug)]
pub struct Status {
    /// The module.
    pub name: Name,
    /// The version that serves, if one does.
    pub version: Option<ContentHash>,
    /// Why the file as it is now doesn't serve, if it doesn't.
    pub refused: Option<String>,
}

impl Registry {
    /// A registry without modules.
    pub fn new(engine: Engine) -> Self {
        Self { engine, slots: ArcSwap::default(), setting: tokio::sync::Mutex::default() }
    }

    /// The version of a module that serves now.
    pub fn current(&self, module: &Name) -> Option<Arc<Version>> {
        self.slots.load().get(module)?.current.load_full()
    }

    /// How every module stands, by name.
    pub fn status(&self) -> Vec<Status> {
        let slots = self.slots.load();
        let mut status: Vec<Status> = slots.values().map(|slot| slot.status()).collect();
        status.sort_by(|a, b| a.name.cmp(&b.name));
        status
    }

    /// Makes these the host's modules: new ones are loaded, the others go on with their new settings, and then those
    /// no longer named are forgotten. In between, when both the old and the new can serve, `loaded` is called: it is
    /// where events are sent to the new ones.
    pub async fn set(&self, specs: Vec<Spec>, loaded: impl FnOnce()) {
        let _turn = self.setting.lock().await;
        let before = self.slots.load_full();
        let wanted: HashMap<Name, Arc<Slot>> = specs.into_iter().map(|spec| slot(&before, spec)).collect();
        let mut all = HashMap::clone(&before);
        all.extend(wanted.clone());
        self.slots.store(Arc::new(all));
        self.refresh_all(&wanted).await;
        loaded();
        self.slots.store(Arc::new(wanted));
    }

    /// Takes in every component file that is not what serves. A file that can't serve leaves the old version serving,
    /// and the log says why.
    pub async fn refresh(&self) {
        self.refresh_all(&self.slots.load_full()).await;
    }

    async fn refresh_all(&self, slots: &HashMap<Name, Arc<Slot>>) {
        join_all(slots.values().map(|slot| slot.refresh(&self.engine))).await;
    }
}

/// The slot a module had before, with its new settings, or else a new one.
fn slot(before: &HashMap<Name, Arc<Slot>>, spec: Spec) -> (Name, Arc<Slot>) {
    let name = spec.name.clone();
    let slot = match before.get(&name) {
        Some(slot) => {
            slot.spec.store(Arc::new(spec));
            slot.clone()
        }
        None => Arc::new(Slot::new(spec)),
    };
    (name, slot)
}

impl Slot {
    fn new(spec: Spec) -> Self {
        Self {
            taking_in: tokio::sync::Mutex::default(),
            spec: ArcSwap::from_pointee(spec),
            current: ArcSwapOption::empty(),
            refused: Mutex::default(),
        }
    }

    fn refused(&self) -> MutexGuard<'_, Option<(ContentHash, String)>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self) -> Status {
        Status {
            name: self.spec.load().name.clone(),
            version: self.current.load().as_ref().map(|version| version.hash()),
            refused: self.refused().as_ref().map(|(_, reason)| reason.clone()),
        }
    }

    async fn refresh(&self, engine: &Engine) {
        let _turn = self.taking_in.lock().await;
        let spec = self.spec.load_full();
        let bytes = match tokio::fs::read(&spec.component).await {
            Ok(bytes) => bytes,
            Err(error) => {
                let path = spec.component.display().to_string();
                let nothing = ContentHash::of(&[]);
                return self.refuse(&spec, nothing, &LoadError::Unreadable { path, error });
            }
        };
        let hash = ContentHash::of(&bytes);
        match self.current.load_full() {
            Some(current) if current.is(hash, &spec) => *self.refused() = None,
            Some(current) if current.hash() == hash => match current.with_settings(&spec) {
                Ok(version) => {
                    self.current.store(Some(Arc::new(version)));
                    *self.refused() = None;
                    tracing::info!(module = %spec.name, version = %hash, "new settings serve");
                }
                Err(error) => self.refuse(&spec, hash, &error),
            },
            _ => self.load(engine, &spec, hash, bytes).await,
        }
    }

    async fn load(&self, engine: &Engine, spec: &Spec, hash: ContentHash, bytes: Vec<u8>) {
        let started = Instant::now();
        let urgency = if self.current.load().is_some() { Urgency::Next } else { Urgency::First };
        match engine.load_as(bytes, spec, urgency).await {
            Ok(version) => {
                let before = self.current.swap(Some(Arc::new(version)));
                *self.refused() = None;
                let took = milliseconds(started.elapsed());
                match before {
                    Some(before) => tracing::info!(
                        module = %spec.name, version = %hash, before = %before.hash(), "new version serves, ready in {took}"
                    ),
                    None => tracing::info!(module = %spec.name, version = %hash, "serves, ready in {took}"),
                }
            }
            Err(error) => self.refuse(spec, hash, &error),
        }
    }

    /// Keeps what serves, and says once why the file doesn't.
    fn refuse(&self, spec: &Spec, hash: ContentHash, error: &LoadError) {
        let reason = error.to_string();
        let mut refused = self.refused();
        if refused.as_ref().is_some_and(|(known, why)| *known == hash && *why == reason) {
            return;
        }
        let file = spec.component.display();
        match &*self.current.load() {
            Some(current) => tracing::error!(
                module = %spec.name, %file, "the file can't serve; version {} goes on serving. {reason}", current.hash()
            ),
            None => tracing::error!(module = %spec.name, %file, "no version serves. {reason}"),
        }
        *refused = Some((hash, reason));
    }
}
