//! Limits the backlog, the deliveries that have not ended, of the host and of each tenant: their number and their size in
//! the journal.
//!
//! The journal counts the deliveries on disk. This module counts only those being recorded, so that no second count of
//! the backlog can drift from the journal's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::{DEFAULT_RETRY_AFTER, Refused, lock};
use crate::call_log::JournalQuota;
use modhost_core::event::Name;
use modhost_storage::journal::Backlog;

/// Capacity reserved for deliveries that are being recorded. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Reservations(Arc<Mutex<Reserved>>);

#[derive(Default)]
struct Reserved {
    host: Load,
    tenants: HashMap<Name, Load>,
}

/// Deliveries and their size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// The number of deliveries.
    pub(super) deliveries: u64,
    /// Their size in the journal, with their event, in bytes.
    pub(super) bytes: u64,
}

impl Load {
    fn add(&mut self, other: Self) {
        self.deliveries += other.deliveries;
        self.bytes += other.bytes;
    }

    fn remove(&mut self, other: Self) {
        self.deliveries = self.deliveries.saturating_sub(other.deliveries);
        self.bytes = self.bytes.saturating_sub(other.bytes);
    }
}

/// The backlog limits of the host and of one tenant.
#[derive(Clone, Copy)]
pub(super) struct Capacity {
    /// Maximum number of deliveries of the host.
    pub(super) host: u64,
    /// Maximum number of deliveries of the tenant.
    pub(super) tenant: u64,
    /// The limits of their size.
    pub(super) quota: JournalQuota,
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
        load: Load,
        capacity: Capacity,
        backlog: impl FnOnce() -> Backlog,
    ) -> Result<Reservation, Refused> {
        let mut reserved = lock(&self.0);
        let (of_host, of_tenant) = (reserved.host, reserved.tenants.get(tenant).copied().unwrap_or_default());
        let backlog = backlog();
        let backlog = Backlog {
            host: backlog.host + of_host.deliveries,
            tenant: backlog.tenant + of_tenant.deliveries,
            host_bytes: backlog.host_bytes.saturating_add(of_host.bytes),
            tenant_bytes: backlog.tenant_bytes.saturating_add(of_tenant.bytes),
        };
        if backlog.host + load.deliveries > capacity.host {
            let owner = "[server]".to_owned();
            return Err(Refused::Full { limit: capacity.host, owner, retry_after: DEFAULT_RETRY_AFTER });
        }
        if backlog.tenant + load.deliveries > capacity.tenant {
            let owner = format!("tenant {tenant}");
            return Err(Refused::Full { limit: capacity.tenant, owner, retry_after: DEFAULT_RETRY_AFTER });
        }
        capacity.quota.check(backlog, load.bytes).map_err(|limit| Refused::JournalFull {
            tenant: tenant.clone(),
            limit,
            retry_after: DEFAULT_RETRY_AFTER,
        })?;
        reserved.host.add(load);
        reserved.tenants.entry(tenant.clone()).or_default().add(load);
        Ok(Reservation { all: self.clone(), tenant: tenant.clone(), load })
    }

    /// Returns whether no capacity is reserved.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let reserved = lock(&self.0);
        reserved.host == Load::default() && reserved.tenants.is_empty()
    }
}

/// Reserved capacity, released on drop.
pub(super) struct Reservation {
    all: Reservations,
    tenant: Name,
    load: Load,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut reserved = lock(&self.all.0);
        reserved.host.remove(self.load);
        if let Some(of_tenant) = reserved.tenants.get_mut(&self.tenant) {
            of_tenant.remove(self.load);
            if *of_tenant == Load::default() {
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
        let quota = JournalQuota { host: None, tenant: Some(1_000) };
        let capacity = Capacity { host: 5, tenant: 3, quota };
        let load = |deliveries| Load { deliveries, bytes: 100 * deliveries };
        let backlog = |host, tenant| Backlog { host, tenant, ..Backlog::default() };
        let first = reservations.reserve(&acme, load(2), capacity, || backlog(3, 1)).ok().unwrap();
        let refused = |backlog| reservations.reserve(&acme, load(1), capacity, move || backlog).err();
        let owner = |refused| match refused {
            Some(Refused::Full { owner, .. }) => owner,
            other => panic!("{other:?}"),
        };
        assert_eq!(owner(refused(backlog(3, 0))), "[server]");
        assert_eq!(owner(refused(backlog(1, 1))), "tenant acme");
        let large = Backlog { tenant_bytes: 701, ..backlog(0, 0) };
        assert!(matches!(refused(large), Some(Refused::JournalFull { .. })), "with the 200 reserved bytes");
        drop(first);
        assert!(refused(large).is_none());
        assert!(refused(backlog(4, 2)).is_none());
        assert!(reservations.is_empty());
    }
}
