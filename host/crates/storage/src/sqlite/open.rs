//! Creates, checks, migrates and opens a database file. A file is changed only if it is undamaged, of the right kind,
//! and of a supported version.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use url::Url;

use super::{BUSY, Database, DatabaseKind};
use crate::error::StorageError;

/// Maximum time of the integrity check when a file is opened. A large file is not checked completely; damage in the
/// rest is detected when it is read.
const MAX_CHECK_TIME: Duration = Duration::from_secs(1);

/// The number of virtual machine instructions of SQLite between two checks of that time.
const PROGRESS_STEPS: std::ffi::c_int = 1000;

/// The capacity of the cache of prepared statements; larger than the number of different statements.
const STATEMENT_CACHE_SIZE: usize = 128;

impl Database {
    /// Creates the file if it does not exist, or checks it and migrates an older version. May take seconds if it is
    /// large.
    pub(crate) fn create_or_migrate(&self) -> Result<(), StorageError> {
        match fs::metadata(self.file()) {
            Ok(file) if file.len() == 0 => return Err(self.damaged("the file is empty")),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return self.create(),
            Err(error) => return Err(self.directory_error(&error)),
        }
        let mut connection = self.connect_to_read().map_err(|error| self.explain(&error))?;
        let version = self.inspect_with(&mut connection)?;
        // Compared before anything changes the write-ahead log.
        self.compare_with_mark(&connection)?;
        drop(connection);
        let update = || migrate(&mut self.connect()?, self.kind, version);
        if version < self.kind.version() { update().map_err(|error| self.explain(&error)) } else { Ok(()) }
    }

    /// Opens a connection that can write, to an existing file.
    pub(crate) fn connect(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(self.file(), flags)?;
        set_up(&connection)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        // After a checkpoint, a longer log is truncated to 32 MiB.
        connection.pragma_update(None, "journal_size_limit", 32 * 1024 * 1024)?;
        Ok(connection)
    }

    /// Opens a read-only connection.
    pub(crate) fn connect_to_read(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(self.file(), flags)?;
        set_up(&connection)?;
        Ok(connection)
    }

    /// Opens a read-only connection to a file that no process writes. If there is no write-ahead log, no process has
    /// the file open, and the file is complete, so SQLite can treat it as immutable and creates no files in its
    /// directory. If there is one, SQLite creates a file for shared memory. The connection does not notice a writer
    /// that starts later; keep it only for a short time.
    pub(crate) fn connect_offline(&self) -> rusqlite::Result<Connection> {
        let address = std::path::absolute(self.file()).ok().and_then(|file| Url::from_file_path(file).ok());
        let Some(mut address) = address.filter(|_| !fs::exists(self.wal()).unwrap_or(true)) else {
            return self.connect_to_read();
        };
        address.set_query(Some("immutable=1"));
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
        let connection = Connection::open_with_flags(address.as_str(), flags)?;
        set_up(&connection)?;
        Ok(connection)
    }

    /// Creates an empty database under a temporary name and renames it, so that a file of the final name is always
    /// complete.
    fn create(&self) -> Result<(), StorageError> {
        if fs::metadata(self.wal()).is_ok_and(|wal| wal.len() > 0) {
            return Err(self.unusable(format!(
                "{} exists, but {}, which it belongs to, does not; restore that file, or move the log away to start \
                 with an empty {}",
                self.wal().display(),
                self.file().display(),
                self.kind.name
            )));
        }
        let io = |error: std::io::Error| self.directory_error(&error);
        let unfinished = self.directory.join(format!("{}.new", self.kind.file));
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        create_as(&unfinished, self.kind).map_err(|error| self.explain(&error))?;
        fs::rename(&unfinished, self.file()).map_err(io)?;
        File::open(&self.directory).and_then(|directory| directory.sync_all()).map_err(io)
    }

    /// Checks the file without changing it. Returns the version of its schema.
    pub(crate) fn inspect(&self) -> Result<i64, StorageError> {
        let mut connection = self.connect_to_read().map_err(|error| self.explain(&error))?;
        self.inspect_with(&mut connection)
    }

    /// As [`Database::inspect`], with an existing read-only connection.
    pub(crate) fn inspect_with(&self, connection: &mut Connection) -> Result<i64, StorageError> {
        let sql = |error: rusqlite::Error| self.explain(&error);
        // No checkpoint when the connection closes: the file may be damaged, and must stay unchanged then.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(sql)?;
        let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(sql);
        if number("application_id")? != i64::from(self.kind.application_id) {
            return Err(self.wrong_kind("it is another program's SQLite database"));
        }
        let version = number("user_version")?;
        if version > self.kind.version() {
            return Err(self.unusable(format!(
                "the {} {} was written by a newer modhost: its schema is version {version}, and this one supports up \
                 to {}; run the newer one, or give this one another data directory",
                self.kind.name,
                self.file().display(),
                self.kind.version()
            )));
        }
        self.check_integrity(connection)?;
        Ok(version)
    }

    fn check_integrity(&self, connection: &mut Connection) -> Result<(), StorageError> {
        let sql = |error: rusqlite::Error| self.explain(&error);
        let began = Instant::now();
        connection.progress_handler(PROGRESS_STEPS, Some(move || began.elapsed() > MAX_CHECK_TIME)).map_err(sql)?;
        let checked = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
        // Removes the time limit for later queries.
        connection.progress_handler(0, None::<fn() -> bool>).map_err(sql)?;
        match checked {
            Ok(verdict) if verdict == "ok" => Ok(()),
            Ok(verdict) => Err(self.damaged(&verdict)),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                tracing::debug!(file = %self.file().display(), "search for damage stopped; the file is large");
                Ok(())
            }
            Err(error) => Err(sql(error)),
        }
    }
}

fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE_SIZE);
    // The plan of a statement must not depend on the values that are bound to it: SQLite would prepare it again for each.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "foreign_keys", false)
}

fn create_as(path: &Path, kind: &DatabaseKind) -> rusqlite::Result<()> {
    let mut connection = Connection::open(path)?;
    // Allows free pages to be returned to the operating system in steps. Must be set before the first table is created.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "application_id", kind.application_id)?;
    migrate(&mut connection, kind, 0)?;
    connection.close().map_err(|(_, error)| error)
}

/// Migrates a file from an older version of the schema (0 if it is empty) to the current one, in one transaction.
fn migrate(connection: &mut Connection, kind: &DatabaseKind, from: i64) -> rusqlite::Result<()> {
    tracing::debug!(of = kind.name, from, to = kind.version(), "migrating a schema");
    let missing = kind.migrations.get(usize::try_from(from).unwrap_or_default()..).unwrap_or_default();
    let transaction = connection.transaction()?;
    for migration in missing {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", kind.version())?;
    transaction.commit()
}
