//! The hosts that share one storage: which of them live, what they run, and which of them has a duty.
//!
//! A host takes part under an owner name of its own for each of its lives: a process that was started again is another
//! owner, so what the earlier one still does under its leases can be told apart and refused. The lease of an owner counts
//! by the engine's clock only.

mod members;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::error::StorageError;
pub(crate) use members::Members;
use modhost_core::clock::Clock;
use modhost_core::event::Name;
use modhost_core::sync::lock;

/// The result of an operation on the cluster.
pub type Result<T> = std::result::Result<T, StorageError>;

/// What a host says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInfo {
    /// One life of the host: the owner of its leases.
    pub owner: Arc<str>,
    /// The name of the host, the same in each of its lives. One process at a time uses it, because it is kept in the
    /// host's data directory, which is locked.
    pub name: String,
    /// The address of its admin listener.
    pub admin: Option<String>,
    /// The version of modhost.
    pub version: String,
    /// A hash of its settings, to tell whether two hosts have the same.
    pub settings: String,
    /// The modules in its settings.
    pub modules: BTreeSet<Name>,
}

/// A host of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostStatus {
    /// What the host said of itself last.
    pub info: HostInfo,
    /// When it joined.
    pub joined_at: SystemTime,
    /// When its last heartbeat was recorded.
    pub seen_at: SystemTime,
    /// Whether it lives: it has not left, and its lease has not expired.
    pub is_alive: bool,
}

/// The membership of hosts, behind the same database as the journal.
#[async_trait]
pub trait Cluster: Send + Sync + 'static {
    /// Adds a host, or updates what it says of itself, and extends its lease to `lease` from now. Earlier lives of a host
    /// with this name have certainly stopped: they are marked as gone, and their owners are returned, so that their
    /// deliveries can be reclaimed at once. A life that was marked as gone doesn't come back by joining again.
    async fn join(&self, host: &HostInfo, lease: Duration) -> Result<Vec<Arc<str>>>;

    /// Extends the lease of an owner to `lease` from now. Returns whether the owner still lived: one that was marked as
    /// gone doesn't come back.
    async fn beat(&self, owner: &str, lease: Duration) -> Result<bool>;

    /// Removes a host that stops, and gives up its duties. Its deliveries have ended or were returned.
    async fn leave(&self, owner: &str) -> Result<()>;

    /// Returns the hosts that live or were seen lately, ordered by name.
    async fn hosts(&self) -> Result<Vec<HostStatus>>;

    /// Takes or keeps a duty, something that one host at a time does. Returns whether the owner has it for `lease` from
    /// now. A duty of an owner that left or whose lease expired is free. With a `lease` of zero, an owner gives its duty
    /// up.
    async fn hold_duty(&self, duty: &str, owner: &str, lease: Duration) -> Result<bool>;

    /// Returns how often a host has to look for deliveries that other hosts recorded or returned; `None` if there are no
    /// other hosts.
    fn poll_every(&self) -> Option<Duration>;
}

/// The only host of a storage that no other can use. Everything lives in memory.
pub struct SingleHost {
    clock: Arc<dyn Clock>,
    hosts: Mutex<HashMap<Arc<str>, HostStatus>>,
}

impl SingleHost {
    /// Creates an empty membership.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, hosts: Mutex::default() }
    }
}

#[async_trait]
impl Cluster for SingleHost {
    async fn join(&self, host: &HostInfo, _lease: Duration) -> Result<Vec<Arc<str>>> {
        let now = self.clock.now();
        let mut hosts = lock(&self.hosts);
        let joined_at = hosts.get(&host.owner).map_or(now, |known| known.joined_at);
        let status = HostStatus { info: host.clone(), joined_at, seen_at: now, is_alive: true };
        hosts.insert(host.owner.clone(), status);
        Ok(Vec::new())
    }

    async fn beat(&self, owner: &str, _lease: Duration) -> Result<bool> {
        let now = self.clock.now();
        if let Some(host) = lock(&self.hosts).get_mut(owner) {
            host.seen_at = now;
        }
        Ok(true)
    }

    async fn leave(&self, owner: &str) -> Result<()> {
        lock(&self.hosts).remove(owner);
        Ok(())
    }

    async fn hosts(&self) -> Result<Vec<HostStatus>> {
        Ok(lock(&self.hosts).values().cloned().collect())
    }

    async fn hold_duty(&self, _duty: &str, _owner: &str, _lease: Duration) -> Result<bool> {
        Ok(true)
    }

    fn poll_every(&self) -> Option<Duration> {
        None
    }
}
