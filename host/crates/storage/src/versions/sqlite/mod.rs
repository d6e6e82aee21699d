//! The record of one host: a SQLite file, which is rarely written, and a folder with the components, each named by its hash.

mod offline;
mod schema;
mod tables;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use self::schema::VERSIONS;
use super::components::{self, Components};
use super::{
    ContentHash, Entry, EntryId, Epoch, Fact, Keep, ModuleState, NoteError, Offer, Progress, Result, Tally, Versions,
};
use crate::sqlite::{Database, DirectoryLock, WriteConnection};
use modhost_core::clock;
use modhost_core::event::Name;
use modhost_core::sync::lock;
pub use offline::OfflineVersions;
pub(crate) use schema::VERSIONS as SQLITE_TABLES;

/// The record of one host. Cheap to clone.
#[derive(Clone)]
pub struct Sqlite(Arc<Inner>);

struct Inner {
    database: Database,
    connection: Mutex<WriteConnection>,
    /// The state of each module: a cache of the file, so that routing an event does not read the file. No other host uses
    /// the file, so epochs are counted here only. Locked after the connection.
    module_states: Mutex<HashMap<Name, ModuleState>>,
    components: Components,
    /// The components that were written and are not in the record yet.
    unrecorded: Mutex<HashSet<ContentHash>>,
    /// The number of components that were written since the start.
    written: AtomicU64,
    /// How many of them the last purge has seen. Locked while a purge runs.
    purged: tokio::sync::Mutex<u64>,
}

/// Accepts the loss of the changes that are missing from the record in a directory. Returns a description of them;
/// `None` if nothing is missing.
///
/// # Errors
///
/// If the record cannot be read.
pub fn accept_loss(directory: &Path) -> Result<Option<String>> {
    Database::new(&VERSIONS, directory.to_owned()).accept_loss()
}

impl Sqlite {
    /// Opens the record in a directory, or creates an empty one. The caller must hold the lock of the directory, which
    /// the journal acquires. `keep` limits the kept components.
    ///
    /// # Errors
    ///
    /// [`StorageErrorKind::Unusable`](crate::error::StorageErrorKind::Unusable) if the file is damaged, was written by
    /// a newer version, or is not a record of versions. The file is left unchanged then.
    pub async fn open(directory: PathBuf, keep: Keep) -> Result<Self> {
        let database = Database::new(&VERSIONS, directory);
        let opened = database.clone();
        let opening = tokio::task::spawn_blocking(move || {
            let database = opened;
            std::fs::create_dir_all(database.directory()).map_err(|error| database.directory_error(&error))?;
            database.create_or_migrate()?;
            let sql = |error: rusqlite::Error| database.explain(&error);
            let connection = database.connect().map_err(sql)?;
            let connection = WriteConnection::new(connection, database.clone())?;
            let module_states = tables::module_states(&connection).map_err(sql)?;
            let components = Components::open(components::folder(database.directory()), keep);
            let components = components.map_err(|error| database.directory_error(&error))?;
            Ok(Self(Arc::new(Inner {
                connection: Mutex::new(connection),
                module_states: Mutex::new(module_states),
                components,
                unrecorded: Mutex::default(),
                written: AtomicU64::new(0),
                purged: tokio::sync::Mutex::new(0),
                database,
            })))
        });
        opening.await.map_err(|error| database.task_failed(&error))?
    }

    /// Opens an existing record that no host uses. No host can start on the directory while the returned lock is held.
    ///
    /// # Errors
    ///
    /// As [`Sqlite::open`]; also if there is no record, or a host uses the directory.
    pub async fn open_offline(directory: PathBuf, keep: Keep) -> Result<(DirectoryLock, Self)> {
        offline::check_exists(&Database::new(&VERSIONS, directory.clone()))?;
        let lock = DirectoryLock::take(&directory)?;
        Ok((lock, Self::open(directory, keep).await?))
    }

    /// Purges the components, unless a purge since the one with this number was written has done so: many modules may come
    /// up at once.
    async fn purge(&self, number: u64) -> Result<()> {
        let mut purged = self.0.purged.lock().await;
        if *purged >= number {
            return Ok(());
        }
        let written = self.0.written.load(Ordering::SeqCst);
        self.blocking(move |inner| {
            let io = |error: std::io::Error| inner.database.directory_error(&error);
            // In this order, each component in the list is unrecorded or in the record, whatever happens meanwhile.
            let files = inner.components.files().map_err(io)?;
            let unrecorded = lock(&inner.unrecorded).clone();
            let known = tables::kept_for(&lock(&inner.connection));
            let known = known.map_err(|error| inner.database.explain(&error))?;
            inner.components.purge(files, &unrecorded, known).map_err(io)
        })
        .await?;
        *purged = written;
        Ok(())
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> Result<T> + Send + 'static) -> Result<T> {
        let inner = self.0.clone();
        tokio::task::spawn_blocking(move || work(&inner)).await.map_err(|error| self.0.database.task_failed(&error))?
    }
}

#[async_trait]
impl Versions for Sqlite {
    fn module_state(&self, module: &Name) -> ModuleState {
        lock(&self.0.module_states).get(module).cloned().unwrap_or_default()
    }

    async fn note(&self, module: &Name, based_on: Epoch, facts: Vec<Fact>) -> std::result::Result<Epoch, NoteError> {
        let module = module.clone();
        let noted = self.blocking(move |inner| {
            let mut connection = lock(&inner.connection);
            let before = lock(&inner.module_states).get(&module).cloned().unwrap_or_default();
            if before.epoch != based_on {
                return Ok(None);
            }
            let now = clock::now();
            let written = connection.transact(|connection| {
                for fact in &facts {
                    tables::note(connection, &module, fact, now)?;
                }
                tables::forget_old(connection, &module)?;
                tables::module_state(connection, &module)
            });
            let mut state = written.map_err(|error| inner.database.explain(&error))?;
            let epoch = before.epoch.0 + u64::from(facts.iter().any(Fact::begins_epoch));
            state.epoch = Epoch(epoch);
            let trial = |state: &ModuleState| state.canary.as_ref().map(|entry| entry.id);
            if trial(&state) == trial(&before) {
                // Includes results that could not be written.
                state.progress = before.progress;
            }
            lock(&inner.module_states).insert(module, state);
            let mut unrecorded = lock(&inner.unrecorded);
            for hash in facts.iter().filter_map(Fact::hash) {
                unrecorded.remove(&hash);
            }
            Ok(Some(Epoch(epoch)))
        });
        noted.await?.ok_or(NoteError::Conflict)
    }

    async fn count_trial(&self, module: &Name, trial: EntryId, ended: Tally, observed: Duration) -> Result<Progress> {
        let module = module.clone();
        self.blocking(move |inner| {
            let mut connection = lock(&inner.connection);
            let progress = {
                let mut states = lock(&inner.module_states);
                let state = states.get_mut(&module);
                let on_trial = |state: &&mut ModuleState| state.canary.as_ref().is_some_and(|entry| entry.id == trial);
                let Some(state) = state.filter(on_trial) else { return Ok(Progress::default()) };
                state.progress.tally.add(&ended);
                state.progress.observed = state.progress.observed.max(observed);
                state.progress
            };
            let written =
                connection.transact(|connection| tables::note_progress(connection, &module, trial, &progress));
            written.map_err(|error| inner.database.explain(&error))?;
            Ok(progress)
        })
        .await
    }

    /// Returns [`Offer::New`]: what is in the file of the only host always counts.
    async fn offer(&self, _: &Name, _: ContentHash) -> Result<Offer> {
        Ok(Offer::New)
    }

    async fn history(&self, module: &Name) -> Result<Vec<Entry>> {
        let module = module.clone();
        self.blocking(move |inner| {
            let mut history = tables::history(&lock(&inner.connection), &module);
            for entry in history.iter_mut().flatten() {
                entry.has_component = inner.components.has(entry.hash);
            }
            history.map_err(|error| inner.database.explain(&error))
        })
        .await
    }

    async fn keep(&self, hash: ContentHash, bytes: Arc<[u8]>) -> Result<()> {
        let number = self.blocking(move |inner| {
            if !inner.components.has(hash) {
                // Before it is written: a purge for another component must not remove it.
                lock(&inner.unrecorded).insert(hash);
            }
            let written = inner.components.put(hash, &bytes);
            let written = written.map_err(|error| inner.database.directory_error(&error))?;
            Ok(written.then(|| inner.written.fetch_add(1, Ordering::SeqCst) + 1))
        });
        match number.await? {
            Some(number) => self.purge(number).await,
            None => Ok(()),
        }
    }

    async fn component(&self, hash: ContentHash) -> Result<Option<Vec<u8>>> {
        self.blocking(move |inner| Ok(inner.components.get(hash))).await
    }

    async fn refresh(&self) -> Result<Vec<Name>> {
        Ok(Vec::new())
    }

    fn poll_every(&self) -> Option<Duration> {
        None
    }
}
