//! Creation and opening of a file. A file is changed only if it is of its kind, undamaged, and of a version this code can use.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use url::Url;

use super::{BUSY, Database, DatabaseKind};
use crate::error::StorageError;

/// How long the file is searched for damage when it is opened. A large file is not searched completely; the rest of the
/// damage shows when it is read.
const MAX_CHECK: Duration = Duration::from_secs(1);

/// The number of SQLite's steps between two checks of that time.
const STEPS_BETWEEN_LOOKS: std::ffi::c_int = 1000;

/// More than the number of statements.
const STATEMENTS: usize = 128;

impl Database {
    /// Creates the file if it does not exist, and migrates one of an older version. May take seconds if it is large.
    pub(crate) fn make_ready(&self) -> Result<(), StorageError> {
        match fs::metadata(self.file()) {
            Ok(file) if file.len() == 0 => return Err(self.damaged("the file is empty")),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return self.create(),
            Err(error) => return Err(self.unreachable(&error)),
        }
        let mut connection = self.connect_to_read().map_err(|error| self.explain(&error))?;
        let version = self.inspect_with(&mut connection)?;
        // Before anything changes the rest of the log.
        self.compare_with_mark(&connection)?;
        drop(connection);
        let update = || migrate(&mut self.connect()?, self.kind, version);
        if version < self.kind.version() { update().map_err(|error| self.explain(&error)) } else { Ok(()) }
    }

    /// Connects to a file that is ready, to write.
    pub(crate) fn connect(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(self.file(), flags)?;
        set_up(&connection)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        // A long log shrinks again to 32 MiB.
        connection.pragma_update(None, "journal_size_limit", 32 * 1024 * 1024)?;
        Ok(connection)
    }

    /// Connects to read only.
    pub(crate) fn connect_to_read(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(self.file(), flags)?;
        set_up(&connection)?;
        Ok(connection)
    }

    /// Connects to read a file that nobody writes, and leaves no trace in its directory: to read beside a log, SQLite creates
    /// files. Without a log nobody has the file open, and it is complete. A writer that starts meanwhile is not noticed, so
    /// read soon.
    pub(crate) fn connect_at_rest(&self) -> rusqlite::Result<Connection> {
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

    /// Creates an empty file. It gets its name when it is complete, so that a file of that name is always complete.
    fn create(&self) -> Result<(), StorageError> {
        if fs::metadata(self.wal()).is_ok_and(|wal| wal.len() > 0) {
            return Err(self.unusable(format!(
                "{} is there, but not {}, which it belongs to; bring that back, or move both away to start with an \
                 empty {}",
                self.wal().display(),
                self.file().display(),
                self.kind.name
            )));
        }
        let io = |error: std::io::Error| self.unreachable(&error);
        let half_done = self.directory.join(format!("{}.new", self.kind.file));
        match fs::remove_file(&half_done) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        create_as(&half_done, self.kind).map_err(|error| self.explain(&error))?;
        fs::rename(&half_done, self.file()).map_err(io)?;
        File::open(&self.directory).and_then(|directory| directory.sync_all()).map_err(io)
    }

    /// Checks a file before anything writes to it. Returns the version of its schema.
    pub(crate) fn inspect(&self) -> Result<i64, StorageError> {
        let mut connection = self.connect_to_read().map_err(|error| self.explain(&error))?;
        self.inspect_with(&mut connection)
    }

    /// As [`Database::inspect`], with a connection that only reads.
    pub(crate) fn inspect_with(&self, connection: &mut Connection) -> Result<i64, StorageError> {
        let sql = |error: rusqlite::Error| self.explain(&error);
        // The log is not moved into the file while the file is not known to be good.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(sql)?;
        let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(sql);
        if number("application_id")? != i64::from(self.kind.application_id) {
            return Err(self.foreign("it is another program's SQLite database"));
        }
        let version = number("user_version")?;
        if version > self.kind.version() {
            return Err(self.unusable(format!(
                "the {} {} was written by a newer modhost: its schema is version {version}, and this one knows versions \
                 up to {}; run the newer one, or give this one another data directory",
                self.kind.name,
                self.file().display(),
                self.kind.version()
            )));
        }
        self.look_for_damage(connection)?;
        Ok(version)
    }

    fn look_for_damage(&self, connection: &mut Connection) -> Result<(), StorageError> {
        let sql = |error: rusqlite::Error| self.explain(&error);
        let began = Instant::now();
        connection.progress_handler(STEPS_BETWEEN_LOOKS, Some(move || began.elapsed() > MAX_CHECK)).map_err(sql)?;
        let checked = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
        // Later reads have no time limit.
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
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "foreign_keys", false)
}

fn create_as(path: &Path, kind: &DatabaseKind) -> rusqlite::Result<()> {
    let mut connection = Connection::open(path)?;
    // Allows free pages to be returned to the system a few at a time. Must be set before the first table.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "application_id", kind.application_id)?;
    migrate(&mut connection, kind, 0)?;
    connection.close().map_err(|(_, error)| error)
}

/// Migrates a file from an older version, 0 for an empty file, to the current one, completely or not at all.
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
