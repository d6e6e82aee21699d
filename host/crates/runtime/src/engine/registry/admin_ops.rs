//! The admin operations on modules: roll back, pin, unpin, retry, pause, resume, promote and abort. The rules are in
//! [`versions`](modhost_storage::versions); this module applies them to the serving versions.

use std::sync::Arc;

use super::module_entry::{ModuleEntry, ReloadBlock, Serving};
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
    ContentHash, Entry, Epoch, Fact, ModuleState, NoteError, OperatorAction, Origin, Refusal, VersionRequest,
    promoted_by,
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
            loop {
                let state = entry.module_state();
                let decision = entry.version_request(by, &state, None).unpin()?;
                if let Noted::Recorded(epoch) = entry.note(&state, decision.facts).await? {
                    *lock(&entry.file_requested) = Some(epoch);
                    break;
                }
            }
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
            loop {
                let state = entry.module_state();
                let decision = entry.version_request(by, &state, file).retry()?;
                if decision.facts.is_empty() {
                    *lock(&entry.file_requested) = Some(state.epoch);
                    break;
                }
                if let Noted::Recorded(epoch) = entry.note(&state, decision.facts).await? {
                    *lock(&entry.file_requested) = Some(epoch);
                    entry.mark_overruled();
                    break;
                }
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
        let order = OperatorAction { by: by.to_owned(), at: clock::now() };
        if entry.switch_pause(Some(order)).await? {
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
        if entry.switch_pause(None).await? {
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
        let (recorded_serving, recorded_canary) = (recorded(&state.serving), recorded(&state.canary));
        let (serving, canary) = match self.is_shared() {
            true => (recorded_serving.or(serving), recorded_canary),
            false => (serving.or(recorded_serving), canary.or(recorded_canary)),
        };
        VersionRequest { module: &self.name, by, state, serving, canary, file }
    }

    /// Records the facts of a request that was decided on a state.
    async fn note(&self, state: &ModuleState, facts: Vec<Fact>) -> Result<Noted> {
        match self.shared.versions.note(&self.name, state.epoch, facts).await {
            Ok(epoch) => Ok(Noted::Recorded(epoch)),
            Err(NoteError::Conflict) => Ok(Noted::Conflict),
            Err(NoteError::Storage(error)) => Err(error.into()),
        }
    }

    /// Pauses or resumes the module's deliveries. Returns whether that changed anything.
    async fn switch_pause(&self, paused: Option<OperatorAction>) -> Result<bool> {
        loop {
            let state = self.module_state();
            if state.paused.is_some() == paused.is_some() {
                self.set_paused(paused.is_some());
                return Ok(false);
            }
            if self.note(&state, vec![Fact::Paused(paused.clone())]).await?.is_recorded() {
                self.set_paused(paused.is_some());
                return Ok(true);
            }
        }
    }

    /// Returns the serving versions if the trial that the record knows goes on here.
    fn on_trial(&self, state: &ModuleState) -> Option<Arc<Serving>> {
        let recorded = state.canary.as_ref().map(|entry| entry.id);
        self.serving().filter(|serving| {
            let canary = serving.canary.as_ref();
            canary.is_some_and(|canary| !self.is_shared() || canary.trial.id == recorded)
        })
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
            if loaded.as_ref().is_some_and(|loaded| loaded.version.hash() == target) {
                if self.note(&state, decision.facts).await?.is_recorded()
                    && let Some(Loaded { version, .. }) = loaded.take()
                {
                    self.serve(version, origin, by, replaced(&state));
                    return Ok(());
                }
                continue;
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
                    if !self.note(&state, decision.facts).await?.is_recorded() {
                        continue;
                    }
                    self.mark_overruled();
                    tracing::info!(module = %self.name, version = %hash, by, "module pinned");
                    return Ok(());
                }
                // The recorded version is the same, but is still being loaded.
                None => (hash, Origin::Pin),
                Some(target) => target,
            };
            if loaded.as_ref().is_some_and(|loaded| loaded.version.hash() == hash) {
                if self.note(&state, decision.facts).await?.is_recorded()
                    && let Some(Loaded { version, .. }) = loaded.take()
                {
                    self.serve(version, target.1, by, replaced(&state));
                    return Ok(());
                }
                continue;
            }
            let reload_block = self.block_reloads();
            drop(guard);
            let spec = self.spec();
            let version = match file.filter(|file| file.hash == hash) {
                Some(file) => {
                    let version = self.shared.engine.load_file(file.clone(), &spec, Priority::Initial).await;
                    self.keep(hash, &file.bytes).await?;
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
            let state = self.module_state();
            let decision = self.version_request(by, &state, None).promote()?;
            if let Some(serving) = self.on_trial(&state) {
                if self.note(&state, decision.facts).await?.is_recorded() {
                    self.promote_canary(&serving, &promoted_by(by));
                    return Ok(());
                }
                continue;
            }
            // The version on trial may still be loading: after a restart, or as another host began the trial.
            let Some((target, origin)) = decision.serves else { return Ok(()) };
            if loaded.as_ref().is_some_and(|loaded| loaded.version.hash() == target) {
                if self.note(&state, decision.facts).await?.is_recorded()
                    && let Some(Loaded { version, .. }) = loaded.take()
                {
                    self.serve(version, origin, by, Some(CanaryEnd::Promoted));
                    return Ok(());
                }
                continue;
            }
            let reload_block = self.block_reloads();
            drop(guard);
            loaded = Some(Loaded { version: self.load_kept(target, &self.spec()).await?, _reload_block: reload_block });
        }
    }

    async fn abort(&self, by: &str) -> Result<()> {
        let _guard = self.module_lock.lock().await;
        loop {
            let state = self.module_state();
            let decision = self.version_request(by, &state, None).abort()?;
            if !self.note(&state, decision.facts).await?.is_recorded() {
                continue;
            }
            match self.on_trial(&state) {
                Some(serving) => {
                    self.roll_back_canary(&serving, CanaryEnd::Aborted);
                    tracing::info!(module = %self.name, version = %serving.stable.hash(), by, "canary aborted");
                }
                None => {
                    metrics::canary(&self.name, CanaryEnd::Aborted);
                    self.mark_overruled();
                    tracing::info!(module = %self.name, %by, "canary aborted");
                }
            }
            return Ok(());
        }
    }

    async fn load_kept(&self, hash: ContentHash, spec: &Spec) -> Result<Version> {
        let bytes = self.shared.versions.component(hash).await?.ok_or_else(|| Refusal::not_kept(hash))?;
        self.shared.engine.load(bytes, spec).await.map_err(|error| AdminError::CantServe(hash, error))
    }
}

/// Whether facts were recorded.
enum Noted {
    /// They began this epoch.
    Recorded(Epoch),
    /// Another decision was recorded meanwhile.
    Conflict,
}

impl Noted {
    fn is_recorded(&self) -> bool {
        matches!(self, Self::Recorded(_))
    }
}

/// Returns how the trial in a state ends when an operator's version replaces the one on trial.
fn replaced(state: &ModuleState) -> Option<CanaryEnd> {
    state.canary.as_ref().map(|_| CanaryEnd::Replaced)
}

/// A version that was loaded for an admin operation. While it exists, no version is loaded from the file.
struct Loaded<'a> {
    version: Version,
    _reload_block: ReloadBlock<'a>,
}
