//! Refusals of component files, and the changes that can lift them.

use std::sync::Arc;

use crate::engine::LoadError;
use crate::engine::compile::CompileError;
use crate::engine::version::Spec;
use modhost_core::metrics::RefusedBy;
use modhost_storage::versions::ContentHash;

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
