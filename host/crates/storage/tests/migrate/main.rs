//! Tests of moving a stopped host's files into PostgreSQL: through the stores, which read the same on both sides.

mod fixture;
#[allow(dead_code, reason = "shared with other tests")]
#[path = "../../../../tests/support/postgres_server.rs"]
mod postgres_server;

use std::path::Path;
use std::time::Duration;

use fixture::{Fixture, bucket, claim_all, event, module, new_delivery, report};
use modhost_core::secret::Secret;
use modhost_storage::cluster::{Cluster, HostInfo};
use modhost_storage::error::{StorageError, StorageErrorKind};
use modhost_storage::journal::{self, Disposition, Filter, Journal, State};
use modhost_storage::keyvalue::{self, Change, Changed, KeyValue};
use modhost_storage::migrate::{Moved, sqlite_to_postgres};
use modhost_storage::postgres::Database;
use modhost_storage::sqlite::DirectoryLock;
use modhost_storage::versions::{self, Keep, PostgresHost, Versions};
use postgres_server::PostgresServer;

const LEASE: Duration = Duration::from_secs(30);

fn database(url: &str) -> Database {
    Database::new(&Secret::new(url)).unwrap()
}

async fn migrate(directory: &Path, url: &str) -> Result<Moved, StorageError> {
    sqlite_to_postgres(directory, &database(url), &|_| {}).await
}

#[tokio::test]
async fn moves_every_delivery_with_its_history() {
    let Some(server) = PostgresServer::shared() else { return };
    let url = server.new_database();
    let fixture = Fixture::new().await;
    let before = fixture.deliveries().await;
    let (salt, usage, lanes) = fixture.journal_totals().await;
    let moved = migrate(fixture.directory(), &url).await.unwrap();
    assert_eq!(moved.rows("deliveries"), before.len() as u64);
    assert!(before.len() > 10, "the test proves nothing");

    let journal = journal::Postgres::open(database(&url)).await.unwrap();
    let after = fixture::deliveries_of(&journal).await;
    assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
    assert_eq!(journal.salt(), salt);
    let mut now = journal.usage();
    now.sort_by(|a, b| a.tenant.cmp(&b.tenant));
    assert_eq!(now, usage);
    let mut now = journal.lanes().await.unwrap();
    now.sort_by(|a, b| (&a.tenant, &a.module).cmp(&(&b.tenant, &b.module)));
    assert_eq!(now, lanes);
    journal.close().await.unwrap();
}

#[tokio::test]
async fn continues_where_the_stopped_host_was() {
    let Some(server) = PostgresServer::shared() else { return };
    let url = server.new_database();
    let fixture = Fixture::new().await;
    migrate(fixture.directory(), &url).await.unwrap();
    let journal = journal::Postgres::open(database(&url)).await.unwrap();

    // A redelivery is recognized, also of an event that left nothing but its id.
    for id in ["evt_completed", "evt_without_deliveries"] {
        let event = event("acme", id);
        let delivery = new_delivery(&event, None);
        assert!(!journal.record(event, vec![delivery]).await.unwrap().is_new(), "{id}");
    }
    // So is the same id of another tenant a new event.
    let other = event("globex", "evt_without_deliveries");
    assert!(journal.record(other.clone(), vec![new_delivery(&other, None)]).await.unwrap().is_new());

    // The deliveries of the stopped host are free once its lease expires, and chats go on in order.
    let running = journal.list(Filter { state: Some(State::Running), ..Filter::default() }).await.unwrap();
    assert!(!running.is_empty());
    let reclaimed = journal.reclaim(Some(fixture::OWNER)).await.unwrap();
    assert_eq!(reclaimed, running.len() as u64);
    let mut order = Vec::new();
    loop {
        let claimed = claim_all(&journal).await;
        if claimed.is_empty() {
            break;
        }
        for claimed in claimed {
            if claimed.event.id.starts_with("evt_chat") {
                order.push(claimed.event.id.clone());
            }
            journal.complete_attempt(&claimed.lease, report("completed"), Disposition::Completed).await.unwrap();
        }
    }
    assert_eq!(order, ["evt_chat_1", "evt_chat_2", "evt_chat_3"]);
    let waiting = Filter {
        state: Some(State::Waiting),
        tenant: Some("acme".into()),
        module: Some(module()),
        ..Filter::default()
    };
    let waiting = journal.list(waiting).await.unwrap();
    assert_eq!(waiting.iter().map(|it| &*it.event_id).collect::<Vec<_>>(), ["evt_retry"], "it is not due");
    journal.close().await.unwrap();
}

#[tokio::test]
async fn moves_values_and_versions() {
    let Some(server) = PostgresServer::shared() else { return };
    let url = server.new_database();
    let fixture = Fixture::new().await;
    let (history, state) = fixture.versions().await;
    migrate(fixture.directory(), &url).await.unwrap();

    let store = keyvalue::Postgres::open(&database(&url)).await.unwrap();
    let keys = vec!["key".to_owned(), "größe".to_owned(), "missing".to_owned(), "a\0b".to_owned()];
    let found = store.get(&bucket("notes"), keys).await.unwrap();
    let values: Vec<_> = found.iter().map(|entry| entry.as_ref().map(|entry| entry.value.0.clone())).collect();
    assert_eq!(values, [Some(vec![0, 1, 255]), Some(b"17".to_vec()), None, Some(b"nul".to_vec())]);
    // A change that was done is not done again, and a new one gets a version that no value has.
    let again = Change::Increment { key: "hits".to_owned(), delta: 5 };
    let counted = store.change(&bucket("counts"), again, fixture::QUOTA, "increment-once").await.unwrap();
    assert!(matches!(counted, Changed::Counted(5)), "{counted:?}");
    let once_more = Change::Increment { key: "hits".to_owned(), delta: 2 };
    let counted = store.change(&bucket("counts"), once_more, fixture::QUOTA, "increment-twice").await.unwrap();
    assert!(matches!(counted, Changed::Counted(7)), "{counted:?}");
    let created = Change::Set(vec![("new".to_owned(), b"x".to_vec())]);
    store.change(&bucket("other"), created, fixture::QUOTA, "new").await.unwrap();
    store.close().await.unwrap();

    let directory = tempfile::tempdir().unwrap();
    let host = PostgresHost { name: "host".into(), owner: "host/1".into(), directory: directory.path().to_owned() };
    let keep = Keep { of_module: 10, bytes: 1 << 30 };
    let versions = versions::Postgres::open(&database(&url), host, keep).await.unwrap();
    let module = module();
    assert_eq!(fixture::plain(versions.history(&module).await.unwrap()), history);
    let now = versions.module_state(&module);
    assert_eq!(fixture::plain(now.serving.into_iter().collect()), fixture::plain(state.serving.into_iter().collect()));
    assert_eq!((now.pinned, now.held_back, now.paused), (state.pinned, state.held_back, state.paused));
    for (hash, bytes) in fixture::components() {
        assert_eq!(versions.component(hash).await.unwrap(), Some(bytes));
    }
}

#[tokio::test]
async fn refuses_a_running_host_and_a_used_database() {
    let Some(server) = PostgresServer::shared() else { return };
    let url = server.new_database();
    let fixture = Fixture::new().await;
    let refused = async |words: &str| {
        let error = migrate(fixture.directory(), &url).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    };
    let lock = DirectoryLock::take(fixture.directory()).unwrap();
    refused("already runs on the data directory").await;
    drop(lock);

    let journal = journal::Postgres::open(database(&url)).await.unwrap();
    let host = HostInfo {
        owner: "other/1".into(),
        name: "other".into(),
        admin: None,
        version: "0".into(),
        settings: String::new(),
        modules: Default::default(),
    };
    journal.join(&host, LEASE).await.unwrap();
    refused("a host is running").await;
    journal.leave("other/1").await.unwrap();

    let first = event("acme", "evt_first");
    journal.record(first.clone(), vec![new_delivery(&first, None)]).await.unwrap();
    refused("is not empty").await;
    journal.close().await.unwrap();
    assert!(fixture.directory().join("journal.sqlite").exists(), "a refusal leaves the files");
}

#[tokio::test]
async fn sets_the_files_aside_and_can_not_move_them_twice() {
    let Some(server) = PostgresServer::shared() else { return };
    let fixture = Fixture::new().await;
    let moved = migrate(fixture.directory(), &server.new_database()).await.unwrap();
    let files = moved.files.unwrap();
    assert!(files.join("journal.sqlite").exists() && files.join("versions").is_dir());
    let error = migrate(fixture.directory(), &server.new_database()).await.unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Unusable, "{error}");
    assert!(error.to_string().contains("there is no journal"), "{error}");
}

#[tokio::test]
async fn moves_an_empty_directory_and_leaves_damaged_components() {
    let Some(server) = PostgresServer::shared() else { return };
    let fixture = Fixture::new().await;
    let (hash, _) = fixture::components().swap_remove(0);
    std::fs::write(fixture.directory().join(format!("versions/{}.wasm", hash.to_hex())), b"damaged").unwrap();
    let moved = migrate(fixture.directory(), &server.new_database()).await.unwrap();
    assert_eq!(moved.damaged_components, [hash.to_hex()]);
    let empty = Fixture::empty().await;
    let moved = migrate(empty.directory(), &server.new_database()).await.unwrap();
    assert_eq!(moved.tables.iter().map(|(_, rows)| rows).sum::<u64>(), 1, "the salt: {moved:?}");
}
