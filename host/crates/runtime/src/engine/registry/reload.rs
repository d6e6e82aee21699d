//! Reloads of a module's component file.
//!
//! Reading, compiling and dry-running a file takes from milliseconds to minutes and happens without the module's lock
//! (`module_lock`). Before each change the lock is taken and the module's state is checked again: admin operations take
//! precedence, and changed settings restart the reload.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::gate::{self, Rejection};
use super::module_entry::{CurrentReload, ModuleEntry, ModuleLockGuard, ReloadGuard, Serving};
use super::refusal::{Cause, Refusal};
use crate::engine::file::ComponentFile;
use crate::engine::version::{Spec, Version};
use crate::engine::{LoadError, Priority};
use modhost_core::backoff::Backoff;
use modhost_core::metrics::{self, CanaryEnd, RefusedBy};
use modhost_core::sync::lock;
use modhost_storage::versions::{ContentHash, Fact, ModuleState, Origin};

/// The delays before a reload is retried that failed for a temporary reason. They grow because an attempt may be
/// expensive.
const RETRY_BACKOFF: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(300));

/// The maximum time that an admin operation waits for the result of a reload.
const MAX_RELOAD_WAIT: Duration = Duration::from_secs(10);

/// The reason why a version that served before can't serve now.
struct Unavailable {
    cause: Cause,
    why: String,
}

/// The state on which one reload is based.
struct Reload<'a> {
    entry: &'a ModuleEntry,
    spec: Arc<Spec>,
    admin_ops_done: u64,
    /// Whether a version that failed its trial may be tried again, because the canary settings changed.
    canary_settings_changed: bool,
    canceled: CancellationToken,
}

impl<'a> Reload<'a> {
    fn begin(entry: &'a ModuleEntry, canary_settings_changed: bool) -> Self {
        let canceled = CancellationToken::new();
        *lock(&entry.current_reload) = Some(CurrentReload { hash: None, canceled: canceled.clone() });
        // `forget` may have run just before `current_reload` was set, and then it had nothing to cancel.
        if entry.is_forgotten() {
            canceled.cancel();
        }
        Self { entry, admin_ops_done: entry.admin_ops_done(), spec: entry.spec(), canary_settings_changed, canceled }
    }

    /// Runs work that may take long; `None` if the reload is canceled.
    async fn unless_canceled<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.canceled.run_until_cancelled(work).await
    }

    /// Acquires the module's lock to apply a result; `None` if the state on which the reload is based has changed.
    async fn lock_if_current(&self) -> Option<ModuleLockGuard<'a>> {
        let guard = self.entry.lock_after_admin_ops().await;
        let spec = self.entry.spec();
        let same_settings = spec.component == self.spec.component && spec.swap == self.spec.swap;
        let is_current =
            same_settings && self.entry.admin_ops_done() == self.admin_ops_done && !self.entry.is_forgotten();
        is_current.then_some(guard)
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
        let Some(CurrentReload { hash: Some(hash), canceled }) = lock(&self.current_reload).clone() else { return };
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
            if self.reload_file(&reload).await.is_some() {
                return;
            }
            // Another reload is queued and will read the changed file.
            if self.reload_queued.load(Ordering::Acquire) {
                self.canary_settings_changed.fetch_or(canary_settings_changed, Ordering::AcqRel);
                return;
            }
        }
    }

    /// Reads the file and applies the pin or rollback, if any; otherwise loads the file's version. `None` if the reload
    /// is outdated.
    async fn reload_file(self: &Arc<Self>, reload: &Reload<'_>) -> Option<()> {
        let (spec, state) = (&reload.spec, self.module_state());
        let found = ComponentFile::read(&spec.component).await;
        if let Some((pinned, order)) = &state.pinned {
            let restored = self.restore(reload, *pinned, found.as_ref().ok()).await?;
            let _guard = reload.lock_if_current().await?;
            let why = format!("the module is pinned to {pinned} by {}", order.by);
            self.serve_instead(spec, *pinned, restored, found, &why).await;
            return Some(());
        }
        if let Some(held_back) = &state.held_back {
            let last = state.serving.as_ref().map(|entry| entry.hash);
            let same = found.as_ref().is_ok_and(|found| found.hash == held_back.hash);
            let may_retry = reload.canary_settings_changed && held_back.is_failed_trial();
            if same
                && !may_retry
                && let Some(last) = last
            {
                let restored = self.restore(reload, last, None).await?;
                let _guard = reload.lock_if_current().await?;
                self.serve_instead(spec, last, restored, found, &held_back.why).await;
                return Some(());
            }
            if found.is_ok() {
                let _guard = reload.lock_if_current().await?;
                self.record_facts(vec![Fact::HeldBack(None)]).await;
            }
        }
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                self.restore_last(reload, &state).await?;
                let _guard = reload.lock_if_current().await?;
                self.refuse(spec, ContentHash::of(&[]), Cause::of(&error), error.to_string()).await;
                return Some(());
            }
        };
        if spec.swap.replay > 0 || spec.swap.canary.is_some() {
            self.restore_last(reload, &state).await?;
        }
        self.load_found(reload, found).await
    }

    /// Ignores the file in favor of another version. If that can't serve, no version does and deliveries wait: the
    /// file's version was rejected by an operator or its trial.
    async fn serve_instead(
        self: &Arc<Self>,
        spec: &Arc<Spec>,
        hash: ContentHash,
        restored: Result<(), Unavailable>,
        file: Result<ComponentFile, LoadError>,
        why: &str,
    ) {
        match restored {
            Ok(()) => self.ignore_file(spec, file, why),
            Err(Unavailable { cause, why: error }) => {
                let reason = format!(
                    "version {hash} should serve but can't: {error}. The version in the file is not loaded: {why}; to load \
                     it, run `modhost modules unpin {}`",
                    self.name
                );
                self.refuse(spec, ContentHash::of(&[]), cause, reason).await;
            }
        }
    }

    /// Ignores the file's version, and logs that once per version.
    fn ignore_file(&self, spec: &Spec, found: Result<ComponentFile, LoadError>, why: &str) {
        let serves = self.serving().map(|serving| serving.stable.hash());
        let file = found.ok().map(|found| found.hash).filter(|file| Some(*file) != serves);
        *lock(&self.refused) = None;
        if let Err(error) = self.apply_settings() {
            tracing::error!(module = %self.name, %error, "cannot apply the new settings to the version that serves");
        }
        if let Some(file) = file
            && lock(&self.ignored_version).replace(file) != Some(file)
        {
            tracing::warn!(
                module = %self.name, version = %file, file = %spec.component.display(), reason = why,
                help = format!("`modhost modules unpin {}` loads it", self.name),
                "version in the file is not loaded"
            );
        }
    }

    /// Records that the log already says why this version of the file is ignored.
    pub(super) fn ignored_version(&self, hash: ContentHash) {
        *lock(&self.ignored_version) = Some(hash);
    }

    /// Loads the file's version and admits it, unless it serves, is on trial, or remains refused.
    async fn load_found(self: &Arc<Self>, reload: &Reload<'_>, found: ComponentFile) -> Option<()> {
        let spec = &reload.spec;
        let guard = reload.lock_if_current().await?;
        *lock(&self.ignored_version) = None;
        let serving = self.serving();
        if let Some(serving) = &serving
            && serving.stable.hash() == found.hash
        {
            match self.apply_settings() {
                Ok(()) => *lock(&self.refused) = None,
                Err(error) => self.refuse(spec, found.hash, Cause::of(&error), error.to_string()).await,
            }
            if serving.canary.is_some() || self.module_state().canary.is_some() {
                self.end_trial("the file holds the version before again".into(), CanaryEnd::Replaced).await;
            }
            return Some(());
        }
        let _ = self.apply_settings(); // an error for the old version doesn't matter once this one serves
        if serving.as_ref().is_some_and(|it| it.canary.as_ref().is_some_and(|it| it.version.hash() == found.hash)) {
            *lock(&self.refused) = None;
            return Some(());
        }
        if lock(&self.refused).as_ref().is_some_and(|it| it.holds(found.hash, spec)) {
            return Some(());
        }
        drop(guard);
        let started = Instant::now();
        let priority = if serving.is_some() { Priority::Update } else { Priority::Initial };
        match self.load(reload, &found, priority).await {
            None => {
                tracing::debug!(module = %self.name, version = %found.hash, "load canceled: the file has changed");
                None
            }
            Some(Ok(version)) => self.admit(reload, found, version, started).await,
            Some(Err(error)) => {
                self.restore_last(reload, &self.module_state()).await?;
                let _guard = reload.lock_if_current().await?;
                self.refuse(spec, found.hash, Cause::of(&error), error.to_string()).await;
                Some(())
            }
        }
    }

    /// Loads the component; `None` if the reload is canceled.
    async fn load(
        &self,
        reload: &Reload<'_>,
        found: &ComponentFile,
        priority: Priority,
    ) -> Option<Result<Version, LoadError>> {
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
    ) -> Option<()> {
        let (ComponentFile { hash, bytes }, spec) = (found, &reload.spec);
        let was_tried = self.module_state().canary.is_some_and(|entry| entry.hash == hash);
        if self.serving().is_some() && spec.swap.replay > 0 && !was_tried {
            tracing::debug!(module = %self.name, version = %hash, "dry run started");
            let examined = reload.unless_canceled(gate::examine(&self.shared, &self.name, &version, &spec.swap)).await;
            if examined.is_none() {
                tracing::debug!(module = %self.name, version = %hash, "dry run canceled: the file has changed");
            }
            match examined? {
                Ok(dry_runs) => self.log_dry_runs(hash, &dry_runs),
                Err(Rejection::Unable(reason)) => {
                    let _guard = reload.lock_if_current().await?;
                    self.refuse(spec, hash, Cause::Host, reason).await;
                    return Some(());
                }
                Err(Rejection::Failed { reason, delivery }) => {
                    self.keep(hash, &bytes).await;
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
                    self.refuse(spec, hash, Cause::Gate, reason).await;
                    return Some(());
                }
            }
        }
        let guard = reload.lock_if_current().await?;
        // Read the state again: a trial may have ended meanwhile.
        let (state, before) = (self.module_state(), self.serving().map(|serving| serving.stable.hash()));
        match &state.held_back {
            // The version was rolled back during this reload.
            Some(held_back) if held_back.hash == hash => return None,
            Some(_) => self.record_facts(vec![Fact::HeldBack(None)]).await,
            None => {}
        }
        let version = Arc::new(version);
        match spec.swap.canary {
            Some(policy) if before.is_some() => self.begin_trial(version, policy, &state).await,
            _ => {
                self.swap_serving(Serving { stable: version, canary: None });
                let took = started.elapsed();
                match before {
                    Some(before) => tracing::info!(
                        module = %self.name, version = %hash, %before, ?took, "new version serves"
                    ),
                    None => tracing::info!(module = %self.name, version = %hash, ?took, "version serves"),
                }
                self.note_serving(hash, Origin::File, &state).await;
            }
        }
        *lock(&self.refused) = None;
        self.retries.store(0, Ordering::Release);
        drop(guard);
        self.keep(hash, &bytes).await;
        Some(())
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

    /// Records that the file's version serves, unless it served before the host started.
    async fn note_serving(&self, hash: ContentHash, origin: Origin, state: &ModuleState) {
        let mut facts = Vec::new();
        if state.canary.is_some() {
            facts.push(Fact::CanaryEnded { reason: format!("{hash} serves") });
            metrics::canary(&self.name, CanaryEnd::Replaced);
        }
        if state.serving.as_ref().is_none_or(|entry| entry.hash != hash) {
            facts.push(Fact::Serves { hash, origin, by: None });
            metrics::swap(&self.name, origin.name());
        }
        self.record_facts(facts).await;
    }

    /// Makes a version serve, from the file if it contains that version, otherwise from the stored components. `None`
    /// if the reload is outdated.
    async fn restore(
        self: &Arc<Self>,
        reload: &Reload<'_>,
        hash: ContentHash,
        file: Option<&ComponentFile>,
    ) -> Option<Result<(), Unavailable>> {
        if self.serving().is_some_and(|serving| serving.stable.hash() == hash) {
            return Some(Ok(()));
        }
        let file = match file.filter(|file| file.hash == hash) {
            Some(file) => Some(file.clone()),
            // It was compared with its hash as it was read.
            None => self.shared.versions.component(hash).await.map(|bytes| ComponentFile { hash, bytes: bytes.into() }),
        };
        let Some(file) = file else {
            return Some(Err(Unavailable { cause: Cause::Component, why: "its component is no longer kept".into() }));
        };
        match reload.unless_canceled(self.shared.engine.load_file(file, &reload.spec, Priority::Initial)).await? {
            Ok(version) => {
                let _guard = reload.lock_if_current().await?;
                self.swap_serving(Serving { stable: Arc::new(version), canary: None });
                *lock(&self.refused) = None;
                tracing::info!(module = %self.name, version = %hash, "previous version serves again");
                Some(Ok(()))
            }
            Err(error) => Some(Err(Unavailable { cause: Cause::of(&error), why: error.to_string() })),
        }
    }

    /// If no version serves, restores the version that served before the host started.
    async fn restore_last(self: &Arc<Self>, reload: &Reload<'_>, state: &ModuleState) -> Option<()> {
        if self.serving().is_none()
            && let Some(last) = &state.serving
            && let Err(Unavailable { why, .. }) = self.restore(reload, last.hash, None).await?
            && lock(&self.logged_restore_error).replace(why.clone()).as_ref() != Some(&why)
        {
            tracing::error!(
                module = %self.name, version = %last.hash, reason = why, "cannot bring back the version that served before"
            );
        }
        Some(())
    }

    /// Records why the file is refused. Logs and counts the refusal once per file and reason. The serving version
    /// stays.
    async fn refuse(self: &Arc<Self>, spec: &Arc<Spec>, hash: ContentHash, cause: Cause, reason: String) {
        if cause.is_temporary() {
            self.schedule_retry();
        } else {
            self.retries.store(0, Ordering::Release);
        }
        let refusal = Refusal { hash, spec: spec.clone(), cause, reason: reason.clone() };
        let before = lock(&self.refused).replace(refusal);
        if before.is_some_and(|before| before.hash == hash && before.reason == reason) {
            return;
        }
        let file = spec.component.display();
        match self.serving() {
            Some(serving) => {
                let stable = serving.stable.hash();
                match cause.metric_label() {
                    RefusedBy::File => tracing::error!(
                        module = %self.name, %file, %stable, reason, "the file cannot serve; the stable version stays"
                    ),
                    RefusedBy::Gate => tracing::error!(
                        module = %self.name, %file, version = %hash, %stable, reason,
                        "new version failed its dry run; the stable version stays"
                    ),
                }
            }
            // The module is new, and its component may still be built.
            None if cause == Cause::Missing => tracing::warn!(
                module = %self.name, %file, "no version serves: the file does not exist; deliveries wait for it"
            ),
            None => {
                tracing::error!(module = %self.name, %file, reason, "no version serves; deliveries wait");
            }
        }
        metrics::swap_refused(&self.name, cause.metric_label());
        if hash != ContentHash::of(&[]) {
            self.record_facts(vec![Fact::Refused { hash, reason }]).await;
        }
    }

    /// Schedules a retry of the reload, because the file may become usable without any notification.
    fn schedule_retry(self: &Arc<Self>) {
        if self.retry_scheduled.swap(true, Ordering::AcqRel) {
            return;
        }
        let before = self.retries.fetch_add(1, Ordering::AcqRel);
        let wait = RETRY_BACKOFF.delay(before);
        let entry = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let Some(entry) = entry.upgrade() else { return };
            entry.retry_scheduled.store(false, Ordering::Release);
            if !entry.is_forgotten() && lock(&entry.refused).as_ref().is_some_and(|it| it.cause.is_temporary()) {
                entry.request_reload();
            }
        });
    }
}
