//! The settings that a host saves for its next start: the text of the file, and hashes of its sources' secrets.
//!
//! A host may start while its settings file is half written. The saved settings show what is missing, and the host
//! retains that for a while, as it does when the file changes at run time. Secrets themselves are not saved: salted
//! hashes show whether they have changed.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use modhost_config::ActiveSettings;
use modhost_core::event::Name;
use modhost_core::files::{self, READ_TIMEOUT};
use modhost_core::secret::Secret;

/// The name of the file in the data directory.
const FILE: &str = "settings.json";

/// The largest size of the file, in bytes: the text of the settings as a JSON string, and the hashes.
const MAX_SIZE: u64 = 16 << 20;

/// The saved settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedSettings {
    /// The absolute path of the settings file.
    file: PathBuf,
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
        let path = data_dir.join(FILE);
        match files::read(&path, MAX_SIZE) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(|saved: Self| Some(saved).filter(|it| it.file == absolute_path(settings_file)))
                .inspect_err(
                    |error| tracing::warn!(file = %path.display(), %error, "cannot read the remembered settings"),
                )
                .ok()
                .flatten(),
            Err(error) if error.is_not_found() => None,
            Err(error) => {
                tracing::warn!(file = %path.display(), ?error, "cannot read the remembered settings");
                None
            }
        }
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
        Some(Self { file: absolute_path(&written.file), text: written.text.as_str().to_owned(), salt, secrets })
    }

    /// Returns whether the source has other secrets than the saved ones.
    pub(super) fn has_other_secrets(&self, source: &Name, now: &[Secret]) -> bool {
        let Some(before) = self.secrets.get(source.as_str()) else { return false };
        let now: Vec<_> = now.iter().map(|secret| hash(&self.salt, secret)).collect();
        *before != now
    }
}

/// Saves the settings when they change.
pub(super) struct SettingsStore {
    data_dir: PathBuf,
    known: Option<SavedSettings>,
}

impl SettingsStore {
    pub(super) fn new(data_dir: PathBuf, known: Option<SavedSettings>) -> Self {
        Self { data_dir, known }
    }

    /// Saves the settings, unless some parts are only retained: what the file lacks may be missing only for a moment.
    pub(super) async fn save(&mut self, active: &ActiveSettings) {
        if !active.is_settled() {
            return;
        }
        let Some(next) = SavedSettings::of(active, self.known.as_ref()) else { return };
        if self.known.as_ref() == Some(&next) {
            return;
        }
        let (data_dir, saved) = (self.data_dir.clone(), next.clone());
        let written = files::off_runtime(READ_TIMEOUT, move || write(&data_dir, &saved)).await;
        match written {
            Ok(Ok(())) => self.known = Some(next),
            Ok(Err(error)) => tracing::warn!(%error, "cannot remember the settings for the next start"),
            Err(why) => tracing::warn!(?why, "cannot remember the settings for the next start"),
        }
    }
}

fn write(data_dir: &Path, saved: &SavedSettings) -> std::io::Result<()> {
    // The file is readable by this user only, like every temporary file.
    let mut file = tempfile::NamedTempFile::new_in(data_dir)?;
    serde_json::to_writer(&mut file, saved)?;
    file.flush()?;
    file.as_file().sync_all()?;
    file.persist(data_dir.join(FILE))?;
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
