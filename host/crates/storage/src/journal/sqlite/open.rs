//! Opens a journal, for one host at a time. A file that this version cannot use is left unchanged.

use std::fs;

use rusqlite::Connection;

use super::checkpoint::Checkpoints;
use super::store::Store;
use crate::error::StorageError;
use crate::sqlite::{Database, DirectoryLock, WriteConnection};

/// Opens the journal in a directory, or creates an empty one. Returns the store and the salt. Takes seconds if the
/// journal is large.
pub(super) fn open(database: &Database) -> Result<(Store, [u8; 32]), StorageError> {
    fs::create_dir_all(database.directory()).map_err(|error| database.directory_error(&error))?;
    let lock = DirectoryLock::take(database.directory())?;
    database.create_or_migrate()?;
    let sql = |error: rusqlite::Error| database.explain(&error);
    let mut connection = connect(database).map_err(sql)?;
    // A page cache of 32 MiB: ids are random, so their index is accessed at random positions.
    connection.pragma_update(None, "cache_size", -32 * 1024).map_err(sql)?;
    let salt = salt(&connection).map_err(sql)?;
    let checkpoints = Checkpoints::start(&mut connection, database)?;
    let connection = WriteConnection::new(connection, database.clone())?;
    Ok((Store::new(connection, checkpoints, lock).map_err(sql)?, salt))
}

/// Checks that the directory has a journal that this version can read, without changing it. Returns the salt, and a
/// description of the missing changes, if any.
pub(super) fn inspect(database: &Database) -> Result<([u8; 32], Option<String>), StorageError> {
    if !fs::exists(database.file()).unwrap_or(false) {
        let directory = database.directory().display();
        return Err(database.unusable(format!("there is no journal in {directory}; is it a host's data directory?")));
    }
    database.inspect()?;
    let sql = |error: rusqlite::Error| database.explain(&error);
    let connection = database.connect_to_read().map_err(sql)?;
    Ok((salt(&connection).map_err(sql)?, database.missing(&connection)?))
}

fn salt(connection: &Connection) -> rusqlite::Result<[u8; 32]> {
    connection.query_row("SELECT value FROM salt", [], |row| row.get(0))
}

/// Connects to an existing journal to write.
pub(super) fn connect(database: &Database) -> rusqlite::Result<Connection> {
    let connection = database.connect()?;
    // The module `checkpoint` runs all checkpoints.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(connection)
}
