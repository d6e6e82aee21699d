//! Deterministic tests of dispatch.
//!
//! The journal is in memory, the clock moves only when the test moves it, and modules and platform follow the test's
//! script. Everything runs on one thread, so a test controls the order of events: it holds a journal operation, an
//! attempt or a call, does something else, and releases it. No test sleeps or reads a real clock. A test that waits for
//! something that never happens fails after a number of steps.

mod acceptance;
mod cluster;
mod immediate;
mod journal;
mod leases;
mod limits;
mod operators;
mod retries;
mod script;
mod shutdown;
mod simulation;
mod wakeups;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use modhost_core::backoff::{Backoff, RetryPolicy};
use modhost_core::clock::{Clock, ManualClock};
use modhost_core::event::event_filter::{EventFilter, NamePattern, Path};
use modhost_core::event::{DeliveryId, Event, Header, Name};
use modhost_core::limits::{DEFAULT_CPU_WEIGHT, LimitAmounts, Limits};
use modhost_storage::cluster::{Cluster, HostInfo, SingleHost};
use modhost_storage::journal::{Backlog, Details, Journal, Memory, Retention, State, TenantLimits};
use modhost_storage::keyvalue::DryRunStore;

use super::{Accepted, DispatchSettings, Dispatcher, Refused, RouteSpec, TenantSpec, lock};
use crate::engine::{Failure, GuestOutcome, Retry};
use journal::GatedJournal;
use script::{End, ScriptedModules, ScriptedPlatform};

/// The number of yields after which a test gives up waiting.
const MAX_STEPS: usize = 2_000;

/// The number of yields after which all tasks wait for the clock or the test.
const SETTLE_STEPS: usize = 40;

/// The owner of the leases of the host under test.
const OWNER: &str = "host-1";

/// The name of events that need no reply.
const MESSAGE: &str = "unique.chat.user-message.created";

/// A duration that never passes in a test.
const NEVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A host under test.
struct TestHost {
    clock: Arc<ManualClock>,
    journal: Arc<GatedJournal>,
    modules: ScriptedModules,
    platform: Arc<ScriptedPlatform>,
    dispatcher: Dispatcher,
}

/// The settings of a host under test.
struct Setup {
    concurrency: usize,
    max_deliveries: u64,
    /// How often to sweep for missed deliveries. Never, except in tests of the sweep, so that no other test passes
    /// because of it.
    sweep_every: Duration,
    tenants: Vec<TenantSetup>,
    modules: Vec<RouteSpec>,
}

#[derive(Clone)]
struct TenantSetup {
    name: &'static str,
    concurrency: usize,
    max_deliveries: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            concurrency: 16,
            max_deliveries: 1_000,
            sweep_every: NEVER,
            tenants: vec![TenantSetup { name: "acme", concurrency: 16, max_deliveries: 1_000 }],
            modules: vec![module("Echo")],
        }
    }
}

/// Returns what a host says of itself.
fn host_info(name: &str) -> HostInfo {
    HostInfo {
        owner: OWNER.into(),
        name: name.to_owned(),
        admin: None,
        version: "1".to_owned(),
        settings: "same".to_owned(),
        modules: ["Echo".into()].into(),
    }
}

/// Returns a module with the settings of most tests: at most three attempts.
fn module(name: &str) -> RouteSpec {
    RouteSpec {
        module: name.into(),
        platform_name: name.into(),
        owner: None,
        is_removed: false,
        wants: EventFilter {
            events: vec![NamePattern::Exact(MESSAGE.into()), NamePattern::Exact(Event::MODULE_CHOSEN.into())],
            sources: Vec::new(),
            tenants: Vec::new(),
            assistants: Vec::new(),
            fields: [(Path::new("module").unwrap(), vec![name.into()])].into(),
        },
        concurrency: 16,
        ordered_by_chat: false,
        resume: true,
        retry: RetryPolicy { attempts: 3, backoff: Backoff::new(Duration::from_secs(2), Duration::from_secs(60)) },
        apology: "sorry".into(),
        retry_notice: "one moment".into(),
        limits: Limits::default(),
    }
}

/// Returns a module whose deliveries of one chat run one at a time.
fn ordered(name: &str) -> RouteSpec {
    RouteSpec { ordered_by_chat: true, ..module(name) }
}

impl TestHost {
    /// Creates a running host with the default setup.
    async fn new() -> Self {
        Self::of(Setup::default()).await
    }

    /// Creates a running host, and waits until its background tasks are idle.
    async fn of(setup: Setup) -> Self {
        let host = Self::stopped(setup).await;
        host.dispatcher.run();
        host.settle().await;
        host
    }

    /// Creates a host that has routes but is not running yet.
    async fn stopped(setup: Setup) -> Self {
        let clock = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000)));
        let journal = Arc::new(GatedJournal::new(Memory::new(clock.clone(), [7; 32])));
        Self::with(setup, clock, journal).await
    }

    /// Creates a host on a journal, possibly one of a previous host.
    async fn with(setup: Setup, clock: Arc<ManualClock>, journal: Arc<GatedJournal>) -> Self {
        let cluster = Arc::new(SingleHost::new(clock.clone()));
        Self::in_cluster(setup, clock, journal, cluster, host_info("host-1")).await
    }

    /// Creates a host of a cluster.
    async fn in_cluster(
        setup: Setup,
        clock: Arc<ManualClock>,
        journal: Arc<GatedJournal>,
        cluster: Arc<dyn Cluster>,
        info: HostInfo,
    ) -> Self {
        let settings = DispatchSettings {
            concurrency: setup.concurrency,
            max_deliveries: setup.max_deliveries,
            guest_memory: u64::MAX,
            retention: Retention {
                completed: NEVER,
                dead: NEVER,
                ids: NEVER,
                max_bytes: None,
                tenant_limits: TenantLimits::new(),
            },
            cluster,
            host: info,
            sweep_every: setup.sweep_every,
            removal_grace: Duration::ZERO,
            clock: clock.clone(),
        };
        let (modules, platform) = (ScriptedModules::new(), Arc::new(ScriptedPlatform::new()));
        let started =
            Dispatcher::start(Arc::new(modules.clone()), journal.clone(), Arc::new(DryRunStore), settings).await;
        let host = Self { clock, journal, modules, platform, dispatcher: started.unwrap().0 };
        host.set_routes(&setup.tenants, setup.modules);
        host
    }

    fn set_routes(&self, tenants: &[TenantSetup], modules: Vec<RouteSpec>) {
        let tenants = tenants.iter().map(|tenant| TenantSpec {
            name: tenant.name.into(),
            platform: self.platform.clone(),
            concurrency: tenant.concurrency,
            max_deliveries: tenant.max_deliveries,
            events_per_second: None,
            total_memory: None,
            total_journal: None,
            log_rate: u32::MAX,
            cpu_weight: DEFAULT_CPU_WEIGHT,
            ceilings: LimitAmounts::default(),
            is_removed: false,
        });
        self.dispatcher.set_routes(tenants.collect(), modules, "sorry".into());
    }

    /// Lets all tasks run until they wait for the clock or for the test.
    async fn settle(&self) {
        for _ in 0..SETTLE_STEPS {
            tokio::task::yield_now().await;
        }
    }

    /// Lets the tasks run until a condition holds.
    async fn until(&self, condition_name: &str, mut condition: impl FnMut() -> bool) {
        for _ in 0..MAX_STEPS {
            if condition() {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("timed out waiting for {condition_name}; running: {:?}", self.modules.running());
    }

    /// Moves the clock, and lets all tasks react.
    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.settle().await;
    }

    /// Accepts an event and waits for the result.
    async fn accept(&self, event: &Event) -> Result<Accepted, Refused> {
        self.dispatcher.accept(event.clone()).await
    }

    /// Accepts an event for `Echo`, and returns its delivery.
    async fn accepted(&self, event: &Event) -> DeliveryId {
        match self.accept(event).await.unwrap() {
            Accepted::Deliveries(deliveries) => match <[DeliveryId; 1]>::try_from(deliveries) {
                Ok([delivery]) => delivery,
                Err(others) => panic!("{others:?}"),
            },
            Accepted::Duplicate => panic!("{} is a duplicate", event.id),
        }
    }

    /// Waits until an attempt at a delivery is running.
    async fn running(&self, delivery: &DeliveryId) {
        self.until(&format!("{delivery} to run"), || self.modules.running().contains(delivery)).await;
    }

    /// Ends the running attempt at a delivery, and lets all tasks react.
    async fn end(&self, delivery: &DeliveryId, end: End) {
        self.running(delivery).await;
        self.modules.end(delivery, end);
        self.settle().await;
    }

    async fn details(&self, delivery: &DeliveryId) -> Details {
        self.journal.show(delivery).await.unwrap().unwrap_or_else(|| panic!("{delivery} is unknown"))
    }

    async fn state(&self, delivery: &DeliveryId) -> State {
        self.details(delivery).await.summary.state
    }

    /// Asserts that no capacity is reserved and that no delivery waits or runs.
    fn assert_idle(&self, tenants: &[&str]) {
        self.assert_nothing_reserved();
        for tenant in tenants {
            assert_eq!(self.journal.backlog(&Name::from(*tenant)), Backlog::default());
        }
        assert!(lock(&self.dispatcher.0.running).is_empty(), "{:?}", self.modules.running());
    }

    fn assert_nothing_reserved(&self) {
        assert!(self.dispatcher.0.reservations.is_empty(), "capacity is still reserved");
    }
}

/// Returns an event that needs no reply.
fn event(id: &str, module: &str) -> Event {
    message("acme", id, module, &format!("chat of {id}"))
}

/// Returns a chat message for a module.
fn message(tenant: &str, id: &str, module: &str, chat: &str) -> Event {
    let payload =
        serde_json::json!({ "module": module, "chatId": chat, "assistantId": "assistant_1", "text": "hello" });
    event_of(tenant, id, MESSAGE, &payload)
}

/// Returns an event whose user waits for a reply.
fn question(id: &str, module: &str) -> Event {
    let payload = serde_json::json!({
        "module": module,
        "name": module,
        "description": "",
        "configuration": {},
        "chatId": format!("chat of {id}"),
        "assistantId": "assistant_1",
        "userMessage": { "id": "msg_1", "text": "hello", "createdAt": "2026-01-01T00:00:00.000Z" },
        "assistantMessage": { "id": "msg_2", "createdAt": "2026-01-01T00:00:00.000Z" },
    });
    event_of("acme", id, Event::MODULE_CHOSEN, &payload)
}

fn event_of(tenant: &str, id: &str, name: &str, payload: &serde_json::Value) -> Event {
    let header = Header {
        id: id.to_owned(),
        source: "test".into(),
        name: name.to_owned(),
        tenant: tenant.into(),
        user_id: Some("user_1".to_owned()),
        company_id: Some("company_1".to_owned()),
        created_at: None,
    };
    let body = Bytes::from(payload.to_string());
    let whole = 0..body.len();
    Event::new(header, body, whole)
}

/// Returns the end of a module that answers.
fn answered() -> End {
    End::With(GuestOutcome::Answered)
}

/// Returns the end of a module that fails.
fn failed(retry: Retry) -> End {
    End::With(GuestOutcome::Failed(Failure { reason: "no seats".to_owned(), user_text: None, retry }))
}
