//! The SQLite files of a stopped host.

use std::path::Path;
use std::sync::{Arc, Mutex};

use rusqlite::Connection;
use tokio::sync::mpsc;

use super::table::{Cell, Table};
use crate::error::StorageError;
use crate::sqlite::{Database, DatabaseKind};
use modhost_core::sync::lock;

/// The most rows of a batch.
const MAX_ROWS: usize = 1000;

/// The size from which a batch gets no further row, in bytes.
const MAX_BYTES: usize = 4 << 20;

/// The number of batches that are read ahead.
const READ_AHEAD: usize = 2;

/// A file of a stopped host, opened to read.
pub(super) struct Source {
    database: Database,
    connection: Arc<Mutex<Connection>>,
}

impl Source {
    /// Opens a file; `None` if there is none. The caller holds the lock of the directory.
    pub(super) async fn open(kind: &'static DatabaseKind, directory: &Path) -> Result<Option<Self>, StorageError> {
        let database = Database::new(kind, directory.to_owned());
        let opened = database.clone();
        let opening = tokio::task::spawn_blocking(move || open(&opened, kind));
        let connection = opening.await.map_err(|error| database.task_failed(&error))??;
        Ok(connection.map(|connection| Self { database, connection: Arc::new(Mutex::new(connection)) }))
    }

    /// Begins to read the rows of a table.
    pub(super) fn read(&self, table: &'static Table) -> Batches {
        let (send, batches) = mpsc::channel(READ_AHEAD);
        let (database, connection) = (self.database.clone(), Arc::clone(&self.connection));
        tokio::task::spawn_blocking(move || {
            let read = read(&lock(&connection), table, &send);
            if let Err(error) = read {
                let _ = send.blocking_send(Err(database.explain(&error))); // the receiver is gone if nobody needs it
            }
        });
        Batches(batches)
    }
}

/// The rows of a table, in batches.
pub(super) struct Batches(mpsc::Receiver<Result<Vec<Vec<Cell>>, StorageError>>);

impl Batches {
    /// Returns the next batch; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Vec<Cell>>>, StorageError> {
        self.0.recv().await.transpose()
    }
}

fn open(database: &Database, kind: &DatabaseKind) -> Result<Option<Connection>, StorageError> {
    if !std::fs::exists(database.file()).unwrap_or(false) {
        return Ok(None);
    }
    let mut connection = database.connect_to_read().map_err(|error| database.explain(&error))?;
    if database.inspect_with(&mut connection)? < kind.version() {
        let detail = format!(
            "{} was written by an older modhost; start and stop a host of this version with it, and move it then",
            database.file().display()
        );
        return Err(database.unusable(detail));
    }
    match database.missing(&connection)? {
        None => Ok(Some(connection)),
        Some(missing) => Err(database.unusable(missing)),
    }
}

fn read(
    connection: &Connection,
    table: &Table,
    batches: &mpsc::Sender<Result<Vec<Vec<Cell>>, StorageError>>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(table.select)?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let cells = (0..columns).map(|column| row.get_ref(column).map(Cell::read));
        let mut cells = cells.collect::<rusqlite::Result<Vec<_>>>()?;
        table.complete(&mut cells);
        bytes += cells.iter().map(Cell::size).sum::<usize>();
        batch.push(cells);
        if batch.len() >= MAX_ROWS || bytes >= MAX_BYTES {
            bytes = 0;
            if batches.blocking_send(Ok(std::mem::take(&mut batch))).is_err() {
                return Ok(()); // nobody needs the rest
            }
        }
    }
    if !batch.is_empty() {
        let _ = batches.blocking_send(Ok(batch)); // as above
    }
    Ok(())
}
