//! Reloads of a module's component file.
//!
//! Reading, compiling and dry-running a file takes from milliseconds to minutes and happens without the module's lock
//! (`module_lock`). Before each change the lock is taken and the module's state is checked again: admin operations take
//! precedence, and changed settings restart the reload.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::gate::{self, Rejection};
use super::module_entry::{CurrentReload, ModuleEntry, ModuleLockGuard, ReloadGuard, Serving};
use super::refusal::Cause;
use super::restore::Instead;
use crate::engine::file::ComponentFile;
use crate::engine::version::{Spec, Version};
use crate::engine::{LoadError, Priority};
use modhost_core::metrics::{self, CanaryEnd};
use modhost_core::sync::lock;
use modhost_storage::error::StorageError;
use modhost_storage::versions::{ContentHash, Epoch, Fact, ModuleState, NoteError, Offer, Origin};

/// Why a trial ends whose stable version is in the file again.
const FILE_IS_STABLE: &str = "the file holds the version before again";

/// The maximum time that an admin operation waits for the result of a reload.
const MAX_RELOAD_WAIT: Duration = Duration::from_secs(10);

/// The reason why a reload stops before it has a result.
pub(super) enum Stopped {
    /// The state on which it is based has changed.
    Outdated,
    /// The record that the hosts share can't be used now.
    Storage(StorageError),
}

impl From<StorageError> for Stopped {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// The result of a step of a reload.
pub(super) type Step<T = ()> = Result<T, Stopped>;

/// The state on which one reload is based.
pub(super) struct Reload<'a> {
    pub(super) entry: &'a ModuleEntry,
    pub(super) spec: Arc<Spec>,
    /// The state of the module in the record when the reload began.
    pub(super) state: ModuleState,
    /// The epoch of that state, or the one that began when this reload recorded something.
    epoch: Mutex<Epoch>,
    admin_ops_done: u64,
    /// Whether a version that failed its trial may be tried again, because the canary settings changed.
    canary_settings_changed: bool,
    /// Whether an operator asked for the version in the file.
    file_requested: bool,
    canceled: CancellationToken,
}

impl<'a> Reload<'a> {
    fn begin(entry: &'a ModuleEntry, canary_settings_changed: bool) -> Self {
        let canceled = CancellationToken::new();
        *lock(&entry.current_reload) = Some(CurrentReload { hash: None, recorded: None, canceled: canceled.clone() });
        // `forget` may have run just before `current_reload` was set, and then it had nothing to cancel.
        if entry.is_forgotten() {
            canceled.cancel();
        }
        let (admin_ops_done, state) = (entry.admin_ops_done(), entry.module_state());
        let epoch = Mutex::new(state.epoch);
        // Whatever was decided after the request takes precedence.
        let file_requested = *lock(&entry.file_requested) == Some(state.epoch);
        Self {
            entry,
            admin_ops_done,
            spec: entry.spec(),
            state,
            epoch,
            canary_settings_changed,
            file_requested,
            canceled,
        }
    }

    /// Runs work that may take long, unless the reload is canceled.
    pub(super) async fn unless_canceled<T>(&self, work: impl Future<Output = T>) -> Step<T> {
        self.canceled.run_until_cancelled(work).await.ok_or(Stopped::Outdated)
    }

    /// Acquires the module's lock to apply a result, unless the state on which the reload is based has changed.
    pub(super) async fn lock_if_current(&self) -> Step<ModuleLockGuard<'a>> {
        let guard = self.entry.lock_after_admin_ops().await;
        let spec = self.entry.spec();
        let same_settings = spec.component == self.spec.component && spec.swap == self.spec.swap;
        let same_state = self.entry.module_state().epoch == *lock(&self.epoch);
        let is_current = same_settings
            && same_state
            && self.entry.admin_ops_done() == self.admin_ops_done
            && !self.entry.is_forgotten();
        if is_current { Ok(guard) } else { Err(Stopped::Outdated) }
    }

    /// Records facts that were decided on the state of this reload. The caller holds the module's lock, and makes the
    /// change afterwards.
    pub(super) async fn note(&self, facts: Vec<Fact>) -> Step {
        if facts.is_empty() {
            return Ok(());
        }
        let based_on = *lock(&self.epoch);
        match self.entry.decide(based_on, facts).await {
            Ok(epoch) => {
                *lock(&self.epoch) = epoch;
                Ok(())
            }
            Err(NoteError::Conflict) => Err(Stopped::Outdated),
            Err(NoteError::Storage(error)) => Err(error.into()),
        }
    }
}

impl Drop for Reload<'_> {
    fn drop(&mut self) {
        *lock(&self.entry.current_reload) = None;
    }
}

impl ModuleEntry {
    /// Starts a reload in the background.
    pub(super) fn request_reload(self: &Arc<Self>) {
        let (entry, guard) = (self.clone(), ReloadGuard::of(self.clone()));
        tokio::spawn(async move {
            // A reload that is already queued will read the current file.
            let first = !entry.reload_queued.swap(true, Ordering::AcqRel);
            entry.cancel_if_stale().await;
            if first {
                entry.refresh().await;
            }
            drop(guard);
        });
    }

    /// Starts a reload and waits at most [`MAX_RELOAD_WAIT`] for it. The reload continues after that, because compiling
    /// may take minutes.
    pub(super) async fn reload_now(self: &Arc<Self>) {
        let (entry, guard) = (self.clone(), ReloadGuard::of(self.clone()));
        let reload = tokio::spawn(async move {
            entry.refresh().await;
            drop(guard);
        });
        if let Ok(Err(error)) = tokio::time::timeout(MAX_RELOAD_WAIT, reload).await {
            tracing::error!(module = %self.name, %error, "cannot load the component");
        }
    }

    /// Cancels the reload in progress if the file has changed since.
    async fn cancel_if_stale(&self) {
        let Some(CurrentReload { hash: Some(hash), canceled, .. }) = lock(&self.current_reload).clone() else { return };
        if ComponentFile::read(&self.component()).await.is_ok_and(|found| found.hash != hash) {
            canceled.cancel();
        }
    }

    /// Applies the settings and starts a reload.
    pub(super) fn apply_and_reload(self: &Arc<Self>) {
        // The reload reports an error of the new settings.
        let _ = self.apply_settings();
        self.request_reload();
    }

    /// Reloads the file. Starts again if the module's state changes meanwhile.
    async fn refresh(self: &Arc<Self>) {
        let _guard = self.reload_lock.lock().await;
        self.reload_queued.store(false, Ordering::Release);
        let mut canary_settings_changed = false;
        loop {
            // An admin operation being prepared takes precedence over the file.
            drop(self.lock_after_admin_ops().await);
            if self.is_forgotten() {
                return;
            }
            canary_settings_changed |= self.canary_settings_changed.swap(false, Ordering::AcqRel);
            let reload = Reload::begin(self, canary_settings_changed);
            match self.reload_file(&reload).await {
                Ok(()) => return,
                Err(Stopped::Outdated) => {}
                Err(Stopped::Storage(error)) => {
                    self.canary_settings_changed.fetch_or(canary_settings_changed, Ordering::AcqRel);
                    return self.defer(&reload.spec, &error);
                }
            }
            // Another reload is queued and will read the changed file.
            if self.reload_queued.load(Ordering::Acquire) {
                self.canary_settings_changed.fetch_or(canary_settings_changed, Ordering::AcqRel);
                return;
            }
        }
    }

    /// Reads the file and applies the pin or rollback, if any; otherwise loads the file's version, or the one in the record
    /// if the file offers nothing new.
    async fn reload_file(self: &Arc<Self>, reload: &Reload<'_>) -> Step {
        let (spec, state) = (&reload.spec, &reload.state);
        self.follow_end_of_trial(reload).await?;
        let found = ComponentFile::read(&spec.component).await;
        if let Some((pinned, order)) = &state.pinned {
            let restored = self.restore(reload, *pinned, found.as_ref().ok()).await?;
            let _guard = reload.lock_if_current().await?;
            let why = format!("the module is pinned to {pinned} by {}", order.by);
            return self.serve_instead(reload, *pinned, restored, found, Instead { why: &why, command: "unpin" }).await;
        }
        let mut is_new = false;
        if let Some(held_back) = &state.held_back {
            let last = state.serving.as_ref().map(|entry| entry.hash);
            let same = found.as_ref().is_ok_and(|found| found.hash == held_back.hash);
            let may_retry = reload.canary_settings_changed && held_back.is_failed_trial();
            is_new |= same && may_retry;
            if same
                && !is_new
                && let Some(last) = last
            {
                let restored = self.restore(reload, last, None).await?;
                let _guard = reload.lock_if_current().await?;
                let instead = Instead { why: &held_back.why, command: "unpin" };
                return self.serve_instead(reload, last, restored, found, instead).await;
            }
            // Of several hosts, one has to offer another version first.
            if found.is_ok() && !self.is_shared() {
                let _guard = reload.lock_if_current().await?;
                reload.note(vec![Fact::HeldBack(None)]).await?;
            }
        }
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                self.restore_last(reload, state).await?;
                if let Some(canary) = state.canary.as_ref().filter(|_| self.is_shared()) {
                    self.join_trial(reload, canary, None).await?;
                }
                let _guard = reload.lock_if_current().await?;
                return self.refuse(reload, ContentHash::of(&[]), Cause::of(&error), error.to_string()).await;
            }
        };
        is_new |= reload.file_requested || self.shared.versions.offer(&self.name, found.hash).await? == Offer::New;
        if let (false, Some(entry)) = (is_new, &state.serving) {
            return self.follow_record(reload, entry.hash, found).await;
        }
        if spec.swap.replay > 0 || spec.swap.canary.is_some() {
            self.restore_last(reload, state).await?;
        }
        self.load_found(reload, found).await
    }

    /// Records that the log already says why this version of the file is ignored.
    pub(super) fn ignored_version(&self, hash: ContentHash) {
        *lock(&self.ignored_version) = Some(hash);
    }

    /// Loads the file's version and admits it, unless it serves, is on trial, or remains refused.
    async fn load_found(self: &Arc<Self>, reload: &Reload<'_>, found: ComponentFile) -> Step {
        let spec = &reload.spec;
        let guard = reload.lock_if_current().await?;
        *lock(&self.ignored_version) = None;
        let serving = self.serving();
        if let Some(serving) = &serving
            && serving.stable.hash() == found.hash
        {
            let on_trial = serving.canary.is_some() || self.module_state().canary.is_some();
            let mut facts = self.offered(found.hash);
            if on_trial {
                facts.push(Fact::CanaryEnded { reason: FILE_IS_STABLE.into() });
            }
            let recorded = self.module_state().serving.map(|entry| entry.hash);
            if self.is_shared() && recorded != Some(found.hash) {
                facts.push(Fact::Serves { hash: found.hash, origin: Origin::File, by: None });
            }
            reload.note(facts).await?;
            match self.apply_settings() {
                Ok(()) => *lock(&self.refused) = None,
                Err(error) => self.refuse(reload, found.hash, Cause::of(&error), error.to_string()).await?,
            }
            if on_trial {
                self.end_trial(FILE_IS_STABLE, CanaryEnd::Replaced);
            }
            return Ok(());
        }
        let _ = self.apply_settings(); // an error for the old version doesn't matter once this one serves
        if serving.as_ref().is_some_and(|it| it.canary.as_ref().is_some_and(|it| it.version.hash() == found.hash)) {
            *lock(&self.refused) = None;
            return Ok(());
        }
        if lock(&self.refused).as_ref().is_some_and(|it| it.holds(found.hash, spec)) {
            return Ok(());
        }
        drop(guard);
        let started = Instant::now();
        let priority = if serving.is_some() { Priority::Update } else { Priority::Initial };
        match self.load(reload, &found, priority).await {
            Err(stopped) => {
                tracing::debug!(module = %self.name, version = %found.hash, "load canceled: the file has changed");
                Err(stopped)
            }
            Ok(Ok(version)) => self.admit(reload, found, version, started).await,
            Ok(Err(error)) => {
                self.restore_last(reload, &self.module_state()).await?;
                let _guard = reload.lock_if_current().await?;
                self.refuse(reload, found.hash, Cause::of(&error), error.to_string()).await
            }
        }
    }

    /// Loads the component, unless the reload is canceled.
    async fn load(
        &self,
        reload: &Reload<'_>,
        found: &ComponentFile,
        priority: Priority,
    ) -> Step<Result<Version, LoadError>> {
        if let Some(current) = &mut *lock(&self.current_reload) {
            current.hash = Some(found.hash);
        }
        // A request made before the hash was set couldn't compare it with the file.
        if self.reload_queued.load(Ordering::Acquire) {
            self.cancel_if_stale().await;
        }
        reload.unless_canceled(self.shared.engine.load_file(found.clone(), &reload.spec, priority)).await
    }

    /// Admits a loaded version: dry-runs it and puts it on trial, if configured, or swaps to it.
    async fn admit(
        self: &Arc<Self>,
        reload: &Reload<'_>,
        found: ComponentFile,
        version: Version,
        started: Instant,
    ) -> Step {
        let (ComponentFile { hash, bytes }, spec) = (found, &reload.spec);
        let was_tried = self.module_state().canary.is_some_and(|entry| entry.hash == hash);
        if self.serving().is_some() && spec.swap.replay > 0 && !was_tried {
            tracing::debug!(module = %self.name, version = %hash, "dry run started");
            let examined = reload.unless_canceled(gate::examine(&self.shared, &self.name, &version, &spec.swap)).await;
            if examined.is_err() {
                tracing::debug!(module = %self.name, version = %hash, "dry run canceled: the file has changed");
            }
            match examined? {
                Ok(dry_runs) => self.log_dry_runs(hash, &dry_runs),
                Err(Rejection::Unable(reason)) => {
                    let _guard = reload.lock_if_current().await?;
                    return self.refuse(reload, hash, Cause::Host, reason).await;
                }
                Err(Rejection::Failed { reason, delivery }) => {
                    self.keep(hash, &bytes).await?;
                    let replay = delivery.map(|delivery| {
                        let component = spec.component.display();
                        format!("inspect it with `modhost deliveries replay {delivery} --component {component}`, or ")
                    });
                    let reason = format!(
                        "{reason}; {}use it anyway with `modhost modules pin {} {hash}`",
                        replay.unwrap_or_default(),
                        self.name
                    );
                    let _guard = reload.lock_if_current().await?;
                    return self.refuse(reload, hash, Cause::Gate, reason).await;
                }
            }
        }
        // Other hosts load it as soon as it is in the record.
        let mut to_keep = Some(bytes);
        if self.is_shared()
            && let Some(bytes) = to_keep.take()
        {
            self.keep(hash, &bytes).await?;
        }
        let guard = reload.lock_if_current().await?;
        let (state, before) = (self.module_state(), self.serving().map(|serving| serving.stable.hash()));
        let mut facts = self.offered(hash);
        let version = Arc::new(version);
        match spec.swap.canary {
            Some(policy) if before.is_some() => self.begin_trial(reload, version, policy, facts).await?,
            _ => {
                let ends_trial = state.canary.is_some();
                let is_swap = state.serving.as_ref().is_none_or(|entry| entry.hash != hash);
                if ends_trial {
                    facts.push(Fact::CanaryEnded { reason: format!("{hash} serves") });
                }
                // Otherwise it served before the host started.
                if is_swap {
                    facts.push(Fact::Serves { hash, origin: Origin::File, by: None });
                }
                reload.note(facts).await?;
                self.swap_serving(Serving { stable: version, canary: None });
                let took = started.elapsed();
                match before {
                    Some(before) => tracing::info!(
                        module = %self.name, version = %hash, %before, ?took, "new version serves"
                    ),
                    None => tracing::info!(module = %self.name, version = %hash, ?took, "version serves"),
                }
                if ends_trial {
                    metrics::canary(&self.name, CanaryEnd::Replaced);
                }
                if is_swap {
                    metrics::swap(&self.name, Origin::File.name());
                }
            }
        }
        *lock(&self.refused) = None;
        self.retries.store(0, Ordering::Release);
        drop(guard);
        if let Some(bytes) = to_keep {
            self.keep(hash, &bytes).await?;
        }
        Ok(())
    }

    /// Returns the facts that record a version as offered by the file of this host. They also end a rollback.
    pub(super) fn offered(&self, hash: ContentHash) -> Vec<Fact> {
        let held_back = self.module_state().held_back.is_some();
        let lifted = held_back.then_some(Fact::HeldBack(None));
        [Fact::Offered { hash }].into_iter().filter(|_| self.is_shared()).chain(lifted).collect()
    }

    fn log_dry_runs(&self, hash: ContentHash, dry_runs: &gate::DryRuns) {
        let gate::DryRuns { passed, inconclusive, not_run } = dry_runs;
        if (passed + inconclusive + not_run) == 0 {
            tracing::warn!(
                module = %self.name, version = %hash, "dry run skipped: the journal has no completed delivery of the module"
            );
            return;
        }
        tracing::info!(
            module = %self.name, version = %hash, passed, inconclusive, not_run, "dry run passed"
        );
    }
}
