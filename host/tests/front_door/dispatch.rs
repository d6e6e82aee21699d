//! Tests of dispatch as a library: interleavings that a client can't produce reliably.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use modhost_core::backoff::{Backoff, RetryPolicy};
use modhost_core::clock::SystemClock;
use modhost_core::event::event_filter::{EventFilter, NamePattern};
use modhost_core::event::{DeliveryId, Event, Header, Name};
use modhost_core::limits::{DEFAULT_CPU_WEIGHT, LimitAmounts, Limits};
use modhost_core::metrics;
use modhost_platform::{
    CallError, Caller, DryRunPlatform, Message, MessageChange, Platform, Result as PlatformResult, Role,
};
use modhost_runtime::capabilities::Grants;
use modhost_runtime::dispatch::{Accepted, DispatchSettings, Dispatcher, RouteSpec, SWEEP_EVERY, TenantSpec};
use modhost_runtime::engine::{Engine, Registry, Spec, SwapPolicy};
use modhost_storage::cluster::{HostInfo, SingleHost};
use modhost_storage::error::StorageError;
use modhost_storage::journal::{
    AttemptReport, Backlog, Call, Claim, Claimed, CommitHandle, Details, Disposition, Due, Filter, Heartbeat, Journal,
    Lane, Lease, NewDelivery, Recorded, Result, Retention, Sqlite, SqliteSettings, State, Summary, TenantLimits,
    TenantUsage, Totals,
};
use modhost_storage::keyvalue;
use modhost_storage::versions::{self, Keep};
use tempfile::TempDir;
use tokio::sync::{Notify, Semaphore};

use super::harness::{chosen, small, until};

const OWNER: &str = "this host";
const NEVER: Duration = Duration::from_secs(86_400);

/// A journal that can block an operation after its commit, and can make claims fail.
struct BlockingJournal {
    inner: Sqlite,
    /// The operation to block after its commit.
    blocked: Mutex<Option<&'static str>>,
    committed: Notify,
    unblock: Semaphore,
    /// The modules whose claims fail.
    failing: Mutex<Vec<Name>>,
    claims: Mutex<HashMap<Name, usize>>,
    /// The number of times the scheduler listed all lanes.
    listings: AtomicUsize,
}

impl BlockingJournal {
    async fn after_commit(&self, operation: &'static str) {
        let is_blocked = self.blocked.lock().unwrap().take_if(|blocked| *blocked == operation).is_some();
        if is_blocked {
            self.committed.notify_one();
            self.unblock.acquire().await.unwrap().forget();
        }
    }

    /// Blocks the next operation of this name.
    fn block_next(&self, operation: &'static str) {
        *self.blocked.lock().unwrap() = Some(operation);
    }

    fn claims_of(&self, module: &str) -> usize {
        self.claims.lock().unwrap().get(module).copied().unwrap_or_default()
    }
}

#[async_trait]
impl Journal for BlockingJournal {
    async fn record(&self, event: Arc<Event>, mut deliveries: Vec<NewDelivery>) -> Result<Recorded> {
        // Every delivery is claimed, so that its claim can be blocked.
        deliveries.iter_mut().for_each(|new| new.lease = None);
        let recorded = self.inner.record(event, deliveries).await;
        self.after_commit("record").await;
        recorded
    }

    async fn lanes(&self) -> Result<Vec<Lane>> {
        self.inner.lanes().await
    }

    fn backlog(&self, tenant: &Name) -> Backlog {
        self.inner.backlog(tenant)
    }

    fn usage(&self) -> Vec<TenantUsage> {
        self.inner.usage()
    }

    async fn due(&self, limit: u32) -> Result<Vec<Due>> {
        self.inner.due(limit).await
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<Claimed>> {
        *self.claims.lock().unwrap().entry(claim.module.clone()).or_default() += 1;
        if self.failing.lock().unwrap().contains(&claim.module) {
            return Err(StorageError::broken("journal", "a page of this lane is damaged").into());
        }
        self.inner.claim(claim).await
    }

    async fn unclaim(&self, lease: &Lease) -> Result<bool> {
        self.inner.unclaim(lease).await
    }

    async fn next_due(&self) -> Result<Option<Duration>> {
        let next = self.inner.next_due().await;
        self.listings.fetch_add(1, Ordering::SeqCst);
        next
    }

    async fn heartbeat(&self, owner: &str, running: Vec<Lease>, lease: Duration) -> Result<Heartbeat> {
        self.inner.heartbeat(owner, running, lease).await
    }

    async fn reclaim(&self, gone: Option<&str>) -> Result<u64> {
        self.inner.reclaim(gone).await
    }

    async fn complete_attempt(&self, lease: &Lease, report: AttemptReport, next: Disposition) -> Result<bool> {
        self.inner.complete_attempt(lease, report, next).await
    }

    async fn calls(&self, delivery: &DeliveryId) -> Result<Vec<Call>> {
        self.inner.calls(delivery).await
    }

    fn write(&self, lease: &Lease, call: Call) -> Result<CommitHandle> {
        self.inner.write(lease, call)
    }

    fn forget(&self, lease: &Lease, from: u32) -> Result<CommitHandle> {
        self.inner.forget(lease, from)
    }

    async fn list(&self, filter: Filter) -> Result<Vec<Summary>> {
        self.inner.list(filter).await
    }

    async fn show(&self, delivery: &DeliveryId) -> Result<Option<Details>> {
        self.inner.show(delivery).await
    }

    async fn resend(&self, delivery: &DeliveryId, fresh: bool) -> Result<bool> {
        let resent = self.inner.resend(delivery, fresh).await;
        self.after_commit("resend").await;
        resent
    }

    async fn drop_waiting(&self, delivery: &DeliveryId, reason: &str) -> Result<bool> {
        let dropped = self.inner.drop_waiting(delivery, reason).await;
        self.after_commit("drop_waiting").await;
        dropped
    }

    async fn totals(&self) -> Result<Totals> {
        self.inner.totals().await
    }

    fn health(&self) -> Result<()> {
        self.inner.health()
    }

    async fn probe(&self) -> Result<()> {
        self.inner.probe().await
    }

    fn salt(&self) -> [u8; 32] {
        self.inner.salt()
    }

    async fn purge(&self, keep: Retention, batch: u32) -> Result<u64> {
        self.inner.purge(keep, batch).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

/// The platform's behavior when a message is modified.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Behavior {
    Accepts,
    Blocks,
    Panics,
}

/// A platform that records the texts it receives.
struct FarSide {
    behavior: Behavior,
    written: Mutex<Vec<Option<String>>>,
    calls_received: AtomicUsize,
    release: Semaphore,
}

#[async_trait]
impl Platform for FarSide {
    fn unsupported(&self, what: &str) -> CallError {
        DryRunPlatform::default().unsupported(what)
    }

    fn changes_messages(&self) -> bool {
        true
    }

    async fn modify_message(&self, _: &Caller, _: &str, id: &str, change: &MessageChange) -> PlatformResult<Message> {
        self.calls_received.fetch_add(1, Ordering::SeqCst);
        match self.behavior {
            Behavior::Accepts => {}
            Behavior::Blocks => self.release.acquire().await.unwrap().forget(),
            Behavior::Panics => panic!("at the disco"),
        }
        self.written.lock().unwrap().push(change.text.clone());
        let (id, text) = (id.to_owned(), change.text.clone());
        Ok(Message { id, role: Role::Assistant, text, references: Vec::new(), created_at: None })
    }
}

/// A dispatcher with a journal of its own.
struct Dispatch {
    _directory: TempDir,
    journal: Arc<BlockingJournal>,
    far_side: Arc<FarSide>,
    registry: Arc<Registry>,
    dispatcher: Dispatcher,
}

impl Dispatch {
    /// Creates a dispatcher with these modules; each replies to every event.
    async fn new(modules: &[&str], behavior: Behavior, sweep_every: Duration) -> Self {
        metrics::start();
        let directory = TempDir::new().unwrap();
        let path = directory.path().to_owned();
        let inner = Sqlite::open(SqliteSettings { directory: path.clone() }).await.unwrap();
        let journal = Arc::new(BlockingJournal {
            inner,
            blocked: Mutex::default(),
            committed: Notify::new(),
            unblock: Semaphore::new(0),
            failing: Mutex::default(),
            claims: Mutex::default(),
            listings: AtomicUsize::new(0),
        });
        let far_side = Arc::new(FarSide {
            behavior,
            written: Mutex::default(),
            calls_received: AtomicUsize::new(0),
            release: Semaphore::new(0),
        });
        let versions = versions::Sqlite::open(path.clone(), Keep { of_module: 2, bytes: 1 << 20 }).await.unwrap();
        let registry = Arc::new(Registry::new(Engine::new(4).unwrap(), Arc::new(versions), journal.clone()));
        let keyvalue = Arc::new(keyvalue::Sqlite::open(path.clone()).await.unwrap());
        let day = Duration::from_secs(86_400);
        let settings = DispatchSettings {
            concurrency: 4,
            max_deliveries: 1000,
            guest_memory: u64::MAX,
            retention: Retention {
                completed: day,
                dead: day,
                ids: day,
                max_bytes: None,
                tenant_limits: TenantLimits::new(),
            },
            cluster: Arc::new(SingleHost::new(Arc::new(SystemClock))),
            host: HostInfo {
                owner: OWNER.into(),
                name: OWNER.to_owned(),
                admin: None,
                version: String::new(),
                settings: String::new(),
                modules: Default::default(),
            },
            removal_grace: Duration::ZERO,
            sweep_every,
            clock: Arc::new(SystemClock),
        };
        let (dispatcher, _) = Dispatcher::start(registry.clone(), journal.clone(), keyvalue, settings).await.unwrap();
        let dispatch = Self { _directory: directory, journal, far_side, registry, dispatcher };
        dispatch.configure(modules, &path);
        dispatch.registry.wait_until_loaded().await;
        dispatch.dispatcher.run();
        dispatch
    }

    fn configure(&self, modules: &[&str], folder: &std::path::Path) {
        let component = folder.join("module.wasm");
        std::fs::write(&component, small("hello")).unwrap();
        let specs = modules.iter().map(|module| Spec {
            name: Name::from(*module),
            tenants: Vec::new(),
            component: component.clone(),
            limits: Limits::default(),
            grants: Grants::default(),
            swap: SwapPolicy::default(),
        });
        let routes = modules.iter().map(|module| RouteSpec {
            module: Name::from(*module),
            platform_name: Name::from(*module),
            owner: None,
            is_removed: false,
            wants: EventFilter {
                events: vec![NamePattern::Exact(Event::MODULE_CHOSEN.into())],
                sources: Vec::new(),
                tenants: Vec::new(),
                assistants: Vec::new(),
                fields: Default::default(),
            },
            concurrency: 1,
            ordered_by_chat: false,
            resume: true,
            retry: RetryPolicy {
                attempts: 2,
                backoff: Backoff::new(Duration::from_millis(1), Duration::from_millis(1)),
            },
            apology: "sorry".into(),
            retry_notice: "wait".into(),
            limits: Limits::default(),
        });
        let tenant = TenantSpec {
            name: "acme".into(),
            is_removed: false,
            platform: self.far_side.clone(),
            concurrency: 4,
            max_deliveries: 1000,
            events_per_second: None,
            total_memory: None,
            total_journal: None,
            log_rate: u32::MAX,
            cpu_weight: DEFAULT_CPU_WEIGHT,
            ceilings: LimitAmounts::default(),
        };
        let (specs, routes) = (specs.collect(), routes.collect());
        self.registry.set(specs, || self.dispatcher.set_routes(vec![tenant], routes, "sorry".into()));
    }

    /// Records an event without the dispatcher, as if the process that recorded it had stopped right after the commit.
    async fn record_unnoticed(&self, event: &Event, module: &str) -> DeliveryId {
        // The scheduler lists all lanes once when it starts.
        until("the scheduler to list all lanes", async || {
            (self.journal.listings.load(Ordering::SeqCst) > 0).then_some(())
        })
        .await;
        let (id, module) = (DeliveryId::new(event, &module.into()), Name::from(module));
        let new = NewDelivery { id: id.clone(), module, ordered_chat: None, lease: None };
        self.journal.inner.record(Arc::new(event.clone()), vec![new]).await.unwrap();
        id
    }

    async fn state(&self, delivery: &DeliveryId) -> State {
        self.journal.show(delivery).await.unwrap().unwrap().summary.state
    }

    async fn in_state(&self, delivery: &DeliveryId, state: State) -> Details {
        until(&format!("{delivery} to be {state}"), async || {
            self.journal.show(delivery).await.unwrap().filter(|details| details.summary.state == state)
        })
        .await
    }
}

fn event(number: usize, module: &str) -> Event {
    let event = chosen(&format!("evt_{number}"), module, "hello");
    let payload = event["payload"].to_string();
    let header = Header {
        id: format!("evt_{number}"),
        source: Name::from("test"),
        name: Event::MODULE_CHOSEN.to_owned(),
        tenant: Name::from("acme"),
        user_id: Some("user_1".into()),
        company_id: Some("company_1".into()),
        created_at: None,
    };
    let whole = 0..payload.len();
    Event::new(header, payload.into(), whole)
}

/// Starts an operation, cancels its client after the commit, and then unblocks the operation.
async fn hang_up_after_commit<T: std::fmt::Debug + Send + 'static>(
    dispatch: &Dispatch,
    operation: &'static str,
    work: impl Future<Output = T> + Send + 'static,
) {
    dispatch.journal.block_next(operation);
    let client = tokio::spawn(work);
    dispatch.journal.committed.notified().await;
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    dispatch.journal.unblock.add_permits(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_an_event_whose_client_disconnects_during_the_commit() {
    let dispatch = Dispatch::new(&["Echo"], Behavior::Accepts, NEVER).await;
    let (event, dispatcher) = (event(1, "Echo"), dispatch.dispatcher.clone());
    let (delivery, sent) = (DeliveryId::new(&event, &"Echo".into()), event.clone());
    let accepted = Arc::new(AtomicUsize::new(0));
    let counted = accepted.clone();
    hang_up_after_commit(&dispatch, "record", async move {
        let count = move |_: &_| {
            counted.fetch_add(1, Ordering::SeqCst);
        };
        dispatcher.accept_then(sent, count).await
    })
    .await;
    dispatch.in_state(&delivery, State::Completed).await;
    assert_eq!(accepted.load(Ordering::SeqCst), 1, "the event wasn't counted");
    assert_eq!(dispatch.dispatcher.accept(event).await.unwrap(), Accepted::Duplicate);
    assert_eq!(dispatch.journal.backlog(&"acme".into()), Backlog::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn redelivered_event_wakes_its_recorded_delivery() {
    let dispatch = Dispatch::new(&["Echo"], Behavior::Accepts, NEVER).await;
    let event = event(1, "Echo");
    let delivery = dispatch.record_unnoticed(&event, "Echo").await;
    assert_eq!(dispatch.state(&delivery).await, State::Waiting);
    assert_eq!(dispatch.dispatcher.accept(event).await.unwrap(), Accepted::Duplicate);
    dispatch.in_state(&delivery, State::Completed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sweep_runs_and_counts_missed_deliveries() {
    assert!(SWEEP_EVERY < Duration::from_secs(120));
    let dispatch = Dispatch::new(&["Echo"], Behavior::Accepts, Duration::from_millis(50)).await;
    let delivery = dispatch.record_unnoticed(&event(1, "Echo"), "Echo").await;
    dispatch.in_state(&delivery, State::Completed).await;
    let figures = metrics::render();
    let found = figures.lines().find_map(|line| line.strip_prefix("modhost_missed_wakeups_total "));
    assert_eq!(found, Some("1"), "{figures}");
}

#[tokio::test(flavor = "multi_thread")]
async fn applies_an_operation_whose_operator_disconnects_after_the_commit() {
    let dispatch = Dispatch::new(&["Echo"], Behavior::Accepts, NEVER).await;
    let delivery = dispatch.record_unnoticed(&event(1, "Echo"), "Echo").await;
    let details = dispatch.journal.show(&delivery).await.unwrap().unwrap();
    let operation = |dispatcher: Dispatcher, details: Details| async move {
        let inside = dispatcher.clone();
        dispatcher.run_to_completion(async move { inside.drop_waiting(&details, "not needed").await }).await
    };
    hang_up_after_commit(&dispatch, "drop_waiting", operation(dispatch.dispatcher.clone(), details)).await;
    until("the apology to be written", async || {
        dispatch.far_side.written.lock().unwrap().contains(&Some("sorry".into())).then_some(())
    })
    .await;

    let details = dispatch.in_state(&delivery, State::Dropped).await;
    let (dispatcher, inside) = (dispatch.dispatcher.clone(), dispatch.dispatcher.clone());
    hang_up_after_commit(&dispatch, "resend", async move {
        dispatcher.run_to_completion(async move { inside.resend(&details, true).await }).await
    })
    .await;
    dispatch.in_state(&delivery, State::Completed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_an_attempt_that_panics() {
    let dispatch = Dispatch::new(&["Echo"], Behavior::Panics, NEVER).await;
    let event = event(1, "Echo");
    let delivery = DeliveryId::new(&event, &"Echo".into());
    dispatch.dispatcher.accept(event).await.unwrap();
    let details = dispatch.in_state(&delivery, State::Dead).await;
    let outcomes: Vec<&str> = details.attempts.iter().map(|attempt| &*attempt.outcome).collect();
    assert_eq!(outcomes.len(), 2, "{outcomes:?}");
    assert!(
        outcomes.iter().all(|outcome| outcome.contains("internal error in the host: at the disco")),
        "{outcomes:?}"
    );
    assert_eq!(dispatch.journal.backlog(&"acme".into()), Backlog::default());
    until("its slot to be free", async || (dispatch.dispatcher.in_flight(&"Echo".into()) == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_claims_do_not_block_other_lanes() {
    let dispatch = Dispatch::new(&["Bad", "Good"], Behavior::Accepts, NEVER).await;
    dispatch.journal.failing.lock().unwrap().push("Bad".into());
    let bad = event(0, "Bad");
    let waiting = DeliveryId::new(&bad, &"Bad".into());
    dispatch.dispatcher.accept(bad).await.unwrap();
    until("a claim to fail", async || (dispatch.journal.claims_of("Bad") > 0).then_some(())).await;
    for number in 1..=30 {
        let event = event(number, "Good");
        let delivery = DeliveryId::new(&event, &"Good".into());
        dispatch.dispatcher.accept(event).await.unwrap();
        dispatch.in_state(&delivery, State::Completed).await;
    }
    // The scheduler backs off from the failing lane; without backoff it would try as often as for the others.
    let tried = dispatch.journal.claims_of("Bad");
    assert!(tried < 15, "{tried} claims");
    assert_eq!(dispatch.state(&waiting).await, State::Waiting);
    dispatch.journal.failing.lock().unwrap().clear();
    dispatch.in_state(&waiting, State::Completed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempt_ends_without_writing_when_its_lease_is_lost() {
    let dispatch = Dispatch::new(&["Echo"], Behavior::Blocks, NEVER).await;
    let event = event(1, "Echo");
    let (delivery, echo) = (DeliveryId::new(&event, &"Echo".into()), Name::from("Echo"));
    dispatch.dispatcher.accept(event).await.unwrap();
    until("the call", async || (dispatch.far_side.calls_received.load(Ordering::SeqCst) == 1).then_some(())).await;
    // As if this host had been suspended and another host had reclaimed its deliveries.
    assert_eq!(dispatch.journal.reclaim(Some(OWNER)).await.unwrap(), 1);
    let claim =
        Claim { tenant: "acme".into(), module: echo.clone(), limit: 1, owner: "another host".into(), lease: NEVER };
    assert_eq!(dispatch.journal.inner.claim(claim).await.unwrap().len(), 1);
    until("the attempt to end", async || (dispatch.dispatcher.in_flight(&echo) == 0).then_some(())).await;

    // The call in flight completes, but its answer isn't written: the call log belongs to another host now.
    dispatch.far_side.release.add_permits(100);
    until("the call to end", async || (!dispatch.far_side.written.lock().unwrap().is_empty()).then_some(())).await;
    dispatch.journal.probe().await.unwrap(); // the probe commits, so earlier writes are on disk
    let details = dispatch.journal.show(&delivery).await.unwrap().unwrap();
    assert_eq!((details.summary.state, details.attempts.len()), (State::Running, 0));
    assert_eq!(details.calls.iter().map(|call| call.answer.clone()).collect::<Vec<_>>(), [None]);
    assert_eq!(dispatch.far_side.written.lock().unwrap().len(), 1, "a text was written for the user");
}
