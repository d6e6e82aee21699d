//! Verified requests that cannot be parsed as events. They are kept for operators, each in a file of the data
//! directory.
//!
//! Unless its scheme specifies another status, the host answers such a request with 503, so that the platform sends it
//! again. No module processes it. So it is a diagnostic that is kept outside the journal, with limits of its own.
//! Beyond the limits of a source, its oldest request is removed; beyond the limits of all sources, the oldest request
//! of the source that uses the most space.

mod file;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use modhost_core::event::{Name, push_hex};
use modhost_core::sync::lock;

/// The limits of the kept requests.
#[derive(Clone, Copy, Debug)]
pub struct UnreadableLimits {
    /// Maximum number of requests of one source.
    pub per_source: usize,
    /// Maximum size of the bodies of one source, in bytes.
    pub bytes_per_source: u64,
    /// Maximum number of requests of all sources together.
    pub total: usize,
    /// Maximum size of the bodies of all sources together, in bytes.
    pub total_bytes: u64,
    /// Maximum age, since a request last arrived.
    pub age: Duration,
}

impl Default for UnreadableLimits {
    fn default() -> Self {
        Self {
            per_source: 100,
            bytes_per_source: 16 << 20,
            total: 1_000,
            total_bytes: 128 << 20,
            age: Duration::from_secs(30 * 24 * 60 * 60),
        }
    }
}

/// A verified request that cannot be parsed as an event.
#[derive(Clone, Debug, PartialEq)]
pub struct Unreadable {
    /// The source that received it.
    pub source: Name,
    /// The tenant of the source, if it has one.
    pub tenant: Option<Name>,
    /// Why it cannot be parsed.
    pub reason: String,
    /// The status of the response; `None` if it arrived over an event socket.
    pub status: Option<u16>,
    /// Headers that are useful for diagnosis, without secrets and signatures.
    pub headers: Vec<(String, String)>,
    /// The body, as it was signed.
    pub body: Bytes,
}

/// The record of a kept request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnreadableRecord {
    /// Its id, derived from the source and the body.
    pub id: String,
    /// The source that received it.
    pub source: String,
    /// The tenant of the source, if it has one.
    pub tenant: Option<String>,
    /// Why it cannot be parsed.
    pub reason: String,
    /// The status of the response; `None` if it arrived over an event socket.
    pub status: Option<u16>,
    /// Headers that are useful for diagnosis.
    pub headers: Vec<(String, String)>,
    /// The size of its body as received, in bytes.
    pub size: u64,
    /// Whether the body exceeded the limit, so that only its beginning is kept.
    #[serde(rename = "is_cut")]
    pub truncated: bool,
    /// When it first arrived, in milliseconds since 1970.
    pub first_at: u64,
    /// When it last arrived, in milliseconds since 1970. A repetition is not stored, so it is lost when the host
    /// restarts.
    pub last_at: u64,
    /// How often it arrived. Repetitions are not stored, so the count is lost when the host restarts.
    pub times: u64,
}

/// The store of unreadable requests. Cheap to clone.
#[derive(Clone)]
pub struct UnreadableStore(Arc<Inner>);

struct Inner {
    directory: PathBuf,
    limits: UnreadableLimits,
    records: Mutex<HashMap<String, UnreadableRecord>>,
    /// Locked while files are written or removed.
    files: Arc<tokio::sync::Mutex<()>>,
}

impl UnreadableStore {
    /// Opens the store in a data directory. Blocks. Files that cannot be read are logged and skipped.
    pub fn open(data_dir: &Path, limits: UnreadableLimits) -> Self {
        let directory = data_dir.join("unreadable");
        let records = file::load(&directory, limits.total).unwrap_or_else(|error| {
            tracing::warn!(directory = %directory.display(), %error, "cannot list unreadable requests");
            Vec::new()
        });
        let records = records.into_iter().map(|record| (record.id.clone(), record)).collect();
        Self(Arc::new(Inner { directory, limits, records: Mutex::new(records), files: Arc::default() }))
    }

    /// Keeps a request durably. Runs to completion even if the caller stops waiting.
    ///
    /// # Errors
    ///
    /// If the request cannot be written.
    pub async fn keep(&self, unreadable: Unreadable, now: SystemTime) -> io::Result<()> {
        let guard = self.0.files.clone().lock_owned().await;
        let inner = self.0.clone();
        let kept = tokio::task::spawn_blocking(move || {
            let _guard = guard;
            inner.keep(&unreadable, milliseconds(now))
        });
        kept.await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// Returns the kept requests, last arrived first.
    pub fn list(&self) -> Vec<UnreadableRecord> {
        let mut records: Vec<_> = self.0.records().values().cloned().collect();
        records.sort_by(|a, b| (b.last_at, &b.id).cmp(&(a.last_at, &a.id)));
        records
    }

    /// Returns a request and its body; `None` if the id is unknown.
    ///
    /// # Errors
    ///
    /// If its file cannot be read.
    pub async fn read(&self, id: &str) -> io::Result<Option<(UnreadableRecord, Vec<u8>)>> {
        let Some(record) = self.0.records().get(id).cloned() else { return Ok(None) };
        let path = file::path(&self.0.directory, &record.id);
        let body = tokio::task::spawn_blocking(move || file::body(&path));
        let body = body.await.unwrap_or_else(|error| Err(io::Error::other(error)))?;
        Ok(Some((record, body)))
    }

    /// Removes a request. Returns whether it existed.
    ///
    /// # Errors
    ///
    /// If its file cannot be removed.
    pub async fn remove(&self, id: &str) -> io::Result<bool> {
        let guard = self.0.files.clone().lock_owned().await;
        let (inner, id) = (self.0.clone(), id.to_owned());
        let removed = tokio::task::spawn_blocking(move || {
            let _guard = guard;
            inner.remove(&id)
        });
        removed.await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

impl Inner {
    fn records(&self) -> MutexGuard<'_, HashMap<String, UnreadableRecord>> {
        lock(&self.records)
    }

    fn keep(&self, unreadable: &Unreadable, now: u64) -> io::Result<()> {
        let id = id_of(unreadable);
        if let Some(known) = self.records().get_mut(&id) {
            known.times += 1;
            known.last_at = now;
            known.reason.clone_from(&unreadable.reason);
            known.status = unreadable.status;
            return Ok(());
        }
        let largest = self.limits.bytes_per_source.min(self.limits.total_bytes);
        let kept = unreadable.body.len().min(usize::try_from(largest).unwrap_or(usize::MAX));
        let record = UnreadableRecord {
            id: id.clone(),
            source: unreadable.source.to_string(),
            tenant: unreadable.tenant.as_ref().map(Name::to_string),
            reason: unreadable.reason.clone(),
            status: unreadable.status,
            headers: unreadable.headers.clone(),
            size: unreadable.body.len() as u64,
            truncated: kept < unreadable.body.len(),
            first_at: now,
            last_at: now,
            times: 1,
        };
        // Purged before the write, so that the limits are never exceeded.
        self.purge(&record, now)?;
        file::write(&self.directory, &record, &unreadable.body[..kept])?;
        self.records().insert(id, record);
        Ok(())
    }

    /// Removes requests that are too old, and the oldest ones until the rest and a new request are within the limits.
    fn purge(&self, new: &UnreadableRecord, now: u64) -> io::Result<()> {
        let UnreadableLimits { per_source, bytes_per_source, total, total_bytes, age } = self.limits;
        let oldest_kept = now.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        loop {
            let victim = {
                let records = self.records();
                let stored = |record: &UnreadableRecord| record.size.min(bytes_per_source);
                let mut by_source: HashMap<&str, (usize, u64)> = HashMap::new();
                for record in records.values().chain([new]) {
                    let (count, bytes) = by_source.entry(&record.source).or_default();
                    (*count, *bytes) = (*count + 1, *bytes + stored(record));
                }
                let (count, bytes) = by_source.values().fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
                let own = by_source.get(new.source.as_str()).copied().unwrap_or_default();
                let largest =
                    by_source.iter().max_by_key(|(_, (count, bytes))| (*bytes, *count)).map(|(name, _)| *name);
                let of = |source: Option<&str>| {
                    let records = records.values().filter(|it| source.is_none_or(|source| it.source == source));
                    records.min_by_key(|it| (it.last_at, it.id.clone())).map(|it| it.id.clone())
                };
                if let Some(old) = records.values().find(|it| it.last_at < oldest_kept) {
                    Some(old.id.clone())
                } else if own.0 > per_source || own.1 > bytes_per_source {
                    of(Some(&new.source))
                } else if count > total || bytes > total_bytes {
                    of(largest).or_else(|| of(None))
                } else {
                    None
                }
            };
            let Some(victim) = victim else { return Ok(()) };
            self.remove(&victim)?;
        }
    }

    fn remove(&self, id: &str) -> io::Result<bool> {
        let Some(record) = self.records().get(id).cloned() else { return Ok(false) };
        match std::fs::remove_file(file::path(&self.directory, &record.id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.records().remove(id);
        Ok(true)
    }
}

/// Returns the id of a request: a hash of its source and body, so that a repeated request has the same id.
fn id_of(unreadable: &Unreadable) -> String {
    let source = unreadable.source.as_str();
    let mut hash = Sha256::new();
    hash.update((source.len() as u64).to_le_bytes());
    hash.update(source);
    hash.update(&unreadable.body);
    let mut id = String::from("unr_");
    push_hex(&mut id, &hash.finalize()[..12]);
    id
}

fn milliseconds(time: SystemTime) -> u64 {
    let time = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(source: &str, body: impl Into<Bytes>) -> Unreadable {
        Unreadable {
            source: source.into(),
            tenant: None,
            reason: "the body is not JSON".into(),
            status: Some(503),
            headers: vec![("content-type".into(), "text/plain".into())],
            body: body.into(),
        }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn limits() -> UnreadableLimits {
        UnreadableLimits {
            per_source: 3,
            bytes_per_source: 100,
            total: 5,
            total_bytes: 250,
            age: Duration::from_secs(1000),
        }
    }

    #[tokio::test]
    async fn keeps_bodies_within_limits_and_over_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let store = UnreadableStore::open(folder.path(), limits());
        for number in 0..10u64 {
            store.keep(body("a", format!("hello {number}\n\0\u{e9}")), at(number)).await.unwrap();
            store.keep(body("b", format!("hello {number}")), at(number)).await.unwrap();
            let files = std::fs::read_dir(folder.path().join("unreadable")).unwrap().count();
            assert!(files <= 5, "{files} files");
        }
        // A repeated body is counted, not stored again.
        store.keep(body("b", "hello 9"), at(20)).await.unwrap();
        let again = store.list().into_iter().next().unwrap();
        assert_eq!((again.source.as_str(), again.times, again.first_at, again.last_at), ("b", 2, 9_000, 20_000));

        let reopened = UnreadableStore::open(folder.path(), limits());
        let mut before: Vec<_> = store.list().into_iter().map(|it| it.id).collect();
        let mut after: Vec<_> = reopened.list().into_iter().map(|it| it.id).collect();
        before.sort();
        after.sort();
        assert_eq!(before, after);
        assert!(before.len() >= 4, "{before:?}");
        let newest = reopened.list().into_iter().find(|it| it.source == "a").unwrap();
        let (record, bytes) = reopened.read(&newest.id).await.unwrap().unwrap();
        assert_eq!((record.size, bytes), (11, "hello 9\n\0\u{e9}".as_bytes().to_vec()));
        assert!(reopened.remove(&newest.id).await.unwrap());
        assert!(!reopened.remove(&newest.id).await.unwrap());
        assert!(reopened.read("../../etc/passwd").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn keeps_requests_of_a_source_with_few() {
        let folder = tempfile::tempdir().unwrap();
        let store = UnreadableStore::open(folder.path(), limits());
        store.keep(body("quiet", "1"), at(0)).await.unwrap();
        for number in 0..50u64 {
            for source in ["loud", "louder", "loudest"] {
                store.keep(body(source, format!("{number}{}", "x".repeat(60))), at(1 + number)).await.unwrap();
            }
        }
        assert!(store.list().iter().any(|it| it.source == "quiet"), "{:?}", store.list());
        // A body that exceeds the limit is truncated.
        store.keep(body("loud", "y".repeat(500)), at(60)).await.unwrap();
        let cut = store.list().into_iter().find(|it| it.truncated).unwrap();
        assert_eq!((cut.size, store.read(&cut.id).await.unwrap().unwrap().1.len()), (500, 100));
        // Requests that are too old are removed when the next one is kept.
        store.keep(body("new", "1"), at(2000)).await.unwrap();
        assert_eq!(store.list().len(), 1, "{:?}", store.list());
    }

    #[tokio::test]
    async fn skips_files_that_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let store = UnreadableStore::open(folder.path(), limits());
        store.keep(body("a", "1"), at(0)).await.unwrap();
        let directory = folder.path().join("unreadable");
        for (name, content) in [("unr_1", ""), ("unr_2", "{}\n"), ("unr_3", "\0\0"), ("other", "x")] {
            std::fs::write(directory.join(name), content).unwrap();
        }
        std::fs::create_dir(directory.join("unr_4")).unwrap();
        assert_eq!(UnreadableStore::open(folder.path(), limits()).list().len(), 1);
        // A directory that cannot be written is an error.
        let blocked = tempfile::tempdir().unwrap();
        std::fs::write(blocked.path().join("unreadable"), "a file").unwrap();
        let store = UnreadableStore::open(blocked.path(), limits());
        assert!(store.keep(body("a", "1"), at(0)).await.is_err());
        assert!(store.list().is_empty());
    }
}
