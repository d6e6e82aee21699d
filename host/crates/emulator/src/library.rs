//! The knowledge base: a folder of documents behind a full-text index (SQLite's FTS5).

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};
use serde_json::{Value, json};
use url::Url;

use super::LocalError;
use super::documents::{self, Document, Found, Passage};
use super::stemmer::significant_words;
use modhost_core::sync::lock;

/// Minimum interval between scans of the folder for changes.
const SCAN_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum number of words in a search: FTS5 limits the depth of an expression.
const MAX_WORDS: usize = 64;

/// A folder of documents and its index.
pub struct Library {
    folder: Option<PathBuf>,
    base: Url,
    inner: Mutex<Inner>,
}

struct Inner {
    index: Connection,
    files: BTreeMap<String, File>,
    scanned: Instant,
}

/// A file of the folder as of the last scan.
struct File {
    seen: Found,
    /// `None` if it couldn't be read: it is not read (and reported) again until it changes.
    document: Option<Arc<Document>>,
}

/// A passage found, with its document.
#[derive(Clone, Debug)]
pub struct Hit {
    /// The document.
    pub document: Arc<Document>,
    /// The passage.
    pub passage: Passage,
    /// Where the document can be read.
    pub url: Url,
}

impl Library {
    /// Reads and indexes a folder. URLs of documents start with `base`.
    pub fn open(folder: Option<&Path>, base: Url) -> Result<Self, LocalError> {
        let index = Connection::open_in_memory()
            .and_then(|index| index.execute_batch(SCHEMA).map(|()| index))
            .map_err(LocalError::Index)?;
        let mut inner = Inner { index, files: BTreeMap::new(), scanned: Instant::now() };
        if let Some(folder) = folder {
            let unreadable = |source| LocalError::Documents { path: folder.to_owned(), source };
            let found = documents::find(folder).map_err(unreadable)?;
            inner.update(found).map_err(LocalError::Index)?;
        }
        Ok(Self { folder: folder.map(Path::to_owned), base, inner: Mutex::new(inner) })
    }

    /// Returns the passages that match a text, best first, of documents that `wanted` accepts. A text without words has
    /// no results.
    pub fn search(&self, text: &str, wanted: impl Fn(&Document) -> bool) -> rusqlite::Result<Vec<Hit>> {
        let inner = self.current();
        let expression = match_expression(text);
        if expression.is_empty() {
            return Ok(Vec::new());
        }
        let mut statement = inner.index.prepare_cached(SEARCH)?;
        let places = statement.query_map([expression], |row| Ok((row.get::<_, String>(0)?, row.get::<_, u32>(1)?)))?;
        let mut hits = Vec::new();
        for place in places {
            let (key, order) = place?;
            let Some(document) = inner.document(&key).filter(|document| wanted(document)) else {
                continue;
            };
            let Some(passage) = document.passages.get(order as usize) else {
                continue;
            };
            hits.push(Hit { document: Arc::clone(document), passage: passage.clone(), url: self.url(&key) });
        }
        Ok(hits)
    }

    /// Returns all documents in the order of their keys.
    pub fn documents(&self) -> Vec<Arc<Document>> {
        self.current().files.values().filter_map(|file| file.document.clone()).collect()
    }

    /// Returns the document with this key.
    pub fn document(&self, key: &str) -> Option<Arc<Document>> {
        self.current().document(key).cloned()
    }

    /// Returns the URL of the document with this key.
    pub fn url(&self, key: &str) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(["local", "documents"]).extend(key.split('/'));
        }
        url
    }

    /// Returns the current documents, rescanning the folder if the last scan is older than [`SCAN_INTERVAL`].
    fn current(&self) -> MutexGuard<'_, Inner> {
        // After a panic in a change, at worst a document has to be read again.
        let mut inner = lock(&self.inner);
        if let Some(folder) = self.folder.as_deref().filter(|_| inner.scanned.elapsed() >= SCAN_INTERVAL) {
            inner.scanned = Instant::now();
            let updated = documents::find(folder)
                .map_err(|error| error.to_string())
                .and_then(|found| inner.update(found).map_err(|error| error.to_string()));
            if let Err(error) = updated {
                tracing::warn!(folder = %folder.display(), %error, "cannot read the documents folder; searching the previous contents");
            }
        }
        inner
    }
}

impl Inner {
    fn document(&self, key: &str) -> Option<&Arc<Document>> {
        self.files.get(key)?.document.as_ref()
    }

    /// Indexes the changes since the last scan.
    fn update(&mut self, found: Vec<Found>) -> rusqlite::Result<()> {
        let present: HashSet<&str> = found.iter().map(|found| found.key.as_str()).collect();
        let gone: Vec<String> = self.files.keys().filter(|key| !present.contains(key.as_str())).cloned().collect();
        for key in gone {
            self.forget(&key)?;
        }
        for seen in found {
            if self.files.get(&seen.key).is_some_and(|file| file.seen == seen) {
                continue;
            }
            self.forget(&seen.key)?;
            let document = documents::read(&seen)
                .inspect_err(|error| tracing::warn!(file = %seen.path.display(), %error, "cannot index document"))
                .ok();
            if let Some(document) = &document {
                self.add(document)?;
            }
            self.files.insert(seen.key.clone(), File { seen, document: document.map(Arc::new) });
        }
        Ok(())
    }

    fn forget(&mut self, key: &str) -> rusqlite::Result<()> {
        if self.files.remove(key).is_some() {
            self.index.execute("DELETE FROM passages WHERE key = ?1", [key])?;
        }
        Ok(())
    }

    fn add(&mut self, document: &Document) -> rusqlite::Result<()> {
        let transaction = self.index.transaction()?;
        for passage in &document.passages {
            transaction.execute(
                "INSERT INTO passages (key, place, title, text) VALUES (?1, ?2, ?3, ?4)",
                params![document.key, passage.order, document.title, passage.text],
            )?;
        }
        transaction.commit()
    }
}

const SCHEMA: &str = "CREATE VIRTUAL TABLE passages USING fts5(
    key UNINDEXED, place UNINDEXED, title, text, tokenize = 'porter unicode61 remove_diacritics 2'
)";

/// A word in the title counts twice. Equal ranks are ordered by key and position, so that the same query always returns
/// the same result.
const SEARCH: &str = "SELECT key, CAST(place AS INTEGER) FROM passages WHERE passages MATCH ?1
    ORDER BY bm25(passages, 0.0, 0.0, 2.0, 1.0), key, CAST(place AS INTEGER)";

/// Returns an FTS5 expression that matches any of the significant words of a text. Words contain only letters and
/// digits and are quoted, so that input is never parsed as syntax.
fn match_expression(text: &str) -> String {
    let mut expression = String::new();
    for word in significant_words(text).iter().take(MAX_WORDS) {
        let or = if expression.is_empty() { "" } else { " OR " };
        // Writing to a string can't fail.
        let _ = write!(expression, "{or}\"{word}\"");
    }
    expression
}

impl Document {
    /// Returns the metadata in the platform's search results, which filters use.
    pub fn metadata(&self) -> Value {
        json!({
            "key": self.key,
            "title": self.title,
            "mimeType": self.mime_type,
            "folderIdPath": format!("uniquepathid://{}", self.scopes.join("/")),
        })
    }
}
