//! Deterministic tests of dispatch.
//!
//! The journal is in memory, the clock moves when the test moves it, and modules and platform do what the test says.
//! Everything runs on one thread, so a test decides every order by hand: it holds an operation of the journal, an attempt
//! or a call, does something else, and lets it go on. No test sleeps or reads a real clock. A test that waits for
//! something that does not come fails after a number of steps.

mod acceptance;
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
use modhost_core::event::interest::{Interest, NamePattern, Path};
use modhost_core::event::{DeliveryId, Event, Header, Name};
use modhost_core::limits::{Amounts, Limits};
use modhost_storage::journal::{Backlog, Details, Journal, Memory, Retention, State};
use modhost_storage::keyvalue::DryRunStore;

use super::{Accepted, DispatchSettings, Dispatcher, Refused, RouteSpec, TenantSpec, lock};
use crate::engine::{Ended, Failure, Retry};
use journal::GatedJournal;
use script::{End, ScriptedModules, ScriptedPlatform};

/// How often the other tasks get a turn before a test gives up on what it waits for.
const MAX_STEPS: usize = 2_000;

/// How often the other tasks get a turn until all of them wait for the test.
const SETTLED: usize = 40;

/// The owner of the leases of the host under test.
const OWNER: &str = "host-1";

/// The events for a module that end without a reply.
const MESSAGE: &str = "unique.chat.user-message.created";

/// A time that never comes in a test: what is due then is never due.
const NEVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A host under test.
struct World {
    clock: Arc<ManualClock>,
    journal: Arc<GatedJournal>,
    modules: ScriptedModules,
    platform: Arc<ScriptedPlatform>,
    dispatcher: Dispatcher,
}

/// What a host under test is made of.
struct Setup {
    concurrency: usize,
    max_deliveries: u64,
    /// How often the safety net looks for missed deliveries. Never, unless a test is about it: no other test passes
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

/// A module with the settings most tests use: two attempts after the first.
fn module(name: &str) -> RouteSpec {
    RouteSpec {
        module: name.into(),
        is_gone: false,
        wants: Interest {
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

/// A module whose deliveries of one chat run one at a time.
fn ordered(name: &str) -> RouteSpec {
    RouteSpec { ordered_by_chat: true, ..module(name) }
}

impl World {
    /// A host of the default setup that runs.
    async fn new() -> Self {
        Self::of(Setup::default()).await
    }

    /// A host that runs and whose background tasks all wait.
    async fn of(setup: Setup) -> Self {
        let world = Self::stopped(setup).await;
        world.dispatcher.run();
        world.settle().await;
        world
    }

    /// A host that has routes and does not run yet.
    async fn stopped(setup: Setup) -> Self {
        let clock = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000)));
        let journal = Arc::new(GatedJournal::new(Memory::new(clock.clone(), [7; 32])));
        Self::with(setup, clock, journal).await
    }

    /// A host on a journal that may have been another's.
    async fn with(setup: Setup, clock: Arc<ManualClock>, journal: Arc<GatedJournal>) -> Self {
        let settings = DispatchSettings {
            concurrency: setup.concurrency,
            max_deliveries: setup.max_deliveries,
            retention: Retention { completed: NEVER, dead: NEVER, ids: NEVER, max_bytes: None },
            owner: OWNER.into(),
            sweep_every: setup.sweep_every,
            removal_grace: Duration::ZERO,
            clock: clock.clone(),
        };
        let (modules, platform) = (ScriptedModules::new(), Arc::new(ScriptedPlatform::new()));
        let started =
            Dispatcher::start(Arc::new(modules.clone()), journal.clone(), Arc::new(DryRunStore), settings).await;
        let world = Self { clock, journal, modules, platform, dispatcher: started.unwrap().0 };
        world.set_routes(&setup.tenants, setup.modules);
        world
    }

    fn set_routes(&self, tenants: &[TenantSetup], modules: Vec<RouteSpec>) {
        let tenants = tenants.iter().map(|tenant| TenantSpec {
            name: tenant.name.into(),
            platform: self.platform.clone(),
            concurrency: tenant.concurrency,
            max_deliveries: tenant.max_deliveries,
            events_per_second: None,
            total_memory: None,
            ceilings: Amounts::default(),
            is_gone: false,
        });
        self.dispatcher.set_routes(tenants.collect(), modules, "sorry".into());
    }

    /// Lets every task run until all wait for the clock or for the test.
    async fn settle(&self) {
        for _ in 0..SETTLED {
            tokio::task::yield_now().await;
        }
    }

    /// Lets the tasks run until a condition holds.
    async fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        for _ in 0..MAX_STEPS {
            if condition() {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("{what} did not happen; running: {:?}", self.modules.running());
    }

    /// Moves the clock, and lets every task react.
    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.settle().await;
    }

    /// Accepts an event, as a client that waits for the answer.
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
            Accepted::Again => panic!("{} was known", event.id),
        }
    }

    /// Waits until an attempt at a delivery runs.
    async fn running(&self, delivery: &DeliveryId) {
        self.until(&format!("{delivery} to run"), || self.modules.running().contains(delivery)).await;
    }

    /// Ends the attempt at a delivery that runs, and lets every task react.
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

    /// Asserts that no capacity is reserved and that nothing waits or runs.
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

/// An event for a module that ends without a reply.
fn event(id: &str, module: &str) -> Event {
    message("acme", id, module, &format!("chat of {id}"))
}

/// A message of a chat for a module.
fn message(tenant: &str, id: &str, module: &str, chat: &str) -> Event {
    let payload =
        serde_json::json!({ "module": module, "chatId": chat, "assistantId": "assistant_1", "text": "hello" });
    event_of(tenant, id, MESSAGE, &payload)
}

/// An event whose user waits for a reply.
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

/// The module answers.
fn answered() -> End {
    End::With(Ended::Answered)
}

/// The module fails.
fn failed(retry: Retry) -> End {
    End::With(Ended::Failed(Failure { reason: "no seats".to_owned(), user_text: None, retry }))
}
