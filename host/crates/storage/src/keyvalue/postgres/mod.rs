//! The store in PostgreSQL, for several hosts.
//!
//! Each change is one transaction, which first locks the row of its space: so changes of a space happen one after the other,
//! whichever hosts make them, and those of different spaces at the same time. A change is checked completely before anything
//! is written. [`schema`] documents the tables.

mod changes;
mod reading;
mod schema;

pub(crate) use self::schema::STORE as POSTGRES_TABLES;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use self::changes::ChangeRequest;
use self::schema::STORE;
use super::{Bucket, BucketTotals, Change, Changed, Entry, KeyInfo, KeyValue, Result, Space};
use crate::error::{StorageError, StorageErrorKind};
use crate::postgres::{Database, Pool, read, repeatable, transaction, values};
use modhost_core::limits::Limit;
use modhost_core::sync::lock;
use modhost_core::tenant_permits::TenantPermits;

/// Maximum number of concurrent changes of this host.
const MAX_CHANGES: usize = 8;

/// Maximum number of concurrent changes of a tenant.
const MAX_CHANGES_PER_TENANT: usize = 4;

/// Maximum number of concurrent reads of this host.
const MAX_READS: usize = 4;

/// Maximum number of concurrent reads of a tenant.
const MAX_READS_PER_TENANT: usize = 2;

/// Maximum number of idempotency keys that wait to be forgotten. Those above it are removed once they are old.
const MAX_KEYS_TO_FORGET: usize = 16_384;

/// Maximum number of idempotency keys that one change removes.
const MAX_FORGOTTEN_AT_ONCE: usize = 512;

/// How long an idempotency key is kept that is never reported as answered: far longer than the usual downtime of a
/// host.
const MAX_IDEMPOTENCY_KEY_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How often old idempotency keys are removed.
const PURGE_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Maximum number of old idempotency keys that are removed at once.
const MAX_PURGED: i64 = 10_000;

/// A store in a PostgreSQL database, which several hosts can use at the same time.
pub struct Postgres {
    changes: Pool,
    reads: Pool,
    changing_tenants: TenantPermits,
    reading_tenants: TenantPermits,
    /// Idempotency keys to forget. The next transaction removes them, so that no transaction is needed only for them. The
    /// order is the one in which every host locks them.
    keys_to_forget: Mutex<BTreeSet<String>>,
    /// When old idempotency keys were removed last.
    purged: Mutex<Instant>,
}

impl Postgres {
    /// Opens the store in a database. Creates or migrates its tables if necessary.
    ///
    /// # Errors
    ///
    /// If the database can't be reached;
    /// [`StorageErrorKind::Unusable`](crate::error::StorageErrorKind::Unusable) if the tables are too new for this program.
    pub async fn open(database: &Database) -> Result<Self> {
        database.migrate(&STORE).await?;
        let store = Self {
            changes: database.pool(STORE.store, "changes", MAX_CHANGES),
            reads: database.pool(STORE.store, "reads", MAX_READS),
            changing_tenants: TenantPermits::new(MAX_CHANGES_PER_TENANT),
            reading_tenants: TenantPermits::new(MAX_READS_PER_TENANT),
            keys_to_forget: Mutex::default(),
            purged: Mutex::new(Instant::now()),
        };
        store.purge().await?;
        Ok(store)
    }

    /// Applies a change in a transaction, together with the keys that are to be forgotten.
    async fn apply(&self, request: &ChangeRequest<'_>) -> Result<Changed> {
        let forgotten: Vec<String> = lock(&self.keys_to_forget).iter().take(MAX_FORGOTTEN_AT_ONCE).cloned().collect();
        let changed = transaction!(self.changes, session => {
            changes::forget(session, &forgotten).await?;
            changes::change(session, request).await
        })?;
        self.have_forgotten(&forgotten);
        changed
    }

    fn have_forgotten(&self, forgotten: &[String]) {
        let mut keys_to_forget = lock(&self.keys_to_forget);
        for key in forgotten {
            keys_to_forget.remove(key);
        }
    }

    /// Removes old idempotency keys, if that is due.
    async fn purge_if_due(&self) {
        {
            let mut purged = lock(&self.purged);
            if purged.elapsed() < PURGE_INTERVAL {
                return;
            }
            *purged = Instant::now();
        }
        if let Err(error) = self.purge().await {
            tracing::warn!(%error, "cannot remove old idempotency keys; trying again in an hour");
        }
    }

    /// Removes old idempotency keys.
    async fn purge(&self) -> std::result::Result<(), StorageError> {
        // Seconds of a constant; never near the limit.
        let age = i64::try_from(MAX_IDEMPOTENCY_KEY_AGE.as_secs()).unwrap_or(i64::MAX);
        let sql = "DELETE FROM keyvalue_done WHERE once IN (SELECT once FROM keyvalue_done \
                   WHERE at < now() - $1 * interval '1 second' ORDER BY once LIMIT $2 FOR UPDATE SKIP LOCKED)";
        repeatable!(self.changes, session => session.execute(sql, values![age, MAX_PURGED]).await).map(drop)
    }
}

#[async_trait]
impl KeyValue for Postgres {
    async fn get(&self, bucket: &Bucket, keys: Vec<String>) -> Result<Vec<Option<Entry>>> {
        let _permit = self.reading_tenants.acquire(&bucket.space.tenant).await;
        read!(self.reads, session => reading::get(session, bucket, &keys).await)?
    }

    async fn keys(&self, bucket: &Bucket, after: Option<String>, limit: u32) -> Result<Vec<KeyInfo>> {
        let _permit = self.reading_tenants.acquire(&bucket.space.tenant).await;
        Ok(read!(self.reads, session => reading::keys(session, bucket, after.as_deref(), limit).await)?)
    }

    async fn change(&self, bucket: &Bucket, change: Change, quota: Limit, idempotency_key: &str) -> Result<Changed> {
        let _permit = self.changing_tenants.acquire(&bucket.space.tenant).await;
        let request = ChangeRequest { bucket, change: &change, quota, idempotency_key };
        let changed = match self.apply(&request).await {
            // If it is unknown whether the change was committed, the idempotency key tells.
            Err(super::KeyValueError::Storage(error)) if error.kind == StorageErrorKind::Unavailable => {
                tracing::debug!(%error, "repeating a change");
                self.apply(&request).await
            }
            changed => changed,
        };
        self.purge_if_due().await;
        changed
    }

    fn forget_key(&self, idempotency_key: &str) {
        let mut keys_to_forget = lock(&self.keys_to_forget);
        if keys_to_forget.len() < MAX_KEYS_TO_FORGET {
            keys_to_forget.insert(idempotency_key.to_owned());
        }
    }

    async fn buckets(&self, space: &Space) -> Result<Vec<BucketTotals>> {
        Ok(read!(self.reads, session => reading::buckets(session, space).await)?)
    }

    async fn close(&self) -> Result<()> {
        let forgotten: Vec<String> = lock(&self.keys_to_forget).iter().cloned().collect();
        if !forgotten.is_empty() {
            repeatable!(self.changes, session => changes::forget(session, &forgotten).await)?;
            self.have_forgotten(&forgotten);
        }
        self.reads.close();
        self.changes.close();
        Ok(())
    }
}
