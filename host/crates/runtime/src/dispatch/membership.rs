//! The part of this host in the cluster: its current life, the lease of that life, and what the other hosts run.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use rand::RngExt;
use tokio::sync::Notify;

use super::leases::LEASE;
use super::lock;
use crate::call_log::HostLease;
use modhost_core::clock::Clock;
use modhost_core::event::Name;
use modhost_storage::cluster::{self, Cluster, HostInfo, HostStatus};

/// This host as a member of the cluster.
pub(super) struct Membership {
    cluster: Arc<dyn Cluster>,
    clock: Arc<dyn Clock>,
    /// How often to look for the deliveries of other hosts; none: no other host can use the storage.
    poll_every: Option<Duration>,
    /// What this host says of itself. Its owner is that of the current life.
    info: Mutex<HostInfo>,
    /// The current life, or the last one.
    lease: ArcSwap<HostLease>,
    /// Earlier lives whose deliveries are not back in the queue yet.
    gone: Mutex<Vec<Arc<str>>>,
    /// The hosts, as of the last heartbeat; none: not known yet.
    others: ArcSwap<Option<Others>>,
    /// Whether what this host says of itself has changed since it was published.
    is_changed: AtomicBool,
    changed: Notify,
}

/// The hosts that are alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveHosts {
    /// Their number, this host included.
    pub alive: u32,
    /// The number of those whose settings differ from those of this host.
    pub with_other_settings: u32,
}

/// What the live hosts run.
struct Others {
    hosts: LiveHosts,
    modules: BTreeSet<Name>,
}

impl Membership {
    /// Joins the cluster for a first life.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    pub(super) async fn join(
        cluster: Arc<dyn Cluster>,
        clock: Arc<dyn Clock>,
        info: HostInfo,
    ) -> cluster::Result<Self> {
        let poll_every = cluster.poll_every();
        let membership = Self {
            lease: ArcSwap::from_pointee(HostLease::unlimited(info.owner.clone(), clock.clone())),
            info: Mutex::new(info),
            cluster,
            clock,
            poll_every,
            gone: Mutex::default(),
            others: ArcSwap::from_pointee(None),
            is_changed: AtomicBool::new(false),
            changed: Notify::new(),
        };
        membership.begin_life().await?;
        Ok(membership)
    }

    /// Begins a life. On a storage that hosts share, every life has an owner of its own; otherwise the owner stays the
    /// same, so that a restarted host gets the deliveries of its earlier run at once.
    pub(super) async fn begin_life(&self) -> cluster::Result<()> {
        let mut info = lock(&self.info).clone();
        if self.is_shared() {
            info.owner = format!("{}.{:016x}", info.name, rand::rng().random::<u64>()).into();
        }
        let before = self.lease();
        let sent = self.clock.since_boot();
        let earlier = self.cluster.join(&info, LEASE).await?;
        let owner = info.owner.clone();
        let mut gone = lock(&self.gone);
        gone.extend(earlier);
        // Without other hosts, an earlier process had the same owner.
        gone.push(before.owner().clone());
        gone.sort_unstable();
        gone.dedup();
        drop(gone);
        lock(&self.info).owner = owner.clone();
        let lease = match self.is_shared() {
            true => HostLease::new(owner, self.clock.clone(), sent),
            false => HostLease::unlimited(owner, self.clock.clone()),
        };
        self.lease.store(Arc::new(lease));
        Ok(())
    }

    /// Returns an earlier life whose deliveries have to return to the queue.
    pub(super) fn next_gone(&self) -> Option<Arc<str>> {
        lock(&self.gone).first().cloned()
    }

    /// Notes that the deliveries of an earlier life are back in the queue.
    pub(super) fn reclaimed(&self, owner: &str) {
        lock(&self.gone).retain(|gone| **gone != *owner);
    }

    /// Returns whether other hosts may use the storage.
    pub(super) fn is_shared(&self) -> bool {
        self.poll_every.is_some()
    }

    /// Returns how often to look for the deliveries of other hosts.
    pub(super) fn poll_every(&self) -> Option<Duration> {
        self.poll_every
    }

    /// Returns the lease of the current life.
    pub(super) fn lease(&self) -> Arc<HostLease> {
        self.lease.load_full()
    }

    /// Returns the owner of new leases.
    pub(super) fn owner(&self) -> Arc<str> {
        self.lease.load().owner().clone()
    }

    /// Returns whether deliveries may be claimed: the host has its lease.
    pub(super) fn can_claim(&self) -> bool {
        self.lease.load().holds()
    }

    /// Extends the lease of the current life in the storage. Returns whether that life still counts.
    pub(super) async fn beat(&self, owner: &str) -> cluster::Result<bool> {
        self.cluster.beat(owner, LEASE).await
    }

    /// Takes or keeps a duty for the current life.
    pub(super) async fn hold_duty(&self, duty: &str, owner: &str, lease: Duration) -> cluster::Result<bool> {
        self.cluster.hold_duty(duty, owner, lease).await
    }

    /// Changes what this host says of itself; the next heartbeat, which follows at once, publishes it.
    pub(super) fn describe(&self, change: impl FnOnce(&mut HostInfo)) {
        let mut info = lock(&self.info);
        let before = info.clone();
        change(&mut info);
        let is_changed = *info != before;
        drop(info);
        if is_changed {
            self.is_changed.store(true, Ordering::Release);
            self.changed.notify_one();
        }
    }

    /// Waits until what this host says of itself has changed.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Publishes what this host says of itself, if it has changed.
    pub(super) async fn publish(&self) -> cluster::Result<()> {
        if !self.is_changed.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let info = lock(&self.info).clone();
        let published = self.cluster.join(&info, LEASE).await;
        if published.is_err() {
            self.is_changed.store(true, Ordering::Release);
        }
        published.map(|_| ())
    }

    /// Reads which hosts live and what they run.
    pub(super) async fn refresh(&self) -> cluster::Result<()> {
        let hosts = self.cluster.hosts().await?;
        let mine = lock(&self.info).clone();
        let mut others = Others { hosts: LiveHosts { alive: 0, with_other_settings: 0 }, modules: BTreeSet::new() };
        for HostStatus { info, .. } in hosts.into_iter().filter(|host| host.is_alive) {
            others.hosts.alive += 1;
            others.hosts.with_other_settings += u32::from(info.settings != mine.settings);
            others.modules.extend(info.modules);
        }
        // Its own heartbeat may be newer than the list.
        others.hosts.alive = others.hosts.alive.max(1);
        self.others.store(Arc::new(Some(others)));
        Ok(())
    }

    /// Returns the live hosts, as of the last heartbeat.
    pub(super) fn live_hosts(&self) -> LiveHosts {
        let alone = LiveHosts { alive: 1, with_other_settings: 0 };
        self.others.load().as_ref().as_ref().map_or(alone, |others| others.hosts)
    }

    /// Returns whether another live host may run a module that this host doesn't have. Until the hosts are known, one
    /// may.
    pub(super) fn others_may_have_module(&self, module: &Name) -> bool {
        self.is_shared() && self.others.load().as_ref().as_ref().is_none_or(|others| others.modules.contains(module))
    }

    /// Returns whether another live host may have a tenant that this host doesn't have: hosts publish no tenants, so
    /// every host with other settings may.
    pub(super) fn others_may_have_tenant(&self) -> bool {
        self.is_shared()
            && self.others.load().as_ref().as_ref().is_none_or(|others| others.hosts.with_other_settings > 0)
    }

    /// Leaves the cluster.
    pub(super) async fn leave(&self) -> cluster::Result<()> {
        self.cluster.leave(&self.owner()).await
    }
}
