//! Permits by which a tenant cannot occupy all of a shared resource.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::event::Name;
use crate::sync::lock;

/// The same number of permits for each tenant.
pub struct TenantPermits {
    per_tenant: usize,
    /// Of the tenants that have or wait for a permit.
    tenants: Mutex<Option<HashMap<Name, Weak<Semaphore>>>>,
}

impl TenantPermits {
    /// Creates this many permits for each tenant.
    pub const fn new(per_tenant: usize) -> Self {
        Self { per_tenant, tenants: Mutex::new(None) }
    }

    /// Returns the permits of a tenant.
    pub fn of(&self, tenant: &Name) -> Arc<Semaphore> {
        let mut tenants = lock(&self.tenants);
        let tenants = tenants.get_or_insert_default();
        if let Some(permits) = tenants.get(tenant).and_then(Weak::upgrade) {
            return permits;
        }
        tenants.retain(|_, permits| permits.strong_count() > 0);
        let created = Arc::new(Semaphore::new(self.per_tenant));
        tenants.insert(tenant.clone(), Arc::downgrade(&created));
        created
    }

    /// Waits for a permit of a tenant. Always returns one, because the semaphores are never closed.
    pub async fn acquire(&self, tenant: &Name) -> Option<OwnedSemaphorePermit> {
        self.of(tenant).acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_waits_only_for_itself() {
        let permits = TenantPermits::new(2);
        let of = |tenant: &str| permits.of(&tenant.into()).try_acquire_owned();
        let (_first, second) = (of("acme").unwrap(), of("acme").unwrap());
        assert!(of("acme").is_err());
        assert!(of("globex").is_ok());
        drop(second);
        assert!(of("acme").is_ok());
        let _other = of("initech").unwrap();
        assert_eq!(lock(&permits.tenants).as_ref().unwrap().len(), 2, "tenants without permits are forgotten");
    }
}
