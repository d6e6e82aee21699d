//! The record that several hosts share, in PostgreSQL. Components are in the database, too, and each host has a copy of those
//! that it uses in its data directory.
//!
//! Every change locks one row that numbers the changes of all modules, so changes are committed in the order of their
//! numbers. Changes are rare, and a host finds those of others by one query for the numbers above the last one it has seen.
//! [`schema`] documents the tables.

mod components;
mod schema;
mod tables;

pub(crate) use self::components::PART;
pub(crate) use self::schema::VERSIONS as POSTGRES_TABLES;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use self::schema::VERSIONS;
use self::tables::{NumberedState, Which};
use super::components::Components;
use super::{
    ContentHash, Entry, EntryId, Epoch, Fact, Keep, ModuleState, NoteError, Offer, Progress, Result, Tally, Versions,
};
use crate::error::StorageError;
use crate::postgres::{Database, Failure, Pool, read, repeatable, transaction};
use modhost_core::event::Name;
use modhost_core::sync::lock;

/// How often a host looks for what others have changed.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The number of connections for decisions and reads, which are small.
const CONNECTIONS: usize = 2;

/// The number of connections for components.
const COMPONENT_CONNECTIONS: usize = 2;

/// The folder of the copies of components in the data directory.
const FOLDER: &str = "versions-cache";

/// A host that uses the record.
#[derive(Clone, Debug)]
pub struct PostgresHost {
    /// Its name, the same in each of its lives.
    pub name: String,
    /// One life of the host.
    pub owner: Arc<str>,
    /// Its data directory, which has copies of the components. The caller holds its lock.
    pub directory: PathBuf,
}

/// The record of several hosts.
pub struct Postgres {
    host: PostgresHost,
    keep: Keep,
    pool: Pool,
    component_pool: Pool,
    known: Mutex<Known>,
    /// What this host has seen of the trials that go on.
    trials: Mutex<HashMap<EntryId, Progress>>,
    /// The copies of components.
    copies: Arc<Components>,
    /// The copies that were written and whose versions this host has not recorded.
    unrecorded: Mutex<HashSet<ContentHash>>,
    /// The number of components that this host has written since its start.
    written: AtomicU64,
    /// How many of them the last purge has seen. Locked while a purge runs.
    purged: tokio::sync::Mutex<u64>,
}

/// What the host knows of the record.
#[derive(Default)]
struct Known {
    /// The state of each module, so that routing an event needs no query.
    states: HashMap<Name, NumberedState>,
    /// All changes up to this number were read by [`Versions::refresh`].
    seen: i64,
    /// The modules with changes of other hosts that [`Versions::refresh`] has not returned yet.
    unreported: HashSet<Name>,
}

impl Known {
    /// Replaces the state of a module by one that was read, unless that is older.
    fn learn(&mut self, module: Name, read: NumberedState, is_own: bool) {
        let before = self.states.entry(module.clone()).or_default();
        if read.changed <= before.changed {
            return;
        }
        if !is_own && !read.state.is_same(&before.state) {
            self.unreported.insert(module);
        }
        *before = read;
    }
}

impl Postgres {
    /// Opens the record in a database. Creates or migrates its tables if necessary. `keep` limits the kept components.
    ///
    /// # Errors
    ///
    /// If the database can't be reached, or the folder of the components not be created;
    /// [`StorageErrorKind::Unusable`](crate::error::StorageErrorKind::Unusable) if the tables are too new for this program.
    pub async fn open(database: &Database, host: PostgresHost, keep: Keep) -> Result<Self> {
        database.migrate(&VERSIONS).await?;
        let folder = host.directory.join(FOLDER);
        let copies = blocking(move || Components::open(folder, keep)).await?;
        let versions = Self {
            host,
            keep,
            pool: database.pool(VERSIONS.store, "decisions", CONNECTIONS),
            component_pool: database.pool(VERSIONS.store, "components", COMPONENT_CONNECTIONS),
            known: Mutex::default(),
            trials: Mutex::default(),
            copies: Arc::new(copies),
            unrecorded: Mutex::default(),
            written: AtomicU64::new(0),
            purged: tokio::sync::Mutex::new(0),
        };
        versions.refresh().await?;
        Ok(versions)
    }

    /// Purges the components in the database and the copies, unless a purge since the one with this number was written has
    /// done so: many modules may come up at once.
    async fn purge(&self, number: u64) -> Result<()> {
        let mut purged = self.purged.lock().await;
        if *purged >= number {
            return Ok(());
        }
        let written = self.written.load(Ordering::SeqCst);
        components::purge(&self.component_pool, &self.keep).await?;
        let copies = Arc::clone(&self.copies);
        // In this order, each copy is unrecorded or in the record, whatever happens meanwhile.
        let files = blocking(move || copies.files()).await?;
        let unrecorded = lock(&self.unrecorded).clone();
        let known = read!(self.pool, session => tables::kept_for(session).await)?;
        let copies = Arc::clone(&self.copies);
        blocking(move || copies.purge(files, &unrecorded, known)).await?;
        *purged = written;
        Ok(())
    }

    /// Writes a copy of a component, and removes others above the limits.
    async fn copy(&self, hash: ContentHash, bytes: Arc<[u8]>) -> Result<()> {
        let copies = Arc::clone(&self.copies);
        if blocking(move || copies.put(hash, &bytes)).await? {
            let number = self.written.fetch_add(1, Ordering::SeqCst) + 1;
            self.purge(number).await?;
        }
        Ok(())
    }
}

/// Works with files on another thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Result<T> {
    let broken = |error: String| StorageError::broken(VERSIONS.store, format!("its copies of components: {error}"));
    let worked = tokio::task::spawn_blocking(work).await.map_err(|error| broken(error.to_string()))?;
    worked.map_err(|error| broken(error.to_string()))
}

#[async_trait]
impl Versions for Postgres {
    fn module_state(&self, module: &Name) -> ModuleState {
        lock(&self.known).states.get(module).map(|known| known.state.clone()).unwrap_or_default()
    }

    async fn note(&self, module: &Name, based_on: Epoch, facts: Vec<Fact>) -> std::result::Result<Epoch, NoteError> {
        let noted = transaction!(self.pool, session => {
            let number = tables::begin_change(session).await?;
            let is_current = tables::epoch(session, module).await? == based_on;
            if is_current {
                tables::note(session, module, &facts, number, &self.host.name).await?;
            }
            let state = tables::module_states(session, Which::Only(module)).await?;
            Ok::<_, Failure>((is_current, state.into_iter().next().map(|(_, state)| state).unwrap_or_default()))
        });
        let (is_recorded, read) = noted?;
        let epoch = read.state.epoch;
        {
            let mut known = lock(&self.known);
            // A pause on another host is no reason for a conflict, so it may be part of the new state.
            let paused_before = known.states.get(module).is_some_and(|known| known.state.paused.is_some());
            let changes_pause = facts.iter().any(|fact| matches!(fact, Fact::Paused(_)));
            let is_own = is_recorded && (changes_pause || paused_before == read.state.paused.is_some());
            known.learn(module.clone(), read, is_own);
        }
        if !is_recorded {
            return Err(NoteError::Conflict);
        }
        let mut unrecorded = lock(&self.unrecorded);
        for hash in facts.iter().filter_map(Fact::hash) {
            unrecorded.remove(&hash);
        }
        Ok(epoch)
    }

    async fn count_trial(&self, module: &Name, trial: EntryId, ended: Tally, observed: Duration) -> Result<Progress> {
        // Before anything can fail: what is written is the sum, so that it may be written again.
        let own = {
            let mut trials = lock(&self.trials);
            let own = trials.entry(trial).or_default();
            own.tally.add(&ended);
            own.observed = own.observed.max(observed);
            *own
        };
        let owner = &*self.host.owner;
        repeatable!(self.pool, session => tables::set_progress(session, module, trial, owner, &own).await)?;
        let progress = read!(self.pool, session => tables::progress(session, module, trial).await)?;
        match progress {
            Some(progress) => {
                let mut known = lock(&self.known);
                let state = known.states.get_mut(module).map(|known| &mut known.state);
                if let Some(state) = state
                    && state.canary.as_ref().is_some_and(|entry| entry.id == trial)
                {
                    state.progress = progress;
                }
                Ok(progress)
            }
            None => {
                lock(&self.trials).remove(&trial);
                Ok(Progress::default())
            }
        }
    }

    async fn offer(&self, module: &Name, file: ContentHash) -> Result<Offer> {
        let host = &self.host.name;
        transaction!(self.pool, session => tables::offer(session, module, file, host).await)
    }

    async fn history(&self, module: &Name) -> Result<Vec<Entry>> {
        read!(self.pool, session => tables::history(session, module).await)
    }

    async fn keep(&self, hash: ContentHash, bytes: Arc<[u8]>) -> Result<()> {
        // Before it is written: a purge for another component must not remove it.
        lock(&self.unrecorded).insert(hash);
        if components::keep(&self.component_pool, hash, &bytes).await? {
            let number = self.written.fetch_add(1, Ordering::SeqCst) + 1;
            self.purge(number).await?;
        }
        self.copy(hash, bytes).await
    }

    async fn component(&self, hash: ContentHash) -> Result<Option<Vec<u8>>> {
        let copies = Arc::clone(&self.copies);
        if let Some(bytes) = blocking(move || Ok(copies.get(hash))).await? {
            return Ok(Some(bytes));
        }
        let Some(bytes) = components::read(&self.component_pool, hash).await? else { return Ok(None) };
        // The copy only saves time.
        if let Err(error) = self.copy(hash, Arc::from(bytes.as_slice())).await {
            tracing::warn!(version = %hash, %error, "cannot copy a component to the data directory");
        }
        Ok(Some(bytes))
    }

    async fn refresh(&self) -> Result<Vec<Name>> {
        let seen = lock(&self.known).seen;
        let read = read!(self.pool, session => tables::module_states(session, Which::ChangedAfter(seen)).await)?;
        let mut known = lock(&self.known);
        for (module, state) in read {
            known.seen = known.seen.max(state.changed);
            known.learn(module, state, false);
        }
        Ok(known.unreported.drain().collect())
    }

    fn poll_every(&self) -> Option<Duration> {
        Some(POLL_INTERVAL)
    }
}
