//! Starts deliveries as their event is recorded: where a run slot is free and nothing waits for it, the journal leases the
//! delivery in the transaction that records it, and the attempt begins without a claim.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::leases::LEASE;
use super::routes::Routes;
use super::scheduler::{self, RunSlot};
use super::{Inner, lock};
use modhost_core::event::{DeliveryId, Event};
use modhost_storage::journal::{Claimed, Lease, NewDelivery, NewLease};

/// The run slots that are reserved for deliveries of an event. Those that are not used are released on drop.
#[derive(Default)]
pub(super) struct ReservedSlots(HashMap<DeliveryId, RunSlot>);

impl ReservedSlots {
    /// Reserves slots for those of an event's deliveries that can start at once, and asks for their leases.
    pub(super) fn reserve(inner: &Arc<Inner>, routes: &Routes, event: &Event, deliveries: &mut [NewDelivery]) -> Self {
        let mut slots = HashMap::new();
        let owner = inner.membership.owner();
        if !inner.membership.can_claim() {
            return Self::default();
        }
        for new in deliveries {
            if let Some(slot) = reserve(inner, routes, event, new) {
                new.lease = Some(NewLease { owner: owner.clone(), duration: LEASE });
                slots.insert(new.id.clone(), slot);
            }
        }
        Self(slots)
    }

    /// Starts the deliveries that were leased as their event was recorded. Returns whether that were all of `count`
    /// deliveries.
    pub(super) fn start(
        mut self,
        inner: &Arc<Inner>,
        event: &Arc<Event>,
        leases: Vec<Lease>,
        received_at: SystemTime,
        count: usize,
    ) -> bool {
        let all = leases.len() == count;
        for lease in leases {
            let Some(slot) = self.0.remove(&lease.delivery) else { continue };
            slot.hold(lease.clone());
            let claimed = Claimed {
                lease,
                module: slot.module().clone(),
                event: event.clone(),
                earlier_attempts: 0,
                received_at,
                calls: 0,
                interrupted: 0,
            };
            scheduler::start(inner, claimed, slot);
        }
        all
    }
}

/// Reserves a slot for a delivery, unless it has to wait or another one waits for what it would use.
fn reserve(inner: &Arc<Inner>, routes: &Routes, event: &Event, new: &NewDelivery) -> Option<RunSlot> {
    let (tenant, module) = (&event.tenant, &new.module);
    let of_tenant = routes.tenant(tenant)?.concurrency;
    let of_module = routes.module(module)?.concurrency;
    if inner.modules.is_blocked(module) || inner.waits_for_settings(routes, tenant, module) {
        return None;
    }
    // A delivery of the tenant that waits comes first, and so does one of another tenant that waits for the same limit.
    if lock(&inner.contention).concerns(module)
        || lock(&inner.woken).iter().any(|(woken, _)| woken == tenant)
        || lock(&inner.ready).contains_key(tenant)
    {
        return None;
    }
    let mut running = lock(&inner.running);
    let is_free = running.total() < inner.settings.concurrency
        && running.of_tenant(tenant) < of_tenant
        && running.of_module(module) < of_module;
    is_free.then(|| RunSlot::reserve(inner, &mut running, tenant, module, &new.id))
}
