//! Turns an event into deliveries, one for each module that wants it, writes them down, and runs them under limits.
//!
//! The queue is in the journal. What is in memory is only what runs: a backlog of a million deliveries costs no more
//! than one of ten.

mod depth;
mod failures;
mod leases;
mod retry;
mod routes;
mod scheduler;
pub(crate) mod settle;
mod upkeep;
mod worker;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock;
pub use crate::clock::now;
use crate::engine::Registry;
use crate::event::{DeliveryId, Event, Name};
use crate::journal::{Details, Journal, JournalError, Recorded, Retention};
use crate::keyvalue::KeyValue;
use depth::{Depth, Room};
pub use failures::FailedAttempt;
use failures::Failures;
pub use retry::RetryPolicy;
pub use routes::{RouteSpec, Routes, TenantSpec};
use scheduler::Running;

/// When to come back to a host that has more to do than it may take.
const COME_BACK_AFTER: Duration = Duration::from_secs(5);

/// How long calls to the platform that tidy up after a delivery may take when the host is shutting down.
const TIDY_UP: Duration = Duration::from_secs(5);

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
    pub owner: String,
}

struct Inner {
    registry: Arc<Registry>,
    journal: Arc<dyn Journal>,
    keyvalue: Arc<dyn KeyValue>,
    settings: DispatchSettings,
    routes: ArcSwap<Routes>,
    depth: Depth,
    failures: Failures,
    /// Calls that were made a second time because it was not known whether they had happened.
    calls_made_again: AtomicU64,
    /// Lanes that may have deliveries due: what wakes the scheduler.
    woken: Mutex<BTreeSet<Lane>>,
    /// The next time at which some delivery becomes due.
    next_due: Mutex<Option<SystemTime>>,
    wake: Notify,
    running: Mutex<Running>,
    /// Deliveries that run, and the tasks that see to them.
    tasks: TaskTracker,
    /// Takes no more events, begins no more deliveries.
    closing: CancellationToken,
    /// Asks the deliveries that still run to end now.
    stop: CancellationToken,
}

/// The deliveries of one tenant to one module.
type Lane = (Name, Name);

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
    #[error("{limit} deliveries have not ended, `max_deliveries` of {whose}")]
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
    /// It can't be written down.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The host is shutting down.
    #[error("the host is shutting down")]
    Stopping,
}

impl Refused {
    /// When to bring the event again.
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::Full { retry_after, .. } | Self::TooFast { retry_after, .. } => *retry_after,
            Self::Journal(_) | Self::Stopping => COME_BACK_AFTER,
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
        registry: Arc<Registry>,
        journal: Arc<dyn Journal>,
        keyvalue: Arc<dyn KeyValue>,
        settings: DispatchSettings,
    ) -> Result<(Self, u64), JournalError> {
        let now = clock::now();
        let recovered = journal.reclaim(Some(&settings.owner), now).await?;
        let depth = Depth::default();
        for lane in journal.lanes().await? {
            depth.add(&lane.tenant, lane.waiting);
        }
        let dispatcher = Self(Arc::new(Inner {
            registry,
            settings,
            depth,
            failures: Failures::default(),
            routes: ArcSwap::default(),
            calls_made_again: AtomicU64::new(0),
            woken: Mutex::default(),
            next_due: Mutex::new(Some(now)),
            wake: Notify::new(),
            running: Mutex::default(),
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
        inner.tasks.spawn(scheduler::run(inner.clone()));
        inner.tasks.spawn(leases::keep(inner.clone()));
        inner.tasks.spawn(upkeep::keep(inner.clone()));
    }

    /// Sends the events that come from now on along these routes. `apology` is what users read whose module is no longer
    /// among them.
    pub fn set_routes(&self, tenants: Vec<TenantSpec>, modules: Vec<RouteSpec>, apology: Arc<str>) {
        let routes = Routes::new(tenants, modules, apology, &self.0.routes.load());
        self.0.routes.store(Arc::new(routes));
        self.0.look_again(clock::now());
    }

    /// Takes an event: when this returns it is on disk, and every module that wants it will get it.
    ///
    /// # Errors
    ///
    /// When the host can't take it now; then nothing was written and nothing is begun.
    pub async fn accept(&self, event: Event) -> Result<Accepted, Refused> {
        let inner = &self.0;
        if inner.closing.is_cancelled() {
            return Err(Refused::Stopping);
        }
        let routes = inner.routes.load_full();
        let deliveries = routes.deliveries(&event);
        if deliveries.is_empty() {
            return Ok(Accepted::Deliveries(Vec::new()));
        }
        routes.take_turn(&event.tenant)?;
        let tenant = event.tenant.clone();
        let of_tenant = routes.tenant(&tenant).map_or(u64::MAX, |tenant| tenant.max_deliveries);
        let limits = Room { host: inner.settings.max_deliveries, tenant: of_tenant };
        let taken = inner.depth.take(&tenant, deliveries.len() as u64, limits)?;
        let lanes: Vec<Lane> = deliveries.iter().map(|new| (tenant.clone(), new.module.clone())).collect();
        let ids = deliveries.iter().map(|new| new.id.clone()).collect();
        match inner.journal.record(Arc::new(event), deliveries, clock::now()).await? {
            Recorded::Again => Ok(Accepted::Again),
            Recorded::New => {
                taken.keep();
                inner.woken(lanes);
                Ok(Accepted::Deliveries(ids))
            }
        }
    }

    /// Looks for deliveries that are due now, say because a person sent one again or resumed a module.
    pub fn look_again(&self) {
        self.0.look_again(clock::now());
    }

    /// Counts in a delivery that a person sent again.
    pub fn sent_again(&self, tenant: &Name) {
        self.0.depth.add(tenant, 1);
        self.look_again();
    }

    /// Counts out a delivery that a person dropped while it waited, and tells its user.
    pub async fn dropped(&self, delivery: &Details, reason: &str) {
        self.0.depth.remove(&delivery.summary.tenant, 1);
        worker::tell_dropped(&self.0, delivery, reason).await;
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
        if tokio::time::timeout(grace, inner.tasks.wait()).await.is_err() {
            tracing::warn!("deliveries have not ended after {grace:?}: they start again with the host");
            inner.stop.cancel();
            if tokio::time::timeout(TIDY_UP, inner.tasks.wait()).await.is_err() {
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
