//! A data directory with something of everything.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use modhost_core::event::{DeliveryId, Event, Header, Name};
use modhost_core::limits::{Limit, LimitSource};
use modhost_storage::journal::{
    self, AttemptReport, Call, Claim, Claimed, Disposition, Filter, Journal, Lane, LogLine, NewDelivery, NewLease,
    SqliteSettings, TenantUsage,
};
use modhost_storage::keyvalue::{self, Bucket, Change, KeyValue, Space};
use modhost_storage::versions::{
    self, ContentHash, Entry, Fact, HeldBack, Keep, ModuleState, OperatorAction, Origin, Versions,
};
use tempfile::TempDir;

/// The owner of the leases of the stopped host.
pub const OWNER: &str = "this host";

pub const QUOTA: Limit = Limit { amount: 1 << 30, set_by: LimitSource::Module };

const LEASE: Duration = Duration::from_secs(30);

/// A data directory whose host has stopped.
pub struct Fixture {
    directory: TempDir,
}

/// Everything about a delivery, as text that can be compared.
pub type Deliveries = Vec<String>;

impl Fixture {
    /// A directory without any deliveries.
    pub async fn empty() -> Self {
        let fixture = Self { directory: tempfile::tempdir().unwrap() };
        fixture.journal().await.close().await.unwrap();
        fixture
    }

    /// A directory with deliveries in every state, values and versions.
    pub async fn new() -> Self {
        let fixture = Self { directory: tempfile::tempdir().unwrap() };
        let journal = fixture.journal().await;
        fill_journal(&journal).await;
        journal.close().await.unwrap();
        drop(journal);
        let store = keyvalue::Sqlite::open(fixture.directory().to_owned()).await.unwrap();
        fill_store(&store).await;
        store.close().await.unwrap();
        drop(store);
        fill_versions(&fixture.open_versions().await).await;
        fixture
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    async fn journal(&self) -> journal::Sqlite {
        journal::Sqlite::open(SqliteSettings { directory: self.directory().to_owned() }).await.unwrap()
    }

    async fn open_versions(&self) -> versions::Sqlite {
        let keep = Keep { of_module: 10, bytes: 1 << 30 };
        versions::Sqlite::open(self.directory().to_owned(), keep).await.unwrap()
    }

    /// All deliveries.
    pub async fn deliveries(&self) -> Deliveries {
        let journal = self.journal().await;
        let deliveries = deliveries_of(&journal).await;
        journal.close().await.unwrap();
        deliveries
    }

    /// The salt, what tenants use, and the lanes.
    pub async fn journal_totals(&self) -> ([u8; 32], Vec<TenantUsage>, Vec<Lane>) {
        let journal = self.journal().await;
        let mut usage = journal.usage();
        usage.sort_by(|a, b| a.tenant.cmp(&b.tenant));
        let mut lanes = journal.lanes().await.unwrap();
        lanes.sort_by(|a, b| (&a.tenant, &a.module).cmp(&(&b.tenant, &b.module)));
        let salt = journal.salt();
        journal.close().await.unwrap();
        (salt, usage, lanes)
    }

    /// The history of the module, and its state.
    pub async fn versions(&self) -> (Vec<String>, ModuleState) {
        let versions = self.open_versions().await;
        (plain(versions.history(&module()).await.unwrap()), versions.module_state(&module()))
    }
}

/// Returns everything about all deliveries of a journal, newest first.
pub async fn deliveries_of(journal: &dyn Journal) -> Deliveries {
    let mut deliveries = Vec::new();
    for summary in journal.list(Filter::default()).await.unwrap() {
        let details = journal.show(&summary.id).await.unwrap().unwrap();
        assert_eq!(details.summary, summary);
        let event = &details.event;
        deliveries.push(format!(
            "{summary:?} {:?} {:?} {:?} {:?} {:?}",
            event.raw(),
            event.payload_range(),
            details.changes,
            details.attempts,
            details.calls
        ));
    }
    deliveries
}

/// Entries without what differs between the stores.
pub fn plain(entries: Vec<Entry>) -> Vec<String> {
    let entries = entries.into_iter();
    entries
        .map(|it| {
            format!(
                "{} {:?} {:?} {:?} {:?} {:?} {:?}",
                it.hash, it.role, it.origin, it.requested_by, it.started_at, it.ended_at, it.reason
            )
        })
        .collect()
}

pub fn module() -> Name {
    "Echo".into()
}

pub fn bucket(name: &str) -> Bucket {
    let space = Space { tenant: "acme".into(), module: module() };
    Bucket::new(space, name.to_owned()).unwrap()
}

/// The components of the versions: a small one, and one of several parts.
pub fn components() -> Vec<(ContentHash, Vec<u8>)> {
    let large: Vec<u8> = (0..(5_usize << 19)).map(|byte| (byte % 251) as u8).collect();
    [b"first".to_vec(), large].into_iter().map(|bytes| (ContentHash::of(&bytes), bytes)).collect()
}

/// Creates an event of a tenant.
pub fn event(tenant: &str, id: &str) -> Arc<Event> {
    let raw = format!(r#"{{"id":"{id}","payload":{{"word":"größer"}}}}"#);
    let start = raw.find(r#"{"word""#).unwrap();
    let end = raw.len() - 1;
    let header = Header {
        id: id.to_owned(),
        source: "unique".into(),
        name: "test.happened".to_owned(),
        tenant: tenant.into(),
        user_id: Some("user_1".to_owned()),
        company_id: None,
        created_at: Some(1_790_000_000),
    };
    Arc::new(Event::new(header, Bytes::from(raw), start..end))
}

/// Creates the delivery of an event to the module.
pub fn new_delivery(event: &Event, chat: Option<&str>) -> NewDelivery {
    let module = module();
    let ordered_chat = chat.map(str::to_owned);
    NewDelivery { id: DeliveryId::new(event, &module), module, ordered_chat, lease: None }
}

/// Creates the report of an attempt.
pub fn report(outcome: &str) -> AttemptReport {
    let line =
        LogLine { at: 1_790_000_000_000, level: "info".into(), context: "stdout".into(), text: "größer".into() };
    let version = Some("v1".to_owned());
    AttemptReport { took: Duration::from_millis(5), version, outcome: outcome.to_owned(), log: vec![line] }
}

/// Claims all due deliveries of tenant `acme`.
pub async fn claim_all(journal: &dyn Journal) -> Vec<Claimed> {
    let (tenant, module) = ("acme".into(), module());
    journal.claim(Claim { tenant, module, limit: 100, owner: OWNER.into(), lease: LEASE }).await.unwrap()
}

async fn record(journal: &dyn Journal, tenant: &str, id: &str, chat: Option<&str>, is_leased: bool) {
    let event = event(tenant, id);
    let lease = is_leased.then(|| NewLease { owner: OWNER.into(), duration: LEASE });
    let delivery = NewDelivery { lease, ..new_delivery(&event, chat) };
    assert!(journal.record(event, vec![delivery]).await.unwrap().is_new());
}

/// Records an event, claims its delivery and makes calls.
async fn run(journal: &dyn Journal, id: &str) -> Claimed {
    record(journal, "acme", id, None, false).await;
    let claimed = claim_all(journal).await.pop().unwrap();
    assert_eq!(claimed.event.id, id);
    for number in 0..3 {
        // The last one is in flight, and the one before has a large answer.
        let answer = (number < 2).then(|| vec![u8::try_from(number).unwrap(); 1 + 300_000 * number as usize]);
        let arguments = format!("arguments of {number}").into_bytes();
        let call = Call { number, import: "search.search".into(), arguments, answer, at: SystemTime::UNIX_EPOCH };
        journal.write(&claimed.lease, call).unwrap().durable().await.unwrap();
    }
    claimed
}

async fn fill_journal(journal: &dyn Journal) {
    let end = async |id: &str, next: Disposition| {
        let claimed = run(journal, id).await;
        journal.complete_attempt(&claimed.lease, report("an outcome"), next).await.unwrap();
        claimed.lease.delivery
    };
    end("evt_completed", Disposition::Completed).await;
    end("evt_dead", Disposition::Dead { reason: "no more attempts".into() }).await;
    end("evt_dropped", Disposition::Dropped { reason: "not wanted".into() }).await;
    let resent = end("evt_resent", Disposition::Completed).await;
    journal.resend(&resent, false).await.unwrap();
    let claimed = claim_all(journal).await.pop().unwrap();
    journal.complete_attempt(&claimed.lease, report("again"), Disposition::Completed).await.unwrap();
    let after = Duration::from_secs(3600);
    end("evt_retry", Disposition::Retry { after, reason: "the platform is down".into() }).await;

    let none = event("acme", "evt_without_deliveries");
    journal.record(none, Vec::new()).await.unwrap();
    let two = event("acme", "evt_two");
    let other =
        NewDelivery { module: "Other".into(), id: DeliveryId::new(&two, &"Other".into()), ..new_delivery(&two, None) };
    journal.record(two.clone(), vec![new_delivery(&two, None), other]).await.unwrap();
    for tenant in ["globex", "initech"] {
        record(journal, tenant, "evt_completed", None, false).await;
    }
    let long_chat = "chat".repeat(100);
    for id in ["evt_chat_1", "evt_chat_2", "evt_chat_3"] {
        record(journal, "acme", id, Some(&long_chat), false).await;
    }
    run_one(journal).await;
    // The host is killed while these run.
    record(journal, "acme", "evt_leased", None, true).await;
}

/// Claims a delivery that goes on running.
async fn run_one(journal: &dyn Journal) {
    let (tenant, module) = ("acme".into(), module());
    let claim = Claim { tenant, module, limit: 1, owner: OWNER.into(), lease: LEASE };
    assert_eq!(journal.claim(claim).await.unwrap().len(), 1);
}

async fn fill_store(store: &dyn KeyValue) {
    let entries = [("key", vec![0, 1, 255]), ("größe", b"17".to_vec()), ("a\0b", b"nul".to_vec())];
    let set = Change::Set(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect());
    store.change(&bucket("notes"), set, QUOTA, "set-once").await.unwrap();
    let increment = Change::Increment { key: "hits".to_owned(), delta: 5 };
    store.change(&bucket("counts"), increment, QUOTA, "increment-once").await.unwrap();
}

async fn fill_versions(versions: &dyn Versions) {
    let module = module();
    let by =
        || OperatorAction { by: "anna".into(), at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_790_000_000_123) };
    let mut epoch = versions.module_state(&module).epoch;
    for (number, (hash, bytes)) in components().into_iter().enumerate() {
        versions.keep(hash, bytes.into()).await.unwrap();
        let mut facts = vec![Fact::Serves { hash, origin: Origin::File, by: None }];
        if number == 1 {
            facts.push(Fact::Pinned(Some((hash, by()))));
            facts.push(Fact::Paused(Some(by())));
            facts.push(Fact::HeldBack(Some(HeldBack { hash, why: "rolled back".into() })));
        }
        epoch = versions.note(&module, epoch, facts).await.unwrap();
    }
}
