//! Opens the storage of a host: files in its data directory, or databases that several hosts share.

use std::sync::Arc;

use super::{StartError, identity};
use crate::resolved_config::Databases;
use modhost_config::Server;
use modhost_core::clock::SystemClock;
use modhost_core::event::Name;
use modhost_core::secret::Secret;
use modhost_storage::cluster::{Cluster, SingleHost};
use modhost_storage::error::StorageError;
use modhost_storage::journal::{self, Journal, JournalError, Lane, SqliteSettings};
use modhost_storage::keyvalue::{self, KeyValue, KeyValueError};
use modhost_storage::postgres::{Database, Durability};
use modhost_storage::sqlite::DirectoryLock;
use modhost_storage::versions::{self, Keep, PostgresHost, Versions};

/// The storage of a host.
pub(super) struct Storage {
    /// The kind of storage, as the admin API names it.
    pub kind: &'static str,
    /// The name of this host among those that share the storage.
    pub name: String,
    pub journal: Arc<dyn Journal>,
    pub cluster: Arc<dyn Cluster>,
    pub keyvalue: Arc<dyn KeyValue>,
    pub versions: Arc<dyn Versions>,
    /// The lock of the data directory, if the journal doesn't hold it.
    pub directory_lock: Option<DirectoryLock>,
}

impl Storage {
    /// Opens the databases, or without any the files in the data directory. `for_authors` are hosts that leave the
    /// databases of the settings alone.
    ///
    /// # Errors
    ///
    /// If a database can't be reached or used, or the files can't.
    pub(super) async fn open(
        server: &Server,
        databases: Option<&Databases>,
        for_authors: bool,
    ) -> Result<Self, StartError> {
        match databases {
            Some(databases) => Self::open_databases(server, databases).await,
            None => Self::open_files(server, for_authors).await,
        }
    }

    async fn open_databases(server: &Server, databases: &Databases) -> Result<Self, StartError> {
        let (name, directory_lock) = reserve(server).await?;
        let setting = "`url` in [storage]";
        let main = open_database(&databases.main, setting).await?;
        let journal = open_journal(&main, setting).await?;
        let cluster: Arc<dyn Cluster> = journal.clone();
        let keyvalue = open_keyvalue(&main, setting).await?;
        // Results of a canary's deliveries count by process, so each has a name of its own.
        let id = identity::random_id::<8>();
        let id = id.map_err(|error| StartError::Identity { directory: server.data_dir.clone(), error })?;
        let owner = format!("{name}.{id}").into();
        let host = PostgresHost { name: name.clone(), owner, directory: server.data_dir.clone() };
        let versions = versions::Postgres::open(&main, host, keep(server)).await;
        let versions = versions.map_err(|error| unusable(setting, error))?;
        let (mut journals, mut stores) = (Vec::new(), Vec::new());
        for shard in &databases.shards {
            let setting = format!("`url` in [storage.shards.{}]", shard.name);
            let database = open_database(&shard.url, &setting).await?;
            let of_shard: Arc<dyn Journal> = open_journal(&database, &setting).await?;
            journals.push((of_shard, shard.tenants.clone()));
            stores.push((open_keyvalue(&database, &setting).await?, shard.tenants.clone()));
        }
        let (mut journal, mut keyvalue): (Arc<dyn Journal>, _) = (journal, keyvalue);
        if !journals.is_empty() {
            warn_of_misplaced(&journal, &journals).await?;
            journal = Arc::new(journal::Sharded::new(journal, journals, Arc::new(SystemClock)));
            keyvalue = Arc::new(keyvalue::Sharded::new(keyvalue, stores));
        }
        Ok(Self {
            kind: "postgresql",
            name,
            journal,
            cluster,
            keyvalue,
            versions: Arc::new(versions),
            directory_lock: Some(directory_lock),
        })
    }

    async fn open_files(server: &Server, for_authors: bool) -> Result<Self, StartError> {
        let directory = &server.data_dir;
        if identity::has_used_database(directory) && !for_authors {
            return Err(StartError::DatabaseMissing { directory: directory.clone() });
        }
        let journal = journal::Sqlite::open(SqliteSettings { directory: directory.clone() }).await?;
        // Opened after the journal, whose lock reserves the data directory for this process.
        let versions = versions::Sqlite::open(directory.clone(), keep(server)).await?;
        let keyvalue = keyvalue::Sqlite::open(directory.clone()).await?;
        Ok(Self {
            kind: "sqlite",
            name: server.name.clone().unwrap_or_else(identity::machine),
            journal: Arc::new(journal),
            cluster: Arc::new(SingleHost::new(Arc::new(SystemClock))),
            keyvalue: Arc::new(keyvalue),
            versions: Arc::new(versions),
            directory_lock: None,
        })
    }
}

/// Reserves the data directory for this process. Returns the name that the host has in it, and the lock.
async fn reserve(server: &Server) -> Result<(String, DirectoryLock), StartError> {
    let (directory, name) = (server.data_dir.clone(), server.name.clone());
    let reserving = tokio::task::spawn_blocking(move || {
        let identity = |error| StartError::Identity { directory: directory.clone(), error };
        std::fs::create_dir_all(&directory).map_err(identity)?;
        let lock = DirectoryLock::take(&directory).map_err(JournalError::from)?;
        let name = identity::host_name(&directory, name.as_deref()).map_err(identity)?;
        if directory.join(identity::JOURNAL_FILE).exists() {
            tracing::info!(
                directory = %directory.display(),
                "the data directory has a journal of its own, which is not used while [storage] names a database"
            );
        }
        Ok((name, lock))
    });
    let directory = || server.data_dir.clone();
    let failed = |error: tokio::task::JoinError| StartError::Identity {
        directory: directory(),
        error: std::io::Error::other(error.to_string()),
    };
    reserving.await.map_err(failed)?
}

/// Checks that a database can be used, and logs what it guarantees. `setting` names the setting in errors.
async fn open_database(url: &Secret, setting: &str) -> Result<Database, StartError> {
    let database = Database::new(url).map_err(|error| unusable(setting, error))?;
    let Durability { server_version, synchronous_commit, synchronous_standby_names: standbys } =
        database.durability().await.map_err(|error| unusable(setting, error))?;
    tracing::info!(%database, server_version, synchronous_commit, standbys, "connected to PostgreSQL");
    if standbys.is_empty() {
        tracing::warn!(
            %database,
            "the database has no synchronous standby: if its disk fails, what it acknowledged last is lost"
        );
    }
    Ok(database)
}

async fn open_journal(database: &Database, setting: &str) -> Result<Arc<journal::Postgres>, StartError> {
    let opened = journal::Postgres::open(database.clone()).await;
    let journal = opened.map_err(|error| match error {
        JournalError::Storage(error) => unusable(setting, error),
        error @ JournalError::LeaseLost(_) => error.into(),
    });
    journal.map(Arc::new)
}

async fn open_keyvalue(database: &Database, setting: &str) -> Result<Arc<dyn KeyValue>, StartError> {
    match keyvalue::Postgres::open(database).await {
        Ok(store) => Ok(Arc::new(store)),
        Err(KeyValueError::Storage(error)) => Err(unusable(setting, error)),
        Err(error @ KeyValueError::Refused(_)) => Err(error.into()),
    }
}

/// Warns of deliveries in a database that is not that of their tenant any more: nothing runs them.
async fn warn_of_misplaced(
    main: &Arc<dyn Journal>,
    shards: &[(Arc<dyn Journal>, Vec<Name>)],
) -> Result<(), JournalError> {
    let is_in_a_shard = |tenant: &Name| shards.iter().any(|(_, tenants)| tenants.contains(tenant));
    let mut misplaced: Vec<Lane> = main.lanes().await?.into_iter().filter(|lane| is_in_a_shard(&lane.tenant)).collect();
    for (journal, tenants) in shards {
        misplaced.extend(journal.lanes().await?.into_iter().filter(|lane| !tenants.contains(&lane.tenant)));
    }
    for Lane { tenant, module, waiting } in misplaced {
        tracing::error!(
            %tenant, %module, deliveries = waiting,
            "deliveries wait in a database that is not that of their tenant; name the tenant in the shard of that database \
             until they have ended"
        );
    }
    Ok(())
}

fn unusable(setting: &str, error: StorageError) -> StartError {
    StartError::Database { setting: setting.to_owned(), error }
}

/// Returns how many components are kept.
fn keep(server: &Server) -> Keep {
    Keep { of_module: server.retention.versions, bytes: server.retention.versions_size }
}
