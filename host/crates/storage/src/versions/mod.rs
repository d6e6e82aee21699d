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

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
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
            let mut unrecorded = lock(&inner.unrecorded);
            for hash in facts.iter().filter_map(Fact::hash) {
                unrecorded.remove(&hash);
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Many modules come up at once: each component is written before its version is recorded, while others are purged.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn keeps_the_components_of_modules_that_come_up_together() {
        let directory = tempfile::tempdir().unwrap();
        let keep = Keep { of_module: 2, bytes: 1 << 20 };
        let versions = Versions::open(directory.path().to_owned(), keep).await.unwrap();
        let hash = |number: u16| ContentHash::of(&number.to_be_bytes());
        let come_up = |number: u16| {
            let versions = versions.clone();
            tokio::spawn(async move {
                versions.keep(hash(number), Arc::from(number.to_be_bytes())).await?;
                let serves = Fact::Serves { hash: hash(number), origin: Origin::File, by: None };
                versions.note(&Name::from(format!("module-{number}").as_str()), vec![serves]).await
            })
        };
        for coming_up in (0..200).map(come_up).collect::<Vec<_>>() {
            coming_up.await.unwrap().unwrap();
        }
        for number in 0..200 {
            assert!(versions.component(hash(number)).await.is_some(), "the component of module-{number} is gone");
        }
        assert!(lock(&versions.0.unrecorded).is_empty());
    }
}
