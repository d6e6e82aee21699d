//! Who gets an event.

use std::collections::HashMap;
use std::sync::Arc;

use super::Refused;
use crate::capabilities::TenantMemory;
use modhost_core::backoff::RetryPolicy;
use modhost_core::event::interest::{Candidate, Interest};
use modhost_core::event::{DeliveryId, Event, Name};
use modhost_core::limits::{Amounts, Limits};
use modhost_core::rate::Rate;
use modhost_platform::Platform;
use modhost_storage::journal::NewDelivery;

/// A tenant, as dispatch needs it.
pub struct TenantSpec {
    /// Its name.
    pub name: Name,
    /// Where its calls are carried out.
    pub platform: Arc<dyn Platform>,
    /// How many of its deliveries run at once.
    pub concurrency: usize,
    /// How many of its deliveries may wait and run together.
    pub max_deliveries: u64,
    /// How many of its events are taken a second, on average; none: as many as come.
    pub events_per_second: Option<u32>,
    /// How much memory its running deliveries may have together, in bytes; none: what each may have.
    pub total_memory: Option<u64>,
    /// What none of its deliveries may use more of.
    pub ceilings: Amounts,
    /// Whether it is gone from the settings, and kept for a while: its deliveries wait.
    pub is_gone: bool,
}

/// A module, as dispatch needs it.
#[derive(Clone, Debug)]
pub struct RouteSpec {
    /// Its name; an event that names a module goes to no other.
    pub module: Name,
    /// The events it wants.
    pub wants: Interest,
    /// How many of its deliveries run at once.
    pub concurrency: usize,
    /// Whether the deliveries of one chat go one at a time, in the order their events came.
    pub ordered_by_chat: bool,
    /// Whether a delivery that starts again gets the answers it got before.
    pub resume: bool,
    /// How often it is tried again.
    pub retry: RetryPolicy,
    /// What a user reads when it fails.
    pub apology: Arc<str>,
    /// What a user reads while it is tried again.
    pub retry_notice: Arc<str>,
    /// What one delivery may use, the ceilings of its tenant left out.
    pub limits: Limits,
    /// Whether it is gone from the settings, and kept for a while: its deliveries wait.
    pub is_gone: bool,
}

/// The table of routes.
pub struct Routes {
    tenants: HashMap<Name, Arc<Tenant>>,
    modules: Vec<Arc<RouteSpec>>,
    /// What a user reads when the module that was to answer is no longer there.
    apology: Arc<str>,
}

pub(super) struct Tenant {
    pub(super) platform: Arc<dyn Platform>,
    pub(super) concurrency: usize,
    pub(super) max_deliveries: u64,
    pub(super) ceilings: Amounts,
    pub(super) memory: Option<Arc<TenantMemory>>,
    is_gone: bool,
    rate: Option<Arc<Rate>>,
}

impl Default for Routes {
    fn default() -> Self {
        Self { tenants: HashMap::new(), modules: Vec::new(), apology: "".into() }
    }
}

impl Routes {
    pub(super) fn new(tenants: Vec<TenantSpec>, modules: Vec<RouteSpec>, apology: Arc<str>, before: &Self) -> Self {
        let tenants = tenants.into_iter().map(|spec| {
            let known = before.tenants.get(&spec.name);
            let rate = spec.events_per_second.map(|per_second| match known.and_then(|tenant| tenant.rate.clone()) {
                Some(rate) if rate.per_second() == f64::from(per_second) => rate,
                _ => Arc::new(Rate::new(per_second)),
            });
            // Where the limit is as it was, what is taken of it is still taken.
            let memory = spec.total_memory.map(|limit| match known.and_then(|tenant| tenant.memory.clone()) {
                Some(memory) if memory.limit() == limit => memory,
                _ => Arc::new(TenantMemory::new(limit)),
            });
            let TenantSpec { name, platform, concurrency, max_deliveries, ceilings, is_gone, .. } = spec;
            (name, Arc::new(Tenant { platform, concurrency, max_deliveries, ceilings, memory, is_gone, rate }))
        });
        Self { tenants: tenants.collect(), modules: modules.into_iter().map(Arc::new).collect(), apology }
    }

    pub(super) fn tenant(&self, name: &Name) -> Option<&Arc<Tenant>> {
        self.tenants.get(name)
    }

    pub(super) fn module(&self, name: &Name) -> Option<&Arc<RouteSpec>> {
        self.modules.iter().find(|route| route.module == *name)
    }

    /// Whether a tenant's deliveries to a module wait because one of the two is gone from the settings, but may come back.
    /// `unknown_wait` says whether those wait, too, that nothing is known of: the host has just started, and its settings may be
    /// half written.
    pub(super) fn makes_wait(&self, tenant: &Name, module: &Name, unknown_wait: bool) -> bool {
        let tenant = self.tenant(tenant).map_or(unknown_wait, |tenant| tenant.is_gone);
        tenant || self.module(module).map_or(unknown_wait, |module| module.is_gone)
    }

    /// What a user reads when the module that was to answer is no longer there.
    pub(super) fn apology(&self) -> &str {
        &self.apology
    }

    /// Takes one of the turns a tenant's events have.
    pub(super) fn take_turn(&self, tenant: &Name) -> Result<(), Refused> {
        let Some(rate) = self.tenants.get(tenant).and_then(|tenant| tenant.rate.as_ref()) else { return Ok(()) };
        rate.take().map_err(|retry_after| Refused::TooFast { tenant: tenant.clone(), retry_after })
    }

    /// The deliveries an event makes; none if no module wants it.
    pub(super) fn deliveries(&self, event: &Event) -> Vec<NewDelivery> {
        let candidate = Candidate::new(event);
        let routes = self.modules.iter().filter(|route| route.wants.judge(&route.module, &candidate).is_ok());
        routes
            .map(|route| NewDelivery {
                id: DeliveryId::new(event, &route.module),
                module: route.module.clone(),
                one_at_a_time: event.chat_id().filter(|_| route.ordered_by_chat).map(str::to_owned),
            })
            .collect()
    }
}
