//! The admin operations on modules: roll back, pin, unpin, retry, pause, resume, promote and abort. The rules are in
//! [`versions`](modhost_storage::versions); this module applies them to the serving versions.

use std::sync::Arc;

use super::module_entry::{ModuleEntry, ReloadBlock};
use super::{Registry, Status};
use crate::engine::file::ComponentFile;
use crate::engine::version::{Spec, Version};
use crate::engine::{LoadError, Priority};
use modhost_core::clock;
use modhost_core::event::Name;
use modhost_core::metrics::{self, CanaryEnd};
use modhost_core::suggest;
use modhost_core::sync::lock;
use modhost_storage::error::StorageError;
use modhost_storage::versions::{
    ContentHash, Entry, Fact, ModuleState, OperatorAction, Origin, Refusal, VersionRequest, aborted_by, promoted_by,
};

/// The reason why an admin operation failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The module is unknown.
    #[error("there is no module {name} in modules.toml; {advice}")]
    NoModule {
        /// The requested name.
        name: Name,
        /// The most similar name, and the existing ones.
        advice: String,
    },
    /// The version doesn't exist, or the operation isn't possible in the module's state.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The version can't serve.
    #[error("version {0} can't serve: {1}")]
    CantServe(ContentHash, LoadError),
    /// The operation can't be recorded.
    #[error(transparent)]
    Versions(#[from] StorageError),
}

type Result<T> = std::result::Result<T, AdminError>;

impl Registry {
    /// Rolls back to the version that served before the current one. The file's version isn't loaded again until the
    /// file changes.
    ///
    /// # Errors
    ///
    /// If there is no previous version, or it can't serve. Nothing changes then.
    pub async fn rollback(&self, module: &Name, by: &str) -> Result<Status> {
        let entry = self.known(module)?;
        entry.roll_back(by).await?;
        Ok(entry.status())
    }

    /// Pins a module to the version whose hash starts with `hash`. The file is ignored until the module is unpinned.
    ///
    /// # Errors
    ///
    /// If no version matches, several do, or the version can't serve. Nothing changes then.
    pub async fn pin(&self, module: &Name, hash: &str, by: &str) -> Result<Status> {
        let entry = self.known(module)?;
        entry.pin(hash, by).await?;
        Ok(entry.status())
    }

    /// Lets a module follow its file again, after a pin or a rollback.
    ///
    /// # Errors
    ///
    /// If the module follows its file already.
    pub async fn unpin(&self, module: &Name, by: &str) -> Result<Status> {
        let entry = self.known(module)?;
        {
            let _guard = entry.module_lock.lock().await;
            let decision = entry.version_request(by, &entry.module_state(), None).unpin()?;
            entry.shared.versions.note(module, decision.facts).await?;
            *lock(&entry.refused) = None;
            entry.mark_overruled();
        }
        tracing::info!(%module, by, "module unpinned");
        entry.reload_now().await;
        Ok(entry.status())
    }

    /// Loads a module's file again, even if its version was refused or rolled back.
    ///
    /// # Errors
    ///
    /// If the module is pinned, or the file's version already serves or is on trial.
    pub async fn retry(&self, module: &Name, by: &str) -> Result<Status> {
        let entry = self.known(module)?;
        let file = ComponentFile::read(&entry.component()).await.map(|found| found.hash).ok();
        {
            let _guard = entry.module_lock.lock().await;
            let decision = entry.version_request(by, &entry.module_state(), file).retry()?;
            if !decision.facts.is_empty() {
                entry.shared.versions.note(module, decision.facts).await?;
                entry.mark_overruled();
            }
            *lock(&entry.refused) = None;
        }
        tracing::info!(%module, %by, "component reload requested");
        entry.reload_now().await;
        Ok(entry.status())
    }

    /// Pauses a module: running deliveries finish, and all others wait.
    ///
    /// # Errors
    ///
    /// If the pause can't be recorded.
    pub async fn pause(&self, module: &Name, by: &str) -> Result<Status> {
        let entry = self.known(module)?;
        if !entry.is_paused() {
            let order = OperatorAction { by: by.to_owned(), at: clock::now() };
            entry.shared.versions.note(module, vec![Fact::Paused(Some(order))]).await?;
            entry.set_paused(true);
            tracing::info!(%module, by, "module paused");
        }
        Ok(entry.status())
    }

    /// Resumes a module's deliveries. The caller must notify the scheduler.
    ///
    /// # Errors
    ///
    /// If it can't be recorded.
    pub async fn resume(&self, module: &Name, by: &str) -> Result<Status> {
        let entry = self.known(module)?;
        if entry.is_paused() {
            entry.shared.versions.note(module, vec![Fact::Paused(None)]).await?;
            entry.set_paused(false);
            tracing::info!(%module, by, "module resumed");
        }
        Ok(entry.status())
    }

    /// Promotes the version on trial, regardless of the trial's results so far.
    ///
    /// # Errors
    ///
    /// If no version is on trial.
    pub async fn promote(&self, module: &Name, by: &str) -> Result<Status> {
        let entry = self.known(module)?;
        entry.promote(by).await?;
        Ok(entry.status())
    }

    /// Aborts the trial of a version. The file's version isn't loaded again until the file changes.
    ///
    /// # Errors
    ///
    /// If no version is on trial.
    pub async fn abort(&self, module: &Name, by: &str) -> Result<Status> {
        let entry = self.known(module)?;
        entry.abort(by).await?;
        Ok(entry.status())
    }

    fn known(&self, module: &Name) -> Result<Arc<ModuleEntry>> {
        self.modules.load().get(module).cloned().ok_or_else(|| self.no_module(module))
    }

    /// Returns the error for an unknown module, with the existing names.
    pub fn no_module(&self, name: &Name) -> AdminError {
        let modules = self.modules.load();
        let mut known: Vec<&str> = modules.keys().map(|name| name.as_str()).collect();
        known.sort_unstable();
        AdminError::NoModule { name: name.clone(), advice: suggest::advice(name.as_str(), &known) }
    }
}

/// Each operation is decided under the module's lock (`module_lock`). The version that it needs is loaded without the
/// lock, and then the operation is decided again: another operation or the end of a trial may have changed which
/// version it needs.
impl ModuleEntry {
    /// Returns a request of an operator for this module in its current state.
    fn version_request<'a>(
        &'a self,
        by: &'a str,
        state: &'a ModuleState,
        file: Option<ContentHash>,
    ) -> VersionRequest<'a> {
        let serving = self.serving();
        let canary = serving.as_ref().and_then(|serving| serving.canary.as_ref()).map(|canary| canary.version.hash());
        let serving = serving.map(|serving| serving.stable.hash());
        // A recorded version counts even if the host is still loading it.
        let recorded = |entry: &Option<Entry>| entry.as_ref().map(|entry| entry.hash);
        let canary = canary.or_else(|| recorded(&state.canary));
        let serving = serving.or_else(|| recorded(&state.serving));
        VersionRequest { module: &self.name, by, state, serving, canary, file }
    }

    /// Whether a version serves now and no other is on trial.
    fn serves_alone(&self, hash: ContentHash) -> bool {
        self.serving().is_some_and(|serving| serving.stable.hash() == hash && serving.canary.is_none())
    }

    async fn roll_back(&self, by: &str) -> Result<()> {
        let mut loaded: Option<Loaded<'_>> = None;
        loop {
            let file = ComponentFile::read(&self.component()).await.map(|found| found.hash).ok();
            let guard = self.module_lock.lock().await;
            let (state, history) = (self.module_state(), self.shared.versions.history(&self.name).await?);
            let decision = self.version_request(by, &state, file).roll_back(&history)?;
            let Some((target, origin)) = decision.serves else { return Ok(()) };
            if let Some(Loaded { version, .. }) = loaded.take_if(|loaded| loaded.version.hash() == target) {
                return Ok(self.serve(version, origin, by, decision.facts).await?);
            }
            let reload_block = self.block_reloads();
            drop(guard);
            loaded = Some(Loaded { version: self.load_kept(target, &self.spec()).await?, _reload_block: reload_block });
        }
    }

    async fn pin(&self, prefix: &str, by: &str) -> Result<()> {
        let mut loaded: Option<Loaded<'_>> = None;
        loop {
            let file = ComponentFile::read(&self.component()).await.ok();
            let guard = self.module_lock.lock().await;
            let (state, history) = (self.module_state(), self.shared.versions.history(&self.name).await?);
            let request = self.version_request(by, &state, file.as_ref().map(|file| file.hash));
            let hash = request.version(prefix, &history)?;
            let decision = request.pin(hash, clock::now());
            let target = match decision.serves {
                None if self.serves_alone(hash) => {
                    self.shared.versions.note(&self.name, decision.facts).await?;
                    self.mark_overruled();
                    tracing::info!(module = %self.name, version = %hash, by, "module pinned");
                    return Ok(());
                }
                // The recorded version is the same, but is still being loaded.
                None => (hash, Origin::Pin),
                Some(target) => target,
            };
            if let Some(Loaded { version, .. }) = loaded.take_if(|loaded| loaded.version.hash() == hash) {
                return Ok(self.serve(version, target.1, by, decision.facts).await?);
            }
            let reload_block = self.block_reloads();
            drop(guard);
            let spec = self.spec();
            let version = match file.filter(|file| file.hash == hash) {
                Some(file) => {
                    let version = self.shared.engine.load_file(file.clone(), &spec, Priority::Initial).await;
                    self.keep(hash, &file.bytes).await;
                    version.map_err(|error| AdminError::CantServe(hash, error))?
                }
                None => self.load_kept(hash, &spec).await?,
            };
            loaded = Some(Loaded { version, _reload_block: reload_block });
        }
    }

    async fn promote(&self, by: &str) -> Result<()> {
        let mut loaded: Option<Loaded<'_>> = None;
        loop {
            let guard = self.module_lock.lock().await;
            if let Some(serving) = self.serving().filter(|serving| serving.canary.is_some()) {
                self.promote_canary(&serving, promoted_by(by), Some(by.to_owned())).await;
                return Ok(());
            }
            // After a restart, the version on trial may still be loading.
            let decision = self.version_request(by, &self.module_state(), None).promote()?;
            let Some((target, origin)) = decision.serves else { return Ok(()) };
            if let Some(Loaded { version, .. }) = loaded.take_if(|loaded| loaded.version.hash() == target) {
                return Ok(self.serve(version, origin, by, decision.facts).await?);
            }
            let reload_block = self.block_reloads();
            drop(guard);
            loaded = Some(Loaded { version: self.load_kept(target, &self.spec()).await?, _reload_block: reload_block });
        }
    }

    async fn abort(&self, by: &str) -> Result<()> {
        let _guard = self.module_lock.lock().await;
        match self.serving().filter(|serving| serving.canary.is_some()) {
            Some(serving) => {
                self.roll_back_canary(&serving, aborted_by(by), CanaryEnd::Aborted).await;
                tracing::info!(module = %self.name, version = %serving.stable.hash(), by, "canary aborted");
            }
            None => {
                let decision = self.version_request(by, &self.module_state(), None).abort()?;
                self.shared.versions.note(&self.name, decision.facts).await?;
                metrics::canary(&self.name, CanaryEnd::Aborted);
                self.mark_overruled();
                tracing::info!(module = %self.name, %by, "canary aborted");
            }
        }
        Ok(())
    }

    async fn load_kept(&self, hash: ContentHash, spec: &Spec) -> Result<Version> {
        let bytes = self.shared.versions.component(hash).await.ok_or_else(|| Refusal::not_kept(hash))?;
        self.shared.engine.load(bytes, spec).await.map_err(|error| AdminError::CantServe(hash, error))
    }
}

/// A version that was loaded for an admin operation. While it exists, no version is loaded from the file.
struct Loaded<'a> {
    version: Version,
    _reload_block: ReloadBlock<'a>,
}
