//! Why a module's file may not serve, and what could change that.

use std::sync::Arc;

use crate::engine::LoadError;
use crate::engine::compile::CompileError;
use crate::engine::version::Spec;
use modhost_core::metrics::RefusedBy;
use modhost_storage::versions::ContentHash;

/// A file that may not serve.
pub(super) struct Refusal {
    /// What it holds; that of nothing if it can't be read.
    pub(super) hash: ContentHash,
    /// The settings it was refused under.
    pub(super) spec: Arc<Spec>,
    pub(super) cause: Cause,
    pub(super) reason: String,
}

/// What a file was refused for, by what could change it. A new file, other `swap` settings and a person always can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// There is no file yet.
    Missing,
    /// The host can't read, compile or dry-run it now: time can. That a process which compiles is killed from outside is
    /// part of that: it says that memory was short, and not whose fault that was.
    Host,
    /// What is in it is no component that fits, or can't be compiled.
    Component,
    /// The module's settings don't give it what it needs: other limits or allowed hosts can.
    Settings,
    /// The dry runs.
    Gate,
}

impl Cause {
    /// What an error refuses a file for.
    pub(super) fn of(error: &LoadError) -> Self {
        match error {
            LoadError::Unreadable { error, .. } if error.kind() == std::io::ErrorKind::NotFound => Self::Missing,
            LoadError::Unreadable { .. } => Self::Host,
            LoadError::Compile(CompileError::Unable(_) | CompileError::Killed) => Self::Host,
            LoadError::Incompatibility(_) | LoadError::Compile(_) => Self::Component,
            LoadError::Limit(_) | LoadError::NoKeyValue { .. } | LoadError::NoHttp { .. } => Self::Settings,
        }
    }

    /// What the metrics count it as.
    pub(super) fn by(self) -> RefusedBy {
        if self == Self::Gate { RefusedBy::Gate } else { RefusedBy::File }
    }

    /// Whether it may be over although neither the file nor the settings change.
    pub(super) fn passes(self) -> bool {
        self == Self::Host
    }
}

impl Refusal {
    /// Whether a file that holds this is still refused under these settings. To try it again costs a compilation or a
    /// dry run, and what was refused once is refused again unless what it was refused for has changed.
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
