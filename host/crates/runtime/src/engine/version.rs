//! One version of a module: a compiled component with the settings it runs under.

use std::sync::Arc;
use std::time::Duration;

use super::LoadError;
use super::instance::{self, Ended};
use super::loaded_components::Loaded;
use super::wasmtime_engine::LinkedComponent;
use crate::capabilities::{Delivery, Grants, Prepared};
use modhost_contract::compat::ComponentInfo;
use modhost_core::event::Name;
use modhost_core::limits::{Limits, Resource};
pub use modhost_storage::versions::ContentHash;

/// What a module is to be run with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The module.
    pub name: Name,
    /// The tenants it works for, by their names in order; none stands for all of them. They take turns at the compiler.
    pub tenants: Vec<Name>,
    /// Where its component lies.
    pub component: std::path::PathBuf,
    /// What one delivery may use, the ceilings of its tenant left out.
    pub limits: Limits,
    /// What it may do and know.
    pub grants: Grants,
    /// What a new version has to show before it serves.
    pub swap: SwapPolicy,
}

/// What a new version of a module has to show before it serves. By default nothing: that it can serve is enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwapPolicy {
    /// How many of the last completed deliveries it is dry-run on.
    pub replay: u32,
    /// Whether it answers only a share of the deliveries for a while.
    pub canary: Option<CanaryPolicy>,
}

/// How a new version is tried on a share of a module's deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CanaryPolicy {
    /// How many of a hundred deliveries it gets.
    pub percent: u8,
    /// How long; then it takes over, unless it does worse.
    pub period: Duration,
    /// How many deliveries have to have ended on it before it can take over.
    pub min_deliveries: u32,
}

/// The interface by which requests are sent. Its types alone, which toolchains bring along, send none.
const REQUESTS: &str = "wasi:http/outgoing-handler";

/// What a component can't do without.
#[derive(Clone, Debug)]
pub(super) struct Needs {
    /// What it takes before it runs.
    begins_with: [(Resource, u64); 3],
    /// The interfaces it imports of the key-value store.
    keyvalue: Vec<String>,
    /// The interfaces by which it sends HTTP requests.
    http: Vec<String>,
}

impl Needs {
    pub(super) fn of(component_info: &ComponentInfo) -> Self {
        let imports = component_info.imports.iter().map(|import| &import.name);
        let of = |prefix: &'static str| imports.clone().filter(move |name| name.starts_with(prefix)).cloned().collect();
        let (keyvalue, http) = (of("wasi:keyvalue/"), of(REQUESTS));
        let begins_with = [
            (Resource::Memory, component_info.minimum_memory),
            (Resource::Tables, component_info.minimum_table_elements),
            (Resource::Instances, component_info.core_instances),
        ];
        Self { begins_with, keyvalue, http }
    }

    /// Whether a module's settings give it that.
    ///
    /// # Errors
    ///
    /// What they don't.
    pub(super) fn met_by(&self, spec: &Spec) -> Result<(), LoadError> {
        if !self.http.is_empty() && spec.grants.http.allowed.is_empty() {
            let place = spec.grants.http.place.as_ref().map(|it| format!(" ({}:{})", it.file.display(), it.line));
            return Err(LoadError::NoHttp { imports: self.http.join(", "), place: place.unwrap_or_default() });
        }
        self.met_while_running_by(spec)
    }

    /// Whether changed settings still give it what it can't run without. Sending requests isn't part of that: what an
    /// operator takes away is gone at once, and each request is refused, rather than the change.
    ///
    /// # Errors
    ///
    /// What they don't.
    fn met_while_running_by(&self, spec: &Spec) -> Result<(), LoadError> {
        let too_much = self.begins_with.iter().find(|(resource, wanted)| *wanted > spec.limits.amount(*resource));
        if let Some((resource, wanted)) = too_much {
            return Err(LoadError::Limit(spec.limits.reached(*resource, Some(*wanted))));
        }
        let keyvalue = spec.limits.get(Resource::KeyValue);
        if !self.keyvalue.is_empty() && keyvalue.amount == 0 {
            let setting = keyvalue.setting(Resource::KeyValue);
            return Err(LoadError::NoKeyValue { imports: self.keyvalue.join(", "), setting });
        }
        Ok(())
    }
}

/// One version of a module, ready to answer.
pub struct Version {
    loaded: Arc<Loaded>,
    /// That of the file: of the component, and of the sources it has with it.
    hash: ContentHash,
    sources: Option<Arc<str>>,
    limits: Limits,
    grants: Grants,
    prepared: Prepared,
}

impl Version {
    pub(super) fn new(loaded: Arc<Loaded>, hash: ContentHash, sources: Option<Arc<str>>, spec: &Spec) -> Self {
        let (limits, grants, prepared) = (spec.limits, spec.grants.clone(), Prepared::new(&spec.grants));
        Self { loaded, hash, sources, limits, grants, prepared }
    }

    /// Whether this is already what a spec and a content hash ask for.
    pub(super) fn is(&self, hash: ContentHash, spec: &Spec) -> bool {
        self.hash == hash && self.limits == spec.limits && self.grants == spec.grants
    }

    /// The same component under other settings.
    ///
    /// # Errors
    ///
    /// When they don't give it what it needs.
    pub(super) fn with_settings(&self, spec: &Spec) -> Result<Self, LoadError> {
        self.loaded.needs().met_while_running_by(spec)?;
        Ok(Self::new(self.loaded.clone(), self.hash, self.sources.clone(), spec))
    }

    /// The hash of its component, and of the sources that has with it.
    pub fn hash(&self) -> ContentHash {
        self.hash
    }

    /// What one delivery may use, the ceilings of its tenant left out.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What an instance is made of; the next one may be made of other code of the same component.
    pub(super) fn code(&self) -> Arc<LinkedComponent> {
        self.loaded.code()
    }

    /// What its component reads when it starts, if it was built to.
    pub(super) fn sources(&self) -> Option<&Arc<str>> {
        self.sources.as_ref()
    }

    pub(super) fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    /// Runs a fresh instance on a delivery, to whatever end.
    pub async fn run(&self, delivery: &Arc<Delivery>) -> Ended {
        instance::run(self, delivery).await
    }
}
