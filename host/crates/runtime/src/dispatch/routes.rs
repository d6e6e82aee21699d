//! Routes events to the modules that want them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::Refused;
use crate::capabilities::{GuestMemory, TenantLog, TenantMemory};
use modhost_core::backoff::RetryPolicy;
use modhost_core::event::event_filter::{Candidate, EventFilter, ModuleId};
use modhost_core::event::{DeliveryId, Event, Name};
use modhost_core::limits::{LimitAmounts, Limits};
use modhost_core::rate::RateLimiter;
use modhost_platform::Platform;
use modhost_storage::journal::{NewDelivery, TenantLimits};

/// The settings of a tenant for dispatch.
pub struct TenantSpec {
    /// The name.
    pub name: Name,
    /// The platform that executes its calls.
    pub platform: Arc<dyn Platform>,
    /// Maximum number of its deliveries that run concurrently.
    pub concurrency: usize,
    /// Maximum number of its waiting and running deliveries.
    pub max_deliveries: u64,
    /// Maximum average number of its events per second, on all hosts together; none: unlimited.
    pub events_per_second: Option<u32>,
    /// Maximum total memory of its running deliveries, in bytes; none: only that of all tenants is limited.
    pub total_memory: Option<u64>,
    /// What its modules may write to the host's log, in bytes per second.
    pub log_rate: u32,
    /// Maximum size of its records in the journal, in bytes; none: only the size of the whole journal is limited.
    pub total_journal: Option<u64>,
    /// The weight of its share of the CPU time.
    pub cpu_weight: u32,
    /// Upper bounds of the limits of its deliveries.
    pub ceilings: LimitAmounts,
    /// Whether it was removed from the settings and is kept for the grace period: its deliveries wait.
    pub is_removed: bool,
}

/// The settings of a module for dispatch.
#[derive(Clone, Debug)]
pub struct RouteSpec {
    /// The name in the settings, which identifies the module in this host.
    pub module: Name,
    /// The name on the platform; an event that names a module is delivered to no other.
    pub platform_name: Name,
    /// The tenant whose own file has the module; none for a module of modules.toml.
    pub owner: Option<Name>,
    /// The events it wants.
    pub wants: EventFilter,
    /// Maximum number of its deliveries that run concurrently.
    pub concurrency: usize,
    /// Whether the deliveries of one chat run one at a time, in the order of their events.
    pub ordered_by_chat: bool,
    /// Whether a later attempt replays the call log of earlier ones.
    pub resume: bool,
    /// The retry policy.
    pub retry: RetryPolicy,
    /// The text for the user when a delivery has failed.
    pub apology: Arc<str>,
    /// The text for the user while a delivery is retried.
    pub retry_notice: Arc<str>,
    /// The limits of one delivery, without the ceilings of its tenant.
    pub limits: Limits,
    /// Whether it was removed from the settings and is kept for the grace period: its deliveries wait.
    pub is_removed: bool,
}

impl RouteSpec {
    fn id(&self) -> ModuleId<'_> {
        ModuleId { platform_name: self.platform_name.as_str(), is_own: self.owner.is_some() }
    }
}

/// The tenants and modules of the current settings.
pub struct Routes {
    tenants: HashMap<Name, Arc<Tenant>>,
    modules: HashMap<Name, Arc<RouteSpec>>,
    /// The modules that want events of any tenant.
    of_any_tenant: Vec<Arc<RouteSpec>>,
    /// The modules that want events of this tenant only, or of this and some other tenants. An event is compared with
    /// the modules of its own tenant, however many other tenants there are.
    by_tenant: HashMap<Name, TenantModules>,
    /// The text for users whose module is no longer in the settings.
    apology: Arc<str>,
}

/// The modules that name a tenant.
#[derive(Default)]
struct TenantModules {
    modules: Vec<Arc<RouteSpec>>,
    /// The names on the platform of the modules in the tenant's own file.
    own_names: BTreeSet<String>,
}

pub(super) struct Tenant {
    pub(super) platform: Arc<dyn Platform>,
    pub(super) concurrency: usize,
    pub(super) max_deliveries: u64,
    pub(super) total_journal: Option<u64>,
    pub(super) cpu_weight: u32,
    pub(super) ceilings: LimitAmounts,
    pub(super) memory: Arc<TenantMemory>,
    pub(super) log: Arc<TenantLog>,
    pub(super) is_removed: bool,
    rate: Option<Arc<RateLimiter>>,
}

impl Default for Routes {
    fn default() -> Self {
        Self {
            tenants: HashMap::new(),
            modules: HashMap::new(),
            of_any_tenant: Vec::new(),
            by_tenant: HashMap::new(),
            apology: "".into(),
        }
    }
}

impl Routes {
    pub(super) fn new(
        tenants: Vec<TenantSpec>,
        modules: Vec<RouteSpec>,
        apology: Arc<str>,
        previous: &Self,
        guest_memory: &Arc<GuestMemory>,
    ) -> Self {
        let tenants = tenants.into_iter().map(|spec| {
            let old_tenant = previous.tenants.get(&spec.name);
            let rate =
                spec.events_per_second.map(|per_second| match old_tenant.and_then(|tenant| tenant.rate.clone()) {
                    Some(rate) if rate.per_second() == f64::from(per_second) => rate,
                    _ => Arc::new(RateLimiter::new(per_second)),
                });
            // The memory in use stays counted.
            let memory = match old_tenant {
                Some(tenant) => tenant.memory.clone(),
                None => guest_memory.tenant(spec.total_memory),
            };
            memory.set_limit(spec.total_memory);
            let log = match old_tenant {
                Some(tenant) if tenant.log.bytes_per_second() == f64::from(spec.log_rate) => tenant.log.clone(),
                _ => Arc::new(TenantLog::new(spec.log_rate)),
            };
            let tenant = Tenant {
                platform: spec.platform,
                concurrency: spec.concurrency,
                max_deliveries: spec.max_deliveries,
                total_journal: spec.total_journal,
                cpu_weight: spec.cpu_weight,
                ceilings: spec.ceilings,
                memory,
                log,
                is_removed: spec.is_removed,
                rate,
            };
            (spec.name, Arc::new(tenant))
        });
        let mut routes = Self { tenants: tenants.collect(), apology, ..Self::default() };
        for module in modules.into_iter().map(Arc::new) {
            routes.add(module);
        }
        routes
    }

    fn add(&mut self, module: Arc<RouteSpec>) {
        for tenant in &module.wants.tenants {
            let of_tenant = &mut self.by_tenant.entry(tenant.clone()).or_default().modules;
            // The settings may name a tenant twice.
            if of_tenant.last().is_none_or(|last| !Arc::ptr_eq(last, &module)) {
                of_tenant.push(module.clone());
            }
        }
        if module.wants.tenants.is_empty() {
            self.of_any_tenant.push(module.clone());
        }
        if let Some(owner) = &module.owner {
            let of_owner = self.by_tenant.entry(owner.clone()).or_default();
            of_owner.own_names.insert(module.platform_name.to_string());
        }
        self.modules.insert(module.module.clone(), module);
    }

    pub(super) fn tenants(&self) -> impl Iterator<Item = (&Name, &Arc<Tenant>)> {
        self.tenants.iter()
    }

    pub(super) fn tenant(&self, name: &Name) -> Option<&Arc<Tenant>> {
        self.tenants.get(name)
    }

    /// Returns the maximum size of the records of each tenant that has a limit of its own, in bytes.
    pub(super) fn journal_limits(&self) -> TenantLimits {
        let limits = self.tenants.iter().filter_map(|(name, tenant)| Some((name.clone(), tenant.total_journal?)));
        limits.collect()
    }

    pub(super) fn module(&self, name: &Name) -> Option<&Arc<RouteSpec>> {
        self.modules.get(name)
    }

    /// Returns whether a tenant's deliveries to a module wait because one of the two was removed from the settings and
    /// may come back. `unknown_wait` applies to names that are not in the routes at all: shortly after startup they
    /// wait too, because the settings may be half written.
    pub(super) fn is_blocked(&self, tenant: &Name, module: &Name, unknown_wait: bool) -> bool {
        let tenant = self.tenant(tenant).map_or(unknown_wait, |tenant| tenant.is_removed);
        tenant || self.module(module).map_or(unknown_wait, |module| module.is_removed)
    }

    /// Returns the text for users whose module is no longer in the settings.
    pub(super) fn apology(&self) -> &str {
        &self.apology
    }

    /// Counts an event against its tenant's rate limit, of which each of the live hosts has an equal share.
    ///
    /// # Errors
    ///
    /// When the rate is exceeded.
    pub(super) fn check_rate(&self, tenant: &Name, hosts: u32) -> Result<(), Refused> {
        let Some(rate) = self.tenants.get(tenant).and_then(|tenant| tenant.rate.as_ref()) else { return Ok(()) };
        rate.take_many(hosts).map_err(|retry_after| Refused::RateLimited { tenant: tenant.clone(), retry_after })
    }

    /// Returns the deliveries of an event; none if no module wants it.
    pub(super) fn deliveries(&self, event: &Event) -> Vec<NewDelivery> {
        let of_tenant = self.by_tenant.get(&event.tenant);
        let candidate = Candidate::new(event).with_own_modules(of_tenant.map(|of_tenant| &of_tenant.own_names));
        let of_tenant = of_tenant.into_iter().flat_map(|of_tenant| &of_tenant.modules);
        let routes = self.of_any_tenant.iter().chain(of_tenant);
        let routes = routes.filter(|route| route.wants.check(route.id(), &candidate).is_ok());
        routes
            .map(|route| NewDelivery {
                id: DeliveryId::new(event, &route.module),
                module: route.module.clone(),
                ordered_chat: event.chat_id().filter(|_| route.ordered_by_chat).map(str::to_owned),
                lease: None,
            })
            .collect()
    }
}
