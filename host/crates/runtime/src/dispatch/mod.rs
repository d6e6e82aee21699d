//! Turns an event into one delivery for each module that wants it, records the deliveries, and runs them within limits.
//!
//! The queue is in the journal. Memory holds only running deliveries, so a backlog of a million deliveries costs no
//! more than a backlog of ten.

mod backlog;
mod duties;
mod failures;
mod finalize;
mod immediate;
mod leases;
mod membership;
mod modules;
mod retention;
mod routes;
mod scheduler;
mod sink;
mod supervise;
mod sweep;
#[cfg(test)]
mod tests;
mod watchdog;
mod worker;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::call_log::JournalQuota;
use crate::capabilities::GuestMemory;
use backlog::{Capacity, Load, Reservations};
use duties::Duties;
pub use failures::FailedAttempt;
use failures::Failures;
use immediate::ReservedSlots;
use leases::LeaseOperations;
pub use membership::LiveHosts;
use membership::Membership;
use modhost_core::clock::{Clock, timeout};
use modhost_core::event::{DeliveryId, Event, Name};
use modhost_core::limits::LimitReached;
use modhost_core::plural::counted;
use modhost_core::sync::lock;
use modhost_core::tenant_permits::TenantPermits;
use modhost_storage::cluster::{Cluster, HostInfo};
use modhost_storage::journal::{Details, Journal, JournalError, Recorded, Retention, recorded_bytes};
use modhost_storage::keyvalue::KeyValue;
pub use modules::{Modules, Runner};
use routes::Tenant;
pub use routes::{RouteSpec, Routes, TenantSpec};
use scheduler::{Contention, Running};
pub use sink::DispatchSink;

/// The `Retry-After` of refused events, except those above a tenant's event rate.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(5);

/// How long a shutdown waits for canceled deliveries to be finalized and returned to the queue.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of events accepted concurrently; further ones wait. An event whose client has disconnected counts
/// too.
const MAX_ACCEPTING: usize = 1024;

/// The same for one tenant. Otherwise one that sends many events at once would delay those of all others.
const MAX_ACCEPTING_PER_TENANT: usize = 256;

/// Maximum number of attempts that have ended and are being recorded.
const MAX_COMPLETING: usize = 1024;

/// Maximum number of concurrent admin operations.
const MAX_OPERATIONS: usize = 64;

/// How often a running host looks for due deliveries that its scheduler has missed.
pub const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Accepts verified events and runs their deliveries. Cheap to clone.
#[derive(Clone)]
pub struct Dispatcher(Arc<Inner>);

/// The settings of a dispatcher.
pub struct DispatchSettings {
    /// Maximum number of deliveries that run concurrently.
    pub concurrency: usize,
    /// Maximum number of waiting and running deliveries; events above it are refused with backpressure.
    pub max_deliveries: u64,
    /// Maximum total memory of the running deliveries of all tenants, in bytes.
    pub guest_memory: u64,
    /// How long ended deliveries and event ids are kept.
    pub retention: Retention,
    /// The hosts that share the journal.
    pub cluster: Arc<dyn Cluster>,
    /// What this host says of itself. If other hosts can't use the journal, deliveries that are leased to its owner are
    /// returned to the queue at startup; otherwise each life gets an owner of its own.
    pub host: HostInfo,
    /// How often to look for due deliveries that the scheduler has missed; [`SWEEP_EVERY`], shorter in tests.
    pub sweep_every: Duration,
    /// How long after startup deliveries wait if their module or tenant is not in the settings.
    pub removal_grace: Duration,
    /// The clock of everything in dispatch.
    pub clock: Arc<dyn Clock>,
}

struct Inner {
    modules: Arc<dyn Modules>,
    journal: Arc<dyn Journal>,
    keyvalue: Arc<dyn KeyValue>,
    clock: Arc<dyn Clock>,
    settings: DispatchSettings,
    membership: Membership,
    /// The operations in flight that take leases or give them up.
    lease_operations: LeaseOperations,
    duties: Duties,
    /// Notified when a further duty is wanted.
    duty_wanted: Notify,
    routes: ArcSwap<Routes>,
    guest_memory: Arc<GuestMemory>,
    /// One permit: only one delivery that was interrupted repeatedly runs at a time.
    suspects: Semaphore,
    reservations: Reservations,
    accepting: Arc<Semaphore>,
    accepting_of: TenantPermits,
    operations: Arc<Semaphore>,
    failures: Failures,
    /// The number of calls that were repeated because their outcome was unknown.
    repeated_calls: AtomicU64,
    /// Until when deliveries wait if their module or tenant is not in the settings: the settings may have been half
    /// written when the host started.
    unknown_wait_until: SystemTime,
    /// Lanes that may have due deliveries and that the scheduler has not looked at yet.
    woken: Mutex<BTreeSet<Lane>>,
    /// Lanes with due deliveries. Only the scheduler changes them.
    ready: Mutex<Lanes>,
    /// The next time at which a delivery becomes due.
    next_due: Mutex<Option<SystemTime>>,
    wake: Notify,
    running: Mutex<Running>,
    /// What waits for the limits that deliveries share. Only the scheduler changes it.
    contention: Mutex<Contention>,
    /// Attempts that have ended and are being recorded: they hold no run slot, so they have a limit of their own.
    completing: Semaphore,
    /// Notified when the last running attempt has ended.
    idle: Notify,
    /// Running deliveries and background tasks.
    tasks: TaskTracker,
    /// Canceled when the host stops accepting events and starting deliveries.
    closing: CancellationToken,
    /// Canceled when running deliveries have to end immediately.
    stop: CancellationToken,
}

/// The state of a tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantStatus {
    /// The weight of its share of the CPU time; `None` if the tenant is not in the settings.
    pub cpu_weight: Option<u32>,
    /// The number of its running deliveries.
    pub running: u64,
    /// The memory of its running guests, in bytes.
    pub memory: u64,
}

/// The deliveries of one tenant to one module.
type Lane = (Name, Name);

/// Lanes by tenant.
type Lanes = BTreeMap<Name, BTreeSet<Name>>;

/// The result of accepting an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// The event is on disk with these deliveries. If no module wants the event, the list is empty and nothing is on
    /// disk.
    Deliveries(Vec<DeliveryId>),
    /// The event was recorded before; nothing was written.
    Duplicate,
}

/// The reason why an event was refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refused {
    /// The backlog is at its limit.
    #[error(
        "backlog full: {} not ended, the `max_deliveries` of {owner}",
        counted(*limit, "delivery has", "deliveries have")
    )]
    Full {
        /// The limit, in deliveries.
        limit: u64,
        /// The owner of the limit: `[server]` or a tenant.
        owner: String,
        /// How long the sender should wait before it sends the event again.
        retry_after: Duration,
    },
    /// The unfinished deliveries of the tenant take too much of the journal.
    #[error("journal full for tenant {tenant}: {limit}")]
    JournalFull {
        /// The tenant.
        tenant: Name,
        /// The limit.
        limit: LimitReached,
        /// How long the sender should wait before it sends the event again.
        retry_after: Duration,
    },
    /// The tenant exceeds its event rate.
    #[error("tenant {tenant} sends more events than its `limits.events_per_second` allows")]
    RateLimited {
        /// The tenant.
        tenant: Name,
        /// How long the sender should wait before it sends the event again.
        retry_after: Duration,
    },
    /// The routes do not contain the tenant: the source has newer or older settings than the routes, while the settings
    /// are being replaced.
    #[error("tenant {0} is not in the current settings")]
    NoTenant(Name),
    /// The journal could not record the event.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The host is shutting down.
    #[error("the host is shutting down")]
    Stopping,
    /// Accepting the event panicked.
    #[error("internal error in the host: accepting the event panicked; please report it")]
    Panicked,
}

impl Refused {
    /// Returns how long the sender should wait before it sends the event again.
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::Full { retry_after, .. }
            | Self::JournalFull { retry_after, .. }
            | Self::RateLimited { retry_after, .. } => *retry_after,
            Self::NoTenant(_) | Self::Journal(_) | Self::Stopping | Self::Panicked => DEFAULT_RETRY_AFTER,
        }
    }
}

impl Dispatcher {
    /// Starts a dispatcher without routes on an existing journal. Also returns the number of deliveries that were
    /// running when a previous host with this name stopped, and that wait again.
    ///
    /// # Errors
    ///
    /// When the journal can't be read.
    pub async fn start(
        modules: Arc<dyn Modules>,
        journal: Arc<dyn Journal>,
        keyvalue: Arc<dyn KeyValue>,
        settings: DispatchSettings,
    ) -> Result<(Self, u64), JournalError> {
        let clock = settings.clock.clone();
        let now = clock.now();
        let membership = Membership::join(settings.cluster.clone(), clock.clone(), settings.host.clone()).await?;
        let inner = Inner {
            unknown_wait_until: now.checked_add(settings.removal_grace).unwrap_or(now),
            clock,
            modules,
            guest_memory: GuestMemory::new(settings.guest_memory),
            suspects: Semaphore::new(1),
            settings,
            reservations: Reservations::default(),
            accepting: Arc::new(Semaphore::new(MAX_ACCEPTING)),
            accepting_of: TenantPermits::new(MAX_ACCEPTING_PER_TENANT),
            operations: Arc::new(Semaphore::new(MAX_OPERATIONS)),
            failures: Failures::default(),
            routes: ArcSwap::default(),
            repeated_calls: AtomicU64::new(0),
            woken: Mutex::default(),
            ready: Mutex::default(),
            next_due: Mutex::new(Some(now)),
            wake: Notify::new(),
            running: Mutex::default(),
            contention: Mutex::new(Contention::unknown()),
            completing: Semaphore::new(MAX_COMPLETING),
            idle: Notify::new(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            stop: CancellationToken::new(),
            journal,
            keyvalue,
            membership,
            lease_operations: LeaseOperations::default(),
            duties: Duties::default(),
            duty_wanted: Notify::new(),
        };
        let recovered = leases::reclaim_earlier_lives(&inner).await?;
        Ok((Self(Arc::new(inner)), recovered))
    }

    /// Starts running deliveries; call [`Dispatcher::set_routes`] first.
    pub fn run(&self) {
        let inner = &self.0;
        inner.tasks.spawn(supervise::keep_running("scheduler", inner.clone(), scheduler::run));
        inner.tasks.spawn(supervise::keep_running("leases", inner.clone(), leases::run));
        inner.tasks.spawn(supervise::keep_running("watchdog", inner.clone(), watchdog::run));
        inner.tasks.spawn(supervise::keep_running("duties", inner.clone(), duties::run));
        inner.tasks.spawn(supervise::keep_running("retention", inner.clone(), retention::run));
        inner.tasks.spawn(supervise::keep_running("sweep", inner.clone(), sweep::run));
        inner.tasks.spawn(supervise::keep_running("journal probe", inner.clone(), retention::probe));
    }

    /// Sets the routes for all events from now on. `apology` is the text for users whose module is no longer in the
    /// settings.
    pub fn set_routes(&self, tenants: Vec<TenantSpec>, modules: Vec<RouteSpec>, apology: Arc<str>) {
        let routes = Routes::new(tenants, modules, apology, &self.0.routes.load(), &self.0.guest_memory);
        self.0.routes.store(Arc::new(routes));
        self.0.rescan(self.0.clock.now());
    }

    /// Accepts an event. When this returns, the event is on disk, and every module that wants it will receive it.
    ///
    /// Once started, accepting runs to completion even if the caller drops this future: a client that disconnects
    /// during the commit must not leave a recorded delivery that is not scheduled.
    ///
    /// # Errors
    ///
    /// When the event is refused; then nothing was written.
    pub async fn accept(&self, event: Event) -> Result<Accepted, Refused> {
        self.accept_then(event, |_| ()).await
    }

    /// Accepts an event, as [`Dispatcher::accept`] does, and calls `then` with the result, even if the caller drops
    /// this future.
    ///
    /// # Errors
    ///
    /// As for [`Dispatcher::accept`].
    pub async fn accept_then(
        &self,
        event: Event,
        then: impl FnOnce(&Result<Accepted, Refused>) + Send + 'static,
    ) -> Result<Accepted, Refused> {
        // Dropping the future here leaves nothing behind: accepting has not started.
        let of_tenant = self.0.accepting_of.acquire(&event.tenant).await;
        let permit = self.0.accepting.clone().acquire_owned().await.map_err(|_| Refused::Stopping)?;
        let inner = self.0.clone();
        let accepting = self.0.tasks.spawn(async move {
            let accepted = inner.accept(event).await;
            then(&accepted);
            drop((permit, of_tenant));
            accepted
        });
        accepting.await.unwrap_or(Err(Refused::Panicked))
    }

    /// Runs an admin operation to completion, even if the caller drops this future; shutdown waits for it. Returns
    /// `None` if too many operations are running or the operation panicked.
    pub async fn run_to_completion<T: Send + 'static>(
        &self,
        operation: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let permit = self.0.operations.clone().try_acquire_owned().ok()?;
        let operation = self.0.tasks.spawn(async move {
            let outcome = operation.await;
            drop(permit);
            outcome
        });
        operation.await.ok()
    }

    /// Makes the scheduler look at all lanes, for example because a module was resumed.
    pub fn rescan(&self) {
        self.0.rescan(self.0.clock.now());
    }

    /// Returns an ended delivery to the queue. Returns whether the delivery exists and had ended. Call it within
    /// [`Dispatcher::run_to_completion`].
    ///
    /// # Errors
    ///
    /// When the journal can't record the change.
    pub async fn resend(&self, delivery: &Details, fresh: bool) -> Result<bool, JournalError> {
        let resent = self.0.journal.resend(&delivery.summary.id, fresh).await?;
        if resent {
            self.0.woken([lane_of(delivery)]);
        }
        Ok(resent)
    }

    /// Drops a waiting delivery and notifies its user. Returns whether the delivery exists and was waiting. Call it
    /// within [`Dispatcher::run_to_completion`].
    ///
    /// # Errors
    ///
    /// When the journal can't record the change.
    pub async fn drop_waiting(&self, delivery: &Details, reason: &str) -> Result<bool, JournalError> {
        let dropped = self.0.journal.drop_waiting(&delivery.summary.id, reason).await?;
        if dropped {
            // If the deliveries of the chat run one at a time, the next one may start now.
            self.0.woken([lane_of(delivery)]);
            worker::notify_dropped(&self.0, delivery, reason).await;
        }
        Ok(dropped)
    }

    /// Returns the number of running deliveries of a module.
    pub fn in_flight(&self, module: &Name) -> usize {
        lock(&self.0.running).of_module(module)
    }

    /// Returns the tenants in the settings, and those that have running deliveries.
    pub fn tenants(&self) -> HashMap<Name, TenantStatus> {
        let routes = self.0.routes.load();
        let status = |(name, tenant): (&Name, &Arc<Tenant>)| {
            let cpu_weight = (!tenant.is_removed).then_some(tenant.cpu_weight);
            (name.clone(), TenantStatus { cpu_weight, running: 0, memory: tenant.memory.used() })
        };
        let mut tenants: HashMap<Name, TenantStatus> = routes.tenants().map(status).collect();
        for (tenant, running) in lock(&self.0.running).by_tenant() {
            tenants.entry(tenant.clone()).or_default().running = *running as u64;
        }
        tenants
    }

    /// Subscribes to the attempts that fail from now on.
    pub fn failures(&self) -> tokio::sync::broadcast::Receiver<Arc<FailedAttempt>> {
        self.0.failures.subscribe()
    }

    /// Changes what this host says of itself to the other hosts.
    pub fn describe_host(&self, change: impl FnOnce(&mut HostInfo)) {
        self.0.membership.describe(change);
    }

    /// Returns the live hosts that share the storage, as of the last heartbeat.
    pub fn live_hosts(&self) -> LiveHosts {
        self.0.membership.live_hosts()
    }

    /// Returns the owner of the leases that this host takes now.
    pub fn owner(&self) -> Arc<str> {
        self.0.membership.owner()
    }

    /// Asks for a duty, something that one host at a time does, for as long as the receiver exists. The receiver tells
    /// whether this host has it. The host gives it up when the receiver is dropped, when it loses its lease, and when it
    /// stops.
    pub fn want_duty(&self, duty: &str) -> tokio::sync::watch::Receiver<bool> {
        self.0.want_duty(duty)
    }

    /// Returns the number of calls that were repeated because their outcome was unknown.
    pub fn repeated_calls(&self) -> u64 {
        self.0.repeated_calls.load(Ordering::Relaxed)
    }

    /// Stops accepting events, waits up to `grace` for running deliveries, then cancels the rest; those restart with
    /// the next host. Closes the journal and the key-value store.
    pub async fn shutdown(&self, grace: Duration) {
        let inner = &self.0;
        inner.closing.cancel();
        inner.tasks.close();
        if timeout(&*inner.clock, grace, inner.tasks.wait()).await.is_none() {
            tracing::warn!(
                ?grace,
                "deliveries still run after the grace period; interrupting them until the next start"
            );
            inner.stop.cancel();
            if timeout(&*inner.clock, CLEANUP_TIMEOUT, inner.tasks.wait()).await.is_none() {
                tracing::error!("cannot return interrupted deliveries in time; waiting for their leases to expire");
            }
        }
        if timeout(&*inner.clock, CLEANUP_TIMEOUT, inner.leave()).await.is_none() {
            tracing::warn!("cannot leave the cluster in time; the lease of this host expires");
        }
        if let Err(error) = inner.journal.close().await {
            tracing::error!(%error, "cannot close the journal");
        }
        if let Err(error) = inner.keyvalue.close().await {
            tracing::error!(%error, "cannot close the key-value store");
        }
    }
}

impl Inner {
    /// Returns whether a tenant's deliveries to a module wait because the tenant or the module is missing from the
    /// settings and may come back, or because another host may have both.
    fn waits_for_settings(&self, routes: &Routes, tenant: &Name, module: &Name) -> bool {
        routes.is_blocked(tenant, module, self.clock.now() < self.unknown_wait_until)
            || self.is_left_to_others(routes, tenant, module)
    }

    /// Returns whether a tenant's deliveries to a module are left to other hosts: this one lacks the tenant or the
    /// module, and a live host may have them. A delivery ends as "no longer in modules.toml" only if no live host does.
    fn is_left_to_others(&self, routes: &Routes, tenant: &Name, module: &Name) -> bool {
        routes.module(module).is_none() && self.membership.others_may_have_module(module)
            || routes.tenant(tenant).is_none() && self.membership.others_may_have_tenant()
    }

    /// Leaves the cluster, so that other hosts need not wait for the lease of this one to expire.
    async fn leave(&self) {
        if let Err(error) = self.membership.leave().await {
            tracing::warn!(%error, "cannot leave the cluster; the lease of this host expires");
        }
    }

    async fn accept(self: &Arc<Self>, event: Event) -> Result<Accepted, Refused> {
        if self.closing.is_cancelled() {
            return Err(Refused::Stopping);
        }
        let routes = self.routes.load_full();
        let Some(tenant) = routes.tenant(&event.tenant) else {
            return Err(Refused::NoTenant(event.tenant.clone()));
        };
        let mut deliveries = routes.deliveries(&event);
        if deliveries.is_empty() {
            return Ok(Accepted::Deliveries(Vec::new()));
        }
        routes.check_rate(&event.tenant, self.membership.live_hosts().alive)?;
        let quota = self.quota(tenant);
        let capacity = Capacity { host: self.settings.max_deliveries, tenant: tenant.max_deliveries, quota };
        let load = Load { deliveries: deliveries.len() as u64, bytes: recorded_bytes(&event, deliveries.len()) };
        let tenant = event.tenant.clone();
        let backlog = || self.journal.backlog(&tenant);
        let reserved = self.reservations.reserve(&tenant, load, capacity, backlog)?;
        let lanes: Vec<Lane> = deliveries.iter().map(|new| (tenant.clone(), new.module.clone())).collect();
        let ids: Vec<DeliveryId> = deliveries.iter().map(|new| new.id.clone()).collect();
        let _in_flight = self.lease_operations.begin(self.clock.since_boot());
        let slots = ReservedSlots::reserve(self, &routes, &event, &mut deliveries);
        let event = Arc::new(event);
        let recorded = self.journal.record(event.clone(), deliveries).await;
        drop(reserved);
        let (accepted, all_started) = match recorded? {
            Recorded::Duplicate => (Accepted::Duplicate, false),
            Recorded::New { at, leases } => {
                let all_started = slots.start(self, &event, leases, at, ids.len());
                (Accepted::Deliveries(ids), all_started)
            }
        };
        // Also for a duplicate: the task that recorded the event may not have woken its lanes yet.
        if !all_started {
            self.woken(lanes);
        }
        Ok(accepted)
    }

    /// Returns what the unfinished deliveries of a tenant may take in the journal.
    fn quota(&self, tenant: &Tenant) -> JournalQuota {
        JournalQuota { host: self.settings.retention.max_bytes, tenant: tenant.total_journal }
    }

    fn woken(&self, lanes: impl IntoIterator<Item = Lane>) {
        lock(&self.woken).extend(lanes);
        self.wake.notify_one();
    }

    /// Makes the scheduler look at all lanes at the given time.
    fn rescan(&self, at: SystemTime) {
        let mut next_due = lock(&self.next_due);
        *next_due = Some(next_due.map_or(at, |known| known.min(at)));
        drop(next_due);
        self.wake.notify_one();
    }
}

/// Returns the lane of a delivery.
fn lane_of(delivery: &Details) -> Lane {
    (delivery.summary.tenant.clone(), delivery.summary.module.clone())
}
