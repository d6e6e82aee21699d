//! Turns an event into deliveries, one for each module that wants it, writes them down, and runs them under limits.
//!
//! The queue is in the journal. What is in memory is only what runs: a backlog of a million deliveries costs no more
//! than one of ten.

mod backlog;
mod failures;
mod finalize;
mod leases;
mod modules;
mod retention;
mod routes;
mod scheduler;
mod sink;
mod supervise;
mod sweep;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use backlog::{Capacity, Reservations};
pub use failures::FailedAttempt;
use failures::Failures;
use modhost_core::clock::{Clock, timeout};
use modhost_core::event::{DeliveryId, Event, Name};
use modhost_core::plural::counted;
use modhost_core::sync::lock;
use modhost_storage::journal::{Details, Journal, JournalError, Recorded, Retention};
use modhost_storage::keyvalue::KeyValue;
pub use modules::{Modules, Runner};
pub use routes::{RouteSpec, Routes, TenantSpec};
use scheduler::Running;
pub use sink::DispatchSink;

/// When to come back to a host that has more to do than it may take.
const COME_BACK_AFTER: Duration = Duration::from_secs(5);

/// How long calls to the platform that tidy up after a delivery may take when the host is shutting down.
const TIDY_UP: Duration = Duration::from_secs(5);

/// How many events are accepted at once, at most; more wait their turn. Whoever brought one may have hung up since.
const MAX_ACCEPTING: usize = 1024;

/// How many operations of people run at once, at most.
const MAX_OPERATIONS: usize = 64;

/// How often a running host looks for deliveries that are due and that its scheduler doesn't know of.
pub const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Takes verified events and sees to it that they are answered.
#[derive(Clone)]
pub struct Dispatcher(Arc<Inner>);

/// What a dispatcher is started with.
pub struct DispatchSettings {
    /// How many deliveries run at once.
    pub concurrency: usize,
    /// How many deliveries may wait and run together; beyond it events are refused for now.
    pub max_deliveries: u64,
    /// How long what has ended is kept.
    pub retention: Retention,
    /// This host, as leases name it: what is leased to this name when it starts was cut off.
    pub owner: Arc<str>,
    /// How often it looks for deliveries that are due and that the scheduler doesn't know of; [`SWEEP_EVERY`] unless a
    /// test can't wait that long.
    pub sweep_every: Duration,
    /// How long after the start the deliveries of modules and tenants wait that are not in the settings.
    pub removal_grace: Duration,
    /// The clock that everything in dispatch goes by.
    pub clock: Arc<dyn Clock>,
}

struct Inner {
    modules: Arc<dyn Modules>,
    journal: Arc<dyn Journal>,
    keyvalue: Arc<dyn KeyValue>,
    clock: Arc<dyn Clock>,
    settings: DispatchSettings,
    routes: ArcSwap<Routes>,
    reservations: Reservations,
    accepting: Arc<Semaphore>,
    operations: Arc<Semaphore>,
    failures: Failures,
    /// Calls that were made a second time because it was not known whether they had happened.
    calls_made_again: AtomicU64,
    /// Until when deliveries wait of modules and tenants that are not in the settings; the settings may have been half written
    /// when the host started.
    unknown_wait_until: SystemTime,
    /// Lanes that may have deliveries due: what wakes the scheduler.
    woken: Mutex<BTreeSet<Lane>>,
    /// Lanes the scheduler knows to have deliveries due. Only it changes them.
    ready: Mutex<Lanes>,
    /// The next time at which some delivery becomes due.
    next_due: Mutex<Option<SystemTime>>,
    wake: Notify,
    running: Mutex<Running>,
    /// Notified when the last attempt has ended that was running.
    idle: Notify,
    /// Deliveries that run, and the tasks that see to them.
    tasks: TaskTracker,
    /// Takes no more events, begins no more deliveries.
    closing: CancellationToken,
    /// Asks the deliveries that still run to end now.
    stop: CancellationToken,
}

/// The deliveries of one tenant to one module.
type Lane = (Name, Name);

/// Lanes by tenant.
type Lanes = BTreeMap<Name, BTreeSet<Name>>;

/// What became of an event that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is on disk with these deliveries; none is an answer too, and then it isn't.
    Deliveries(Vec<DeliveryId>),
    /// It was taken before: nothing is done again.
    Again,
}

/// Why an event could not be taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refused {
    /// There is more to do than the host may take on.
    #[error("{} not ended, `max_deliveries` of {whose}", counted(*limit, "delivery has", "deliveries have"))]
    Full {
        /// How many there may be.
        limit: u64,
        /// Whose limit it is: the server's, or a tenant's.
        whose: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// The tenant's events come faster than they may.
    #[error("the events of tenant {tenant} come faster than `limits.events_per_second` allows")]
    TooFast {
        /// The tenant.
        tenant: Name,
        /// When to try again.
        retry_after: Duration,
    },
    /// The source that brought it is of other settings than the routes: one of the two is about to be replaced.
    #[error("there is no tenant {0} at the moment")]
    NoTenant(Name),
    /// It can't be written down.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The host is shutting down.
    #[error("the host is shutting down")]
    Stopping,
    /// Accepting it panicked.
    #[error("internal error in the host: accepting the event panicked; please report it")]
    Panicked,
}

impl Refused {
    /// When to bring the event again.
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::Full { retry_after, .. } | Self::TooFast { retry_after, .. } => *retry_after,
            Self::NoTenant(_) | Self::Journal(_) | Self::Stopping | Self::Panicked => COME_BACK_AFTER,
        }
    }
}

impl Dispatcher {
    /// Starts a dispatcher without routes, which takes up what the journal holds. Answers with how many deliveries a
    /// host that was cut off left running: they wait again.
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
        let recovered = journal.reclaim(Some(&settings.owner)).await?;
        let dispatcher = Self(Arc::new(Inner {
            unknown_wait_until: now.checked_add(settings.removal_grace).unwrap_or(now),
            clock,
            modules,
            settings,
            reservations: Reservations::default(),
            accepting: Arc::new(Semaphore::new(MAX_ACCEPTING)),
            operations: Arc::new(Semaphore::new(MAX_OPERATIONS)),
            failures: Failures::default(),
            routes: ArcSwap::default(),
            calls_made_again: AtomicU64::new(0),
            woken: Mutex::default(),
            ready: Mutex::default(),
            next_due: Mutex::new(Some(now)),
            wake: Notify::new(),
            running: Mutex::default(),
            idle: Notify::new(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            stop: CancellationToken::new(),
            journal,
            keyvalue,
        }));
        Ok((dispatcher, recovered))
    }

    /// Begins to run deliveries; routes should be set by then.
    pub fn run(&self) {
        let inner = &self.0;
        inner.tasks.spawn(supervise::keep_running("scheduler", inner.clone(), scheduler::run));
        inner.tasks.spawn(supervise::keep_running("leases", inner.clone(), leases::keep));
        inner.tasks.spawn(supervise::keep_running("retention", inner.clone(), retention::keep));
        inner.tasks.spawn(supervise::keep_running("sweep", inner.clone(), sweep::keep));
        inner.tasks.spawn(supervise::keep_running("journal probe", inner.clone(), retention::probe));
    }

    /// Sends the events that come from now on along these routes. `apology` is what users read whose module is no longer
    /// among them.
    pub fn set_routes(&self, tenants: Vec<TenantSpec>, modules: Vec<RouteSpec>, apology: Arc<str>) {
        let routes = Routes::new(tenants, modules, apology, &self.0.routes.load());
        self.0.routes.store(Arc::new(routes));
        self.0.look_again(self.0.clock.now());
    }

    /// Takes an event: when this returns it is on disk, and every module that wants it will get it.
    ///
    /// Once begun, it is done to its end, also if nobody waits for it any more: a client that hangs up while the event is
    /// written to the disk must not leave a delivery there that nobody runs.
    ///
    /// # Errors
    ///
    /// When the host can't take it now; then nothing was written and nothing is begun.
    pub async fn accept(&self, event: Event) -> Result<Accepted, Refused> {
        self.accept_then(event, |_| ()).await
    }

    /// The same, with something to be done with the outcome: that is done also if nobody waits for it.
    ///
    /// # Errors
    ///
    /// As with [`Dispatcher::accept`].
    pub async fn accept_then(
        &self,
        event: Event,
        then: impl FnOnce(&Result<Accepted, Refused>) + Send + 'static,
    ) -> Result<Accepted, Refused> {
        // Nothing has begun while it waits here, and nothing is left behind if it is dropped.
        let permit = self.0.accepting.clone().acquire_owned().await.map_err(|_| Refused::Stopping)?;
        let inner = self.0.clone();
        let accepting = self.0.tasks.spawn(async move {
            let accepted = inner.accept(event).await;
            then(&accepted);
            drop(permit);
            accepted
        });
        accepting.await.unwrap_or(Err(Refused::Panicked))
    }

    /// Does what a person asked for to its end, also if they don't wait for it; the host doesn't stop before. None if too
    /// many such operations run already, or this one panicked.
    pub async fn complete<T: Send + 'static>(&self, operation: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let permit = self.0.operations.clone().try_acquire_owned().ok()?;
        let operation = self.0.tasks.spawn(async move {
            let outcome = operation.await;
            drop(permit);
            outcome
        });
        operation.await.ok()
    }

    /// Looks for deliveries that are due now, say because a person resumed a module.
    pub fn look_again(&self) {
        self.0.look_again(self.0.clock.now());
    }

    /// Sends a delivery that has ended on its way again. Answers whether it was there and had ended. To be called within
    /// [`Dispatcher::complete`].
    ///
    /// # Errors
    ///
    /// When it can't be written down.
    pub async fn resend(&self, delivery: &Details, fresh: bool) -> Result<bool, JournalError> {
        let resent = self.0.journal.resend(&delivery.summary.id, fresh).await?;
        if resent {
            self.0.woken([lane_of(delivery)]);
        }
        Ok(resent)
    }

    /// Ends a delivery that waits, and tells its user. Answers whether it was there and waited. To be called within
    /// [`Dispatcher::complete`].
    ///
    /// # Errors
    ///
    /// When it can't be written down.
    pub async fn drop_waiting(&self, delivery: &Details, reason: &str) -> Result<bool, JournalError> {
        let dropped = self.0.journal.drop_waiting(&delivery.summary.id, reason).await?;
        if dropped {
            // Of a chat whose deliveries go one at a time the next may begin.
            self.0.woken([lane_of(delivery)]);
            worker::show_dropped(&self.0, delivery, reason).await;
        }
        Ok(dropped)
    }

    /// How many deliveries to a module run now.
    pub fn in_flight(&self, module: &Name) -> usize {
        lock(&self.0.running).of_module(module)
    }

    /// The attempts that fail from now on.
    pub fn failures(&self) -> tokio::sync::broadcast::Receiver<Arc<FailedAttempt>> {
        self.0.failures.watch()
    }

    /// How many calls were made a second time because it was not known whether they had happened.
    pub fn calls_made_again(&self) -> u64 {
        self.0.calls_made_again.load(Ordering::Relaxed)
    }

    /// Takes no more events, lets the deliveries that run come to their end for so long, then cuts them off; those
    /// start again when the host does. The journal and the key-value store are closed.
    pub async fn shutdown(&self, grace: Duration) {
        let inner = &self.0;
        inner.closing.cancel();
        inner.tasks.close();
        if timeout(&*inner.clock, grace, inner.tasks.wait()).await.is_none() {
            tracing::warn!("deliveries have not ended after {grace:?}: they start again with the host");
            inner.stop.cancel();
            if timeout(&*inner.clock, TIDY_UP, inner.tasks.wait()).await.is_none() {
                tracing::error!("deliveries could not be put back in time: their leases run out");
            }
        }
        if let Err(error) = inner.journal.close().await {
            tracing::error!("the journal could not be closed: {error}");
        }
        if let Err(error) = inner.keyvalue.close().await {
            tracing::error!("the key-value store could not be closed: {error}");
        }
    }
}

impl Inner {
    /// Whether a tenant's deliveries to a module wait until one of the two is back in the settings, or dropped from them.
    fn waits_for_settings(&self, routes: &Routes, tenant: &Name, module: &Name) -> bool {
        routes.makes_wait(tenant, module, self.clock.now() < self.unknown_wait_until)
    }

    async fn accept(&self, event: Event) -> Result<Accepted, Refused> {
        if self.closing.is_cancelled() {
            return Err(Refused::Stopping);
        }
        let routes = self.routes.load_full();
        if routes.tenant(&event.tenant).is_none() {
            return Err(Refused::NoTenant(event.tenant.clone()));
        }
        let deliveries = routes.deliveries(&event);
        if deliveries.is_empty() {
            return Ok(Accepted::Deliveries(Vec::new()));
        }
        routes.take_turn(&event.tenant)?;
        let tenant = event.tenant.clone();
        let of_tenant = routes.tenant(&tenant).map_or(u64::MAX, |tenant| tenant.max_deliveries);
        let capacity = Capacity { host: self.settings.max_deliveries, tenant: of_tenant };
        let backlog = || self.journal.backlog(&tenant);
        let reserved = self.reservations.reserve(&tenant, deliveries.len() as u64, capacity, backlog)?;
        let lanes: Vec<Lane> = deliveries.iter().map(|new| (tenant.clone(), new.module.clone())).collect();
        let ids = deliveries.iter().map(|new| new.id.clone()).collect();
        let recorded = self.journal.record(Arc::new(event), deliveries).await;
        drop(reserved);
        let accepted = match recorded? {
            Recorded::Duplicate => Accepted::Again,
            Recorded::New => Accepted::Deliveries(ids),
        };
        // One that was known, too: whoever recorded it may not have come this far.
        self.woken(lanes);
        Ok(accepted)
    }

    fn woken(&self, lanes: impl IntoIterator<Item = Lane>) {
        lock(&self.woken).extend(lanes);
        self.wake.notify_one();
    }

    /// Makes the scheduler look at all lanes at a time.
    fn look_again(&self, at: SystemTime) {
        let mut next_due = lock(&self.next_due);
        *next_due = Some(next_due.map_or(at, |known| known.min(at)));
        drop(next_due);
        self.wake.notify_one();
    }
}

/// The lane of a delivery.
fn lane_of(delivery: &Details) -> Lane {
    (delivery.summary.tenant.clone(), delivery.summary.module.clone())
}
