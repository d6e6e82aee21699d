//! Migrations of the tables of a store.
//!
//! Hosts of different versions run at the same time during an upgrade, so migrations only expand: they add tables, columns
//! with defaults and indexes. What is removed is removed by a later version, which raises [`Migration::oldest_that_runs`].

use super::Failure;
use super::database::Database;
use super::session::Session;
use super::{transaction, values};
use crate::error::StorageError;

/// The key of the advisory lock under which tables are created and migrated; released with its transaction. `mdhm` in ASCII.
const LOCK: i64 = 0x6d64_686d;

/// A step from one version of a store's tables to the next.
pub(crate) struct Migration {
    /// The statements.
    pub(crate) sql: &'static str,
    /// The oldest version whose programs can use the tables afterwards.
    pub(crate) oldest_that_runs: i32,
}

/// The migrations of a store. The first one creates its tables; version 1 is the result.
pub(crate) struct Migrations {
    /// The name of the store, which is its key in the table `schema_version` as well.
    pub(crate) store: &'static str,
    /// The steps, of which none is ever changed after its release.
    pub(crate) steps: &'static [Migration],
}

impl Migrations {
    /// Returns the version of the tables that this program was written for.
    fn version(&self) -> i32 {
        i32::try_from(self.steps.len()).unwrap_or(i32::MAX)
    }
}

impl Database {
    /// Creates or migrates the tables of a store, one host at a time.
    ///
    /// # Errors
    ///
    /// [`StorageErrorKind::Unusable`](crate::error::StorageErrorKind::Unusable) if the tables are too new for this program.
    pub(crate) async fn migrate(&self, migrations: &'static Migrations) -> Result<(), StorageError> {
        let pool = self.pool(migrations.store, "migrations", 1);
        let migrated = transaction!(pool, session => migrate(session, migrations).await);
        match migrated? {
            Ok(from) if from < migrations.version() => {
                let (store, version) = (migrations.store, migrations.version());
                tracing::info!(store, from, version, "migrated the tables in PostgreSQL");
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(TooNew { version, oldest_that_runs }) => {
                let detail = format!(
                    "the {} in {self} has version {version}, and this modhost knows only up to {} and can use it only up to that \
                     of a modhost of version {oldest_that_runs}; start a newer modhost",
                    migrations.store,
                    migrations.version()
                );
                Err(StorageError::unusable(migrations.store, detail))
            }
        }
    }
}

/// The tables can't be used by this program.
struct TooNew {
    version: i32,
    oldest_that_runs: i32,
}

/// Runs the missing steps. Returns the version before.
async fn migrate(session: &Session, migrations: &Migrations) -> Result<Result<i32, TooNew>, Failure> {
    session.query("SELECT pg_advisory_xact_lock($1)", values![LOCK]).await?;
    let create = "CREATE TABLE IF NOT EXISTS schema_version (
        store            text COLLATE \"C\" PRIMARY KEY,
        version          integer NOT NULL,
        oldest_that_runs integer NOT NULL
    )";
    session.batch(create).await?;
    let sql = "SELECT version, oldest_that_runs FROM schema_version WHERE store = $1";
    let rows = session.query(sql, values![migrations.store]).await?;
    let (version, oldest_that_runs) = match rows.first() {
        Some(row) => (session.get::<i32>(row, 0)?, session.get::<i32>(row, 1)?),
        None => (0, 0),
    };
    if oldest_that_runs > migrations.version() {
        return Ok(Err(TooNew { version, oldest_that_runs }));
    }
    let mut oldest = oldest_that_runs;
    for step in migrations.steps.iter().skip(usize::try_from(version).unwrap_or(usize::MAX)) {
        session.batch(step.sql).await?;
        oldest = oldest.max(step.oldest_that_runs);
    }
    if version < migrations.version() {
        let sql = "INSERT INTO schema_version (store, version, oldest_that_runs) VALUES ($1, $2, $3) \
                   ON CONFLICT (store) DO UPDATE SET version = $2, oldest_that_runs = $3";
        session.execute(sql, values![migrations.store, migrations.version(), oldest]).await?;
    }
    Ok(Ok(version))
}
