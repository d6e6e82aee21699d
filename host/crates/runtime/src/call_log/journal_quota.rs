//! Limits what unfinished deliveries take in the journal.
//!
//! Ended deliveries are removed when there is no space for new ones, but unfinished ones never are. So their size is
//! limited before they are recorded, and again before each of their calls is.

use modhost_core::fair_share;
use modhost_core::limits::LimitReached;
use modhost_storage::journal::Backlog;

/// The maximum size of the unfinished deliveries of the host and of one tenant, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalQuota {
    /// Of all tenants together; none: unlimited.
    pub host: Option<u64>,
    /// Of the tenant; none: only its share of `host` limits it.
    pub tenant: Option<u64>,
}

impl JournalQuota {
    /// Checks whether the unfinished deliveries of the tenant may grow by this many bytes.
    ///
    /// # Errors
    ///
    /// When they would exceed the tenant's limit, or its share of what is left of the limit of all tenants.
    pub fn check(&self, backlog: Backlog, bytes: u64) -> Result<(), LimitReached> {
        let own = backlog.tenant_bytes.saturating_add(bytes);
        if let Some(limit) = self.tenant.filter(|limit| own > *limit) {
            return Err(LimitReached::TenantJournal(limit));
        }
        let total = backlog.host_bytes.saturating_add(bytes);
        match self.host.filter(|limit| !fair_share::allows(*limit, total, own)) {
            Some(limit) => Err(LimitReached::HostJournal(limit)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_tenant_and_host() {
        let backlog = Backlog { host_bytes: 60, tenant_bytes: 40, ..Backlog::default() };
        let quota = JournalQuota { host: Some(100), tenant: Some(50) };
        assert_eq!(quota.check(backlog, 10), Ok(()));
        assert_eq!(quota.check(backlog, 11), Err(LimitReached::TenantJournal(50)));
        let quota = JournalQuota { host: Some(100), tenant: None };
        assert_eq!(quota.check(backlog, 20), Ok(()), "three times the 20 that are left");
        assert_eq!(quota.check(backlog, 21), Err(LimitReached::HostJournal(100)));
        let quota = JournalQuota { host: None, tenant: None };
        assert_eq!(quota.check(backlog, u64::MAX), Ok(()));
    }
}
