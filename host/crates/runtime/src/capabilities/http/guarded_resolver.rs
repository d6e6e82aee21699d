//! How requests reach their hosts: over connections to addresses that were looked at, and to no others.
//!
//! A name is resolved when a connection is made, every address it leads to is looked at, and the connection goes to one
//! of just these. So a name that leads elsewhere the next time gains nothing by it.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::Client;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::sync::Semaphore;
use url::Host;

use super::failure::{Failure, HttpErrorCode};
use super::policy::HttpGrant;
use modhost_core::address::AddressScope;

/// How long a connection may take to come about, resolving and TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an unused connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// How large the headers of an answer may be over HTTP/2, in bytes.
const MAX_HEADERS: u32 = 64 * 1024;

/// How many unused connections to one host are kept.
const KEPT: usize = 4;

/// How many names are looked up at once for a module.
const LOOKED_UP: usize = 4;

/// The same for all modules together. A look-up takes a thread until it ends, whether or not anybody still waits, and those
/// threads are also what reads the disk: whoever lets the server of their own names be silent must not have all of them.
static LOOKING_UP: Semaphore = Semaphore::const_new(64);

/// The HTTP clients of a module, each made when it is first needed. No two modules share connections, since what one of them
/// leaves on a connection would be the other's to find.
pub(super) struct Clients {
    clients: [OnceLock<Client>; 4],
    looking_up: Arc<Semaphore>,
}

impl Default for Clients {
    fn default() -> Self {
        Self { clients: Default::default(), looking_up: Arc::new(Semaphore::new(LOOKED_UP)) }
    }
}

impl Clients {
    /// The client for the requests that a grant allows.
    pub fn of(&self, grant: &HttpGrant) -> Result<&Client, Failure> {
        // An entry for many hosts keeps no connections: a module that goes from one to the next would hold one to each.
        let (private, kept) = (grant.private, if grant.origin.host.is_one() { KEPT } else { 0 });
        let place = &self.clients[usize::from(private) * 2 + usize::from(kept > 0)];
        if let Some(client) = place.get() {
            return Ok(client);
        }
        let guard = Guard { private, turns: self.looking_up.clone(), look_up };
        let client = client(guard, kept)?;
        Ok(place.get_or_init(|| client))
    }
}

fn client(guard: Guard, kept: usize) -> Result<Client, Failure> {
    Client::builder()
        .user_agent(concat!("modhost/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(kept)
        .http2_max_header_list_size(MAX_HEADERS)
        .tls_backend_preconfigured(tls()?)
        .dns_resolver(Arc::new(guard))
        .build()
        .map_err(|error| Failure::new(HttpErrorCode::Internal, format!("the HTTP client can't be set up: {error}")))
}

/// How certificates are verified: read once, the system's certificates take a megabyte and some milliseconds.
fn tls() -> Result<ClientConfig, Failure> {
    static TLS: OnceLock<ClientConfig> = OnceLock::new();
    if let Some(tls) = TLS.get() {
        return Ok(tls.clone());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verified = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(BuilderVerifierExt::with_platform_verifier);
    let mut tls = verified
        .map_err(|error| {
            Failure::new(
                HttpErrorCode::Internal,
                format!("TLS can't be set up, are the system's CA certificates installed? {error}"),
            )
        })?
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TLS.get_or_init(|| tls).clone())
}

/// Whether a request may go to a host, as far as its name tells: an address in the URL is never resolved.
pub(super) fn look_at(host: Option<Host<&str>>, private: bool) -> Result<(), Closed> {
    let address: IpAddr = match host {
        Some(Host::Ipv4(address)) => address.into(),
        Some(Host::Ipv6(address)) => address.into(),
        Some(Host::Domain(_)) | None => return Ok(()),
    };
    match AddressScope::of(address) {
        AddressScope::Public => Ok(()),
        // Whoever writes such an address into the file means it.
        AddressScope::Private | AddressScope::LinkLocal if private => Ok(()),
        _ => Err(Closed(address)),
    }
}

/// Looks a name up; another one in tests.
type LookUp = fn(String) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

fn look_up(name: String) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>> {
    Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) })
}

/// Resolves names for a client, to addresses that are open to it.
struct Guard {
    private: bool,
    turns: Arc<Semaphore>,
    look_up: LookUp,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (name, private, look_up, turns) =
            (name.as_str().to_owned(), self.private, self.look_up, self.turns.clone());
        Box::pin(async move {
            let turns = (turns.acquire_owned().await, LOOKING_UP.acquire().await);
            // A task, so that the turns are given back when the look-up has ended, and not when nobody waits any more.
            let found = tokio::spawn({
                let name = name.clone();
                async move {
                    let found = look_up(name).await;
                    drop(turns);
                    found
                }
            });
            let found = found.await.unwrap_or_else(|error| Err(io::Error::other(error)));
            let found = found.map_err(|error| Unresolved { name: name.clone(), error: Some(error) })?;
            if found.is_empty() {
                return Err(Unresolved { name, error: None }.into());
            }
            if let Some(closed) = found.iter().map(SocketAddr::ip).find(|address| !is_open(*address, private)) {
                return Err(Closed(closed).into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Whether a name may lead to this address. No name leads to where clouds hand out credentials: whoever runs the name's
/// DNS could point it there.
fn is_open(address: IpAddr, private: bool) -> bool {
    match AddressScope::of(address) {
        AddressScope::Public => true,
        AddressScope::Private => private,
        AddressScope::LinkLocal | AddressScope::Reserved => false,
    }
}

/// A host is at an address that is closed to the module.
#[derive(Debug)]
pub(super) struct Closed(pub IpAddr);

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.0, AddressScope::of(self.0).words())
    }
}

impl std::error::Error for Closed {}

/// A name leads nowhere.
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt;

    use super::*;

    fn guard(private: bool, look_up: LookUp) -> Guard {
        Guard { private, turns: Arc::new(Semaphore::new(LOOKED_UP)), look_up }
    }

    async fn resolved(guard: &Guard, name: &str) -> Result<Vec<SocketAddr>, String> {
        guard.resolve(name.parse().unwrap()).await.map(Iterator::collect).map_err(|error| error.to_string())
    }

    fn answers(addresses: &[&str]) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>> {
        let found: Vec<SocketAddr> = addresses.iter().map(|it| SocketAddr::new(it.parse().unwrap(), 0)).collect();
        Box::pin(async { Ok(found) })
    }

    #[tokio::test]
    async fn one_closed_address_closes_the_name() {
        let one_of_two: LookUp = |_| answers(&["93.184.216.34", "10.0.0.5"]);
        let refused = resolved(&guard(false, one_of_two), "api.example.com").await.unwrap_err();
        assert_eq!(refused, "10.0.0.5, a private address");
        assert_eq!(resolved(&guard(true, one_of_two), "api.example.com").await.unwrap().len(), 2);
    }

    /// Who gives a look-up up has no other in its place: it goes on, and its thread is taken.
    #[tokio::test]
    async fn names_whose_servers_are_silent_take_few_threads() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let silent: LookUp = |_| {
            ASKED.fetch_add(1, Ordering::SeqCst);
            Box::pin(std::future::pending())
        };
        let guard = guard(false, silent);
        for _ in 0..20 {
            assert!(resolved(&guard, "silent.test").now_or_never().is_none());
            tokio::task::yield_now().await;
        }
        assert_eq!(ASKED.load(Ordering::SeqCst), LOOKED_UP);
    }

    #[tokio::test]
    async fn a_name_never_leads_to_metadata() {
        for address in ["169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254", "0.0.0.0"] {
            assert!(!is_open(address.parse().unwrap(), true), "{address}");
        }
        let metadata: LookUp = |_| answers(&["169.254.169.254"]);
        assert!(resolved(&guard(true, metadata), "metadata.internal").await.is_err());
        // Its address in the file is another matter: that can't be pointed anywhere.
        assert!(look_at(Some(Host::Ipv4([169, 254, 169, 254].into())), true).is_ok());
        assert!(look_at(Some(Host::Ipv4([169, 254, 169, 254].into())), false).is_err());
    }

    /// The first answer is a harmless one, the next is this machine: the name is closed then, and nothing connects.
    #[tokio::test]
    async fn a_name_that_leads_elsewhere_the_next_time_gains_nothing() {
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
            "what was looked at, and nothing else, is connected to"
        );
        let client = Client::builder().no_proxy().tls_backend_preconfigured(tls().unwrap());
        let client = client.dns_resolver(Arc::new(guard)).build().unwrap();
        let error = client.get(format!("http://rebind.test:{port}/")).send().await.unwrap_err();
        assert!(error.is_connect(), "{error:?}");
        assert_eq!(ASKED.load(Ordering::SeqCst), 2);
        assert!(server.accept().is_err(), "nobody connected");
    }
}
