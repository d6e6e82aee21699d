//! Follows what other hosts that share the record have decided: which version serves, which one is on trial, and whether the
//! module is paused.

use std::sync::Arc;

use super::Registry;
use super::module_entry::{CurrentReload, ModuleEntry, Serving};
use super::reload::{Reload, Step};
use super::restore::Instead;
use crate::engine::file::ComponentFile;
use modhost_core::sync::lock;
use modhost_storage::error::StorageError;
use modhost_storage::versions::{ContentHash, Entry};

/// Why a host doesn't load a version from its file that the record knows.
const DECIDED_BEFORE: &str =
    "hosts that share the storage have decided on it before, and this file did not change since";

impl Registry {
    /// Follows what other hosts decide, for as long as the host runs. Ends at once if no other host can use the record.
    pub async fn follow(&self) {
        let Some(every) = self.shared.versions.poll_every() else { return };
        let mut failing = false;
        loop {
            tokio::time::sleep(every).await;
            match self.refresh_from_record().await {
                Ok(()) => failing = false,
                Err(error) if !failing => {
                    failing = true;
                    tracing::error!(%error, "cannot read which versions other hosts decided on; retrying");
                }
                Err(_) => {}
            }
        }
    }

    /// Reads once what other hosts have decided, and begins to follow it.
    ///
    /// # Errors
    ///
    /// If the record can't be read.
    pub async fn refresh_from_record(&self) -> Result<(), StorageError> {
        let changed = self.shared.versions.refresh().await?;
        // No await from here on: the record reports each change once.
        let modules = self.modules.load();
        for entry in changed.iter().filter_map(|module| modules.get(module)) {
            entry.follow();
        }
        Ok(())
    }
}

impl ModuleEntry {
    /// Begins to follow the state in the record.
    fn follow(self: &Arc<Self>) {
        let state = self.module_state();
        if state.paused.is_some() != self.is_paused() {
            self.set_paused(state.paused.is_some());
            match &state.paused {
                Some(order) => tracing::info!(module = %self.name, by = order.by, "module paused on another host"),
                None => tracing::info!(module = %self.name, "module resumed on another host"),
            }
            self.shared.notify_change();
        }
        if std::mem::replace(&mut *lock(&self.followed), state.epoch) == state.epoch {
            return;
        }
        let wanted = [&state.serving, &state.canary].map(|entry| entry.as_ref().map(|entry| entry.hash));
        if let Some(CurrentReload { hash, recorded, canceled }) = &*lock(&self.current_reload)
            // What is compiled for nothing now is cached, and needed in a moment.
            && !hash.iter().chain(recorded).any(|hash| wanted.contains(&Some(*hash)))
        {
            canceled.cancel();
        }
        self.request_reload();
    }

    /// Ends the trial on this host if another host has ended it.
    pub(super) async fn follow_end_of_trial(&self, reload: &Reload<'_>) -> Step {
        let Some(serving) = self.serving().filter(|_| self.is_shared()) else { return Ok(()) };
        let Some(canary) = &serving.canary else { return Ok(()) };
        let state = &reload.state;
        if state.canary.as_ref().is_some_and(|entry| Some(entry.id) == canary.trial.id) {
            return Ok(());
        }
        let _guard = reload.lock_if_current().await?;
        let hash = canary.version.hash();
        let promoted = state.serving.as_ref().is_some_and(|entry| entry.hash == hash);
        let stable = if promoted { canary.version.clone() } else { serving.stable.clone() };
        self.swap_serving(Serving { stable, canary: None });
        match promoted {
            true => tracing::info!(module = %self.name, version = %hash, "canary promoted on another host"),
            false => {
                // The log of the host that ended the trial says why.
                self.ignored_version(hash);
                tracing::info!(module = %self.name, version = %hash, "canary ended on another host");
            }
        }
        Ok(())
    }

    /// Serves the version in the record, and joins the trial of the canary if there is one, because this host's file offers
    /// no other version.
    pub(super) async fn follow_record(
        self: &Arc<Self>,
        reload: &Reload<'_>,
        serving: ContentHash,
        file: ComponentFile,
    ) -> Step {
        let restored = self.restore(reload, serving, Some(&file)).await?;
        if restored.is_ok()
            && let Some(canary) = &reload.state.canary
        {
            self.join_trial(reload, canary, Some(&file)).await?;
        }
        let _guard = reload.lock_if_current().await?;
        let instead = Instead { why: DECIDED_BEFORE, command: "retry" };
        self.serve_instead(reload, serving, restored, Ok(file), instead).await
    }

    /// Joins a trial that another host began, or continues it after a restart.
    pub(super) async fn join_trial(
        self: &Arc<Self>,
        reload: &Reload<'_>,
        canary: &Entry,
        file: Option<&ComponentFile>,
    ) -> Step {
        let Some(policy) = reload.spec.swap.canary.filter(|_| self.serving().is_some()) else { return Ok(()) };
        let joined = self
            .serving()
            .is_some_and(|serving| serving.canary.as_ref().is_some_and(|joined| joined.trial.id == Some(canary.id)));
        if joined {
            return Ok(());
        }
        match self.load_recorded(reload, canary.hash, file).await? {
            Ok(version) => {
                let _guard = reload.lock_if_current().await?;
                self.begin_trial(reload, Arc::new(version), policy, Vec::new()).await
            }
            Err(unavailable) => {
                let why = unavailable.why();
                if lock(&self.logged_restore_error).replace(why.to_owned()).as_deref() != Some(why) {
                    tracing::error!(
                        module = %self.name, version = %canary.hash, reason = why, "cannot take part in the canary's trial"
                    );
                }
                Ok(())
            }
        }
    }
}
