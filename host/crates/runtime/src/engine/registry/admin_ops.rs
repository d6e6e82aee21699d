//! What people may say about a module: go back, stay, wait, decide on a trial. The rules are those of
//! [`versions`](modhost_storage::versions); here they are carried out on what serves.

use std::sync::Arc;

use super::module_entry::{ModuleEntry, Preparing};
use super::reload::Found;
use super::{Registry, Status};
use crate::engine::LoadError;
use crate::engine::version::{Spec, Version};
use modhost_core::clock;
use modhost_core::event::Name;
use modhost_core::metrics::{self, CanaryEnd};
use modhost_core::suggest;
use modhost_core::sync::lock;
use modhost_storage::error::StorageError;
use modhost_storage::versions::{
    ContentHash, Entry, Fact, ModuleState, Order, Origin, Refusal, VersionRequest, ended_by, promoted_by,
};

/// Why something that was asked isn't done.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// There is no module of this name.
    #[error("there is no module {name} in modules.toml; {advice}")]
    NoModule {
        /// What was asked for.
        name: Name,
        /// The one that was probably meant, and those there are.
        advice: String,
    },
    /// There is no such version of it, or it doesn't go with how the module stands.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The version can't serve.
    #[error("version {0} can't serve: {1}")]
    CantServe(ContentHash, LoadError),
    /// It can't be written down.
    #[error(transparent)]
    Versions(#[from] StorageError),
}

type Result<T> = std::result::Result<T, OrderError>;

impl Registry {
    /// Makes the version serve that did before the one that does now. The file it goes back from isn't taken again until
    /// it changes.
    ///
    /// # Errors
    ///
    /// When there is none before, or it can't serve; then nothing is changed.
    pub async fn rollback(&self, module: &Name, by: &str) -> Result<Status> {
        let slot = self.known(module)?;
        slot.roll_back(by).await?;
        Ok(slot.status())
    }

    /// Makes a version serve whose hash begins like this, and stay whatever the file says.
    ///
    /// # Errors
    ///
    /// When there is no such version, more than one, or it can't serve; then nothing is changed.
    pub async fn pin(&self, module: &Name, hash: &str, by: &str) -> Result<Status> {
        let slot = self.known(module)?;
        slot.pin(hash, by).await?;
        Ok(slot.status())
    }

    /// Lets a module follow its file again, whatever kept it from that.
    ///
    /// # Errors
    ///
    /// When it does so already.
    pub async fn unpin(&self, module: &Name, by: &str) -> Result<Status> {
        let slot = self.known(module)?;
        {
            let _turn = slot.turn.lock().await;
            let decision = slot.asked(by, &slot.standing(), None).unpin()?;
            slot.shared.versions.note(module, decision.facts).await?;
            *lock(&slot.refused) = None;
            slot.is_overruled();
        }
        tracing::info!(%module, by, "module unpinned");
        slot.take_in_now().await;
        Ok(slot.status())
    }

    /// Takes in a module's file once more, although what it holds was refused, or was gone back from.
    ///
    /// # Errors
    ///
    /// When the module is pinned, or what its file holds serves or is on trial already.
    pub async fn retry(&self, module: &Name, by: &str) -> Result<Status> {
        let slot = self.known(module)?;
        let file = Found::read(&slot.component()).await.map(|found| found.hash).ok();
        {
            let _turn = slot.turn.lock().await;
            let decision = slot.asked(by, &slot.standing(), file).retry()?;
            if !decision.facts.is_empty() {
                slot.shared.versions.note(module, decision.facts).await?;
                slot.is_overruled();
            }
            *lock(&slot.refused) = None;
        }
        tracing::info!(%module, %by, "component reload requested");
        slot.take_in_now().await;
        Ok(slot.status())
    }

    /// Makes a module's deliveries wait: those that run end, no other begins, none fails.
    ///
    /// # Errors
    ///
    /// When it can't be written down.
    pub async fn pause(&self, module: &Name, by: &str) -> Result<Status> {
        let slot = self.known(module)?;
        if !slot.is_paused() {
            let order = Order { by: by.to_owned(), at: clock::now() };
            slot.shared.versions.note(module, vec![Fact::Paused(Some(order))]).await?;
            slot.set_paused(true);
            tracing::info!(%module, by, "module paused");
        }
        Ok(slot.status())
    }

    /// Lets a module's deliveries begin again; whoever runs them has to be told.
    ///
    /// # Errors
    ///
    /// When it can't be written down.
    pub async fn resume(&self, module: &Name, by: &str) -> Result<Status> {
        let slot = self.known(module)?;
        if slot.is_paused() {
            slot.shared.versions.note(module, vec![Fact::Paused(None)]).await?;
            slot.set_paused(false);
            tracing::info!(%module, by, "module resumed");
        }
        Ok(slot.status())
    }

    /// Makes the version that is tried serve, whatever its trial has shown so far.
    ///
    /// # Errors
    ///
    /// When none is tried.
    pub async fn promote(&self, module: &Name, by: &str) -> Result<Status> {
        let slot = self.known(module)?;
        slot.promote(by).await?;
        Ok(slot.status())
    }

    /// Ends the trial of a version; the one before goes on alone. The file isn't taken again until it changes.
    ///
    /// # Errors
    ///
    /// When none is tried.
    pub async fn abort(&self, module: &Name, by: &str) -> Result<Status> {
        let slot = self.known(module)?;
        slot.abort(by).await?;
        Ok(slot.status())
    }

    fn known(&self, module: &Name) -> Result<Arc<ModuleEntry>> {
        self.slots.load().get(module).cloned().ok_or_else(|| self.no_module(module))
    }

    /// That there is no module of this name, and which there are.
    pub fn no_module(&self, name: &Name) -> OrderError {
        let slots = self.slots.load();
        let mut known: Vec<&str> = slots.keys().map(|name| name.as_str()).collect();
        known.sort_unstable();
        OrderError::NoModule { name: name.clone(), advice: suggest::advice(name.as_str(), &known) }
    }
}

/// Each order is decided by whose turn it is. What it needs is loaded without the turn, and then it is decided once more: it
/// may mean another version by then, because of another order or the end of a trial.
impl ModuleEntry {
    /// What somebody asks of this module, as it stands.
    fn asked<'a>(&'a self, by: &'a str, standing: &'a ModuleState, file: Option<ContentHash>) -> VersionRequest<'a> {
        let serving = self.serving();
        let tried = serving.as_ref().and_then(|serving| serving.canary.as_ref()).map(|canary| canary.version.hash());
        let serving = serving.map(|serving| serving.stable.hash());
        // What is on record counts while the host is still loading it.
        let recorded = |entry: &Option<Entry>| entry.as_ref().map(|entry| entry.hash);
        let tried = tried.or_else(|| recorded(&standing.canary));
        let serving = serving.or_else(|| recorded(&standing.serving));
        VersionRequest { module: &self.name, by, standing, serving, tried, file }
    }

    /// Whether a version serves now, and alone.
    fn serves_alone(&self, hash: ContentHash) -> bool {
        self.serving().is_some_and(|serving| serving.stable.hash() == hash && serving.canary.is_none())
    }

    async fn roll_back(&self, by: &str) -> Result<()> {
        let mut loaded: Option<Loaded<'_>> = None;
        loop {
            let file = Found::read(&self.component()).await.map(|found| found.hash).ok();
            let turn = self.turn.lock().await;
            let (standing, history) = (self.standing(), self.shared.versions.history(&self.name).await?);
            let decision = self.asked(by, &standing, file).roll_back(&history)?;
            let Some((target, origin)) = decision.serves else { return Ok(()) };
            if let Some(Loaded { version, .. }) = loaded.take_if(|loaded| loaded.version.hash() == target) {
                return Ok(self.serve(version, origin, by, decision.facts).await?);
            }
            let preparing = self.prepare_order();
            drop(turn);
            loaded = Some(Loaded { version: self.load_kept(target, &self.spec()).await?, _preparing: preparing });
        }
    }

    async fn pin(&self, prefix: &str, by: &str) -> Result<()> {
        let mut loaded: Option<Loaded<'_>> = None;
        loop {
            let file = Found::read(&self.component()).await.ok();
            let turn = self.turn.lock().await;
            let (standing, history) = (self.standing(), self.shared.versions.history(&self.name).await?);
            let asked = self.asked(by, &standing, file.as_ref().map(|file| file.hash));
            let hash = asked.version(prefix, &history)?;
            let decision = asked.pin(hash, clock::now());
            let target = match decision.serves {
                None if self.serves_alone(hash) => {
                    self.shared.versions.note(&self.name, decision.facts).await?;
                    self.is_overruled();
                    tracing::info!(module = %self.name, version = %hash, by, "module pinned");
                    return Ok(());
                }
                // It is the one on record, and is still being loaded.
                None => (hash, Origin::Pin),
                Some(target) => target,
            };
            if let Some(Loaded { version, .. }) = loaded.take_if(|loaded| loaded.version.hash() == hash) {
                return Ok(self.serve(version, target.1, by, decision.facts).await?);
            }
            let preparing = self.prepare_order();
            drop(turn);
            let spec = self.spec();
            let version = match file.filter(|file| file.hash == hash) {
                Some(file) => {
                    let version = self.shared.engine.load(file.bytes.clone(), &spec).await;
                    self.keep(hash, file.bytes).await;
                    version.map_err(|error| OrderError::CantServe(hash, error))?
                }
                None => self.load_kept(hash, &spec).await?,
            };
            loaded = Some(Loaded { version, _preparing: preparing });
        }
    }

    async fn promote(&self, by: &str) -> Result<()> {
        let mut loaded: Option<Loaded<'_>> = None;
        loop {
            let turn = self.turn.lock().await;
            if let Some(serving) = self.serving().filter(|serving| serving.canary.is_some()) {
                self.take_over(&serving, promoted_by(by), Some(by.to_owned())).await;
                return Ok(());
            }
            // A trial that goes on after a restart, whose version is still being loaded.
            let decision = self.asked(by, &self.standing(), None).promote()?;
            let Some((target, origin)) = decision.serves else { return Ok(()) };
            if let Some(Loaded { version, .. }) = loaded.take_if(|loaded| loaded.version.hash() == target) {
                return Ok(self.serve(version, origin, by, decision.facts).await?);
            }
            let preparing = self.prepare_order();
            drop(turn);
            loaded = Some(Loaded { version: self.load_kept(target, &self.spec()).await?, _preparing: preparing });
        }
    }

    async fn abort(&self, by: &str) -> Result<()> {
        let _turn = self.turn.lock().await;
        match self.serving().filter(|serving| serving.canary.is_some()) {
            Some(serving) => {
                self.go_back(&serving, ended_by(by), CanaryEnd::Aborted).await;
                tracing::info!(module = %self.name, version = %serving.stable.hash(), by, "canary aborted");
            }
            None => {
                let decision = self.asked(by, &self.standing(), None).abort()?;
                self.shared.versions.note(&self.name, decision.facts).await?;
                metrics::canary(&self.name, CanaryEnd::Aborted);
                self.is_overruled();
                tracing::info!(module = %self.name, %by, "canary aborted");
            }
        }
        Ok(())
    }

    async fn load_kept(&self, hash: ContentHash, spec: &Spec) -> Result<Version> {
        let bytes = self.shared.versions.component(hash).await.ok_or_else(|| Refusal::not_kept(hash))?;
        self.shared.engine.load(bytes, spec).await.map_err(|error| OrderError::CantServe(hash, error))
    }
}

/// A version that was loaded for an order. Until that is carried out, or given up, the file doesn't come to serve.
struct Loaded<'a> {
    version: Version,
    _preparing: Preparing<'a>,
}
