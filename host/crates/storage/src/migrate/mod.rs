//! Moves the data directory of a stopped host into an empty PostgreSQL database.
//!
//! Everything is copied and verified in one transaction, so the database has all of it or nothing. The tables of the target
//! are locked until then, so that no host can start on them. [`Table`] describes how the rows of one are read, written and
//! compared; the modules [`journal`], [`keyvalue`] and [`versions`] have the tables of each store.

mod components;
mod journal;
mod keyvalue;
mod source;
mod table;
mod target;
mod versions;

use std::path::{Path, PathBuf};

use self::source::Source;
use self::table::Table;
use self::target::Target;
use crate::error::StorageError;
use crate::postgres::Database;
use crate::sqlite::DirectoryLock;

/// The name of the operation in messages.
const STORE: &str = "storage";

/// The folder in the data directory for the files whose content was moved.
const MOVED: &str = "moved-to-postgresql";

/// A step of the migration, as it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The table in PostgreSQL.
    pub table: &'static str,
    /// Whether its rows are being compared, after all of them were copied.
    pub is_verifying: bool,
    /// The number of rows so far.
    pub rows: u64,
}

/// What was moved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// The tables in PostgreSQL with the number of rows that were copied and compared, in order.
    pub tables: Vec<(&'static str, u64)>,
    /// The hashes of the components whose files don't match them. They can't serve, and were not moved.
    pub damaged_components: Vec<String>,
    /// The folder in which the files are now; `None` if the directory had none.
    pub files: Option<PathBuf>,
}

impl Moved {
    /// Returns the number of rows of a table.
    pub fn rows(&self, table: &str) -> u64 {
        self.tables.iter().find(|(name, _)| *name == table).map_or(0, |(_, rows)| *rows)
    }
}

/// Moves the journal, the key-value store, and the versions with their components into a database, and then the files into a
/// folder of their own in the data directory.
///
/// Fails without a change if a host uses the directory, or the database contains anything. It fails as well if rows differ
/// after they were copied. If the connection breaks during the commit, its outcome is unknown: the database is empty or has
/// everything, and the next call tells which.
///
/// # Errors
///
/// If the data can't be read or written, or was not copied as it is.
pub async fn sqlite_to_postgres(
    directory: &Path,
    database: &Database,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Moved, StorageError> {
    let lock = DirectoryLock::take(directory)?;
    let sources = [
        (Source::open(&crate::journal::SQLITE_TABLES, directory).await?, journal::TABLES),
        (Source::open(&crate::keyvalue::SQLITE_TABLES, directory).await?, keyvalue::TABLES),
        (Source::open(&crate::versions::SQLITE_TABLES, directory).await?, versions::TABLES),
    ];
    if let (None, _) = &sources[0] {
        let detail = format!("there is no journal in {}; is it a host's data directory?", directory.display());
        return Err(StorageError::unusable(STORE, detail));
    }
    let target = Target::open(database).await?;
    let mut moved = Moved::default();
    for (source, tables) in &sources {
        let Some(source) = source else { continue };
        for table in *tables {
            moved.tables.push((table.name, copy(source, table, &target, progress).await?));
        }
    }
    components::copy(directory, &target, &mut moved, progress).await?;
    for statement in [journal::DERIVE, keyvalue::DERIVE, versions::DERIVE].into_iter().flatten() {
        target.execute(statement).await?;
    }
    for (source, tables) in &sources {
        let Some(source) = source else { continue };
        for table in *tables {
            verify(source, table, &target, moved.rows(table.name), progress).await?;
        }
    }
    components::verify(directory, &target, &moved, progress).await?;
    target.commit().await?;
    drop(sources);
    moved.files = Some(set_aside(directory)?);
    drop(lock);
    Ok(moved)
}

/// Copies the rows of a table. Returns their number.
async fn copy(
    source: &Source,
    table: &'static Table,
    target: &Target,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<u64, StorageError> {
    let mut rows = 0;
    let mut batches = source.read(table);
    while let Some(batch) = batches.next().await? {
        target.insert(table, &batch).await?;
        rows += batch.len() as u64;
        progress(Progress { table: table.name, is_verifying: false, rows });
    }
    Ok(rows)
}

/// Reads the rows of a table on both sides and compares them.
async fn verify(
    source: &Source,
    table: &'static Table,
    target: &Target,
    copied: u64,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<(), StorageError> {
    let mut rows = 0;
    let mut batches = source.read(table);
    while let Some(batch) = batches.next().await? {
        let stored = target.look_up(table, &batch).await?;
        let is_same = stored.len() == batch.len() && stored.iter().zip(&batch).all(|(stored, row)| stored == row);
        if !is_same {
            return Err(differs(table.name));
        }
        rows += batch.len() as u64;
        progress(Progress { table: table.name, is_verifying: true, rows });
    }
    match rows == copied && target.count(table.name).await? == copied {
        true => Ok(()),
        false => Err(differs(table.name)),
    }
}

/// Creates the error of a table whose rows differ.
fn differs(table: &str) -> StorageError {
    let detail = format!(
        "rows of the table {table} are not in PostgreSQL as they are in the data directory; nothing was moved; please report it"
    );
    StorageError::broken(STORE, detail)
}

/// Moves the files into a folder of their own, so that no host starts with them again.
fn set_aside(directory: &Path) -> Result<PathBuf, StorageError> {
    let folder = directory.join(MOVED);
    let names = ["journal.sqlite", "keyvalue.sqlite", "versions.sqlite"].into_iter();
    let names = names.flat_map(|name| ["", "-wal", "-shm", ".mark"].map(|suffix| format!("{name}{suffix}")));
    let move_all = || {
        std::fs::create_dir_all(&folder)?;
        for name in names.chain([String::from("versions")]) {
            match std::fs::rename(directory.join(&name), folder.join(&name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::File::open(directory)?.sync_all()
    };
    move_all().map_err(|error: std::io::Error| {
        let detail = format!(
            "everything is in PostgreSQL now, but the files could not be moved into {}: {error}; move journal.sqlite, \
             keyvalue.sqlite, versions.sqlite and the folder versions away, so that no host uses them again",
            folder.display()
        );
        StorageError::broken(STORE, detail)
    })?;
    Ok(folder)
}
