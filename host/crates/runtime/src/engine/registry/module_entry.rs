//! A module of the registry: its serving versions and the atomic swap that replaces them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::canary::{Arm, Canary};
use super::refusal::Refusal;
use super::{Chosen, Shared};
use crate::engine::LoadError;
use crate::engine::version::{Spec, Version};
use modhost_core::clock;
use modhost_core::event::{DeliveryId, Name};
use modhost_core::metrics::{self, CanaryEnd};
use modhost_core::sync::lock;
use modhost_storage::error::StorageError;
use modhost_storage::versions::{ContentHash, Epoch, Fact, ModuleState, NoteError, Origin};

/// A module of the registry.
pub(super) struct ModuleEntry {
    pub(super) shared: Arc<Shared>,
    pub(super) name: Name,
    /// When the host started, or the module was added to modules.toml.
    pub(super) added_at: SystemTime,
    spec: ArcSwap<Spec>,
    serving: ArcSwapOption<Serving>,
    /// Why the current file is refused.
    pub(super) refused: Mutex<Option<Refusal>>,
    /// The ignored version of the file that was already logged.
    pub(super) ignored_version: Mutex<Option<ContentHash>>,
    /// The logged reason why the version that served last can't serve now.
    pub(super) logged_restore_error: Mutex<Option<String>>,
    /// The module's lock: serializes changes of versions and their records. Nothing is read, compiled or dry-run under
    /// it, so admin operations and the end of a trial never wait for that.
    pub(super) module_lock: tokio::sync::Mutex<()>,
    /// Serializes reloads of the file.
    pub(super) reload_lock: tokio::sync::Mutex<()>,
    /// The number of completed admin operations that take precedence over the file.
    admin_ops_done: AtomicU64,
    /// The number of such operations being prepared. Reloads wait for them.
    pending_admin_ops: watch::Sender<usize>,
    /// Whether a reload is queued.
    pub(super) reload_queued: AtomicBool,
    /// Whether the canary settings changed since the last reload. A version that failed its trial may then be tried
    /// again.
    pub(super) canary_settings_changed: AtomicBool,
    /// The epoch of the state in which an operator asked for the version in this host's file. It is offered then, although the
    /// record knows it.
    pub(super) file_requested: Mutex<Option<Epoch>>,
    /// The epoch of the state that this host has followed last.
    pub(super) followed: Mutex<Epoch>,
    /// Whether a retry of the reload is scheduled.
    pub(super) retry_scheduled: AtomicBool,
    /// The number of consecutive retries.
    pub(super) retries: AtomicU32,
    /// The number of queued and running reloads.
    reloads: AtomicUsize,
    paused: AtomicBool,
    /// The reload in progress.
    pub(super) current_reload: Mutex<Option<CurrentReload>>,
    /// Whether the module was removed from modules.toml.
    forgotten: AtomicBool,
    /// Versions that no longer serve; a weak reference is alive as long as deliveries run on the version.
    outgoing: Mutex<Vec<Weak<Version>>>,
}

/// The versions that run deliveries. Replaced as a whole.
pub(super) struct Serving {
    pub(super) stable: Arc<Version>,
    pub(super) canary: Option<Canary>,
}

/// A reload in progress: the file is being read, compiled or dry-run.
#[derive(Clone)]
pub(super) struct CurrentReload {
    /// The hash of the file, once it is being loaded.
    pub(super) hash: Option<ContentHash>,
    /// The version of the record that is being loaded.
    pub(super) recorded: Option<ContentHash>,
    /// Canceled when the result of the reload is no longer needed.
    pub(super) canceled: CancellationToken,
}

impl ModuleEntry {
    pub(super) fn new(shared: Arc<Shared>, spec: Spec) -> Self {
        let paused = shared.versions.module_state(&spec.name).paused.is_some();
        Self {
            shared,
            name: spec.name.clone(),
            added_at: clock::now(),
            spec: ArcSwap::from_pointee(spec),
            serving: ArcSwapOption::empty(),
            refused: Mutex::default(),
            ignored_version: Mutex::default(),
            logged_restore_error: Mutex::default(),
            module_lock: tokio::sync::Mutex::default(),
            reload_lock: tokio::sync::Mutex::default(),
            admin_ops_done: AtomicU64::new(0),
            pending_admin_ops: watch::Sender::new(0),
            reload_queued: AtomicBool::new(false),
            canary_settings_changed: AtomicBool::new(false),
            file_requested: Mutex::default(),
            followed: Mutex::default(),
            retry_scheduled: AtomicBool::new(false),
            retries: AtomicU32::new(0),
            reloads: AtomicUsize::new(0),
            paused: AtomicBool::new(paused),
            current_reload: Mutex::default(),
            forgotten: AtomicBool::new(false),
            outgoing: Mutex::default(),
        }
    }

    /// Stores new settings. [`apply_and_reload`](Self::apply_and_reload) applies them.
    pub(super) fn set(&self, spec: Spec) {
        let (swap, before) = (spec.swap, self.spec.swap(Arc::new(spec)));
        if swap != before.swap && swap.canary.is_some() {
            self.canary_settings_changed.store(true, Ordering::Release);
        }
    }

    pub(super) fn spec(&self) -> Arc<Spec> {
        self.spec.load_full()
    }

    pub(super) fn component(&self) -> PathBuf {
        self.spec.load().component.clone()
    }

    pub(super) fn module_state(&self) -> ModuleState {
        self.shared.versions.module_state(&self.name)
    }

    pub(super) fn serving(&self) -> Option<Arc<Serving>> {
        self.serving.load_full()
    }

    pub(super) fn refused(&self) -> Option<String> {
        lock(&self.refused).as_ref().map(|refusal| refusal.reason.clone())
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// Whether no version serves yet and a reload is queued or running.
    pub(super) fn is_loading(&self) -> bool {
        // The order matters: a reload stores its version before it decrements the counter.
        self.serving.load().is_none() && self.reloads.load(Ordering::Acquire) > 0
    }

    /// Whether deliveries wait, because the module is paused or has no version.
    pub(super) fn is_blocked(&self) -> bool {
        self.is_paused() || self.serving.load().is_none()
    }

    /// Marks the module as removed from modules.toml and cancels its reload.
    pub(super) fn forget(&self) {
        self.forgotten.store(true, Ordering::SeqCst);
        self.cancel_reload();
    }

    /// Cancels the reload in progress.
    fn cancel_reload(&self) {
        if let Some(reload) = &*lock(&self.current_reload) {
            reload.canceled.cancel();
        }
    }

    /// Returns the number of completed admin operations.
    pub(super) fn admin_ops_done(&self) -> u64 {
        self.admin_ops_done.load(Ordering::Acquire)
    }

    /// Records that an admin operation was completed, and cancels the reload in progress. The caller holds
    /// `module_lock`.
    pub(super) fn mark_overruled(&self) {
        self.admin_ops_done.fetch_add(1, Ordering::AcqRel);
        self.cancel_reload();
    }

    /// Blocks reloads while an admin operation is prepared. Otherwise a reload could swap the version first, and the
    /// operation would apply to another version than the operator meant.
    pub(super) fn block_reloads(&self) -> ReloadBlock<'_> {
        self.pending_admin_ops.send_modify(|count| *count += 1);
        self.cancel_reload();
        ReloadBlock(self)
    }

    /// Waits until no admin operation is being prepared, then acquires the module's lock.
    pub(super) async fn lock_after_admin_ops(&self) -> ModuleLockGuard<'_> {
        let mut pending_admin_ops = self.pending_admin_ops.subscribe();
        loop {
            // The channel is never closed: `self` owns the sender.
            let _ = pending_admin_ops.wait_for(|count| *count == 0).await;
            let guard = self.module_lock.lock().await;
            if *self.pending_admin_ops.borrow() == 0 {
                return guard;
            }
        }
    }

    pub(super) fn is_forgotten(&self) -> bool {
        self.forgotten.load(Ordering::SeqCst)
    }

    /// Returns the number of versions in memory.
    pub(super) fn loaded(&self) -> usize {
        let serving = self.serving.load();
        let serving = serving.as_ref().map_or(0, |serving| 1 + usize::from(serving.canary.is_some()));
        serving + lock(&self.outgoing).iter().filter(|version| version.strong_count() > 0).count()
    }

    pub(super) fn choose(&self, delivery: &DeliveryId, received: SystemTime) -> Option<Chosen> {
        let serving = self.serving.load();
        let Serving { stable, canary } = &**serving.as_ref()?;
        let Some(Canary { version, trial }) = canary else {
            return Some(Chosen { version: stable.clone(), trial: None });
        };
        let arm = trial.arm(delivery, received);
        let version = if arm == Arm::Canary { version } else { stable };
        Some(Chosen { version: version.clone(), trial: Some((trial.clone(), arm)) })
    }

    /// Swaps the serving versions atomically.
    pub(super) fn swap_serving(&self, next: Serving) {
        let before = self.serving.swap(Some(Arc::new(next)));
        match before {
            Some(before) => self.retire(&before),
            None => self.shared.notify_change(),
        }
        // The settings may have changed while the version was loaded.
        if let Err(error) = self.apply_settings() {
            tracing::debug!(module = %self.name, %error, "cannot apply newer settings to the version");
        }
    }

    /// Ends the trial of replaced versions, and tracks the versions as long as deliveries run on them.
    fn retire(&self, before: &Serving) {
        let now = self.serving();
        let versions = |serving: &Serving| {
            let canary = serving.canary.as_ref().map(|canary| canary.version.clone());
            [Some(serving.stable.clone()), canary].into_iter().flatten().collect::<Vec<_>>()
        };
        let trial = now.as_ref().and_then(|now| now.canary.as_ref()).map(|canary| &canary.trial);
        if let Some(canary) = &before.canary
            && trial.is_none_or(|trial| !Arc::ptr_eq(trial, &canary.trial))
        {
            canary.trial.end();
        }
        let now = now.as_deref().map(versions).unwrap_or_default();
        let gone = versions(before).into_iter().filter(|version| !now.iter().any(|it| Arc::ptr_eq(it, version)));
        let mut outgoing = lock(&self.outgoing);
        outgoing.retain(|version| version.strong_count() > 0);
        outgoing.extend(gone.map(|version| Arc::downgrade(&version)));
    }

    /// Applies the current settings to the serving versions.
    ///
    /// # Errors
    ///
    /// If the settings don't meet a version's requirements. Nothing changes then.
    pub(super) fn apply_settings(&self) -> Result<(), LoadError> {
        let (Some(before), spec) = (self.serving(), self.spec()) else { return Ok(()) };
        let renewed = |version: &Arc<Version>| match version.is(version.hash(), &spec) {
            true => Ok(version.clone()),
            false => version.with_settings(&spec).map(Arc::new),
        };
        let stable = renewed(&before.stable)?;
        let canary = before
            .canary
            .as_ref()
            .map(|Canary { version, trial }| renewed(version).map(|version| Canary { version, trial: trial.clone() }));
        let canary = canary.transpose()?;
        let mut canaries = canary.iter().zip(&before.canary);
        let same_canary = canaries.all(|(now, before)| Arc::ptr_eq(&now.version, &before.version));
        if Arc::ptr_eq(&stable, &before.stable) && same_canary {
            return Ok(());
        }
        let hash = stable.hash();
        let next = Some(Arc::new(Serving { stable, canary }));
        let found = self.serving.compare_and_swap(&Some(before.clone()), next);
        if found.as_ref().is_some_and(|found| Arc::ptr_eq(found, &before)) {
            self.retire(&before);
            tracing::info!(module = %self.name, version = %hash, "new settings in use");
        }
        // Otherwise the versions were swapped meanwhile, and `swap_serving` applies the settings to the new ones.
        Ok(())
    }

    /// Whether other hosts decide about the module, too.
    pub(super) fn is_shared(&self) -> bool {
        self.shared.is_shared()
    }

    /// Records what this host decided on the state with this epoch, before it makes the change. Returns the epoch that begins
    /// with it. The only host of a record makes the change also if it can't be recorded: it logs that, and the file still
    /// exists to repeat it.
    ///
    /// # Errors
    ///
    /// If another decision was recorded meanwhile, or the record that hosts share can't be written. The change must not be
    /// made then.
    pub(super) async fn decide(&self, based_on: Epoch, facts: Vec<Fact>) -> Result<Epoch, NoteError> {
        match self.shared.versions.note(&self.name, based_on, facts).await {
            Err(NoteError::Storage(error)) if !self.is_shared() => {
                tracing::error!(module = %self.name, %error, "cannot record the version history");
                Ok(based_on)
            }
            result => result,
        }
    }

    /// Keeps a component. If that fails, the only host of a record logs an error.
    ///
    /// # Errors
    ///
    /// If the record that hosts share can't be written: other hosts would not get the component.
    pub(super) async fn keep(&self, hash: ContentHash, bytes: &[u8]) -> Result<(), StorageError> {
        match self.shared.versions.keep(hash, bytes.into()).await {
            Err(error) if !self.is_shared() => {
                tracing::error!(
                    module = %self.name, version = %hash, %error,
                    "cannot keep the component; rolling back to it will fail"
                );
                Ok(())
            }
            result => result,
        }
    }

    /// Notes which version a reload loads, so that it isn't canceled for the sake of the same version.
    pub(super) fn announce_load(&self, hash: ContentHash) {
        if let Some(current) = &mut *lock(&self.current_reload) {
            current.recorded = Some(hash);
        }
    }
}

/// For admin operations.
impl ModuleEntry {
    /// Swaps to a version that an operator requested. The caller holds `module_lock` and has recorded the facts; `ended` is
    /// how they ended the trial, if there was one.
    pub(super) fn serve(&self, version: Version, origin: Origin, by: &str, ended: Option<CanaryEnd>) {
        let hash = version.hash();
        if let Some(end) = ended {
            metrics::canary(&self.name, end);
        }
        self.swap_serving(Serving { stable: Arc::new(version), canary: None });
        *lock(&self.refused) = None;
        self.mark_overruled();
        tracing::info!(module = %self.name, version = %hash, origin = origin.name(), by, "version serves");
        metrics::swap(&self.name, origin.name());
    }
}

/// A guard for a queued or running reload. While it exists, a module without a version counts as coming up.
pub(super) struct ReloadGuard(Arc<ModuleEntry>);

impl ReloadGuard {
    pub(super) fn of(entry: Arc<ModuleEntry>) -> Self {
        entry.reloads.fetch_add(1, Ordering::Release);
        Self(entry)
    }
}

impl Drop for ReloadGuard {
    fn drop(&mut self) {
        self.0.reloads.fetch_sub(1, Ordering::Release);
        if self.0.serving().is_none() {
            self.0.shared.notify_change();
        }
    }
}

/// The guard of a module's lock (`module_lock`).
pub(super) type ModuleLockGuard<'a> = tokio::sync::MutexGuard<'a, ()>;

/// A guard for an admin operation being prepared. While it exists, reloads wait.
pub(super) struct ReloadBlock<'a>(&'a ModuleEntry);

impl Drop for ReloadBlock<'_> {
    fn drop(&mut self) {
        self.0.pending_admin_ops.send_modify(|count| *count -= 1);
    }
}
