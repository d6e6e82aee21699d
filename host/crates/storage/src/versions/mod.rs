//! The record of versions: which version of each module served when, where it came from, who asked and how it ended;
//! what a person has said about a module; and the components themselves, so that a version can serve again whose file
//! is gone.
//!
//! One SQLite file, seldom written, and beside it a folder with the components, each named by its hash. Knows nothing of
//! WebAssembly: a component is bytes.

mod components;
mod hash;
mod offline;
mod policy;
mod schema;
mod tables;
mod types;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, TransactionBehavior};

use components::Components;
use schema::VERSIONS;

use crate::error::StorageError;
use crate::sqlite::{Database, DirectoryLock, Mark};
pub use components::Keep;
pub use hash::ContentHash;
use modhost_core::clock;
use modhost_core::event::Name;
pub use offline::AtRest;
pub use policy::{Decision, Refusal, VersionRequest, ended_by, promoted_by, took_over, went_back};
pub use types::{Entry, Fact, HeldBack, ModuleState, Order, Origin, Progress, Role, Tally};

/// What an operation of the record ends in.
pub type Result<T> = std::result::Result<T, StorageError>;

/// The record of versions. Cheap to clone.
#[derive(Clone)]
pub struct Versions(Arc<Inner>);

struct Inner {
    database: Database,
    connection: Mutex<Connection>,
    /// The high-water mark beside the file.
    mark: Mutex<Mark>,
    /// How each module stands, as the file has it: read on the way of events, where no file is asked.
    standing: Mutex<HashMap<Name, ModuleState>>,
    components: Components,
}

/// Gives up what is missing from the record in a directory. Answers with what that is; none if nothing is.
pub fn accept_loss(directory: &Path) -> Result<Option<String>> {
    Database::new(&VERSIONS, directory.to_owned()).accept_loss()
}

impl Versions {
    /// Opens the record in a directory, or makes an empty one there. The directory has to be this host's: whose it is,
    /// the journal's lock says. `keep` is how many components stay.
    ///
    /// # Errors
    ///
    /// [`StorageErrorKind::Unusable`](crate::error::StorageErrorKind::Unusable) when it was written by a newer version, or what is there is damaged or no record at
    /// all: it is left as it is then.
    pub async fn open(directory: PathBuf, keep: Keep) -> Result<Self> {
        let database = Database::new(&VERSIONS, directory);
        let opened = database.clone();
        let opening = tokio::task::spawn_blocking(move || {
            let database = opened;
            std::fs::create_dir_all(database.directory()).map_err(|error| database.unreachable(&error))?;
            database.make_ready()?;
            let sql = |error: rusqlite::Error| database.explain(&error);
            let connection = database.connect().map_err(sql)?;
            let mark = Mark::open(&database, &connection)?;
            let standing = tables::standing(&connection).map_err(sql)?;
            let components = Components::open(components::folder(database.directory()), keep);
            let components = components.map_err(|error| database.unreachable(&error))?;
            Ok(Self(Arc::new(Inner {
                connection: Mutex::new(connection),
                mark: Mutex::new(mark),
                standing: Mutex::new(standing),
                components,
                database,
            })))
        });
        opening.await.map_err(|error| database.interrupted(&error))?
    }

    /// The same for a record that is there, of a host that doesn't run: none can begin to while the lock is held.
    ///
    /// # Errors
    ///
    /// As with [`Versions::open`], and when there is no record, or a host runs.
    pub async fn open_at_rest(directory: PathBuf, keep: Keep) -> Result<(DirectoryLock, Self)> {
        offline::look_for(&Database::new(&VERSIONS, directory.clone()))?;
        let lock = DirectoryLock::take(&directory)?;
        Ok((lock, Self::open(directory, keep).await?))
    }

    /// How a module stands: what serves, what is tried, and what people said.
    pub fn standing(&self, module: &Name) -> ModuleState {
        lock(&self.0.standing).get(module).cloned().unwrap_or_default()
    }

    /// Writes down what has happened to a module, all of it or nothing; it is on disk when this returns.
    ///
    /// # Errors
    ///
    /// When it can't be written.
    pub async fn note(&self, module: &Name, facts: Vec<Fact>) -> Result<()> {
        let module = module.clone();
        self.blocking(move |inner| {
            let mut connection = lock(&inner.connection);
            let mut mark = lock(&inner.mark);
            let now = clock::now();
            let written = (|| {
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                for fact in &facts {
                    tables::note(&transaction, &module, fact, now)?;
                }
                tables::forget_old(&transaction, &module)?;
                let standing = tables::standing_of(&transaction, &module)?;
                mark.count(&transaction)?;
                transaction.commit()?;
                mark.raise();
                Ok(standing)
            })();
            let standing = written.map_err(|error| inner.database.explain(&error))?;
            lock(&inner.standing).insert(module, standing);
            Ok(())
        })
        .await
    }

    /// What has happened to a module's versions, newest first, as far back as it is remembered.
    ///
    /// # Errors
    ///
    /// When it can't be read.
    pub async fn history(&self, module: &Name) -> Result<Vec<Entry>> {
        let module = module.clone();
        self.blocking(move |inner| {
            let mut history = tables::history(&lock(&inner.connection), &module);
            for entry in history.iter_mut().flatten() {
                entry.kept = inner.components.has(entry.hash);
            }
            history.map_err(|error| inner.database.explain(&error))
        })
        .await
    }

    /// Keeps a component, so that it can serve again. What was kept longest ago goes when there are too many, but nothing
    /// that serves, is tried or pinned.
    ///
    /// # Errors
    ///
    /// When it can't be written.
    pub async fn keep(&self, hash: ContentHash, bytes: Arc<[u8]>) -> Result<()> {
        self.blocking(move |inner| {
            let io = |error: std::io::Error| inner.database.unreachable(&error);
            if inner.components.put(hash, &bytes).map_err(io)? {
                let known = tables::kept_for(&lock(&inner.connection));
                let known = known.map_err(|error| inner.database.explain(&error))?;
                inner.components.make_room(hash, known).map_err(io)?;
            }
            Ok(())
        })
        .await
    }

    /// The bytes of a component that was kept; none if it wasn't, or is no longer what it was.
    pub async fn component(&self, hash: ContentHash) -> Option<Vec<u8>> {
        let inner = self.0.clone();
        tokio::task::spawn_blocking(move || inner.components.get(hash)).await.ok().flatten()
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> Result<T> + Send + 'static) -> Result<T> {
        let inner = self.0.clone();
        tokio::task::spawn_blocking(move || work(&inner)).await.map_err(|error| self.0.database.interrupted(&error))?
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
