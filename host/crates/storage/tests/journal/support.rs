//! Support for the tests: events, times, and a journal of each engine.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use modhost_core::clock::ManualClock;
use modhost_core::event::{DeliveryId, Event, Header, Name};
use modhost_storage::error::StorageErrorKind;
use modhost_storage::journal::{
    Attempt, AttemptReport, Call, Claim, Claimed, CommitHandle, Disposition, Journal, JournalError, Lease, Memory,
    NewDelivery, Recorded, Sqlite, SqliteSettings, State,
};
use tempfile::TempDir;

/// The owner of every lease, unless a test says otherwise.
pub const OWNER: &str = "host-1";

/// A time, in milliseconds after the start of the tests' time.
pub fn at(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_790_000_000_000 + millis)
}

/// An event of tenant `acme` from source `unique`.
pub fn event(id: &str) -> Arc<Event> {
    event_of("acme", id)
}

/// An event of a tenant from source `unique`.
pub fn event_of(tenant: &str, id: &str) -> Arc<Event> {
    event_from("unique", tenant, id)
}

/// An event of a tenant from a source.
pub fn event_from(source: &str, tenant: &str, id: &str) -> Arc<Event> {
    let raw = format!(r#"{{"id":"{id}","event":"test.happened","payload":{{"word":"größer","of":"{id}"}},"extra":1}}"#);
    let start = raw.find(r#"{"word""#).expect("it stands there");
    let end = raw.find(r#","extra""#).expect("it stands there");
    let header = Header {
        id: id.to_owned(),
        source: source.into(),
        name: "test.happened".to_owned(),
        tenant: tenant.into(),
        user_id: Some("user_1".to_owned()),
        company_id: None,
        created_at: Some(1_790_000_000),
    };
    Arc::new(Event::new(header, Bytes::from(raw), start..end))
}

/// The delivery of an event to a module.
pub fn to(event: &Event, module: &str) -> NewDelivery {
    let module = Name::from(module);
    NewDelivery { id: DeliveryId::new(event, &module), module, one_at_a_time: None }
}

/// The delivery of an event to a module that runs one delivery of this chat at a time.
pub fn in_chat(event: &Event, module: &str, chat: &str) -> NewDelivery {
    NewDelivery { one_at_a_time: Some(chat.to_owned()), ..to(event, module) }
}

/// A storage engine of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Memory,
}

/// Runs tests against every engine: each is an `async fn(Engine)`.
macro_rules! on_every_engine {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test($crate::support::Engine::Sqlite).await;
                }
            )*
        }
        mod memory {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test($crate::support::Engine::Memory).await;
                }
            )*
        }
    };
}
pub(crate) use on_every_engine;

/// Opens the journal in a directory.
pub async fn open(directory: &Path) -> Sqlite {
    try_open(directory).await.expect("the journal opens")
}

/// Opens the journal in a directory, if possible.
pub async fn try_open(directory: &Path) -> Result<Sqlite, JournalError> {
    Sqlite::open(SqliteSettings { directory: directory.to_owned() }).await
}

/// Opens the journal in a directory with a clock.
pub async fn open_with_clock(directory: &Path, clock: &Arc<ManualClock>) -> Sqlite {
    let settings = SqliteSettings { directory: directory.to_owned() };
    Sqlite::open_with_clock(settings, clock.clone()).await.expect("the journal opens")
}

/// A journal in its own directory, with its own clock.
pub struct TestJournal {
    pub directory: TempDir,
    pub journal: Box<dyn Journal>,
    pub clock: Arc<ManualClock>,
    engine: Engine,
}

impl std::ops::Deref for TestJournal {
    type Target = dyn Journal;

    fn deref(&self) -> &Self::Target {
        &*self.journal
    }
}

impl TestJournal {
    pub async fn new(engine: Engine) -> Self {
        let directory = TempDir::new().expect("there is a place for it");
        let clock = Arc::new(ManualClock::new(at(0)));
        let journal: Box<dyn Journal> = match engine {
            Engine::Sqlite => Box::new(open_with_clock(directory.path(), &clock).await),
            Engine::Memory => Box::new(Memory::new(clock.clone(), fastrand_salt())),
        };
        Self { directory, journal, clock, engine }
    }

    pub async fn sqlite() -> Self {
        Self::new(Engine::Sqlite).await
    }

    /// Closes the journal and opens it again, if the engine keeps anything.
    pub async fn reopened(self) -> Self {
        let Self { directory, journal, clock, engine } = self;
        let journal = match engine {
            Engine::Sqlite => {
                journal.close().await.expect("it closes");
                drop(journal);
                Box::new(open_with_clock(directory.path(), &clock).await)
            }
            Engine::Memory => journal,
        };
        Self { directory, journal, clock, engine }
    }

    /// Sets the clock.
    pub fn at(&self, millis: u64) -> &Self {
        self.clock.set(at(millis));
        self
    }

    /// Records an event with one delivery, to module `Echo`.
    pub async fn one(&self, id: &str, millis: u64) -> DeliveryId {
        let event = event(id);
        let delivery = to(&event, "Echo");
        let recorded = self.at(millis).record(event, vec![delivery.clone()]).await.expect("it is recorded");
        assert_eq!(recorded, Recorded::New);
        delivery.id
    }

    /// Records an event with one delivery to module `Echo`, one at a time in a chat.
    pub async fn one_in_chat(&self, id: &str, chat: &str, millis: u64) -> DeliveryId {
        let event = event(id);
        let delivery = in_chat(&event, "Echo", chat);
        self.at(millis).record(event, vec![delivery.clone()]).await.expect("it is recorded");
        delivery.id
    }

    /// Records an event with one delivery, to module `Echo`, and claims that.
    pub async fn claimed(&self, id: &str, millis: u64) -> Claimed {
        let delivery = self.one(id, millis).await;
        let claimed = self.take(1, millis).await.pop().expect("one is due");
        assert_eq!(*claimed.id(), delivery, "another delivery was due");
        claimed
    }

    /// Claims due deliveries to module `Echo` of tenant `acme`, for [`OWNER`], for ten seconds.
    pub async fn take(&self, limit: u32, millis: u64) -> Vec<Claimed> {
        self.at(millis).claim(claim("acme", limit)).await.expect("it can be claimed")
    }

    /// Returns the ids of the deliveries that [`TestJournal::take`] takes.
    pub async fn take_ids(&self, limit: u32, millis: u64) -> Vec<DeliveryId> {
        self.take(limit, millis).await.into_iter().map(|claimed| claimed.lease.delivery).collect()
    }

    /// Completes an attempt.
    pub async fn end(&self, claimed: &Claimed, next: Disposition, millis: u64) {
        self.at(millis).complete_attempt(&claimed.lease, report(), next).await.expect("it is completed");
    }

    /// Completes an attempt; another follows at a time.
    pub async fn retry_at(&self, claimed: &Claimed, due: u64, millis: u64) {
        self.end(claimed, retry(due - millis), millis).await;
    }

    pub async fn state(&self, delivery: &DeliveryId) -> State {
        self.show(delivery).await.expect("it can be read").expect("it is there").summary.state
    }

    /// Claims the next delivery and completes it.
    pub async fn complete_next(&self, millis: u64) -> DeliveryId {
        let claimed = self.take(1, millis).await.pop().expect("one is due");
        self.end(&claimed, Disposition::Completed, millis).await;
        claimed.lease.delivery
    }
}

fn fastrand_salt() -> [u8; 32] {
    std::array::from_fn(|_| fastrand::u8(..))
}

/// A claim of deliveries of a tenant to module `Echo`, by [`OWNER`], for ten seconds.
pub fn claim(tenant: &str, limit: u32) -> Claim {
    Claim { tenant: tenant.into(), module: "Echo".into(), limit, owner: OWNER.into(), lease: Duration::from_secs(10) }
}

/// A lease that nobody holds.
pub fn lease(delivery: &DeliveryId) -> Lease {
    Lease { delivery: delivery.clone(), owner: OWNER.into(), attempt: 1 }
}

/// The report of an attempt that took 5 ms.
pub fn report() -> AttemptReport {
    AttemptReport {
        took: Duration::from_millis(5),
        version: Some("v1".to_owned()),
        outcome: "completed".to_owned(),
        log: Vec::new(),
    }
}

/// The attempt that a report describes, completed at a time.
pub fn attempt(claimed: &Claimed, report: AttemptReport, millis: u64) -> Attempt {
    let AttemptReport { took, version, outcome, log } = report;
    Attempt {
        number: claimed.attempt(),
        owner: claimed.lease.owner.to_string(),
        started: at(millis) - took,
        ended: at(millis),
        version,
        outcome,
        log,
    }
}

/// Another attempt follows after so many milliseconds.
pub fn retry(millis: u64) -> Disposition {
    Disposition::Retry { after: Duration::from_millis(millis), reason: "the platform is down".into() }
}

/// The delivery is given up.
pub fn dead() -> Disposition {
    Disposition::Dead { reason: "no more attempts".into() }
}

/// A call that was answered.
pub fn call(number: u32, answer: impl Into<Vec<u8>>) -> Call {
    let arguments = format!("arguments of {number}").into_bytes();
    Call { number, import: "search.search".into(), arguments, answer: Some(answer.into()), at: at(u64::from(number)) }
}

/// Waits until a write is durable.
pub async fn committed(write: Result<CommitHandle, JournalError>) {
    write.expect("it is queued").on_disk().await.expect("it is written");
}

/// Returns the kind and text of a storage error.
pub fn storage_error<T: std::fmt::Debug>(result: Result<T, JournalError>) -> (StorageErrorKind, String) {
    match result {
        Err(JournalError::Storage(error)) => (error.kind, error.to_string()),
        other => panic!("not a storage error: {other:?}"),
    }
}
