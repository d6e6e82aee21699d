//! Versions that serve because the record says so, whatever the module's file contains: after a restart, a rollback or a pin,
//! and when other hosts have decided.

use std::sync::Arc;

use super::module_entry::{ModuleEntry, Serving};
use super::refusal::Cause;
use super::reload::{Reload, Step};
use crate::engine::file::ComponentFile;
use crate::engine::version::{Spec, Version};
use crate::engine::{LoadError, Priority};
use modhost_core::sync::lock;
use modhost_storage::versions::{ContentHash, ModuleState};

/// The reason why a version that served before can't serve now.
pub(super) struct Unavailable {
    cause: Cause,
    why: String,
}

/// The reason why another version than the file's serves.
pub(super) struct Instead<'a> {
    pub(super) why: &'a str,
    /// The command of `modhost modules` that loads the file's version.
    pub(super) command: &'static str,
}

impl ModuleEntry {
    /// Ignores the file in favor of another version. If that can't serve, the version that served before stays, or
    /// deliveries wait: the file's version was rejected by an operator, its trial or another host.
    pub(super) async fn serve_instead(
        self: &Arc<Self>,
        reload: &Reload<'_>,
        hash: ContentHash,
        restored: Result<(), Unavailable>,
        file: Result<ComponentFile, LoadError>,
        instead: Instead<'_>,
    ) -> Step {
        match restored {
            Ok(()) => {
                self.ignore_file(&reload.spec, file, &instead);
                Ok(())
            }
            Err(Unavailable { cause, why: error }) => {
                let Instead { why, command } = instead;
                let reason = format!(
                    "version {hash} should serve but can't: {error}. The version in the file is not loaded: {why}; to load \
                     it, run `modhost modules {command} {}`",
                    self.name
                );
                self.refuse(reload, ContentHash::of(&[]), cause, reason).await
            }
        }
    }

    /// Ignores the file's version, and logs that once per version.
    fn ignore_file(&self, spec: &Spec, found: Result<ComponentFile, LoadError>, instead: &Instead<'_>) {
        let serving = self.serving();
        let runs = |hash: ContentHash| {
            let canary = serving.as_ref().and_then(|serving| serving.canary.as_ref());
            serving.as_ref().is_some_and(|serving| serving.stable.hash() == hash)
                || canary.is_some_and(|canary| canary.version.hash() == hash)
        };
        let file = found.ok().map(|found| found.hash).filter(|file| !runs(*file));
        *lock(&self.refused) = None;
        if let Err(error) = self.apply_settings() {
            tracing::error!(module = %self.name, %error, "cannot apply the new settings to the version that serves");
        }
        if let Some(file) = file
            && lock(&self.ignored_version).replace(file) != Some(file)
        {
            let Instead { why, command } = instead;
            tracing::warn!(
                module = %self.name, version = %file, file = %spec.component.display(), reason = why,
                help = format!("`modhost modules {command} {}` loads it", self.name),
                "version in the file is not loaded"
            );
        }
    }

    /// Makes a version serve, from the file if it contains that version, otherwise from the kept components.
    pub(super) async fn restore(
        self: &Arc<Self>,
        reload: &Reload<'_>,
        hash: ContentHash,
        file: Option<&ComponentFile>,
    ) -> Step<Result<(), Unavailable>> {
        if self.serving().is_some_and(|serving| serving.stable.hash() == hash) {
            return Ok(Ok(()));
        }
        match self.load_recorded(reload, hash, file).await? {
            Ok(version) => {
                let _guard = reload.lock_if_current().await?;
                self.swap_serving(Serving { stable: Arc::new(version), canary: None });
                *lock(&self.refused) = None;
                match self.is_shared() {
                    true => tracing::info!(module = %self.name, version = %hash, "recorded version serves"),
                    false => tracing::info!(module = %self.name, version = %hash, "previous version serves again"),
                }
                Ok(Ok(()))
            }
            Err(unavailable) => Ok(Err(unavailable)),
        }
    }

    /// Loads a version that is in the record.
    pub(super) async fn load_recorded(
        &self,
        reload: &Reload<'_>,
        hash: ContentHash,
        file: Option<&ComponentFile>,
    ) -> Step<Result<Version, Unavailable>> {
        self.announce_load(hash);
        let file = match file.filter(|file| file.hash == hash) {
            Some(file) => Some(file.clone()),
            // It was compared with its hash as it was read.
            None => {
                self.shared.versions.component(hash).await?.map(|bytes| ComponentFile { hash, bytes: bytes.into() })
            }
        };
        let Some(file) = file else {
            return Ok(Err(Unavailable { cause: Cause::Component, why: "its component is no longer kept".into() }));
        };
        let loaded =
            reload.unless_canceled(self.shared.engine.load_file(file, &reload.spec, Priority::Initial)).await?;
        Ok(loaded.map_err(|error| Unavailable { cause: Cause::of(&error), why: error.to_string() }))
    }

    /// Restores the version that served before the host started, if no version serves, or the one that other hosts have
    /// decided on.
    pub(super) async fn restore_last(self: &Arc<Self>, reload: &Reload<'_>, state: &ModuleState) -> Step {
        if (self.serving().is_none() || self.is_shared())
            && let Some(last) = &state.serving
            && let Err(Unavailable { why, .. }) = self.restore(reload, last.hash, None).await?
            && lock(&self.logged_restore_error).replace(why.clone()).as_ref() != Some(&why)
        {
            tracing::error!(
                module = %self.name, version = %last.hash, reason = why, "cannot bring back the version that served before"
            );
        }
        Ok(())
    }
}

impl Unavailable {
    /// Returns why the version can't serve.
    pub(super) fn why(&self) -> &str {
        &self.why
    }
}
