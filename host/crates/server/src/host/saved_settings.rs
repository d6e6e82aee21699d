//! The settings that a host saves for its next start: the text of the file, and hashes of its sources' secrets.
//!
//! A host may start while its settings file is half written. The saved settings show what is missing, and the host
//! retains that for a while, as it does when the file changes at run time. Secrets themselves are not saved: salted
//! hashes show whether they have changed.
//!
//! An included file is saved in a file of its own, when its settings are accepted: with a thousand tenants, a change of
//! one writes one small file. At the next start the saved settings decide who has a name, a path or a company.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use modhost_config::{ActiveHost, ActiveSettings};
use modhost_core::event::Name;
use modhost_core::files::{self, READ_TIMEOUT};
use modhost_core::secret::Secret;

/// The name of the file in the data directory.
const FILE: &str = "settings.json";

/// The folder in the data directory with the saved included files.
const INCLUDED: &str = "included";

/// How many files are written at a time, so that a slow disk doesn't exceed the time limit.
const BATCH: usize = 64;

/// The largest size of the file, in bytes: the text of the settings as a JSON string, and the hashes.
const MAX_SIZE: u64 = 16 << 20;

/// The saved settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedSettings {
    /// The absolute path of the settings file.
    file: PathBuf,
    /// For an included file, its path as the settings have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<PathBuf>,
    /// For an included file, the absolute path of the settings file that includes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    top: Option<PathBuf>,
    /// Its text.
    pub text: String,
    /// The salt of the hashes, in hex.
    salt: String,
    /// The hashes of each source's secrets, by source.
    secrets: BTreeMap<String, Vec<String>>,
}

impl SavedSettings {
    /// Reads the settings that the previous run saved. Returns `None` if there are none, they are of another settings
    /// file, or they can't be read.
    pub(super) fn read(data_dir: &Path, settings_file: &Path) -> Option<Self> {
        Self::read_file(&data_dir.join(FILE)).filter(|it| it.file == absolute_path(settings_file))
    }

    fn read_file(path: &Path) -> Option<Self> {
        match files::read(path, MAX_SIZE) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .inspect_err(
                    |error| tracing::warn!(file = %path.display(), %error, "cannot read the remembered settings"),
                )
                .ok(),
            Err(error) if error.is_not_found() => None,
            Err(error) => {
                tracing::warn!(file = %path.display(), ?error, "cannot read the remembered settings");
                None
            }
        }
    }

    /// Reads the included files that the previous run saved, by their paths as the settings have them. `top` is the
    /// settings file, and `files` are the files that it includes now: their paths differ if the previous run was
    /// started in another folder.
    pub(super) fn read_included(data_dir: &Path, top: &Path, files: &BTreeSet<PathBuf>) -> BTreeMap<PathBuf, Self> {
        let entries = match std::fs::read_dir(data_dir.join(INCLUDED)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return BTreeMap::new(),
            Err(error) => {
                tracing::warn!(%error, "cannot read the remembered settings of included files");
                return BTreeMap::new();
            }
        };
        let top = absolute_path(top);
        let saved = entries.filter_map(|entry| Self::read_file(&entry.ok()?.path()));
        let saved = saved.filter(|saved| saved.top.as_ref() == Some(&top));
        let now: BTreeMap<PathBuf, &PathBuf> = files.iter().map(|file| (absolute_path(file), file)).collect();
        saved
            .filter_map(|saved| Some((now.get(&saved.file).copied().or(saved.path.as_ref())?.clone(), saved)))
            .collect()
    }

    /// Returns the settings to save. Keeps the salt of `before`, the ones saved last.
    fn of(active: &ActiveSettings, before: Option<&Self>) -> Option<Self> {
        let salt = match before {
            Some(before) => before.salt.clone(),
            None => new_salt()?,
        };
        let secrets = active.settings().sources.iter().map(|source| {
            let hashes = active.current_secrets(&source.name).iter().map(|secret| hash(&salt, secret));
            (source.name.to_string(), hashes.collect())
        });
        let secrets = secrets.collect();
        let written = active.as_written();
        let text = written.text.as_str().to_owned();
        Some(Self { file: absolute_path(&written.file), path: None, top: None, text, salt, secrets })
    }

    /// Returns whether the source has other secrets than the saved ones.
    pub(super) fn has_other_secrets(&self, source: &Name, now: &[Secret]) -> bool {
        let Some(before) = self.secrets.get(source.as_str()) else { return false };
        let now: Vec<_> = now.iter().map(|secret| hash(&self.salt, secret)).collect();
        *before != now
    }
}

/// The settings that a host saved, by file.
#[derive(Default)]
pub(super) struct Saved {
    /// Those of modules.toml.
    pub top: Option<SavedSettings>,
    /// Those of included files.
    pub included: BTreeMap<PathBuf, SavedSettings>,
}

/// Saves the settings when they change.
pub(super) struct SettingsStore {
    data_dir: PathBuf,
    known: Saved,
    /// The settings of included files that were compared with the saved ones.
    seen: BTreeMap<PathBuf, Arc<ActiveSettings>>,
}

/// A file to write in the data directory; without settings, a file to remove.
type Change = (PathBuf, Option<SavedSettings>);

impl SettingsStore {
    pub(super) fn new(data_dir: PathBuf, known: Saved) -> Self {
        Self { data_dir, known, seen: BTreeMap::new() }
    }

    /// Saves the settings of each file, unless some of its parts are only retained: what the file lacks may be missing
    /// only for a moment.
    pub(super) async fn save(&mut self, host: &ActiveHost) {
        let mut changes = Vec::new();
        let top = host.top();
        if top.is_settled()
            && let Some(next) = SavedSettings::of(top, self.known.top.as_ref())
            && self.known.top.as_ref() != Some(&next)
        {
            changes.push((None, Some(next)));
        }
        for (path, active) in host.files().iter().filter_map(|(path, file)| Some((path, file.active()?))) {
            let is_seen = self.seen.get(path).is_some_and(|seen| Arc::ptr_eq(seen, active));
            if is_seen || !active.is_settled() {
                continue;
            }
            self.seen.insert(path.clone(), active.clone());
            let known = self.known.included.get(path);
            if let Some(mut next) = SavedSettings::of(active, known) {
                next.path = Some(path.clone());
                next.top = Some(absolute_path(&top.as_written().file));
                if known != Some(&next) {
                    changes.push((Some(path.clone()), Some(next)));
                }
            }
        }
        let gone = self.known.included.keys().filter(|path| !host.files().contains_key(*path));
        changes.extend(gone.map(|path| (Some(path.clone()), None)));
        for batch in changes.chunks(BATCH) {
            self.write(batch).await;
        }
    }

    async fn write(&mut self, batch: &[(Option<PathBuf>, Option<SavedSettings>)]) {
        let files: Vec<Change> =
            batch.iter().map(|(path, saved)| (self.file_of(path.as_deref()), saved.clone())).collect();
        let written = files::off_runtime(READ_TIMEOUT, move || files.iter().try_for_each(write)).await;
        let written = match written {
            Ok(written) => written.map_err(|error| error.to_string()),
            Err(why) => Err(format!("{why:?}")),
        };
        if let Err(error) = written {
            for (path, _) in batch {
                path.iter().for_each(|path| _ = self.seen.remove(path));
            }
            return tracing::warn!(error, "cannot remember the settings for the next start");
        }
        for (path, saved) in batch.iter().cloned() {
            match (path, saved) {
                (None, saved) => self.known.top = saved,
                (Some(path), Some(saved)) => _ = self.known.included.insert(path, saved),
                (Some(path), None) => {
                    self.known.included.remove(&path);
                    self.seen.remove(&path);
                }
            }
        }
    }

    /// Returns the file in the data directory for an included file, or for modules.toml.
    fn file_of(&self, included: Option<&Path>) -> PathBuf {
        let Some(path) = included else { return self.data_dir.join(FILE) };
        let digest = Sha256::digest(absolute_path(path).as_os_str().as_encoded_bytes());
        self.data_dir.join(INCLUDED).join(format!("{}.json", hex::encode(&digest[..16])))
    }
}

fn write((file, saved): &Change) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let Some(saved) = saved else {
        return std::fs::remove_file(file).or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        });
    };
    if !folder.exists() {
        std::fs::create_dir(folder)?;
    }
    // The file is readable by this user only, like every temporary file.
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&mut temporary, saved)?;
    temporary.flush()?;
    temporary.as_file().sync_all()?;
    temporary.persist(file)?;
    Ok(())
}

/// Returns the absolute path of a file.
fn absolute_path(file: &Path) -> PathBuf {
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned())
}

fn new_salt() -> Option<String> {
    let mut salt = [0; 16];
    SystemRandom::new().fill(&mut salt).ok()?;
    Some(hex::encode(salt))
}

fn hash(salt: &str, secret: &Secret) -> String {
    let digest = Sha256::new_with_prefix(salt).chain_update(secret.expose()).finalize();
    hex::encode(&digest[..16])
}

/// Returns whether a file was modified longer ago than `age`. Returns false for a time in the future.
pub(super) fn is_older_than(file: &Path, age: Duration) -> bool {
    let modified = std::fs::metadata(file).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|elapsed| elapsed > age))
}
