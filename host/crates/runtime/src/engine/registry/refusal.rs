//! Refusals of component files, and the changes that can lift them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::module_entry::ModuleEntry;
use super::reload::{Reload, Step};
use crate::engine::LoadError;
use crate::engine::compile::CompileError;
use crate::engine::version::Spec;
use modhost_core::backoff::Backoff;
use modhost_core::metrics::{self, RefusedBy};
use modhost_core::sync::lock;
use modhost_storage::error::StorageError;
use modhost_storage::versions::{ContentHash, Fact};

/// The delays before a reload is retried that failed for a temporary reason. They grow because an attempt may be
/// expensive.
const RETRY_BACKOFF: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(300));

/// A refused component file.
pub(super) struct Refusal {
    /// The hash of the file's content; the hash of no bytes if the file can't be read.
    pub(super) hash: ContentHash,
    /// The settings under which it was refused.
    pub(super) spec: Arc<Spec>,
    pub(super) cause: Cause,
    pub(super) reason: String,
}

/// The cause of a refusal, by the change that can lift it. A new file, other `swap` settings and an operator always
/// can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The file doesn't exist yet.
    Missing,
    /// The host can't read, compile or dry-run the file now; a later attempt may succeed. This includes a compile
    /// process that was killed from outside, which indicates low memory but not by whose fault.
    Host,
    /// The file isn't a compatible component, or can't be compiled.
    Component,
    /// The module's settings don't meet the component's requirements; other limits or allowed hosts may.
    Settings,
    /// The dry runs failed.
    Gate,
}

impl Cause {
    /// Returns the cause for an error.
    pub(super) fn of(error: &LoadError) -> Self {
        match error {
            LoadError::Unreadable { error, .. } if error.kind() == std::io::ErrorKind::NotFound => Self::Missing,
            LoadError::Unreadable { .. } => Self::Host,
            LoadError::Compile(CompileError::ProcessFailed(_) | CompileError::Killed) => Self::Host,
            LoadError::Incompatibility(_) | LoadError::Compile(_) => Self::Component,
            LoadError::Limit(_) | LoadError::NoKeyValue { .. } | LoadError::NoHttp { .. } => Self::Settings,
        }
    }

    /// Returns the label for metrics.
    pub(super) fn metric_label(self) -> RefusedBy {
        if self == Self::Gate { RefusedBy::Gate } else { RefusedBy::File }
    }

    /// Whether the cause lies in the file alone, so that no other host needs to try it.
    fn is_final(self) -> bool {
        matches!(self, Self::Component | Self::Gate)
    }

    /// Whether the cause is temporary: a later attempt may succeed with the same file and settings.
    pub(super) fn is_temporary(self) -> bool {
        self == Self::Host
    }
}

impl Refusal {
    /// Whether a file with this hash remains refused under these settings. Another attempt would cost a compilation or
    /// dry runs, and would fail again unless the cause has changed.
    pub(super) fn holds(&self, hash: ContentHash, spec: &Spec) -> bool {
        if self.hash != hash || self.spec.swap != spec.swap {
            return false;
        }
        let no_http = |spec: &Spec| spec.grants.http.allowed.is_empty();
        match self.cause {
            Cause::Missing | Cause::Host => false,
            Cause::Component | Cause::Gate => true,
            Cause::Settings => self.spec.limits == spec.limits && no_http(&self.spec) == no_http(spec),
        }
    }
}

impl ModuleEntry {
    /// Records why the file is refused. Logs and counts the refusal once per file and reason. The serving version stays. The
    /// caller holds the module's lock.
    pub(super) async fn refuse(
        self: &Arc<Self>,
        reload: &Reload<'_>,
        hash: ContentHash,
        cause: Cause,
        reason: String,
    ) -> Step {
        let spec = &reload.spec;
        let is_known = |before: &Refusal| before.hash == hash && before.reason == reason;
        let is_known = lock(&self.refused).as_ref().is_some_and(is_known);
        if !is_known && hash != ContentHash::of(&[]) {
            // Other settings or a later attempt may lift other refusals, so this host goes on offering the version.
            let mut facts = if cause.is_final() { self.offered(hash) } else { Vec::new() };
            facts.push(Fact::Refused { hash, reason: reason.clone() });
            reload.note(facts).await?;
        }
        if cause.is_temporary() {
            self.schedule_retry();
        } else {
            self.retries.store(0, Ordering::Release);
        }
        *lock(&self.refused) = Some(Refusal { hash, spec: spec.clone(), cause, reason: reason.clone() });
        if is_known {
            return Ok(());
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
        Ok(())
    }

    /// Tries a reload again later, because the record that the hosts share can't be used now.
    pub(super) fn defer(self: &Arc<Self>, spec: &Arc<Spec>, error: &StorageError) {
        let reason = format!("the record of versions can't be used: {error}");
        let refusal = Refusal { hash: ContentHash::of(&[]), spec: spec.clone(), cause: Cause::Host, reason };
        let is_known = lock(&self.refused).replace(refusal).is_some_and(|before| before.cause == Cause::Host);
        if !is_known {
            tracing::error!(module = %self.name, %error, "cannot use the record of versions; retrying");
        }
        self.schedule_retry();
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
