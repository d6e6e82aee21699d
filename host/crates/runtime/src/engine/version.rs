//! One version of a module: a compiled component with the settings it runs under.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::LoadError;
use super::executor::Executor;
use super::instance::{self, GuestOutcome};
use super::loaded_components::Loaded;
use super::wasmtime_engine::LinkedComponent;
use crate::capabilities::{Delivery, Grants, Prepared};
use modhost_contract::compat::ComponentInfo;
use modhost_core::event::Name;
use modhost_core::limits::{Limits, Resource};
pub use modhost_storage::versions::ContentHash;

/// The settings of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The name of the module.
    pub name: Name,
    /// The names of the module's tenants, in order; empty for all tenants. Tenants take turns in the compile queue.
    pub tenants: Vec<Name>,
    /// The path of the component.
    pub component: std::path::PathBuf,
    /// The limits of one delivery, without the tenant's ceilings.
    pub limits: Limits,
    /// The module's permissions and configuration.
    pub grants: Grants,
    /// The checks that a new version must pass before it serves.
    pub swap: SwapPolicy,
}

/// The checks that a new version of a module must pass before it serves. By default there are none, apart from loading
/// it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwapPolicy {
    /// How many of the last completed deliveries the new version is dry-run on.
    pub replay: u32,
    /// The canary trial, if the new version has one.
    pub canary: Option<CanaryPolicy>,
}

/// How a new version is tried on a share of a module's deliveries before it takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CanaryPolicy {
    /// The percentage of deliveries that the new version gets.
    pub percent: u8,
    /// The duration of the trial. Afterwards the new version takes over unless it did worse.
    pub period: Duration,
    /// The minimum number of deliveries that must end on the new version before it can take over.
    pub min_deliveries: u32,
}

/// The interface that sends HTTP requests. Toolchains import `wasi:http/types` even in components that send none.
const HTTP_INTERFACE: &str = "wasi:http/outgoing-handler";

/// The requirements of a component on its module's settings.
#[derive(Clone, Debug)]
pub(super) struct Needs {
    /// The resources that an instance uses at its start.
    initial: [(Resource, u64); 3],
    /// The imported interfaces of the key-value store.
    keyvalue: Vec<String>,
    /// The imported interfaces that send HTTP requests.
    http: Vec<String>,
}

impl Needs {
    pub(super) fn of(component_info: &ComponentInfo) -> Self {
        let imports = component_info.imports.iter().map(|import| &import.name);
        let of = |prefix: &'static str| imports.clone().filter(move |name| name.starts_with(prefix)).cloned().collect();
        let (keyvalue, http) = (of("wasi:keyvalue/"), of(HTTP_INTERFACE));
        let initial = [
            (Resource::Memory, component_info.minimum_memory),
            (Resource::Tables, component_info.minimum_table_elements),
            (Resource::Instances, component_info.core_instances),
        ];
        Self { initial, keyvalue, http }
    }

    /// Checks that a module's settings meet the requirements.
    ///
    /// # Errors
    ///
    /// The first requirement that isn't met.
    pub(super) fn check(&self, spec: &Spec) -> Result<(), LoadError> {
        if !self.http.is_empty() && spec.grants.http.allowed.is_empty() {
            let location = spec.grants.http.location.as_ref().map(|it| format!(" ({}:{})", it.file.display(), it.line));
            return Err(LoadError::NoHttp { imports: self.http.join(", "), location: location.unwrap_or_default() });
        }
        self.check_while_serving(spec)
    }

    /// Checks that changed settings still meet the requirements of a version that serves. HTTP isn't checked: when an
    /// operator revokes it, the change applies at once and each request is refused.
    ///
    /// # Errors
    ///
    /// The first requirement that isn't met.
    fn check_while_serving(&self, spec: &Spec) -> Result<(), LoadError> {
        let too_much = self.initial.iter().find(|(resource, wanted)| *wanted > spec.limits.amount(*resource));
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

/// A version of a module, ready to run deliveries.
pub struct Version {
    loaded: Arc<Loaded>,
    /// The hash of the file: of the component and its appended sources.
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

    /// Whether this version has this content hash and the limits and grants of this spec.
    pub(super) fn is(&self, hash: ContentHash, spec: &Spec) -> bool {
        self.hash == hash && self.limits == spec.limits && self.grants == spec.grants
    }

    /// Returns the same component with other settings.
    ///
    /// # Errors
    ///
    /// If the settings don't meet the component's requirements.
    pub(super) fn with_settings(&self, spec: &Spec) -> Result<Self, LoadError> {
        self.loaded.needs().check_while_serving(spec)?;
        Ok(Self::new(self.loaded.clone(), self.hash, self.sources.clone(), spec))
    }

    /// Returns the hash of the component and its appended sources.
    pub fn hash(&self) -> ContentHash {
        self.hash
    }

    /// Returns the limits of one delivery, without the tenant's ceilings.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns the code for the next instance. It may change during the version's lifetime, for the same component.
    pub(super) fn code(&self) -> Arc<LinkedComponent> {
        self.loaded.code()
    }

    /// Returns the sources appended to the component, if any. The component reads them when it starts.
    pub(super) fn sources(&self) -> Option<&Arc<str>> {
        self.sources.as_ref()
    }

    pub(super) fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    /// Returns the executor of its instances.
    pub(super) fn executor(&self) -> &Executor {
        self.loaded.executor()
    }

    /// Runs a delivery in a new instance and returns the outcome. If the future is dropped, the instance ends soon
    /// after.
    pub async fn run(&self, delivery: &Arc<Delivery>) -> GuestOutcome {
        instance::start(self, delivery).await
    }

    /// Runs a delivery in a new instance and returns the outcome. If `stop` is canceled first, ends the instance and
    /// returns `None` once it is dropped.
    pub async fn run_until(&self, delivery: &Arc<Delivery>, stop: &CancellationToken) -> Option<GuestOutcome> {
        let mut running = instance::start(self, delivery);
        tokio::select! {
            ended = &mut running => Some(ended),
            () = stop.cancelled() => running.cancel().await,
        }
    }
}
