//! Read-only access to the record of versions of a stopped host.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rusqlite::Connection;

use super::schema::VERSIONS;
use super::tables;
use crate::sqlite::Database;
use crate::versions::{Entry, ModuleState, Result, components};
use modhost_core::event::Name;
use modhost_core::sync::lock;

/// The record of versions of a stopped host, opened read-only.
#[derive(Clone)]
pub struct OfflineVersions {
    database: Database,
    connection: Arc<Mutex<Connection>>,
}

impl OfflineVersions {
    /// Opens a record read-only. Does not interfere with a host that uses it at the same time.
    ///
    /// # Errors
    ///
    /// If there is no record, or it is damaged or has another version of the schema.
    pub async fn open(directory: PathBuf) -> Result<Self> {
        let database = Database::new(&VERSIONS, directory);
        let opened = database.clone();
        let opening = tokio::task::spawn_blocking(move || {
            let connection = Arc::new(Mutex::new(inspect(&opened)?));
            Ok(Self { database: opened, connection })
        });
        opening.await.map_err(|error| database.task_failed(&error))?
    }

    /// Returns the state of every known module, ordered by name.
    ///
    /// # Errors
    ///
    /// If the record cannot be read.
    pub async fn modules(&self) -> Result<Vec<(Name, ModuleState)>> {
        let mut modules: Vec<_> = self.read(tables::module_states).await?.into_iter().collect();
        modules.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(modules)
    }

    /// Returns the state of a module; `None` if the module is unknown.
    ///
    /// # Errors
    ///
    /// If the record cannot be read.
    pub async fn module_state(&self, module: &Name) -> Result<Option<ModuleState>> {
        let known = self.modules().await?;
        Ok(known.into_iter().find(|(name, _)| name == module).map(|(_, state)| state))
    }

    /// Returns the history of a module's versions, newest first, as far back as it is kept.
    ///
    /// # Errors
    ///
    /// If the record cannot be read.
    pub async fn history(&self, module: &Name) -> Result<Vec<Entry>> {
        let (module, folder) = (module.clone(), components::folder(self.database.directory()));
        let read = self.read(move |connection| {
            let mut history = tables::history(connection, &module)?;
            for entry in &mut history {
                entry.has_component = components::has(&folder, entry.hash);
            }
            Ok(history)
        });
        read.await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let Self { database, connection } = self.clone();
        let read = tokio::task::spawn_blocking(move || work(&lock(&connection)).map_err(|it| database.explain(&it)));
        read.await.map_err(|error| self.database.task_failed(&error))?
    }
}

/// Checks that the file of the record exists.
pub(super) fn check_exists(database: &Database) -> Result<()> {
    if std::fs::exists(database.file()).unwrap_or(false) {
        return Ok(());
    }
    let directory = database.directory().display();
    let message = format!("there is no record of versions in {directory}; is it a host's data directory?");
    Err(database.unusable(message))
}

/// Checks that this version can read the record, without changing it. Returns a read-only connection.
fn inspect(database: &Database) -> Result<Connection> {
    check_exists(database)?;
    let mut connection = database.connect_offline().map_err(|error| database.explain(&error))?;
    let version = database.inspect_with(&mut connection)?;
    if version < VERSIONS.version() {
        let message = format!(
            "the record of versions {} was written by an older modhost and is not migrated yet; start a host of this \
             version to migrate it",
            database.file().display()
        );
        return Err(database.unusable(message));
    }
    Ok(connection)
}
