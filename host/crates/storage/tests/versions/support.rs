//! Support for the tests: a record of each engine, and shorthands for its operations.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use modhost_core::event::Name;
use modhost_core::secret::Secret;
use modhost_storage::postgres::Database;
use modhost_storage::versions::{
    ContentHash, Epoch, Fact, Keep, NoteError, OperatorAction, Origin, Postgres, PostgresHost, Sqlite, Versions,
};
use tempfile::TempDir;

use crate::postgres_server::PostgresServer;

/// Limits that no test exceeds.
pub const KEEP: Keep = Keep { of_module: 100, bytes: 1 << 30 };

/// A storage engine of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

/// Runs each test, an `async fn(Engine)`, with every engine.
macro_rules! on_every_engine {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $test() {
                    super::$test($crate::support::Engine::Sqlite).await;
                }
            )*
        }
        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $test() {
                    // Without PostgreSQL the test is skipped.
                    if $crate::postgres_server::PostgresServer::shared().is_some() {
                        super::$test($crate::support::Engine::Postgres).await;
                    }
                }
            )*
        }
    };
}
pub(crate) use on_every_engine;

/// A record in a temporary directory, or in a database of its own.
pub struct TestRecord {
    pub directory: TempDir,
    pub versions: Arc<dyn Versions>,
    url: Option<String>,
    keep: Keep,
}

impl TestRecord {
    pub async fn new(engine: Engine) -> Self {
        Self::with(engine, KEEP).await
    }

    pub async fn with(engine: Engine, keep: Keep) -> Self {
        let directory = TempDir::new().expect("cannot create a temporary directory");
        let url = match engine {
            Engine::Sqlite => None,
            Engine::Postgres => Some(PostgresServer::shared().expect("PostgreSQL is not installed").new_database()),
        };
        let versions = open(directory.path(), url.as_deref(), keep).await;
        Self { directory, versions, url, keep }
    }

    /// Opens the record again, as the next life of the same host.
    pub async fn reopened(self) -> Self {
        drop(self.versions);
        let versions = open(self.directory.path(), self.url.as_deref(), self.keep).await;
        Self { versions, ..self }
    }
}

impl std::ops::Deref for TestRecord {
    type Target = dyn Versions;

    fn deref(&self) -> &Self::Target {
        &*self.versions
    }
}

async fn open(directory: &Path, url: Option<&str>, keep: Keep) -> Arc<dyn Versions> {
    match url {
        None => Arc::new(Sqlite::open(directory.to_owned(), keep).await.expect("cannot open the record")),
        Some(url) => Arc::new(open_in_postgres(url, "host-1", directory, keep).await),
    }
}

/// Opens the record in a database, as a new life of a host.
pub async fn open_in_postgres(url: &str, host: &str, directory: &Path, keep: Keep) -> Postgres {
    static LIVES: AtomicU64 = AtomicU64::new(0);
    let owner = format!("{host}-{}", LIVES.fetch_add(1, Ordering::Relaxed));
    let host = PostgresHost { name: host.to_owned(), owner: owner.into(), directory: directory.to_owned() };
    let database = Database::new(&Secret::new(url)).expect("invalid URL");
    Postgres::open(&database, host, keep).await.expect("cannot open the record")
}

pub fn echo() -> Name {
    Name::from("Echo")
}

/// The bytes of a component.
pub fn component(number: u8) -> Vec<u8> {
    vec![number; 100]
}

/// The version of a component.
pub fn version(number: u8) -> ContentHash {
    ContentHash::of(&component(number))
}

/// The fact that the version in a file serves.
pub fn serves(number: u8) -> Fact {
    Fact::Serves { hash: version(number), origin: Origin::File, by: None }
}

/// The facts of a file that offers a version, which serves.
pub fn deployed(number: u8) -> Vec<Fact> {
    vec![Fact::Offered { hash: version(number) }, serves(number)]
}

pub fn by(operator: &str) -> OperatorAction {
    OperatorAction {
        by: operator.to_owned(),
        at: std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(9),
    }
}

/// Records facts about module `Echo`, decided on its current state.
pub async fn note(versions: &dyn Versions, facts: Vec<Fact>) -> Result<Epoch, NoteError> {
    versions.note(&echo(), versions.module_state(&echo()).epoch, facts).await
}

/// Keeps a component.
pub async fn keep(versions: &dyn Versions, number: u8) {
    versions.keep(version(number), component(number).into()).await.expect("cannot keep the component");
}
