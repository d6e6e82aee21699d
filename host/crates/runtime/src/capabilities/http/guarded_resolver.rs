//! HTTP clients that connect only to addresses that were checked.
//!
//! A name is resolved for every new connection, all its addresses are checked, and the connection goes to one of them.
//! So DNS rebinding, a name that resolves to another address the next time, gains nothing.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock};

use reqwest::Client;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Host;

use super::failure::{Failure, HttpErrorCode};
use super::policy::HttpGrant;
use modhost_core::address::AddressScope;
use modhost_core::event::Name as TenantName;
use modhost_core::sync::lock;
use modhost_platform::{TenantLookups, client_builder};

/// Maximum size of the headers of an answer over HTTP/2, in bytes.
const MAX_HEADERS: u32 = 64 * 1024;

/// Maximum number of idle connections per host.
const MAX_IDLE_PER_HOST: usize = 4;

/// The HTTP clients of a module version, by tenant, each created on first use. Neither modules nor tenants share
/// connections: none can see state that another left on a connection, or use up its streams.
#[derive(Default)]
pub(super) struct Clients(Mutex<HashMap<TenantName, Arc<TenantClients>>>);

/// The clients of one tenant.
pub(super) struct TenantClients {
    clients: [OnceLock<Client>; 4],
    lookups: TenantLookups,
}

impl Clients {
    /// Returns the clients for the deliveries of a tenant.
    pub fn of(&self, tenant: &TenantName) -> Arc<TenantClients> {
        let mut clients = lock(&self.0);
        if let Some(clients) = clients.get(tenant) {
            return clients.clone();
        }
        let created = Arc::new(TenantClients { clients: Default::default(), lookups: TenantLookups::of(tenant) });
        clients.insert(tenant.clone(), created.clone());
        created
    }
}

impl TenantClients {
    /// Returns the client for the requests that a grant allows.
    ///
    /// # Errors
    ///
    /// When the client can't be created.
    pub fn for_grant(&self, grant: &HttpGrant) -> Result<&Client, Failure> {
        // An entry with a wildcard keeps no idle connections: a module could open one to each of many hosts.
        let (private, idle_per_host) =
            (grant.private, if grant.origin.host.is_exact() { MAX_IDLE_PER_HOST } else { 0 });
        let cell = &self.clients[usize::from(private) * 2 + usize::from(idle_per_host > 0)];
        if let Some(client) = cell.get() {
            return Ok(client);
        }
        let guard = Guard { private, lookups: self.lookups.clone() };
        let client = client(guard, idle_per_host)?;
        Ok(cell.get_or_init(|| client))
    }
}

fn client(guard: Guard, idle_per_host: usize) -> Result<Client, Failure> {
    let builder = client_builder().map_err(|error| Failure::new(HttpErrorCode::Internal, error.to_string()))?;
    builder
        .pool_max_idle_per_host(idle_per_host)
        .http2_max_header_list_size(MAX_HEADERS)
        .dns_resolver(Arc::new(guard))
        .build()
        .map_err(|error| Failure::new(HttpErrorCode::Internal, format!("the HTTP client can't be created: {error}")))
}

/// Checks the host of a URL if it is an address; an address is never resolved. A name is checked when it is resolved.
///
/// # Errors
///
/// When the address is prohibited for the module.
pub(super) fn check_address(host: Option<Host<&str>>, private: bool) -> Result<(), ProhibitedAddress> {
    let address: IpAddr = match host {
        Some(Host::Ipv4(address)) => address.into(),
        Some(Host::Ipv6(address)) => address.into(),
        Some(Host::Domain(_)) | None => return Ok(()),
    };
    match AddressScope::of(address) {
        AddressScope::Public => Ok(()),
        // An operator who configures such an address intends it.
        AddressScope::Private | AddressScope::LinkLocal if private => Ok(()),
        _ => Err(ProhibitedAddress(address)),
    }
}

/// Resolves names for a client, and refuses addresses that are prohibited for it.
struct Guard {
    private: bool,
    lookups: TenantLookups,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (name, private, lookups) = (name.as_str().to_owned(), self.private, self.lookups.clone());
        Box::pin(async move {
            let addresses = lookups.look_up(name.clone()).await;
            let addresses = addresses.map_err(|error| Unresolved { name: name.clone(), error: Some(error) })?;
            if addresses.is_empty() {
                return Err(Unresolved { name, error: None }.into());
            }
            if let Some(address) = addresses.iter().map(SocketAddr::ip).find(|address| !is_open(*address, private)) {
                return Err(ProhibitedAddress(address).into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// Returns whether a name may resolve to this address. Link-local addresses, where clouds serve credentials, are never
/// allowed: the owner of the name's DNS zone could point it there.
fn is_open(address: IpAddr, private: bool) -> bool {
    match AddressScope::of(address) {
        AddressScope::Public => true,
        AddressScope::Private => private,
        AddressScope::LinkLocal | AddressScope::Reserved => false,
    }
}

/// The address of a host that is prohibited for the module.
#[derive(Debug)]
pub(super) struct ProhibitedAddress(pub IpAddr);

impl fmt::Display for ProhibitedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.0, AddressScope::of(self.0).description())
    }
}

impl std::error::Error for ProhibitedAddress {}

/// A name that can't be resolved.
#[derive(Debug)]
pub(super) struct Unresolved {
    name: String,
    error: Option<io::Error>,
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            Some(error) => write!(f, "the name {} can't be resolved ({error})", self.name),
            None => write!(f, "the name {} has no address", self.name),
        }
    }
}

impl std::error::Error for Unresolved {}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use modhost_platform::LookUp;

    use super::*;

    fn guard(private: bool, look_up: LookUp) -> Guard {
        Guard { private, lookups: TenantLookups::by(look_up) }
    }

    async fn resolved(guard: &Guard, name: &str) -> Result<Vec<SocketAddr>, String> {
        guard.resolve(name.parse().unwrap()).await.map(Iterator::collect).map_err(|error| error.to_string())
    }

    fn answers(addresses: &[&str]) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>> {
        let addresses: Vec<SocketAddr> = addresses.iter().map(|it| SocketAddr::new(it.parse().unwrap(), 0)).collect();
        Box::pin(async { Ok(addresses) })
    }

    #[tokio::test]
    async fn refuses_name_with_one_closed_address() {
        let one_of_two: LookUp = |_| answers(&["93.184.216.34", "10.0.0.5"]);
        let refused = resolved(&guard(false, one_of_two), "api.example.com").await.unwrap_err();
        assert_eq!(refused, "10.0.0.5, a private address");
        assert_eq!(resolved(&guard(true, one_of_two), "api.example.com").await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn no_name_resolves_to_metadata_service() {
        for address in ["169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254", "0.0.0.0"] {
            assert!(!is_open(address.parse().unwrap(), true), "{address}");
        }
        let metadata: LookUp = |_| answers(&["169.254.169.254"]);
        assert!(resolved(&guard(true, metadata), "metadata.internal").await.is_err());
        // The configured address itself is allowed: DNS can't change it.
        assert!(check_address(Some(Host::Ipv4([169, 254, 169, 254].into())), true).is_ok());
        assert!(check_address(Some(Host::Ipv4([169, 254, 169, 254].into())), false).is_err());
    }

    /// The first lookup returns a public address, the second this machine: the name is refused, and nothing connects.
    #[tokio::test]
    async fn refuses_dns_rebinding() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let flips: LookUp = |_| match ASKED.fetch_add(1, Ordering::SeqCst) {
            0 => answers(&["93.184.216.34"]),
            _ => answers(&["127.0.0.1"]),
        };
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        server.set_nonblocking(true).unwrap();
        let port = server.local_addr().unwrap().port();
        let guard = guard(false, flips);
        let first = resolved(&guard, "rebind.test").await.unwrap();
        assert_eq!(
            first,
            ["93.184.216.34:0".parse().unwrap()],
            "the checked addresses are those that are connected to"
        );
        let client = client_builder().unwrap();
        let client = client.dns_resolver(Arc::new(guard)).build().unwrap();
        let error = client.get(format!("http://rebind.test:{port}/")).send().await.unwrap_err();
        assert!(error.is_connect(), "{error:?}");
        assert_eq!(ASKED.load(Ordering::SeqCst), 2);
        assert!(server.accept().is_err(), "nobody connected");
    }
}
