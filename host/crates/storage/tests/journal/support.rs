//! Support for the tests: events, times, and a journal of each engine.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use modhost_core::clock::ManualClock;
use modhost_core::event::{DeliveryId, Event, Header, Name};
use modhost_core::secret::Secret;
use modhost_storage::error::StorageErrorKind;
use modhost_storage::journal::{
    Attempt, AttemptReport, Call, Claim, Claimed, CommitHandle, Disposition, Journal, JournalError, Lease, Memory,
    NewDelivery, Postgres, Sqlite, SqliteSettings, State,
};
use modhost_storage::postgres::Database;
use tempfile::TempDir;

use crate::postgres_server::PostgresServer;

/// The default owner of leases.
pub const OWNER: &str = "host-1";

/// Returns the time that many milliseconds after the epoch of the tests.
pub fn at(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_790_000_000_000 + millis)
}

/// Creates an event of tenant `acme` from source `unique`.
pub fn event(id: &str) -> Arc<Event> {
    event_of("acme", id)
}

/// Creates an event of a tenant from source `unique`.
pub fn event_of(tenant: &str, id: &str) -> Arc<Event> {
    event_from("unique", tenant, id)
}

/// Creates an event of a tenant from a source.
pub fn event_from(source: &str, tenant: &str, id: &str) -> Arc<Event> {
    let raw = format!(r#"{{"id":"{id}","event":"test.happened","payload":{{"word":"größer","of":"{id}"}},"extra":1}}"#);
    let start = raw.find(r#"{"word""#).expect("no payload in the body");
    let end = raw.find(r#","extra""#).expect("no end of the payload in the body");
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

/// Creates the delivery of an event to a module.
pub fn to(event: &Event, module: &str) -> NewDelivery {
    let module = Name::from(module);
    NewDelivery { id: DeliveryId::new(event, &module), module, ordered_chat: None, lease: None }
}

/// Creates the delivery of an event to a module that runs one delivery of this chat at a time.
pub fn in_chat(event: &Event, module: &str, chat: &str) -> NewDelivery {
    NewDelivery { ordered_chat: Some(chat.to_owned()), ..to(event, module) }
}

/// A storage engine of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Memory,
    Postgres,
}

/// Runs each test, an `async fn(Engine)`, with every engine.
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
        mod postgres {
            $(
                #[tokio::test]
                async fn $test() {
                    if $crate::postgres_server::PostgresServer::shared().is_some() {
                        super::$test($crate::support::Engine::Postgres).await;
                    }
                }
            )*
        }
    };
}
pub(crate) use on_every_engine;

/// Opens the journal in a directory.
pub async fn open(directory: &Path) -> Sqlite {
    try_open(directory).await.expect("cannot open the journal")
}

/// Opens the journal in a directory, if possible.
pub async fn try_open(directory: &Path) -> Result<Sqlite, JournalError> {
    Sqlite::open(SqliteSettings { directory: directory.to_owned() }).await
}

/// Opens the journal in a directory with a clock.
pub async fn open_with_clock(directory: &Path, clock: &Arc<ManualClock>) -> Sqlite {
    let settings = SqliteSettings { directory: directory.to_owned() };
    Sqlite::open_with_clock(settings, clock.clone()).await.expect("cannot open the journal")
}

/// Creates an empty database on the tests' PostgreSQL server, which must be there. Returns its URL.
pub fn new_database() -> String {
    PostgresServer::shared().expect("PostgreSQL is not installed").new_database()
}

/// Returns the database with a URL.
pub fn database(url: &str) -> Database {
    Database::new(&Secret::new(url)).expect("cannot use the URL")
}

/// Opens the journal in a PostgreSQL database.
pub async fn open_postgres(url: &str) -> Postgres {
    Postgres::open(database(url)).await.expect("cannot open the journal")
}

/// Opens the journal in a PostgreSQL database with a clock.
pub async fn open_postgres_with_clock(url: &str, clock: &Arc<ManualClock>) -> Postgres {
    Postgres::open_with_clock(database(url), clock.clone()).await.expect("cannot open the journal")
}

/// A journal in a temporary directory or a database of its own, with a manual clock.
pub struct TestJournal {
    pub directory: TempDir,
    /// The URL of the database; empty if there is none.
    pub url: String,
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
        let directory = TempDir::new().expect("cannot create a temporary directory");
        let clock = Arc::new(ManualClock::new(at(0)));
        let url = if engine == Engine::Postgres { new_database() } else { String::new() };
        let journal: Box<dyn Journal> = match engine {
            Engine::Sqlite => Box::new(open_with_clock(directory.path(), &clock).await),
            Engine::Memory => Box::new(Memory::new(clock.clone(), random_salt())),
            Engine::Postgres => Box::new(open_postgres_with_clock(&url, &clock).await),
        };
        Self { directory, url, journal, clock, engine }
    }

    pub async fn sqlite() -> Self {
        Self::new(Engine::Sqlite).await
    }

    /// Opens the SQLite journal in a directory.
    pub async fn in_directory(directory: TempDir, clock: Arc<ManualClock>) -> Self {
        let journal = Box::new(open_with_clock(directory.path(), &clock).await);
        Self { directory, url: String::new(), journal, clock, engine: Engine::Sqlite }
    }

    /// Closes the journal. Returns its directory and clock.
    pub async fn closed(self) -> (TempDir, Arc<ManualClock>) {
        self.journal.close().await.expect("cannot close the journal");
        (self.directory, self.clock)
    }

    /// Closes the journal and opens it again. The in-memory journal stays open.
    pub async fn reopened(self) -> Self {
        let Self { directory, url, journal, clock, engine } = self;
        let journal: Box<dyn Journal> = match engine {
            Engine::Sqlite => {
                journal.close().await.expect("cannot close the journal");
                drop(journal);
                Box::new(open_with_clock(directory.path(), &clock).await)
            }
            Engine::Memory => journal,
            Engine::Postgres => {
                journal.close().await.expect("cannot close the journal");
                drop(journal);
                Box::new(open_postgres_with_clock(&url, &clock).await)
            }
        };
        Self { directory, url, journal, clock, engine }
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
        let recorded = self.at(millis).record(event, vec![delivery.clone()]).await.expect("cannot record the event");
        assert!(recorded.is_new());
        delivery.id
    }

    /// Records an event with one delivery to module `Echo`, one at a time in a chat.
    pub async fn one_in_chat(&self, id: &str, chat: &str, millis: u64) -> DeliveryId {
        let event = event(id);
        let delivery = in_chat(&event, "Echo", chat);
        self.at(millis).record(event, vec![delivery.clone()]).await.expect("cannot record the event");
        delivery.id
    }

    /// Records an event with one delivery, to module `Echo`, and claims the delivery.
    pub async fn claimed(&self, id: &str, millis: u64) -> Claimed {
        let delivery = self.one(id, millis).await;
        let claimed = self.take(1, millis).await.pop().expect("no delivery is due");
        assert_eq!(*claimed.id(), delivery, "claimed another delivery");
        claimed
    }

    /// Claims due deliveries of tenant `acme` to module `Echo` for [`OWNER`], with leases of ten seconds.
    pub async fn take(&self, limit: u32, millis: u64) -> Vec<Claimed> {
        self.at(millis).claim(claim("acme", limit)).await.expect("cannot claim deliveries")
    }

    /// Claims due deliveries as [`TestJournal::take`] does, and returns their ids.
    pub async fn take_ids(&self, limit: u32, millis: u64) -> Vec<DeliveryId> {
        self.take(limit, millis).await.into_iter().map(|claimed| claimed.lease.delivery).collect()
    }

    /// Completes an attempt.
    pub async fn end(&self, claimed: &Claimed, next: Disposition, millis: u64) {
        self.at(millis).complete_attempt(&claimed.lease, report(), next).await.expect("cannot complete the attempt");
    }

    /// Completes an attempt with a retry that is due at a time.
    pub async fn retry_at(&self, claimed: &Claimed, due: u64, millis: u64) {
        self.end(claimed, retry(due - millis), millis).await;
    }

    pub async fn state(&self, delivery: &DeliveryId) -> State {
        self.show(delivery).await.expect("cannot read the journal").expect("unknown delivery").summary.state
    }

    /// Claims the next delivery and completes it.
    pub async fn complete_next(&self, millis: u64) -> DeliveryId {
        let claimed = self.take(1, millis).await.pop().expect("no delivery is due");
        self.end(&claimed, Disposition::Completed, millis).await;
        claimed.lease.delivery
    }
}

fn random_salt() -> [u8; 32] {
    std::array::from_fn(|_| fastrand::u8(..))
}

/// Creates a claim of deliveries of a tenant to module `Echo` by [`OWNER`], with leases of ten seconds.
pub fn claim(tenant: &str, limit: u32) -> Claim {
    Claim { tenant: tenant.into(), module: "Echo".into(), limit, owner: OWNER.into(), lease: Duration::from_secs(10) }
}

/// Creates a lease that is not held.
pub fn lease(delivery: &DeliveryId) -> Lease {
    Lease { delivery: delivery.clone(), tenant: "acme".into(), owner: OWNER.into(), attempt: 1 }
}

/// Creates the report of an attempt that took 5 ms.
pub fn report() -> AttemptReport {
    AttemptReport {
        took: Duration::from_millis(5),
        version: Some("v1".to_owned()),
        outcome: "completed".to_owned(),
        log: Vec::new(),
    }
}

/// Creates the attempt that the journal records for a report at a time.
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

/// Creates a retry after that many milliseconds.
pub fn retry(millis: u64) -> Disposition {
    Disposition::Retry { after: Duration::from_millis(millis), reason: "the platform is down".into() }
}

/// Creates the disposition of a delivery that is given up.
pub fn dead() -> Disposition {
    Disposition::Dead { reason: "no more attempts".into() }
}

/// Creates a call with an answer.
pub fn call(number: u32, answer: impl Into<Vec<u8>>) -> Call {
    let arguments = format!("arguments of {number}").into_bytes();
    Call { number, import: "search.search".into(), arguments, answer: Some(answer.into()), at: at(u64::from(number)) }
}

/// Waits until a write is durable.
pub async fn committed(write: Result<CommitHandle, JournalError>) {
    write.expect("cannot queue the write").durable().await.expect("the write failed");
}

/// Returns the kind and text of a storage error.
pub fn storage_error<T: std::fmt::Debug>(result: Result<T, JournalError>) -> (StorageErrorKind, String) {
    match result {
        Err(JournalError::Storage(error)) => (error.kind, error.to_string()),
        other => panic!("not a storage error: {other:?}"),
    }
}

/// The SQL that turns the file of a closed journal into one that version 4 of the schema wrote.
pub const TO_VERSION_4: &str = "
INSERT INTO changes (delivery, number, at, state, reason)
SELECT seq, changes, changed_at, state, reason FROM deliveries WHERE changes > 0;
INSERT INTO changes (delivery, number, at, state)
SELECT seq, changes - 1, leased_at, 'running' FROM deliveries WHERE leased_at IS NOT NULL;
INSERT INTO attempts (delivery, number, owner, started, ended, version, outcome, log)
SELECT seq, attempt, owner, started, changed_at, version, outcome, log FROM deliveries WHERE leased_at IS NOT NULL;
UPDATE deliveries SET owner = NULL WHERE state <> 'running';
DROP INDEX deliveries_of_event;
DROP INDEX deliveries_unfinished;
ALTER TABLE deliveries DROP COLUMN single;
ALTER TABLE deliveries DROP COLUMN leased_at;
ALTER TABLE deliveries DROP COLUMN started;
ALTER TABLE deliveries DROP COLUMN outcome;
ALTER TABLE deliveries DROP COLUMN log;
CREATE INDEX deliveries_by_event ON deliveries (event);
CREATE INDEX deliveries_by_state ON deliveries (state, changed_at, lane);
PRAGMA user_version = 4;
";
