//! DNS lookups, limited for each tenant and for all tenants together.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name as HostName, Resolve, Resolving};
use tokio::sync::Semaphore;

use modhost_core::event::Name;
use modhost_core::tenant_permits::TenantPermits;

/// Maximum number of concurrent lookups of a tenant.
const MAX_LOOKUPS_PER_TENANT: usize = 8;

/// Limits the concurrent lookups of all tenants. A lookup occupies a blocking thread until it ends, even if nothing waits
/// for it any more, and file operations use the same threads: tenants whose DNS servers don't respond must not occupy all
/// of them.
static LOOKUP_PERMITS: Semaphore = Semaphore::const_new(64);

/// The permits of each tenant, for its modules' requests and for calls to its platform.
static TENANT_LOOKUP_PERMITS: TenantPermits = TenantPermits::new(MAX_LOOKUPS_PER_TENANT);

/// Looks up the addresses of a name.
pub type LookUp = fn(String) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// The DNS lookups of one tenant. Cheap to clone.
#[derive(Clone)]
pub struct TenantLookups {
    permits: Arc<Semaphore>,
    look_up: LookUp,
}

impl fmt::Debug for TenantLookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantLookups").finish_non_exhaustive()
    }
}

impl TenantLookups {
    /// Returns the lookups of a tenant, by the system's resolver.
    pub fn of(tenant: &Name) -> Self {
        Self {
            permits: TENANT_LOOKUP_PERMITS.of(tenant),
            look_up: |name| Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) }),
        }
    }

    /// Returns the lookups of a tenant that has no others, by another resolver.
    pub fn by(look_up: LookUp) -> Self {
        Self { permits: Arc::new(Semaphore::new(MAX_LOOKUPS_PER_TENANT)), look_up }
    }

    /// Looks up the addresses of a name, once there are few enough other lookups.
    ///
    /// # Errors
    ///
    /// If the name can't be resolved.
    pub async fn look_up(&self, name: String) -> io::Result<Vec<SocketAddr>> {
        let permits = (self.permits.clone().acquire_owned().await, LOOKUP_PERMITS.acquire().await);
        // A task of its own, so that the permits are released when the lookup ends, and not when the caller stops waiting.
        let looking_up = (self.look_up)(name);
        let addresses = tokio::spawn(async move {
            let addresses = looking_up.await;
            drop(permits);
            addresses
        });
        addresses.await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

impl Resolve for TenantLookups {
    fn resolve(&self, name: HostName) -> Resolving {
        let (lookups, name) = (self.clone(), name.as_str().to_owned());
        Box::pin(async move { Ok(Box::new(lookups.look_up(name).await?.into_iter()) as Addrs) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt;

    use super::*;

    /// An abandoned lookup keeps its permit and its thread, so no further lookup starts.
    #[tokio::test]
    async fn lookups_without_response_occupy_few_threads() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let lookups = TenantLookups::by(|_| {
            ASKED.fetch_add(1, Ordering::SeqCst);
            Box::pin(std::future::pending())
        });
        for _ in 0..20 {
            assert!(lookups.look_up("silent.test".to_owned()).now_or_never().is_none());
            tokio::task::yield_now().await;
        }
        assert_eq!(ASKED.load(Ordering::SeqCst), MAX_LOOKUPS_PER_TENANT);
    }

    #[tokio::test]
    async fn platform_clients_resolve_names_by_the_lookups_of_their_tenant() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let lookups = TenantLookups::by(|_| Box::pin(async { Ok(vec![SocketAddr::from(([127, 0, 0, 1], 0))]) }));
        let clients = super::super::HttpClients::with(Arc::default(), lookups).unwrap();
        let request = tokio::spawn(clients.calls.get(format!("http://platform.test:{port}/")).send());
        server.accept().await.unwrap();
        request.abort();
    }
}
