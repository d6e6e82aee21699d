//! Limits the backlog, the deliveries that have not ended, of the host and of each tenant.
//!
//! The journal counts the deliveries on disk. This module counts only those being recorded, so that no second count of
//! the backlog can drift from the journal's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::{DEFAULT_RETRY_AFTER, Refused, lock};
use modhost_core::event::Name;
use modhost_storage::journal::Backlog;

/// Capacity reserved for deliveries that are being recorded. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Reservations(Arc<Mutex<Reserved>>);

#[derive(Default)]
struct Reserved {
    host: u64,
    tenants: HashMap<Name, u64>,
}

/// The backlog limits of the host and of one tenant, in deliveries.
#[derive(Clone, Copy)]
pub(super) struct Capacity {
    pub(super) host: u64,
    pub(super) tenant: u64,
}

impl Reservations {
    /// Reserves capacity for deliveries until they are recorded. `backlog` reads the journal's count. It is called
    /// after the reservations are read, because a reservation is released only once its deliveries are in the backlog.
    ///
    /// # Errors
    ///
    /// When a limit would be exceeded.
    pub(super) fn reserve(
        &self,
        tenant: &Name,
        deliveries: u64,
        capacity: Capacity,
        backlog: impl FnOnce() -> Backlog,
    ) -> Result<Reservation, Refused> {
        let mut reserved = lock(&self.0);
        let (of_host, of_tenant) = (reserved.host, reserved.tenants.get(tenant).copied().unwrap_or_default());
        let backlog = backlog();
        if backlog.host + of_host + deliveries > capacity.host {
            let owner = "[server]".to_owned();
            return Err(Refused::Full { limit: capacity.host, owner, retry_after: DEFAULT_RETRY_AFTER });
        }
        if backlog.tenant + of_tenant + deliveries > capacity.tenant {
            let owner = format!("tenant {tenant}");
            return Err(Refused::Full { limit: capacity.tenant, owner, retry_after: DEFAULT_RETRY_AFTER });
        }
        reserved.host += deliveries;
        *reserved.tenants.entry(tenant.clone()).or_default() += deliveries;
        Ok(Reservation { all: self.clone(), tenant: tenant.clone(), deliveries })
    }

    /// Returns whether no capacity is reserved.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let reserved = lock(&self.0);
        reserved.host == 0 && reserved.tenants.is_empty()
    }
}

/// Reserved capacity, released on drop.
pub(super) struct Reservation {
    all: Reservations,
    tenant: Name,
    deliveries: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut reserved = lock(&self.all.0);
        reserved.host = reserved.host.saturating_sub(self.deliveries);
        if let Some(count) = reserved.tenants.get_mut(&self.tenant) {
            *count = count.saturating_sub(self.deliveries);
            if *count == 0 {
                reserved.tenants.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_reserved_capacity_until_it_is_released() {
        let (reservations, acme) = (Reservations::default(), Name::from("acme"));
        let capacity = Capacity { host: 5, tenant: 3 };
        let backlog = || Backlog { host: 3, tenant: 1 };
        let first = reservations.reserve(&acme, 2, capacity, backlog).ok().unwrap();
        let refused = |backlog| reservations.reserve(&acme, 1, capacity, move || backlog).err();
        let owner = |refused| match refused {
            Some(Refused::Full { owner, .. }) => owner,
            other => panic!("{other:?}"),
        };
        assert_eq!(owner(refused(Backlog { host: 3, tenant: 0 })), "[server]");
        assert_eq!(owner(refused(Backlog { host: 1, tenant: 1 })), "tenant acme");
        drop(first);
        assert!(refused(Backlog { host: 4, tenant: 2 }).is_none());
    }
}
