//! What a host remembers of its settings for the next one: the text of the file, and which secrets its sources had.
//!
//! A host that starts on a file that is just being written finds half of it. From this it knows what is missing, and keeps
//! that for a while as it does when the file changes while it runs. Secrets are not kept: salted hashes tell whether they are
//! the same.

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

/// The file in the data directory.
const FILE: &str = "settings.json";

/// The largest such file, in bytes: the text of the settings in JSON, and some.
const MAX_SIZE: u64 = 16 << 20;

/// What is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedSettings {
    /// The settings file.
    file: PathBuf,
    /// Its text.
    pub text: String,
    /// What the secrets are hashed with.
    salt: String,
    /// The hashes of each source's secrets.
    secrets: BTreeMap<String, Vec<String>>,
}

impl SavedSettings {
    /// What the host before this one left; none if there was none, it had another settings file, or it can't be read.
    pub(super) fn read(data_dir: &Path, settings_file: &Path) -> Option<Self> {
        let path = data_dir.join(FILE);
        match files::read(&path, MAX_SIZE) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(|remembered: Self| Some(remembered).filter(|it| it.file == whole_path(settings_file)))
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

    /// What is to be remembered of these settings; `before` is what was.
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
        Some(Self { file: whole_path(&written.file), text: written.text.as_str().to_owned(), salt, secrets })
    }

    /// Whether a source had other secrets.
    pub(super) fn has_other_secrets(&self, source: &Name, now: &[Secret]) -> bool {
        let Some(before) = self.secrets.get(source.as_str()) else { return false };
        let now: Vec<_> = now.iter().map(|secret| hash(&self.salt, secret)).collect();
        *before != now
    }
}

/// Writes down what is to be remembered, when that has changed.
pub(super) struct Memory {
    data_dir: PathBuf,
    known: Option<SavedSettings>,
}

impl Memory {
    pub(super) fn new(data_dir: PathBuf, known: Option<SavedSettings>) -> Self {
        Self { data_dir, known }
    }

    /// Remembers settings of which nothing is kept: what is may be missing for a moment only.
    pub(super) async fn note(&mut self, active: &ActiveSettings) {
        if !active.is_settled() {
            return;
        }
        let Some(next) = SavedSettings::of(active, self.known.as_ref()) else { return };
        if self.known.as_ref() == Some(&next) {
            return;
        }
        let (data_dir, remembered) = (self.data_dir.clone(), next.clone());
        let written = files::off_runtime(READ_TIMEOUT, move || write(&data_dir, &remembered)).await;
        match written {
            Ok(Ok(())) => self.known = Some(next),
            Ok(Err(error)) => tracing::warn!(%error, "cannot remember the settings for the next start"),
            Err(why) => tracing::warn!(?why, "cannot remember the settings for the next start"),
        }
    }
}

fn write(data_dir: &Path, remembered: &SavedSettings) -> std::io::Result<()> {
    // Readable by this user only, as everything of its kind.
    let mut file = tempfile::NamedTempFile::new_in(data_dir)?;
    serde_json::to_writer(&mut file, remembered)?;
    file.flush()?;
    file.as_file().sync_all()?;
    file.persist(data_dir.join(FILE))?;
    Ok(())
}

/// A path that means the same from every folder.
fn whole_path(file: &Path) -> PathBuf {
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

/// Whether a file has not been written for so long; a time in the future says nothing.
pub(super) fn is_older_than(file: &Path, age: Duration) -> bool {
    let modified = std::fs::metadata(file).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|elapsed| elapsed > age))
}
