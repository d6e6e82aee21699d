//! How much there is to do: deliveries that were accepted and have not ended, of the host and of each tenant.

use std::collections::HashMap;
use std::sync::Mutex;

use super::{COME_BACK_AFTER, Refused, lock};
use crate::event::Name;

/// The count.
#[derive(Default)]
pub(super) struct Depth(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    host: u64,
    tenants: HashMap<Name, u64>,
}

/// How many there may be.
#[derive(Clone, Copy)]
pub(super) struct Room {
    pub(super) host: u64,
    pub(super) tenant: u64,
}

impl Depth {
    /// Counts deliveries in.
    pub(super) fn add(&self, tenant: &Name, deliveries: u64) {
        let mut counts = lock(&self.0);
        counts.host += deliveries;
        *counts.tenants.entry(tenant.clone()).or_default() += deliveries;
    }

    /// Counts deliveries out.
    pub(super) fn remove(&self, tenant: &Name, deliveries: u64) {
        let mut counts = lock(&self.0);
        counts.host = counts.host.saturating_sub(deliveries);
        if let Some(count) = counts.tenants.get_mut(tenant) {
            *count = count.saturating_sub(deliveries);
            if *count == 0 {
                counts.tenants.remove(tenant);
            }
        }
    }

    /// Counts deliveries in if there is room; they are counted out again unless they are kept.
    pub(super) fn take(&self, tenant: &Name, deliveries: u64, room: Room) -> Result<Taken<'_>, Refused> {
        self.add(tenant, deliveries);
        let taken = Taken { depth: self, tenant: tenant.clone(), deliveries };
        let counts = lock(&self.0);
        let (host, mine) = (counts.host, counts.tenants.get(tenant).copied().unwrap_or_default());
        drop(counts);
        if host > room.host {
            let whose = "[server]".to_owned();
            return Err(Refused::Full { limit: room.host, whose, retry_after: COME_BACK_AFTER });
        }
        if mine > room.tenant {
            let whose = format!("tenant {tenant}");
            return Err(Refused::Full { limit: room.tenant, whose, retry_after: COME_BACK_AFTER });
        }
        Ok(taken)
    }
}

/// Deliveries that are counted in for now.
pub(super) struct Taken<'a> {
    depth: &'a Depth,
    tenant: Name,
    deliveries: u64,
}

impl Taken<'_> {
    /// Leaves them counted in.
    pub(super) fn keep(mut self) {
        self.deliveries = 0;
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.depth.remove(&self.tenant, self.deliveries);
    }
}
