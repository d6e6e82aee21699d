//! The record of versions. It contains the history of each module's versions (when each served, its origin, the
//! operator who requested it, why it ended), the actions of operators, and the components, so that a version can serve
//! again whose file no longer exists.
//!
//! The record consists of a SQLite file, which is rarely written, and a folder with the components, each named by its
//! hash. It does not depend on WebAssembly: a component is a sequence of bytes.

mod components;
mod hash;
mod offline;
mod policy;
mod schema;
mod tables;
mod types;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use components::Components;
use schema::VERSIONS;

use crate::error::StorageError;
use crate::sqlite::{Database, DirectoryLock, WriteConnection};
pub use components::Keep;
pub use hash::ContentHash;
use modhost_core::clock;
use modhost_core::event::Name;
use modhost_core::sync::lock;
pub use offline::OfflineVersions;
pub use policy::{
    Decision, Refusal, VersionRequest, aborted_by, canary_failed_facts, canary_promoted_facts, promoted_by,
};
pub use types::{Entry, Fact, HeldBack, ModuleState, OperatorAction, Origin, Progress, Role, Tally};

/// The result of an operation on the record.
pub type Result<T> = std::result::Result<T, StorageError>;

/// The record of versions. Cheap to clone.
#[derive(Clone)]
pub struct Versions(Arc<Inner>);

struct Inner {
    database: Database,
    connection: Mutex<WriteConnection>,
    /// The state of each module: a cache of the file, so that routing an event does not read the file.
    module_states: Mutex<HashMap<Name, ModuleState>>,
    components: Components,
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

impl Versions {
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
                database,
            })))
        });
        opening.await.map_err(|error| database.task_failed(&error))?
    }

    /// Opens an existing record that no host uses. No host can start on the directory while the returned lock is held.
    ///
    /// # Errors
    ///
    /// As [`Versions::open`]; also if there is no record, or a host uses the directory.
    pub async fn open_offline(directory: PathBuf, keep: Keep) -> Result<(DirectoryLock, Self)> {
        offline::check_exists(&Database::new(&VERSIONS, directory.clone()))?;
        let lock = DirectoryLock::take(&directory)?;
        Ok((lock, Self::open(directory, keep).await?))
    }

    /// Returns the state of a module: the serving version, the canary, and the actions of operators.
    pub fn module_state(&self, module: &Name) -> ModuleState {
        lock(&self.0.module_states).get(module).cloned().unwrap_or_default()
    }

    /// Records facts about a module durably, in one transaction.
    ///
    /// # Errors
    ///
    /// If the record cannot be written.
    pub async fn note(&self, module: &Name, facts: Vec<Fact>) -> Result<()> {
        let module = module.clone();
        self.blocking(move |inner| {
            let mut connection = lock(&inner.connection);
            let now = clock::now();
            let written = connection.transact(|connection| {
                for fact in &facts {
                    tables::note(connection, &module, fact, now)?;
                }
                tables::forget_old(connection, &module)?;
                tables::module_state(connection, &module)
            });
            let state = written.map_err(|error| inner.database.explain(&error))?;
            lock(&inner.module_states).insert(module, state);
            Ok(())
        })
        .await
    }

    /// Returns the history of a module's versions, newest first, as far back as it is kept.
    ///
    /// # Errors
    ///
    /// If the record cannot be read.
    pub async fn history(&self, module: &Name) -> Result<Vec<Entry>> {
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

    /// Keeps a component, so that it can serve again. Beyond the limits, removes the components of the versions that
    /// were recorded longest ago, except those that serve, are canaries or are pinned.
    ///
    /// # Errors
    ///
    /// If the component cannot be written.
    pub async fn keep(&self, hash: ContentHash, bytes: Arc<[u8]>) -> Result<()> {
        self.blocking(move |inner| {
            let io = |error: std::io::Error| inner.database.directory_error(&error);
            if inner.components.put(hash, &bytes).map_err(io)? {
                let known = tables::kept_for(&lock(&inner.connection));
                let known = known.map_err(|error| inner.database.explain(&error))?;
                inner.components.purge(hash, known).map_err(io)?;
            }
            Ok(())
        })
        .await
    }

    /// Returns the bytes of a kept component; `None` if it is not kept or its file was changed.
    pub async fn component(&self, hash: ContentHash) -> Option<Vec<u8>> {
        let inner = self.0.clone();
        tokio::task::spawn_blocking(move || inner.components.get(hash)).await.ok().flatten()
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> Result<T> + Send + 'static) -> Result<T> {
        let inner = self.0.clone();
        tokio::task::spawn_blocking(move || work(&inner)).await.map_err(|error| self.0.database.task_failed(&error))?
    }
}
