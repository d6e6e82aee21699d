//! The PostgreSQL database, in one transaction.

use super::STORE;
use super::table::{Cell, Column, Kind, Table};
use crate::error::StorageError;
use crate::postgres::{Database, Pool, PooledSession, Row, Value, value, values};

/// The tables that must be empty; what else there is refers to them.
const MUST_BE_EMPTY: [&str; 10] = [
    "lanes",
    "tenant_usage",
    "known_events",
    "events",
    "deliveries",
    "keyvalue_spaces",
    "keyvalue_done",
    "version_modules",
    "version_history",
    "components",
];

/// Until the end of the transaction, no host joins or changes anything; others may read.
const LOCK: &str = "LOCK TABLE hosts, lanes, known_events, events, deliveries, keyvalue_spaces, keyvalue_done, version_clock, \
                    version_modules, version_history, components IN EXCLUSIVE MODE";

const LIVE_HOSTS: &str = "SELECT count(*) FROM hosts WHERE NOT gone \
                          AND lease_until > floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// An open transaction on an empty database.
pub(super) struct Target {
    session: PooledSession,
    _pool: Pool,
}

impl Target {
    /// Creates the tables if they are missing, begins a transaction, and checks that the tables are empty and unused.
    pub(super) async fn open(database: &Database) -> Result<Self, StorageError> {
        database.durability().await?;
        database.migrate(&crate::journal::POSTGRES_TABLES).await?;
        database.migrate(&crate::keyvalue::POSTGRES_TABLES).await?;
        database.migrate(&crate::versions::POSTGRES_TABLES).await?;
        let pool = database.pool(STORE, "migration", 1);
        let mut session = pool.get().await?;
        // If this ends early, the connection is closed and the transaction rolled back.
        session.set_dirty(true);
        session.batch("BEGIN").await?;
        session.batch("SET LOCAL lock_timeout = '10s'").await?;
        session.batch(LOCK).await?;
        let target = Self { session, _pool: pool };
        if target.number(LIVE_HOSTS).await? > 0 {
            return Err(StorageError::unusable(STORE, format!("a host is running on {database}; stop it first")));
        }
        for table in MUST_BE_EMPTY {
            if target.count(table).await? > 0 {
                let detail = format!(
                    "{database} is not empty: its table {table} has rows; name another database, or another schema with \
                     ?options=-csearch_path%3DSCHEMA"
                );
                return Err(StorageError::unusable(STORE, detail));
            }
        }
        // Drawn as the tables were created; that of the host replaces it.
        target.execute("DELETE FROM salt").await?;
        Ok(target)
    }

    /// Inserts rows.
    pub(super) async fn insert(&self, table: &Table, rows: &[Vec<Cell>]) -> Result<(), StorageError> {
        let arrays = arrays(table, rows, |_| true);
        let values: Vec<Value<'_>> = arrays.iter().map(Array::value).collect();
        self.session.execute(&table.insert_sql(), &values).await?;
        Ok(())
    }

    /// Returns the rows with the keys of these rows, in their order.
    pub(super) async fn look_up(&self, table: &Table, rows: &[Vec<Cell>]) -> Result<Vec<Vec<Cell>>, StorageError> {
        let arrays = arrays(table, rows, |column| column.is_key);
        let values: Vec<Value<'_>> = arrays.iter().map(Array::value).collect();
        let found = self.session.query(&table.look_up_sql(), &values).await?;
        found.iter().map(|row| self.read(table, row)).collect()
    }

    fn read(&self, table: &Table, row: &Row) -> Result<Vec<Cell>, StorageError> {
        let cell = |(index, column): (usize, &Column)| {
            Ok(match column.kind {
                Kind::Bool | Kind::Int | Kind::Long | Kind::Time => {
                    self.session.get::<Option<i64>>(row, index)?.map_or(Cell::Null, Cell::Long)
                }
                Kind::Text => self.session.get::<Option<String>>(row, index)?.map_or(Cell::Null, Cell::Text),
                Kind::Bytes => self.session.get::<Option<Vec<u8>>>(row, index)?.map_or(Cell::Null, Cell::Bytes),
            })
        };
        table.columns.iter().enumerate().map(cell).collect()
    }

    /// Returns the number of rows of a table.
    pub(super) async fn count(&self, table: &str) -> Result<u64, StorageError> {
        Ok(self.number(&format!("SELECT count(*) FROM {table}")).await?.unsigned_abs())
    }

    async fn number(&self, sql: &str) -> Result<i64, StorageError> {
        let rows = self.session.query(sql, &[]).await?;
        Ok(rows.first().map_or(Ok(0), |row| self.session.get(row, 0))?)
    }

    /// Runs a statement.
    pub(super) async fn execute(&self, sql: &str) -> Result<(), StorageError> {
        Ok(self.session.batch(sql).await?)
    }

    /// Adds a part of a component.
    pub(super) async fn insert_part(&self, hash: &str, part: i32, bytes: &[u8]) -> Result<(), StorageError> {
        let sql = "INSERT INTO component_parts (hash, part, bytes) VALUES ($1, $2, $3)";
        self.session.execute(sql, values![hash, part, bytes]).await?;
        Ok(())
    }

    /// Adds a component whose parts were added.
    pub(super) async fn insert_component(&self, hash: &str, size: i64, parts: i32) -> Result<(), StorageError> {
        // Like one that a host has just written: it is kept for a day if no version in the history has it.
        let sql = "INSERT INTO components (hash, size, parts, unrecorded_since) VALUES ($1, $2, $3, now())";
        self.session.execute(sql, values![hash, size, parts]).await?;
        Ok(())
    }

    /// Returns a part of a component.
    pub(super) async fn part(&self, hash: &str, part: i32) -> Result<Option<Vec<u8>>, StorageError> {
        let sql = "SELECT bytes FROM component_parts WHERE hash = $1 AND part = $2";
        let rows = self.session.query(sql, values![hash, part]).await?;
        Ok(rows.first().map(|row| self.session.get(row, 0)).transpose()?)
    }

    /// Commits everything.
    pub(super) async fn commit(mut self) -> Result<(), StorageError> {
        self.session.batch("COMMIT").await?;
        self.session.set_dirty(false);
        // For the first queries of the hosts. Without it, they are only slower until autovacuum has done it.
        if let Err(error) = self.session.batch("ANALYZE").await {
            tracing::debug!(error = %StorageError::from(error), "cannot analyze the tables");
        }
        Ok(())
    }
}

/// The values of a column.
enum Array {
    Long(Vec<Option<i64>>),
    Text(Vec<Option<String>>),
    Bytes(Vec<Option<Vec<u8>>>),
}

impl Array {
    fn value(&self) -> Value<'_> {
        match self {
            Self::Long(numbers) => value(numbers),
            Self::Text(texts) => value(texts),
            Self::Bytes(bytes) => value(bytes),
        }
    }
}

/// Returns the values of some columns.
fn arrays(table: &Table, rows: &[Vec<Cell>], is_included: impl Fn(&Column) -> bool) -> Vec<Array> {
    let included = table.columns.iter().enumerate().filter(|(_, column)| is_included(column));
    let array = |(index, column): (usize, &Column)| {
        let cells = rows.iter().map(|row| row.get(index).unwrap_or(&Cell::Null));
        match column.kind {
            Kind::Bool | Kind::Int | Kind::Long | Kind::Time => Array::Long(
                cells.map(|cell| if let Cell::Long(number) = cell { Some(*number) } else { None }).collect(),
            ),
            Kind::Text => Array::Text(
                cells.map(|cell| if let Cell::Text(text) = cell { Some(text.clone()) } else { None }).collect(),
            ),
            Kind::Bytes => Array::Bytes(
                cells.map(|cell| if let Cell::Bytes(bytes) = cell { Some(bytes.clone()) } else { None }).collect(),
            ),
        }
    };
    included.map(array).collect()
}
